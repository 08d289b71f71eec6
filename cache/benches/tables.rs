//! What writing and naming a table costs: `cargo bench --workspace --bench tables`.
//!
//! Megabytes of Arrow data a second of one core's time (what the kernel counts for the thread, so that neighbours do not
//! show), the best of three. `TEXT=file` takes the words of a file instead of those in the repository's documents, and
//! `KEEP=folder` leaves the tables there, for `tests/peers/tables.py`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench reads its settings and reports"
)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Float32Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{WriterProperties, WriterVersion};
use retort_cache::content::ContentHasher;
use retort_cache::{Digest, Disk, RecipeId, Store, row_keys};

/// Megabytes a second that naming and writing should reach.
const TARGET: f64 = 500.0;

fn main() {
    let tables = [
        ("chunks", chunks(60_000)),
        ("pairs", pairs(150_000)),
        ("numbers", numbers(2_000_000)),
        ("tensors", tensors(300)),
    ];
    println!("table    MB    hash  encode   write and name, synced  file  (MB/s of a core; target {TARGET})");
    for (name, batch) in &tables {
        let mb = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap()).sum::<usize>()
            as f64
            / 1e6;
        let hash = mb / seconds(|| hash(batch));
        let encode = mb / seconds(|| encode(batch));
        let mut bytes = 0;
        let write = mb / seconds(|| bytes = write(batch, None));
        if let Some(folder) = std::env::var_os("KEEP") {
            self::write(batch, Some(&Path::new(&folder).join(format!("{name}.parquet"))));
        }
        let of_target = write / TARGET;
        println!(
            "{name:8} {mb:4.0} {hash:6.0}  {encode:6.0}  {write:6.0} ({of_target:.2} of target)  {:4.0} %",
            bytes as f64 / mb / 1e4
        );
    }
    let texts = tables[1].1.project(&[2]).unwrap();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let one = pool(1);
    let keys = one.install(|| seconds(|| row_keys(RecipeId(Digest::of("bench 1", |_| {})), &texts).unwrap()));
    println!(
        "row keys of short texts: {:.1} million a second of a core (target 1)",
        texts.num_rows() as f64 / keys / 1e6
    );
    println!("peak memory {}", status("VmHWM"));
}

fn hash(batch: &RecordBatch) -> retort_cache::ContentId {
    let mut hasher = ContentHasher::new(&batch.schema());
    hasher.update(batch).unwrap();
    hasher.finish()
}

/// The Parquet writer without its compression and without a file.
fn encode(batch: &RecordBatch) -> usize {
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(8192))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    for at in (0..batch.num_rows()).step_by(1024) {
        writer.write(&batch.slice(at, 1024.min(batch.num_rows() - at))).unwrap();
    }
    writer.into_inner().unwrap().len()
}

/// As the engine writes a table. Gives the file's length, and may leave the file somewhere.
fn write(batch: &RecordBatch, keep: Option<&Path>) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Disk::open(folder.path()).unwrap().writer(batch.schema()).unwrap();
    for at in (0..batch.num_rows()).step_by(4096) {
        writer.write(&batch.slice(at, 4096.min(batch.num_rows() - at))).unwrap();
    }
    let table = writer.finish().unwrap();
    let path = table.path().unwrap();
    keep.map(|keep| fs::copy(path, keep).unwrap());
    fs::metadata(path).unwrap().len()
}

/// Seconds that this thread was at work, the best of three.
fn seconds<T>(mut work: impl FnMut() -> T) -> f64 {
    let busy = || fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse::<f64>();
    let once = |_| {
        let begun = busy().unwrap();
        std::hint::black_box(work());
        (busy().unwrap() - begun) / 1e9
    };
    (0..3).map(once).fold(f64::MAX, f64::min)
}

fn status(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', ' ', '\t']).to_owned()
}

/// Words that follow each other as they do in a text, so that it compresses as text does.
struct Words {
    all: Vec<String>,
    next: HashMap<String, Vec<usize>>,
    state: u64,
}

impl Words {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = match std::env::var("TEXT") {
            Ok(path) => fs::read_to_string(path).unwrap(),
            Err(_) => {
                let docs = [
                    "docs/system/installer-packages.md",
                    "docs/netinfo/commands.md",
                    "docs/glossary-faq.md",
                    "docs/install-next.md",
                    "docs/troubleshooting.md",
                ];
                let read = |path: &&str| fs::read_to_string(root.join("pipelines/nextstep").join(path)).unwrap();
                let guides = ["GUIDE.md", "ARCHITECTURE.md"].map(|path| fs::read_to_string(root.join(path)).unwrap());
                docs.iter().map(read).chain(guides).collect()
            }
        };
        let all: Vec<String> = text.split_inclusive([' ', '\n']).map(String::from).collect();
        let mut next: HashMap<String, Vec<usize>> = HashMap::new();
        all.iter().enumerate().for_each(|(at, word)| next.entry(word.clone()).or_default().push(at));
        Words { all, next, state: 0x1234_5678_9abc }
    }

    fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % n
    }

    /// About so many bytes.
    fn text(&mut self, bytes: usize) -> String {
        let wanted = bytes / 2 + self.below(bytes);
        let (mut text, mut at) = (String::new(), self.below(self.all.len()));
        while text.len() < wanted {
            text += &self.all[at];
            let places = self.next[&self.all[at]].len();
            let place = self.below(places);
            at = (self.next[&self.all[at]][place] + 1) % self.all.len();
        }
        text
    }
}

fn hex(n: usize) -> String {
    blake3::hash(&n.to_le_bytes()).to_hex()[..32].to_owned()
}

fn texts(texts: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

fn chunks(n: usize) -> RecordBatch {
    let mut words = Words::new();
    RecordBatch::try_from_iter([
        ("chunk_id", texts((0..n).map(hex))),
        ("doc_id", texts((0..n).map(|i| hex(i / 20)))),
        ("path", texts((0..n).map(|i| format!("docs/system/file-{}.html", i / 20)))),
        ("start", Arc::new(UInt64Array::from_iter_values((0..n).map(|i| (i % 20 * 1300) as u64))) as ArrayRef),
        ("text", texts((0..n).map(|_| words.text(1200)))),
    ])
    .unwrap()
}

fn pairs(n: usize) -> RecordBatch {
    let mut words = Words::new();
    RecordBatch::try_from_iter([
        ("chunk_id", texts((0..n).map(|i| hex(i / 3)))),
        ("question", texts((0..n).map(|_| words.text(80)))),
        ("answer", texts((0..n).map(|i| format!("{i}")))),
        (
            "output",
            texts({
                let mut words = Words::new();
                (0..n).map(move |_| words.text(150))
            }),
        ),
    ])
    .unwrap()
}

fn numbers(n: usize) -> RecordBatch {
    let mut words = Words::new();
    let wide: ArrayRef = Arc::new(Int64Array::from_iter_values((0..n).map(|_| words.below(1 << 50) as i64)));
    let counted: ArrayRef = Arc::new(UInt64Array::from_iter_values((0..n).map(|i| i as u64)));
    let floats: ArrayRef = Arc::new(Float32Array::from_iter_values((0..n).map(|_| words.below(1 << 24) as f32)));
    RecordBatch::try_from_iter([("wide", wide), ("counted", counted), ("floats", floats)]).unwrap()
}

fn tensors(n: usize) -> RecordBatch {
    let mut words = Words::new();
    let mut tensor =
        |_| (0..40_000).flat_map(|_| (words.below(1 << 24) as f32 / 1e8).to_le_bytes()).collect::<Vec<u8>>();
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..n).map(&mut tensor)));
    RecordBatch::try_from_iter([("name", texts((0..n).map(|i| format!("layers.{i}")))), ("values", values)]).unwrap()
}

//! Looking up remembered rows: `cargo bench --workspace --bench rowlog`, `ROWS=10000000` for the long one.
//!
//! Three processes each have a go at logs of two sizes, one a tenth of the other: one writes rows, one opens the log for the
//! first time, which joins its segments, and one reads. What a log costs a reader must not grow with it: memory of its own
//! (`RssAnon`) is told apart from pages of the index and of the segments that the system can take back (`RssFile`).
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench reads its settings and reports"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_cache::rowlog::RowLog;
use retort_cache::{Digest, RowAnswer, RowKey, RowMemo};

/// Rows that are looked up at a time, as the engine does.
const WINDOW: usize = 4096;
/// Rows a second of a core that look-ups should reach.
const TARGET: f64 = 1e6;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, phase, folder, rows] = &args[..] {
        let (folder, rows) = (Path::new(folder), rows.parse().unwrap());
        match phase.as_str() {
            "write" => write(folder, rows),
            "open" => drop(open(folder)),
            _ => read(folder, rows),
        }
        return;
    }
    let rows: usize = std::env::var("ROWS").map_or(1_000_000, |rows| rows.parse().unwrap());
    for rows in [rows / 10, rows] {
        println!("{rows} rows");
        let folder = tempfile::tempdir().unwrap();
        for phase in ["write", "open", "read"] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let done = command.arg(phase).arg(folder.path()).arg(rows.to_string()).status().unwrap();
            assert!(done.success());
        }
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("output", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
    ]))
}

fn key(n: usize) -> RowKey {
    RowKey(Digest::of("bench 1", |hasher| {
        hasher.update(&n.to_le_bytes());
    }))
}

fn answer(n: usize) -> RowAnswer {
    let output: ArrayRef = Arc::new(StringArray::from_iter_values([format!("the answer to question number {n}")]));
    let reason: ArrayRef = Arc::new(StringArray::from_iter_values(["stop"]));
    RowAnswer::Kept(RecordBatch::try_new(schema(), vec![output, reason]).unwrap().into())
}

fn open(folder: &Path) -> RowLog {
    let begun = Instant::now();
    let log = RowLog::open(folder, schema()).unwrap();
    let segments =
        fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "rows");
    println!("  opened in {:.3} s, {} segments, {}", begun.elapsed().as_secs_f64(), segments.count(), memory());
    log
}

fn write(folder: &Path, rows: usize) {
    let (begun, log) = (Instant::now(), RowLog::open(folder, schema()).unwrap());
    for from in (0..rows).step_by(2000) {
        let rows: Vec<_> = (from..rows.min(from + 2000)).map(|n| (key(n), answer(n))).collect();
        log.commit(&rows).unwrap();
    }
    println!("  written at {:.0} rows/s, synced by 2,000, {}", rows as f64 / begun.elapsed().as_secs_f64(), memory());
}

fn read(folder: &Path, rows: usize) {
    let log = open(folder);
    // Neighbours in the order of a table, as a run asks them; then any rows, as a shuffled table has them.
    let in_order: Vec<RowKey> = (0..rows.min(1_000_000)).map(key).collect();
    let mut state = 0x1234_5678_9abc_u64;
    let mut any = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        key((state >> 11) as usize % rows)
    };
    let shuffled: Vec<RowKey> = (0..200_000).map(&mut any).collect();
    let unknown: Vec<RowKey> = (0..1_000_000).map(|n| key(rows + n)).collect();
    let rate = |what: &str, keys: &[RowKey], found: &dyn Fn(&[RowKey]) -> usize, expected: usize| {
        let mut best = 0_f64;
        for _ in 0..3 {
            let begun = busy();
            let found: usize = keys.chunks(WINDOW).map(found).sum();
            best = best.max(keys.len() as f64 / (busy() - begun));
            assert_eq!(found, expected);
        }
        println!("  {what}: {:.2} million rows/s of a core ({:.1} of target)", best / 1e6, best / TARGET);
    };
    let knows = |keys: &[RowKey]| log.knows(keys).unwrap().into_iter().filter(|known| *known).count();
    let recall = |keys: &[RowKey]| log.recall(keys).unwrap().into_iter().flatten().count();
    rate("known, in order", &in_order, &knows, in_order.len());
    rate("known, any", &shuffled, &knows, shuffled.len());
    rate("not known", &unknown, &knows, 0);
    rate("recalled with their answers, in order", &in_order, &recall, in_order.len());
    println!("  {}", memory());
    let few = &shuffled[..WINDOW];
    rate("recalled with their answers, any", few, &recall, few.len());
    println!("  {}", memory());
}

/// Seconds that the process was at work, on all cores.
fn busy() -> f64 {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let stat = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        nanoseconds += stat.split(' ').next().unwrap().parse::<f64>().unwrap();
    }
    nanoseconds / 1e9
}

fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse::<f64>().unwrap() / 1e3
    };
    format!("peak {:.0} MB, now {:.0} MB of its own and {:.0} MB of files", of("VmHWM"), of("RssAnon"), of("RssFile"))
}

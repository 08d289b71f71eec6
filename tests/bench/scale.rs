//! How the cost of a run grows with its graph: `cargo bench --workspace --bench scale`.
//!
//! Every shape and size is run as a whole command: cold, again (no-op), and with another config of one node; then `plan` and
//! `check`. Beside each stand milliseconds, milliseconds a node and the peak of resident memory. At last the parts of a no-op run within this process.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `RETORT_BENCH_NODES` | sizes | `10,1000,10000` |
//! | `RETORT_BENCH_SHAPES` | shapes | `chain,fan,diamonds` |
//! | `RETORT_BENCH_DIR` | where stores are made | `/dev/shm` where it exists: what is measured is the overhead beyond the disk's syncs |

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod graphs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use graphs::{DOCUMENTS, Shape, pipeline};
use retort::load::{LoadOptions, load};
use retort_cache::Disk;
use retort_cache::digests::FileDigests;
use retort_engine::{Asset, Assets, Event, Failure, Limits, World};

/// Times that everything but the cold run is repeated; the median counts.
const REPEATS: usize = 5;

fn main() {
    let nodes = setting("RETORT_BENCH_NODES", "10,1000,10000");
    let shapes = setting("RETORT_BENCH_SHAPES", "chain,fan,diamonds");
    println!("{:>8} {:9} {:9} {:>10} {:>10} {:>9}", "nodes", "shape", "what", "ms", "ms/node", "peak MB");
    for shape in shapes.split(',') {
        let (_, shape) = Shape::ALL.into_iter().find(|(name, _)| *name == shape.trim()).expect("a shape");
        for n in nodes.split(',') {
            measure(shape, n.trim().parse().expect("a number of nodes"));
        }
    }
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_string())
}

fn measure(shape: Shape, n: usize) {
    let folder = std::env::var_os("RETORT_BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(folder).expect("a folder for the bench");
    let path = folder.path();
    for (name, text) in DOCUMENTS {
        fs::create_dir_all(path.join(name).parent().expect("it has a folder")).expect("it can be made");
        fs::write(path.join(name), text).expect("it can be written");
    }
    let write = |edit| fs::write(path.join("many.yaml"), pipeline(shape, n, edit)).expect("it can be written");
    write(0);
    let report = |what: &str, (time, peak): (Duration, u64)| row(n, shape, what, time, Some(peak));
    report("cold", command(path, &["run", "many.yaml"]));
    report("no-op", median((0..REPEATS).map(|_| command(path, &["run", "many.yaml"])).collect()));
    let edited = (1..=REPEATS as u64).map(|edit| {
        write(edit);
        command(path, &["run", "many.yaml"])
    });
    report("one edit", median(edited.collect()));
    report("plan", median((0..REPEATS).map(|_| command(path, &["plan", "many.yaml"])).collect()));
    report("check", median((0..REPEATS).map(|_| command(path, &["check", "many.yaml"])).collect()));
    parts(path, n, shape);
}

fn row(n: usize, shape: Shape, what: &str, time: Duration, peak: Option<u64>) {
    let ms = time.as_secs_f64() * 1e3;
    let peak = peak.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
    let shape = format!("{shape:?}").to_lowercase();
    println!("{n:>8} {shape:9} {what:9} {ms:>10.1} {:>10.4} {peak:>9}", ms / n as f64);
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Runs the command to its end; gives its time and the peak of its memory.
fn command(folder: &Path, args: &[&str]) -> (Duration, u64) {
    let start = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_victim"));
    command.args(args).current_dir(folder).env_remove("RETORT_STORE");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let peak = watch(&mut child);
    let status = child.wait().expect("it ends");
    assert!(status.success(), "`retort {}` failed", args.join(" "));
    (start.elapsed(), peak)
}

/// The peak of a process's resident memory as the system counts it, looked up until the process has ended. 0 where it can't be known.
fn watch(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("it can be asked").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_micros(300));
    }
    peak
}

/// The parts of a no-op run: what the command adds is the process, the views and the record.
fn parts(folder: &Path, n: usize, shape: Shape) {
    let start = Instant::now();
    let loaded = load(&folder.join("many.yaml"), &LoadOptions::default(), retort_ops::REGISTRY);
    let loaded = loaded.map_err(|mistakes| mistakes.render(false)).expect("it has no mistakes");
    row(n, shape, "- load", start.elapsed(), None);
    let store = Disk::open(folder.join(".retort")).expect("the store opens");
    let digests = FileDigests::open(folder.join(".retort/assets/digests.json"));
    let (events, cancelled) = (|_: &Event| (), AtomicBool::new(false));
    let world = World { store: &store, assets: &NoAssets, digests: &digests, events: &events, cancelled: &cancelled };
    let start = Instant::now();
    retort_engine::plan(&loaded.graph, &[], world).expect("it can be planned");
    row(n, shape, "- plan", start.elapsed(), None);
    let start = Instant::now();
    let limits = Limits { jobs: 2, keep_going: false, force: Vec::new() };
    let summary = retort_engine::run(&loaded.graph, &[], world, &limits);
    assert_eq!(summary.fresh, n);
    row(n, shape, "- run", start.elapsed(), None);
}

struct NoAssets;

impl Assets for NoAssets {
    fn digest(&self, asset: &Asset) -> Result<String, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }

    fn path(&self, asset: &Asset, _: &mut dyn FnMut(u64, u64) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }
}

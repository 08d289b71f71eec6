//! A folder of many files, of which one changes: `cargo bench --workspace --bench files`, `FILES=` for other numbers.
//!
//! The program itself runs three times: on nothing, on what it made, and with one file changed. Beside each run's time stand the
//! seconds that its threads were at work and the most memory it had. The memo of digests is warm in the last two.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench reads its settings and reports")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds that a run with one changed file may take.
const TARGET: f64 = 1.0;
const PIPELINE: &str = "retort: 1\nname: many\nnodes:\n  documents:\n    op: extract\n    with: {paths: [docs]}\n";

fn main() {
    let n: usize = std::env::var("FILES").map_or(100_000, |files| files.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = |n: usize| folder.path().join(format!("docs/{:03}/{n:06}.md", n % 500));
    for n in 0..n {
        fs::create_dir_all(path(n).parent().unwrap()).unwrap();
        fs::write(
            path(n),
            format!("# Disk {n}\n\nThe disk number {n} is mounted by the line number {n} of `fstab`.\n"),
        )
        .unwrap();
    }
    fs::write(folder.path().join("many.yaml"), PIPELINE).unwrap();
    let run = || run(folder.path());
    // What was written just now may be written again under the same time stamp; such files are not remembered.
    std::thread::sleep(Duration::from_millis(100));
    println!("{n} files");
    println!("  nothing is known:   {}", run().1);
    println!("  all is known:       {}", run().1);
    for _ in 0..3 {
        let text = fs::read_to_string(path(n / 2)).unwrap();
        fs::write(path(n / 2), text + "And by hand.\n").unwrap();
        let (seconds, told) = run();
        println!("  one file changed:   {told} ({:.2} of target)", TARGET / seconds);
    }
}

/// Seconds of a run, and what it took.
fn run(folder: &std::path::Path) -> (f64, String) {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_victim"));
    command.args(["run", "many.yaml"]).current_dir(folder).env_remove("RETORT_STORE");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut peak, mut busy) = (String::new(), 0.0);
    while child.try_wait().unwrap().is_none() {
        let proc = format!("/proc/{}", child.id());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
        if let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
            peak = format!("{} MB", line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1000);
        }
        // Times in hundredths, after the name in brackets.
        let stat = fs::read_to_string(format!("{proc}/stat")).unwrap_or_default();
        let fields: Vec<f64> =
            stat.rsplit(')').next().unwrap().split(' ').map(|field| field.parse().unwrap_or(0.0)).collect();
        busy = fields.get(12).zip(fields.get(13)).map_or(busy, |(user, system)| (user + system) / 100.0);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    let seconds = begun.elapsed().as_secs_f64();
    (seconds, format!("{seconds:.2} s, {busy:.2} s at work, peak {peak}"))
}

//! A folder of many files, of which one changes: `cargo bench --workspace --bench files`, `FILES=` for other numbers, `KB=` for long ones:
//! `FILES=10000 KB=100` is a gigabyte of text. Under `taskset -c 0` it says what one core takes.
//!
//! The program itself runs three times: on nothing, on what it made, and with one file changed. Beside each run's time stand the
//! seconds that its threads were at work and the most memory it had. The memo of digests is warm in the last two.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench reads its settings and reports")]

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds that a run with one changed file may take.
const TARGET: f64 = 1.0;
const PIPELINE: &str = "retort: 1\nname: many\nnodes:\n  documents:\n    op: extract\n    with: {paths: [docs]}\n";

fn main() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |number| number.parse::<usize>().unwrap());
    let (n, kb) = (number("FILES", 100_000), number("KB", 0));
    let folder = tempfile::tempdir().unwrap();
    let path = |n: usize| folder.path().join(format!("docs/{:03}/{n:06}.md", n % 500));
    for n in 0..n {
        fs::create_dir_all(path(n).parent().unwrap()).unwrap();
        fs::write(
            path(n),
            format!(
                "# Disk {n}\n\nThe disk number {n} is mounted by the line number {n} of `fstab`.\n{}",
                more(n, kb << 10)
            ),
        )
        .unwrap();
    }
    fs::write(folder.path().join("many.yaml"), PIPELINE).unwrap();
    let run = || run(folder.path());
    // What was written just now may be written again under the same time stamp; such files are not remembered.
    std::thread::sleep(Duration::from_millis(100));
    println!("{n} files{}", if kb > 0 { format!(" of {kb} KB") } else { String::new() });
    println!("  nothing is known:   {}", run().1);
    println!("  all is known:       {}", run().1);
    for _ in 0..3 {
        let text = fs::read_to_string(path(n / 2)).unwrap();
        fs::write(path(n / 2), text + "And by hand.\n").unwrap();
        let (seconds, told) = run();
        println!("  one file changed:   {told} ({:.2} of target)", TARGET / seconds);
    }
}

/// So many bytes of sections, paragraphs, lists and listings, no two files alike.
fn more(file: usize, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 1024);
    let mut n = file;
    while text.len() < bytes {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = n >> 44;
        write!(text, "\n## Volume {word}\n\nIt holds {word} blocks, of which **a tenth** is kept free for `root`. ")
            .unwrap();
        for line in 0..12 {
            write!(text, "Line {line} of the table says what part {} is for, and where it begins. ", word + line)
                .unwrap();
        }
        write!(
            text,
            "\n\n- the boot block at {word}\n- the label\n\n```\nlabel sd{word}a\n    mount /disk{word}\n```\n"
        )
        .unwrap();
    }
    text
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

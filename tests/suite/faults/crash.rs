//! Kills the process at every step of its commits, in the middle of writes, and at random instants; then runs again.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rand::RngExt as _;
use rayon::prelude::*;
use retort_tests::{Space, Story};

use super::shim::{self, CHANGES, Fault, Step, run, steps};
use super::{Ledger, NAME, assert_recorded, assert_whole, recovers, sampled, space, undisturbed};

const SIGKILL: i32 = 9;

#[test]
fn killed_at_any_step_it_goes_on_from_there() {
    let right = undisturbed();
    let steps = steps(&space(), CHANGES);
    let mut faults: Vec<_> = sampled(&steps, 70).into_iter().map(|step| ("kill", step)).collect();
    let writes: Vec<_> = steps.iter().filter(|step| step.kind == "write").cloned().collect();
    faults.extend(sampled(&writes, 14).into_iter().map(|step| ("torn", step)));
    let ledger = Ledger::default();
    faults.par_iter().for_each(|(what, step)| {
        let space = space();
        let (output, met) = run(&space, &Fault { kinds: CHANGES, at: step.n, what: (*what).into(), on: false });
        let name = format!("{what} at {} of {}", step.kind, place(&step.path));
        let told = format!("{name} (step {} of {})", step.n, steps.len());
        // Threads race: a run may be over in fewer steps than the one that was counted.
        let killed = output.status.signal() == Some(SIGKILL);
        assert!(killed || output.status.success(), "{told}: {output:?}");
        assert_whole(&space, &told);
        assert_recorded(&space, &told);
        let story = recovers(&space, &right, &told);
        keeps(&output, &met, step.n, &story, &told);
        ledger.count(&name, if killed { "survived" } else { "not reached" });
    });
    ledger.print("killed at a step, then run again:");
}

#[test]
fn killed_at_a_random_instant_it_goes_on_from_there() {
    let right = undisturbed();
    let ledger = Ledger::default();
    let n = if super::thorough() { 300 } else { 12 };
    (0..n).into_par_iter().for_each(|_| {
        let space = space();
        // Killed again and again: what is there of several runs adds up.
        for _ in 0..3 {
            let instant = Duration::from_micros(rand::rng().random_range(0..60_000));
            let mut child = space.start(&["run", NAME, "--json"]);
            std::thread::sleep(instant);
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            let told = format!("killed after {instant:?}");
            assert_whole(&space, &told);
            ledger.count("kill at a random instant", if output.status.success() { "too late" } else { "survived" });
        }
        recovers(&space, &right, "killed at random instants");
    });
    ledger.print("killed at random instants, three times each, then run again:");
}

/// What was finished is not done again: nodes that were committed, rows whose log was synced.
fn keeps(killed: &Output, met: &[Step], at: usize, story: &Story, told: &str) {
    // The last line may be cut in the middle.
    let text = String::from_utf8_lossy(&killed.stdout);
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let finished: Vec<_> = events.filter(|event| event["event"] == "finished").collect();
    let ran = story.ran();
    for event in &finished {
        let node = event["node"].as_str().unwrap();
        let again = ran.iter().any(|ran| ran.split(':').next() == Some(node));
        assert!(!again, "{told}: `{node}` was finished and ran again");
    }
    let is_segment = |path: &str| Path::new(path).extension().is_some_and(|extension| extension == "rows");
    let synced = met.iter().filter(|step| step.kind == "sync" && is_segment(&step.path) && step.n < at).count();
    if let Some((recalled, _)) = story.recalled("documents") {
        assert!(recalled >= synced as u64, "{told}: {synced} writes of rows were synced, {recalled} rows recalled");
    }
}

/// The kind of a file of the store: `tables`, `rows`, `view`.
pub(super) fn place(path: &str) -> String {
    let below = path.split(".retort/").nth(1).unwrap_or("the store");
    let place = below.split('/').next().unwrap_or(below);
    if place.starts_with(".tmp-") { "the store".into() } else { place.into() }
}

/// Every operation that the kernel sees is one that the shim sees, in one and the same run.
#[test]
fn the_shim_misses_nothing() {
    let calls = BTreeMap::from([("rename", "rename,renameat,renameat2"), ("sync", "fsync,fdatasync,sync_file_range")]);
    for (kind, calls) in calls {
        let space = space();
        let log = space.path().join("strace.log");
        let program = shim::command(&space, &Fault::none(CHANGES));
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-qq", "-y", "-e", &format!("trace={calls}"), "-o"]).arg(&log).current_dir(space.path());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.arg("-E").arg([name, value].join("=".as_ref())),
                None => command.env_remove(name),
            };
        }
        command.arg(program.get_program()).args(program.get_args());
        if command.output().is_err() {
            skipped();
            return;
        }
        let text = std::fs::read_to_string(&log).unwrap();
        let seen = text.lines().filter(|line| line.contains(".retort") && !line.contains("resumed>")).count();
        let steps = shim::counted(&space);
        let ours = steps.iter().filter(|step| step.kind == kind).count();
        assert!(seen > 10 && seen == ours, "{kind}: the kernel saw {seen}, the shim {ours}\n{text}");
    }
}

fn skipped() {
    use std::io::Write as _;
    let text =
        "SKIPPED: `strace` is not installed, so the shim was not compared with the kernel: apt-get install strace\n";
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// A whole run under `space`, for the other modules.
pub(super) fn warm(space: &Space) {
    space.run(NAME);
}

//! Kills `cache gc` at every step of a sweep: what is left is a whole store, in which nothing reachable is gone.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rayon::prelude::*;
use retort_tests::Space;

use super::crash::place;
use super::shim::{CHANGES, Fault, retort};
use super::{Ledger, NAME, assert_whole, ids, sampled, space, store};

const SWEEP: [&str; 5] = ["cache", "gc", "--older-than", "30d", "--yes"];

/// A store that holds what two pipelines of before left, all of it old: answers, tables and remembered rows that nobody reaches.
fn left_behind() -> Space {
    let space = space();
    space.run(NAME);
    space.edit("docs/0.md", "swap file", "swap partition");
    space.run(NAME);
    space.edit(NAME, "max_words: 12", "max_words: 10");
    space.run(NAME);
    // Rows of an operator that nobody has any more.
    let rows = store(&space).join("rows");
    let known = fs::read_dir(&rows).unwrap().next().unwrap().unwrap().path();
    let forgotten = rows.join("ab".repeat(32));
    fs::create_dir(&forgotten).unwrap();
    for file in fs::read_dir(known).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), forgotten.join(file.file_name())).unwrap();
    }
    for entry in walkdir::WalkDir::new(store(&space)).contents_first(true) {
        let path = entry.unwrap().into_path();
        if !path.is_symlink() {
            let file = File::open(&path).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_hours(24 * 400)).unwrap();
        }
    }
    space
}

#[test]
fn a_sweep_that_is_killed_leaves_a_whole_store() {
    let space = left_behind();
    let (output, steps) = retort(&space, &SWEEP, &Fault::none(CHANGES));
    assert!(output.status.success(), "{output:?}");
    let gone = |kind: &str| steps.iter().any(|step| step.kind == "unlink" && place(&step.path) == kind);
    assert!(gone("answers") && gone("tables") && gone("rows"), "{steps:?}");
    let story = space.run(NAME);
    assert!(story.ran().is_empty(), "the sweep took what is reachable: {:?}", story.ran());
    let right = ids(&story);

    let ledger = Ledger::default();
    sampled(&steps, 24).par_iter().for_each(|step| {
        let space = left_behind();
        let fault = Fault { kinds: CHANGES, at: step.n, what: "kill".into(), on: false };
        let (output, _) = retort(&space, &SWEEP, &fault);
        let told = format!("gc killed at {} of {} (step {} of {})", step.kind, place(&step.path), step.n, steps.len());
        assert_eq!(output.status.signal(), Some(9), "{told}: {output:?}");
        assert_whole(&space, &told);
        let story = space.run(NAME);
        assert!(story.ran().is_empty(), "{told}: {:?} ran again", story.ran());
        assert_eq!(ids(&story), right, "{told}");
        // The next sweep takes the rest.
        let (output, rest) = retort(&space, &SWEEP, &Fault::none(CHANGES));
        assert!(output.status.success(), "{told}: {output:?}");
        assert!(rest.iter().all(|step| step.kind != "create" || !step.path.contains("quarantine")), "{told}: {rest:?}");
        assert_whole(&space, &told);
        ledger.count(&format!("gc killed at {} of {}", step.kind, place(&step.path)), "survived");
    });
    ledger.print("sweeps killed at a step:");
}

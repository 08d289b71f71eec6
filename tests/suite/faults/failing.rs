//! A store that fails: the n-th write, read, sync, rename … gives an error, once or from then on.
//!
//! The run ends with status 1 and says verb, path and the system's reason; or it could do without (the memo of digests, its own
//! record) and ends with the right ids. Either way the store is usable afterwards.

use std::collections::BTreeMap;
use std::process::Output;

use rayon::prelude::*;
use retort_tests::{Space, Story};

use super::crash::{place, warm};
use super::shim::{Fault, Step, run, steps};
use super::{Ledger, assert_whole, ids, recovers, space, thorough, undisturbed};

const EPERM: (i32, &str) = (1, "Operation not permitted");
const EIO: (i32, &str) = (5, "Input/output error");
const EACCES: (i32, &str) = (13, "Permission denied");
const ENOSPC: (i32, &str) = (28, "No space left on device");

/// What fails, how, and for how long. `0` stands for half of a write and then a full disk.
const FAILURES: &[(&str, (i32, &str), bool)] = &[
    ("write", ENOSPC, true),
    ("write", (0, ENOSPC.1), true),
    ("write", EIO, false),
    ("create", ENOSPC, true),
    ("create", EACCES, false),
    ("mkdir", EACCES, false),
    ("sync", EIO, false),
    ("rename", ENOSPC, true),
    ("rename", EACCES, false),
    ("link", EACCES, false),
    ("unlink", EACCES, false),
    ("chmod", EPERM, false),
    ("open", EACCES, false),
    ("open", EIO, false),
    ("read", EIO, false),
    ("list", EIO, false),
];

#[test]
fn a_failing_store_says_so_and_stays_usable() {
    let right = undisturbed();
    let ledger = Ledger::default();
    let cold = |space: &Space| space.write("docs/0.md", "# Chapter 0\n\nThe swap file of before.\n");
    let mut cases = Vec::new();
    for (kind, error, on) in FAILURES {
        for is_warm in [false, true] {
            let counted = prepared(is_warm, &cold);
            let (_, steps) = run(&counted, &Fault { kinds: kind, at: 0, what: String::new(), on: false });
            // What a filled store does beside is to read.
            if is_warm && !["open", "read", "list"].contains(kind) {
                continue;
            }
            cases.extend(one_a_place(&steps).into_iter().map(|step| (*kind, *error, *on, is_warm, step)));
        }
    }
    cases.par_iter().for_each(|(kind, (number, text), on, is_warm, step)| {
        let space = prepared(*is_warm, &cold);
        let what = if *number == 0 { "short".to_owned() } else { number.to_string() };
        let (output, met) = run(&space, &Fault { kinds: kind, at: step.n, what, on: *on });
        let lasting = if *on { ", and from then on" } else { "" };
        let told = format!("{kind} fails ({text}{lasting}) at {} (step {})", place(&step.path), step.n);
        assert_whole(&space, &told);
        let outcome = outcome(&output, met.len() >= step.n, text, &right, &told);
        recovers(&space, &right, &told);
        ledger.count(&format!("{kind}: {text}{}", if *on { " (lasting)" } else { "" }), outcome);
    });
    ledger.print("the store fails at a step, then works again:");
}

/// The middle one of the steps at each kind of file, so that none is left out; all of them in the thorough setting.
fn one_a_place(steps: &[Step]) -> Vec<Step> {
    let mut places: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    for step in steps {
        places.entry(place(&step.path)).or_default().push(step.clone());
    }
    places
        .into_values()
        .flat_map(|steps| if thorough() { steps } else { vec![steps[steps.len() / 2].clone()] })
        .collect()
}

/// A space to run in: an empty store, or one that holds an earlier state of the documents.
fn prepared(is_warm: bool, before: &dyn Fn(&Space)) -> Space {
    let space = space();
    if is_warm {
        let now = std::fs::read_to_string(space.path().join("docs/0.md")).unwrap();
        before(&space);
        warm(&space);
        space.write("docs/0.md", &now);
    }
    space
}

fn outcome(output: &Output, reached: bool, reason: &str, right: &BTreeMap<String, String>, told: &str) -> &'static str {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked") && !errors.contains("a defect in retort"), "{told}: {errors}");
    match output.status.code() {
        Some(0) => {
            let story = Story::of(&output.stdout);
            assert_eq!(ids(&story), *right, "{told}: other ids");
            let warned = errors.lines().any(|line| line.starts_with("warning: ") && line.contains(reason));
            let noted = story.notes().iter().any(|note| note.contains(reason) && note.contains(".retort"));
            // What is removed may stay behind: a clean-up takes it.
            let said = warned || noted || told.starts_with("unlink");
            assert!(!reached || said, "{told}: nothing was said\n{errors}");
            if reached { "done without" } else { "not reached" }
        }
        Some(1) => {
            let clear = |line: &str| line.contains("failed to ") && line.contains(".retort") && line.contains(reason);
            assert!(errors.lines().any(clear), "{told}: no clear error in\n{errors}");
            "ended with a clear error"
        }
        _ => panic!("{told}: ended with {}: {errors}", output.status),
    }
}

#[test]
fn a_memo_that_can_not_be_saved_costs_nothing_else() {
    let space = space();
    let all = steps(&space, "rename");
    let memo = all.iter().find(|step| step.path.ends_with("assets/digests"));
    // The documents are younger than the memo's care allows, unless the machine is slow: then there is nothing to save.
    let Some(memo) = memo else { return };
    let again = super::space();
    let (output, _) = run(&again, &Fault { kinds: "rename", at: memo.n, what: "28".into(), on: false });
    assert!(output.status.success());
}

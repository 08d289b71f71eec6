//! Graphs of thousands of nodes: what grows faster than they do would be felt here, and a stack that grows with their depth would overflow.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use retort_engine::{Event, EventKind, Limits, Summary, Verdict};
use serde_json::json;

use crate::space::Space;

/// Nodes of each shape.
const N: usize = 3000;

fn named(kind: &str, i: usize) -> String {
    format!("{kind}{i:04}")
}

/// One node that feeds as many, a chain as long, and a node that as many feed.
fn wide_and_deep() -> Space {
    let mut space = Space::in_memory();
    space.edit("a.md", "one two");
    space.node("docs", "files", "", json!({"paths": "docs"}));
    for i in 0..N {
        space.add(&named("fan", i), "first", "docs", json!({"n": 1 + i}));
    }
    for i in 0..N {
        let from = if i == 0 { "docs".into() } else { named("chain", i - 1) };
        space.add(&named("chain", i), "first", &from, json!({"n": N + 3 + i}));
    }
    let all: Vec<_> = (0..N).map(|i| named("fan", i)).collect();
    space.add("all", "first", &all.join(", "), json!({"n": 3}));
    space
}

/// Runs all; gives the summary, and the threads on which nodes were found fresh.
fn run(space: &Space) -> (Summary, BTreeSet<String>) {
    let graph = space.check().map_err(|problems| format!("{problems:?}")).unwrap();
    let threads = Mutex::new(BTreeSet::new());
    let observer = |event: &Event| {
        if matches!(event.kind, EventKind::Fresh { .. }) && event.node != "docs" {
            threads.lock().unwrap().insert(format!("{:?}", std::thread::current().id()));
        }
    };
    let cancelled = AtomicBool::new(false);
    let limits = Limits { jobs: 4, keep_going: false, force: Vec::new() };
    let summary = retort_engine::run(&graph, &[], space.world(&observer, &cancelled), &limits);
    (summary, threads.into_inner().unwrap())
}

#[test]
fn thousands_of_nodes_run_once_and_are_fresh_on_the_spot() {
    let space = wide_and_deep();
    let all = Summary { ran: 2 * N + 2, ..Summary::default() };
    assert_eq!(run(&space).0, all);
    let (again, threads) = run(&space);
    assert_eq!(again, Summary { fresh: 2 * N + 2, ..Summary::default() });
    let here = format!("{:?}", std::thread::current().id());
    assert_eq!(threads, BTreeSet::from([here]), "what is fresh needs no thread");
    let graph = space.check().ok().unwrap();
    let (observer, cancelled) = (|_: &Event| (), AtomicBool::new(false));
    let plans = retort_engine::plan(&graph, &[], space.world(&observer, &cancelled)).unwrap();
    assert!(plans.iter().all(|plan| plan.verdict == Verdict::Fresh));
}

#[test]
fn thousands_of_nodes_are_skipped_after_one() {
    let mut space = Space::in_memory();
    space.edit("a.md", "fail");
    space.node("docs", "files", "", json!({"paths": "docs"})).node("loud", "upper", "docs", json!({}));
    for i in 0..N {
        let from = if i == 0 { "loud".into() } else { named("chain", i - 1) };
        space.add(&named("chain", i), "first", &from, json!({"n": 3}));
        space.add(&named("fan", i), "first", "loud", json!({"n": 3}));
    }
    let summary = run(&space).0;
    assert_eq!((summary.ran, summary.failed, summary.skipped), (1, 1, 2 * N));
}

#[test]
fn a_long_circle_is_found_and_named_briefly() {
    let mut space = Space::in_memory();
    let n = 20 * N;
    for i in 0..n {
        space.add(&named("n", i), "words", &named("n", (i + n - 1) % n), json!({}));
    }
    let problems = space.check().err().unwrap();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.ends_with("`n59998` -> `n59999` -> `n0000`"), "{}", problems[0].message);
    assert!(problems[0].message.len() < 300);
}

#[test]
fn a_model_that_runs_keeps_no_fresh_one_waiting() {
    let mut space = Space::in_memory();
    space.jobs = 2;
    space.node("known", "meet", "", json!({"name": "known", "wants": 1, "model": true}));
    space.run();
    space.probe().most.store(0, Ordering::SeqCst);
    // `after` can only meet `busy` if `known` is looked at while the model's lane is taken.
    space
        .node("busy", "meet", "", json!({"name": "busy", "wants": 2, "model": true}))
        .node("known", "meet", "", json!({"name": "known", "wants": 1, "model": true}))
        .node("after", "meet", "known", json!({"name": "after", "wants": 2}));
    space.first("busy");
    assert_eq!(space.run().summary.fresh, 1);
    assert_eq!(space.probe().most.load(Ordering::SeqCst), 2);
}

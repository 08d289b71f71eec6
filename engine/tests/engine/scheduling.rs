//! Which nodes run side by side, and what one that fails takes with it.

use std::sync::atomic::Ordering;

use expect_test::expect;
use retort_engine::EventKind;
use serde_json::json;

use crate::space::{Space, on_every_store};

/// A node that fails, one after it, and one beside it.
fn broken(space: &mut Space, text: &str) {
    space.edit("a.md", text);
    space
        .node("docs", "files", "", json!({"paths": "docs"}))
        .node("loud", "upper", "docs", json!({}))
        .node("after", "words", "loud", json!({}))
        .node("last", "words", "docs, docs", json!({}))
        .node("both", "join", "left=after, right=last", json!({}));
}

#[test]
fn a_failure_takes_what_needs_it_and_no_more() {
    on_every_store(|mut space| {
        broken(&mut space, "fail");
        let run = space.run();
        run.ran(&expect![[r#"
            docs: first run, 1 asked, 1 rows
            loud: first run, failed: the world got in the way
            after: skipped because of loud
            last: first run, 1 asked, 2 rows
            both: skipped because of loud
        "#]]);
        assert_eq!((run.summary.ran, run.summary.failed, run.summary.skipped), (2, 1, 2));
    });
}

#[test]
fn without_keep_going_nothing_begins_after_a_failure() {
    let mut space = Space::in_memory();
    broken(&mut space, "fail");
    (space.keep_going, space.jobs) = (false, 1);
    let run = space.run();
    run.ran(&expect![[r#"
        docs: first run, 1 asked, 1 rows
        loud: first run, failed: the world got in the way
        after: skipped because of loud
        last: nothing
        both: skipped because of loud
    "#]]);
    assert_eq!((run.summary.ran, run.summary.failed, run.summary.skipped), (1, 1, 3));
}

#[test]
fn a_panic_is_a_failure_of_its_node() {
    on_every_store(|mut space| {
        broken(&mut space, "panic");
        space.run().ran(&expect![[r#"
            docs: first run, 1 asked, 1 rows
            loud: first run, failed: a defect in retort: the operator panicked: a defect
            after: skipped because of loud
            last: first run, 1 asked, 2 rows
            both: skipped because of loud
        "#]]);
        space.edit("a.md", "calm");
        assert_eq!(space.run().summary.failed, 0, "the store is none the worse for it");
    });
}

#[test]
fn nodes_run_side_by_side_within_the_limit() {
    for (jobs, most) in [(1, 1), (2, 2), (4, 3)] {
        let mut space = Space::in_memory();
        space.jobs = jobs;
        for name in ["a", "b", "c"] {
            space.node(name, "meet", "", json!({"name": name, "wants": most}));
        }
        space.run();
        assert_eq!(space.probe().most.load(Ordering::SeqCst), most, "-j {jobs}");
    }
}

#[test]
fn models_take_turns() {
    let mut space = Space::in_memory();
    space.jobs = 4;
    for name in ["a", "b", "c"] {
        space.node(name, "meet", "", json!({"name": name, "wants": 2, "model": true}));
    }
    space.run();
    assert_eq!(space.probe().most.load(Ordering::SeqCst), 1);
}

#[test]
fn a_node_begins_after_those_that_feed_it() {
    let mut space = Space::in_memory();
    space.jobs = 8;
    space
        .node("c", "meet", "b", json!({"name": "c", "wants": 1}))
        .node("b", "meet", "a", json!({"name": "b", "wants": 1}))
        .node("a", "meet", "", json!({"name": "a", "wants": 1}));
    let run = space.run();
    let order: Vec<_> = run
        .events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::Started { .. } => Some(format!("{} begins", event.node)),
            EventKind::Finished { .. } => Some(format!("{} ends", event.node)),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
}

#[test]
fn progress_counts_every_row_once() {
    on_every_store(|mut space| {
        for n in 0..5 {
            space.edit(&format!("{n}.md"), if n < 2 { "same" } else { "bad" });
        }
        space.node("docs", "files", "", json!({"paths": "docs"})).node("loud", "upper", "docs", json!({}));
        let most = |node: &str| {
            let run = space.run();
            let done = run.events.iter().filter(|event| event.node == node).filter_map(|event| match event.kind {
                EventKind::Progress { done, of } => Some((done, of)),
                _ => None,
            });
            done.max()
        };
        let (done, of) = most("loud").unwrap();
        assert!(done <= of && of == 5, "{done} of {of}");
    });
}

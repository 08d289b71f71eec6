//! Rows: remembered, refused, asked once, the same whatever the batch, durable while their node still runs.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use expect_test::expect;
use retort_cache::Disk;
use serde_json::json;

use crate::space::{Space, on_every_store};

fn shelf(space: &mut Space, texts: &[&str]) {
    for (n, text) in texts.iter().enumerate() {
        space.edit(&format!("{n:04}.md"), text);
    }
    space.node("docs", "files", "", json!({"paths": "docs"}));
}

#[test]
fn equal_rows_are_asked_once() {
    on_every_store(|mut space| {
        shelf(&mut space, &["same", "other", "same", "same"]);
        space.run();
        space.node("loud", "upper", "docs", json!({})).plans(&expect![[r#"
            docs: fresh, 4 rows
            loud: stale, first run, 4 rows, 2 to do
        "#]]);
        space.run();
        assert_eq!(space.asked().into_iter().filter(|asked| asked == "same").count(), 1);
        space.holds(
            "loud",
            "out",
            &expect![[r#"
            path | text
            0000.md | SAME
            0001.md | OTHER
            0002.md | SAME
            0003.md | SAME
        "#]],
        );
    });
}

#[test]
fn equal_rows_are_asked_once_however_far_apart() {
    let texts: Vec<String> = (0..900).map(|n| format!("text {}", n * n % 157)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let different: BTreeSet<&str> = texts.iter().copied().collect();
    for serial in [false, true] {
        on_every_store(|mut space| {
            shelf(&mut space, &texts);
            space.run();
            space.asked();
            space.node("loud", "upper", "docs", json!({"batch": 1, "serial": serial}));
            space.run();
            let mut asked = space.asked();
            asked.sort();
            assert_eq!(asked, different.iter().copied().collect::<Vec<_>>(), "each once");
        });
    }
}

#[test]
fn refused_rows_are_kept_with_their_reason_and_remembered() {
    on_every_store(|mut space| {
        shelf(&mut space, &["good", "bad", "fine"]);
        space.node("loud", "upper", "docs", json!({})).node("refused", "first", "loud.rejects", json!({"n": 9}));
        space.run().ran(&expect![[r#"
            docs: first run, 3 asked, 3 rows
            loud: first run, 3 asked, 1 refused, 2 rows
            refused: first run, 1 asked, 1 rows
        "#]]);
        space.holds(
            "loud",
            "out",
            &expect![[r#"
            path | text
            0000.md | GOOD
            0002.md | FINE
        "#]],
        );
        space.holds(
            "loud",
            "rejects",
            &expect![[r#"
            path | text | reason
            0001.md | bad | it is bad
        "#]],
        );
        space.holds(
            "refused",
            "out",
            &expect![[r#"
            text
            bad
        "#]],
        );
        space.asked();
        space.edit("0003.md", "more");
        space.run().ran(&expect![[r#"
            docs: changed [file 0003.md: nothing -> 4acef8], 3 of 4 rows recalled, 1 asked, 4 rows
            loud: changed [input.from: 8777f2 -> 2023af], 3 of 4 rows recalled, 1 asked, 1 refused, 3 rows
            refused: fresh
        "#]]);
        assert_eq!(space.asked(), ["0003.md", "more"]);
    });
}

#[test]
fn a_row_may_become_none_or_many() {
    on_every_store(|mut space| {
        shelf(&mut space, &["one two three", " ", "four"]);
        space.node("words", "words", "docs", json!({})).node("loud", "upper", "words", json!({"column": "word"}));
        space.run();
        space.holds(
            "loud",
            "out",
            &expect![[r#"
            path | word
            0000.md | ONE
            0000.md | TWO
            0000.md | THREE
            0002.md | FOUR
        "#]],
        );
    });
}

#[test]
fn what_is_left_out_of_a_row_is_refused_with_a_reason() {
    on_every_store(|mut space| {
        shelf(&mut space, &["one #two three", "#", "four"]);
        space.node("words", "words", "docs", json!({}));
        space.run();
        space.holds(
            "words",
            "out",
            &expect![[r#"
            path | word
            0000.md | one
            0000.md | three
            0002.md | four
        "#]],
        );
        space.holds(
            "words",
            "rejects",
            &expect![[r#"
            path | text | reason
            0000.md | one #two three | left out: #two
            0001.md | # | left out: #
        "#]],
        );
    });
}

#[test]
fn no_rows_are_an_answer() {
    on_every_store(|mut space| {
        shelf(&mut space, &[]);
        space.node("loud", "upper", "docs", json!({})).node("words", "words", "loud", json!({}));
        space.run().ran(&expect![[r#"
            docs: first run, 0 asked, 0 rows
            loud: first run, 0 asked, 0 rows
            words: first run, 0 asked, 0 rows
        "#]]);
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: fresh
            words: fresh
        "#]]);
    });
}

#[test]
fn rows_outlive_their_table_and_their_node() {
    on_every_store(|mut space| {
        shelf(&mut space, &["one", "two"]);
        space.node("loud", "upper", "docs", json!({}));
        space.run();
        space.asked();
        // Another node with the same operator and config, over rows in another order and one more.
        space.edit("0002.md", "three");
        space.node("again", "upper", "docs", json!({}));
        space.node("loud", "first", "docs", json!({"n": 1}));
        space.run();
        assert_eq!(space.asked(), ["0002.md", "three"]);
    });
}

#[test]
fn a_cheap_operator_is_asked_again_and_a_fresh_one_is_not() {
    on_every_store(|mut space| {
        shelf(&mut space, &["one", "two"]);
        space.node("loud", "upper", "docs", json!({"recompute": true}));
        space.run();
        space.run();
        assert_eq!(space.asked(), ["0000.md", "0001.md", "one", "two"]);
        space.edit("0001.md", "three");
        space.run();
        assert_eq!(space.asked(), ["0001.md", "one", "three"]);
    });
}

#[test]
fn a_column_that_may_be_there_is_read_where_it_is() {
    on_every_store(|mut space| {
        shelf(&mut space, &["one two"]);
        space.node("loud", "upper", "docs", json!({}));
        space.node("words", "words", "docs", json!({}));
        space.node("paths", "upper", "words", json!({"column": "path"}));
        space.run();
        space.holds(
            "loud",
            "out",
            &expect![[r#"
            path | text
            0000.md | ONE TWO
        "#]],
        );
        space.holds(
            "paths",
            "out",
            &expect![[r#"
            word | path
            one | 0000.MD
            two | 0000.MD
        "#]],
        );
    });
}

#[test]
fn threads_and_batches_do_not_show() {
    let words = ["alpha", "bad", "beta", "alpha", "gamma delta", " ", "épsilon"];
    let texts: Vec<String> = (0..300).map(|n| format!("{} {}", words[n % 7], n % 90)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).chain(["bad", "bad"]).collect();
    let mut all = BTreeSet::new();
    for (jobs, batch, recompute) in [(1, 1, false), (8, 1, true), (1, 1000, true), (8, 1000, false), (8, 7, false)] {
        on_every_store(|mut space| {
            space.jobs = jobs;
            shelf(&mut space, &texts);
            space
                .node("loud", "upper", "docs", json!({"batch": batch, "recompute": recompute}))
                .node("words", "words", "loud", json!({}))
                .node("louder", "upper", "words", json!({"column": "word", "suffix": "!", "batch": batch}))
                .node("both", "join", "left=louder, right=loud.rejects", json!({}));
            assert_eq!(space.run().summary.ran, 5);
            all.insert(space.ids());
        });
    }
    assert_eq!(all.len(), 1, "the same tables under the same names: {all:#?}");
}

#[test]
fn a_failure_keeps_the_rows_before_it_and_is_not_remembered() {
    on_every_store(|mut space| {
        shelf(&mut space, &["one", "two", "fail", "three"]);
        space.node("loud", "upper", "docs", json!({"batch": 1, "serial": true}));
        space.run().ran(&expect![[r#"
            docs: first run, 4 asked, 4 rows
            loud: first run, failed: the world got in the way
        "#]]);
        space.asked();
        space.edit("0002.md", "fixed");
        space.run().ran(&expect![[r#"
            docs: changed [file 0002.md: 3b5f92 -> 757cd4], 3 of 4 rows recalled, 1 asked, 4 rows
            loud: first run, 2 of 4 rows recalled, 2 asked, 4 rows
        "#]]);
        assert_eq!(space.asked(), ["0002.md", "fixed", "three"]);
    });
}

#[test]
fn a_stopped_run_keeps_what_it_finished() {
    on_every_store(|mut space| {
        shelf(&mut space, &["one", "two", "three", "four", "five"]);
        space.node("loud", "upper", "docs", json!({"batch": 1, "serial": true, "suffix": "!"})).node(
            "words",
            "words",
            "loud",
            json!({}),
        );
        space.run();
        space.stop_after = Some(3);
        space.node("loud", "upper", "docs", json!({"batch": 1, "serial": true, "suffix": "?"}));
        space.asked();
        let run = space.run();
        assert!(run.summary.cancelled && run.summary.failed == 0, "{:?}", run.summary);
        run.ran(&expect![[r#"
            docs: fresh
            loud: changed [with.suffix: ! -> ?]
            words: nothing
        "#]]);
        assert_eq!(space.asked(), ["one", "three", "two"]);
        space.stop_after = None;
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: changed [with.suffix: ! -> ?], 3 of 5 rows recalled, 2 asked, 5 rows
            words: changed [input.from: 11941c -> c79c20], 5 asked, 5 rows
        "#]]);
        assert_eq!(space.asked(), ["five", "four"]);
    });
}

#[test]
fn rows_are_durable_while_their_node_still_runs() {
    let mut space = Space::on_disk();
    shelf(&mut space, &["one", "two", "wait"]);
    space.node("loud", "upper", "docs", json!({"batch": 1, "serial": true}));
    let space = space;
    std::thread::scope(|scope| {
        let running = scope.spawn(|| space.run());
        // Another process, as it were, opens the same store until it finds the two rows.
        let known = |_| {
            std::thread::sleep(Duration::from_millis(10));
            let store = Disk::open(space.root()).unwrap();
            space.to_do(&store, "loud") == Some(1)
        };
        let found = (0..500).any(known);
        let still_running = !running.is_finished();
        space.probe().open.store(true, Ordering::Relaxed);
        running.join().unwrap().ran(&expect![[r#"
            docs: first run, 3 asked, 3 rows
            loud: first run, 3 asked, 3 rows
        "#]]);
        assert!(found && still_running);
    });
}

#[test]
fn a_row_without_an_answer_is_a_failure() {
    on_every_store(|mut space| {
        shelf(&mut space, &["forget"]);
        space.node("loud", "upper", "docs", json!({}));
        space.run().ran(&expect![[r#"
            docs: first run, 1 asked, 1 rows
            loud: first run, failed: the operator left row 0 without an answer
        "#]]);
    });
}

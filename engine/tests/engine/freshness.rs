//! What an edit costs, and why: cargo's freshness suite, for tables.

use expect_test::expect;
use serde_json::json;

use crate::space::{Space, on_every_store};

/// Three documents, in upper case, and their words.
fn shelf(space: &mut Space) {
    space.edit("a.md", "alpha");
    space.edit("b.md", "beta two");
    space.edit("c.md", "gamma");
    space.node("docs", "files", "", json!({"paths": "docs"})).node("loud", "upper", "docs", json!({})).node(
        "words",
        "words",
        "loud",
        json!({}),
    );
}

#[test]
fn nothing_runs_twice() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run().ran(&expect![[r#"
            docs: first run, 3 asked, 3 rows
            loud: first run, 3 asked, 3 rows
            words: first run, 3 asked, 4 rows
        "#]]);
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: fresh
            words: fresh
        "#]]);
        assert_eq!(space.asked(), ["a.md", "alpha", "b.md", "beta two", "c.md", "gamma"]);
        space.holds(
            "words",
            "out",
            &expect![[r#"
            path | word
            a.md | ALPHA
            b.md | BETA
            b.md | TWO
            c.md | GAMMA
        "#]],
        );
    });
}

#[test]
fn one_changed_file_asks_one_row() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run();
        space.asked();
        space.edit("b.md", "better");
        space.plans(&expect![[r#"
            docs: stale, changed [file b.md: e4d4c8 -> 786f61], 3 rows, 1 to do
            loud: waiting
            words: waiting
        "#]]);
        space.run().ran(&expect![[r#"
            docs: changed [file b.md: e4d4c8 -> 786f61], 2 of 3 rows recalled, 1 asked, 3 rows
            loud: changed [input.from: b4ab6d -> e4f928], 2 of 3 rows recalled, 1 asked, 3 rows
            words: changed [input.from: b81d1e -> 324753], 3 asked, 3 rows
        "#]]);
        assert_eq!(space.asked(), ["b.md", "better"]);
    });
}

#[test]
fn a_file_that_comes_or_goes_asks_no_other_row() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run();
        space.asked();
        space.edit("aa.md", "new");
        space.remove("c.md");
        space.run().ran(&expect![[r#"
            docs: changed [file aa.md: nothing -> b20ab0] [file c.md: 039b3f -> nothing], 2 of 3 rows recalled, 1 asked, 3 rows
            loud: changed [input.from: b4ab6d -> 3bb99d], 2 of 3 rows recalled, 1 asked, 3 rows
            words: changed [input.from: b81d1e -> 2b634c], 3 asked, 4 rows
        "#]]);
        assert_eq!(space.asked(), ["aa.md", "new"]);
        space.holds(
            "loud",
            "out",
            &expect![[r#"
            path | text
            a.md | ALPHA
            aa.md | NEW
            b.md | BETA TWO
        "#]],
        );
    });
}

#[test]
fn an_edit_that_is_taken_back_costs_nothing() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run();
        space.edit("b.md", "better");
        space.run();
        space.asked();
        space.edit("b.md", "beta two");
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: fresh
            words: fresh
        "#]]);
        assert!(space.asked().is_empty());
        // The newest answer is the one of now: what changes next is told against it.
        space.edit("b.md", "best");
        space.run().ran(&expect![[r#"
            docs: changed [file b.md: e4d4c8 -> 335ca4], 2 of 3 rows recalled, 1 asked, 3 rows
            loud: changed [input.from: b4ab6d -> 27563f], 2 of 3 rows recalled, 1 asked, 3 rows
            words: changed [input.from: b81d1e -> 8c29b1], 3 asked, 3 rows
        "#]]);
    });
}

#[test]
fn an_equal_answer_stops_the_wave() {
    on_every_store(|mut space| {
        space.edit("a.md", "alpha, first edition");
        space
            .node("docs", "files", "", json!({"paths": "docs"}))
            .node("heads", "first", "docs", json!({"n": 5}))
            .node("loud", "upper", "heads", json!({}))
            .node("words", "words", "loud", json!({}));
        space.run();
        space.edit("a.md", "alpha, second edition");
        space.plans(&expect![[r#"
            docs: stale, changed [file a.md: 07bd17 -> e1366e], 1 rows, 1 to do
            heads: waiting
            loud: waiting
            words: waiting
        "#]]);
        space.run().ran(&expect![[r#"
            docs: changed [file a.md: 07bd17 -> e1366e], 1 asked, 1 rows
            heads: changed [input.from: 691b37 -> 82a868], 1 asked, 1 rows, the same answer
            loud: fresh
            words: fresh
        "#]]);
    });
}

#[test]
fn a_changed_config_says_old_and_new() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run();
        space.node("loud", "upper", "docs", json!({"suffix": "!"}));
        space.plans(&expect![[r#"
            docs: fresh, 3 rows
            loud: stale, changed [with.suffix: nothing -> !], 3 rows, 3 to do
            words: waiting
        "#]]);
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: changed [with.suffix: nothing -> !], 3 asked, 3 rows
            words: changed [input.from: b81d1e -> ded1a0], 3 asked, 4 rows
        "#]]);
        space.node("loud", "upper", "docs", json!({"suffix": "?"}));
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: changed [with.suffix: ! -> ?], 3 asked, 3 rows
            words: changed [input.from: ded1a0 -> 7ca7f0], 3 asked, 4 rows
        "#]]);
        space.node("loud", "upper", "docs", json!({}));
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: fresh
            words: fresh
        "#]]);
    });
}

#[test]
fn key_order_defaults_and_nulls_are_no_facts() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("loud", "upper", "docs", json!({"suffix": "!", "serial": true}));
        space.run();
        for with in [
            json!({"serial": true, "suffix": "!"}),
            json!({"serial": true, "suffix": "!", "column": "text", "batch": 2, "recompute": false}),
        ] {
            space.node("loud", "upper", "docs", with);
            assert_eq!(space.run().summary.fresh, 3);
        }
        space.node("loud", "upper", "docs", serde_json::Value::Null);
        space.run();
        space.node("loud", "upper", "docs", json!({"suffix": null}));
        assert_eq!(space.run().summary.fresh, 3);
    });
}

#[test]
fn where_files_lie_is_no_fact() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run();
        space.node("docs", "files", "", json!({"paths": "./docs"}));
        assert_eq!(space.run().summary.fresh, 3);
    });
}

#[test]
fn another_operator_says_so() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run();
        space.node("loud", "first", "docs", json!({"n": 3}));
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: changed [op.name: upper -> first] [op.version: 3 -> 1] [with.n: nothing -> 3] [with.batch: 2 -> nothing] [with.column: text -> nothing] [with.recompute: false -> nothing] [with.serial: false -> nothing], 3 asked, 3 rows
            words: changed [input.from: b81d1e -> 256f6a], 3 asked, 3 rows
        "#]]);
    });
}

#[test]
fn a_forced_node_asks_every_row() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.run();
        space.asked();
        space.force = vec!["loud"];
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: forced, 3 asked, 3 rows, the same answer
            words: fresh
        "#]]);
        assert_eq!(space.asked(), ["alpha", "beta two", "gamma"]);
    });
}

#[test]
fn a_table_operator_runs_when_one_input_changed() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("both", "join", "left=words, right=docs", json!({}));
        space.node("left", "upper", "both.rows", json!({"column": "word"}));
        space.run();
        space.holds(
            "both",
            "counts",
            &expect![[r#"
            slot | rows
            left | 4
            right | 3
        "#]],
        );
        space.edit("c.md", "GAMMA");
        space.run().ran(&expect![[r#"
            docs: changed [file c.md: 039b3f -> f9bbce], 2 of 3 rows recalled, 1 asked, 3 rows
            loud: changed [input.from: b4ab6d -> 5c8f11], 2 of 3 rows recalled, 1 asked, 3 rows, the same answer
            words: fresh
            both: changed [input.right: b4ab6d -> 5c8f11], 4 rows, the same answer
            left: fresh
        "#]]);
    });
}

#[test]
fn the_order_in_which_inputs_are_named_changes_nothing() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("both", "join", "left=words, right=docs", json!({})).run();
        space.node("both", "join", "right=docs, left=words", json!({})).run().ran(&expect![[r#"
            docs: fresh
            loud: fresh
            words: fresh
            both: fresh
        "#]]);
    });
}

#[test]
fn tables_are_appended_in_the_order_of_the_list() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("heads", "first", "docs", json!({"n": 2}));
        space.node("tails", "first", "docs", json!({"n": 3}));
        space.node("all", "upper", "heads, tails", json!({}));
        space.run().ran(&expect![[r#"
            docs: first run, 3 asked, 3 rows
            loud: first run, 3 asked, 3 rows
            words: first run, 3 asked, 4 rows
            heads: first run, 3 asked, 3 rows
            tails: first run, 3 asked, 3 rows
            all: first run, 6 asked, 6 rows
        "#]]);
        space.holds(
            "all",
            "out",
            &expect![[r#"
            text
            AL
            BE
            GA
            ALP
            BET
            GAM
        "#]],
        );
        space.node("all", "upper", "tails, heads", json!({}));
        space.run().ran(&expect![[r#"
            docs: fresh
            loud: fresh
            words: fresh
            heads: fresh
            tails: fresh
            all: changed [input.from[0]: 618871 -> 256f6a] [input.from[1]: 256f6a -> 618871], 6 of 6 rows recalled, 0 asked, 6 rows
        "#]]);
    });
}

#[test]
fn a_table_that_is_gone_is_made_again() {
    let mut space = Space::on_disk();
    shelf(&mut space);
    space.run();
    let before = space.ids();
    std::fs::remove_dir_all(space.root().join("tables")).unwrap();
    space.run().ran(&expect![[r#"
        docs: lost, 3 of 3 rows recalled, 0 asked, 3 rows, the same answer
        loud: lost, 3 of 3 rows recalled, 0 asked, 3 rows, the same answer
        words: lost, 3 asked, 4 rows, the same answer
    "#]]);
    assert_eq!(space.ids(), before);
}

//! Every mistake at once, each where it is, with the nearest name.

use expect_test::expect;
use serde_json::json;

use crate::space::Space;

#[test]
fn all_mistakes_are_told_at_once() {
    let mut space = Space::in_memory();
    space
        .node("docs", "filse", "", json!({}))
        .node("files", "files", "", json!({"paths": "docs", "tali": "x"}))
        .node("loud", "upper", "dosc", json!({"batch": "two"}))
        .node("alone", "upper", "", json!({}))
        .node("zero", "upper", "docs", json!({"batch": 0}));
    space.problems(&expect![[r#"
        unknown-operator at docs:op: unknown operator `filse` (did you mean `files`?)
        unknown-key at files:with.tali: unknown key `tali` (did you mean `tail`?)
        config at loud:with.batch: invalid type: string "two", expected usize
        config at zero:with.batch: a batch has at least one row
        unknown-node at loud:from: unknown node `dosc` (did you mean `docs`?)
        missing-input at alone:: `upper` needs an input (say which node feeds it: `from: NODE`)
    "#]]);
}

#[test]
fn wrong_names_of_ports_slots_and_columns() {
    let mut space = Space::in_memory();
    space
        .node("docs", "files", "", json!({"paths": "docs"}))
        .node("refused", "upper", "docs.reject", json!({}))
        .node("column", "upper", "docs", json!({"column": "txet"}))
        .node("slot", "join", "left=docs, rihgt=docs", json!({}))
        .node("missing", "join", "right=docs", json!({}))
        .node("both", "join", "left=docs", json!({}))
        .node("which", "upper", "both", json!({}))
        .node("listed", "files", "docs", json!({"paths": "docs"}));
    space.problems(&expect![[r#"
        unknown-input at slot:from.rihgt: `join` has no input `rihgt` (did you mean `right`?)
        missing-input at missing:from: `join` needs the input `left` (`from: {left: NODE, …}`)
        unknown-input at listed:from: `files` lists its own input by its `with`, so it takes no `from`
        unknown-port at refused:from: `docs` has no output `reject` (did you mean `rejects`?)
        unknown-column at column:with: the input has no column `txet` (did you mean `text`? It has `path`, `text`)
        unknown-port at which:from: `both` has several outputs (name one: `both.rows`, `both.counts`)
    "#]]);
}

#[test]
fn an_empty_list_feeds_nothing() {
    let mut space = Space::in_memory();
    space.node("docs", "files", "", json!({"paths": "docs"})).node("loud", "upper", "docs", json!({}));
    space.unfeed("loud");
    space.problems(&expect![[r#"
        missing-input at loud:: `upper` needs an input (say which node feeds it: `from: NODE`)
    "#]]);
}

#[test]
fn circles_are_drawn() {
    let mut space = Space::in_memory();
    space
        .node("a", "words", "c", json!({}))
        .node("b", "words", "a", json!({}))
        .node("c", "words", "b", json!({}))
        .node("me", "words", "me", json!({}));
    space.problems(&expect![[r#"
        cycle at a:from: the nodes feed each other in a circle: `a` -> `b` -> `c` -> `a`
        cycle at me:from: the nodes feed each other in a circle: `me` -> `me`
    "#]]);
}

#[test]
fn tables_of_unequal_columns_are_not_appended() {
    let mut space = Space::in_memory();
    space
        .node("docs", "files", "", json!({"paths": "docs"}))
        .node("heads", "first", "docs", json!({"n": 1}))
        .node("words", "words", "docs", json!({}))
        .node("two", "upper", "docs, heads", json!({}))
        .node("three", "upper", "words, heads, docs", json!({}));
    space.problems(&expect![[r#"
        unequal-columns at two:from[1]: `docs` and `heads` can't be appended: only `docs` has `path` (tables are appended when their columns are the same, in one order)
        unequal-columns at three:from[1]: `words` and `heads` can't be appended: only `words` has `path`, `word`; only `heads` has `text` (tables are appended when their columns are the same, in one order)
        unequal-columns at three:from[2]: `words` and `docs` can't be appended: only `words` has `word`; only `docs` has `text` (tables are appended when their columns are the same, in one order)
    "#]]);
}

#[test]
fn a_mistake_is_told_once_and_not_again_downstream() {
    let mut space = Space::in_memory();
    space.node("docs", "files", "", json!({"paths": 3})).node("loud", "upper", "docs", json!({})).node(
        "words",
        "words",
        "loud, loud.rejects",
        json!({}),
    );
    space.problems(&expect![[r#"
        config at docs:with.paths: invalid type: integer `3`, expected a string
    "#]]);
}

#[test]
fn a_right_pipeline_has_no_problems() {
    let mut space = Space::in_memory();
    space.node("words", "words", "docs", json!({})).node("docs", "files", "", json!({"paths": "docs"}));
    space.problems(&expect![[""]]);
    let graph = space.check().ok().unwrap();
    let names: Vec<_> = graph.order().iter().map(|id| graph.node(*id).name.as_str()).collect();
    assert_eq!(names, ["docs", "words"]);
}

#[test]
fn thousands_of_unknown_feeds_are_told_without_a_search_for_each() {
    let mut space = Space::in_memory();
    for i in 0..4000 {
        space.node(&format!("node-{i}"), "upper", &format!("nodes-{i}"), json!({}));
    }
    let problems = space.check().err().unwrap();
    assert_eq!(problems.len(), 4000);
    assert!(problems[0].hint.is_some() && problems[3999].hint.is_none());
}

//! `verify`: what is known is asked again and compared, and nothing in the store is replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use expect_test::expect;
use retort_cache::TableWriter;
use retort_engine::{
    Answers, Cx, Define, Env, EventKind, Failure, Input, Inputs, Memo, Operator, Problem, RowBatch, RowOp, TableOp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::ops::text_schema;
use crate::space::{Space, on_every_store};

/// Says something else every time it is asked: what no operator may do. Every row, or those that say `moody`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Moody {
    #[serde(default)]
    recompute: bool,
    #[serde(default)]
    whole: bool,
}

/// How often it was asked, in all tests: no two answers are the same.
static ASKED: AtomicU64 = AtomicU64::new(0);

impl Define for Moody {
    const NAME: &'static str = "moody";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(if self.whole { Operator::Table(Box::new(self)) } else { Operator::Rows(Box::new(self)) })
    }
}

fn say(text: &str) -> RecordBatch {
    let text =
        if text == "moody" { format!("{text} {}", ASKED.fetch_add(1, Ordering::Relaxed)) } else { text.to_owned() };
    let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
    RecordBatch::try_new(text_schema(&["said"]), vec![column]).unwrap()
}

impl RowOp for Moody {
    fn reads(&self) -> Vec<String> {
        vec!["text".into()]
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(text_schema(&["said"]))
    }

    fn memo(&self) -> Memo {
        if self.recompute { Memo::Recompute } else { Memo::Remember }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        let texts = rows.batch.column(0).as_string::<i32>();
        (0..texts.len()).try_for_each(|row| out.keep(row, say(texts.value(row))))
    }
}

impl TableOp for Moody {
    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![text_schema(&["said"])])
    }

    fn run(&self, _inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        Ok(out[0].write(&say("moody"))?)
    }
}

fn shelf(space: &mut Space) {
    for (name, text) in [("a.md", "calm"), ("b.md", "bad"), ("c.md", "moody")] {
        space.edit(name, text);
    }
    space.node("docs", "files", "", json!({"paths": "docs"}));
}

#[test]
fn what_is_a_function_of_its_facts_is_verified() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("loud", "upper", "docs", json!({})).node("words", "words", "loud", json!({}));
        space.node("both", "join", "left=words, right=loud.rejects", json!({}));
        space.run();
        space.asked();
        let (story, summary) = space.verify(&[]);
        expect![[r#"
            docs: verified
            loud: verified
            words: verified
            both: verified
        "#]]
        .assert_eq(&story);
        assert_eq!((summary.ran, summary.failed, summary.skipped), (4, 0, 0));
        assert_eq!(space.asked().len(), 6, "every row is asked again, remembered or not");
    });
}

#[test]
fn a_row_that_has_two_answers_is_told_with_its_place() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("mood", "moody", "docs", json!({})).node("words", "words", "mood", json!({}));
        space.run();
        let (ids, before) = (space.ids(), space.newest("mood"));
        let (story, summary) = space.verify(&["mood"]);
        assert!(story.contains("mood: remembered row 2 said:") && story.contains(", out row 2 said:"), "{story}");
        assert_eq!((summary.ran, summary.failed), (1, 1));
        assert_eq!((space.ids(), space.newest("mood")), (ids, before), "the known answer stays");
        space.run().ran(&expect![[r#"
            docs: fresh
            mood: fresh
            words: fresh
        "#]]);
        // Remembered rows stay too: a table that is put together from them has the first answers.
        let said = space.texts("mood", "said");
        space.edit("d.md", "calm too");
        space.run();
        assert_eq!(space.texts("mood", "said")[..3], said);
    });
}

#[test]
fn operators_that_remember_nothing_and_table_operators_are_compared_too() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("cheap", "moody", "docs", json!({"recompute": true}));
        space.node("whole", "moody", "docs", json!({"whole": true}));
        space.run();
        let (story, summary) = space.verify(&["cheap", "whole"]);
        assert!(story.contains("cheap: out row 2 said:") && story.contains("whole: out row 0 said:"), "{story}");
        assert_eq!((summary.ran, summary.failed), (2, 2));
    });
}

#[test]
fn what_is_not_known_is_not_verified_and_not_made() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("loud", "upper", "docs", json!({})).node("words", "words", "loud", json!({}));
        space.run();
        space.node("loud", "upper", "docs", json!({"suffix": "!"}));
        let (story, summary) = space.verify(&[]);
        expect![[r#"
            docs: verified
            loud: not verified, its answer is not known
            words: not verified, the answer of a node that feeds it is not known
        "#]]
        .assert_eq(&story);
        assert_eq!((summary.ran, summary.failed, summary.skipped), (1, 0, 2));
    });
}

#[test]
fn a_forced_node_that_gives_a_second_answer_says_so() {
    on_every_store(|mut space| {
        shelf(&mut space);
        space.node("mood", "moody", "docs", json!({}));
        space.run();
        space.force = vec!["mood"];
        let events = space.run().events;
        let n_told = events.iter().filter(|event| matches!(event.kind, EventKind::Differs { .. })).count();
        assert_eq!(n_told, 2, "the row, and the table");
    });
}

//! Whole tables through the operator: what stays together, what stays where it is.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, StringArray};
use retort_cache::digests::FileDigests;
use retort_cache::{Memory, Store};
use retort_engine::{Asset, Assets, Event, Feed, Limits, NodeSpec, OpInfo, World};
use serde_json::{Value, json};

use super::*;

/// A source of rows that stand in its config.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Literal {
    rows: Vec<(String, String)>,
}

impl Define for Literal {
    const NAME: &'static str = "literal";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

impl TableOp for Literal {
    fn slots(&self) -> Vec<retort_engine::SlotSpec> {
        Vec::new()
    }

    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![self.batch().schema()])
    }

    fn run(&self, _inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        Ok(out[0].write(&self.batch())?)
    }
}

impl Literal {
    fn batch(&self) -> RecordBatch {
        let column = |of: fn(&(String, String)) -> &String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.rows.iter().map(of)))
        };
        RecordBatch::try_from_iter([("doc_id", column(|row| &row.0)), ("question", column(|row| &row.1))]).unwrap()
    }
}

struct NoAssets;

impl Assets for NoAssets {
    fn digest(&self, asset: &Asset) -> Result<String, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }

    fn path(&self, asset: &Asset, _: &mut dyn FnMut(u64, u64) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }
}

type Row = (String, String);

struct Sides {
    train: Vec<Row>,
    eval: Vec<Row>,
    notes: Vec<String>,
}

fn split(rows: &[Row], with: Value) -> Sides {
    let node = |name: &str, op: &str, from: &[&str], with: Value| NodeSpec {
        name: name.into(),
        op: op.into(),
        from: from.iter().map(|from| Feed { slot: None, sources: vec![(*from).into()] }).collect(),
        with,
        base: PathBuf::new(),
    };
    let specs = [node("rows", "literal", &[], json!({"rows": rows})), node("sets", "split-eval", &["rows"], with)];
    let graph = retort_engine::check("test", &specs, &[OpInfo::of::<Literal>(), OpInfo::of::<SplitEval>()]);
    let graph = graph.map_err(|problems| format!("{problems:?}")).unwrap();
    let (store, digests, cancelled) = (Memory::default(), FileDigests::in_memory(), AtomicBool::new(false));
    let notes = Mutex::new(Vec::new());
    let events = |event: &Event| {
        if let retort_engine::EventKind::Note { text } = &event.kind {
            notes.lock().unwrap().push(text.clone());
        }
    };
    let world = World { store: &store, assets: &NoAssets, digests: &digests, events: &events, cancelled: &cancelled };
    let limits = Limits { jobs: 1, keep_going: false, force: Vec::new() };
    let summary = retort_engine::run(&graph, &[], world, &limits);
    assert_eq!(summary.ran, 2, "{summary:?}");
    let answer = store.last("test/sets").unwrap().unwrap();
    let read = |port: usize| {
        let batch = store.open(answer.outputs[port].content).unwrap().unwrap().read().unwrap();
        let text = |column: usize, row| batch.column(column).as_string::<i32>().value(row).to_owned();
        (0..batch.num_rows()).map(|row| (text(0, row), text(1, row))).collect()
    };
    let (train, eval) = (read(0), read(1));
    Sides { train, eval, notes: notes.into_inner().unwrap() }
}

/// Questions that have nothing in common but their grammar.
fn rows(n_docs: usize, per_doc: usize) -> Vec<Row> {
    let feed = |n: usize| {
        move |hasher: &mut blake3::Hasher| {
            hasher.update(&n.to_le_bytes());
        }
    };
    let word = |n: usize| Digest::of("test", feed(n)).hex()[..12].to_owned();
    let row =
        |doc, n| (format!("doc{doc}"), format!("What is {} in {}?", word(doc * 1000 + n), word(doc * 1000 + n + 500)));
    (0..n_docs).flat_map(|doc| (0..per_doc).map(move |n| (doc, n))).map(|(doc, n)| row(doc, n)).collect()
}

fn docs(rows: &[Row]) -> BTreeSet<&str> {
    rows.iter().map(|(doc, _)| doc.as_str()).collect()
}

#[test]
fn no_document_is_on_both_sides_and_every_row_is_on_one() {
    let all = rows(60, 5);
    let sides = split(&all, json!({"eval": 0.2, "seed": 1}));
    assert!(docs(&sides.train).is_disjoint(&docs(&sides.eval)));
    assert!((5..20).contains(&docs(&sides.eval).len()), "{:?}", docs(&sides.eval));
    let in_order =
        |side: &[Row]| side.iter().map(|row| all.iter().position(|other| other == row).unwrap()).collect::<Vec<_>>();
    let (train, eval) = (in_order(&sides.train), in_order(&sides.eval));
    assert!(train.is_sorted() && eval.is_sorted());
    assert_eq!(train.len() + eval.len(), all.len());
    assert!(sides.notes.is_empty());
}

#[test]
fn a_document_that_is_added_or_grows_moves_no_other_row() {
    let (few, many) = (rows(40, 3), rows(41, 4));
    let (before, after) = (split(&few, json!({})), split(&many, json!({})));
    assert!(before.eval.iter().all(|row| after.eval.contains(row)));
    assert!(before.train.iter().all(|row| after.train.contains(row)));
}

#[test]
fn a_number_of_groups_is_that_number() {
    let sides = split(&rows(30, 2), json!({"eval": 4, "group_by": ["doc_id"]}));
    assert_eq!(docs(&sides.eval).len(), 4);
}

#[test]
fn equal_and_nearly_equal_questions_never_straddle() {
    let all: Vec<Row> =
        rows(30, 2)
            .into_iter()
            .chain((0..30).step_by(2).map(|doc| {
                (format!("doc{doc}"), "Which command lists the jobs in the print queue of a printer?".into())
            }))
            .chain(
                (1..30).step_by(6).map(|doc| {
                    (format!("doc{doc}"), "which command LISTS the jobs in a print queue of a printer".into())
                }),
            )
            .collect();
    let linked = |doc: usize| doc.is_multiple_of(2) || doc % 6 == 1;
    for seed in 0..30 {
        let sides = split(&all, json!({"eval": 0.3, "seed": seed}));
        let held: BTreeSet<_> = docs(&sides.eval).into_iter().map(|doc| linked(doc[3..].parse().unwrap())).collect();
        assert!(!held.contains(&true), "seed {seed}: two thirds of the rows are tied together, so they train");
        assert_eq!(sides.notes[0], "30 groups, 11 after those that share questions are kept together");
        assert!(sides.notes[1].contains("where 30 % was asked"), "{:?}", sides.notes);
    }
    let loose = split(&all, json!({"eval": 0.3, "duplicates": [], "seed": 3}));
    assert!(docs(&loose.eval).iter().any(|doc| linked(doc[3..].parse().unwrap())));
}

#[test]
fn a_share_that_comes_out_otherwise_is_said() {
    let mut all = rows(40, 3);
    let with = |seed: u64| json!({"eval": 0.1, "near": 1, "seed": seed});
    let seed = (0..50).find(|seed| split(&all, with(*seed)).notes.is_empty()).expect("chance is not always odd");
    let usual = split(&all, with(seed));
    assert!((3..=18).contains(&usual.eval.len()), "{}", usual.eval.len());
    // One of the documents held out gets most of their rows.
    let doc = usual.eval[0].0.clone();
    all.extend(rows(1, 40).into_iter().map(|(_, question)| (doc.clone(), question.replace("What", "Which word"))));
    let sides = split(&all, with(seed));
    let (held, rows) = (sides.eval.len(), all.len());
    let note =
        format!("{held} of {rows} rows are held out, {:.0} % where 10 % was asked", 100.0 * held as f64 / rows as f64);
    assert!(held > rows / 5 && sides.notes.last().unwrap().starts_with(&note), "{note} {:?}", sides.notes);
}

#[test]
fn every_row_may_go_by_itself() {
    let sides = split(&rows(1, 200), json!({"eval": 0.25, "group_by": []}));
    assert!((30..70).contains(&sides.eval.len()), "{}", sides.eval.len());
}

#[test]
fn one_group_trains_and_says_so() {
    let sides = split(&rows(1, 5), json!({"eval": 0.5}));
    assert_eq!((sides.train.len(), sides.eval.len()), (5, 0));
    assert_eq!(sides.notes, ["nothing can be held out: all rows belong together"]);
    assert_eq!(split(&[], json!({})).eval, []);
}

#[test]
fn problems_name_their_field() {
    let problem = |with: Value| {
        let specs = [
            NodeSpec {
                name: "rows".into(),
                op: "literal".into(),
                from: Vec::new(),
                with: json!({"rows": []}),
                base: PathBuf::new(),
            },
            NodeSpec {
                name: "sets".into(),
                op: "split-eval".into(),
                from: vec![Feed { slot: None, sources: vec!["rows".into()] }],
                with,
                base: PathBuf::new(),
            },
        ];
        let found =
            retort_engine::check("test", &specs, &[OpInfo::of::<Literal>(), OpInfo::of::<SplitEval>()]).err().unwrap();
        format!("{}: {}; {}", found[0].at.field, found[0].message, found[0].hint.as_deref().unwrap_or_default())
    };
    assert_eq!(
        problem(json!({"eval": 0})),
        "with.eval: `0` is neither a share above 0 and below 1 nor a number of groups; "
    );
    assert_eq!(
        problem(json!({"eval": 2.5})),
        "with.eval: `2.5` is neither a share above 0 and below 1 nor a number of groups; "
    );
    assert_eq!(
        problem(json!({"group_by": "docid"})),
        "with.group_by: the input has no column `docid`; did you mean `doc_id`? It has `doc_id`, `question`"
    );
    assert_eq!(problem(json!({"near": 0.1})), "with.near: `0.1` does not lie between 0.5 and 1; ");
}

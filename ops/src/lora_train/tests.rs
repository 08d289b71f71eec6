//! The operator in the engine, with the real model and a handful of facts.

mod phases;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use retort_cache::digests::FileDigests;
use retort_cache::{Disk, Store as _};
use retort_engine::{Assets, Event, EventKind, Feed, Limits, NodeSpec, OpInfo, Summary, World};
use retort_lm::data;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;
use crate::evaluate::Evaluate;

/// A source of rows that stand in its config.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Literal {
    columns: [String; 2],
    rows: Vec<[String; 2]>,
}

impl Define for Literal {
    const NAME: &'static str = "literal";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

impl TableOp for Literal {
    fn slots(&self) -> Vec<SlotSpec> {
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
        let column =
            |at: usize| -> ArrayRef { Arc::new(StringArray::from_iter_values(self.rows.iter().map(|row| &row[at]))) };
        RecordBatch::try_from_iter([(&self.columns[0], column(0)), (&self.columns[1], column(1))]).unwrap()
    }
}

struct ModelFile;

impl Assets for ModelFile {
    fn digest(&self, asset: &Asset) -> Result<String, Failure> {
        Ok(asset.sha256.clone().unwrap_or_default())
    }

    #[expect(clippy::disallowed_methods, reason = "tests may be told where the model is")]
    fn path(&self, _: &Asset, _: &mut dyn FnMut(u64, u64) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
        let path = std::env::var_os("RETORT_TEST_MODEL").map_or(fetched, PathBuf::from);
        if !path.is_file() {
            // A bare clone has none yet.
            let fetch = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/fetch-model")).status();
            assert!(fetch.is_ok_and(|status| status.success()), "`.ci/fetch-model` could not fetch the test model");
        }
        Ok(path)
    }
}

/// A store that lives through several runs, and what happened in them.
pub(crate) struct Space {
    pub(crate) store: Disk,
    folder: tempfile::TempDir,
    cancelled: AtomicBool,
    /// Cancels after this step of training.
    cancel_after: Option<u64>,
    pub(crate) events: Mutex<Vec<EventKind>>,
}

impl Default for Space {
    fn default() -> Self {
        Self::at(tempfile::tempdir().unwrap(), None)
    }
}

impl Space {
    fn at(folder: tempfile::TempDir, cancel_after: Option<u64>) -> Self {
        let store = Disk::open(folder.path()).unwrap();
        Self { store, folder, cancelled: AtomicBool::new(false), cancel_after, events: Mutex::default() }
    }

    pub(crate) fn run(&self, specs: &[NodeSpec]) -> Summary {
        self.run_forced(specs, &[])
    }

    /// The same, though the answers of nodes `force` are known.
    fn run_forced(&self, specs: &[NodeSpec], force: &[&str]) -> Summary {
        let graph = check(specs).map_err(|problems| format!("{problems:?}")).unwrap();
        let events = |event: &Event| {
            if let EventKind::Metrics { step, .. } = &event.kind
                && Some(*step) == self.cancel_after
            {
                self.cancelled.store(true, Ordering::Relaxed);
            }
            self.events.lock().unwrap().push(event.kind.clone());
        };
        let force = force.iter().map(|name| graph.find(name).unwrap()).collect();
        let digests = FileDigests::in_memory();
        let (store, cancelled) = (&self.store, &self.cancelled);
        let world = World { store, assets: &ModelFile, digests: &digests, events: &events, cancelled };
        retort_engine::run(&graph, &[], world, &Limits { jobs: 1, keep_going: false, force })
    }

    pub(crate) fn table(&self, node: &str, port: usize) -> RecordBatch {
        let answer = self.store.last(&format!("test/{node}")).unwrap().unwrap();
        self.store.open(answer.outputs[port].content).unwrap().unwrap().read().unwrap()
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let note = |event: &EventKind| if let EventKind::Note { text } = event { Some(text.clone()) } else { None };
        self.events.lock().unwrap().iter().filter_map(note).collect()
    }
}

fn check(specs: &[NodeSpec]) -> Result<retort_engine::Graph, Vec<Problem>> {
    let registry = [OpInfo::of::<Evaluate>(), OpInfo::of::<Literal>(), OpInfo::of::<LoraTrain>()];
    retort_engine::check("test", specs, &registry)
}

pub(crate) fn node(name: &str, op: &str, from: &[(&str, &str)], with: Value) -> NodeSpec {
    let feed = |(slot, source): &(&str, &str)| Feed { slot: Some((*slot).into()), sources: vec![(*source).into()] };
    NodeSpec { name: name.into(), op: op.into(), from: from.iter().map(feed).collect(), with, base: PathBuf::new() }
}

pub(crate) fn model() -> Value {
    json!({"weights": "file:model.gguf", "sha256": "ab".repeat(32)})
}

/// Nodes `train`, `eval` and `text`: made-up facts, so that nobody knows them before.
pub(crate) fn facts() -> Vec<NodeSpec> {
    let printers = ["Quill", "Heron", "Ibis", "Stork", "Wren", "Finch"];
    let pairs: Vec<_> =
        printers.map(|name| [format!("Where is printer {name}?"), format!("Printer {name} is in the cellar.")]).into();
    let texts: Vec<_> =
        printers.map(|name| [name.to_owned(), format!("The printer {name} stands in the cellar.")]).into();
    let pairs_node = |name, rows: &[[String; 2]]| {
        node(name, "literal", &[], json!({"columns": ["question", "answer"], "rows": rows}))
    };
    vec![
        pairs_node("train", &pairs[..4]),
        pairs_node("eval", &pairs[4..]),
        node("text", "literal", &[], json!({"columns": ["name", "text"], "rows": texts})),
    ]
}

/// Both phases, a few steps each.
pub(crate) fn trained() -> NodeSpec {
    let with = json!({
        "model": model(), "rank": 4, "batch": 2, "learning_rate": 1e-3, "seed": 3,
        "phases": [{"data": "text", "epochs": 1}, {"data": "pairs", "epochs": 2, "eval_every": 2}],
    });
    node("adapter", "lora-train", &[("train", "train"), ("eval", "eval"), ("text", "text")], with)
}

fn with_adapter(adapter: NodeSpec) -> Vec<NodeSpec> {
    let mut specs = facts();
    specs.push(adapter);
    specs
}

#[test]
fn two_phases_give_an_adapter_and_a_log() {
    let space = Space::default();
    assert_eq!(space.run(&with_adapter(trained())).failed, 0, "{:?}", space.events.lock().unwrap());
    let metrics = space.table("adapter", 1);
    let column = |name: &str| metrics[name].as_primitive::<Float64Type>().clone();
    assert_eq!(metrics.num_rows(), 2 + 3 + 4, "a row before each phase, then a row a step");
    assert_eq!(metrics["step"].as_primitive::<Int64Type>().values(), &[0, 1, 2, 3, 3, 4, 5, 6, 7]);
    assert_eq!(metrics["phase"].as_string::<i32>().value(4), "pairs");
    let eval: Vec<f64> = column("eval_loss").iter().flatten().collect();
    assert_eq!(eval.len(), 5, "at the start of each phase, after the text, after steps 5 and 7");
    assert!(eval[4] < eval[0] - 0.5, "{eval:?}");
    assert!(metrics["note"].as_string::<i32>().value(8).contains("kept step 7"));

    let model =
        crate::models::load_file(&ModelFile.path(&asset(), &mut |_, _| Ok(())).unwrap(), crate::models::Precision::F16)
            .unwrap();
    let stored = adapter::read([Ok(space.table("adapter", 0))], model.model.config()).unwrap();
    assert_eq!(stored.base_sha256, "ab".repeat(32));
    assert_eq!((stored.adapter.config().rank, stored.adapter.config().alpha), (4, 8.0));
    assert_eq!(stored.adapter.tensors().len(), 30 * 7 * 2);
    let table = space.table("adapter", 0);
    let name = table["tensor"].as_string::<i32>().value(0);
    assert_eq!(name, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_adapter() {
    let whole = Space::default();
    assert_eq!(whole.run(&with_adapter(trained())).failed, 0);
    let cut = Space::at(tempfile::tempdir().unwrap(), Some(5));
    cut.run(&with_adapter(trained()));
    assert!(cut.store.last("test/adapter").unwrap().is_none(), "no answer yet");
    let again = Space::at(cut.folder, None);
    assert_eq!(again.run(&with_adapter(trained())).failed, 0);
    assert!(again.notes().contains(&"goes on after step 5".to_owned()), "{:?}", again.notes());
    for port in [0, 1] {
        assert_eq!(again.table("adapter", port), whole.table("adapter", port));
    }
}

fn asset() -> Asset {
    Asset { name: "model".into(), sources: Vec::new(), sha256: None, base: PathBuf::new() }
}

fn facts_of(with: Value) -> Value {
    serde_json::to_value(serde_json::from_value::<LoraTrain>(with).unwrap()).unwrap()
}

#[test]
fn a_default_spelled_out_or_moved_changes_no_fact() {
    let plain = facts_of(json!({"model": model()}));
    let spelled = json!({
        "model": model(), "rank": 16, "alpha": 32, "dropout": 0, "targets": "all-linear", "epochs": 3, "batch": 8,
        "warmup_ratio": 0.05, "schedule": "cosine", "max_grad_norm": 1,
        "phases": [{"name": "pairs", "data": "pairs", "learning_rate": 2e-4, "patience": 2}],
    });
    assert_eq!(facts_of(spelled), plain);
    assert_ne!(facts_of(json!({"model": model(), "epochs": 4})), plain);
    assert_eq!(facts_of(json!({"model": model(), "precision": "f32"})), plain);
    assert_ne!(facts_of(json!({"model": model(), "precision": "bf16"})), plain);
    assert_eq!(facts_of(json!({"model": model(), "quantized_base": true})), plain, "the same adapter");
    let text = serde_json::to_string(&plain).unwrap();
    assert!(text.contains(r#""phases":[{"name":"pairs","data":"pairs","mix":{"#), "{text}");
    assert!(text.contains(r#""loss":"answer","template":"chat","epochs":3,"#), "{text}");
}

#[test]
fn a_phase_inherits_what_it_leaves_out() {
    let with = json!({
        "model": model(), "epochs": 7, "warmup_steps": 10, "batch_tokens": 900,
        "phases": [{"data": "text"}, {"epochs": 2, "warmup_ratio": 0.5, "batch": 3}],
    });
    let config = serde_json::from_value::<LoraTrain>(with).unwrap().train_config().unwrap();
    let [text, pairs] = &config.phases[..] else { panic!("two phases") };
    assert_eq!((text.name.as_str(), text.epochs, text.batch), ("text", 7, data::Batch::Tokens(900)));
    assert_eq!((pairs.name.as_str(), pairs.epochs, pairs.batch), ("pairs", 2, data::Batch::Sequences(3)));
    assert_eq!(text.schedule.warmup, retort_lm::schedule::Warmup::Steps(10));
    assert_eq!(pairs.schedule.warmup, retort_lm::schedule::Warmup::Ratio(0.5));
}

fn problem(with: Value) -> (String, String) {
    let mut with = with;
    with["model"] = model();
    let specs = with_adapter(node("adapter", "lora-train", &[("train", "train"), ("eval", "eval")], with));
    let problems = check(&specs).err().expect("a problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
    (problems[0].at.field.clone(), problems[0].message.clone())
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    assert_eq!(problem(json!({"rank": 0})).0, "with.rank");
    assert_eq!(problem(json!({"phases": [{"batch": 1, "batch_tokens": 9}]})).0, "with.phases[0].batch_tokens");
    assert_eq!(problem(json!({"phases": [{"max_tokens": 0}]})).0, "with.phases[0].max_tokens");
    assert_eq!(problem(json!({"phases": [{}, {"learning_rate": -1.0}]})).0, "with.phases[1].learning_rate");
    assert_eq!(problem(json!({"phases": [{}, {}]})).1, "two phases are called `pairs`");
    assert_eq!(problem(json!({"phases": [{"mix": {"text": 1.0}}]})).0, "with.phases[0].mix.text");
    assert_eq!(problem(json!({"phases": [{"mix": {"pairs": 0.5}}]})).0, "with.phases[0].mix.pairs");
    assert_eq!(problem(json!({"phases": [{"mix": {"text": 0.5, "replay": 0.5}}]})).0, "with.phases[0].mix.text");
    assert_eq!(problem(json!({"phases": [{"data": "text", "loss": "all"}]})).0, "with.phases[0].loss");
    assert_eq!(problem(json!({"phases": [{"data": "text", "template": "plain"}]})).0, "with.phases[0].template");
    assert_eq!(problem(json!({"phases": [{"stop_on": "evl"}]})).0, "with.phases[0].stop_on");
    assert_eq!(problem(json!({"stop_on": "general"})).1, "there is no evaluation set `general`");
    assert_eq!(problem(json!({"evals": {"text": "text"}})).0, "with.evals.text");
    assert_eq!(problem(json!({"evals": {"a b": "text"}})).0, "with.evals.a b");
    assert_eq!(problem(json!({"evals": {"general": "text"}})).0, "from");
    assert_eq!(problem(json!({"phases": [{"start": "merge"}]})).0, "with.phases[0].start");
    let merging =
        |key: &str, value: Value| problem(json!({"phases": [{}, {"name": "b", "start": "merge"}], key: value}));
    assert!(merging("dora", json!(true)).1.contains("DoRA"), "{}", merging("dora", json!(true)).1);
    assert_eq!(merging("dropout", json!(0.1)).0, "with.phases[1].start");
    assert_eq!(problem(json!({"phases": []})).0, "with.phases");
    assert_eq!(problem(json!({"warmup_ratio": 1.0})).0, "with.warmup_ratio");
    assert_eq!(problem(json!({"question": "qestion"})).1, "the input has no column `qestion`");
    let (field, message) = problem(json!({"targets": ["q_prj"]}));
    assert!(field == "with.targets" && message.contains("did you mean `q_proj`?"), "{field} {message}");
    let (field, message) = problem(json!({"phases": [{"data": "text"}, {}]}));
    assert!(field.starts_with("from") && message.contains("text"), "{field} {message}");
    let mut unused = trained();
    unused.with["phases"] = json!([{"data": "pairs"}]);
    let problems = check(&with_adapter(unused.clone())).err().unwrap();
    assert_eq!(problems[0].message, "no phase learns from `text`");
    unused.with["phases"] = json!([{"mix": {"text": 0.2}}]);
    assert!(check(&with_adapter(unused)).is_ok(), "a mixture is enough");
}

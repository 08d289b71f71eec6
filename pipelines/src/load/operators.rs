//! A few small operators for tests of loading: they declare what the real ones do, and are never run.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_cache::TableWriter;
use retort_engine::{
    Answers, Asset, Carry, Cx, Define, Env, Failure, Input, Inputs, OpInfo, Operator, Problem, RowBatch, RowOp,
    SlotSpec, TableOp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) const OPS: &[OpInfo] = &[
    OpInfo::of::<Chunk>(),
    OpInfo::of::<Extract>(),
    OpInfo::of::<PromptLlm>(),
    OpInfo::of::<SplitEval>(),
    OpInfo::of::<Train>(),
];

/// A file's weights, or a server.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Model {
    weights: Option<String>,
    sha256: Option<String>,
    server: Option<String>,
    name: Option<String>,
    api_key: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Extract {
    paths: Vec<String>,
}

impl Define for Extract {
    const NAME: &'static str = "extract";
    const VERSION: u32 = 1;
    const PLACES: &'static [&'static str] = &["paths"];

    fn source(&self, _: &Env<'_>) -> Option<Box<dyn TableOp>> {
        Some(Box::new(Tables { slots: &[], outputs: &[("out", &["path", "digest"])] }))
    }
    fn build(self, _: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Rows(Box::new(Rows { reads: vec!["path".into()], adds: vec!["text"] })))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Chunk {
    model: Option<Model>,
    max_tokens: u32,
    #[serde(default)]
    by: By,
    #[serde(default = "text")]
    column: String,
    #[serde(default)]
    overlap: f32,
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum By {
    /// At headings.
    #[default]
    Headings,
    /// At the ends of sentences.
    Sentences,
}

fn text() -> String {
    "text".into()
}

impl Define for Chunk {
    const NAME: &'static str = "chunk";
    const VERSION: u32 = 1;

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        let weights = |model: &Model| Asset {
            name: "model".into(),
            sources: model.weights.iter().cloned().collect(),
            sha256: model.sha256.clone(),
            base: PathBuf::from(env.base),
        };
        self.model.iter().map(weights).collect()
    }
    fn build(self, _: &Env<'_>) -> Result<Operator, Problem> {
        if self.max_tokens < 8 {
            return Err(Problem::at_field("max_tokens", format!("{} tokens hold no sentence", self.max_tokens)));
        }
        Ok(Operator::Rows(Box::new(Rows { reads: vec![self.column], adds: vec!["text", "n_tokens"] })))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PromptLlm {
    model: Model,
    messages: Vec<Message>,
    #[serde(default)]
    sample: Sample,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Message {
    /// Instructions.
    System(String),
    /// A question.
    User(String),
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    temperature: f32,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: f32,
    max_tokens: u32,
    stop: Vec<String>,
}

impl Define for PromptLlm {
    const NAME: &'static str = "prompt-llm";
    const VERSION: u32 = 1;

    fn build(self, _: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Rows(Box::new(Rows { reads: vec!["text".into()], adds: vec!["output"] })))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SplitEval {
    eval: f64,
    seed: u64,
}

impl Define for SplitEval {
    const NAME: &'static str = "split-eval";
    const VERSION: u32 = 1;

    fn build(self, _: &Env<'_>) -> Result<Operator, Problem> {
        let outputs = &[("train", &["output"] as &[&str]), ("eval", &["output"])];
        Ok(Operator::Table(Box::new(Tables { slots: &["from"], outputs })))
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Train {
    model: Model,
    rank: u32,
}

impl Define for Train {
    const NAME: &'static str = "lora-train";
    const VERSION: u32 = 1;

    fn build(self, _: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(Tables { slots: &["train", "eval"], outputs: &[("out", &["tensor"])] })))
    }
}

fn columns(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect::<Vec<_>>()))
}

struct Rows {
    reads: Vec<String>,
    adds: Vec<&'static str>,
}

impl RowOp for Rows {
    fn reads(&self) -> Vec<String> {
        self.reads.clone()
    }
    fn adds(&self, _: &Schema) -> Result<SchemaRef, Problem> {
        Ok(columns(&self.adds))
    }
    fn carries(&self) -> Carry {
        Carry::All
    }
    fn apply(&self, _: &RowBatch, _: &Answers<'_>, _: &Cx<'_>) -> Result<(), Failure> {
        Err(Failure::op("never run"))
    }
}

struct Tables {
    slots: &'static [&'static str],
    outputs: &'static [(&'static str, &'static [&'static str])],
}

impl TableOp for Tables {
    fn slots(&self) -> Vec<SlotSpec> {
        self.slots.iter().map(|slot| SlotSpec::required(*slot)).collect()
    }
    fn outputs(&self) -> Vec<String> {
        self.outputs.iter().map(|(name, _)| (*name).into()).collect()
    }
    fn schemas(&self, _: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(self.outputs.iter().map(|(_, names)| columns(names)).collect())
    }
    fn run(&self, _: &Inputs<Input>, _: &mut [Box<dyn TableWriter>], _: &Cx<'_>) -> Result<(), Failure> {
        Err(Failure::op("never run"))
    }
}

//! `lora-train`: a model learns from texts, then from questions and answers, and what it learnt is a small adapter.
//!
//! What it is told stands in `lora_train/config.rs` and, with nothing left out, in `resolved.rs`; what comes out in `lora_train/adapter.rs` and
//! `lora_train/metrics.rs`. The loop itself is `retort_lm::train`.

pub mod adapter;
mod config;
mod metrics;
mod resolved;
mod targets;
#[cfg(test)]
pub(crate) mod tests;

pub use config::{Curve, LoraTrain, Material, PhaseConfig};
pub use targets::Targets;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use retort_cache::TableWriter;
use retort_engine::{Asset, Cx, Define, Env, Failure, Input, Inputs, Lane, Operator, Problem, SlotSpec, TableOp};
use retort_lm::LmError;
use retort_lm::data::{self, Counts, Examples, Pair};
use retort_lm::gradient::Segment;
use retort_lm::train::{Checkpoint, Progress, Source, TrainConfig, train};

use crate::models::{self, LoadedModel, Precision};
use crate::stable;

/// Steps between two savings of the state, so that little is done again after a crash.
const SAVE_EVERY: u64 = 10;

impl Define for LoraTrain {
    const NAME: &'static str = "lora-train";
    const VERSION: u32 = 3;

    fn lane(&self) -> Lane {
        Lane::Model
    }

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        self.model.assets(env)
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        self.model.check_local("model")?;
        let config = self.train_config()?;
        let asset = self.model.asset(env).expect("a local model has weights");
        Ok(Operator::Table(Box::new(Trainer { asset, config, columns: self })))
    }
}

struct Trainer {
    asset: Asset,
    config: TrainConfig,
    /// Of which the column names are used.
    columns: LoraTrain,
}

impl Trainer {
    fn learns_from(&self, source: Source) -> bool {
        self.config.phases.iter().any(|phase| phase.data == source)
    }
}

impl TableOp for Trainer {
    fn slots(&self) -> Vec<SlotSpec> {
        let slot = |name: &str, required| SlotSpec { name: name.into(), required };
        vec![
            slot("train", self.learns_from(Source::Pairs)),
            slot("eval", false),
            slot("text", self.learns_from(Source::Text)),
        ]
    }

    fn outputs(&self) -> Vec<String> {
        vec!["adapter".into(), "metrics".into()]
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        stable::none_of(self.mistakes(inputs))?;
        Ok(vec![adapter::schema(), metrics::schema()])
    }

    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (slot, source, data) in [("train", Source::Pairs, "pairs"), ("text", Source::Text, "text")] {
            if inputs.get(slot).is_some() && !self.learns_from(source) {
                let problem =
                    Problem::new("unused-input", format!("from.{slot}"), format!("no phase learns from `{slot}`"));
                problems.push(problem.hint(format!("add a phase with `data: {data}`, or leave the input out")));
            }
        }
        for slot in ["train", "eval"] {
            if let Some(schema) = inputs.get(slot) {
                problems.extend(text_column("question", &self.columns.question, schema).err());
                problems.extend(text_column("answer", &self.columns.answer, schema).err());
            }
        }
        if let Some(schema) = inputs.get("text") {
            problems.extend(text_column("text", &self.columns.text, schema).err());
        }
        problems
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let loaded = models::load(&self.asset, Precision::F16, cx)?;
        let material = Tables::read(&self.columns, inputs)?;
        let data = material.examples(&loaded, &self.config, cx)?;
        let eval = material.exam(&loaded, &self.config, cx)?;
        let checkpoint = Checkpoint { folder: cx.workspace()?, every: SAVE_EVERY };
        let mut replayed = None;
        let mut watch = |progress: Progress<'_>| {
            if progress.replayed {
                replayed = Some(progress.metric.step);
            } else if let Some(step) = replayed.take() {
                cx.note(format!("goes on after step {step}"));
            }
            tell(progress, cx).map_err(|_| LmError::Cancelled)
        };
        let trained = train(&loaded.model, &self.config, &data, &eval, Some(&checkpoint), &mut watch);
        let trained = trained.map_err(failure)?;
        adapter::write(&trained.adapter, &cx.asset_digest(&self.asset)?, out[0].as_mut())?;
        out[1].write(&metrics::batch(&trained.metrics)?)?;
        Ok(())
    }
}

/// A failure of the engine from one of the model layer.
pub(crate) fn failure(error: LmError) -> Failure {
    match error {
        LmError::Cancelled => Failure::Cancelled,
        other => Failure::op(other),
    }
}

/// The index of a column that must hold text, or the problem with the config key `field` that names it.
pub(crate) fn text_column(field: &str, name: &str, schema: &Schema) -> Result<usize, Problem> {
    let index = stable::column(field, name, schema)?;
    match schema.field(index).data_type() {
        DataType::Utf8 => Ok(index),
        other => Err(Problem::at_field(field, format!("`{name}` holds no text but {other}"))),
    }
}

/// The values of text columns, row by row; a null is an empty text.
pub(crate) fn texts<const N: usize>(input: &Input, columns: [(&str, &str); N]) -> Result<Vec<[String; N]>, Failure> {
    let mut rows = Vec::with_capacity(input.rows() as usize);
    let mut indices = [0; N];
    for (index, (field, name)) in indices.iter_mut().zip(columns) {
        *index = text_column(field, name, &input.schema).map_err(|problem| Failure::op(problem.message))?;
    }
    for batch in input.batches()? {
        let batch = batch?;
        let columns = indices.map(|index| batch.column(index).as_string::<i32>());
        let value = |column: &arrow::array::StringArray, row| {
            if column.is_valid(row) { column.value(row).to_owned() } else { String::new() }
        };
        rows.extend((0..batch.num_rows()).map(|row| columns.map(|column| value(column, row))));
    }
    Ok(rows)
}

/// The pairs of a table.
pub(crate) fn pairs(input: &Input, question: &str, answer: &str) -> Result<Vec<Pair>, Failure> {
    let rows = texts(input, [("question", question), ("answer", answer)])?;
    Ok(rows.into_iter().map(|[question, answer]| Pair { question, answer }).collect())
}

/// The rows of the inputs.
struct Tables {
    train: Vec<Pair>,
    eval: Vec<Pair>,
    text: Vec<[String; 1]>,
}

impl Tables {
    fn read(columns: &LoraTrain, inputs: &Inputs<Input>) -> Result<Self, Failure> {
        let pairs = |slot| match inputs.get(slot) {
            Some(input) => self::pairs(input, &columns.question, &columns.answer),
            None => Ok(Vec::new()),
        };
        let text = inputs.get("text").map(|input| texts(input, [("text", &columns.text)])).transpose()?;
        Ok(Self { train: pairs("train")?, eval: pairs("eval")?, text: text.unwrap_or_default() })
    }

    /// What each phase learns from.
    fn examples(&self, loaded: &LoadedModel, config: &TrainConfig, cx: &Cx<'_>) -> Result<Vec<Examples>, Failure> {
        let context = loaded.model.config().max_position_embeddings;
        let (tokenizer, template) = (&loaded.tokenizer, &loaded.template);
        let mut all = Vec::with_capacity(config.phases.len());
        for phase in &config.phases {
            cx.check()?;
            if phase.max_length > context {
                let message = format!("`max_length` {} of phase `{}` is over", phase.max_length, phase.name);
                return Err(Failure::op(format!("{message} the model's context of {context} tokens")));
            }
            let examples = match phase.data {
                Source::Text => data::texts(tokenizer, self.text.iter().map(|[text]| text.as_str()), phase.max_length),
                Source::Pairs => data::pairs(tokenizer, template, &self.train, Counts::Answer, phase.max_length),
            };
            all.push(examples.map_err(failure)?);
        }
        Ok(all)
    }

    /// What each evaluation asks.
    fn exam(&self, loaded: &LoadedModel, config: &TrainConfig, cx: &Cx<'_>) -> Result<Vec<Segment>, Failure> {
        let longest = config.phases.iter().map(|phase| phase.max_length).max().unwrap_or(0);
        let exam =
            data::pairs(&loaded.tokenizer, &loaded.template, &self.eval, Counts::Answer, longest).map_err(failure)?;
        if exam.dropped > 0 {
            let asked = self.eval.len();
            cx.note(format!("eval: {} of {asked} pairs dropped: empty, or over {longest} tokens", exam.dropped));
        }
        if exam.segments.is_empty() {
            cx.note("no eval pairs: no phase stops early, each keeps its last adapter");
        }
        Ok(exam.segments)
    }
}

/// Tells the observers of a row of the log.
fn tell(progress: Progress<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
    let row = progress.metric;
    let named = [
        ("loss", row.loss),
        ("eval_loss", row.eval_loss),
        ("learning_rate", Some(row.learning_rate)),
        ("grad_norm", row.grad_norm),
        ("epoch", Some(row.epoch)),
    ];
    if progress.read > 0 {
        cx.tokens(progress.read, 0);
    }
    cx.metrics(row.step, named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect());
    if let (Some(note), false) = (&row.note, progress.replayed) {
        cx.note(format!("{} step {}: {note}", row.phase, row.step));
    }
    cx.progress(progress.done, progress.of)
}

//! `lora-train`: a model learns from texts, then from questions and answers, and what it learnt is a small adapter.
//!
//! What it is told stands in `lora_train/config.rs` and, with nothing left out, in `resolved.rs`; what comes out in `lora_train/adapter.rs` and
//! `lora_train/metrics.rs`. The loop itself is `retort_lm::train`.

pub mod adapter;
mod config;
mod material;
mod metrics;
mod phase;
#[cfg(feature = "mpi")]
pub mod ranks;
mod resolved;
mod targets;
#[cfg(test)]
pub(crate) mod tests;

pub use config::{LoraTrain, TrainPrecision};
pub use phase::{Beginning, Curve, Held, Loss, Material, Mix, PhaseConfig, Template};
pub use targets::Targets;

use std::path::PathBuf;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use retort_cache::TableWriter;
use retort_engine::{Asset, Cx, Define, Env, Failure, Input, Inputs, Lane, Operator, Problem, SlotSpec, TableOp};
use retort_lm::LmError;
use retort_lm::data::Pair;
use retort_lm::train::{Checkpoint, Form, Progress, Source, TrainConfig, kept_keys, train_across};

use crate::models;
use crate::stable;
use resolved::Resolved;

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
        let exam = Resolved::from(self.clone()).exam();
        let asset = self.model.asset(env).expect("a local model has weights");
        Ok(Operator::Table(Box::new(Trainer { asset, config, exam, columns: self })))
    }
}

struct Trainer {
    asset: Asset,
    config: TrainConfig,
    /// How evaluations ask.
    exam: Form,
    /// Of which the column names and the precision are used.
    columns: LoraTrain,
}

impl Trainer {
    fn learns_from(&self, source: Source) -> bool {
        self.config.phases.iter().any(|phase| phase.learns_from(source))
    }
}

impl TableOp for Trainer {
    fn slots(&self) -> Vec<SlotSpec> {
        let slot = |name: &str, required| SlotSpec { name: name.into(), required };
        let mut slots = vec![
            slot("train", self.learns_from(Source::Pairs)),
            slot("eval", false),
            slot("text", self.learns_from(Source::Text)),
            slot("replay", self.learns_from(Source::Replay)),
        ];
        slots.extend(self.columns.evals.keys().map(|set| slot(set, true)));
        slots
    }

    fn outputs(&self) -> Vec<String> {
        vec!["adapter".into(), "metrics".into()]
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        stable::none_of(self.mistakes(inputs))?;
        Ok(vec![adapter::schema(), metrics::schema(self.columns.evals.keys())])
    }

    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let sources = [
            ("train", Source::Pairs, "add a phase with `data: pairs`"),
            ("text", Source::Text, "add a phase with `data: text`, or `mix: {text: 0.2}` to one of pairs"),
            ("replay", Source::Replay, "add `mix: {replay: 0.1}` to a phase"),
        ];
        for (slot, source, remedy) in sources {
            if inputs.get(slot).is_some() && !self.learns_from(source) {
                let problem =
                    Problem::new("unused-input", format!("from.{slot}"), format!("no phase learns from `{slot}`"));
                problems.push(problem.hint(format!("{remedy}, or leave the input out")));
            }
        }
        let sets =
            |kind: Held| self.columns.evals.iter().filter(move |(_, held)| **held == kind).map(|(set, _)| set.as_str());
        for slot in ["train", "eval"].into_iter().chain(sets(Held::Pairs)) {
            if let Some(schema) = inputs.get(slot) {
                problems.extend(text_column("question", &self.columns.question, schema).err());
                problems.extend(text_column("answer", &self.columns.answer, schema).err());
            }
        }
        for schema in ["text", "replay"].into_iter().chain(sets(Held::Text)).filter_map(|slot| inputs.get(slot)) {
            problems.extend(text_column("text", &self.columns.text, schema).err());
        }
        problems
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let loaded = models::load(&self.asset, self.columns.keep(), cx)?;
        let material = material::Tables::read(&self.columns, inputs)?;
        let data = material.examples(&loaded, &self.config, cx)?;
        let evals = material.exams(&loaded, &self.config, self.exam, cx)?;
        let base = cx.asset_digest(&self.asset)?;
        let kept = heritage(&kept_keys(&loaded.model, &self.config, &data, &evals), &base, self.columns.precision, cx)?;
        let checkpoint = Checkpoint { folder: cx.workspace()?, every: SAVE_EVERY, kept };
        let mut replayed = None;
        let mut watch = |progress: Progress<'_>| {
            if progress.replayed {
                replayed = Some(progress.metric.step);
            } else if let Some(step) = replayed.take() {
                cx.note(format!("goes on after step {step}"));
            }
            tell(progress, cx).map_err(|_| LmError::Cancelled)
        };
        #[cfg(feature = "mpi")]
        let path = cx.asset(&self.asset)?;
        #[cfg(feature = "mpi")]
        let ranks = ranks::Ranks::of(&loaded.model, &path, self.columns.keep(), *cx);
        #[cfg(feature = "mpi")]
        let replicas = ranks.as_ref().map_or(&loaded.model as &dyn retort_lm::train::Replicas, |ranks| ranks);
        #[cfg(not(feature = "mpi"))]
        let replicas = &loaded.model;
        let trained = train_across(replicas, &loaded.model, &self.config, &data, &evals, Some(&checkpoint), &mut watch);
        let trained = trained.map_err(failure)?;
        adapter::write(&trained.adapter, &base, out[0].as_mut())?;
        out[1].write(&metrics::batch(&trained.metrics, self.columns.evals.keys())?)?;
        Ok(())
    }
}

/// Where the ends of phases are kept, so that a training that only goes on for longer, or otherwise afterwards, begins there.
fn heritage(
    keys: &[Option<String>],
    base: &str,
    precision: TrainPrecision,
    cx: &Cx<'_>,
) -> Result<Vec<Option<PathBuf>>, Failure> {
    let of = |key: &Option<String>| match key {
        Some(key) => {
            let (name, version, precision) = (LoraTrain::NAME, LoraTrain::VERSION, precision.fact());
            cx.heritage(&format!("{name} {version} {base} {precision} {key}"))
        }
        None => Ok(None),
    };
    keys.iter().map(of).collect()
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

/// Tells the observers of a row of the log.
fn tell(progress: Progress<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
    let row = progress.metric;
    let others = row.other_losses.iter().map(|(set, &loss)| (metrics::column(set), Some(loss)));
    let named = [
        ("loss", row.loss),
        ("eval_loss", row.eval_loss),
        ("learning_rate", Some(row.learning_rate)),
        ("grad_norm", row.grad_norm),
        ("epoch", Some(row.epoch)),
    ];
    if progress.read > 0 {
        cx.tokens_of(progress.read, progress.left);
    }
    let named = named.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(others);
    cx.metrics(row.step, named.filter_map(|(name, value)| Some((name, value?))).collect());
    if let (Some(note), false) = (&row.note, progress.replayed) {
        cx.note(format!("{} step {}: {note}", row.phase, row.step));
    }
    cx.progress(progress.done, progress.of)
}

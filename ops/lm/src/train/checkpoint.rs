//! The state of a training on disk: one safetensors file, whose header says what it belongs to.
//!
//! Tensors are `adapter.*`, `first.*` and `second.*` (the optimizer's moments), `best.*` and `merged.*` (what a phase found and does not touch),
//! under the adapter's names.
//! The header holds the format's version, the digest of what it belongs to (`recipe.rs`; the caller keeps a folder for each model), and the rest
//! of the state as JSON.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::lora::{Adapter, AdapterTensor};
use crate::model::Model;
use crate::optim::{AdamState, AdamW};
use crate::train::joined::join;
use crate::train::state::{Best, Metric, State, optimizer};
use crate::train::{Start, TrainConfig};

/// Raised with the first change of what the file holds.
const FORMAT: &str = "3";

/// Where and how often the state of a training is saved. It is also saved after each evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// A folder of this training alone.
    pub folder: PathBuf,
    /// Steps between two savings; 0 for at evaluations only.
    pub every: u64,
    /// For each phase, if there is one, a folder of all trainings that have the same key for it ([`kept_keys`](super::kept_keys)) and the same
    /// weights: the state at the phase's end stays there, and whoever trains for longer, or otherwise afterwards, goes on from it.
    pub kept: Vec<Option<PathBuf>>,
}

impl Checkpoint {
    /// Checkpoints of this training alone.
    pub fn new(folder: impl Into<PathBuf>, every: u64) -> Self {
        Self { folder: folder.into(), every, kept: Vec::new() }
    }

    /// Whether the state is to be saved after step `step`, evaluations aside.
    pub(crate) fn due(&self, step: u64) -> bool {
        self.every > 0 && step.is_multiple_of(self.every)
    }
}

/// A file with the state of a training.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    /// What the state must belong to.
    pub(crate) recipe: String,
    /// The training that writes it: several may at a time.
    pub(crate) writer: String,
}

/// The part of the state that is no tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    phase: usize,
    phase_step: usize,
    /// Of the phase.
    steps: usize,
    step: u64,
    tokens: u64,
    optimizer_steps: u64,
    /// Loss and step of the best.
    best: Option<(f64, u64)>,
    mark: Option<f64>,
    waited: u64,
    stopped: bool,
    finished: bool,
    metrics: Vec<Metric>,
}

impl Place {
    /// Saves the state in place of the one before; its phase has `steps` steps.
    pub(crate) fn save(&self, state: &State, steps: usize) -> Result<(), LmError> {
        let moments = &state.optimizer.state;
        let mut tensors = BTreeMap::new();
        for (at, tensor) in state.adapter.tensors().iter().enumerate() {
            let mut put = |kind: &str, values: &[f32]| {
                tensors.insert(format!("{kind}.{}", tensor.name), (tensor.shape, bytes(values)));
            };
            put("adapter", &tensor.values);
            put("first", &moments.first[at]);
            put("second", &moments.second[at]);
            if let Some(best) = &state.best {
                put("best", &best.adapter.tensors()[at].values);
            }
        }
        for tensor in state.merged.iter().flat_map(Adapter::tensors) {
            tensors.insert(format!("merged.{}", tensor.name), (tensor.shape, bytes(&tensor.values)));
        }
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("as many bytes as the shape says"))
        });
        let cursor = serde_json::to_string(&cursor(state, steps)).expect("plain data");
        let header = [("format", FORMAT.to_owned()), ("recipe", self.recipe.clone()), ("state", cursor)];
        let header = header.map(|(key, value)| (key.to_owned(), value));
        let file = safetensors::serialize(views, Some(HashMap::from(header))).expect("well-formed tensors");
        file::replace(&self.folder, &self.writer, &file)
    }

    /// The state that was saved by the same training, and how many steps its phase had; none if there is none, or it is of another training
    /// or format.
    pub(crate) fn load(&self, model: &Model, config: &TrainConfig) -> Result<Option<(State, usize)>, LmError> {
        let Some(bytes) = file::read(&self.folder)? else { return Ok(None) };
        let Some((cursor, tensors)) = self.cursor(&bytes).zip(SafeTensors::deserialize(&bytes).ok()) else {
            return Ok(None);
        };
        let steps = cursor.steps;
        Ok(state(model, config, cursor, &tensors).map(|state| (state, steps)))
    }

    /// How many steps of how many were done when the state was saved.
    pub(crate) fn reached(&self) -> Result<Option<(usize, usize)>, LmError> {
        let cursor = file::read(&self.folder)?.and_then(|bytes| self.cursor(&bytes));
        Ok(cursor.map(|cursor| (cursor.phase_step, cursor.steps)))
    }

    fn cursor(&self, bytes: &[u8]) -> Option<Cursor> {
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        let says = |key: &str| header.metadata().as_ref().and_then(|header| header.get(key));
        if says("format")? != FORMAT || *says("recipe")? != self.recipe {
            return None;
        }
        serde_json::from_str(says("state")?).ok()
    }
}

fn cursor(state: &State, steps: usize) -> Cursor {
    Cursor {
        steps,
        phase: state.phase,
        phase_step: state.phase_step,
        step: state.step,
        tokens: state.tokens,
        optimizer_steps: state.optimizer.state.steps,
        best: state.best.as_ref().map(|best| (best.loss, best.step)),
        mark: state.mark,
        waited: state.waited,
        stopped: state.stopped,
        finished: state.finished,
        metrics: state.metrics.clone(),
    }
}

fn state(model: &Model, config: &TrainConfig, cursor: Cursor, tensors: &SafeTensors<'_>) -> Option<State> {
    let own = Adapter::init(model.config(), &config.lora, config.seed).ok()?;
    let values = |kind: &str, shape: &Adapter| -> Option<Vec<Vec<f32>>> {
        let names = shape.tensors().iter().map(|tensor| format!("{kind}.{}", tensor.name));
        names.map(|name| Some(floats(tensors.tensor(&name).ok()?.data()))).collect()
    };
    let adapter = |kind: &str, shape: &Adapter| -> Option<Adapter> {
        let named = shape.tensors().iter().zip(values(kind, shape)?);
        let named = named.map(|(own, values)| AdapterTensor { name: own.name.clone(), shape: own.shape, values });
        Adapter::from_tensors(model.config(), shape.config(), shape.places().to_vec(), named).ok()
    };
    let best = match cursor.best {
        Some((loss, step)) => Some(Best { loss, step, adapter: adapter("best", &own)? }),
        None => None,
    };
    let mut merged = None;
    let phases = config.phases.get(..=cursor.phase)?;
    for _ in phases.iter().filter(|phase| phase.start == Start::Merge) {
        merged = Some(match &merged {
            Some(merged) => join(model.config(), merged, &own).ok()?,
            None => own.clone(),
        });
    }
    let merged = match merged {
        Some(shape) => Some(adapter("merged", &shape)?),
        None => None,
    };
    let (first, second) = (values("first", &own)?, values("second", &own)?);
    Some(State {
        phase: cursor.phase,
        phase_step: cursor.phase_step,
        step: cursor.step,
        tokens: cursor.tokens,
        merged,
        adapter: adapter("adapter", &own)?,
        optimizer: AdamW::resume(optimizer(config), AdamState { steps: cursor.optimizer_steps, first, second }),
        best,
        mark: cursor.mark,
        waited: cursor.waited,
        stopped: cursor.stopped,
        finished: cursor.finished,
        metrics: cursor.metrics,
    })
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

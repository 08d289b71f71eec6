//! The state of a training on disk: one safetensors file, whose header says what it belongs to.
//!
//! Tensors are `adapter.*`, `first.*` and `second.*` (the optimizer's moments), `best.*` and `merged.*` (what a phase found and does not touch),
//! under the adapter's names.
//! The header holds the format's version, the digest of everything that decides the outcome but the base weights (the
//! caller keeps a folder for each model), and the rest of the state as JSON. The file replaces its predecessor by a
//! rename, so a crash leaves one or the other. After the safetensors file comes its check, as all files of unfinished work in a
//! store have it: a mark and a BLAKE3 digest. Whoever hands out the folder moves away what does not hold.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::data::Examples;
use crate::gradient::Segment;
use crate::lora::{Adapter, AdapterTensor};
use crate::model::Model;
use crate::optim::{AdamState, AdamW};
use crate::train::joined::join;
use crate::train::{EvalSet, Start, TrainConfig};
use crate::train::state::{Best, Metric, State, optimizer};

/// Raised with the first change of what the file holds.
const FORMAT: &str = "3";
const FILE: &str = "checkpoint.safetensors";
/// What stands before the digest of all before it.
const MARK: [u8; 16] = *b"\nretort check 1\n";

/// Where and how often the state of a training is saved. It is also saved after each evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// A folder of this training alone.
    pub folder: PathBuf,
    /// Steps between two savings; 0 for at evaluations only.
    pub every: u64,
}

/// The part of the state that is no tensor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    phase: usize,
    phase_step: usize,
    step: u64,
    tokens: u64,
    optimizer_steps: u64,
    /// Loss and step of the best.
    best: Option<(f64, u64)>,
    mark: Option<f64>,
    waited: u64,
    stopped: bool,
    metrics: Vec<Metric>,
}

impl Checkpoint {
    /// Whether the state is to be saved after step `step`, evaluations aside.
    pub(crate) fn due(&self, step: u64) -> bool {
        self.every > 0 && step.is_multiple_of(self.every)
    }

    /// Saves the state in place of the one before.
    pub(crate) fn save(
        &self,
        model: &Model,
        config: &TrainConfig,
        data: &[Examples],
        evals: &[EvalSet],
        state: &State,
    ) -> Result<(), LmError> {
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
        let cursor = serde_json::to_string(&cursor(state)).expect("plain data");
        let header = [("format", FORMAT.to_owned()), ("recipe", recipe(model, config, data, evals)), ("state", cursor)];
        let header = header.map(|(key, value)| (key.to_owned(), value));
        let file = safetensors::serialize(views, Some(HashMap::from(header))).expect("well-formed tensors");
        replace(&self.folder, &file)
    }

    /// The state that was saved by the same training; none if there is none, or it is of another training or format.
    pub(crate) fn load(
        &self,
        model: &Model,
        config: &TrainConfig,
        data: &[Examples],
        evals: &[EvalSet],
    ) -> Result<Option<State>, LmError> {
        let path = self.folder.join(FILE);
        let file = match std::fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let Some(file) = checked(&file) else { return Ok(None) };
        let recipe = recipe(model, config, data, evals);
        let Ok((_, header)) = SafeTensors::read_metadata(file) else { return Ok(None) };
        let says = |key: &str| header.metadata().as_ref().and_then(|header| header.get(key)).cloned();
        if says("format").as_deref() != Some(FORMAT) || says("recipe") != Some(recipe) {
            return Ok(None);
        }
        let cursor = says("state").and_then(|state| serde_json::from_str(&state).ok());
        let tensors = SafeTensors::deserialize(file).ok();
        Ok(cursor.zip(tensors).and_then(|(cursor, tensors)| state(model, config, cursor, &tensors)))
    }
}

fn cursor(state: &State) -> Cursor {
    Cursor {
        phase: state.phase,
        phase_step: state.phase_step,
        step: state.step,
        tokens: state.tokens,
        optimizer_steps: state.optimizer.state.steps,
        best: state.best.as_ref().map(|best| (best.loss, best.step)),
        mark: state.mark,
        waited: state.waited,
        stopped: state.stopped,
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
        metrics: cursor.metrics,
    })
}

/// The digest of config, architecture and all segments, in hexadecimal.
fn recipe(model: &Model, config: &TrainConfig, data: &[Examples], evals: &[EvalSet]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("retort-lm checkpoint 2");
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&serde_json::to_string(config).expect("plain data"));
    text(&model.config().to_json().to_string());
    for examples in data {
        text(&serde_json::to_string(&examples.parts).expect("plain data"));
    }
    evals.iter().for_each(|set| text(&set.name));
    let examples = data.iter().map(|examples| &examples.segments);
    for segments in examples.chain(evals.iter().map(|set| &set.segments)) {
        hasher.update(&(segments.len() as u64).to_le_bytes());
        for Segment { tokens, targets } in segments {
            hasher.update(&(tokens.len() as u64).to_le_bytes());
            for token in tokens {
                hasher.update(&token.to_le_bytes());
            }
            for target in targets {
                hasher.update(&target.map_or(-1, i64::from).to_le_bytes());
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// What was saved, if the check after it holds.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (file, digest) =
        bytes.split_last_chunk::<32>().and_then(|(rest, digest)| Some((rest.strip_suffix(&MARK)?, digest)))?;
    (check(file) == *digest).then_some(file)
}

fn check(file: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key("retort unfinished work 1").update_rayon(file).finalize().as_bytes()
}

/// Writes beside, syncs, renames, syncs the folder.
fn replace(folder: &Path, file: &[u8]) -> Result<(), LmError> {
    use std::io::Write as _;
    let (beside, path) = (folder.join(format!("{FILE}.new")), folder.join(FILE));
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let mut out = File::create(&beside).map_err(io("create", &beside))?;
    let check = check(file);
    let parts = [file, &MARK, &check];
    parts
        .iter()
        .try_for_each(|part| out.write_all(part))
        .and_then(|()| out.sync_all())
        .map_err(io("write", &beside))?;
    std::fs::rename(&beside, &path).map_err(io("rename", &beside))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync", folder))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn io<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> LmError + 'a {
    move |source| LmError::Io { verb, path: path.display().to_string(), source }
}

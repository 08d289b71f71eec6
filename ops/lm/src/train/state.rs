//! Where training stands between two steps: all that a checkpoint must hold.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::lora::Adapter;
use crate::model::Model;
use crate::optim::{AdamW, AdamWConfig};
use crate::train::joined::join;
use crate::train::{EVAL, Phase, Start, TrainConfig};

/// A row of the training log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The phase.
    pub phase: String,
    /// Steps done, over all phases.
    pub step: u64,
    /// Passes over the phase's examples done.
    pub epoch: f64,
    /// Target tokens learnt from, over all phases.
    pub tokens: u64,
    /// Mean loss of the step's targets before the step, in nats a token.
    pub loss: Option<f64>,
    /// Mean loss on the evaluation set `eval` after the step.
    pub eval_loss: Option<f64>,
    /// Mean losses on the other evaluation sets after the step, by name.
    pub other_losses: BTreeMap<String, f64>,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: Option<f64>,
    /// What happened, such as `stopped: no gain in 3 evaluations; kept step 40 (eval loss 1.234)`.
    pub note: Option<String>,
}

impl Metric {
    /// The loss on an evaluation set, by name.
    pub fn loss_on(&self, set: &str) -> Option<f64> {
        if set == EVAL { self.eval_loss } else { self.other_losses.get(set).copied() }
    }

    /// Adds to the note.
    pub(crate) fn add_note(&mut self, note: String) {
        self.note = Some(match self.note.take() {
            Some(before) => format!("{before}; {note}"),
            None => note,
        });
    }
}

/// The best adapter of a phase so far.
pub(crate) struct Best {
    /// Its loss on the evaluation set that the phase stops on.
    pub(crate) loss: f64,
    /// After which step.
    pub(crate) step: u64,
    /// It.
    pub(crate) adapter: Adapter,
}

/// Where training stands.
pub(crate) struct State {
    /// The phase, by index.
    pub(crate) phase: usize,
    /// Steps done in it: the cursor into its plan.
    pub(crate) phase_step: usize,
    /// Steps done in all.
    pub(crate) step: u64,
    /// Target tokens learnt from in all.
    pub(crate) tokens: u64,
    /// What earlier phases learnt and this one does not touch.
    pub(crate) merged: Option<Adapter>,
    /// What learns, as of the last step.
    pub(crate) adapter: Adapter,
    /// As of the last step.
    pub(crate) optimizer: AdamW,
    /// The phase's best so far.
    pub(crate) best: Option<Best>,
    /// The loss that the next evaluation must fall below, by the least gain.
    pub(crate) mark: Option<f64>,
    /// Evaluations since the mark was set.
    pub(crate) waited: u64,
    /// Whether patience ended the phase.
    pub(crate) stopped: bool,
    /// Whether all is done that ends a phase: its last evaluation, and the last row's note.
    pub(crate) finished: bool,
    /// All rows.
    pub(crate) metrics: Vec<Metric>,
}

impl State {
    /// Before the first step.
    pub(crate) fn start(model: &Model, config: &TrainConfig) -> Result<Self, LmError> {
        let adapter = model.fresh_adapter(&config.lora, config.seed)?;
        Ok(Self {
            phase: 0,
            phase_step: 0,
            step: 0,
            tokens: 0,
            optimizer: AdamW::new(optimizer(config), &adapter),
            merged: None,
            adapter,
            best: None,
            mark: None,
            waited: 0,
            stopped: false,
            finished: false,
            metrics: Vec::new(),
        })
    }

    /// All that was learnt, as one adapter.
    pub(crate) fn whole(&self, model: &Model) -> Result<Cow<'_, Adapter>, LmError> {
        Ok(match &self.merged {
            Some(merged) => Cow::Owned(join(model.config(), merged, &self.adapter)?),
            None => Cow::Borrowed(&self.adapter),
        })
    }

    /// As [`State::whole`], at the end.
    pub(crate) fn into_whole(self, model: &Model) -> Result<Adapter, LmError> {
        match &self.merged {
            Some(_) => Ok(self.whole(model)?.into_owned()),
            None => Ok(self.adapter),
        }
    }

    /// A row of the log as of now.
    pub(crate) fn row(&self, phase: &str, epoch: f64, learning_rate: f64) -> Metric {
        Metric {
            phase: phase.to_owned(),
            step: self.step,
            epoch,
            tokens: self.tokens,
            loss: None,
            eval_loss: None,
            other_losses: BTreeMap::new(),
            learning_rate,
            grad_norm: None,
            note: None,
        }
    }

    /// What the phase ends with, in words.
    pub(crate) fn kept(&self, phase: &Phase) -> String {
        match &self.best {
            Some(best) if phase.stop_on == EVAL => format!("kept step {} (eval loss {:.4})", best.step, best.loss),
            Some(best) => format!("kept step {} (loss on `{}` {:.4})", best.step, phase.stop_on, best.loss),
            None => format!("kept step {}", self.step),
        }
    }

    /// Ends the phase with its best adapter, and makes ready for the next.
    pub(crate) fn next_phase(&mut self, model: &Model, config: &TrainConfig) -> Result<(), LmError> {
        if let Some(best) = self.best.take() {
            self.adapter = best.adapter;
        }
        let next = self.phase + 1;
        if config.phases.get(next).is_some_and(|phase| phase.start == Start::Merge) {
            self.merged = Some(self.whole(model)?.into_owned());
            self.adapter = model.fresh_adapter(&config.lora, config.seed.wrapping_add((next as u64) << 32))?;
        }
        self.optimizer.restart();
        self.phase = next;
        self.phase_step = 0;
        self.mark = None;
        self.waited = 0;
        self.stopped = false;
        self.finished = false;
        Ok(())
    }
}

/// The optimizer's numbers.
pub(crate) fn optimizer(config: &TrainConfig) -> AdamWConfig {
    AdamWConfig { weight_decay: config.weight_decay, plus: config.lora_plus, ..AdamWConfig::default() }
}

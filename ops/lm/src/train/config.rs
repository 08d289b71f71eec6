//! What training is told to do.

use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::data::{Batch, Counts, Examples};
use crate::gradient::Segment;
use crate::lora::LoraConfig;
use crate::schedule::{Decay, Schedule, Warmup};

/// A whole training: phases in order, and what they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The adapter's shape.
    pub lora: LoraConfig,
    /// In order; each goes on from the best adapter of the one before.
    pub phases: Vec<Phase>,
    /// What the learning rate of all tensors but `A` is multiplied with: LoRA+.
    pub lora_plus: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Gradients longer than this are cut down to it; 0 for no limit.
    pub max_grad_norm: f32,
    /// Of the adapter's first values, the order of examples, and dropout.
    pub seed: u64,
    /// Tokens that go through the model at a time: what bounds memory. A step of more takes several passes.
    pub max_tokens_per_pass: usize,
}

/// One pass after another over one kind of examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name in metrics.
    pub name: String,
    /// What it learns from.
    pub data: Source,
    /// What else, and what share of the tokens that is. Its examples were mixed so; here it is only told.
    pub mix: Vec<(Source, f64)>,
    /// What becomes of the adapter that the phase before ended with.
    pub start: Start,
    /// Passes over the examples.
    pub epochs: u64,
    /// At most so many steps, whatever `epochs` says.
    pub max_steps: Option<u64>,
    /// At most so many tokens through the model (at least one step), whatever `epochs` says.
    pub max_tokens: Option<u64>,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// How much goes into one step.
    pub batch: Batch,
    /// Which tokens of a pair count. Its examples were made so; here it is only told.
    pub counts: Counts,
    /// How pairs are written. Its examples were made so; here it is only told.
    pub form: Form,
    /// Longest segment, in tokens. Its examples were cut by it; here it is only told.
    pub max_length: usize,
    /// Steps between evaluations; 0 for one at the end of each epoch. The last step is always followed by one.
    pub eval_every: u64,
    /// Evaluations in a row without gain that end the phase; 0 for never.
    pub patience: u64,
    /// By how much the loss that it stops on must fall, in nats a token, to be a gain.
    pub min_gain: f64,
    /// The evaluation set by which it stops and which adapter is its best.
    pub stop_on: String,
}

/// What a phase does to the adapter that was there before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// It goes on with it.
    #[default]
    Continue,
    /// It freezes it, as if it were folded into the base, and begins a new one.
    Merge,
}

/// A kind of examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Plain documents.
    Text,
    /// Questions and answers.
    Pairs,
    /// Documents of another kind, so that what the model knew is not forgotten.
    Replay,
}

/// The name of the evaluation set that every row of the log has its own column for.
pub const EVAL: &str = "eval";

/// Held-out examples.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalSet {
    /// What it is called: [`EVAL`], or another name.
    pub name: String,
    /// They; there may be none.
    pub segments: Vec<Segment>,
}

/// How a pair is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As the model's chat template has it.
    #[default]
    Chat,
    /// As [`ChatTemplate::plain`](crate::template::ChatTemplate::plain) has it.
    Plain,
}

impl Default for Phase {
    /// Pairs, three times, by a cosine from 2e-4, in steps of eight.
    fn default() -> Self {
        Self {
            name: "pairs".to_owned(),
            data: Source::Pairs,
            mix: Vec::new(),
            start: Start::Continue,
            epochs: 3,
            max_steps: None,
            max_tokens: None,
            schedule: Schedule { peak: 2e-4, warmup: Warmup::Ratio(0.05), decay: Decay::Cosine, min_ratio: 0.0 },
            batch: Batch::Sequences(8),
            counts: Counts::Answer,
            form: Form::Chat,
            max_length: 1024,
            eval_every: 0,
            patience: 2,
            min_gain: 0.0,
            stop_on: EVAL.to_owned(),
        }
    }
}

impl Source {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Pairs => "pairs",
            Self::Replay => "replay",
        }
    }
}

impl Phase {
    /// Whether it learns from such examples, alone or among others.
    pub fn learns_from(&self, source: Source) -> bool {
        self.data == source || self.mix.iter().any(|(other, _)| *other == source)
    }

    /// Whether it only looks for a learning rate.
    pub(crate) fn is_search(&self) -> bool {
        self.schedule.decay == Decay::Find
    }

    /// Whether an evaluation follows the phase's step `step` (from 1).
    pub(crate) fn is_due(&self, step: u64, ends_epoch: bool) -> bool {
        if self.is_search() {
            return false;
        }
        if self.eval_every == 0 { ends_epoch } else { step.is_multiple_of(self.eval_every) }
    }
}

impl TrainConfig {
    /// Why phase number `at` cannot begin as it is told to, if so.
    pub fn cannot_start(&self, at: usize) -> Option<&'static str> {
        match self.phases.get(at)?.start {
            Start::Continue => None,
            Start::Merge if at == 0 => Some("there is no adapter before the first phase"),
            Start::Merge if self.lora.dora => {
                Some("with DoRA (`dora`) what was learnt before and after is no sum, so no one adapter holds both")
            }
            Start::Merge if self.lora.dropout > 0.0 => {
                Some("`dropout` would drop of what is merged too, which weights never do")
            }
            Start::Merge => None,
        }
    }

    /// Whether training with these examples can begin.
    ///
    /// # Errors
    ///
    /// The first thing that makes no sense, by name.
    pub(crate) fn check(&self, data: &[Examples], evals: &[EvalSet]) -> Result<(), LmError> {
        assert_eq!(self.phases.len(), data.len(), "examples for each phase");
        let refuse = |reason: String| Err(LmError::Argument(reason));
        if self.phases.is_empty() {
            return refuse("training has at least one phase".to_owned());
        }
        for (at, (phase, data)) in self.phases.iter().zip(data).enumerate() {
            phase.schedule.check()?;
            if let Some(why) = self.cannot_start(at) {
                return refuse(format!("phase `{}` cannot merge: {why}", phase.name));
            }
            if data.segments.is_empty() {
                let dropped = data.dropped;
                let limit = phase.max_length;
                return refuse(format!(
                    "phase `{}` has no examples ({dropped} were empty or over {limit} tokens)",
                    phase.name
                ));
            }
            if phase.epochs == 0 || phase.max_steps == Some(0) || phase.max_tokens == Some(0) {
                return refuse(format!("phase `{}` has no steps", phase.name));
            }
            if phase.stop_on != EVAL && evals.iter().all(|set| set.name != phase.stop_on) {
                let (name, set) = (&phase.name, &phase.stop_on);
                return refuse(format!("phase `{name}` stops on `{set}`, and no evaluation set is called so"));
            }
        }
        Ok(())
    }
}

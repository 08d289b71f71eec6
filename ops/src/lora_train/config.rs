//! What `lora-train` is told, and whether it makes sense.

use std::collections::{BTreeMap, BTreeSet};

use retort_engine::Problem;
use retort_lm::kernels;
use retort_lm::lora::LoraConfig;
use retort_lm::model::Keep;
use retort_lm::train::{EVAL, TrainConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::phase::{Beginning, Curve, Held, Loss, Material, Mix, PhaseConfig, Template};
use super::resolved::Resolved;
use super::targets::Targets;
use crate::models::ModelRef;

/// Trains a LoRA adapter of a local model, in phases: plain text, where the model reads the documents themselves, and pairs, where it learns to answer. The
/// base weights stay as they are; only the adapter gets gradients.
///
/// `train` and `eval` are tables of questions and answers, `text` one of texts (chunks). Which of them must be there the phases say. Of a pair only the
/// answer and the end of its turn count in the loss (`loss`), of a text every token and its end; segments never see each other, however they are batched.
/// `evals` names further evaluation sets, whose losses `metrics` has too, and a phase may stop on one of them (`stop_on`). `mix` adds a share of another input to a phase, such as general texts of the input `replay` against forgetting.
///
/// Each phase goes on from the best adapter of the one before (or merges it and begins a new one: `start`), with a fresh optimizer. It is evaluated on `eval` (in a text phase too: what the texts are for is the
/// questions), stops when `patience` evaluations brought no gain, and ends with its best adapter, not its last. When and why it ended its last row in `metrics` says. A loss
/// or gradient that is no number ends the run with its step.
///
/// The state is saved as it goes: a run that was killed goes on and ends with the same bits. The ends of phases are kept as well: a training that is the same up to there begins there,
/// so an edit of the second phase does not cost the first, and with `schedule: constant` and `warmup_steps` more `epochs` cost only what is new. The output `adapter` has a row a tensor in PEFT's names, `metrics` a row a step.
///
/// ```yaml
/// adapter:
///   op: lora-train
///   from: {train: sets.train, eval: sets.eval, text: chunks}
///   with:
///     model: smollm2-135m
///     rank: 16
///     alpha: 32
///     targets: all-linear
///     seed: 1
///     phases:
///       - {name: text, data: text, epochs: 1, learning_rate: 2.0e-4}
///       # Too many epochs on purpose: it stops when the held-out questions gain nothing more.
///       - {name: pairs, data: pairs, epochs: 20, eval_every: 20, patience: 2}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, into = "Resolved")]
pub struct LoraTrain {
    /// The base model: weights here, not a server.
    pub model: ModelRef,
    /// Rank of the update of each layer: more learns more, and forgets more of the rest. 8 to 32 for a shelf of documents, 128 and above for a library.
    #[serde(default = "rank")]
    #[schemars(range(min = 1))]
    pub rank: usize,
    /// The update is scaled by `alpha / rank`; default twice the rank. More acts like a higher learning rate.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// Share of a layer's inputs that the adapter does not see in a step, 0 to below 1. A little helps against learning by heart.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dropout: f64,
    /// Scales by `alpha / √rank` instead, which keeps high ranks learning.
    #[serde(default)]
    pub rslora: bool,
    /// DoRA: the length of each output's weights is learnt apart from their direction. Learns more at low ranks, and takes about a third longer.
    #[serde(default)]
    pub dora: bool,
    /// LoRA+: what the learning rate of `B` (and of DoRA's lengths) is multiplied with; 1 for none, 16 is usual.
    #[serde(default = "one")]
    pub lora_plus: f64,
    /// Other ranks for some layers, by the end of the layer's name, a regular expression: `{q_proj: 8, 'layers\.0\..*': 32}`. Of several that
    /// match the longest counts. Their alpha stays.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas for some layers, in the same way.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Which layers are adapted: `all-linear`, `attention`, `mlp`, or a list of `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`. All
    /// of them learn best for their size. `{regex: 'model\.layers\.[0-9]\..*'}` takes those whose whole name matches.
    #[serde(default)]
    pub targets: Targets,
    /// What products with the weights of base and adapter are computed in, forward and back. The adapter that is kept, its steps, norms, attention and the loss are in single floats
    /// whatever it is.
    #[serde(default)]
    #[schemars(extend("default" = "f32"))]
    pub precision: TrainPrecision,
    /// QLoRA: the layers of the base stay in memory as the file has them (Q4_K, Q8_0 …) and are widened where they are used. The adapter is the same, bit for
    /// bit; memory falls to a fraction (of a model in half floats, to half, as nothing is held for the way back), and training takes longer, the less so the larger
    /// `max_tokens_per_pass` is.
    #[serde(default)]
    pub quantized_base: bool,
    /// Of the adapter's first values, the order of examples, and dropout.
    #[serde(default)]
    pub seed: u64,
    /// What is learnt, in order; without it one phase of pairs.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub phases: Option<Vec<PhaseConfig>>,
    /// What phases inherit: what of a pair counts in the loss; default `answer`.
    #[serde(default)]
    pub loss: Option<Loss>,
    /// What phases inherit: how pairs are written; default `chat`.
    #[serde(default)]
    pub template: Option<Template>,
    /// What phases inherit: passes over the examples; default 3.
    #[serde(default)]
    pub epochs: Option<u64>,
    /// What phases inherit: the most steps; default no limit.
    #[serde(default)]
    pub max_steps: Option<u64>,
    /// What phases inherit: the most tokens of training read; default no limit.
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// What phases inherit: the highest learning rate; default 2e-4.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// What phases inherit: how the rate falls after the warm-up; default `cosine`.
    #[serde(default)]
    pub schedule: Option<Curve>,
    /// What phases inherit: steps in which the rate rises, in place of `warmup_ratio`.
    #[serde(default)]
    pub warmup_steps: Option<u64>,
    /// What phases inherit: the share of steps in which the rate rises, 0 to below 1; default 0.05.
    #[serde(default)]
    pub warmup_ratio: Option<f64>,
    /// What phases inherit: where the rate ends, as a share of the highest; default 0.
    #[serde(default)]
    pub min_ratio: Option<f64>,
    /// What phases inherit: sequences a step; default 8.
    #[serde(default)]
    pub batch: Option<usize>,
    /// What phases inherit: tokens a step, in place of `batch`.
    #[serde(default)]
    pub batch_tokens: Option<usize>,
    /// What phases inherit: the longest sequence, in tokens; default 1024.
    #[serde(default)]
    pub max_length: Option<usize>,
    /// What phases inherit: steps between evaluations, 0 for one at the end of each epoch; default 0.
    #[serde(default)]
    pub eval_every: Option<u64>,
    /// What phases inherit: evaluations in a row without gain that end a phase, 0 for never; default 2.
    #[serde(default)]
    pub patience: Option<u64>,
    /// What phases inherit: by how much the loss must fall to be a gain, in nats a token; default 0.
    #[serde(default)]
    pub min_gain: Option<f64>,
    /// What phases inherit: the set by which they stop; default `eval`.
    #[serde(default)]
    pub stop_on: Option<String>,
    /// Further evaluation sets: `{reversed: pairs, general: text}` adds the inputs `reversed` and `general`, and their losses to `metrics` as
    /// `eval_loss_reversed` and `eval_loss_general`. General texts show what is forgotten.
    #[serde(default)]
    pub evals: BTreeMap<String, Held>,
    /// Share of each weight, times the learning rate, that a step takes away.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Gradients longer than this are cut down to it: one strange batch does not undo what was learnt. 0 for no limit.
    #[serde(default = "max_grad_norm")]
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Tokens that go through the model at a time; a step of more tokens takes several passes, a longer sequence one of its own. More needs more memory, and is hardly faster.
    #[serde(default = "max_tokens_per_pass")]
    #[schemars(range(min = 1))]
    pub max_tokens_per_pass: usize,
    /// The column of `train` and `eval` that holds the question.
    #[serde(default = "question")]
    pub question: String,
    /// The column of `train` and `eval` that holds the answer.
    #[serde(default = "answer")]
    pub answer: String,
    /// The column of `text` that holds the text.
    #[serde(default = "text")]
    pub text: String,
}

/// What training computes products with weights in.
///
/// As a fact the default is left out, as it was before there was a choice: what was trained stays known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(description = "What training computes products with weights in.")]
pub enum TrainPrecision {
    /// Weights as half floats, products in single floats.
    #[default]
    F32,
    /// Weights of base and adapter, and what they are multiplied with, rounded to bfloat16; sums, and the adapter that is kept, in single floats. Two to three
    /// times as fast on processors with AMX, slower on those without it and without AVX-512's bfloat16, with the same bits on all. The loss differs in its third or
    /// fourth digit.
    Bf16,
}

impl TrainPrecision {
    /// What stands for it among the facts. The number grows when the same products come to other bits.
    pub(super) fn fact(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16-2",
        }
    }
}

impl Serialize for TrainPrecision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::F32 => serializer.serialize_none(),
            Self::Bf16 => serializer.serialize_str(self.fact()),
        }
    }
}

impl LoraTrain {
    /// How the base is held.
    pub(super) fn keep(&self) -> Keep {
        let precision = match self.precision {
            TrainPrecision::F32 => kernels::Precision::F16,
            TrainPrecision::Bf16 => kernels::Precision::Bf16,
        };
        Keep { precision, as_stored: self.quantized_base }
    }
}

fn rank() -> usize {
    16
}

fn one() -> f64 {
    1.0
}

fn max_grad_norm() -> f64 {
    1.0
}

fn max_tokens_per_pass() -> usize {
    512
}

fn question() -> String {
    "question".into()
}

fn answer() -> String {
    "answer".into()
}

fn text() -> String {
    "text".into()
}

impl LoraTrain {
    /// What the top level says for all phases.
    pub(super) fn top(&self) -> PhaseConfig {
        PhaseConfig {
            name: None,
            data: Material::default(),
            mix: Mix::default(),
            start: Beginning::default(),
            loss: self.loss,
            template: self.template,
            epochs: self.epochs,
            max_steps: self.max_steps,
            max_tokens: self.max_tokens,
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_steps: self.warmup_steps,
            warmup_ratio: self.warmup_ratio,
            min_ratio: self.min_ratio,
            batch: self.batch,
            batch_tokens: self.batch_tokens,
            max_length: self.max_length,
            eval_every: self.eval_every,
            patience: self.patience,
            min_gain: self.min_gain,
            stop_on: self.stop_on.clone(),
        }
    }

    /// Whether evaluation sets can be called so, and phases stop on one that there is.
    fn check_sets(&self, resolved: &Resolved) -> Result<(), Problem> {
        for name in self.evals.keys() {
            let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
            let why = match name.as_str() {
                "train" | "eval" | "text" | "replay" => "the operator has an input of that name already",
                name if !plain(name) => "a set's name is made of letters, digits and `_`: a column is called after it",
                _ => continue,
            };
            return Err(Problem::at_field(format!("evals.{name}"), why));
        }
        let sets = || self.evals.keys().map(String::as_str).chain([EVAL]);
        for (at, phase) in resolved.phases.iter().enumerate() {
            if !sets().any(|set| set == phase.stop_on) {
                let said = self.phases.iter().flatten().nth(at).is_some_and(|phase| phase.stop_on.is_some());
                let field = if said { format!("phases[{at}].stop_on") } else { "stop_on".to_owned() };
                let problem = Problem::at_field(field, format!("there is no evaluation set `{}`", phase.stop_on));
                return Err(problem.hint(match retort_engine::nearest(&phase.stop_on, sets()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "name it in `evals`".to_owned(),
                }));
            }
        }
        Ok(())
    }

    /// What training is told, or the first thing that makes no sense.
    pub(super) fn train_config(&self) -> Result<TrainConfig, Problem> {
        let refuse = |field: &str, why: &str| Err(Problem::at_field(field, why));
        if self.rank == 0 {
            return refuse("rank", "a rank is at least 1");
        }
        if self.alpha.is_some_and(|alpha| !(alpha > 0.0 && alpha.is_finite())) {
            return refuse("alpha", "`alpha` is above 0");
        }
        if !(self.lora_plus > 0.0 && self.lora_plus.is_finite()) {
            return refuse("lora_plus", "`lora_plus` is above 0");
        }
        let (ranks, alphas) = (&self.rank_pattern, &self.alpha_pattern);
        if let Some((pattern, _)) = ranks.iter().find(|(_, rank)| **rank == 0) {
            return refuse(&format!("rank_pattern.{pattern}"), "a rank is at least 1");
        }
        if let Some((pattern, _)) = alphas.iter().find(|(_, alpha)| !(**alpha > 0.0 && alpha.is_finite())) {
            return refuse(&format!("alpha_pattern.{pattern}"), "an alpha is above 0");
        }
        let named =
            ranks.keys().map(|key| ("rank_pattern", key)).chain(alphas.keys().map(|key| ("alpha_pattern", key)));
        for (field, pattern) in named {
            LoraConfig::check_pattern(pattern)
                .map_err(|error| Problem::at_field(format!("{field}.{pattern}"), error.to_string()))?;
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", "a share that is dropped lies from 0 to below 1");
        }
        if self.max_tokens_per_pass == 0 {
            return refuse("max_tokens_per_pass", "at least one token goes through at a time");
        }
        for (field, value) in [("weight_decay", self.weight_decay), ("max_grad_norm", self.max_grad_norm)] {
            if !(0.0..f64::INFINITY).contains(&value) {
                return refuse(field, "it is 0 or more");
            }
        }
        self.top().check("")?;
        for (at, phase) in self.phases.iter().flatten().enumerate() {
            phase.check(&format!("phases[{at}]."))?;
        }
        let resolved = Resolved::from(self.clone());
        if resolved.phases.is_empty() {
            return refuse("phases", "there is at least one phase");
        }
        self.check_sets(&resolved)?;
        let mut names = BTreeSet::new();
        for (at, phase) in resolved.phases.iter().enumerate() {
            if !names.insert(&phase.name) {
                let why = format!("two phases are called `{}`", phase.name);
                return Err(Problem::at_field(format!("phases[{at}].name"), why));
            }
        }
        let config = resolved.train_config();
        match (0..config.phases.len()).find_map(|at| Some((at, config.cannot_start(at)?))) {
            Some((at, why)) => refuse(&format!("phases[{at}].start"), why),
            None => Ok(config),
        }
    }
}

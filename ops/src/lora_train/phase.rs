//! What a phase of `lora-train` is told, and whether it makes sense.

use retort_engine::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A phase of `lora-train`. What it leaves out stands at the top level, or has the default that is told there.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhaseConfig {
    /// Its name in metrics; default what it learns from. No two phases have the same.
    #[serde(default)]
    pub name: Option<String>,
    /// What it learns from: `text` (the input `text`), `pairs` (the input `train`) or `replay` (the input `replay`).
    #[serde(default)]
    pub data: Material,
    /// What else it learns from, and which share of the tokens that is: `{text: 0.2}` in a phase of pairs makes a fifth of what is read texts. An epoch
    /// goes over `data` once; the rest goes on where the epoch before left off.
    #[serde(default)]
    pub mix: Mix,
    /// What becomes of the adapter that the phase before ended with: `continue`, it learns on; or `merge`, it stays as it is, as if folded into the base in
    /// full precision, and a new one begins on top. The output is one adapter of the base in any case: its rank is the sum. Not with `dora` or `dropout`.
    #[serde(default)]
    pub start: Beginning,
    /// What of a pair counts in the loss: `answer`, or `all` of it.
    #[serde(default)]
    pub loss: Option<Loss>,
    /// How pairs are written: `chat`, as the model's chat template has it, or `plain`, as `Question: …` and `Answer: …` for models that were
    /// never tuned for chat. Evaluations ask as the last phase that has pairs does.
    #[serde(default)]
    pub template: Option<Template>,
    /// Passes over the examples.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub epochs: Option<u64>,
    /// The most steps.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// The most tokens that go through the model in training, evaluations aside; one step is done in any case.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// The highest learning rate. LoRA takes about ten times that of full tuning.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// How the rate falls after the warm-up.
    #[serde(default)]
    pub schedule: Option<Curve>,
    /// Steps in which the rate rises, in place of `warmup_ratio`.
    #[serde(default)]
    pub warmup_steps: Option<u64>,
    /// The share of steps in which the rate rises, 0 to below 1.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: Option<f64>,
    /// Where the rate ends, as a share of the highest.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_ratio: Option<f64>,
    /// Sequences a step. More gives steadier steps, and fewer of them.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub batch: Option<usize>,
    /// Tokens a step, in place of `batch`: as many sequences as fit, at least one.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub batch_tokens: Option<usize>,
    /// The longest sequence, in tokens. Longer texts are cut; longer pairs are left out, and counted in the first row of the metrics.
    #[serde(default)]
    #[schemars(range(min = 2))]
    pub max_length: Option<usize>,
    /// Steps between evaluations, 0 for one at the end of each epoch. The last step is always followed by one.
    #[serde(default)]
    pub eval_every: Option<u64>,
    /// Evaluations in a row without gain that end the phase, 0 for never.
    #[serde(default)]
    pub patience: Option<u64>,
    /// By how much the loss on the set that it stops on must fall to be a gain, in nats a token.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub min_gain: Option<f64>,
    /// The set by which it stops and which adapter is its best: `eval`, or one of `evals`.
    #[serde(default)]
    pub stop_on: Option<String>,
}

/// What a phase learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Material {
    /// Plain texts: the input `text`.
    Text,
    /// Questions and answers: the input `train`.
    #[default]
    Pairs,
    /// Texts of another kind, such as general ones, so that what the model knew is not forgotten: the input `replay`.
    Replay,
}

/// What a phase learns from beside its own, as shares of all tokens, 0 to below 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Of the input `text`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub text: f64,
    /// Of the input `train`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub pairs: f64,
    /// Of the input `replay`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub replay: f64,
}

impl Mix {
    /// The shares, by key.
    pub(super) fn shares(self) -> [(&'static str, Material, f64); 3] {
        [
            ("text", Material::Text, self.text),
            ("pairs", Material::Pairs, self.pairs),
            ("replay", Material::Replay, self.replay),
        ]
    }

    /// What makes no sense in the mixture of a phase of `data`: the key, and why.
    fn mistake(self, data: Material) -> Option<(&'static str, &'static str)> {
        let shares = self.shares();
        let own = shares.iter().find(|(_, material, share)| *material == data && *share != 0.0);
        let outside = shares.iter().find(|(.., share)| !(0.0..1.0).contains(share));
        match (own, outside) {
            (_, Some((key, ..))) => Some((key, "a share of the tokens lies from 0 to below 1")),
            (Some((key, ..)), _) => Some((key, "this is what the phase learns from: it has what the others leave")),
            _ if shares.iter().map(|(.., share)| share).sum::<f64>() >= 1.0 => {
                Some((shares[0].0, "the shares leave nothing of the phase's own data"))
            }
            _ => None,
        }
    }
}

/// What becomes of the adapter of the phase before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// It learns on.
    #[default]
    Continue,
    /// It is merged, and a new one begins.
    Merge,
}

/// What of a pair counts in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The answer and the end of its turn: the question is only read.
    #[default]
    Answer,
    /// The question and the template too.
    All,
}

/// How pairs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// By the model's own chat template; ChatML where it has none.
    #[default]
    Chat,
    /// `Question: …`, a line break, `Answer: …`, and the model's end token.
    Plain,
}

/// What a further evaluation set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Questions and answers, asked as those of `eval`.
    Pairs,
    /// Texts.
    Text,
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Curve {
    /// Slowly, then fast, then slowly: half a cosine.
    #[default]
    Cosine,
    /// Evenly.
    Linear,
    /// Not at all.
    Constant,
    /// It rises from a thousandth of `learning_rate` (here 0.1, unless the phase says another) to it, in `max_steps` (here 100), to find a good one: the
    /// phase's last row in `metrics` suggests it, and the adapter is left as it was.
    Find,
}

impl PhaseConfig {
    /// Whether it learns from questions and answers.
    pub(super) fn has_pairs(&self) -> bool {
        self.data == Material::Pairs || self.mix.pairs > 0.0
    }

    /// What makes no sense in it: the key, and why. `at` is put before the key.
    pub(super) fn check(&self, at: &str) -> Result<(), Problem> {
        let zero = |number: Option<u64>| number == Some(0);
        let outside = |number: Option<f64>, end: f64| number.is_some_and(|number| !(0.0..=end).contains(&number));
        let size = |number: Option<usize>| number.map(|number| number as u64);
        let mistakes = [
            (zero(self.epochs), "epochs", "there is at least one epoch"),
            (zero(self.max_steps), "max_steps", "there is at least one step"),
            (zero(self.max_tokens), "max_tokens", "there is at least one token"),
            (zero(size(self.batch)), "batch", "a step has at least one sequence"),
            (zero(size(self.batch_tokens)), "batch_tokens", "a step has at least one token"),
            (self.max_length.is_some_and(|length| length < 2), "max_length", "a sequence has at least two tokens"),
            (outside(self.min_ratio, 1.0), "min_ratio", "a share lies between 0 and 1"),
            (outside(self.min_gain, f64::MAX), "min_gain", "a gain is 0 or more"),
            (
                self.learning_rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())),
                "learning_rate",
                "a learning rate is above 0",
            ),
            (
                self.warmup_ratio.is_some_and(|ratio| !(0.0..1.0).contains(&ratio)),
                "warmup_ratio",
                "a share of steps lies from 0 to below 1",
            ),
            (self.loss.is_some() && !self.has_pairs(), "loss", "the phase has no pairs, and of texts all counts"),
            (self.template.is_some() && !self.has_pairs(), "template", "the phase has no pairs"),
            (
                self.batch.is_some() && self.batch_tokens.is_some(),
                "batch_tokens",
                "`batch` and `batch_tokens` exclude each other",
            ),
            (
                self.warmup_steps.is_some() && self.warmup_ratio.is_some(),
                "warmup_steps",
                "`warmup_steps` and `warmup_ratio` exclude each other",
            ),
        ];
        if let Some((key, why)) = self.mix.mistake(self.data) {
            return Err(Problem::at_field(format!("{at}mix.{key}"), why));
        }
        match mistakes.into_iter().find(|(wrong, ..)| *wrong) {
            Some((_, key, why)) => Err(Problem::at_field(format!("{at}{key}"), why)),
            None => Ok(()),
        }
    }
}

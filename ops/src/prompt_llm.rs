//! `prompt-llm`: asks a language model about every row.
//!
//! Here: the config. Templates are in `messages`, models that run here in `local`, servers in `remote`, what must be written in
//! `guide`, what becomes of unfinished answers in `finish`, and what a row's answer looks like in `collected`.

mod collected;
mod filters;
mod finish;
mod guide;
mod local;
mod messages;
mod remote;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use retort_cache::RowKey;
use retort_engine::{
    Answers, Asset, Batching, Cx, Define, Env, Failure, Lane, Memo, Operator, Problem, RowBatch, RowOp, TokenBudget,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::models::{ModelRef, Precision, ServerModel};
use crate::server::Meter;
use collected::{Collected, Said, answer_schema};
use finish::Verdict;
pub use finish::{Action, FinishOptions};
pub use guide::Guide;
use messages::Prompts;

/// Asks a language model about every row, and adds what it says.
///
/// Messages are minijinja templates over the row's columns, such as `{{ text }}`. The columns that they name are all that the
/// operator reads: a change elsewhere in a row asks nothing again. Earlier `user` and `assistant` messages are examples for
/// the model; what all rows share, at the beginning, is computed once. The model's own chat template puts the messages
/// together. Names of control tokens in a row are text to the model and cannot end a turn.
///
/// A row's answer does not depend on other rows, nor on how many run side by side: its draws are seeded by what it asks. Answers
/// are kept one by one as they come, so a run that is stopped goes on where it was.
///
/// With `guide` an answer can be nothing but what the guide says, so that a small model's answers can always be parsed: `guide: question-answer` for pairs as `parse`
/// reads them, `guide: {pairs: 3}` for three of them, or a JSON schema, a regular expression or a Lark grammar.
///
/// It adds `output`, `finish_reason`, `n_prompt_tokens` and
/// `n_output_tokens` (empty where a server does not count), and with `n` above 1 `sample_index`. A `finish_reason` is `stop`; `length`, when `max_tokens` cut the answer;
/// `empty`; `repetition`, when it said the same over and over and was ended there; or `context`. `finish` says which are kept, asked for again or
/// rejected. A prompt that with `max_tokens` does not fit the model's context is a reject that says the numbers, unless `finish.context` keeps it; no prompt is ever
/// cut. An empty column is empty text.
///
/// ```yaml
/// answers:
///   op: prompt-llm
///   from: chunks
///   with:
///     model: smollm2-135m
///     messages:
///       - system: You are an assistant helping me to create a dataset.
///       - user: |
///           Write 3 question and answer pairs about {{ context }}:
///
///           {{ text }}
///     sample: {temperature: 0.7, top_p: 0.95, max_tokens: 400, seed: 1}
///     guide: {pairs: 3}
///     finish: {length: retry, repetition: retry}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptLlm {
    /// The model that is asked: an entry of `models:`, with weights or behind a server.
    pub model: ModelRef,
    /// The conversation so far: at most one `system` message, first; `user` and `assistant` in turn; the last is the `user`'s.
    pub messages: Vec<MessageTemplate>,
    /// How tokens are drawn.
    #[serde(default)]
    pub sample: SampleOptions,
    /// What a model with weights computes in. `f16`, the default, rounds nothing but the weights; `int8` is how llama.cpp computes: a prompt takes a fraction of the time, and of two
    /// words that are nearly as likely it may take the other.
    #[serde(default)]
    #[schemars(extend("default" = "f16"))]
    pub precision: Precision,
    /// What an answer must be. Default: whatever the model says. Servers take a `json` schema only.
    #[serde(default)]
    pub guide: Option<Guide>,
    /// What becomes of answers that were cut off, are empty, or go in circles.
    #[serde(default)]
    pub finish: FinishOptions,
}

/// A message's role and the template of its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageTemplate {
    /// Instructions for the whole conversation.
    System(String),
    /// What the model is asked.
    User(String),
    /// What the model said, or should have said.
    Assistant(String),
}

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SampleOptions {
    /// 0 always takes the likeliest token; 1 draws as the model learnt. Default 0.7.
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Draws among the fewest tokens whose probabilities reach this sum. Default 1: all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: f64,
    /// Draws among this many of the likeliest tokens. Default 0: all.
    pub top_k: usize,
    /// Leaves out tokens less likely than this share of the likeliest. Default 0: none.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: f64,
    /// Above 1, makes the tokens of the last `repeat_window` less likely. Default 1.
    pub repeat_penalty: f64,
    /// Number of last tokens, the prompt's included, that `repeat_penalty` looks at. Default 64. Servers have their own.
    pub repeat_window: usize,
    /// The longest answer, in tokens. Default 512.
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
    /// Another seed draws other answers. Default 0.
    pub seed: u64,
    /// The answer ends before the first of these texts. Default none; the model's own end always ends it.
    pub stop: Vec<String>,
    /// Answers to a row. Default 1.
    #[schemars(range(min = 1))]
    pub n: usize,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_window: 64,
            max_tokens: 512,
            seed: 0,
            stop: Vec::new(),
            n: 1,
        }
    }
}

impl Define for PromptLlm {
    const NAME: &'static str = "prompt-llm";
    const VERSION: u32 = 2;

    fn lane(&self) -> Lane {
        if self.model.server().is_some() { Lane::Cpu } else { Lane::Model }
    }

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        self.model.assets(env)
    }

    fn budget(&self) -> Option<TokenBudget> {
        Some(TokenBudget { field: "sample.max_tokens", tokens: self.sample.max_tokens, column: "output" })
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        self.model.check("model")?;
        if self.model.server().is_some() && self.precision != Precision::default() {
            let problem = Problem::at_field("precision", "what a server computes in is the server's to choose");
            return Err(problem.hint("leave `precision` out"));
        }
        self.sample.check()?;
        self.finish.check(&self.sample)?;
        if let Some(guide) = &self.guide {
            guide.check(self.model.server().is_none())?;
        }
        let prompts = Prompts::new(&self.messages)?;
        let source = match (self.model.server(), self.model.asset(env)) {
            (Some(server), _) => Source::Server(Meter::of(&server), server),
            (None, Some(asset)) => Source::Local(asset),
            (None, None) => return Err(Problem::at_field("model", "a model needs `weights` or a `server`")),
        };
        Ok(Operator::Rows(Box::new(Prompter { prompts, source, config: self })))
    }
}

impl SampleOptions {
    fn check(&self) -> Result<(), Problem> {
        let wrong = |field: &str, message: &str| Err(Problem::at_field(format!("sample.{field}"), message));
        match self {
            Self { temperature, .. } if *temperature < 0.0 => wrong("temperature", "a temperature is 0 or more"),
            Self { top_p, .. } if *top_p <= 0.0 || *top_p > 1.0 => wrong("top_p", "`top_p` lies above 0 and up to 1"),
            Self { min_p, .. } if !(0.0..=1.0).contains(min_p) => wrong("min_p", "`min_p` lies between 0 and 1"),
            Self { repeat_penalty, .. } if *repeat_penalty <= 0.0 => wrong("repeat_penalty", "a penalty is above 0"),
            Self { max_tokens: 0, .. } => wrong("max_tokens", "an answer has at least one token"),
            Self { n: 0, .. } => wrong("n", "a row has at least one answer"),
            Self { stop, .. } if stop.iter().any(String::is_empty) => wrong("stop", "a stop text is not empty"),
            _ => Ok(()),
        }
    }
}

/// Where answers come from.
enum Source {
    Local(Asset),
    Server(Arc<Meter>, ServerModel),
}

struct Prompter {
    prompts: Prompts,
    source: Source,
    config: PromptLlm,
}

impl RowOp for Prompter {
    fn reads(&self) -> Vec<String> {
        self.prompts.columns().to_vec()
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(answer_schema(self.config.sample.n))
    }

    fn memo(&self) -> Memo {
        Memo::Remember
    }

    fn batching(&self) -> Batching {
        // Many at a time, so that few rows run alone at the end of a batch.
        Batching { rows: 1024, parallel: false }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
        let answers = Collected::new(rows.keys.len(), out, self.config.sample.n);
        let asked = Asked { config: &self.config, keys: &rows.keys, answers };
        let mut prompts = Vec::new();
        for (row, values) in messages::rows(&rows.batch)?.into_iter().enumerate() {
            match self.prompts.render(&values) {
                Ok(messages) => prompts.push((row, messages)),
                Err(reason) => out.reject(row, reason)?,
            }
        }
        let done = match &self.source {
            Source::Local(asset) => local::answer(asset, &prompts, &asked, cx),
            Source::Server(meter, server) => remote::answer(server, meter, &prompts, &asked, cx),
        };
        if let Some(line) = asked.answers.told() {
            cx.note(line);
        }
        done
    }
}

/// The rows that are asked, and where their answers go.
struct Asked<'a> {
    config: &'a PromptLlm,
    keys: &'a [RowKey],
    answers: Collected<'a>,
}

/// Which answer is asked for: of a row, by its number, after so many retries.
#[derive(Clone, Copy, Debug)]
struct Turn {
    row: usize,
    index: usize,
    retries: usize,
}

impl Asked<'_> {
    /// The seed of one answer: the row's own, mixed with `sample.seed`, the answer's number, and that of the retry.
    fn seed(&self, turn: Turn, cx: &Cx<'_>) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("retort prompt-llm seed 1");
        for part in [cx.seed(self.keys[turn.row]), self.config.sample.seed, turn.index as u64] {
            hasher.update(&part.to_le_bytes());
        }
        if turn.retries > 0 {
            hasher.update(&(turn.retries as u64).to_le_bytes());
        }
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash is longer"))
    }

    /// Takes an answer. A turn comes back where it is to be asked for again.
    fn take(&self, turn: Turn, mut said: Said) -> Result<Option<Turn>, Failure> {
        // Blanks are no answer, whatever ended them.
        if matches!(said.finish_reason.as_str(), "stop" | "length" | "repetition") && said.output.trim().is_empty() {
            "empty".clone_into(&mut said.finish_reason);
        }
        match self.config.finish.judge(&said, turn.retries, &self.config.sample) {
            Verdict::Again => {
                self.answers.retried(&said);
                return Ok(Some(Turn { retries: turn.retries + 1, ..turn }));
            }
            Verdict::Keep => self.answers.put(turn.row, turn.index, said, None)?,
            Verdict::Reject(reason) => self.answers.put(turn.row, turn.index, said, Some(reason))?,
        }
        Ok(None)
    }
}

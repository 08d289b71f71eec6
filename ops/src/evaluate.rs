//! `evaluate`: the exam. The base model and what was tuned from it answer the same questions, closed book.
//!
//! Here: the config, and what it asks for. The operator itself is in `evaluate/examiner.rs`, a model that sits the exam in `sitting.rs`, the one that judges
//! in `judge.rs`, the tables that come out in `report.rs`, how sure they are in `interval.rs`; how answers are scored is in `score`.

mod examiner;
mod interval;
mod judge;
mod kept;
mod report;
mod sitting;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use retort_engine::{Asset, Define, Env, Lane, Operator, Problem, TokenBudget};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::models::{ModelRef, Precision};
use examiner::Examiner;
pub use judge::Judge;

/// Examines a model without and with its adapter on the same questions, closed book: no text is given along.
///
/// All answer every question, greedily unless told otherwise, under the model's chat template. An answer is scored against the one in the table by token F1 and exact match
/// (as SQuAD does: case, punctuation and articles aside) and ROUGE-L; the loss is that of the table's answer and its end of turn, in nats a token. With `judge` a
/// model says of each answer whether it says what the table's does: 1 or 0.
///
/// `out` has a row a question, with all answers side by side; `summary` a row a model: the mean of each score, the loss over all answer tokens, and the perplexity (e
/// to the loss). A question that leaves no room for an answer in the model's context has no scores and is not counted.
///
/// How sure the numbers are is beside them: `token_f1_low` and `token_f1_high` are the ends of an interval (percentile bootstrap over questions). `token_f1_change` is how much
/// better or worse than the base the model is on the same questions, with an interval of its own: if that does not hold 0, the difference is more than chance. So for each score.
///
/// Several models sit one exam with `models`: adapters under names of your choice in `from`, and other models beside them. Whether the old is forgotten
/// shows on general texts, fed as `general`: `general_perplexity` is of them, and `general_perplexity_change` says how much more that is than the base's, in percent.
///
/// ```yaml
/// exam:
///   op: evaluate
///   from: {eval: sets.eval, adapter: adapter.adapter}
///   with: {model: smollm2-135m, max_tokens: 64}
/// side-by-side:
///   op: evaluate
///   from: {eval: sets.eval, trained: adapter.adapter, general: chunks}
///   with:
///     model: smollm2-135m
///     models:
///       - {name: tuned, adapter: trained}
///       - {name: plain, model: smollm2-135m}
///     judge: {model: smollm2-135m}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The base model: the one that the adapter was trained on.
    pub model: ModelRef,
    /// What sits the exam beside the base model, in the order of the summary. Default: one called `tuned`, the base with what `adapter` is fed.
    #[serde(default)]
    pub models: Vec<Candidate>,
    /// What all models compute in: `int8` examines them as llama.cpp would run them.
    #[serde(default)]
    #[schemars(extend("default" = "f16"))]
    pub precision: Precision,
    /// The longest answer, in tokens. Longer ones cost time, and are cut in the middle where the model does not end them.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
    /// At most so many questions, chosen by a stable hash of question and answer: a larger number asks these and more. Default all.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// 0 always takes the likeliest token; above it answers are drawn, which blurs the comparison.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Another seed chooses other questions, and draws other answers.
    #[serde(default)]
    pub seed: u64,
    /// The column that holds the question.
    #[serde(default = "question")]
    pub question: String,
    /// The column that holds the answer wanted.
    #[serde(default = "answer")]
    pub answer: String,
    /// The column of `general` that holds the texts.
    #[serde(default = "text")]
    pub text: String,
    /// A model that says of each answer whether it says what the table's does.
    #[serde(default)]
    pub judge: Option<Judge>,
    /// How often questions are drawn anew to see how sure a number is.
    #[serde(default = "resamples")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub resamples: usize,
    /// How often, of all exams like this one, an interval is to hold the truth: between 0 and 1.
    #[serde(default = "confidence")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence: f64,
}

/// A model that sits the exam.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// What it is called in the tables: letters, digits, `-` and `_`.
    pub name: String,
    /// The model. Default: the node's `model`.
    #[serde(default)]
    pub model: Option<ModelRef>,
    /// The input of the node that its adapter is fed to. Default: the model as it is.
    #[serde(default)]
    pub adapter: Option<String>,
}

/// What the base model is called in the tables.
const BASE: &str = "base";
/// Inputs that hold no adapter.
const OTHER_INPUTS: [&str; 2] = ["eval", "general"];

fn max_tokens() -> usize {
    128
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

fn resamples() -> usize {
    1000
}

fn confidence() -> f64 {
    0.95
}

impl Define for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 2;

    fn lane(&self) -> Lane {
        Lane::Model
    }

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        let own = self.candidates().into_iter().filter_map(|candidate| candidate.own_asset(env));
        let judge = self.judge.as_ref().and_then(|judge| judge.asset(env));
        self.model.assets(env).into_iter().chain(own).chain(judge).collect()
    }

    fn budget(&self) -> Option<TokenBudget> {
        Some(TokenBudget { field: "max_tokens", tokens: self.max_tokens, column: "tuned_output" })
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        self.model.check_local("model")?;
        self.check_numbers()?;
        self.check_candidates()?;
        let judge = self.judge.as_ref().map(|judge| judge.build(env)).transpose()?;
        let asset = self.model.asset(env).expect("a local model has weights");
        let candidates = self.candidates();
        let assets = candidates.iter().map(|candidate| candidate.own_asset(env)).collect();
        Ok(Operator::Table(Box::new(Examiner { asset, candidates, assets, judge, config: self })))
    }
}

impl Evaluate {
    /// What sits the exam beside the base.
    fn candidates(&self) -> Vec<Candidate> {
        if self.models.is_empty() {
            return vec![Candidate { name: "tuned".into(), model: None, adapter: Some("adapter".into()) }];
        }
        self.models.clone()
    }

    fn check_numbers(&self) -> Result<(), Problem> {
        let wrong = |field: &str, message: &str| Err(Problem::at_field(field, message));
        match self {
            Self { max_tokens: 0, .. } => wrong("max_tokens", "an answer has at least one token"),
            Self { max_rows: Some(0), .. } => wrong("max_rows", "an exam has at least one question"),
            Self { temperature, .. } if !(*temperature >= 0.0 && temperature.is_finite()) => {
                wrong("temperature", "a temperature is 0 or more")
            }
            Self { resamples: 0, .. } => wrong("resamples", "questions are drawn at least once"),
            Self { confidence, .. } if !(*confidence > 0.0 && *confidence < 1.0) => {
                wrong("confidence", "a confidence lies between 0 and 1, without either")
            }
            _ => Ok(()),
        }
    }

    fn check_candidates(&self) -> Result<(), Problem> {
        let mut names = BTreeSet::from([BASE]);
        for (i, candidate) in self.models.iter().enumerate() {
            let field = |key: &str| format!("models[{i}].{key}");
            let name = candidate.name.as_str();
            let plain = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
            if name.is_empty() || !name.chars().all(plain) {
                let problem = Problem::at_field(field("name"), format!("`{name}` cannot be part of a column's name"));
                return Err(problem.hint("a name has letters, digits, `-` and `_`"));
            }
            if name == BASE {
                return Err(Problem::at_field(
                    field("name"),
                    "the node's `model` is called `base`, and is always there",
                ));
            }
            if !names.insert(name) {
                return Err(Problem::at_field(field("name"), format!("two models are called `{name}`")));
            }
            if let Some(model) = &candidate.model {
                model.check_local(&field("model"))?;
            }
            if let Some(input) = candidate.adapter.as_deref().filter(|input| OTHER_INPUTS.contains(input)) {
                let problem = Problem::at_field(field("adapter"), format!("the input `{input}` holds no adapter"));
                return Err(problem.hint("any other name will do, here and in `from`"));
            }
        }
        Ok(())
    }
}

impl Candidate {
    /// The weights, where they are not the base's.
    fn own_asset(&self, env: &Env<'_>) -> Option<Asset> {
        let asset = self.model.as_ref()?.asset(env)?;
        Some(Asset { name: format!("model.{}", self.name), ..asset })
    }
}

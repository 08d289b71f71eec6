//! What becomes of answers that did not end as they should.

use retort_engine::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Said, SampleOptions};

/// What becomes of answers that did not end as they should. The column `finish_reason` says of every answer how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FinishOptions {
    /// Of one that `max_tokens` cut. Default `keep`.
    pub length: Action,
    /// Of a prompt that with `max_tokens` does not fit the model's context. `keep`: the answer takes what room there is, and ends
    /// with `context` where that is used up. Default `reject`; a second try would not help.
    pub context: Action,
    /// Of one that is empty. Default `reject`.
    pub empty: Action,
    /// Of one that said the same over and over, and was ended there. Default `keep`.
    pub repetition: Action,
    /// Last tokens that are one piece over and over before this counts as a repetition; 0 never ends an answer for it. Default 64.
    /// Servers are not looked at so closely.
    pub repetition_tokens: usize,
    /// Times that `retry` asks again, each with a seed of its own; then the answer is rejected. Default 2.
    pub retries: usize,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is kept, with its `finish_reason`.
    Keep,
    /// It is asked for again with another seed, and in the end rejected.
    Retry,
    /// It goes to `rejects`.
    Reject,
}

impl Default for FinishOptions {
    fn default() -> Self {
        Self {
            length: Action::Keep,
            context: Action::Reject,
            empty: Action::Reject,
            repetition: Action::Keep,
            repetition_tokens: retort_lm::generate::REPETITION_TOKENS,
            retries: 2,
        }
    }
}

/// How an answer is taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Again,
    Reject(String),
}

impl FinishOptions {
    pub(super) fn check(&self, sample: &SampleOptions) -> Result<(), Problem> {
        let retried = [("length", self.length), ("empty", self.empty), ("repetition", self.repetition)];
        let first = retried.into_iter().find(|&(_, action)| action == Action::Retry);
        if self.context == Action::Retry {
            return Err(Problem::at_field("finish.context", "a prompt that is too long stays too long")
                .hint("`keep` takes what room there is, `reject` refuses the row"));
        }
        match first {
            Some((name, _)) if sample.temperature <= 0.0 => {
                Err(Problem::at_field(format!("finish.{name}"), "at temperature 0 another try says the same")
                    .hint("`sample.temperature` above 0 lets tries differ"))
            }
            Some((name, _)) if self.retries == 0 => {
                Err(Problem::at_field(format!("finish.{name}"), "`retry` needs `retries` above 0"))
            }
            _ => Ok(()),
        }
    }

    /// What becomes of an answer after `retries` others.
    pub(super) fn judge(&self, said: &Said, retries: usize, sample: &SampleOptions) -> Verdict {
        let (action, what) = match said.finish_reason.as_str() {
            "length" => (self.length, format!("the answer was cut at `max_tokens` {}", sample.max_tokens)),
            "context" => (self.context, "the answer was cut at the end of the model's context".to_owned()),
            "empty" => (self.empty, "the answer is empty".to_owned()),
            "repetition" => (self.repetition, "the answer said the same over and over".to_owned()),
            "guide" => (Action::Reject, "the guide's parser reached its limits".to_owned()),
            _ => (Action::Keep, String::new()),
        };
        match action {
            Action::Keep => Verdict::Keep,
            Action::Retry if retries < self.retries => Verdict::Again,
            Action::Retry => Verdict::Reject(format!("{what}, and so were {retries} more tries")),
            Action::Reject => Verdict::Reject(what),
        }
    }
}

//! How fast a server may be asked, what its tokens cost, and what may be spent on them. None of it is a fact: answers do not depend on it.

use schemars::JsonSchema;
use serde::Deserialize;

/// How fast a server may be asked, and what may be spent on it; nothing that is not said is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// What tokens cost.
    pub price: Option<Price>,
    /// The most that may be spent.
    pub max_cost: Option<f64>,
    /// The most tokens that may be used.
    pub max_tokens_total: Option<u64>,
}

/// What a million tokens cost, in whatever money.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of prompts.
    #[schemars(range(min = 0.0))]
    pub prompt: f64,
    /// Of answers.
    #[schemars(range(min = 0.0))]
    pub output: f64,
}

impl Price {
    /// What so many tokens cost.
    pub fn of(self, prompt: u64, output: u64) -> f64 {
        (prompt as f64 * self.prompt + output as f64 * self.output) / 1e6
    }
}

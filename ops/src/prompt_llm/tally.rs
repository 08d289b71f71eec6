//! How answers ended, to be told in one line.

use std::collections::BTreeMap;

use super::Said;

/// What a batch of answers came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    finished: BTreeMap<String, usize>,
    lengths: Vec<u64>,
    n_prompt: u64,
    shared: u64,
    retries: usize,
    cost: Option<f64>,
}

impl Tally {
    pub(super) fn count(&mut self, said: &Said) {
        *self.finished.entry(said.finish_reason.clone()).or_default() += 1;
        self.lengths.extend(said.n_output_tokens);
        self.n_prompt += said.n_prompt_tokens.unwrap_or(0);
        self.shared += said.shared;
        self.pay(said);
    }

    /// Counts an answer that is asked for again.
    pub(super) fn retried(&mut self, said: &Said) {
        self.retries += 1;
        self.pay(said);
    }

    fn pay(&mut self, said: &Said) {
        if let Some(cost) = said.cost {
            *self.cost.get_or_insert(0.0) += cost;
        }
    }

    /// `16 answers: 12 stop, 4 length; 20 to 200 tokens, median 143; 61 % of 9,120 prompt tokens shared; 2 tried again`.
    pub(super) fn line(&mut self) -> Option<String> {
        let n: usize = self.finished.values().sum();
        let reasons: Vec<String> = self.finished.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let mut parts = vec![format!("{n} {}: {}", if n == 1 { "answer" } else { "answers" }, reasons.join(", "))];
        self.lengths.sort_unstable();
        if let (Some(least), Some(most)) = (self.lengths.first(), self.lengths.last()) {
            parts.push(format!("{least} to {most} tokens, median {}", self.lengths[self.lengths.len() / 2]));
        }
        if self.shared > 0 {
            let share = 100 * self.shared / self.n_prompt.max(1);
            parts.push(format!("{share} % of {} prompt tokens computed once for several", self.n_prompt));
        }
        if self.retries > 0 {
            parts.push(format!("{} tried again", self.retries));
        }
        if let Some(cost) = self.cost {
            parts.push(format!("cost {cost:.4}"));
        }
        (n > 0).then(|| parts.join("; "))
    }
}

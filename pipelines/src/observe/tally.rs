//! What is known about one node of a run so far, folded from its events.

use retort_cache::RecipeId;
use retort_engine::event::OutputSummary;
use retort_engine::plan::Reason;
use retort_engine::{EventKind, graph::FILES_PORT, graph::REJECTS_PORT};
use serde::Serialize;

use super::words;

/// Where a node is, as seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing was heard of it.
    #[default]
    Waiting,
    /// It runs.
    Running,
    /// Its answer was known.
    Fresh,
    /// It ran and answered.
    Ran,
    /// It was asked again and gave the known answer.
    Verified,
    /// It gave another answer than the known one; where they part.
    Differs(String),
    /// It was not asked again; why.
    Unverified(String),
    /// It could not answer; why.
    Failed(String),
    /// It was not tried; the node that failed.
    Skipped(String),
}

impl State {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "stopped",
            State::Fresh => "fresh",
            State::Ran => "ran",
            State::Verified => "verified",
            State::Differs(_) => "DIFFERS",
            State::Unverified(_) => "not verified",
            State::Failed(_) => "failed",
            State::Skipped(_) => "skipped",
        }
    }
}

/// A node of a run as it is written down.
#[derive(Serialize)]
pub(super) struct NodeLine<'a> {
    node: &'a str,
    state: &'static str,
    seconds: f64,
    recalled: Option<u64>,
    asked: Option<u64>,
    rejects: u64,
    recipe: Option<RecipeId>,
    outputs: &'a [OutputSummary],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<&'a str>,
}

/// What is known about one node of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Where it is. Changed in `take` only.
    pub state: State,
    /// Why it runs.
    pub why: Option<Reason>,
    /// When it began, in seconds of the run.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
    /// Rows that were remembered, and rows in all.
    pub recalled: Option<(u64, u64)>,
    /// Rows or steps done, remembered ones included, and in all.
    pub progress: Option<(u64, u64)>,
    /// An asset that is being fetched: name, bytes done, bytes in all.
    pub fetching: Option<(String, u64, u64)>,
    /// Prompt tokens so far.
    pub prompt_tokens: u64,
    /// Output tokens so far.
    pub output_tokens: u64,
    /// Tokens still to come, where that is known.
    pub tokens_left: Option<u64>,
    /// The last step, and the newest value of every name: not every step has all.
    pub metrics: Option<(u64, Vec<(String, f64)>)>,
    /// The question that it answered.
    pub recipe: Option<RecipeId>,
    /// The tables of its answer, in port order.
    pub outputs: Vec<OutputSummary>,
    /// Whether its answer differs from the one before.
    pub changed: Option<bool>,
    /// Rows that the operator was asked.
    pub asked: Option<u64>,
    work_began: f64,
}

impl Tally {
    /// Folds an event in.
    pub fn take(&mut self, event: &EventKind, at: f64) {
        match event {
            EventKind::Fresh { recipe, outputs } => {
                self.recipe = Some(*recipe);
                self.outputs.clone_from(outputs);
                (self.began, self.ended) = (at, at);
                self.state = State::Fresh;
            }
            EventKind::Waiting { .. } => {}
            EventKind::Started { why } => {
                self.why = Some(why.clone());
                (self.began, self.work_began) = (at, at);
                self.state = State::Running;
            }
            EventKind::Recalled { rows, of } => {
                self.recalled = Some((*rows, *of));
                self.progress = Some((*rows, *of));
                self.work_began = at;
            }
            EventKind::Fetching { asset, done, of } => {
                self.fetching = Some((asset.clone(), *done, *of)).filter(|_| done < of || *of == 0);
                self.work_began = at;
            }
            EventKind::Progress { done, of } => {
                // Rows are counted by several threads: a late count may not turn the others back.
                let before = self.progress.filter(|(_, before)| before == of).map_or(0, |(done, _)| done);
                self.progress = Some((before.max(*done), *of));
                self.fetching = None;
            }
            EventKind::Tokens { prompt, output, left } => {
                self.prompt_tokens += prompt;
                self.output_tokens += output;
                self.tokens_left = *left;
                self.fetching = None;
            }
            EventKind::Metrics { step, values } => self.measure(*step, values),
            EventKind::Note { .. } => {}
            EventKind::Finished { recipe, outputs, changed, asked, .. } => {
                self.recipe = Some(*recipe);
                self.outputs.clone_from(outputs);
                (self.changed, self.asked, self.ended) = (Some(*changed), *asked, at);
                self.state = State::Ran;
            }
            EventKind::Verified { recipe, outputs } => {
                self.recipe = Some(*recipe);
                self.outputs.clone_from(outputs);
                self.ended = at;
                self.state = State::Verified;
            }
            EventKind::Unverified { because } => self.state = State::Unverified(because.clone()),
            EventKind::Differs { .. } => {
                self.ended = at;
                // The first place is told; a run that was forced goes on.
                if !matches!(self.state, State::Differs(_)) {
                    self.state = State::Differs(words::parting(event));
                }
            }
            EventKind::Failed { error } => {
                self.ended = at;
                self.state = State::Failed(error.clone());
            }
            EventKind::Skipped { because } => self.state = State::Skipped(because.clone()),
        }
    }

    fn measure(&mut self, step: u64, new: &[(String, f64)]) {
        let (last, values) = self.metrics.get_or_insert_default();
        *last = step;
        for (name, value) in new {
            match values.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = *value,
                None => values.push((name.clone(), *value)),
            }
        }
    }

    /// Rows of its outputs, without what was refused and listed.
    pub fn rows(&self) -> Option<u64> {
        let wanted = |out: &&OutputSummary| out.port != REJECTS_PORT && out.port != FILES_PORT;
        (!self.outputs.is_empty()).then(|| self.outputs.iter().filter(wanted).map(|out| out.rows).sum())
    }

    /// Rows that were refused.
    pub fn rejects(&self) -> u64 {
        self.outputs.iter().find(|out| out.port == REJECTS_PORT).map_or(0, |out| out.rows)
    }

    /// The node as an object, to be written down.
    pub(super) fn line<'a>(&'a self, node: &'a str) -> NodeLine<'a> {
        let (error, because) = match &self.state {
            State::Failed(error) => (Some(error.as_str()), None),
            State::Skipped(node) => (None, Some(node.as_str())),
            _ => (None, None),
        };
        NodeLine {
            node,
            state: self.state.word(),
            seconds: milliseconds(self.seconds()),
            recalled: self.recalled.map(|(rows, _)| rows),
            asked: self.asked,
            rejects: self.rejects(),
            recipe: self.recipe,
            outputs: &self.outputs,
            error,
            because,
        }
    }

    /// How long it ran, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.ended - self.began).max(0.0)
    }

    /// Rows a second since the work began, remembered ones left out.
    pub fn rate(&self, at: f64) -> Option<f64> {
        let (done, _) = self.progress?;
        let done = done.saturating_sub(self.recalled.map_or(0, |(rows, _)| rows));
        let elapsed = at - self.work_began;
        (done > 0 && elapsed > 0.2).then(|| done as f64 / elapsed)
    }

    /// Tokens a second since the work began: prompt and output together.
    pub fn token_rate(&self, at: f64) -> Option<f64> {
        let tokens = self.prompt_tokens + self.output_tokens;
        let elapsed = at - self.work_began;
        (tokens > 0 && elapsed > 0.2).then(|| tokens as f64 / elapsed)
    }

    /// Prompt and output tokens a second, over all of the work.
    pub fn token_rates(&self) -> Option<[f64; 2]> {
        let elapsed = self.ended - self.work_began;
        let rates = [self.prompt_tokens, self.output_tokens].map(|tokens| tokens as f64 / elapsed);
        (self.output_tokens > 0 && elapsed > 0.2).then_some(rates)
    }

    /// Seconds left, if it goes on as it went: by tokens where it is known how many are still to come, else by rows or steps.
    pub fn left(&self, at: f64) -> Option<f64> {
        if let Some(tokens) = self.tokens_left {
            return Some(tokens as f64 / self.token_rate(at)?);
        }
        let (done, of) = self.progress?;
        Some(of.saturating_sub(done) as f64 / self.rate(at)?)
    }

    /// The last values whose name speaks of loss, the first two.
    pub fn losses(&self) -> impl Iterator<Item = &(String, f64)> {
        let values = self.metrics.as_ref().map(|(_, values)| values.as_slice()).unwrap_or_default();
        values.iter().filter(|(name, _)| name.contains("loss")).take(2)
    }
}

/// Seconds with three digits after the point.
pub(super) fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_rows_do_not_count_as_speed() {
        let mut tally = Tally::default();
        tally.take(&EventKind::Started { why: Reason::FirstRun }, 1.0);
        tally.take(&EventKind::Recalled { rows: 90, of: 110 }, 2.0);
        tally.take(&EventKind::Progress { done: 100, of: 110 }, 7.0);
        assert_eq!(tally.rate(7.0), Some(2.0));
        assert_eq!(tally.left(7.0), Some(5.0));
    }

    #[test]
    fn what_is_left_goes_by_tokens_where_they_are_known() {
        let mut tally = Tally::default();
        tally.take(&EventKind::Started { why: Reason::FirstRun }, 1.0);
        tally.take(&EventKind::Progress { done: 1, of: 100 }, 3.0);
        assert_eq!(tally.left(3.0), Some(198.0));
        tally.take(&EventKind::Tokens { prompt: 1000, output: 0, left: Some(500) }, 3.0);
        assert_eq!(tally.left(3.0), Some(1.0), "the other steps are short");
    }

    #[test]
    fn a_value_stays_until_a_newer_one_comes() {
        let mut tally = Tally::default();
        let metrics = |step, name: &str, value| EventKind::Metrics { step, values: vec![(name.into(), value)] };
        tally.take(&metrics(1, "eval_loss", 3.0), 0.0);
        tally.take(&metrics(2, "loss", 2.0), 0.0);
        tally.take(&metrics(3, "loss", 1.0), 0.0);
        let losses: Vec<_> = tally.losses().cloned().collect();
        assert_eq!(losses, [("eval_loss".to_string(), 3.0), ("loss".to_string(), 1.0)]);
    }

    #[test]
    fn progress_never_goes_back() {
        let mut tally = Tally::default();
        tally.take(&EventKind::Progress { done: 5, of: 9 }, 0.0);
        tally.take(&EventKind::Progress { done: 4, of: 9 }, 0.0);
        assert_eq!(tally.progress, Some((5, 9)));
        tally.take(&EventKind::Progress { done: 1, of: 30 }, 0.0);
        assert_eq!(tally.progress, Some((1, 30)), "another count begins anew");
    }
}

//! What a run may spend on a server. A request that could go beyond is not made.

use std::sync::{Condvar, Mutex, MutexGuard};

use super::{SLICE, ServerError};
use crate::models::Terms;

/// Tokens of a prompt and of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) prompt: u64,
    pub(super) output: u64,
}

/// What was spent, and what requests under way may come to.
#[derive(Debug)]
pub(super) struct Budget {
    terms: Terms,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    spent: Tokens,
    reserved: Tokens,
    under_way: usize,
}

impl Budget {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, state: Mutex::default(), settled: Condvar::new() }
    }

    /// Sets aside what a request may come to. Where that is too much, requests under way may turn out to be cheaper: they are waited for.
    pub(super) fn reserve(&self, most: Tokens, cancelled: &dyn Fn() -> bool) -> Result<Reserved<'_>, ServerError> {
        let mut state = self.state();
        while let Some(bound) = self.beyond(&state, most) {
            if cancelled() {
                return Err(ServerError::Cancelled);
            }
            if state.under_way == 0 {
                return Err(ServerError::Spent(bound));
            }
            state = self.settled.wait_timeout(state, SLICE).expect("no thread panics while it counts").0;
        }
        state.reserved.add(most);
        state.under_way += 1;
        Ok(Reserved { budget: self, most })
    }

    /// The bound that `more` goes beyond, in words.
    fn beyond(&self, state: &State, more: Tokens) -> Option<String> {
        let Tokens { prompt, output } = state.spent;
        let mut all = state.spent;
        all.add(state.reserved);
        all.add(more);
        let next = more.prompt + more.output;
        if let Some(most) = self.terms.max_tokens_total.filter(|&most| all.prompt + all.output > most) {
            return Some(format!(
                "`max_tokens_total` is {most}: {} tokens are used, and the next request may take {next}",
                prompt + output
            ));
        }
        let (price, most) = (self.terms.price?, self.terms.max_cost?);
        (price.of(all.prompt, all.output) > most).then(|| {
            let (spent, next) = (price.of(prompt, output), price.of(more.prompt, more.output));
            format!("`max_cost` is {most}: {spent:.4} is spent, and the next request may cost {next:.4}")
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it counts")
    }
}

impl Tokens {
    fn add(&mut self, more: Self) {
        self.prompt += more.prompt;
        self.output += more.output;
    }
}

/// What is set aside for a request until it is dropped.
pub(super) struct Reserved<'a> {
    budget: &'a Budget,
    most: Tokens,
}

impl Reserved<'_> {
    /// The request was answered, and took this.
    pub(super) fn spend(&self, used: Tokens) {
        self.budget.state().spent.add(used);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.reserved.prompt -= self.most.prompt;
        state.reserved.output -= self.most.output;
        state.under_way -= 1;
        drop(state);
        self.budget.settled.notify_all();
    }
}

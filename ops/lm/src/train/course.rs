//! The steps of a phase, and which of its limits ends it.

use crate::data::{Examples, Step, steps};
use crate::train::Phase;

/// What a phase does if nothing stops it.
pub(crate) struct Course {
    /// Its steps.
    pub(crate) steps: Vec<Step>,
    /// Tokens that go through the model in each.
    pub(crate) reads: Vec<u64>,
    /// What ends it.
    limit: Limit,
}

/// What ends a phase that is not stopped.
enum Limit {
    /// The examples were gone over so many times.
    Epochs(u64),
    /// So many steps were done.
    Steps(u64),
    /// Another step would read more than so many tokens.
    Tokens(u64),
}

impl Course {
    /// The course of phase number `at`. One step is done whatever the limits say.
    pub(crate) fn of(phase: &Phase, data: &Examples, seed: u64, at: u64) -> Self {
        let lengths: Vec<usize> = data.segments.iter().map(|segment| segment.tokens.len()).collect();
        let mut course = Self { steps: Vec::new(), reads: Vec::new(), limit: Limit::Epochs(phase.epochs) };
        let mut read = 0;
        for step in steps(&lengths, &data.parts, phase.batch, phase.epochs, seed.wrapping_add(at << 32)) {
            if let Some(max) = phase.max_steps.filter(|&max| course.steps.len() as u64 >= max) {
                course.limit = Limit::Steps(max);
                break;
            }
            let more = step.segments.iter().map(|&at| lengths[at] as u64).sum::<u64>();
            if let Some(max) = phase.max_tokens.filter(|&max| read + more > max && read > 0) {
                course.limit = Limit::Tokens(max);
                break;
            }
            read += more;
            course.steps.push(step);
            course.reads.push(more);
        }
        course
    }

    /// Why the phase ends after its last step, in words.
    pub(crate) fn ended(&self) -> String {
        let read: u64 = self.reads.iter().sum();
        match self.limit {
            Limit::Epochs(1) => format!("ended: 1 epoch done, {read} tokens read"),
            Limit::Epochs(epochs) => format!("ended: {epochs} epochs done, {read} tokens read"),
            Limit::Steps(max) => format!("ended: `max_steps` is {max}, {read} tokens read"),
            Limit::Tokens(max) => format!("ended: `max_tokens` is {max}, {read} tokens read"),
        }
    }
}

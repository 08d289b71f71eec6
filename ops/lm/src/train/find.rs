//! A phase that looks for a learning rate: it rises step by step, and the losses tell where it is good.
//!
//! The rate goes up exponentially from too little to too much (Smith's range test, arXiv 1506.01186, section 3.3). While it is too small nothing happens, then the
//! loss falls, then it rises: the rate to train with lies well below the lowest point, a tenth of it. The phase gives back the adapter that it
//! began with.

use crate::train::Metric;

/// What is left of the mean of earlier losses with each step: losses of single steps are noisy.
const MEMORY: f64 = 0.9;
/// How many times the lowest loss is too much to go on.
const TOO_MUCH: f64 = 2.0;

/// Rates and losses of the steps of a phase, losses smoothed.
pub(crate) struct Search {
    points: Vec<(f64, f64)>,
}

impl Search {
    /// What a phase's rows say.
    pub(crate) fn of(rows: &[Metric], phase: &str) -> Self {
        let (mut mean, mut weight) = (0.0, 0.0);
        let mut point = |row: &Metric| {
            mean = MEMORY * mean + (1.0 - MEMORY) * row.loss?;
            weight = MEMORY * weight + (1.0 - MEMORY);
            Some((row.learning_rate, mean / weight))
        };
        Self { points: rows.iter().filter(|row| row.phase == phase).filter_map(&mut point).collect() }
    }

    /// Where the loss was lowest.
    fn lowest(&self) -> Option<usize> {
        (0..self.points.len()).min_by(|&a, &b| self.points[a].1.total_cmp(&self.points[b].1))
    }

    /// Whether the loss is so high by now that more of it would tell nothing.
    pub(crate) fn is_over(&self) -> bool {
        let lowest = self.lowest().map(|at| self.points[at].1);
        self.points.last().zip(lowest).is_some_and(|((_, last), lowest)| *last > TOO_MUCH * lowest)
    }

    /// What was found, in words; `stopped` where the loss became too high or no number.
    pub(crate) fn told(&self, stopped: bool) -> String {
        let none = |why: &str| format!("no good learning rate found: {why} `learning_rate`");
        let Some(lowest) = self.lowest().filter(|&at| at > 0) else {
            return none(if stopped {
                "the loss never fell; begin with a smaller"
            } else {
                "the loss never fell; go on to a larger"
            });
        };
        if lowest + 1 == self.points.len() {
            return none("the loss was lowest at the end; go on to a larger");
        }
        let lowest = self.points[lowest].0;
        format!(
            "the loss was lowest at a learning rate of {lowest:.1e}; `learning_rate: {:.1e}`, a tenth of that, is a good one to \
             begin with",
            lowest / 10.0
        )
    }
}

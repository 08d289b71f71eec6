//! How the learning rate goes over the steps of a phase: up, then along a curve.

use serde::{Deserialize, Serialize};

use crate::LmError;

/// The curve after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a cosine down to the minimum (Loshchilov and Hutter, arXiv 1608.03983).
    #[default]
    Cosine,
    /// A straight line down to the minimum.
    Linear,
    /// The peak to the end.
    Constant,
    /// No way down and no warm-up: exponentially up from a thousandth of the peak to it, which shows what rate is good (Smith, arXiv 1506.01186).
    Find,
}

/// How long the rate rises at the beginning of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// So many steps.
    Steps(u64),
    /// This share of the phase's steps, 0 to below 1, rounded up.
    Ratio(f64),
}

/// The learning rate of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// The way up.
    pub warmup: Warmup,
    /// The way down.
    pub decay: Decay,
    /// Where the way down ends, as a share of the peak.
    pub min_ratio: f64,
}

impl Schedule {
    /// The rate of step `step` (from 0) of `total`. The warm-up rises from `peak / w` in the first step to the peak in
    /// its last; the decay begins at the peak and would reach its minimum one step after the last, so that no step is
    /// spent at a rate of zero.
    pub fn rate(&self, step: u64, total: u64) -> f64 {
        if self.decay == Decay::Find {
            let left = 1.0 - step as f64 / total.saturating_sub(1).max(1) as f64;
            return self.peak * 1000f64.powf(-left.clamp(0.0, 1.0));
        }
        let warmup = match self.warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) => (ratio * total as f64).ceil() as u64,
        };
        if step < warmup {
            return self.peak * (step + 1) as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        let left = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
            Decay::Linear => 1.0 - done.min(1.0),
            Decay::Constant | Decay::Find => return self.peak,
        };
        self.peak * (self.min_ratio + (1.0 - self.min_ratio) * left)
    }

    /// Whether its numbers make sense.
    ///
    /// # Errors
    ///
    /// The first that does not, by name.
    pub fn check(&self) -> Result<(), LmError> {
        let reason = if !(self.peak.is_finite() && self.peak > 0.0) {
            format!("`learning_rate` is above 0, not {}", self.peak)
        } else if !(0.0..=1.0).contains(&self.min_ratio) {
            format!("`min_ratio` is from 0 to 1, not {}", self.min_ratio)
        } else if let Warmup::Ratio(ratio) = self.warmup
            && !(0.0..1.0).contains(&ratio)
        {
            format!("`warmup_ratio` is from 0 to below 1, not {ratio}")
        } else {
            return Ok(());
        };
        Err(LmError::Argument(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(decay: Decay, warmup: Warmup, min_ratio: f64, total: u64) -> Vec<f64> {
        let schedule = Schedule { peak: 1.0, warmup, decay, min_ratio };
        (0..total).map(|step| (schedule.rate(step, total) * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn up_and_then_down() {
        let up = Warmup::Steps(2);
        assert_eq!(rates(Decay::Linear, up, 0.0, 6), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(rates(Decay::Linear, up, 0.5, 6), [0.5, 1.0, 1.0, 0.875, 0.75, 0.625]);
        assert_eq!(rates(Decay::Constant, up, 0.0, 4), [0.5, 1.0, 1.0, 1.0]);
        assert_eq!(rates(Decay::Cosine, up, 0.0, 6), [0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464]);
        assert_eq!(rates(Decay::Cosine, Warmup::Ratio(0.3), 0.0, 5), rates(Decay::Cosine, up, 0.0, 5));
    }

    #[test]
    fn a_rate_is_looked_for_from_a_thousandth_up() {
        assert_eq!(rates(Decay::Find, Warmup::Steps(2), 0.5, 4), [0.001, 0.01, 0.1, 1.0]);
        assert_eq!(rates(Decay::Find, Warmup::Steps(0), 0.0, 1), [0.001]);
    }

    #[test]
    fn a_warm_up_longer_than_the_phase_only_rises() {
        assert_eq!(rates(Decay::Cosine, Warmup::Steps(10), 0.0, 3), [0.1, 0.2, 0.3]);
        assert_eq!(rates(Decay::Cosine, Warmup::Ratio(0.0), 0.0, 1), [1.0]);
    }

    #[test]
    fn senseless_numbers_are_named() {
        let schedule = Schedule { peak: 1e-4, warmup: Warmup::Ratio(0.1), decay: Decay::Cosine, min_ratio: 0.0 };
        assert!(schedule.check().is_ok());
        let said = |schedule: Schedule| schedule.check().expect_err("senseless").to_string();
        assert!(said(Schedule { peak: f64::NAN, ..schedule }).contains("learning_rate"));
        assert!(said(Schedule { min_ratio: 1.5, ..schedule }).contains("min_ratio"));
        assert!(said(Schedule { warmup: Warmup::Ratio(1.0), ..schedule }).contains("warmup_ratio"));
    }
}

//! How sure a mean is: percentile bootstrap over questions (Efron and Tibshirani, 1993, chapter 13).
//!
//! A resample is as many questions as there are, drawn with replacement; all statistics of a resample are taken of the same draw, so
//! that a difference of two models is that of the same questions. Draws depend on the seed and the number of questions alone.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// What a statistic is taken of: a sum and its weight a question, none where there is no value. Its value is the sum of the sums over the
/// sum of the weights: a mean of scores where all weigh 1, a loss a token where tokens weigh.
pub(super) type Series = Vec<Option<(f64, f64)>>;

/// A mean with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Estimate {
    /// The estimate of a function of the value that rises with it: its quantiles are those of the value.
    pub(super) fn map(self, rising: impl Fn(f64) -> f64) -> Self {
        Self { value: rising(self.value), low: rising(self.low), high: rising(self.high) }
    }
}

/// How often and how wide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bootstrap {
    pub(super) resamples: usize,
    /// The share of resamples that an interval holds.
    pub(super) confidence: f64,
    pub(super) seed: u64,
}

/// What is estimated: a mean, or how much larger the first is than the second on the questions that both have.
pub(super) enum Statistic<'a> {
    Mean(&'a Series),
    Difference(&'a Series, &'a Series),
}

impl Bootstrap {
    /// An estimate a statistic, over `n` questions; none where no question has a value.
    pub(super) fn estimates(&self, n: usize, statistics: &[Statistic<'_>]) -> Vec<Option<Estimate>> {
        let all: Vec<usize> = (0..n).collect();
        let mut draws = vec![Vec::with_capacity(self.resamples); statistics.len()];
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut drawn = vec![0; n];
        for _ in 0..self.resamples {
            drawn.fill_with(|| below(n, &mut rng));
            for (statistic, draws) in statistics.iter().zip(&mut draws) {
                // A draw of nothing but questions without a value says nothing.
                draws.extend(statistic.of(&drawn));
            }
        }
        let each = statistics.iter().zip(draws).map(|(statistic, mut draws)| {
            let value = statistic.of(&all)?;
            draws.sort_unstable_by(f64::total_cmp);
            let tail = (1.0 - self.confidence) / 2.0;
            let end = |share| quantile(&draws, share).unwrap_or(value);
            Some(Estimate { value, low: end(tail), high: end(1.0 - tail) })
        });
        each.collect()
    }
}

impl Statistic<'_> {
    fn of(&self, questions: &[usize]) -> Option<f64> {
        match self {
            Self::Mean(series) => mean(questions.iter().filter_map(|at| series[*at])),
            Self::Difference(one, other) => {
                let both = || questions.iter().filter_map(|at| one[*at].zip(other[*at]));
                Some(mean(both().map(|(one, _)| one))? - mean(both().map(|(_, other)| other))?)
            }
        }
    }
}

fn mean(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for (value, own) in values {
        sum += value;
        weight += own;
    }
    (weight > 0.0).then(|| sum / weight)
}

/// A number below `n`, each as likely but for less than one part in 2⁶⁴ times `n`.
fn below(n: usize, rng: &mut ChaCha8Rng) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// The value below which a share of sorted values lies, on a line between the two beside it.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Bootstrap = Bootstrap { resamples: 1000, confidence: 0.95, seed: 0 };

    fn scores(values: impl IntoIterator<Item = f64>) -> Series {
        values.into_iter().map(|value| Some((value, 1.0))).collect()
    }

    #[test]
    fn an_interval_is_as_wide_as_theory_says() {
        // Of 400 questions a quarter is right: a standard error of 0.02165.
        let series = scores((0..400).map(|n| f64::from(u8::from(n % 4 == 0))));
        let [Some(found)] = USUAL.estimates(400, &[Statistic::Mean(&series)])[..] else { panic!("no estimate") };
        assert_eq!(found.value, 0.25);
        for (end, wanted) in [(found.low, 0.25 - 1.96 * 0.02165), (found.high, 0.25 + 1.96 * 0.02165)] {
            assert!((end - wanted).abs() < 0.006, "{found:?}");
        }
        let wide = Bootstrap { confidence: 0.99, ..USUAL }.estimates(400, &[Statistic::Mean(&series)])[0].unwrap();
        assert!(wide.low < found.low && wide.high > found.high);
    }

    #[test]
    fn a_difference_is_of_the_same_questions_and_so_much_surer() {
        let base = scores((0..100).map(|n| f64::from(n % 10)));
        let tuned = scores((0..100).map(|n| f64::from(n % 10) + 0.5));
        let statistics = [Statistic::Mean(&base), Statistic::Mean(&tuned), Statistic::Difference(&tuned, &base)];
        let found = USUAL.estimates(100, &statistics);
        assert!(found[0].unwrap().high > found[1].unwrap().low, "alone they can't be told apart: {found:?}");
        let gain = found[2].unwrap();
        assert!((gain.low - 0.5).abs() < 1e-9 && (gain.high - 0.5).abs() < 1e-9, "{gain:?}");
    }

    #[test]
    fn tokens_weigh_and_questions_without_a_value_do_not() {
        let losses: Series = vec![Some((6.0, 3.0)), None, Some((2.0, 1.0))];
        let other: Series = vec![Some((3.0, 3.0)), Some((100.0, 1.0)), None];
        let found = USUAL.estimates(3, &[Statistic::Mean(&losses), Statistic::Difference(&losses, &other)]);
        assert_eq!(found[0].unwrap(), Estimate { value: 2.0, low: 2.0, high: 2.0 });
        assert_eq!(found[1].unwrap().value, 1.0, "of the first question alone");
        assert_eq!(USUAL.estimates(0, &[Statistic::Mean(&Vec::new())]), [None]);
        assert_eq!(USUAL.estimates(2, &[Statistic::Mean(&vec![None, None])]), [None]);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let series = scores([0.0, 1.0, 0.2, 0.9, 0.4]);
        let ends = |seed| Bootstrap { resamples: 50, seed, ..USUAL }.estimates(5, &[Statistic::Mean(&series)]);
        assert_eq!(ends(1), ends(1));
        assert_ne!(ends(1), ends(2));
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        let found = [0.0, 0.025, 0.5, 1.0].map(|share| quantile(&sorted, share).unwrap());
        assert!(found.iter().zip([1.0, 1.075, 3.0, 8.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert_eq!(quantile(&[], 0.5), None);
    }
}

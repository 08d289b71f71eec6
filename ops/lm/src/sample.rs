//! From logits to a token: temperature, top-k, top-p, min-p, repeat penalty, seeded.
//!
//! A draw is a function of the logits, the recent tokens, the seed and the step, and of nothing else: no generator is
//! carried from one token to the next. The steps are those of `transformers`, in its order: the repeat penalty, the
//! temperature, top-k, top-p, min-p.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token and makes everything but the repeat penalty idle.
    pub temperature: f32,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Logits of recent tokens are divided by this where positive, multiplied where negative; 1 does nothing.
    pub repeat_penalty: f32,
    /// Number of last tokens, prompt included, that count as recent.
    pub repeat_window: usize,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, repeat_window: 64 }
    }
}

/// Candidates are sorted in portions, as few as top-p needs; this is the first portion.
const FIRST_PORTION: usize = 256;

impl Sampling {
    /// Draws the token of step `step` from `logits: (vocabulary)`; `seen` are all tokens so far, prompt included.
    /// Equal logits fall to the smaller id. A logit that is no number counts as impossible.
    ///
    /// # Panics
    /// `logits` is empty.
    pub fn draw(&self, logits: &mut [f32], seen: &[u32], seed: u64, step: u64) -> u32 {
        self.penalise(logits, seen);
        if self.temperature <= 0.0 || self.top_k == 1 {
            return most_likely(logits);
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|&(weight, _)| f64::from(weight)).sum();
        let mut left = uniform(seed, step) * total;
        for &(weight, id) in &candidates {
            left -= f64::from(weight);
            if left < 0.0 {
                return id;
            }
        }
        candidates.last().map_or_else(|| most_likely(logits), |&(_, id)| id)
    }

    /// The penalty of CTRL (arXiv 1909.05858), once per distinct token.
    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        if self.repeat_penalty == 1.0 {
            return;
        }
        let mut recent = seen[seen.len().saturating_sub(self.repeat_window)..].to_vec();
        recent.sort_unstable();
        recent.dedup();
        for id in recent {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / self.repeat_penalty } else { *logit * self.repeat_penalty };
            }
        }
    }

    /// The tokens that may be drawn, most likely first, with weights relative to the most likely.
    fn candidates(&self, logits: &[f32]) -> Vec<(f32, u32)> {
        let best = logits[most_likely(logits) as usize];
        let weight = |logit: f32| ((logit - best) / self.temperature).exp();
        let mut weights: Vec<(f32, u32)> = (0..)
            .zip(logits)
            .map(|(id, &logit)| (weight(logit), id))
            .filter(|&(weight, _)| weight > 0.0 && weight >= self.min_p)
            .collect();
        if self.top_k > 0 {
            sort_first(&mut weights, self.top_k);
            weights.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            self.keep_nucleus(&mut weights, logits, weight);
        }
        weights
    }

    /// Cuts `weights` where their sum reaches `top_p` of the whole. With top-k the whole is what top-k kept; else it is
    /// the whole vocabulary, whatever min-p dropped.
    fn keep_nucleus(&self, weights: &mut Vec<(f32, u32)>, logits: &[f32], weight: impl Fn(f32) -> f32) {
        let kept = |weights: &[(f32, u32)]| weights.iter().map(|&(weight, _)| f64::from(weight)).sum::<f64>();
        let whole = if self.top_k > 0 || self.min_p <= 0.0 {
            kept(weights)
        } else {
            logits.iter().map(|&logit| f64::from(weight(logit))).filter(|weight| *weight > 0.0).sum()
        };
        let enough = whole * f64::from(self.top_p);
        let mut portion = FIRST_PORTION;
        loop {
            sort_first(weights, portion);
            let mut sum = 0.0;
            for (index, &(weight, _)) in weights.iter().take(portion).enumerate() {
                sum += f64::from(weight);
                if sum >= enough {
                    weights.truncate(index + 1);
                    return;
                }
            }
            if portion >= weights.len() {
                return;
            }
            portion *= 8;
        }
    }
}

/// Brings the `n` heaviest to the front, sorted; the smaller id first among equals.
fn sort_first(weights: &mut [(f32, u32)], n: usize) {
    let heavier = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let n = n.min(weights.len());
    if n < weights.len() && n > 0 {
        weights.select_nth_unstable_by(n - 1, heavier);
    }
    weights[..n].sort_unstable_by(heavier);
}

fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        // Written so that a NaN in front gives way.
        if *logit > logits[best] || logits[best].is_nan() {
            best = id;
        }
    }
    best as u32
}

/// A number in [0, 1) from the seed and the step alone.
fn uniform(seed: u64, step: u64) -> f64 {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(step);
    (generator.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 3.0, -4.0, 0.0];

    fn draw(sampling: &Sampling, seen: &[u32], seed: u64, step: u64) -> u32 {
        sampling.draw(&mut LOGITS.clone(), seen, seed, step)
    }

    fn drawn(sampling: &Sampling, n: u64) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for step in 0..n {
            *counts.entry(draw(sampling, &[], 7, step)).or_default() += 1;
        }
        counts
    }

    #[test]
    fn temperature_zero_takes_the_smaller_of_two_equals() {
        assert_eq!(draw(&Sampling::default(), &[], 1, 1), 1);
        let penalty = Sampling { repeat_penalty: 1.5, ..Sampling::default() };
        assert_eq!(draw(&penalty, &[1], 1, 1), 3);
        assert_eq!(draw(&Sampling { repeat_window: 1, ..penalty }, &[1, 3], 1, 1), 1, "1 has left the window");
    }

    #[test]
    fn shares_follow_the_softmax() {
        let counts = drawn(&Sampling { temperature: 1.0, ..Sampling::default() }, 20_000);
        let total: f32 = LOGITS.iter().map(|logit| logit.exp()).sum();
        for (id, logit) in LOGITS.iter().enumerate() {
            let expected = logit.exp() / total;
            let share = *counts.get(&(id as u32)).unwrap_or(&0) as f32 / 20_000.0;
            assert!((share - expected).abs() < 0.01, "{id}: {share} for {expected}");
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        let ids = |sampling: Sampling| drawn(&sampling, 2_000).into_keys().collect::<Vec<_>>();
        assert_eq!(ids(Sampling { top_k: 2, ..base }), [1, 3]);
        assert_eq!(ids(Sampling { top_k: 3, ..base }), [1, 2, 3]);
        assert_eq!(ids(Sampling { top_p: 0.5, ..base }), [1, 3]);
        assert_eq!(ids(Sampling { top_p: 0.9, ..base }), [1, 2, 3]);
        assert_eq!(ids(Sampling { top_p: 0.0, ..base }), [1]);
        assert_eq!(ids(Sampling { min_p: 0.3, ..base }), [1, 2, 3]);
        assert_eq!(ids(Sampling { min_p: 1.0, ..base }), [1, 3]);
    }

    #[test]
    fn a_draw_knows_only_seed_and_step() {
        let sampling = Sampling { temperature: 1.3, ..Sampling::default() };
        let forth: Vec<u32> = (0..50).map(|step| draw(&sampling, &[], 3, step)).collect();
        let back: Vec<u32> = (0..50).rev().map(|step| draw(&sampling, &[], 3, step)).collect();
        assert!(forth.iter().eq(back.iter().rev()));
        let other: Vec<u32> = (0..50).map(|step| draw(&sampling, &[], 4, step)).collect();
        assert_ne!(forth, other);
    }

    #[test]
    fn a_wide_nucleus_is_found_in_portions() {
        let mut logits: Vec<f32> = (0..5_000).map(|id: u32| -(id as f32) / 1_000.0).collect();
        logits.reverse();
        let sampling = Sampling { temperature: 1.0, top_p: 0.8, ..Sampling::default() };
        let kept = sampling.candidates(&logits);
        let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let sum = |n: usize| kept[..n].iter().map(|kept| kept.0).sum::<f32>() / total;
        assert!(sum(kept.len()) >= 0.7999 && sum(kept.len() - 1) < 0.8001, "{}", kept.len());
        assert!(kept.len() > FIRST_PORTION && kept.is_sorted_by(|a, b| a.0 >= b.0));
        assert_eq!(kept.first().unwrap().1, 4_999);
    }

    #[test]
    fn what_is_no_number_is_never_drawn() {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        for step in 0..100 {
            assert_eq!(sampling.draw(&mut [f32::NAN, 0.0, f32::NEG_INFINITY], &[], 1, step), 1);
        }
    }
}

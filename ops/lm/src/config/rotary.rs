//! Rotary positions as a checkpoint configures them: how fast each pair of dimensions turns, and how that was
//! stretched for longer contexts.

use std::f32::consts::PI;

/// The rotation of heads by position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Base of the frequencies.
    pub theta: f32,
    /// How many of a head's first dimensions are rotated: even.
    pub dim: usize,
    /// How the frequencies were stretched.
    pub scaling: Scaling,
}

/// How frequencies were changed so that a model reads further than it was first trained for.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All divided by `factor` (Chen et al., arXiv 2306.15595).
    Linear {
        /// By how much.
        factor: f32,
    },
    /// Llama 3.1's: slow turns divided by `factor`, fast ones kept, those between blended.
    Llama3 {
        /// By how much.
        factor: f32,
        /// Turns in the original context below which a pair is slow.
        low: f32,
        /// Turns in the original context above which a pair is fast.
        high: f32,
        /// The context of the first training, in tokens.
        original: f32,
    },
    /// `YaRN` (Peng et al., arXiv 2309.00071).
    Yarn {
        /// By how much slow turns are divided.
        factor: f32,
        /// The context of the first training, in tokens.
        original: f32,
        /// Turns in the original context from which on a pair is kept.
        beta_fast: f32,
        /// Turns in the original context up to which a pair is divided.
        beta_slow: f32,
        /// What cosines and sines are multiplied with.
        attention: f32,
    },
}

impl Rotary {
    /// Radians a position, for each of the `dim / 2` pairs.
    pub(crate) fn frequencies(&self) -> Vec<f32> {
        let plain = (0..self.dim / 2).map(|i| 1.0 / self.theta.powf(2.0 * i as f32 / self.dim as f32));
        match self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
            Scaling::Llama3 { factor, low, high, original } => {
                plain.map(|frequency| llama3(frequency, factor, low, high, original)).collect()
            }
            Scaling::Yarn { factor, original, beta_fast, beta_slow, .. } => {
                let begin = self.pair_of(original, beta_fast).floor().max(0.0);
                let end = self.pair_of(original, beta_slow).ceil().min(self.dim as f32 - 1.0);
                let width = (end - begin).max(0.001);
                plain
                    .enumerate()
                    .map(|(i, frequency)| {
                        let slow = ((i as f32 - begin) / width).clamp(0.0, 1.0);
                        frequency / factor * slow + frequency * (1.0 - slow)
                    })
                    .collect()
            }
        }
    }

    /// What cosines and sines are multiplied with.
    pub(crate) fn magnitude(&self) -> f32 {
        if let Scaling::Yarn { attention, .. } = self.scaling { attention } else { 1.0 }
    }

    /// Which pair, as a real number, makes so many turns in a context of `original` tokens.
    fn pair_of(&self, original: f32, turns: f32) -> f32 {
        self.dim as f32 * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
    }
}

/// What `YaRN` multiplies cosines and sines with unless the checkpoint says otherwise.
pub(super) fn yarn_attention(factor: f32, weight: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { (0.1 * weight).mul_add(factor.ln(), 1.0) }
}

fn llama3(frequency: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    let turns = original * frequency / (2.0 * PI);
    if turns > high {
        frequency
    } else if turns < low {
        frequency / factor
    } else {
        let fast = (turns - low) / (high - low);
        (1.0 - fast) * frequency / factor + fast * frequency
    }
}

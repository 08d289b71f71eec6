//! Dropout that needs no memory: whether an element is dropped is a hash of the seed and its place.

use rayon::prelude::*;

use crate::kernels::Buffer;

/// Elements hashed by one task.
const CHUNK: usize = 1 << 14;

/// A dropout mask: the same seed and place give the same answer, forward and backward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dropout {
    rate: f32,
    seed: u64,
}

impl Dropout {
    /// Drops nothing.
    pub(crate) const NONE: Self = Self { rate: 0.0, seed: 0 };

    /// Drops a share `rate` of the elements, by `seed` and the layer that asks.
    pub(crate) fn new(rate: f32, seed: u64, layer: u64) -> Self {
        Self { rate, seed: mix(seed ^ mix(layer.wrapping_add(1))) }
    }

    /// The elements that are kept, scaled up by `1 / (1 − rate)`, zeros for the others. None if nothing is dropped.
    pub(crate) fn apply(self, x: &[f32]) -> Option<Buffer<f32>> {
        if self.rate == 0.0 {
            return None;
        }
        let mut out = Buffer::zeroed(x.len());
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            for (i, out) in out.iter_mut().enumerate() {
                let at = chunk * CHUNK + i;
                *out = x[at] * self.factor(at);
            }
        });
        Some(out)
    }

    /// `to += mask(from)`: the way back of [`Dropout::apply`].
    pub(crate) fn add_masked(self, from: &[f32], to: &mut [f32]) {
        to.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, to)| {
            for (i, to) in to.iter_mut().enumerate() {
                let at = chunk * CHUNK + i;
                *to += from[at] * self.factor(at);
            }
        });
    }

    fn factor(self, at: usize) -> f32 {
        let unit = (mix(self.seed.wrapping_add(at as u64)) >> 40) as f32 / 16_777_216.0;
        if unit < self.rate { 0.0 } else { 1.0 / (1.0 - self.rate) }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), after one step of its counter.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_dropped_and_the_mean_stays() {
        let ones = vec![1.0; 100_000];
        assert!(Dropout::NONE.apply(&ones).is_none());
        let masked = Dropout::new(0.25, 7, 3).apply(&ones).unwrap();
        let dropped = masked.iter().filter(|&&v| v == 0.0).count();
        assert!((24_000..26_000).contains(&dropped), "{dropped}");
        let mean: f64 = masked.iter().map(|&v| f64::from(v)).sum::<f64>() / 100_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert_ne!(*masked, *Dropout::new(0.25, 8, 3).apply(&ones).unwrap());
        assert_ne!(*masked, *Dropout::new(0.25, 7, 4).apply(&ones).unwrap());
        let mut back = ones.clone();
        Dropout::new(0.25, 7, 3).add_masked(&ones, &mut back);
        assert!(back.iter().zip(masked.iter()).all(|(b, m)| *b == 1.0 + m));
    }
}

//! Rotary positions (Su et al., arXiv 2104.09864), in Hugging Face's layout: element `i` of a head is rotated with
//! element `i + head_dim / 2`, by the angle `position · theta^(−2i / head_dim)`.

use rayon::prelude::*;

use crate::config::Config;

/// Rows rotated by one task.
const ROWS: usize = 32;

/// The cosines and sines of the positions of a batch's rows.
#[derive(Debug)]
pub(crate) struct Rope {
    half: usize,
    /// `(rows, head_dim / 2)` of `(cos, sin)`.
    turns: Vec<(f32, f32)>,
}

impl Rope {
    pub(crate) fn new(config: &Config, positions: &[usize]) -> Self {
        let half = config.head_dim / 2;
        let slowness = |i: usize| config.rope_theta.powf(2.0 * i as f32 / config.head_dim as f32);
        let frequencies: Vec<f32> = (0..half).map(|i| 1.0 / slowness(i)).collect();
        let mut turns = vec![(0.0, 0.0); positions.len() * half];
        turns.par_chunks_exact_mut(half).zip(positions).with_min_len(ROWS).for_each(|(row, &position)| {
            for (turn, frequency) in row.iter_mut().zip(&frequencies) {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                *turn = (cos, sin);
            }
        });
        Self { half, turns }
    }

    /// Rotates all heads of `x (rows, heads * head_dim)`.
    pub(crate) fn rotate(&self, x: &mut [f32]) {
        self.turn(x, 1.0);
    }

    /// Rotates back: what the gradient of [`Rope::rotate`] is.
    pub(crate) fn rotate_back(&self, x: &mut [f32]) {
        self.turn(x, -1.0);
    }

    fn turn(&self, x: &mut [f32], direction: f32) {
        let rows = self.turns.len() / self.half;
        let width = x.len() / rows.max(1);
        x.par_chunks_exact_mut(width.max(1)).zip(self.turns.par_chunks_exact(self.half)).with_min_len(ROWS).for_each(
            |(row, turns)| {
                for head in row.chunks_exact_mut(2 * self.half) {
                    let (first, second) = head.split_at_mut(self.half);
                    for ((a, b), &(cos, sin)) in first.iter_mut().zip(second).zip(turns) {
                        let sin = sin * direction;
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_config;

    #[test]
    fn rotating_keeps_lengths_and_depends_on_distance_only() {
        let config = tiny_config();
        let dim = config.head_dim;
        let (q, k): (Vec<f32>, Vec<f32>) = (0..dim).map(|i| ((i as f32).sin(), (i as f32 * 0.7).cos())).unzip();
        let score = |p: usize, r: usize| {
            let (mut q, mut k) = (q.clone(), k.clone());
            Rope::new(&config, &[p]).rotate(&mut q);
            Rope::new(&config, &[r]).rotate(&mut k);
            q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((score(9, 4) - score(105, 100)).abs() < 1e-4);
        assert!((score(9, 4) - score(9, 6)).abs() > 1e-3);
        let rope = Rope::new(&config, &[3, 77]);
        let before: Vec<f32> = q.iter().chain(&k).copied().collect();
        let mut after = before.clone();
        rope.rotate(&mut after);
        rope.rotate_back(&mut after);
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

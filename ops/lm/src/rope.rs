//! Rotary positions (Su et al., arXiv 2104.09864), in Hugging Face's layout: of the first `dim` elements of a head,
//! element `i` is rotated with element `i + dim / 2`, by the angle `position · theta^(−2i / dim)` (where the model's
//! context was not stretched; see [`Rotary`]). The others stay as they are.

use rayon::prelude::*;

use crate::config::{Config, Rotary};

/// Rows rotated by one task.
const ROWS: usize = 32;

/// The rotations of a batch's rows: of the blocks that see everything, and of those with a window.
#[derive(Debug)]
pub(crate) struct Ropes {
    global: Rope,
    /// Where they differ.
    local: Option<Rope>,
}

impl Ropes {
    pub(crate) fn new(config: &Config, positions: &[usize]) -> Self {
        let rope = |rotary: &Rotary| Rope::new(rotary, config.head_dim, positions);
        Self { global: rope(&config.rotary), local: config.local_rotary.as_ref().map(rope) }
    }

    /// Those of a block.
    pub(crate) fn of(&self, config: &Config, layer: usize) -> &Rope {
        self.local.as_ref().filter(|_| config.windows[layer].is_some()).unwrap_or(&self.global)
    }
}

/// The cosines and sines of the positions of a batch's rows.
#[derive(Debug)]
pub(crate) struct Rope {
    head_dim: usize,
    half: usize,
    /// `(rows, dim / 2)` of `(cos, sin)`.
    turns: Vec<(f32, f32)>,
}

impl Rope {
    pub(crate) fn new(rotary: &Rotary, head_dim: usize, positions: &[usize]) -> Self {
        let half = rotary.dim / 2;
        let (frequencies, magnitude) = (rotary.frequencies(), rotary.magnitude());
        let mut turns = vec![(0.0, 0.0); positions.len() * half];
        turns.par_chunks_exact_mut(half).zip(positions).with_min_len(ROWS).for_each(|(row, &position)| {
            for (turn, frequency) in row.iter_mut().zip(&frequencies) {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                *turn = (cos * magnitude, sin * magnitude);
            }
        });
        Self { head_dim, half, turns }
    }

    /// Rotates all heads of `x (rows, heads * head_dim)`.
    pub(crate) fn rotate(&self, x: &mut [f32]) {
        self.turn(x, 1.0);
    }

    /// Rotates the other way: what the gradient of [`Rope::rotate`] is.
    pub(crate) fn rotate_back(&self, x: &mut [f32]) {
        self.turn(x, -1.0);
    }

    fn turn(&self, x: &mut [f32], direction: f32) {
        let rows = self.turns.len() / self.half;
        let width = x.len() / rows.max(1);
        x.par_chunks_exact_mut(width.max(1)).zip(self.turns.par_chunks_exact(self.half)).with_min_len(ROWS).for_each(
            |(row, turns)| {
                for head in row.chunks_exact_mut(self.head_dim) {
                    let (first, second) = head[..2 * self.half].split_at_mut(self.half);
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
            Rope::new(&config.rotary, dim, &[p]).rotate(&mut q);
            Rope::new(&config.rotary, dim, &[r]).rotate(&mut k);
            q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((score(9, 4) - score(105, 100)).abs() < 1e-4);
        assert!((score(9, 4) - score(9, 6)).abs() > 1e-3);
        let rope = Rope::new(&config.rotary, dim, &[3, 77]);
        let before: Vec<f32> = q.iter().chain(&k).copied().collect();
        let mut after = before.clone();
        rope.rotate(&mut after);
        rope.rotate_back(&mut after);
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    #[test]
    fn only_the_first_dimensions_of_a_head_turn() {
        let rotary = Rotary { theta: 100.0, dim: 4, scaling: crate::config::Scaling::None };
        let mut x: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let before = x.clone();
        Rope::new(&rotary, 8, &[5]).rotate(&mut x);
        for head in 0..2 {
            assert_eq!(x[head * 8 + 4..][..4], before[head * 8 + 4..][..4]);
            for i in 0..2 {
                let (sin, cos) = (5.0 * 100f32.powf(-2.0 * i as f32 / 4.0)).sin_cos();
                let (a, b) = (before[head * 8 + i], before[head * 8 + i + 2]);
                assert!((x[head * 8 + i] - (a * cos - b * sin)).abs() < 1e-5);
                assert!((x[head * 8 + i + 2] - (b * cos + a * sin)).abs() < 1e-5);
            }
        }
    }
}

//! Norms over the rows of a batch: of the residual stream, or of each head.

use rayon::prelude::*;

use crate::config::{Config, NormKind};
use crate::kernels::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};

/// Values that one task takes at least.
const TASK: usize = 1 << 13;

/// A norm with its weights.
#[derive(Debug)]
pub(crate) struct Norm {
    kind: NormKind,
    /// What the normed values are multiplied with: where the checkpoint says one less, one was added.
    weight: Vec<f32>,
    /// Empty but for layer norms.
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    /// Of the checkpoint's weight, and its bias (empty where the kind has none).
    pub(crate) fn new(config: &Config, mut weight: Vec<f32>, bias: Vec<f32>) -> Self {
        let kind = config.facts().norm;
        if kind == NormKind::RmsPlusOne {
            weight.iter_mut().for_each(|weight| *weight += 1.0);
        }
        Self { kind, weight, bias, eps: config.norm_eps }
    }

    /// The checkpoint's weight and bias.
    pub(crate) fn checkpoint(&self) -> (Vec<f32>, &[f32]) {
        let less = if self.kind == NormKind::RmsPlusOne { 1.0 } else { 0.0 };
        (self.weight.iter().map(|weight| weight - less).collect(), &self.bias)
    }

    /// Norms each row of `x (rows, width)`.
    pub(crate) fn forward(&self, x: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        out.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).with_min_len(TASK.div_ceil(width)).for_each(
            |(out, x)| match self.kind {
                NormKind::Rms | NormKind::RmsPlusOne => rms_norm(x, &self.weight, self.eps, out),
                NormKind::Layer => layer_norm(x, &self.weight, &self.bias, self.eps, out),
            },
        );
    }

    /// Adds to `d_x` the gradient by `x` of [`Norm::forward`].
    pub(crate) fn backward(&self, x: &[f32], d_out: &[f32], d_x: &mut [f32]) {
        let width = self.weight.len();
        d_x.par_chunks_exact_mut(width)
            .zip(x.par_chunks_exact(width).zip(d_out.par_chunks_exact(width)))
            .with_min_len(TASK.div_ceil(width))
            .for_each(|(d_x, (x, d_out))| match self.kind {
                NormKind::Rms | NormKind::RmsPlusOne => rms_norm_backward(x, &self.weight, self.eps, d_out, d_x),
                NormKind::Layer => layer_norm_backward(x, &self.weight, self.eps, d_out, d_x),
            });
    }
}

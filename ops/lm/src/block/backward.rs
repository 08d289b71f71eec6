//! The way back through a block.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{Block, CURVED, Pass, Values, add_rows};
use crate::attention::SegmentGrads;
use crate::kernels::Buffer;
use crate::linear::{self, Backward};
use crate::lora::{Grads, Target};
use crate::norm::Norm;

impl Block {
    /// The backward pass: `x (rows, hidden)` is what the block was given, `values` what [`Block::forward`] left (and
    /// [`Block::forward_again`] brought back), and
    /// `d_x` the gradient of the block's output, which becomes that of its input. The adapter's gradients of this
    /// block are written to `grads`. `attend_backward(q, k, v, out, d_out)` gives the gradients of attention.
    pub(crate) fn backward(
        &self,
        pass: Pass<'_>,
        values: &mut Values,
        x: &[f32],
        d_x: &mut [f32],
        grads: &mut Grads,
        attend_backward: impl FnOnce([&[f32]; 3], &[f32], &[f32]) -> SegmentGrads,
    ) {
        let mut ways = self.ways_back(pass, &values.lows, grads);
        let rows = values.rows;
        let config = pass.config;

        // The MLP: x'' = x' + norm(down(inner)).
        let mut d_inner = Buffer::any(rows * config.intermediate_size);
        let d_change = through(self.post_mlp_norm.as_ref(), &values.raw_mlp, d_x);
        linear::backward(rows, &values.inner, &mut [ways.take(Target::DownProj, &d_change)], &mut d_inner);
        drop(d_change);
        curve_backward(pass, &d_inner, &mut values.gate, &mut values.up);
        drop(d_inner);
        let mut layers = Vec::with_capacity(2);
        if config.facts().gated() {
            layers.push(ways.take(Target::GateProj, &values.gate));
        }
        layers.push(ways.take(Target::UpProj, &values.up));
        let mut d_read = Buffer::any(rows * config.hidden_size);
        let read = if self.mlp_norm.is_some() { &values.middle_normed } else { &values.normed };
        linear::backward(rows, read, &mut layers, &mut d_read);
        drop(layers);
        if let Some(norm) = &self.mlp_norm {
            norm.backward(&values.middle, &d_read, d_x);
        }

        // Attention: x' = x + norm(o(mixed)).
        let mut d_mixed = Buffer::any(rows * config.query_width());
        let d_change = through(self.post_attention_norm.as_ref(), &values.raw_attention, d_x);
        linear::backward(rows, &values.mixed, &mut [ways.take(Target::OProj, &d_change)], &mut d_mixed);
        drop(d_change);
        let mut d = attend_backward([&values.q, &values.k, &values.v], &values.mixed, &d_mixed);
        pass.rope.rotate_back(&mut d.q);
        pass.rope.rotate_back(&mut d.k);
        let [q_norm, k_norm] = self.head_norms.as_ref().map_or([None, None], |norms| norms.each_ref().map(Some));
        let (d_q, d_k) = (through(q_norm, &values.raw_q, &d.q), through(k_norm, &values.raw_k, &d.k));
        let mut layers =
            [ways.take(Target::QProj, &d_q), ways.take(Target::KProj, &d_k), ways.take(Target::VProj, &d.v)];
        let mut d_normed = Buffer::any(rows * config.hidden_size);
        linear::backward(rows, &values.normed, &mut layers, &mut d_normed);
        if self.mlp_norm.is_none() {
            // The MLP read the same.
            add_rows(&mut d_normed, &d_read);
        }
        self.attention_norm.backward(x, &d_normed, d_x);
    }

    fn ways_back<'a>(&'a self, pass: Pass<'a>, lows: &'a [Vec<f32>; 7], grads: &'a mut Grads) -> WaysBack<'a> {
        let mut slots: [[&'a mut [f32]; 3]; 7] = Default::default();
        if let Some(adapter) = pass.adapter {
            for (target, slot) in grads.of_block(adapter, pass.layer) {
                slots[target as usize] = slot;
            }
        }
        WaysBack { block: self, pass, lows, slots }
    }
}

/// The gradient by what a norm was given, `raw`, of what it gave; without a norm the same.
fn through<'a>(norm: Option<&Norm>, raw: &[f32], d_out: &'a [f32]) -> Cow<'a, [f32]> {
    norm.map_or(Cow::Borrowed(d_out), |norm| {
        let mut d_raw = vec![0.0; raw.len()];
        norm.backward(raw, d_out, &mut d_raw);
        Cow::Owned(d_raw)
    })
}

/// Makes of the MLP's gate and up their gradients.
fn curve_backward(pass: Pass<'_>, d_inner: &[f32], gate: &mut [f32], up: &mut [f32]) {
    let curve = pass.config.facts().activation;
    if pass.config.facts().gated() {
        d_inner
            .par_chunks(CURVED)
            .zip(gate.par_chunks_mut(CURVED).zip(up.par_chunks_mut(CURVED)))
            .for_each(|(d_inner, (gate, up))| curve.gate_backward(d_inner, gate, up));
    } else {
        let parts = d_inner.par_chunks(CURVED).zip(up.par_chunks_mut(CURVED));
        parts.for_each(|(d_inner, up)| curve.apply_backward(d_inner, up));
    }
}

/// The layers' parts in a backward pass, each taken once.
struct WaysBack<'a> {
    block: &'a Block,
    pass: Pass<'a>,
    lows: &'a [Vec<f32>; 7],
    slots: [[&'a mut [f32]; 3]; 7],
}

impl<'a> WaysBack<'a> {
    fn take<'b>(&mut self, target: Target, d_out: &'b [f32]) -> Backward<'b>
    where
        'a: 'b,
    {
        let at = target as usize;
        let linear = self.block.linear(target);
        Backward {
            linear,
            adapted: self.pass.adapted(target, linear),
            d_out,
            low: &self.lows[at],
            grads: std::mem::take(&mut self.slots[at]),
        }
    }
}

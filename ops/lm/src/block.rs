//! One decoder block: forward, and an explicit backward that gives gradients to adapters and activations only.
//!
//! `x' = x + o(attention(rope(q), rope(k), v))` with `q, k, v` of `norm(x)`; `x'' = x' + down(silu(gate) · up)` with
//! `gate, up` of `norm(x')`. One forward serves decoding and training: they differ in the attention handed in, and in
//! whether the intermediate values are read afterwards.

use rayon::prelude::*;

use crate::config::Config;
use crate::dropout::Dropout;
use crate::kernels::{Buffer, add_assign, rms_norm, rms_norm_backward, silu_backward, silu_multiply};
use crate::linear::{self, Adapted, Backward, Forward, Linear};
use crate::lora::{Adapter, Grads, Target};
use crate::rope::Rope;

/// Rows that one task of an element-wise loop takes.
const ROWS: usize = 16;

/// The weights of a decoder block. Layers are in [`Target::ALL`]'s order.
#[derive(Debug)]
pub struct Block {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) mlp_norm: Vec<f32>,
    pub(crate) linears: [Linear; 7],
}

/// What a pass through a block needs besides its weights.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a Config,
    pub(crate) layer: usize,
    pub(crate) rope: &'a Rope,
    pub(crate) adapter: Option<&'a Adapter>,
    /// Rate and seed.
    pub(crate) dropout: Option<(f32, u64)>,
}

impl<'a> Pass<'a> {
    fn adapted(&self, target: Target) -> Option<Adapted<'a>> {
        let adapter = self.adapter?;
        let pair = adapter.pair(self.layer, target)?;
        let place = (self.layer * Target::ALL.len() + target as usize) as u64;
        let dropout = self.dropout.map_or(Dropout::NONE, |(rate, seed)| Dropout::new(rate, seed, place));
        Some(Adapted { pair, scaling: adapter.config().scaling(), dropout })
    }
}

/// The intermediate values of a block, `(rows, …)` each; reused from block to block.
pub(crate) struct Values {
    rows: usize,
    normed: Buffer<f32>,
    pub(crate) q: Buffer<f32>,
    pub(crate) k: Buffer<f32>,
    pub(crate) v: Buffer<f32>,
    mixed: Buffer<f32>,
    /// The residual stream between attention and MLP.
    middle: Buffer<f32>,
    middle_normed: Buffer<f32>,
    gate: Buffer<f32>,
    up: Buffer<f32>,
    inner: Buffer<f32>,
    change: Buffer<f32>,
    /// `s · A·x` of each layer, in [`Target::ALL`]'s order; empty without an adapter.
    lows: [Vec<f32>; 7],
}

impl Values {
    pub(crate) fn new(config: &Config, rows: usize) -> Self {
        let zeroed = |width: usize| Buffer::zeroed(rows * width);
        Self {
            rows,
            normed: zeroed(config.hidden_size),
            q: zeroed(config.query_width()),
            k: zeroed(config.key_value_width()),
            v: zeroed(config.key_value_width()),
            mixed: zeroed(config.query_width()),
            middle: zeroed(config.hidden_size),
            middle_normed: zeroed(config.hidden_size),
            gate: zeroed(config.intermediate_size),
            up: zeroed(config.intermediate_size),
            inner: zeroed(config.intermediate_size),
            change: zeroed(config.hidden_size),
            lows: Default::default(),
        }
    }

    /// What the way back through the block needs and is dear to compute again; `x` is what the block was given.
    pub(crate) fn keep(&self, x: Buffer<f32>) -> Kept {
        Kept {
            x,
            q: self.q.clone(),
            k: self.k.clone(),
            v: self.v.clone(),
            mixed: self.mixed.clone(),
            middle: self.middle.clone(),
            lows: self.lows.clone(),
        }
    }
}

/// A block's input and what of its intermediate values is kept for the way back: 5 to 6 times the width of the
/// residual stream a token. The MLP's inner values, three times as wide as all that, are computed again.
pub(crate) struct Kept {
    x: Buffer<f32>,
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    mixed: Buffer<f32>,
    middle: Buffer<f32>,
    lows: [Vec<f32>; 7],
}

impl Block {
    /// Takes `x (rows, hidden)` through the block, in place. `attend(q, k, v, out)` is given rotated queries and keys.
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        values: &mut Values,
        x: &mut [f32],
        attend: impl FnOnce(&[f32], &[f32], &[f32], &mut [f32]),
    ) {
        let rows = values.rows;
        let Values { normed, q, k, v, mixed, middle, change, lows: [low_q, low_k, low_v, low_o, ..], .. } = values;

        norm_rows(x, &self.attention_norm, pass.config, normed);
        let mut layers = [
            self.part(pass, Target::QProj, q, low_q),
            self.part(pass, Target::KProj, k, low_k),
            self.part(pass, Target::VProj, v, low_v),
        ];
        linear::forward(rows, normed, &mut layers);
        pass.rope.rotate(q);
        pass.rope.rotate(k);
        attend(q, k, v, mixed);
        linear::forward(rows, mixed, &mut [self.part(pass, Target::OProj, change, low_o)]);
        add_assign(x, change);
        middle.copy_from_slice(x);

        self.forward_inner(pass, values);
        let Values { inner, change, lows: [.., low_down], .. } = values;
        linear::forward(rows, inner, &mut [self.part(pass, Target::DownProj, change, low_down)]);
        add_assign(x, change);
    }

    /// From the residual stream in the middle of the block to the inner values of the MLP.
    fn forward_inner(&self, pass: Pass<'_>, values: &mut Values) {
        let Values { rows, middle, middle_normed, gate, up, inner, lows: [.., low_gate, low_up, _], .. } = values;
        norm_rows(middle, &self.mlp_norm, pass.config, middle_normed);
        let mut layers =
            [self.part(pass, Target::GateProj, gate, low_gate), self.part(pass, Target::UpProj, up, low_up)];
        linear::forward(*rows, middle_normed, &mut layers);
        let width = ROWS * pass.config.intermediate_size;
        inner
            .par_chunks_mut(width)
            .zip(gate.par_chunks(width).zip(up.par_chunks(width)))
            .for_each(|(inner, (gate, up))| silu_multiply(gate, up, inner));
    }

    /// Brings back what [`Block::forward`] left in `values`, bit for bit: moves what was kept, and computes the rest.
    /// Gives the block's input.
    pub(crate) fn forward_again(&self, pass: Pass<'_>, kept: Kept, values: &mut Values) -> Buffer<f32> {
        let Kept { x, q, k, v, mixed, middle, lows } = kept;
        norm_rows(&x, &self.attention_norm, pass.config, &mut values.normed);
        (values.q, values.k, values.v, values.mixed, values.middle) = (q, k, v, mixed, middle);
        values.lows = lows;
        self.forward_inner(pass, values);
        x
    }

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
        attend_backward: impl FnOnce([&[f32]; 3], &[f32], &[f32]) -> crate::attention::SegmentGrads,
    ) {
        let mut ways = self.ways_back(pass, &values.lows, grads);
        let rows = values.rows;
        let config = pass.config;

        // The MLP: x'' = x' + down(inner).
        let mut d_inner = Buffer::zeroed(rows * config.intermediate_size);
        linear::backward(rows, &values.inner, &mut [ways.take(Target::DownProj, d_x)], &mut d_inner);
        let width = ROWS * config.intermediate_size;
        d_inner
            .par_chunks(width)
            .zip(values.gate.par_chunks_mut(width).zip(values.up.par_chunks_mut(width)))
            .for_each(|(d_inner, (gate, up))| silu_backward(d_inner, gate, up));
        drop(d_inner);
        let mut layers = [ways.take(Target::GateProj, &values.gate), ways.take(Target::UpProj, &values.up)];
        let mut d_normed = Buffer::zeroed(rows * config.hidden_size);
        linear::backward(rows, &values.middle_normed, &mut layers, &mut d_normed);
        norm_rows_backward(&values.middle, &self.mlp_norm, config, &d_normed, d_x);

        // Attention: x' = x + o(mixed).
        let mut d_mixed = Buffer::zeroed(rows * config.query_width());
        linear::backward(rows, &values.mixed, &mut [ways.take(Target::OProj, d_x)], &mut d_mixed);
        let mut d = attend_backward([&values.q, &values.k, &values.v], &values.mixed, &d_mixed);
        pass.rope.rotate_back(&mut d.q);
        pass.rope.rotate_back(&mut d.k);
        let mut layers =
            [ways.take(Target::QProj, &d.q), ways.take(Target::KProj, &d.k), ways.take(Target::VProj, &d.v)];
        linear::backward(rows, &values.normed, &mut layers, &mut d_normed);
        norm_rows_backward(x, &self.attention_norm, config, &d_normed, d_x);
    }

    fn part<'a>(&'a self, pass: Pass<'a>, target: Target, out: &'a mut [f32], low: &'a mut Vec<f32>) -> Forward<'a> {
        Forward { linear: &self.linears[target as usize], adapted: pass.adapted(target), out, low }
    }

    fn ways_back<'a>(&'a self, pass: Pass<'a>, lows: &'a [Vec<f32>; 7], grads: &'a mut Grads) -> WaysBack<'a> {
        let mut slots: [[&'a mut [f32]; 2]; 7] = Default::default();
        if let Some(adapter) = pass.adapter {
            let mut rest = grads.tensors.as_mut_slice();
            let mut passed = 0;
            for target in Target::ALL {
                let Some(at) = adapter.index(pass.layer, target) else { continue };
                let (pair, after) = std::mem::take(&mut rest)[at - passed..].split_at_mut(2);
                let [a, b] = pair else { unreachable!("a pair has two tensors") };
                slots[target as usize] = [a, b];
                (rest, passed) = (after, at + 2);
            }
        }
        WaysBack { block: self, pass, lows, slots }
    }
}

/// The layers' parts in a backward pass, each taken once.
struct WaysBack<'a> {
    block: &'a Block,
    pass: Pass<'a>,
    lows: &'a [Vec<f32>; 7],
    slots: [[&'a mut [f32]; 2]; 7],
}

impl<'a> WaysBack<'a> {
    fn take<'b>(&mut self, target: Target, d_out: &'b [f32]) -> Backward<'b>
    where
        'a: 'b,
    {
        let at = target as usize;
        Backward {
            linear: &self.block.linears[at],
            adapted: self.pass.adapted(target),
            d_out,
            low: &self.lows[at],
            grads: std::mem::take(&mut self.slots[at]),
        }
    }
}

/// Norms each row of `x (rows, hidden)`.
pub(crate) fn norm_rows(x: &[f32], weight: &[f32], config: &Config, out: &mut [f32]) {
    let width = config.hidden_size;
    out.par_chunks_exact_mut(width)
        .zip(x.par_chunks_exact(width))
        .with_min_len(ROWS)
        .for_each(|(out, x)| rms_norm(x, weight, config.rms_norm_eps, out));
}

/// Adds to `d_x` the gradient by `x` of [`norm_rows`].
pub(crate) fn norm_rows_backward(x: &[f32], weight: &[f32], config: &Config, d_out: &[f32], d_x: &mut [f32]) {
    let width = config.hidden_size;
    d_x.par_chunks_exact_mut(width)
        .zip(x.par_chunks_exact(width).zip(d_out.par_chunks_exact(width)))
        .with_min_len(ROWS)
        .for_each(|(d_x, (x, d_out))| rms_norm_backward(x, weight, config.rms_norm_eps, d_out, d_x));
}

//! One decoder block: forward, and (in `backward`) an explicit backward that gives gradients to adapters and
//! activations only.
//!
//! `x' = x + o(attention(rope(q), rope(k), v))` with `q, k, v` of `norm(x)`; `x'' = x' + down(f(gate) · up)` with
//! `gate, up` of `norm(x')`. Families of decoders differ in what [`Facts`](crate::config) lists: an optional norm is
//! a `None` here and skipped; without a norm before the MLP, the MLP reads what attention reads, and both are added to
//! `x`. One forward serves decoding and training: they differ in the attention handed in, and in whether the
//! intermediate values are read afterwards.

mod backward;
mod values;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::config::Config;
use crate::dropout::Dropout;
use crate::kernels::{Buffer, Precision, add_assign};
use crate::linear::{self, Adapted, Forward, Linear};
use crate::lora::{Adapter, Target};
use crate::norm::Norm;
use crate::rope::Rope;

pub(crate) use values::{Kept, Values};

/// Values that one task adds or copies.
const TASK: usize = 1 << 15;

/// Values of which one task takes the activation, which costs more.
const CURVED: usize = 1 << 13;

/// Values that are rounded to half floats at a time.
const HALVED: usize = 256;

/// The weights of a decoder block.
#[derive(Debug)]
pub struct Block {
    pub(crate) attention_norm: Norm,
    /// On each head of the queries, and of the keys.
    pub(crate) head_norms: Option<[Norm; 2]>,
    pub(crate) post_attention_norm: Option<Norm>,
    /// None where the MLP stands beside attention.
    pub(crate) mlp_norm: Option<Norm>,
    pub(crate) post_mlp_norm: Option<Norm>,
    /// In [`Target::ALL`]'s order; the gate may be missing.
    pub(crate) linears: [Option<Linear>; 7],
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
    /// The adapter on `linear`, which is the target's layer.
    fn adapted(&self, target: Target, linear: &Linear) -> Option<Adapted<'a>> {
        let adapter = self.adapter?;
        let pair = adapter.pair(self.layer, target, linear)?;
        let place = (self.layer * Target::ALL.len() + target as usize) as u64;
        let dropout = self.dropout.map_or(Dropout::NONE, |(rate, seed)| Dropout::new(rate, seed, place));
        Some(Adapted { pair, dropout })
    }
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
        let Values { normed, q, k, v, mixed, change, lows: [low_q, low_k, low_v, low_o, ..], .. } = values;

        self.attention_norm.forward(x, normed);
        let mut layers = [
            self.part(pass, Target::QProj, q, low_q),
            self.part(pass, Target::KProj, k, low_k),
            self.part(pass, Target::VProj, v, low_v),
        ];
        linear::forward(rows, normed, &mut layers);
        if let Some([q_norm, k_norm]) = &self.head_norms {
            renorm(q_norm, &mut values.raw_q, q);
            renorm(k_norm, &mut values.raw_k, k);
        }
        pass.rope.rotate(q);
        pass.rope.rotate(k);
        if self.halves_keys() {
            to_halves(k);
            to_halves(v);
        }
        attend(q, k, v, mixed);
        linear::forward(rows, mixed, &mut [self.part(pass, Target::OProj, change, low_o)]);
        if let Some(norm) = &self.post_attention_norm {
            renorm(norm, &mut values.raw_attention, change);
        }
        add_rows(x, change);
        if self.mlp_norm.is_some() {
            copy_rows(&mut values.middle, x);
        }

        self.norm_middle(values);
        self.widen(pass, values);
        curve(pass, values);
        let Values { inner, change, lows: [.., low_down], .. } = values;
        linear::forward(rows, inner, &mut [self.part(pass, Target::DownProj, change, low_down)]);
        if let Some(norm) = &self.post_mlp_norm {
            renorm(norm, &mut values.raw_mlp, change);
        }
        add_rows(x, change);
    }

    /// From what stands before the MLP to what its first layers read.
    fn norm_middle(&self, values: &mut Values) {
        if let Some(norm) = &self.mlp_norm {
            norm.forward(&values.middle, &mut values.middle_normed);
        }
    }

    /// The MLP's first layers.
    fn widen(&self, pass: Pass<'_>, values: &mut Values) {
        let Values { rows, normed, middle_normed, gate, up, lows: [.., low_gate, low_up, _], .. } = values;
        let input = if self.mlp_norm.is_some() { middle_normed } else { normed };
        let mut layers = Vec::with_capacity(2);
        if pass.config.facts().gated() {
            layers.push(self.part(pass, Target::GateProj, gate, low_gate));
        }
        layers.push(self.part(pass, Target::UpProj, up, low_up));
        linear::forward(*rows, input, &mut layers);
    }

    /// Whether the MLP's inner values are kept for the way back, and not computed again: unless weights are held so as to
    /// take the least memory.
    pub(crate) fn keeps_inner(&self) -> bool {
        !self.linear(Target::UpProj).is_lean()
    }

    /// Whether keys and values are rounded to half floats: where the layer that gives them rounds its inputs to eight bits.
    pub(crate) fn halves_keys(&self) -> bool {
        self.linear(Target::KProj).precision() == Precision::Int8
    }

    fn linear(&self, target: Target) -> &Linear {
        self.linears[target as usize].as_ref().expect("a pass asks for the layers that its family has")
    }

    fn part<'a>(&'a self, pass: Pass<'a>, target: Target, out: &'a mut [f32], low: &'a mut Vec<f32>) -> Forward<'a> {
        let linear = self.linear(target);
        Forward { linear, adapted: pass.adapted(target, linear), out, low }
    }
}

/// From what the MLP's first layers give to its inner values.
fn curve(pass: Pass<'_>, values: &mut Values) {
    let Values { gate, up, inner, .. } = values;
    let curve = pass.config.facts().activation;
    if pass.config.facts().gated() {
        inner
            .par_chunks_mut(CURVED)
            .zip(gate.par_chunks(CURVED).zip(up.par_chunks(CURVED)))
            .for_each(|(inner, (gate, up))| curve.gate(gate, up, inner));
    } else {
        inner.par_chunks_mut(CURVED).zip(up.par_chunks(CURVED)).for_each(|(inner, up)| curve.apply(up, inner));
    }
}

/// `to += from`, on all threads.
fn add_rows(to: &mut [f32], from: &[f32]) {
    to.par_chunks_mut(TASK).zip(from.par_chunks(TASK)).for_each(|(to, from)| add_assign(to, from));
}

/// `to = from`, on all threads.
fn copy_rows(to: &mut [f32], from: &[f32]) {
    to.par_chunks_mut(TASK).zip(from.par_chunks(TASK)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// Rounds to half floats, the largest to the largest there is.
fn to_halves(values: &mut [f32]) {
    let most = f16::MAX.to_f32();
    values.par_chunks_mut(TASK).for_each(|values| {
        let mut halves = [f16::ZERO; HALVED];
        for some in values.chunks_mut(HALVED) {
            some.iter_mut().for_each(|value| *value = value.clamp(-most, most));
            let halves = &mut halves[..some.len()];
            halves.convert_from_f32_slice(some);
            halves.convert_to_f32_slice(some);
        }
    });
}

/// Norms `values`, and keeps in `raw` what they were.
fn renorm(norm: &Norm, raw: &mut Buffer<f32>, values: &mut [f32]) {
    copy_rows(raw, values);
    norm.forward(raw, values);
}

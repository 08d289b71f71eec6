//! The intermediate values of a block, and what of them is kept for the way back.

use super::{Block, Pass, curve};
use crate::config::Config;
use crate::kernels::Buffer;

/// The intermediate values of a block, `(rows, …)` each; reused from block to block. Those that a family has no use
/// for are empty.
pub(crate) struct Values {
    pub(super) rows: usize,
    pub(super) normed: Buffer<f32>,
    /// Queries and keys before the norms of heads.
    pub(super) raw_q: Buffer<f32>,
    pub(super) raw_k: Buffer<f32>,
    pub(crate) q: Buffer<f32>,
    pub(crate) k: Buffer<f32>,
    pub(crate) v: Buffer<f32>,
    pub(super) mixed: Buffer<f32>,
    /// What attention gave, before the norm on it.
    pub(super) raw_attention: Buffer<f32>,
    /// The residual stream between attention and MLP.
    pub(super) middle: Buffer<f32>,
    pub(super) middle_normed: Buffer<f32>,
    pub(super) gate: Buffer<f32>,
    pub(super) up: Buffer<f32>,
    pub(super) inner: Buffer<f32>,
    /// What the MLP gave, before the norm on it.
    pub(super) raw_mlp: Buffer<f32>,
    pub(super) change: Buffer<f32>,
    /// `s · A·x` of each layer, in [`Target::ALL`](crate::lora::Target::ALL)'s order; empty without an adapter.
    pub(super) lows: [Vec<f32>; 7],
}

impl Values {
    pub(crate) fn new(config: &Config, rows: usize) -> Self {
        let facts = config.facts();
        let zeroed = |width: usize| Buffer::zeroed(rows * width);
        let where_there = |there: bool, width: usize| zeroed(if there { width } else { 0 });
        let (hidden, heads) = (config.hidden_size, facts.head_norms.is_some());
        Self {
            rows,
            normed: zeroed(hidden),
            raw_q: where_there(heads, config.query_width()),
            raw_k: where_there(heads, config.key_value_width()),
            q: zeroed(config.query_width()),
            k: zeroed(config.key_value_width()),
            v: zeroed(config.key_value_width()),
            mixed: zeroed(config.query_width()),
            raw_attention: where_there(facts.post_attention_norm.is_some(), hidden),
            middle: where_there(facts.mlp_norm.is_some(), hidden),
            middle_normed: where_there(facts.mlp_norm.is_some(), hidden),
            gate: where_there(facts.gated(), config.intermediate_size),
            up: zeroed(config.intermediate_size),
            inner: zeroed(config.intermediate_size),
            raw_mlp: where_there(facts.post_mlp_norm.is_some(), hidden),
            change: zeroed(hidden),
            lows: Default::default(),
        }
    }

    /// Takes out what the way back through the block needs and is dear to compute again; `x` is what the block was
    /// given. The MLP's inner values are kept too if `inner` says so: they are as much as all the rest, or more.
    pub(crate) fn keep(&mut self, x: Buffer<f32>, inner: bool) -> Kept {
        let take = |values: &mut Buffer<f32>| {
            let next = Buffer::any(values.len());
            std::mem::replace(values, next)
        };
        Kept {
            x,
            raw_q: take(&mut self.raw_q),
            raw_k: take(&mut self.raw_k),
            q: take(&mut self.q),
            k: take(&mut self.k),
            v: take(&mut self.v),
            mixed: take(&mut self.mixed),
            raw_attention: take(&mut self.raw_attention),
            middle: take(&mut self.middle),
            inner: inner.then(|| [take(&mut self.gate), take(&mut self.up)]),
            raw_mlp: take(&mut self.raw_mlp),
            lows: std::mem::take(&mut self.lows),
        }
    }
}

/// A block's input and what of its intermediate values is kept for the way back: 5 to 6 times the width of the
/// residual stream a token (9 to 10 with norms on heads, attention and MLP), and with the MLP's inner values, where they are not computed again, 4 to
/// 6 times more.
pub(crate) struct Kept {
    x: Buffer<f32>,
    raw_q: Buffer<f32>,
    raw_k: Buffer<f32>,
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    mixed: Buffer<f32>,
    raw_attention: Buffer<f32>,
    middle: Buffer<f32>,
    /// Gate and up.
    inner: Option<[Buffer<f32>; 2]>,
    raw_mlp: Buffer<f32>,
    lows: [Vec<f32>; 7],
}

impl Block {
    /// Brings back what [`Block::forward`] left in `values`, bit for bit: moves what was kept, and computes the rest.
    /// Gives the block's input.
    pub(crate) fn forward_again(&self, pass: Pass<'_>, kept: Kept, values: &mut Values) -> Buffer<f32> {
        let Kept { x, raw_q, raw_k, q, k, v, mixed, raw_attention, middle, inner, raw_mlp, lows } = kept;
        self.attention_norm.forward(&x, &mut values.normed);
        (values.raw_q, values.raw_k) = (raw_q, raw_k);
        (values.q, values.k, values.v, values.mixed) = (q, k, v, mixed);
        (values.raw_attention, values.middle, values.raw_mlp) = (raw_attention, middle, raw_mlp);
        values.lows = lows;
        self.norm_middle(values);
        match inner {
            Some([gate, up]) => (values.gate, values.up) = (gate, up),
            None => self.widen(pass, values),
        }
        curve(pass, values);
        x
    }
}

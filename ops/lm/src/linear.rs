//! A frozen weight, packed once, with an optional adapter.
//!
//! Layers that read the same input are computed together (`forward`, `backward`), so that one round of threads
//! serves them all.

use std::sync::OnceLock;

use rayon::prelude::*;

use crate::dropout::Dropout;
use crate::kernels::{Buffer, Left, Packed, Product, Right, Start, gemm, multiply};
use crate::lazy::get_or_make;
use crate::lora::PackedPair;

/// A frozen linear layer.
#[derive(Debug)]
pub struct Linear {
    weight: Packed,
    bias: Option<Vec<f32>>,
    /// The same, transposed, made when a gradient is first asked for.
    back: OnceLock<Packed>,
}

impl Linear {
    /// Of packed weights `(outputs, inputs)`, and a bias if the layer has one.
    ///
    /// # Panics
    ///
    /// If the bias does not have a value for each output.
    pub fn new(weight: Packed, bias: Option<Vec<f32>>) -> Self {
        assert!(bias.as_ref().is_none_or(|bias| bias.len() == weight.n()), "a bias of {} values", weight.n());
        Self { weight, bias, back: OnceLock::new() }
    }

    /// The weights.
    pub fn weight(&self) -> &Packed {
        &self.weight
    }

    /// What is added to the outputs.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Puts into `out (rows, outputs)` what a product goes on from: the bias, if there is one.
    pub(crate) fn begin(&self, out: &mut [f32]) -> Start {
        let Some(bias) = &self.bias else { return Start::Zero };
        out.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
        Start::Out
    }

    /// The weights with inputs and outputs exchanged, which carry gradients back.
    pub fn back(&self) -> &Packed {
        get_or_make(&self.back, || self.weight.transposed())
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.weight.bytes() + self.back.get().map_or(0, Packed::bytes)
    }
}

/// An adapter on a layer, as a pass sees it.
#[derive(Clone, Copy)]
pub(crate) struct Adapted<'a> {
    pub(crate) pair: &'a PackedPair,
    pub(crate) scaling: f32,
    /// What of the input `A` does not see, in training.
    pub(crate) dropout: Dropout,
}

/// A layer's part in a forward pass.
pub(crate) struct Forward<'a> {
    pub(crate) linear: &'a Linear,
    pub(crate) adapted: Option<Adapted<'a>>,
    /// `(rows, outputs)`, overwritten.
    pub(crate) out: &'a mut [f32],
    /// `s · A·x`, `(rows, rank)`: kept for the backward pass.
    pub(crate) low: &'a mut Vec<f32>,
}

/// `out = W·x + b + B·(s·A·dropout(x))` for layers that share the input `x (rows, inputs)`.
pub(crate) fn forward(rows: usize, x: &[f32], layers: &mut [Forward<'_>]) {
    let mut bases = Vec::new();
    for layer in layers.iter_mut() {
        let start = layer.linear.begin(layer.out);
        bases.push(Product { x, weight: &layer.linear.weight, out: layer.out, start });
    }
    multiply(rows, &mut bases);
    drop(bases);

    let dropped: Vec<Option<Buffer<f32>>> =
        layers.iter().map(|layer| layer.adapted.and_then(|adapted| adapted.dropout.apply(x))).collect();
    let mut downs = Vec::new();
    for (layer, dropped) in layers.iter_mut().zip(&dropped) {
        if let Some(adapted) = layer.adapted {
            layer.low.resize(rows * adapted.pair.rank(), 0.0);
            let x = dropped.as_deref().unwrap_or(x);
            downs.push(Product { x, weight: &adapted.pair.down, out: layer.low, start: Start::Zero });
        }
    }
    if downs.is_empty() {
        return;
    }
    multiply(rows, &mut downs);
    drop(downs);

    let mut ups = Vec::new();
    for layer in layers.iter_mut() {
        if let Some(adapted) = layer.adapted {
            layer.low.iter_mut().for_each(|v| *v *= adapted.scaling);
            ups.push(Product { x: layer.low, weight: &adapted.pair.up, out: layer.out, start: Start::Out });
        }
    }
    multiply(rows, &mut ups);
}

/// A layer's part in a backward pass.
pub(crate) struct Backward<'a> {
    pub(crate) linear: &'a Linear,
    pub(crate) adapted: Option<Adapted<'a>>,
    /// `(rows, outputs)`: the gradient of the layer's output.
    pub(crate) d_out: &'a [f32],
    /// What [`forward`] kept.
    pub(crate) low: &'a [f32],
    /// Where the gradients of `A` and `B` go (overwritten); empty slices without an adapter.
    pub(crate) grads: [&'a mut [f32]; 2],
}

/// Gives the gradient of the shared input `x` in `d_x (rows, inputs)`, overwritten, and those of the adapters.
pub(crate) fn backward(rows: usize, x: &[f32], layers: &mut [Backward<'_>], d_x: &mut [f32]) {
    for (at, layer) in layers.iter().enumerate() {
        let start = if at == 0 { Start::Zero } else { Start::Out };
        multiply(rows, &mut [Product { x: layer.d_out, weight: layer.linear.back(), out: d_x, start }]);
    }
    for layer in layers {
        let Some(adapted) = layer.adapted else { continue };
        let mut d_low = vec![0.0; rows * adapted.pair.rank()];
        let weight = adapted.pair.up_back();
        multiply(rows, &mut [Product { x: layer.d_out, weight, out: &mut d_low, start: Start::Zero }]);
        for value in &mut d_low {
            *value *= adapted.scaling;
        }

        let weight = adapted.pair.down_back();
        let dropped = adapted.dropout.apply(x);
        if dropped.is_some() {
            let mut d_dropped = Buffer::zeroed(d_x.len());
            multiply(rows, &mut [Product { x: &d_low, weight, out: &mut d_dropped, start: Start::Zero }]);
            adapted.dropout.add_masked(&d_dropped, d_x);
        } else {
            multiply(rows, &mut [Product { x: &d_low, weight, out: d_x, start: Start::Out }]);
        }
        pair_gradients(rows, adapted.pair.rank(), dropped.as_deref().unwrap_or(x), &d_low, layer);
    }
}

/// `d_A = d_lowᵀ · x` and `d_B = d_outᵀ · low`, sums over the rows in order.
fn pair_gradients(rows: usize, rank: usize, x: &[f32], d_low: &[f32], layer: &mut Backward<'_>) {
    let (inputs, outputs) = (layer.linear.weight.k(), layer.linear.weight.n());
    let [d_a, d_b] = &mut layer.grads;
    let mut d_b_turned = vec![0.0; rank * outputs];
    let (d_out, low) = (layer.d_out, layer.low);
    rayon::join(
        || sum_over_rows(rows, rank, d_low, inputs, x, d_a),
        || sum_over_rows(rows, rank, low, outputs, d_out, &mut d_b_turned),
    );
    d_b.par_chunks_exact_mut(rank).enumerate().with_min_len(64).for_each(|(output, row)| {
        for (r, value) in row.iter_mut().enumerate() {
            *value = d_b_turned[r * outputs + output];
        }
    });
}

/// `out (rank, width) = lowᵀ · wide` for `low (rows, rank)` and `wide (rows, width)`.
fn sum_over_rows(rows: usize, rank: usize, low: &[f32], width: usize, wide: &[f32], out: &mut [f32]) {
    let left = Left { data: low, row: 1, step: rank };
    gemm((rank, width, rows), left, Right { data: wide, step: width }, out, width, Start::Zero);
}

//! A frozen weight, packed once, with an optional adapter.
//!
//! Layers that read the same input are computed together (`forward`, `backward`), so that one round of threads
//! serves them all.

use std::sync::OnceLock;

use rayon::prelude::*;

use crate::dropout::Dropout;
use crate::kernels::{Buffer, Left, Packed, Product, Right, Start, Sum, add_assign, gemm, multiply, multiply_sums};
use crate::lazy::get_or_make;
use crate::lora::{Factors, PackedPair};

/// A frozen linear layer.
#[derive(Debug)]
pub struct Linear {
    weight: Packed,
    bias: Option<Vec<f32>>,
    /// The same, transposed, made when a gradient is first asked for.
    back: OnceLock<Packed>,
    /// The squared length of each output's weights, for DoRA.
    squares: OnceLock<Vec<f64>>,
}

impl Linear {
    /// Of packed weights `(outputs, inputs)`, and a bias if the layer has one.
    ///
    /// # Panics
    ///
    /// If the bias does not have a value for each output.
    pub fn new(weight: Packed, bias: Option<Vec<f32>>) -> Self {
        assert!(bias.as_ref().is_none_or(|bias| bias.len() == weight.n()), "a bias of {} values", weight.n());
        Self { weight, bias, back: OnceLock::new(), squares: OnceLock::new() }
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

    /// Adds the bias, if there is one, to each row of `out (rows, outputs)`.
    fn add_bias(&self, out: &mut [f32]) {
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(bias.len()).for_each(|row| add_assign(row, bias));
        }
    }

    /// The weights with inputs and outputs exchanged, which carry gradients back.
    pub fn back(&self) -> &Packed {
        get_or_make(&self.back, || self.weight.transposed())
    }

    /// The squared length of each output's weights.
    pub(crate) fn row_squares(&self) -> &[f64] {
        get_or_make::<Vec<f64>>(&self.squares, || {
            let square = |row: &[f32]| row.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
            self.weight.unpack().par_chunks_exact(self.weight.k()).map(square).collect()
        })
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

/// `out = f ∘ (W·x + B·(s·A·dropout(x))) + b` for layers that share the input `x (rows, inputs)`; `f` is 1 but for DoRA.
pub(crate) fn forward(rows: usize, x: &[f32], layers: &mut [Forward<'_>]) {
    lower(rows, x, layers);
    let mut sums = Vec::with_capacity(layers.len());
    for layer in layers.iter_mut() {
        // What DoRA's factors multiply is without the bias.
        let start = if layer.factors().is_some() { Start::Zero } else { layer.linear.begin(layer.out) };
        let mut terms = vec![(x, &layer.linear.weight)];
        if let Some(adapted) = layer.adapted {
            terms.push((layer.low.as_slice(), &adapted.pair.up));
        }
        sums.push(Sum { terms, out: layer.out, start });
    }
    multiply_sums(rows, &mut sums);
    drop(sums);
    for layer in layers {
        if let Some(factors) = layer.factors() {
            multiply_columns(layer.out, &factors.factors);
            layer.linear.add_bias(layer.out);
        }
    }
}

/// Puts `s·A·dropout(x)` into the layers' `low`.
fn lower(rows: usize, x: &[f32], layers: &mut [Forward<'_>]) {
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
    multiply(rows, &mut downs);
    drop(downs);
    for layer in layers {
        if let Some(adapted) = layer.adapted {
            layer.low.iter_mut().for_each(|v| *v *= adapted.pair.scaling);
        }
    }
}

impl<'a> Forward<'a> {
    fn factors(&self) -> Option<&'a Factors> {
        self.adapted.and_then(|adapted| adapted.pair.factors(self.linear))
    }
}

/// Multiplies each row of `values (rows, factors)` with the factors.
fn multiply_columns(values: &mut [f32], factors: &[f32]) {
    values.par_chunks_exact_mut(factors.len()).with_min_len(16).for_each(|row| {
        row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    });
}

/// A layer's part in a backward pass.
pub(crate) struct Backward<'a> {
    pub(crate) linear: &'a Linear,
    pub(crate) adapted: Option<Adapted<'a>>,
    /// `(rows, outputs)`: the gradient of the layer's output.
    pub(crate) d_out: &'a [f32],
    /// What [`forward`] kept.
    pub(crate) low: &'a [f32],
    /// Where the gradients of `A`, `B` and DoRA's lengths go (overwritten); empty slices where there are none.
    pub(crate) grads: [&'a mut [f32]; 3],
}

/// Gives the gradient of the shared input `x` in `d_x (rows, inputs)`, overwritten, and those of the adapters.
pub(crate) fn backward(rows: usize, x: &[f32], layers: &mut [Backward<'_>], d_x: &mut [f32]) {
    let shrunk: Vec<Option<Buffer<f32>>> = layers.iter_mut().map(|layer| layer.through_factors(rows, x)).collect();
    let d_outs = layers.iter().zip(&shrunk).map(|(layer, shrunk)| shrunk.as_deref().unwrap_or(layer.d_out));
    let d_outs: Vec<&[f32]> = d_outs.collect();
    let d_lows = lower_back(rows, layers, &d_outs);
    let dropped: Vec<Option<Buffer<f32>>> =
        layers.iter().map(|layer| layer.adapted.and_then(|adapted| adapted.dropout.apply(x))).collect();

    let mut terms: Vec<_> = layers.iter().zip(&d_outs).map(|(layer, &d_out)| (d_out, layer.linear.back())).collect();
    for ((layer, d_low), dropped) in layers.iter().zip(&d_lows).zip(&dropped) {
        if let (Some(adapted), None) = (layer.adapted, dropped) {
            terms.push((d_low, adapted.pair.down_back()));
        }
    }
    multiply_sums(rows, &mut [Sum { terms, out: d_x, start: Start::Zero }]);
    for ((layer, d_low), dropped) in layers.iter().zip(&d_lows).zip(&dropped) {
        if let (Some(adapted), Some(_)) = (layer.adapted, dropped) {
            let mut d_dropped = Buffer::zeroed(d_x.len());
            let weight = adapted.pair.down_back();
            multiply(rows, &mut [Product { x: d_low, weight, out: &mut d_dropped, start: Start::Zero }]);
            adapted.dropout.add_masked(&d_dropped, d_x);
        }
    }
    let work = layers.par_iter_mut().zip(d_outs).zip(d_lows.par_iter().zip(&dropped));
    work.for_each(|((layer, d_out), (d_low, dropped))| {
        if let Some(adapted) = layer.adapted {
            pair_gradients(rows, adapted.pair.rank(), dropped.as_deref().unwrap_or(x), d_low, d_out, layer);
        }
    });
}

/// The gradient by what `A` gives of each layer, `(rows, rank)`; empty where there is no adapter.
fn lower_back(rows: usize, layers: &[Backward<'_>], d_outs: &[&[f32]]) -> Vec<Vec<f32>> {
    let size = |layer: &Backward<'_>| layer.adapted.map_or(0, |adapted| rows * adapted.pair.rank());
    let mut d_lows: Vec<Vec<f32>> = layers.iter().map(|layer| vec![0.0; size(layer)]).collect();
    let mut products = Vec::with_capacity(layers.len());
    for ((layer, &x), out) in layers.iter().zip(d_outs).zip(&mut d_lows) {
        if let Some(adapted) = layer.adapted {
            products.push(Product { x, weight: adapted.pair.up_back(), out, start: Start::Zero });
        }
    }
    multiply(rows, &mut products);
    for (layer, d_low) in layers.iter().zip(&mut d_lows) {
        if let Some(adapted) = layer.adapted {
            d_low.iter_mut().for_each(|value| *value *= adapted.pair.scaling);
        }
    }
    d_lows
}

impl Backward<'_> {
    /// With DoRA, the gradient of what the factors multiply, and that of the lengths: `f = m / ‖V‖`, so
    /// `d_m = Σ over rows of d_out ∘ (W·x + B·low) / ‖V‖`. The factors' input is computed again.
    fn through_factors(&mut self, rows: usize, x: &[f32]) -> Option<Buffer<f32>> {
        let pair = self.adapted?.pair;
        let factors = pair.factors(self.linear)?;
        let mut inner = Buffer::zeroed(self.d_out.len());
        let weight = &self.linear.weight;
        let terms = vec![(x, weight), (self.low, &pair.up)];
        multiply_sums(rows, &mut [Sum { terms, out: &mut inner, start: Start::Zero }]);
        let outputs = weight.n();
        let d_lengths = &mut *self.grads[2];
        d_lengths.fill(0.0);
        for (inner, d_out) in inner.chunks_exact(outputs).zip(self.d_out.chunks_exact(outputs)) {
            for ((sum, &value), &d) in d_lengths.iter_mut().zip(inner).zip(d_out) {
                *sum = value.mul_add(d, *sum);
            }
        }
        d_lengths.iter_mut().zip(&factors.norms).for_each(|(sum, norm)| *sum /= norm.max(f32::MIN_POSITIVE));
        inner.copy_from_slice(self.d_out);
        multiply_columns(&mut inner, &factors.factors);
        Some(inner)
    }
}

/// `d_A = d_lowᵀ · x` and `d_B = d_outᵀ · low`, sums over the rows in order.
fn pair_gradients(rows: usize, rank: usize, x: &[f32], d_low: &[f32], d_out: &[f32], layer: &mut Backward<'_>) {
    let (inputs, outputs) = (layer.linear.weight.k(), layer.linear.weight.n());
    let [d_a, d_b, _] = &mut layer.grads;
    let mut d_b_turned = vec![0.0; rank * outputs];
    let low = layer.low;
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

//! A frozen weight, packed once or each time it is used, with an optional adapter.
//!
//! Layers that read the same input are computed together (`forward`, `backward`), so that one round of threads
//! serves them all.

use std::borrow::Cow;
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::dropout::Dropout;
use crate::kernels::{
    Buffer, OverRows, Packed, Precision, Product, Rows, Start, Sum, add_assign, multiply, multiply_sums, sum_over_rows,
};
use crate::lazy::get_or_make;
use crate::lora::{Factors, Pair};
use crate::weights::AsStored;

/// A frozen linear layer.
#[derive(Debug)]
pub struct Linear {
    weight: Frozen,
    bias: Option<Vec<f32>>,
    /// Whether nothing is kept that can be made of the weights.
    lean: bool,
    /// The squared length of each output's weights, for DoRA.
    squares: OnceLock<Vec<f64>>,
}

/// How the weights `(outputs, inputs)` of a layer are held.
#[derive(Debug)]
pub(crate) enum Frozen {
    /// Packed, and the same transposed, made when a gradient is first asked for and then kept, unless the layer is lean.
    Packed(Packed, OnceLock<Packed>),
    /// As the file has them: less memory, and more work each time.
    AsStored(AsStored),
}

impl From<Packed> for Frozen {
    fn from(packed: Packed) -> Self {
        Self::Packed(packed, OnceLock::new())
    }
}

impl Linear {
    /// Of weights `(outputs, inputs)`; if it is lean, what carries gradients back is made each time, and packed forms of an adapter on it too.
    pub(crate) fn new(weight: impl Into<Frozen>, lean: bool) -> Self {
        Self { weight: weight.into(), bias: None, lean, squares: OnceLock::new() }
    }

    /// The same with a bias.
    ///
    /// # Panics
    ///
    /// If it does not have a value for each output.
    pub(crate) fn with_bias(self, bias: Vec<f32>) -> Self {
        assert!(bias.len() == self.n(), "a bias of {} values", bias.len());
        Self { bias: Some(bias), ..self }
    }

    /// Whether it takes the least memory, and more work each time.
    pub(crate) fn is_lean(&self) -> bool {
        self.lean
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        match &self.weight {
            Frozen::Packed(weight, _) => weight.n(),
            Frozen::AsStored(weight) => weight.n(),
        }
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        match &self.weight {
            Frozen::Packed(weight, _) => weight.k(),
            Frozen::AsStored(weight) => weight.k(),
        }
    }

    /// What products with the weights are computed in.
    pub fn precision(&self) -> Precision {
        match &self.weight {
            Frozen::Packed(weight, _) => weight.precision(),
            Frozen::AsStored(weight) => weight.precision(),
        }
    }

    /// The weights.
    pub fn weight(&self) -> Cow<'_, Packed> {
        match &self.weight {
            Frozen::Packed(weight, _) => Cow::Borrowed(weight),
            Frozen::AsStored(weight) => Cow::Owned(weight.packed()),
        }
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
    pub fn back(&self) -> Cow<'_, Packed> {
        match &self.weight {
            Frozen::Packed(weight, _) if self.lean => Cow::Owned(weight.transposed()),
            Frozen::Packed(weight, back) => Cow::Borrowed(get_or_make(back, || weight.transposed())),
            Frozen::AsStored(weight) => Cow::Owned(weight.transposed()),
        }
    }

    /// The squared length of each output's weights.
    pub(crate) fn row_squares(&self) -> &[f64] {
        get_or_make::<Vec<f64>>(&self.squares, || {
            let square = |row: &[f32]| row.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
            self.weight().unpack().par_chunks_exact(self.k()).map(square).collect()
        })
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Frozen::Packed(weight, back) => weight.bytes() + back.get().map_or(0, Packed::bytes),
            Frozen::AsStored(weight) => weight.bytes(),
        }
    }
}

/// An adapter on a layer, as a pass sees it.
pub(crate) struct Adapted<'a> {
    pub(crate) pair: Pair<'a>,
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
    let all = Rows::new(x);
    lower(rows, (x, &all), layers);
    let weights: Vec<_> = layers.iter().map(|layer| layer.linear.weight()).collect();
    let mut parts = Vec::with_capacity(layers.len());
    for (layer, weight) in layers.iter_mut().zip(&weights) {
        // What DoRA's factors multiply is without the bias.
        let start = if layer.factors().is_some() { Start::Zero } else { layer.linear.begin(layer.out) };
        let up = layer.adapted.as_ref().map(|adapted| (Rows::new(layer.low), &adapted.pair.up));
        parts.push((weight.as_ref(), up, &mut *layer.out, start));
    }
    let mut sums = Vec::with_capacity(parts.len());
    for (weight, up, out, start) in &mut parts {
        let mut terms = vec![(&all, *weight)];
        terms.extend(up.as_ref().map(|(low, up)| (low, *up)));
        sums.push(Sum { terms, out, start: *start });
    }
    multiply_sums(rows, &mut sums);
    drop(sums);
    drop(parts);
    for layer in layers {
        let Forward { linear, adapted, out, .. } = layer;
        if let Some(factors) = adapted.as_ref().and_then(|adapted| adapted.pair.factors(linear)) {
            multiply_columns(out, &factors.factors);
            linear.add_bias(out);
        }
    }
}

/// Puts `s·A·dropout(x)` into the layers' `low`.
fn lower(rows: usize, (x, all): (&[f32], &Rows<'_>), layers: &mut [Forward<'_>]) {
    let dropped: Vec<Option<Buffer<f32>>> =
        layers.iter().map(|layer| layer.adapted.as_ref().and_then(|adapted| adapted.dropout.apply(x))).collect();
    let dropped: Vec<Option<Rows<'_>>> = dropped.iter().map(|dropped| dropped.as_deref().map(Rows::new)).collect();
    let mut downs = Vec::new();
    for (layer, dropped) in layers.iter_mut().zip(&dropped) {
        if let Some(adapted) = &layer.adapted {
            layer.low.resize(rows * adapted.pair.rank(), 0.0);
            let x = dropped.as_ref().unwrap_or(all);
            downs.push(Product { x, weight: &adapted.pair.down, out: layer.low, start: Start::Zero });
        }
    }
    multiply(rows, &mut downs);
    drop(downs);
    for layer in layers {
        if let Some(adapted) = &layer.adapted {
            layer.low.iter_mut().for_each(|v| *v *= adapted.pair.scaling);
        }
    }
}

impl Forward<'_> {
    fn factors(&self) -> Option<&Factors> {
        self.adapted.as_ref().and_then(|adapted| adapted.pair.factors(self.linear))
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
    let d_outs: Vec<(&[f32], Rows<'_>)> = d_outs.map(|d_out| (d_out, Rows::new(d_out))).collect();
    let d_lows = lower_back(rows, layers, &d_outs);
    let low_rows: Vec<Rows<'_>> = d_lows.iter().map(|d_low| Rows::new(d_low)).collect();
    let dropped: Vec<Option<Buffer<f32>>> =
        layers.iter().map(|layer| layer.adapted.as_ref().and_then(|adapted| adapted.dropout.apply(x))).collect();

    let backs: Vec<_> = layers.iter().map(|layer| layer.linear.back()).collect();
    let mut terms: Vec<_> = backs.iter().zip(&d_outs).map(|(back, (_, d_out))| (d_out, back.as_ref())).collect();
    for ((layer, d_low), dropped) in layers.iter().zip(&low_rows).zip(&dropped) {
        if let (Some(adapted), None) = (&layer.adapted, dropped) {
            terms.push((d_low, adapted.pair.down_back()));
        }
    }
    multiply_sums(rows, &mut [Sum { terms, out: d_x, start: Start::Zero }]);
    for ((layer, d_low), dropped) in layers.iter().zip(&low_rows).zip(&dropped) {
        if let (Some(adapted), Some(_)) = (&layer.adapted, dropped) {
            let mut d_dropped = Buffer::any(d_x.len());
            let weight = adapted.pair.down_back();
            multiply(rows, &mut [Product { x: d_low, weight, out: &mut d_dropped, start: Start::Zero }]);
            adapted.dropout.add_masked(&d_dropped, d_x);
        }
    }
    drop(low_rows);
    let xs: Vec<&[f32]> = dropped.iter().map(|dropped| dropped.as_deref().unwrap_or(x)).collect();
    pair_gradients(rows, &xs, &d_lows, &d_outs, layers);
}

/// The gradient by what `A` gives of each layer, `(rows, rank)`; empty where there is no adapter.
fn lower_back(rows: usize, layers: &[Backward<'_>], d_outs: &[(&[f32], Rows<'_>)]) -> Vec<Vec<f32>> {
    let size = |layer: &Backward<'_>| layer.adapted.as_ref().map_or(0, |adapted| rows * adapted.pair.rank());
    let mut d_lows: Vec<Vec<f32>> = layers.iter().map(|layer| vec![0.0; size(layer)]).collect();
    let mut products = Vec::with_capacity(layers.len());
    for ((layer, (_, x)), out) in layers.iter().zip(d_outs).zip(&mut d_lows) {
        if let Some(adapted) = &layer.adapted {
            products.push(Product { x, weight: adapted.pair.up_back(), out, start: Start::Zero });
        }
    }
    multiply(rows, &mut products);
    for (layer, d_low) in layers.iter().zip(&mut d_lows) {
        if let Some(adapted) = &layer.adapted {
            d_low.iter_mut().for_each(|value| *value *= adapted.pair.scaling);
        }
    }
    d_lows
}

impl Backward<'_> {
    /// With DoRA, the gradient of what the factors multiply, and that of the lengths: `f = m / ‖V‖`, so
    /// `d_m = Σ over rows of d_out ∘ (W·x + B·low) / ‖V‖`. The factors' input is computed again.
    fn through_factors(&mut self, rows: usize, x: &[f32]) -> Option<Buffer<f32>> {
        let pair = &self.adapted.as_ref()?.pair;
        let factors = pair.factors(self.linear)?;
        let mut inner = Buffer::any(self.d_out.len());
        let weight = self.linear.weight();
        let (x, low) = (Rows::new(x), Rows::new(self.low));
        let terms = vec![(&x, weight.as_ref()), (&low, &pair.up)];
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

/// `d_A = d_lowᵀ · x` and `d_B = d_outᵀ · low` of each layer, sums over the rows in order.
fn pair_gradients(
    rows: usize,
    xs: &[&[f32]],
    d_lows: &[Vec<f32>],
    d_outs: &[(&[f32], Rows<'_>)],
    layers: &mut [Backward<'_>],
) {
    let Some(precision) =
        layers.iter().find_map(|layer| layer.adapted.as_ref().map(|adapted| adapted.pair.precision()))
    else {
        return;
    };
    let turned = |layer: &Backward<'_>| vec![0.0; layer.grads[1].len()];
    let mut d_bs: Vec<Vec<f32>> = layers.iter().map(turned).collect();
    let mut products = Vec::with_capacity(2 * layers.len());
    for (at, (layer, d_b)) in
        layers.iter_mut().zip(&mut d_bs).enumerate().filter(|(_, (layer, _))| layer.adapted.is_some())
    {
        products.push(OverRows { left: &d_lows[at], right: xs[at], out: &mut *layer.grads[0] });
        products.push(OverRows { left: layer.low, right: d_outs[at].0, out: d_b });
    }
    sum_over_rows(rows, precision, &mut products);
    drop(products);
    for (layer, d_b) in layers.iter_mut().zip(d_bs) {
        let Some(adapted) = &layer.adapted else { continue };
        let (rank, outputs) = (adapted.pair.rank(), layer.linear.n());
        layer.grads[1].par_chunks_exact_mut(rank).enumerate().with_min_len(64).for_each(|(output, row)| {
            row.iter_mut().enumerate().for_each(|(r, value)| *value = d_b[r * outputs + output]);
        });
    }
}

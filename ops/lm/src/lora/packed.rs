//! One layer's part of an adapter, packed for products in both directions; and DoRA's factors.
//!
//! With DoRA a layer's weights are `m ∘ V / ‖V‖` with `V = W + s·B·A`, norms taken of each output's row, so what the layer would give
//! is multiplied with `f = m / ‖V‖`. As in the paper (section 4.3) and in PEFT the norms take part in no gradient. They are found without `V`:
//! `‖V_j‖² = ‖W_j‖² + 2s·B_j·(A·W_jᵀ) + s²·B_j·(A·Aᵀ)·B_jᵀ`.

use std::ops::Deref;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::{Adapter, AdapterTensor, Target};
use crate::kernels::{Buffer, Packed, Precision, Product, Rows, Start, multiply};
use crate::lazy::get_or_make;
use crate::linear::Linear;

/// One layer's tensors.
pub(crate) struct Parts<'a> {
    pub(crate) a: &'a AdapterTensor,
    pub(crate) b: &'a AdapterTensor,
    pub(crate) lengths: Option<&'a AdapterTensor>,
    pub(crate) scaling: f32,
}

/// One layer's `A` and `B`, packed for products in both directions.
#[derive(Debug)]
pub(crate) struct PackedPair {
    /// `x · Aᵀ`.
    pub(crate) down: Packed,
    /// `u · Bᵀ`.
    pub(crate) up: Packed,
    /// What the low rank is multiplied with between them.
    pub(crate) scaling: f32,
    /// `d_u · A` and `d_y · B`.
    back: OnceLock<(Packed, Packed)>,
    dora: Option<Dora>,
}

/// A packed pair: kept by its adapter, or made for one product.
pub(crate) enum Pair<'a> {
    Kept(&'a PackedPair),
    Own(Box<PackedPair>),
}

impl Deref for Pair<'_> {
    type Target = PackedPair;

    fn deref(&self) -> &PackedPair {
        match self {
            Self::Kept(pair) => pair,
            Self::Own(pair) => pair,
        }
    }
}

impl PackedPair {
    pub(super) fn new(parts: &Parts<'_>, precision: Precision) -> Self {
        let Parts { a, b, lengths, scaling } = parts;
        let dora = lengths.map(|lengths| Dora {
            a: a.values.clone(),
            b: b.values.clone(),
            lengths: lengths.values.clone(),
            factors: OnceLock::new(),
        });
        Self {
            down: Packed::from_rows(&a.values, a.shape[0], a.shape[1], precision),
            up: Packed::from_rows(&b.values, b.shape[0], b.shape[1], precision),
            scaling: *scaling,
            back: OnceLock::new(),
            dora,
        }
    }

    pub(crate) fn rank(&self) -> usize {
        self.down.n()
    }

    /// What its products are computed in.
    pub(crate) fn precision(&self) -> Precision {
        self.down.precision()
    }

    /// Carries gradients from the low rank back to the inputs.
    pub(crate) fn down_back(&self) -> &Packed {
        &get_or_make(&self.back, || (self.down.transposed(), self.up.transposed())).0
    }

    /// Carries gradients from the outputs back to the low rank.
    pub(crate) fn up_back(&self) -> &Packed {
        &get_or_make(&self.back, || (self.down.transposed(), self.up.transposed())).1
    }

    /// With DoRA, what each output of the layer on `linear` is multiplied with, and the norm that it is divided by.
    pub(crate) fn factors(&self, linear: &Linear) -> Option<&Factors> {
        let dora = self.dora.as_ref()?;
        Some(get_or_make(&dora.factors, || dora.factors(linear, self.rank(), self.scaling)))
    }
}

impl Adapter {
    /// Adds its part to the weights of a layer, `values (outputs, inputs)`, if it has one there.
    pub(crate) fn merge(&self, layer: usize, target: Target, linear: &Linear, values: &mut [f32]) {
        let Some(at) = self.index(layer, target) else { return };
        let Parts { a, b, scaling, .. } = self.parts(at);
        let (rank, inputs) = (a.shape[0], a.shape[1]);
        values.par_chunks_exact_mut(inputs).zip(b.values.par_chunks_exact(rank)).for_each(|(row, b)| {
            for (a, &b) in a.values.chunks_exact(inputs).zip(b) {
                row.iter_mut().zip(a).for_each(|(value, &a)| *value += scaling * b * a);
            }
        });
        let pair = self.pair(layer, target, linear);
        if let Some(factors) = pair.as_ref().and_then(|pair| pair.factors(linear)) {
            values.par_chunks_exact_mut(inputs).zip(&factors.factors).for_each(|(row, factor)| {
                row.iter_mut().for_each(|value| *value *= factor);
            });
        }
    }
}

/// DoRA's part of a layer.
#[derive(Debug)]
struct Dora {
    a: Vec<f32>,
    b: Vec<f32>,
    lengths: Vec<f32>,
    factors: OnceLock<Factors>,
}

/// See [`PackedPair::factors`]; a value an output.
#[derive(Debug)]
pub(crate) struct Factors {
    pub(crate) factors: Vec<f32>,
    pub(crate) norms: Vec<f32>,
}

impl Dora {
    fn factors(&self, linear: &Linear, rank: usize, scaling: f32) -> Factors {
        let (inputs, outputs, scaling) = (linear.k(), linear.n(), f64::from(scaling));
        // A·Wᵀ: (rank, outputs).
        let mut across = Buffer::zeroed(rank * outputs);
        multiply(
            rank,
            &mut [Product { x: &Rows::new(&self.a), weight: &linear.weight(), out: &mut across, start: Start::Zero }],
        );
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let rows: Vec<&[f32]> = self.a.chunks_exact(inputs).collect();
        let gram: Vec<f64> = (0..rank * rank).into_par_iter().map(|at| dot(rows[at / rank], rows[at % rank])).collect();
        let norm = |(output, (b, &square)): (usize, (&[f32], &f64))| {
            let mut sum = 0.0;
            for (r, &b_r) in b.iter().enumerate() {
                let own: f64 = b.iter().zip(&gram[r * rank..]).map(|(&b, gram)| f64::from(b) * gram).sum();
                sum += f64::from(b_r) * (2.0 * f64::from(across[r * outputs + output]) + scaling * own);
            }
            (square + scaling * sum).max(0.0).sqrt() as f32
        };
        let squares = linear.row_squares();
        let norms: Vec<f32> = self.b.par_chunks_exact(rank).zip(squares.par_iter()).enumerate().map(norm).collect();
        let factors =
            self.lengths.iter().zip(&norms).map(|(length, norm)| length / norm.max(f32::MIN_POSITIVE)).collect();
        Factors { factors, norms }
    }
}

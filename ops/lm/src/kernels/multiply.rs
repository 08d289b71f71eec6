//! Products with packed weights on all threads.

use std::ops::Range;

use rayon::prelude::*;

use super::bf16::{self, Ready, Tile16, Way, Weight};
use super::int8::{self, Tile8};
use super::packed::PanelAt;
use super::tile::{HALF_PANEL, PANEL, Start, TILE_ROWS, Tile};
use super::{Isa, Packed, Precision};

/// Steps of `k` taken at a time, so that a tile's left rows stay in the first cache; whole blocks of eight bits.
const K_BLOCK: usize = 768;
/// Rows taken at a time by one task: their left operand stays in the second cache.
const ROW_BLOCK: usize = 8 * TILE_ROWS;
/// In bfloat16, where tiles are faster than the third cache, so many values of rows, and so many rows at most: they, their outputs and the
/// weights stay in the second cache.
const ROW_BLOCK_16: (usize, usize) = (3 << 17, 8 * bf16::ROWS);
/// Multiply-adds below which waking another thread costs more than it gives.
const SMALL: usize = 1 << 17;

/// One product `out (rows, n) = x (rows, k) · weightᵀ`.
pub struct Product<'a> {
    /// The left operand, a row a token: `(rows, k)`.
    pub x: &'a [f32],
    /// The weights.
    pub weight: &'a Packed,
    /// The output: `(rows, n)`.
    pub out: &'a mut [f32],
    /// Overwrite the output, or go on from it.
    pub start: Start,
}

/// A sum of products that goes into one output: `out (rows, n) = Σ x (rows, k) · weightᵀ`, each going on from the one before.
pub struct Sum<'a> {
    /// Left operands and weights, all with the output's `n`.
    pub terms: Vec<(&'a [f32], &'a Packed)>,
    /// The output: `(rows, n)`.
    pub out: &'a mut [f32],
    /// Overwrite the output, or go on from it.
    pub start: Start,
}

/// Computes products of the same number of rows side by side on rayon's threads. They must not need each other.
///
/// # Panics
///
/// If an operand does not have its shape.
pub fn multiply(rows: usize, products: &mut [Product<'_>]) {
    let isa = Isa::best();
    multiply_with((isa, Way::best(isa)), rows, products);
}

/// As [`multiply`], for sums of products. An output is fetched once for all terms.
///
/// # Panics
///
/// If an operand does not have its shape, or a sum has no terms.
pub fn multiply_sums(rows: usize, sums: &mut [Sum<'_>]) {
    let isa = Isa::best();
    sums_with((isa, Way::best(isa)), rows, sums);
}

pub(super) fn multiply_with(ways: (Isa, Way), rows: usize, products: &mut [Product<'_>]) {
    let mut sums: Vec<Sum<'_>> = Vec::with_capacity(products.len());
    for product in products {
        sums.push(Sum { terms: vec![(product.x, product.weight)], out: product.out, start: product.start });
    }
    sums_with(ways, rows, &mut sums);
}

fn sums_with(ways: (Isa, Way), rows: usize, sums: &mut [Sum<'_>]) {
    for sum in sums.iter() {
        let n = sum.terms[0].1.n();
        assert_eq!(sum.out.len(), rows * n, "output of {rows} rows");
        for (x, weight) in &sum.terms {
            assert_eq!(weight.n(), n, "terms of one output");
            assert_eq!(x.len(), rows * weight.k(), "left operand of {rows} rows");
        }
    }
    let rounded = round(ways, rows, sums);
    let shares: Vec<Share<'_>> = sums.iter_mut().map(|sum| Share::of(sum, &rounded)).collect();
    let work: usize =
        shares.iter().flat_map(|share| share.terms.iter().map(|term| rows * share.n * term.weight.k())).sum();
    if work < SMALL {
        for share in &shares {
            share.run(ways, &(0..rows), &(0..share.n.div_ceil(PANEL)));
        }
        return;
    }
    let panels: usize = shares.iter().map(|share| share.n.div_ceil(PANEL)).sum();
    let wide = panels.div_ceil(4 * rayon::current_num_threads()).max(1);
    let mut tasks = Vec::new();
    for share in &shares {
        let block = share.row_block();
        for row in (0..rows).step_by(block) {
            let count = share.n.div_ceil(PANEL);
            for panel in (0..count).step_by(wide) {
                tasks.push((share, row..rows.min(row + block), panel..count.min(panel + wide)));
            }
        }
    }
    tasks.into_par_iter().for_each(|(share, rows, panels)| share.run(ways, &rows, &panels));
}

/// Left operands of products that round theirs.
enum Inputs {
    Int8(int8::Inputs),
    Bf16(bf16::Inputs),
}

/// The left operands of products that round them; those that several products share once.
fn round<'a>((isa, way): (Isa, Way), rows: usize, sums: &[Sum<'a>]) -> Vec<(&'a [f32], Precision, Inputs)> {
    let mut rounded: Vec<(&[f32], Precision, Inputs)> = Vec::new();
    for &(x, weight) in sums.iter().flat_map(|sum| &sum.terms) {
        let precision = weight.precision();
        if rounded.iter().any(|(own, as_what, _)| std::ptr::eq(*own, x) && *as_what == precision) {
            continue;
        }
        let inputs = match precision {
            Precision::F16 | Precision::F32 => continue,
            Precision::Bf16 => Inputs::Bf16(bf16::Inputs::round(way, x, rows, weight.k())),
            Precision::Int8 => Inputs::Int8(int8::Inputs::round(isa, x, rows, weight.k())),
        };
        rounded.push((x, precision, inputs));
    }
    rounded
}

/// A sum whose output may be written from several threads, each its own rows and panels.
struct Share<'a> {
    terms: Vec<Term<'a>>,
    n: usize,
    out: *mut f32,
    start: Start,
}

/// A product of a sum.
struct Term<'a> {
    x: &'a [f32],
    /// The same rounded, where the product rounds it.
    rounded: Option<&'a Inputs>,
    weight: &'a Packed,
}

#[expect(unsafe_code, reason = "tasks write disjoint rows and columns of `out`, which a `&mut` guards meanwhile")]
unsafe impl Sync for Share<'_> {}

impl<'a> Share<'a> {
    fn of(sum: &'a mut Sum<'_>, rounded: &'a [(&[f32], Precision, Inputs)]) -> Self {
        let term = |&(x, weight): &(&'a [f32], &'a Packed)| {
            let precision = weight.precision();
            let own = rounded.iter().find(|(own, as_what, _)| std::ptr::eq(*own, x) && *as_what == precision);
            Term { x, rounded: own.map(|(.., inputs)| inputs), weight }
        };
        let n = sum.terms[0].1.n();
        Self { terms: sum.terms.iter().map(term).collect(), n, out: sum.out.as_mut_ptr(), start: sum.start }
    }

    /// Rows that one task takes.
    fn row_block(&self) -> usize {
        let block = |term: &Term<'_>| match term.rounded {
            Some(Inputs::Bf16(_)) => {
                let (values, most) = ROW_BLOCK_16;
                (values / term.weight.k().max(1) / bf16::ROWS * bf16::ROWS).clamp(bf16::ROWS, most)
            }
            // Where there are both, the others are few.
            _ if self.terms.iter().any(|term| term.weight.precision() == Precision::Bf16) => ROW_BLOCK_16.1,
            _ => ROW_BLOCK,
        };
        self.terms.iter().map(block).min().unwrap_or(ROW_BLOCK)
    }

    /// Computes these rows of these panels' columns.
    fn run(&self, ways: (Isa, Way), rows: &Range<usize>, panels: &Range<usize>) {
        for (at, term) in self.terms.iter().enumerate() {
            self.run_term(ways, term, if at == 0 { self.start } else { Start::Out }, rows, panels);
        }
    }

    fn run_term(
        &self,
        (isa, way): (Isa, Way),
        term: &Term<'_>,
        start: Start,
        rows: &Range<usize>,
        panels: &Range<usize>,
    ) {
        if let Some(Inputs::Bf16(inputs)) = term.rounded {
            self.run_bf16(way, (term, inputs), start, rows, panels);
            return;
        }
        for first in (0..term.weight.k().max(1)).step_by(K_BLOCK) {
            let start = if first == 0 { start } else { Start::Out };
            for panel in panels.clone() {
                match (term.weight.panel_at(panel, first), term.rounded) {
                    (PanelAt::Floats { right, half }, _) => {
                        self.run_floats(isa, term, rows, (panel, first), start, (right, half));
                    }
                    (PanelAt::Int8 { bytes, scales }, Some(Inputs::Int8(inputs))) => {
                        self.run_int8(isa, term, rows, (panel, first), start, (inputs, bytes, scales));
                    }
                    (PanelAt::Int8 { .. }, _) => unreachable!("`round` rounds for all weights in eight bits"),
                }
            }
        }
    }

    fn run_bf16(
        &self,
        way: Way,
        (term, inputs): (&Term<'_>, &bf16::Inputs),
        start: Start,
        rows: &Range<usize>,
        panels: &Range<usize>,
    ) {
        let (ready, mut space) = (Ready::make(way), Vec::new());
        for panel in panels.clone() {
            let weight = Weight::new(way, term.weight.panel_16(panel), &mut space);
            for row in rows.clone().step_by(bf16::ROWS) {
                let rows = row..rows.end.min(row + bf16::ROWS);
                #[expect(unsafe_code, reason = "shapes were asserted; no other task has these rows and columns")]
                unsafe {
                    self.write(row, rows.len(), (panel, PANEL), |out, out_row| {
                        Tile16::of(inputs, rows, weight, (out, out_row), start).run(&ready);
                    });
                }
            }
        }
    }

    fn run_floats(
        &self,
        isa: Isa,
        term: &Term<'_>,
        rows: &Range<usize>,
        (panel, first): (usize, usize),
        start: Start,
        (right, half): (*const u8, bool),
    ) {
        let k = term.weight.k();
        let narrow = self.n - panel * PANEL <= HALF_PANEL;
        for row in rows.clone().step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(rows.end - row);
            let tile = Tile {
                rows,
                k: K_BLOCK.min(k - first),
                left: term.x.as_ptr().wrapping_add(row * k + first),
                left_row: k,
                left_step: 1,
                right,
                right_step: PANEL,
                half,
                narrow,
                out: std::ptr::null_mut(),
                out_row: 0,
                start,
            };
            #[expect(unsafe_code, reason = "shapes were asserted; no other task has these rows and columns")]
            unsafe {
                let columns = if narrow { HALF_PANEL } else { PANEL };
                self.write(row, rows, (panel, columns), |out, out_row| Tile { out, out_row, ..tile }.run(isa));
            }
        }
    }

    fn run_int8(
        &self,
        isa: Isa,
        term: &Term<'_>,
        rows: &Range<usize>,
        (panel, first): (usize, usize),
        start: Start,
        (inputs, weight, weight_scales): (&int8::Inputs, *const u8, *const f32),
    ) {
        let k = term.weight.k();
        let blocks = K_BLOCK.min(k - first).div_ceil(int8::BLOCK);
        for row in rows.clone().step_by(int8::ROWS) {
            let rows = int8::ROWS.min(rows.end - row);
            let tile = Tile8 {
                rows,
                blocks,
                weight,
                weight_scales,
                start,
                ..Tile8::of(inputs, k.div_ceil(int8::BLOCK), row, first / int8::BLOCK)
            };
            #[expect(unsafe_code, reason = "shapes were asserted; no other task has these rows and columns")]
            unsafe {
                self.write(row, rows, (panel, PANEL), |out, out_row| Tile8 { out, out_row, ..tile }.run(isa));
            }
        }
    }

    /// Has `tile` compute `rows` rows from `row` on of a panel's columns, where only those exist that the output has.
    ///
    /// # Safety
    ///
    /// `tile(out, out_row)` accesses `out[i * out_row..][..columns]` for `i` below `rows`; nobody else does.
    #[expect(unsafe_code, reason = "raw pointers of a tile")]
    unsafe fn write(
        &self,
        row: usize,
        rows: usize,
        (panel, columns): (usize, usize),
        tile: impl FnOnce(*mut f32, usize),
    ) {
        let n = self.n;
        let (out, width) = (self.out.wrapping_add(row * n + panel * PANEL), PANEL.min(n - panel * PANEL));
        if width == columns {
            tile(out, n);
            return;
        }
        let mut wide = [0.0f32; bf16::ROWS * PANEL];
        for i in 0..rows {
            let out = unsafe { std::slice::from_raw_parts(out.add(i * n), width) };
            wide[i * PANEL..i * PANEL + width].copy_from_slice(out);
        }
        tile(wide.as_mut_ptr(), PANEL);
        for i in 0..rows {
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(i * n), width) };
            out.copy_from_slice(&wide[i * PANEL..i * PANEL + width]);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

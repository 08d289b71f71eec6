//! Products with packed weights on all threads.

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::bf16::{self, Layout, Ready, Sums, Tile16, Way, Weight};
use super::buffer::Buffer;
use super::int8::{self, Fetch, Tile8, Weights8};
use super::levels::Form;
use super::packed::PanelAt;
use super::tile::{HALF_PANEL, PANEL, Start, TILE_ROWS, Tile};
use super::{Isa, Packed, Precision};
use crate::lazy::get_or_make;

/// Most steps of `k` that are taken at a time, so that what several tiles share stays in the first cache.
const K_BLOCK: usize = 1024;
/// Up to so many rows a panel's weights are read in one go, and levels unpacked in each tile: what takes time is that they are read. With more, a part of them is
/// widened once, and stays in the first cache.
const FEW: usize = 48;
/// Rows taken at a time by one task: their left operand stays in the second cache.
const ROW_BLOCK: usize = 8 * TILE_ROWS;
/// In eight bits: levels are widened anew for so many.
const ROW_BLOCK_8: usize = 44 * int8::ROWS;
/// In bfloat16, where tiles are faster than the third cache, so many values of rows, and so many rows at most: they, their outputs and the
/// weights stay in the second cache.
const ROW_BLOCK_16: (usize, usize) = (3 << 17, 8 * bf16::ROWS);
/// Tasks for each thread, so that none waits long for the last.
const TASKS: usize = 16;
/// How far ahead few rows fetch half floats and levels, in bytes: their widening leaves the machine too few loads in flight. Bytes need it not.
const AHEAD: usize = 5120;
/// Multiply-adds below which waking another thread costs more than it gives.
const SMALL: usize = 1 << 17;

/// A left operand `(rows, k)`, a row a token, and what products round it to, once for all of them.
pub struct Rows<'a> {
    values: &'a [f32],
    /// Values of a row, from the first product on.
    k: OnceLock<usize>,
    bf16: OnceLock<bf16::Inputs>,
    int8: OnceLock<int8::Inputs>,
}

impl<'a> Rows<'a> {
    /// Of these values.
    pub fn new(values: &'a [f32]) -> Self {
        Self { values, k: OnceLock::new(), bf16: OnceLock::new(), int8: OnceLock::new() }
    }

    /// Rounded to bfloat16.
    ///
    /// # Panics
    ///
    /// If no product with weights in it was made ready.
    fn bf16(&self) -> &bf16::Inputs {
        self.bf16.get().expect("rows are rounded for all weights in bfloat16")
    }

    /// Makes ready what a product with `weight` rounds them to, for these ways of multiplying: always the same.
    fn round(&self, (isa, way): (Isa, Way), rows: usize, weight: &Packed) {
        let k = *get_or_make(&self.k, || weight.k());
        assert_eq!(k, weight.k(), "all products of a left operand see the same rows");
        match weight.precision() {
            Precision::F16 | Precision::F32 => {}
            Precision::Bf16 => {
                get_or_make(&self.bf16, || bf16::Inputs::round(way, self.values, rows, weight.k()));
            }
            Precision::Int8 => {
                get_or_make(&self.int8, || int8::Inputs::round(isa, self.values, rows, weight.k()));
            }
        }
    }
}

/// One product `out (rows, n) = x (rows, k) · weightᵀ`.
pub struct Product<'a> {
    /// The left operand, a row a token: `(rows, k)`.
    pub x: &'a Rows<'a>,
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
    pub terms: Vec<(&'a Rows<'a>, &'a Packed)>,
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

pub(super) fn sums_with(ways: (Isa, Way), rows: usize, sums: &mut [Sum<'_>]) {
    for sum in sums.iter() {
        let n = sum.terms[0].1.n();
        assert_eq!(sum.out.len(), rows * n, "output of {rows} rows");
        for (x, weight) in &sum.terms {
            assert_eq!(weight.n(), n, "terms of one output");
            assert_eq!(x.values.len(), rows * weight.k(), "left operand of {rows} rows");
            x.round(ways, rows, weight);
        }
    }
    let shares: Vec<Share<'_>> = sums.iter_mut().map(Share::of).collect();
    let work: usize =
        shares.iter().flat_map(|share| share.terms.iter().map(|(_, weight)| rows * share.n * weight.k())).sum();
    if work < SMALL {
        for share in &shares {
            share.run(ways, &(0..rows), &(0..share.n.div_ceil(PANEL)));
        }
        return;
    }
    let panels: usize = shares.iter().map(|share| share.n.div_ceil(PANEL)).sum();
    let wide = panels.div_ceil(TASKS * rayon::current_num_threads()).max(1);
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

/// Steps of `k` that are taken at a time: all, or as even parts as whole blocks of eight bits allow.
fn k_block(rows: usize, k: usize) -> usize {
    let parts = if rows <= FEW { 1 } else { k.div_ceil(K_BLOCK).max(1) };
    k.div_ceil(parts).next_multiple_of(int8::BLOCK).max(int8::BLOCK)
}

/// What the tile that begins at `row` fetches: each of a few tiles its share of the next panel, of `blocks` blocks, while there is time.
fn fetch(rows: &Range<usize>, row: usize, weights: Weights8, blocks: usize) -> Fetch {
    let step = rows.len().div_ceil(int8::ROWS);
    match (step, weights.bits) {
        (1, Some(bits)) => Fetch { ahead: AHEAD / bits.block_bytes(), first: 0, step },
        (2.., _) if rows.len() <= FEW => Fetch { ahead: blocks, first: (row - rows.start) / int8::ROWS, step },
        _ => Fetch::default(),
    }
}

/// A sum whose output may be written from several threads, each its own rows and panels.
struct Share<'a> {
    terms: &'a [Term<'a>],
    n: usize,
    out: *mut f32,
    start: Start,
}

/// A product of a sum.
type Term<'a> = (&'a Rows<'a>, &'a Packed);

#[expect(unsafe_code, reason = "tasks write disjoint rows and columns of `out`, which a `&mut` guards meanwhile")]
unsafe impl Sync for Share<'_> {}

impl<'a> Share<'a> {
    fn of<'b: 'a>(sum: &'a mut Sum<'b>) -> Self {
        Self { n: sum.terms[0].1.n(), terms: &sum.terms, out: sum.out.as_mut_ptr(), start: sum.start }
    }

    /// Rows that one task takes.
    fn row_block(&self) -> usize {
        let block = |(_, weight): &Term<'_>| match weight.precision() {
            Precision::Bf16 => {
                let (values, most) = ROW_BLOCK_16;
                (values / weight.k().max(1) / bf16::ROWS * bf16::ROWS).clamp(bf16::ROWS, most)
            }
            Precision::Int8 => ROW_BLOCK_8,
            Precision::F16 | Precision::F32 => ROW_BLOCK,
        };
        self.terms.iter().map(block).min().unwrap_or(ROW_BLOCK)
    }

    /// Computes these rows of these panels' columns.
    fn run(&self, ways: (Isa, Way), rows: &Range<usize>, panels: &Range<usize>) {
        let mut sums = if self.start == Start::Zero { Sums::New } else { Sums::AddTo };
        for terms in self.terms.chunk_by(|(_, one), (_, other)| one.precision() == other.precision()) {
            if terms[0].1.precision() == Precision::Bf16 {
                self.run_bf16(ways.1, terms, sums, rows, panels);
                sums = sums.after();
                continue;
            }
            for &term in terms {
                let start = if sums == Sums::New { Start::Zero } else { Start::Out };
                self.run_term(ways.0, term, start, rows, panels);
                sums = Sums::AddTo;
            }
        }
    }

    fn run_term(&self, isa: Isa, (x, weight): Term<'_>, start: Start, rows: &Range<usize>, panels: &Range<usize>) {
        // Of levels that are widened.
        let mut wide: Option<Buffer<u8>> = None;
        let block = k_block(rows.len(), weight.k());
        for first in (0..weight.k().max(1)).step_by(block) {
            let start = if first == 0 { start } else { Start::Out };
            for panel in panels.clone() {
                let at = (panel, first..weight.k().min(first + block));
                match (weight.panel_at(panel, first), x.int8.get()) {
                    (PanelAt::Floats { right, half }, _) => {
                        self.run_floats(isa, (x, weight.k()), rows, at, start, (right, half));
                    }
                    (PanelAt::Int8 { bytes, scales }, Some(inputs)) => {
                        let weights = Weights8 { bytes, bits: None, grids: scales, least: false };
                        self.run_int8(isa, (inputs, weight.k()), rows, at, start, weights);
                    }
                    (PanelAt::Levels(levels), Some(inputs)) => {
                        let Form { bits, least } = levels.form();
                        let mut weights =
                            Weights8 { bytes: levels.bytes(), bits: Some(bits), grids: levels.grids(), least };
                        if !int8::takes_levels(isa) || rows.len() > FEW {
                            let wide =
                                wide.get_or_insert_with(|| Buffer::any(block.next_multiple_of(int8::BLOCK) * PANEL));
                            levels.widen(isa, at.1.len().div_ceil(int8::BLOCK), wide);
                            weights = Weights8 { bytes: wide.as_ptr(), bits: None, ..weights };
                        }
                        self.run_int8(isa, (inputs, weight.k()), rows, at, start, weights);
                    }
                    (PanelAt::Int8 { .. } | PanelAt::Levels(_), _) => {
                        unreachable!("rows are rounded for all weights in eight bits")
                    }
                }
            }
        }
    }

    /// All terms of a tile, then the next.
    fn run_bf16(&self, way: Way, terms: &[Term<'_>], sums: Sums, rows: &Range<usize>, panels: &Range<usize>) {
        let (ready, ways) = (Ready::make(way), (way, Layout::of_weights()));
        let mut spaces = vec![Vec::new(); terms.len()];
        for panel in panels.clone() {
            let weights = terms.iter().zip(&mut spaces);
            let weights =
                weights.map(|((x, weight), space)| (x.bf16(), Weight::new(ways, weight.panel_16(panel), space)));
            let weights: Vec<_> = weights.collect();
            let columns = PANEL.min(self.n - panel * PANEL);
            for row in rows.clone().step_by(bf16::ROWS) {
                let rows = row..rows.end.min(row + bf16::ROWS);
                #[expect(unsafe_code, reason = "shapes were asserted; no other task has these rows and columns")]
                unsafe {
                    self.write(row, rows.len(), (panel, PANEL), |out, out_row| {
                        let mut sums = sums;
                        for &(inputs, weight) in &weights {
                            let tile = Tile16::of(inputs, rows.clone(), (weight, columns), (out, out_row), sums);
                            tile.run(&ready);
                            sums = sums.after();
                        }
                    });
                }
            }
        }
    }

    fn run_floats(
        &self,
        isa: Isa,
        (x, k): (&Rows<'_>, usize),
        rows: &Range<usize>,
        (panel, steps): (usize, Range<usize>),
        start: Start,
        (right, half): (*const u8, bool),
    ) {
        let narrow = self.n - panel * PANEL <= HALF_PANEL;
        let all = rows;
        let ahead = if rows.len() <= TILE_ROWS {
            AHEAD
        } else if rows.len() <= FEW {
            // The next panel, while there is time.
            k * PANEL * if half { 2 } else { 4 }
        } else {
            0
        };
        for row in rows.clone().step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(rows.end - row);
            let tile = Tile {
                rows,
                k: steps.len(),
                left: x.values.as_ptr().wrapping_add(row * k + steps.start),
                left_row: k,
                left_step: 1,
                right,
                right_step: PANEL,
                half,
                narrow,
                ahead: if row == all.start { ahead } else { 0 },
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
        (inputs, k): (&int8::Inputs, usize),
        rows: &Range<usize>,
        (panel, steps): (usize, Range<usize>),
        start: Start,
        weights: Weights8,
    ) {
        let inputs = (inputs, k.div_ceil(int8::BLOCK));
        let blocks = (steps.start / int8::BLOCK, steps.len().div_ceil(int8::BLOCK));
        let all = rows;
        for row in rows.clone().step_by(int8::ROWS) {
            let rows = int8::ROWS.min(rows.end - row);
            let mut tile = Tile8::of(inputs, (row, rows), blocks, weights, start);
            tile.fetch = fetch(all, row, weights, blocks.1);
            #[expect(unsafe_code, reason = "shapes were asserted; no other task has these rows and columns")]
            unsafe {
                self.write(row, rows, (panel, PANEL), |out, out_row| {
                    (tile.out, tile.out_row) = (out, out_row);
                    tile.run(isa);
                });
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

//! Weights in panels of 32 columns, and products with them on all threads.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::Isa;
use super::buffer::Buffer;
use super::tile::{PANEL, Start, TILE_ROWS, Tile};

/// Steps of `k` taken at a time, so that a tile's left rows stay in the first cache.
const K_BLOCK: usize = 768;
/// Rows taken at a time by one task: their left operand stays in the second cache.
const ROW_BLOCK: usize = 8 * TILE_ROWS;
/// Multiply-adds below which waking another thread costs more than it gives.
const SMALL: usize = 1 << 17;

/// How packed weights are stored. Products are in `f32` either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Half floats (eleven significant bits), widened exactly when used.
    F16,
    /// Single floats.
    F32,
}

/// A weight matrix of `n` outputs and `k` inputs, in panels: `[n / 32][k][32]`, zeros past `n`.
#[derive(Clone, Debug)]
pub struct Packed {
    n: usize,
    k: usize,
    panels: Panels,
}

#[derive(Clone, Debug)]
enum Panels {
    F16(Buffer<u16>),
    F32(Buffer<f32>),
}

impl Packed {
    /// Packs a matrix as checkpoints have it: `weight (n, k)`, a row an output.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `n * k` values.
    pub fn from_rows(weight: &[f32], n: usize, k: usize, precision: Precision) -> Self {
        assert_eq!(weight.len(), n * k, "a weight of {n} rows and {k} columns");
        Self::pack(n, k, precision, |panel, first| {
            for (j, row) in weight.chunks_exact(k.max(1)).skip(first).take(PANEL).enumerate() {
                for (s, &value) in row.iter().enumerate() {
                    panel[s * PANEL + j] = value;
                }
            }
        })
    }

    /// Packs a matrix that is already transposed: `weight (k, n)`, a column an output.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `n * k` values.
    pub fn from_columns(weight: &[f32], n: usize, k: usize, precision: Precision) -> Self {
        assert_eq!(weight.len(), n * k, "a weight of {n} columns and {k} rows");
        Self::pack(n, k, precision, |panel, first| {
            let width = PANEL.min(n - first);
            for s in 0..k {
                panel[s * PANEL..s * PANEL + width].copy_from_slice(&weight[s * n + first..][..width]);
            }
        })
    }

    /// The same matrix with inputs and outputs exchanged: what carries gradients back.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let precision = match self.panels {
            Panels::F16(_) => Precision::F16,
            Panels::F32(_) => Precision::F32,
        };
        Self::pack(self.k, self.n, precision, |panel, first| {
            let width = PANEL.min(self.k - first);
            for from in 0..self.n.div_ceil(PANEL) {
                for j in 0..width {
                    let values = self.panel_row(from, first + j);
                    for (s, value) in values.iter().take(self.n - from * PANEL).enumerate() {
                        panel[(from * PANEL + s) * PANEL + j] = *value;
                    }
                }
            }
        })
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of storage.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F16(halves) => halves.len() * 2,
            Panels::F32(values) => values.len() * 4,
        }
    }

    /// Row `output` of the matrix `(n, k)`, as stored: what an embedding looks up.
    pub fn row(&self, output: usize, into: &mut [f32]) {
        assert!(output < self.n, "row {output} of {}", self.n);
        let start = output / PANEL * PANEL * self.k + output % PANEL;
        match &self.panels {
            Panels::F16(halves) => {
                for (s, value) in into[..self.k].iter_mut().enumerate() {
                    *value = f16::from_bits(halves[start + s * PANEL]).to_f32();
                }
            }
            Panels::F32(values) => {
                for (s, value) in into[..self.k].iter_mut().enumerate() {
                    *value = values[start + s * PANEL];
                }
            }
        }
    }

    /// The whole matrix `(n, k)`, as stored (so after rounding to half floats, if it was).
    pub fn unpack(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.n * self.k];
        if self.k > 0 {
            all.par_chunks_exact_mut(self.k).enumerate().for_each(|(output, row)| self.row(output, row));
        }
        all
    }

    fn pack(n: usize, k: usize, precision: Precision, fill: impl Fn(&mut [f32], usize) + Sync) -> Self {
        let size = k * PANEL;
        let total = n.div_ceil(PANEL) * size;
        let panels = match precision {
            Precision::F32 => {
                let mut all = Buffer::zeroed(total);
                all.par_chunks_exact_mut(size.max(1)).enumerate().for_each(|(p, panel)| fill(panel, p * PANEL));
                Panels::F32(all)
            }
            Precision::F16 => {
                let mut all = Buffer::zeroed(total);
                all.par_chunks_exact_mut(size.max(1)).enumerate().for_each_init(
                    || (vec![0.0f32; size], vec![f16::ZERO; size]),
                    |(wide, narrow), (p, panel)| {
                        wide.fill(0.0);
                        fill(wide, p * PANEL);
                        narrow.convert_from_f32_slice(wide);
                        for (bits, value) in panel.iter_mut().zip(narrow.iter()) {
                            *bits = value.to_bits();
                        }
                    },
                );
                Panels::F16(all)
            }
        };
        Self { n, k, panels }
    }

    /// The 32 values of input `s` in panel `panel`.
    fn panel_row(&self, panel: usize, s: usize) -> [f32; PANEL] {
        let start = (panel * self.k + s) * PANEL;
        let mut values = [0.0; PANEL];
        match &self.panels {
            Panels::F16(halves) => {
                for (value, &bits) in values.iter_mut().zip(&halves[start..start + PANEL]) {
                    *value = f16::from_bits(bits).to_f32();
                }
            }
            Panels::F32(all) => values.copy_from_slice(&all[start..start + PANEL]),
        }
        values
    }
}

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

/// Computes products of the same number of rows side by side on rayon's threads. They must not need each other.
///
/// # Panics
///
/// If an operand does not have its shape.
pub fn multiply(rows: usize, products: &mut [Product<'_>]) {
    multiply_with(Isa::best(), rows, products);
}

fn multiply_with(isa: Isa, rows: usize, products: &mut [Product<'_>]) {
    for product in products.iter() {
        assert_eq!(product.x.len(), rows * product.weight.k, "left operand of {rows} rows");
        assert_eq!(product.out.len(), rows * product.weight.n, "output of {rows} rows");
    }
    let shares: Vec<Share<'_>> = products.iter_mut().map(Share::of).collect();
    let work: usize = shares.iter().map(|share| rows * share.weight.n * share.weight.k).sum();
    if work < SMALL {
        for share in &shares {
            share.run(isa, &(0..rows), &(0..share.weight.n.div_ceil(PANEL)));
        }
        return;
    }
    let panels: usize = shares.iter().map(|share| share.weight.n.div_ceil(PANEL)).sum();
    let wide = panels.div_ceil(4 * rayon::current_num_threads()).max(1);
    let mut tasks = Vec::new();
    for share in &shares {
        for row in (0..rows).step_by(ROW_BLOCK) {
            let count = share.weight.n.div_ceil(PANEL);
            for panel in (0..count).step_by(wide) {
                tasks.push((share, row..rows.min(row + ROW_BLOCK), panel..count.min(panel + wide)));
            }
        }
    }
    tasks.into_par_iter().for_each(|(share, rows, panels)| share.run(isa, &rows, &panels));
}

/// A product whose output may be written from several threads, each its own rows and panels.
struct Share<'a> {
    x: &'a [f32],
    weight: &'a Packed,
    out: *mut f32,
    start: Start,
}

#[expect(unsafe_code, reason = "tasks write disjoint rows and columns of `out`, which a `&mut` guards meanwhile")]
unsafe impl Sync for Share<'_> {}

impl<'a> Share<'a> {
    fn of(product: &'a mut Product<'_>) -> Self {
        Self { x: product.x, weight: product.weight, out: product.out.as_mut_ptr(), start: product.start }
    }

    /// Computes these rows of these panels' columns.
    fn run(&self, isa: Isa, rows: &Range<usize>, panels: &Range<usize>) {
        let Packed { n, k, .. } = *self.weight;
        for first in (0..k.max(1)).step_by(K_BLOCK) {
            let start = if first == 0 { self.start } else { Start::Out };
            for panel in panels.clone() {
                let (right, half) = self.weight.panel_at(panel, first);
                for row in rows.clone().step_by(TILE_ROWS) {
                    let tile = Tile {
                        rows: TILE_ROWS.min(rows.end - row),
                        k: K_BLOCK.min(k - first),
                        left: self.x.as_ptr().wrapping_add(row * k + first),
                        left_row: k,
                        left_step: 1,
                        right,
                        right_step: PANEL,
                        half,
                        out: self.out.wrapping_add(row * n + panel * PANEL),
                        out_row: n,
                        start,
                    };
                    #[expect(unsafe_code, reason = "shapes were asserted; no other task has these rows and columns")]
                    unsafe {
                        run_narrow(isa, tile, PANEL.min(n - panel * PANEL));
                    }
                }
            }
        }
    }
}

impl Packed {
    /// Where input `s` of panel `panel` lies, and whether as half floats.
    fn panel_at(&self, panel: usize, s: usize) -> (*const u8, bool) {
        let at = (panel * self.k + s) * PANEL;
        match &self.panels {
            Panels::F16(halves) => (halves.as_ptr().wrapping_add(at).cast(), true),
            Panels::F32(values) => (values.as_ptr().wrapping_add(at).cast(), false),
        }
    }
}

/// Computes a tile of which only the first `width` columns exist in the output.
///
/// # Safety
///
/// As [`Tile::run`], but for `out`, which has `width` columns a row.
#[expect(unsafe_code, reason = "raw pointers of a tile")]
unsafe fn run_narrow(isa: Isa, tile: Tile, width: usize) {
    unsafe {
        if width == PANEL {
            tile.run(isa);
            return;
        }
        let mut wide = [0.0f32; TILE_ROWS * PANEL];
        for i in 0..tile.rows {
            let out = std::slice::from_raw_parts(tile.out.add(i * tile.out_row), width);
            wide[i * PANEL..i * PANEL + width].copy_from_slice(out);
        }
        Tile { out: wide.as_mut_ptr(), out_row: PANEL, ..tile }.run(isa);
        for i in 0..tile.rows {
            let out = std::slice::from_raw_parts_mut(tile.out.add(i * tile.out_row), width);
            out.copy_from_slice(&wide[i * PANEL..i * PANEL + width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    const SHAPES: [(usize, usize, usize); 6] =
        [(1, 5, 7), (1, 96, 300), (16, 64, 576), (13, 33, 800), (200, 70, 64), (5, 16, 1)];

    #[test]
    fn packing_keeps_every_value_and_transposes() {
        for (_, n, k) in SHAPES {
            let weight = values(n * k, 5);
            let packed = Packed::from_rows(&weight, n, k, Precision::F32);
            assert_eq!(packed.unpack(), weight);
            let turned = packed.transposed();
            assert_eq!((turned.n(), turned.k()), (k, n));
            assert_eq!(Packed::from_columns(&weight, k, n, Precision::F32).unpack(), turned.unpack());
            assert_eq!(turned.transposed().unpack(), weight);
            let half = Packed::from_rows(&weight, n, k, Precision::F16);
            let rounded: Vec<f32> = weight.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
            assert_eq!(half.unpack(), rounded);
            assert_eq!(half.transposed().transposed().unpack(), rounded);
        }
    }

    #[test]
    fn products_are_the_chain_bit_for_bit_on_any_threads_and_machine() {
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        for (rows, n, k) in SHAPES {
            for precision in [Precision::F16, Precision::F32] {
                let (x, was) = (values(rows * k, 3), values(rows * n, 9));
                let packed = Packed::from_rows(&values(n * k, 1), n, k, precision);
                let weight = packed.unpack();
                for start in [Start::Zero, Start::Out] {
                    let expected: Vec<f32> = (0..rows * n)
                        .map(|at| {
                            let begin = if start == Start::Out { was[at] } else { 0.0 };
                            let (i, j) = (at / n, at % n);
                            (0..k).fold(begin, |sum, s| x[i * k + s].mul_add(weight[j * k + s], sum))
                        })
                        .collect();
                    for isa in Isa::available() {
                        for pool in [&one, &three] {
                            let (mut out, mut twin) = (was.clone(), was.clone());
                            pool.install(|| {
                                let first = Product { x: &x, weight: &packed, out: &mut out, start };
                                let second = Product { x: &x, weight: &packed, out: &mut twin, start };
                                multiply_with(isa, rows, &mut [first, second]);
                            });
                            assert_eq!(out, expected, "{isa:?} {rows}x{n}x{k}");
                            assert_eq!(twin, expected);
                        }
                    }
                }
            }
        }
    }
}

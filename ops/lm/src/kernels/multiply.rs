//! Products with packed weights on all threads.

use std::ops::Range;

use rayon::prelude::*;

use super::int8::{self, Inputs, Tile8};
use super::packed::PanelAt;
use super::tile::{PANEL, Start, TILE_ROWS, Tile};
use super::{Isa, Packed, Precision};

/// Steps of `k` taken at a time, so that a tile's left rows stay in the first cache; whole blocks of eight bits.
const K_BLOCK: usize = 768;
/// Rows taken at a time by one task: their left operand stays in the second cache.
const ROW_BLOCK: usize = 8 * TILE_ROWS;
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
        assert_eq!(product.x.len(), rows * product.weight.k(), "left operand of {rows} rows");
        assert_eq!(product.out.len(), rows * product.weight.n(), "output of {rows} rows");
    }
    let rounded = round(isa, rows, products);
    let shares: Vec<Share<'_>> = products.iter_mut().map(|product| Share::of(product, &rounded)).collect();
    let work: usize = shares.iter().map(|share| rows * share.weight.n() * share.weight.k()).sum();
    if work < SMALL {
        for share in &shares {
            share.run(isa, &(0..rows), &(0..share.weight.n().div_ceil(PANEL)));
        }
        return;
    }
    let panels: usize = shares.iter().map(|share| share.weight.n().div_ceil(PANEL)).sum();
    let wide = panels.div_ceil(4 * rayon::current_num_threads()).max(1);
    let mut tasks = Vec::new();
    for share in &shares {
        for row in (0..rows).step_by(ROW_BLOCK) {
            let count = share.weight.n().div_ceil(PANEL);
            for panel in (0..count).step_by(wide) {
                tasks.push((share, row..rows.min(row + ROW_BLOCK), panel..count.min(panel + wide)));
            }
        }
    }
    tasks.into_par_iter().for_each(|(share, rows, panels)| share.run(isa, &rows, &panels));
}

/// The left operands of products in eight bits, rounded; those that several products share once.
fn round<'a>(isa: Isa, rows: usize, products: &[Product<'a>]) -> Vec<(&'a [f32], Inputs)> {
    let mut rounded: Vec<(&[f32], Inputs)> = Vec::new();
    for &Product { x, weight, .. } in products {
        if weight.precision() == Precision::Int8 && !rounded.iter().any(|(own, _)| std::ptr::eq(*own, x)) {
            rounded.push((x, Inputs::round(isa, x, rows, weight.k())));
        }
    }
    rounded
}

/// A product whose output may be written from several threads, each its own rows and panels.
struct Share<'a> {
    x: &'a [f32],
    /// The same in eight bits, where the weight is.
    rounded: Option<&'a Inputs>,
    weight: &'a Packed,
    out: *mut f32,
    start: Start,
}

#[expect(unsafe_code, reason = "tasks write disjoint rows and columns of `out`, which a `&mut` guards meanwhile")]
unsafe impl Sync for Share<'_> {}

impl<'a> Share<'a> {
    fn of(product: &'a mut Product<'_>, rounded: &'a [(&[f32], Inputs)]) -> Self {
        let rounded = rounded.iter().find(|(x, _)| std::ptr::eq(*x, product.x)).map(|(_, inputs)| inputs);
        Self { x: product.x, rounded, weight: product.weight, out: product.out.as_mut_ptr(), start: product.start }
    }

    /// Computes these rows of these panels' columns.
    fn run(&self, isa: Isa, rows: &Range<usize>, panels: &Range<usize>) {
        for first in (0..self.weight.k().max(1)).step_by(K_BLOCK) {
            let start = if first == 0 { self.start } else { Start::Out };
            for panel in panels.clone() {
                match (self.weight.panel_at(panel, first), self.rounded) {
                    (PanelAt::Floats { right, half }, _) => {
                        self.run_floats(isa, rows, (panel, first), start, (right, half));
                    }
                    (PanelAt::Int8 { bytes, scales }, Some(inputs)) => {
                        self.run_int8(isa, rows, (panel, first), start, (inputs, bytes, scales));
                    }
                    (PanelAt::Int8 { .. }, None) => unreachable!("`round` rounds for all weights in eight bits"),
                }
            }
        }
    }

    fn run_floats(
        &self,
        isa: Isa,
        rows: &Range<usize>,
        (panel, first): (usize, usize),
        start: Start,
        (right, half): (*const u8, bool),
    ) {
        let k = self.weight.k();
        for row in rows.clone().step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(rows.end - row);
            let tile = Tile {
                rows,
                k: K_BLOCK.min(k - first),
                left: self.x.as_ptr().wrapping_add(row * k + first),
                left_row: k,
                left_step: 1,
                right,
                right_step: PANEL,
                half,
                out: std::ptr::null_mut(),
                out_row: 0,
                start,
            };
            #[expect(unsafe_code, reason = "shapes were asserted; no other task has these rows and columns")]
            unsafe {
                self.write(row, rows, panel, |out, out_row| Tile { out, out_row, ..tile }.run(isa));
            }
        }
    }

    fn run_int8(
        &self,
        isa: Isa,
        rows: &Range<usize>,
        (panel, first): (usize, usize),
        start: Start,
        (inputs, weight, weight_scales): (&Inputs, *const u8, *const f32),
    ) {
        let k = self.weight.k();
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
                self.write(row, rows, panel, |out, out_row| Tile8 { out, out_row, ..tile }.run(isa));
            }
        }
    }

    /// Has `tile` compute `rows` rows from `row` on of a panel's columns, where only those exist that the output has.
    ///
    /// # Safety
    ///
    /// `tile(out, out_row)` accesses `out[i * out_row..][..PANEL]` for `i` below `rows`; nobody else does.
    #[expect(unsafe_code, reason = "raw pointers of a tile")]
    unsafe fn write(&self, row: usize, rows: usize, panel: usize, tile: impl FnOnce(*mut f32, usize)) {
        let n = self.weight.n();
        let (out, width) = (self.out.wrapping_add(row * n + panel * PANEL), PANEL.min(n - panel * PANEL));
        if width == PANEL {
            tile(out, n);
            return;
        }
        let mut wide = [0.0f32; TILE_ROWS * PANEL];
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
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    pub(in super::super) const SHAPES: [(usize, usize, usize); 6] =
        [(1, 5, 7), (1, 96, 300), (16, 64, 576), (13, 33, 800), (200, 70, 64), (5, 16, 1)];

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

    /// The law in eight bits, plainly: `x` and `weight` are one row each; the weight's bytes are found again from its values.
    fn blocks(x: &[f32], weight: &[f32], scales: &[f32], begin: f32) -> f32 {
        let block = |(x, (weight, &scale)): (&[f32], (&[f32], &f32))| {
            let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let (x_scale, inverse) = if most > 0.0 { (most / 127.0, 127.0 / most) } else { (0.0, 0.0) };
            let sum: i32 = x
                .iter()
                .zip(weight)
                .map(|(x, w)| {
                    let w = if scale > 0.0 { (w / scale).round() } else { 0.0 };
                    (x * inverse).round_ties_even() as i32 * w as i32
                })
                .sum();
            (sum as f32, x_scale * scale)
        };
        let chunks = x.chunks(int8::BLOCK).zip(weight.chunks(int8::BLOCK).zip(scales));
        chunks.map(block).fold(begin, |sum, (dot, scale)| dot.mul_add(scale, sum))
    }

    #[test]
    fn products_in_eight_bits_are_the_chain_of_blocks_bit_for_bit_on_any_threads_and_machine() {
        let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
        for (rows, n, k) in [(6, 32, 64), (1, 64, 1600), (7, 40, 831)].into_iter().chain(SHAPES) {
            let (x, was) = (values(rows * k, 3), values(rows * n, 9));
            let packed = Packed::from_rows(&values(n * k, 1), n, k, Precision::Int8);
            let weight = packed.unpack();
            for start in [Start::Zero, Start::Out] {
                let expected: Vec<f32> = (0..rows * n)
                    .map(|at| {
                        let begin = if start == Start::Out { was[at] } else { 0.0 };
                        let (i, j) = (at / n, at % n);
                        blocks(&x[i * k..(i + 1) * k], &weight[j * k..(j + 1) * k], &packed.scales(j), begin)
                    })
                    .collect();
                for isa in Isa::available() {
                    for pool in &pools {
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

    #[test]
    fn the_greatest_bytes_do_not_overflow() {
        for sign in [1.0, -1.0] {
            let (x, weight) = (vec![sign; 2 * 64], vec![-1.0; 32 * 64]);
            let packed = Packed::from_rows(&weight, 32, 64, Precision::Int8);
            for isa in Isa::available() {
                let mut out = vec![0.0; 64];
                multiply_with(isa, 2, &mut [Product { x: &x, weight: &packed, out: &mut out, start: Start::Zero }]);
                assert!(out.iter().all(|v| (v + sign * 64.0).abs() < 1e-3), "{isa:?}: {out:?}");
            }
        }
    }
}

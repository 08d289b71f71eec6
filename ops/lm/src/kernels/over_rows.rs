//! Sums over rows, `leftᵀ · right`: the gradients of adapters.
//!
//! An element is one chain over the rows in ascending order; in bfloat16 it is what the law of `bf16` makes of such a chain. Each task takes some columns of a
//! right operand, which is large, for all left operands that go with it, and some rows at a time, so that they stay in the second cache.

use std::ops::Range;

use rayon::prelude::*;

use super::bf16::{self, Inputs, Layout, QUAD, Ready, Sums, Tile16, Way, Weight};
use super::gemm::{Left, Right, gemm};
use super::tile::{PANEL, Start};
use super::{Isa, Precision};

/// Panels of columns that a task takes.
const PANELS: usize = 8;
/// Rows that are packed at a time: whole blocks.
const ROWS: usize = 16 * bf16::BLOCK;

/// `out (m, n) = left (rows, m)ᵀ · right (rows, n)`.
pub struct OverRows<'a> {
    /// The narrow operand.
    pub left: &'a [f32],
    /// The wide one. Products of the same are computed together.
    pub right: &'a [f32],
    /// Overwritten.
    pub out: &'a mut [f32],
}

impl OverRows<'_> {
    fn m(&self, rows: usize) -> usize {
        self.left.len() / rows
    }

    fn n(&self, rows: usize) -> usize {
        self.right.len() / rows
    }
}

/// Computes the products side by side on rayon's threads: in bfloat16 if `precision` says so, else in single floats.
///
/// # Panics
///
/// If an operand does not have its shape.
pub fn sum_over_rows(rows: usize, precision: Precision, products: &mut [OverRows<'_>]) {
    let way = (precision == Precision::Bf16).then(|| Way::best(Isa::best()));
    sum_with(way, rows, products);
}

fn sum_with(way: Option<Way>, rows: usize, products: &mut [OverRows<'_>]) {
    for product in products.iter_mut() {
        if rows == 0 {
            product.out.fill(0.0);
            continue;
        }
        let (m, n) = (product.m(rows), product.n(rows));
        assert!(product.left.len() == m * rows && product.right.len() == n * rows, "operands of {rows} rows");
        assert_eq!(product.out.len(), m * n, "output of {m} by {n}");
    }
    if rows == 0 {
        return;
    }
    // The products of each right operand.
    let mut groups: Vec<(&[f32], Vec<usize>)> = Vec::new();
    for (at, product) in products.iter().enumerate() {
        match groups.iter_mut().find(|(right, _)| std::ptr::eq(*right, product.right)) {
            Some((_, own)) => own.push(at),
            None => groups.push((product.right, vec![at])),
        }
    }
    let mut tasks = Vec::new();
    for (right, own) in &groups {
        let n = right.len() / rows;
        tasks.extend((0..n).step_by(PANELS * PANEL).map(|first| (right, own, first..n.min(first + PANELS * PANEL))));
    }
    let lefts: Vec<&[f32]> = products.iter().map(|product| product.left).collect();
    let parts: Vec<Vec<Vec<f32>>> = match way {
        None => {
            let task = |(right, own, columns): &(&&[f32], &Vec<usize>, Range<usize>)| {
                own.iter().map(|&at| in_floats(rows, lefts[at], right, columns)).collect()
            };
            tasks.par_iter().map(task).collect()
        }
        Some(way) => {
            let rounded: Vec<Vec<Inputs>> = lefts.par_iter().map(|left| turn(way, rows, left)).collect();
            let task = |(right, own, columns): &(&&[f32], &Vec<usize>, Range<usize>)| {
                let own: Vec<_> = own.iter().map(|&at| (rounded[at].as_slice(), lefts[at].len() / rows)).collect();
                in_bf16(way, rows, &own, right, columns)
            };
            tasks.par_iter().map(task).collect()
        }
    };
    for ((_, own, columns), parts) in tasks.into_iter().zip(parts) {
        for (&at, part) in own.iter().zip(parts) {
            let n = products[at].n(rows);
            for (row, part) in products[at].out.chunks_exact_mut(n).zip(part.chunks_exact(columns.len())) {
                row[columns.clone()].copy_from_slice(part);
            }
        }
    }
}

/// `(m, columns)` of a product.
fn in_floats(rows: usize, left: &[f32], right: &[f32], columns: &Range<usize>) -> Vec<f32> {
    let (m, n) = (left.len() / rows, right.len() / rows);
    let mut out = vec![0.0; m * columns.len()];
    let (left, right) = (Left { data: left, row: 1, step: m }, Right { data: &right[columns.start..], step: n });
    gemm((m, columns.len(), rows), left, right, &mut out, columns.len(), Start::Zero);
    out
}

/// `left (rows, m)`, turned and rounded, [`ROWS`] rows at a time.
fn turn(way: Way, rows: usize, left: &[f32]) -> Vec<Inputs> {
    let m = left.len() / rows;
    let some = |some: &[f32]| {
        let count = some.len() / m;
        let mut turned = vec![0.0; some.len()];
        for (s, row) in some.chunks_exact(m).enumerate() {
            row.iter().enumerate().for_each(|(i, value)| turned[i * count + s] = *value);
        }
        Inputs::round(way, &turned, m, count)
    };
    left.chunks(ROWS * m.max(1)).map(some).collect()
}

/// `(m, columns)` of each product, whose left operands [`turn`] made, with their `m`.
fn in_bf16(
    way: Way,
    rows: usize,
    lefts: &[(&[Inputs], usize)],
    right: &[f32],
    columns: &Range<usize>,
) -> Vec<Vec<f32>> {
    let n = right.len() / rows;
    let count = columns.len().div_ceil(PANEL);
    // `[panels][m][32]` of each.
    let mut sums: Vec<Vec<f32>> = lefts.iter().map(|(_, m)| vec![0.0; count * m * PANEL]).collect();
    let (ready, layout) = (Ready::make(way), way.layout());
    let mut panels = vec![0; count * ROWS / bf16::BLOCK * bf16::BLOCK_VALUES];
    for (at, some) in right.chunks(ROWS * n).enumerate() {
        let blocks = (some.len() / n).div_ceil(bf16::BLOCK);
        let size = blocks * bf16::BLOCK_VALUES;
        let panels = &mut panels[..count * size];
        if !(some.len() / n).is_multiple_of(bf16::BLOCK) {
            panels.fill(0);
        }
        Isa::best().run(
            #[inline(always)]
            || pack(layout, some, n, columns, panels),
        );
        for (panel, packed) in panels.chunks_exact(size).enumerate() {
            let weight = Weight::of(packed);
            for ((left, m), sums) in lefts.iter().zip(&mut sums) {
                let sums = &mut sums[panel * m * PANEL..][..m * PANEL];
                for row in (0..*m).step_by(bf16::ROWS) {
                    let own = row..(row + bf16::ROWS).min(*m);
                    let out = sums[row * PANEL..].as_mut_ptr();
                    let tile = Tile16::of(&left[at], own, (weight, PANEL), (out, PANEL), Sums::GoOn);
                    #[expect(unsafe_code, reason = "`sums` has whole panels of all rows")]
                    unsafe {
                        tile.run(&ready);
                    }
                }
            }
        }
    }
    let whole = |(sums, (_, m)): (Vec<f32>, &(_, usize))| {
        let mut out = vec![0.0; m * columns.len()];
        for (panel, sums) in sums.chunks_exact((m * PANEL).max(1)).enumerate() {
            let width = PANEL.min(columns.len() - panel * PANEL);
            for (out, sums) in out.chunks_exact_mut(columns.len()).zip(sums.chunks_exact(PANEL)) {
                out[panel * PANEL..][..width].copy_from_slice(&sums[..width]);
            }
        }
        out
    };
    sums.into_iter().zip(lefts).map(whole).collect()
}

/// Rounds some columns of rows of `n` values into panels, four rows at a time; where rows end inside a block, the rest must be zeros.
#[inline(always)]
fn pack(layout: Layout, rows: &[f32], n: usize, columns: &Range<usize>, panels: &mut [u16]) {
    const QUADS: usize = bf16::BLOCK / QUAD;
    let size = (rows.len() / n).div_ceil(bf16::BLOCK) * bf16::BLOCK_VALUES;
    // Of the last columns, which are always as many.
    let mut ends = [[0.0; PANEL]; QUAD];
    for (at, rows) in rows.chunks(QUAD * n).enumerate() {
        for (panel, column) in columns.clone().step_by(PANEL).enumerate() {
            let width = PANEL.min(columns.end - column);
            let mut quad = [&[0.0; PANEL]; QUAD];
            for ((quad, end), row) in quad.iter_mut().zip(&mut ends).zip(rows.chunks_exact(n)) {
                *quad = row[column..column + width].first_chunk().unwrap_or_else(|| {
                    end[..width].copy_from_slice(&row[column..column + width]);
                    end
                });
            }
            let block = panel * size + at / QUADS * bf16::BLOCK_VALUES;
            bf16::pack_quad(layout, quad, &mut panels[block..], at % QUADS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::multiply::tests::values;
    use super::super::{Packed, Product, Rows, multiply};
    use super::*;

    #[test]
    fn sums_over_rows_are_products_with_what_is_turned_bit_for_bit() {
        let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
        for (rows, m, n) in [(1, 1, 1), (64, 16, 256), (33, 5, 40), (700, 40, 300), (1025, 16, 31)] {
            let (left, other, right) = (values(rows * m, 1), values(rows * m, 2), values(rows * n, 3));
            for precision in [Precision::F32, Precision::Bf16] {
                let expected: Vec<Vec<f32>> = [&left, &other]
                    .iter()
                    .map(|left| {
                        let turned: Vec<f32> = (0..m * rows).map(|at| left[at % rows * m + at / rows]).collect();
                        let weight = Packed::from_columns(&right, n, rows, precision);
                        let mut out = vec![0.0; m * n];
                        let x = &Rows::new(&turned);
                        multiply(m, &mut [Product { x, weight: &weight, out: &mut out, start: Start::Zero }]);
                        out
                    })
                    .collect();
                let ways = match precision {
                    Precision::Bf16 => Way::available().into_iter().map(Some).collect(),
                    _ => vec![None],
                };
                for way in ways {
                    for pool in &pools {
                        let (mut out, mut second) = (vec![7.0; m * n], vec![7.0; m * n]);
                        let mut products = [
                            OverRows { left: &left, right: &right, out: &mut out },
                            OverRows { left: &other, right: &right, out: &mut second },
                        ];
                        pool.install(|| sum_with(way, rows, &mut products));
                        assert_eq!([out, second].as_slice(), expected, "{way:?} {rows} rows, {m} by {n}");
                    }
                }
            }
        }
    }
}

//! Strided products of small matrices on the calling thread: attention and adapter gradients.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::Isa;
use super::buffer::{Buffer, Plain};
use super::tile::{HALF_PANEL, PANEL, Start, TILE_ROWS, Tile};

/// Steps of `k` that are taken at a time, so that a tile's left rows stay in the first cache.
const K_BLOCK: usize = 512;

/// A left operand: element `(i, s)` is `data[i * row + s * step]`. A transposed matrix is one with `row = 1`.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub row: usize,
    /// Elements from one step of `k` to the next.
    pub step: usize,
}

/// What a right operand may hold. Half floats are widened exactly when used.
pub trait Float: Plain + Default {
    /// Whether it is a half float.
    const HALF: bool;

    /// Puts the nearest there are into `into`, which is as long.
    fn narrow(values: &[f32], into: &mut [Self]);
}

impl Float for f32 {
    const HALF: bool = false;

    fn narrow(values: &[f32], into: &mut [Self]) {
        into.copy_from_slice(values);
    }
}

impl Float for f16 {
    const HALF: bool = true;

    fn narrow(values: &[f32], into: &mut [Self]) {
        into.convert_from_f32_slice(values);
    }
}

/// A right operand: element `(s, j)` is `data[s * step + j]`.
#[derive(Clone, Copy, Debug)]
pub struct Right<'a, T = f32> {
    /// The elements.
    pub data: &'a [T],
    /// Elements from one step of `k` to the next.
    pub step: usize,
}

/// `out (m, n) = left (m, k) · right (k, n)`, with `out_row` elements from one row of `out` to the next; one thread.
///
/// # Panics
///
/// If an operand is shorter than its shape says.
pub fn gemm<T: Float>(
    (m, n, k): (usize, usize, usize),
    left: Left<'_>,
    right: Right<'_, T>,
    out: &mut [f32],
    out_row: usize,
    start: Start,
) {
    gemm_with(Isa::best(), (m, n, k), left, right, out, out_row, start);
}

fn gemm_with<T: Float>(
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    left: Left<'_>,
    right: Right<'_, T>,
    out: &mut [f32],
    out_row: usize,
    start: Start,
) {
    if m == 0 || n == 0 {
        return;
    }
    if k > 0 {
        assert!((m - 1) * left.row + (k - 1) * left.step < left.data.len(), "left operand is too short");
        assert!((k - 1) * right.step + n <= right.data.len(), "right operand is too short");
    }
    assert!((m - 1) * out_row + n <= out.len(), "output is too short");
    let whole = n / PANEL * PANEL;
    let tail = Tail::cut(n, k, right, whole);
    for first in (0..k.max(1)).step_by(K_BLOCK) {
        let steps = K_BLOCK.min(k - first);
        let start = if first == 0 { start } else { Start::Out };
        for row in (0..m).step_by(TILE_ROWS) {
            let tile = Tile {
                rows: TILE_ROWS.min(m - row),
                k: steps,
                left: left.data.as_ptr().wrapping_add(row * left.row + first * left.step),
                left_row: left.row,
                left_step: left.step,
                right: std::ptr::null(),
                right_step: right.step,
                half: T::HALF,
                narrow: false,
                ahead: 0,
                out: std::ptr::null_mut(),
                out_row,
                start,
            };
            for column in (0..whole).step_by(PANEL) {
                let tile = Tile {
                    right: right.data.as_ptr().wrapping_add(first * right.step + column).cast(),
                    out: out.as_mut_ptr().wrapping_add(row * out_row + column),
                    ..tile
                };
                #[expect(unsafe_code, reason = "the asserts above hold for each tile; `out` is ours")]
                unsafe {
                    tile.run(isa);
                }
            }
            if let Some(tail) = &tail {
                tail.run(isa, tile, first, &mut out[row * out_row + whole..]);
            }
        }
    }
}

/// The right operand's last columns, too few for a panel, filled up with zeros.
struct Tail<T: Float> {
    columns: usize,
    right: Buffer<T>,
}

impl<T: Float> Tail<T> {
    fn cut(n: usize, k: usize, right: Right<'_, T>, whole: usize) -> Option<Self> {
        let columns = n - whole;
        if columns == 0 {
            return None;
        }
        let mut padded = Buffer::zeroed(k * PANEL);
        for s in 0..k {
            padded[s * PANEL..s * PANEL + columns]
                .copy_from_slice(&right.data[s * right.step + whole..s * right.step + n]);
        }
        Some(Self { columns, right: padded })
    }

    /// Computes `tile` on a full-width copy of its part of `out`, and copies what is real back.
    fn run(&self, isa: Isa, tile: Tile, first: usize, out: &mut [f32]) {
        let mut wide = [0.0f32; TILE_ROWS * PANEL];
        let row = tile.out_row;
        for i in 0..tile.rows {
            wide[i * PANEL..i * PANEL + self.columns].copy_from_slice(&out[i * row..i * row + self.columns]);
        }
        let tile = Tile {
            right: self.right.as_ptr().wrapping_add(first * PANEL).cast(),
            right_step: PANEL,
            narrow: self.columns <= HALF_PANEL,
            out: wide.as_mut_ptr(),
            out_row: PANEL,
            ..tile
        };
        #[expect(unsafe_code, reason = "`right` and `wide` have a full panel of columns")]
        unsafe {
            tile.run(isa);
        }
        for i in 0..tile.rows {
            out[i * row..i * row + self.columns].copy_from_slice(&wide[i * PANEL..i * PANEL + self.columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// The law itself: one chain of `mul_add` an element.
    fn chain(k: usize, left: impl Fn(usize) -> f32, right: impl Fn(usize) -> f32, start: f32) -> f32 {
        (0..k).fold(start, |sum, s| left(s).mul_add(right(s), sum))
    }

    #[test]
    fn every_instruction_set_gives_the_chain_bit_for_bit() {
        let shapes =
            [(1, 1, 1), (1, 32, 5), (3, 33, 64), (12, 32, 576), (13, 64, 9), (25, 31, 520), (7, 95, 1100), (2, 40, 0)];
        for (m, n, k) in shapes {
            let (x, w, was) = (values(m * k + 1, 1), values(k * n + 1, 2), values(m * (n + 3), 3));
            let halves: Vec<f16> = w.iter().map(|value| f16::from_f32(*value)).collect();
            for start in [Start::Zero, Start::Out] {
                for transposed in [false, true] {
                    let (row, step) = if transposed { (1, m) } else { (k, 1) };
                    for isa in Isa::available() {
                        let mut out = was.clone();
                        let (left, right) = (Left { data: &x, row, step }, Right { data: &w, step: n });
                        gemm_with(isa, (m, n, k), left, right, &mut out, n + 3, start);
                        let mut of_halves = was.clone();
                        let right = Right { data: &halves, step: n };
                        gemm_with(isa, (m, n, k), left, right, &mut of_halves, n + 3, start);
                        for i in 0..m {
                            for j in 0..n + 3 {
                                let at = i * (n + 3) + j;
                                let begin = if start == Start::Out { was[at] } else { 0.0 };
                                let expected = |right: &dyn Fn(usize) -> f32| {
                                    if j < n { chain(k, |s| x[i * row + s * step], right, begin) } else { was[at] }
                                };
                                let place = format!("{isa:?} {m}x{n}x{k} at {i},{j}");
                                let [single, half] =
                                    [expected(&|s| w[s * n + j]), expected(&|s| halves[s * n + j].to_f32())];
                                assert_eq!(out[at].to_bits(), single.to_bits(), "{place}");
                                assert_eq!(of_halves[at].to_bits(), half.to_bits(), "halves, {place}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "left operand is too short")]
    fn short_operands_are_refused() {
        let mut out = [0.0; 4];
        let (left, right) = (Left { data: &[1.0; 3], row: 2, step: 1 }, Right { data: &[1.0; 4], step: 2 });
        gemm((2, 2, 2), left, right, &mut out, 2, Start::Zero);
    }
}

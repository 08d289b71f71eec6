//! Products in eight bits: weights and inputs rounded by blocks of 32, sums in integers.
//!
//! A block of a weight's row is 32 signed bytes and their scale, a half float; a block of a token's inputs, rounded when it is used, has a single float. The sum of a
//! block's products is an exact integer whatever order an instruction set takes them in; the blocks' sums, times both scales, are one chain of
//! fused multiply-adds in ascending order. So the law holds as it does in single floats.
//!
//! Bytes of weights are stored with 128 added: x86 multiplies unsigned by signed bytes. What that adds to a block's sum, 128 times the sum of
//! the input's bytes, is taken off by beginning there.

#![expect(clippy::inline_always, reason = "bodies must be compiled anew for each instruction set that calls them")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::Isa;
use super::buffer::Buffer;
use super::levels::{self, Bits};
use super::tile::{PANEL, Start};

/// Inputs that share a scale.
pub(super) const BLOCK: usize = 32;
/// Most rows in a tile: two registers of integers and two of floats for each.
pub(super) const ROWS: usize = 6;
/// Bytes of a block of a panel: `[8][32][4]`, four inputs of a column side by side.
pub(super) const BLOCK_BYTES: usize = BLOCK * PANEL;
/// Inputs that are worth a task of their own when they are rounded.
const TASK_VALUES: usize = 1 << 14;
/// Added to a weight's byte.
pub(super) const OFFSET: i32 = 128;
/// What the largest input of a block is rounded to.
const MOST: f32 = 127.0;
/// What the largest weight of a block is rounded to: whichever of these leaves the least error. With the second all values of a block of Q4_0 and of Q5_0, whole multiples
/// of an eighth and of a sixteenth of the largest, are kept as they are, as their scale becomes an eighth or a quarter of what the file has; of Q8_0 with the first.
const WEIGHT_MOST: [f32; 2] = [MOST, 64.0];
/// Below this a block of inputs is zeros: its scale would be too small to be divided by.
const LEAST: f32 = 1e-30;
/// Adding this to a number between -2²² and 2²² leaves it rounded to a whole one, half to even, in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Writes a panel's rounded weights: `bytes` of `[blocks][8][32][4]` and `scales` of `[blocks][32]`; `panel` is `[k][32]`.
pub(super) fn pack_panel(isa: Isa, panel: &[f32], bytes: &mut [u8], scales: &mut [f16]) {
    isa.run(
        #[inline(always)]
        || pack_blocks(panel, bytes, scales),
    );
}

/// All columns of a block side by side, each with the scale of [`WEIGHT_MOST`] that leaves it the least error.
#[inline(always)]
fn pack_blocks(panel: &[f32], bytes: &mut [u8], scales: &mut [f16]) {
    let (bytes, scales) = (bytes.as_chunks_mut::<BLOCK_BYTES>().0, scales.as_chunks_mut::<PANEL>().0);
    for ((values, bytes), scales) in panel.chunks(BLOCK * PANEL).zip(bytes).zip(scales) {
        // The last block may be short.
        let mut block = [[0.0; PANEL]; BLOCK];
        block.as_flattened_mut()[..values.len()].copy_from_slice(values);
        let inverses = scale_weights(&block, scales);
        for (inputs, bytes) in block.as_chunks::<4>().0.iter().zip(bytes.as_chunks_mut::<{ 4 * PANEL }>().0) {
            let mut words = [0u32; PANEL];
            for (s, input) in inputs.iter().enumerate() {
                for ((word, value), inverse) in words.iter_mut().zip(input).zip(&inverses) {
                    let rounded = whole(round_weight(*value, *inverse));
                    *word |= (rounded.wrapping_add(OFFSET) as u32 & 0xff) << (8 * s);
                }
            }
            for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
        }
    }
}

/// Puts each column's scale into `scales`, and gives what its values are multiplied with before they are rounded.
#[inline(always)]
fn scale_weights(block: &[[f32; PANEL]; BLOCK], scales: &mut [f16; PANEL]) -> [f32; PANEL] {
    let mut largest = [0u32; PANEL];
    for input in block {
        for (largest, value) in largest.iter_mut().zip(input) {
            *largest = (*largest).max(magnitude(*value));
        }
    }
    let mut inverses = [0.0; PANEL];
    let mut least = [magnitude(f32::INFINITY); PANEL];
    for most in WEIGHT_MOST {
        let (mut scale, mut inverse) = ([0.0; PANEL], [0.0; PANEL]);
        for (largest, scale) in largest.iter().zip(&mut scale) {
            *scale = f32::from_bits(*largest) / most;
        }
        let mut halves = [f16::ZERO; PANEL];
        halves.convert_from_f32_slice(&scale);
        halves.convert_to_f32_slice(&mut scale);
        for (scale, inverse) in scale.iter_mut().zip(&mut inverse) {
            // What is too small for a scale is zero.
            *inverse = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
        }
        let mut error = [0u32; PANEL];
        for input in block {
            for (column, value) in input.iter().enumerate() {
                let rounded = round_weight(*value, inverse[column]) - ROUND;
                error[column] = error[column].max(magnitude(value - rounded * scale[column]));
            }
        }
        for column in 0..PANEL {
            // What is no number has no least error, and stays none by the first scale.
            if error[column] < least[column] || most == MOST {
                (least[column], scales[column], inverses[column]) = (error[column], halves[column], inverse[column]);
            }
        }
    }
    inverses
}

/// A float's bits without its sign. As whole numbers they are in the floats' order, what is no number last.
#[inline(always)]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & !(1 << 31)
}

/// The scale of a block with this largest value, and what its values are multiplied with, so that they round to bytes up to `most`.
#[inline(always)]
fn scale_of(largest: f32, most: f32) -> (f32, f32) {
    if largest <= LEAST { (0.0, 0.0) } else { (largest / most, most / largest) }
}

/// A weight as a byte, with [`ROUND`] added. A scale that was rounded down, or is of the smallest, leaves a little more than bytes hold.
#[inline(always)]
fn round_weight(value: f32, inverse: f32) -> f32 {
    (value * inverse).clamp(-MOST, MOST) + ROUND
}

/// The whole number in the low bits of what [`ROUND`] was added to.
#[inline(always)]
fn whole(rounded: f32) -> i32 {
    rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

/// A packed panel.
pub(super) struct Panel<'a> {
    bytes: &'a [u8],
    scales: &'a [f16],
}

impl<'a> Panel<'a> {
    /// Panel number `panel` of a weight with `k` inputs.
    pub(super) fn of(bytes: &'a [u8], scales: &'a [f16], panel: usize, k: usize) -> Self {
        let blocks = panel * k.div_ceil(BLOCK);
        Self { bytes: &bytes[blocks * BLOCK_BYTES..], scales: &scales[blocks * PANEL..] }
    }

    /// The value of input `s` and column `column`.
    pub(super) fn value(&self, s: usize, column: usize) -> f32 {
        let (block, s) = (s / BLOCK, s % BLOCK);
        let byte = self.bytes[block * BLOCK_BYTES + (s / 4 * PANEL + column) * 4 + s % 4];
        (i32::from(byte) - OFFSET) as f32 * self.scales[block * PANEL + column].to_f32()
    }
}

/// Rounds a block to bytes up to [`MOST`]; gives the scale with which they are multiplied, and their sum.
#[inline(always)]
fn round(values: &[f32; BLOCK], into: &mut [i8; BLOCK]) -> (f32, i32) {
    let largest = values.iter().map(|value| magnitude(*value)).fold(0, u32::max);
    let (scale, inverse) = scale_of(f32::from_bits(largest), MOST);
    let mut sum = 0i32;
    for (byte, value) in into.iter_mut().zip(values) {
        let rounded = whole(value * inverse + ROUND);
        *byte = rounded as i8;
        sum = sum.wrapping_add(rounded);
    }
    (scale, sum)
}

/// Rounded inputs of some rows.
pub(super) struct Inputs {
    /// `(rows, blocks, 32)`.
    bytes: Buffer<i8>,
    /// `(rows, blocks)`.
    scales: Buffer<f32>,
    /// `(rows, blocks)`: where a block's sum begins.
    begins: Buffer<i32>,
    /// `(rows, blocks)`: the sum of a block's rounded inputs, in floats.
    sums: Buffer<f32>,
}

impl Inputs {
    /// Rounds `x (rows, k)`; `k` is filled up with zeros to whole blocks.
    pub(super) fn round(isa: Isa, x: &[f32], rows: usize, k: usize) -> Self {
        let blocks = k.div_ceil(BLOCK);
        let n = rows * blocks;
        let mut inputs = Self {
            bytes: Buffer::zeroed(n * BLOCK),
            scales: Buffer::zeroed(n),
            begins: Buffer::zeroed(n),
            sums: Buffer::zeroed(n),
        };
        if n == 0 {
            return inputs;
        }
        let scales = inputs.scales.par_chunks_exact_mut(blocks).zip(inputs.begins.par_chunks_exact_mut(blocks));
        let scales = scales.zip(inputs.sums.par_chunks_exact_mut(blocks));
        let bytes = inputs.bytes.par_chunks_exact_mut(blocks * BLOCK).with_min_len(TASK_VALUES.div_ceil(k));
        x.par_chunks_exact(k).zip(bytes).zip(scales).for_each(|((x, bytes), ((scales, begins), sums))| {
            isa.run(
                #[inline(always)]
                || round_row(x, bytes, scales, (begins, sums)),
            );
        });
        inputs
    }
}

#[inline(always)]
fn round_row(x: &[f32], bytes: &mut [i8], scales: &mut [f32], (begins, sums): (&mut [i32], &mut [f32])) {
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let mut last = [0.0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let blocks = blocks.iter().chain((!rest.is_empty()).then_some(&last));
    let each = scales.iter_mut().zip(begins.iter_mut());
    for ((values, bytes), (scale, begin)) in blocks.zip(bytes.as_chunks_mut().0).zip(each) {
        let sum;
        (*scale, sum) = round(values, bytes);
        *begin = sum.wrapping_mul(-OFFSET);
    }
    for (sum, (scale, begin)) in sums.iter_mut().zip(scales.iter().zip(begins)) {
        *sum = *begin as f32 * (-1.0 / OFFSET as f32) * scale;
    }
}

/// Where weights lie, from a panel's block on.
#[derive(Clone, Copy)]
pub(super) struct Weights8 {
    /// Bytes, or levels of so many bits if tiles [take](takes_levels) them.
    pub(super) bytes: *const u8,
    pub(super) bits: Option<Bits>,
    pub(super) grids: *const f16,
    /// A block's grid is its columns' scales, and after them their least values.
    pub(super) least: bool,
}

/// Up to [`ROWS`] rows by [`PANEL`] columns, over `blocks` blocks.
#[derive(Clone, Copy)]
pub(super) struct Tile8 {
    pub(super) rows: usize,
    pub(super) blocks: usize,
    /// Row `i` begins at `i * row_blocks` blocks, in all four.
    pub(super) row_blocks: usize,
    pub(super) bytes: *const i8,
    pub(super) scales: *const f32,
    pub(super) begins: *const i32,
    pub(super) sums: *const f32,
    pub(super) weights: Weights8,
    /// Row `i` begins at `i * out_row`.
    pub(super) out: *mut f32,
    pub(super) out_row: usize,
    pub(super) start: Start,
    pub(super) fetch: Fetch,
}

/// Weights that a tile fetches for later while it computes each block: of those `ahead` blocks after it each `step`th line, from the `first` on, and who has the
/// first their grid; none if `step` is 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Fetch {
    pub(super) ahead: usize,
    pub(super) first: usize,
    pub(super) step: usize,
}

impl Tile8 {
    /// The products of `blocks` blocks from `block` on of `rows` rows from `row` on, of inputs with `row_blocks` blocks. Where they go is to be filled in.
    #[inline]
    pub(super) fn of(
        (inputs, row_blocks): (&Inputs, usize),
        (row, rows): (usize, usize),
        (block, blocks): (usize, usize),
        weights: Weights8,
        start: Start,
    ) -> Self {
        let at = row * row_blocks + block;
        Self {
            rows,
            blocks,
            row_blocks,
            bytes: inputs.bytes.as_ptr().wrapping_add(at * BLOCK),
            scales: inputs.scales.as_ptr().wrapping_add(at),
            begins: inputs.begins.as_ptr().wrapping_add(at),
            sums: inputs.sums.as_ptr().wrapping_add(at),
            weights,
            out: std::ptr::null_mut(),
            out_row: 0,
            start,
            fetch: Fetch::default(),
        }
    }

    /// Computes the tile with the instructions that `isa` and this machine have.
    ///
    /// # Safety
    ///
    /// All elements that the fields describe lie in live allocations, `out`'s are not accessed by others meanwhile, `rows` is 1 to [`ROWS`], and
    /// this machine has `isa`.
    #[expect(unsafe_code, reason = "tiles work on raw pointers")]
    #[inline]
    pub(super) unsafe fn run(&self, isa: Isa) {
        debug_assert!((1..=ROWS).contains(&self.rows));
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if takes_levels(isa) => unsafe { avx512::tile(self) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => unsafe { avx2::tile(self) },
            Isa::Portable => unsafe { portable(self) },
        }
    }
}

/// Whether tiles take levels as they are.
#[inline]
pub(super) fn takes_levels(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw"),
        _ => false,
    }
}

/// Widens whole blocks of levels to bytes, with `add` added.
///
/// # Panics
///
/// If `into` has no place for them.
pub(super) fn widen(isa: Isa, bits: Bits, packed: &[u8], add: u8, into: &mut [u8]) {
    match (isa, bits) {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the features were found")]
        (Isa::Avx512, Bits::Four) if takes_levels(isa) => unsafe { avx512::widen::<4>(packed, add, into) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "the features were found")]
        (Isa::Avx512, Bits::Five) if takes_levels(isa) => unsafe { avx512::widen::<5>(packed, add, into) },
        _ => levels::widen(isa, bits, packed, add, into),
    }
}

/// The tile in plain Rust.
#[expect(unsafe_code, reason = "raw pointers")]
unsafe fn portable(tile: &Tile8) {
    for i in 0..tile.rows {
        let at = i * tile.row_blocks;
        let (x, scales, begins, sums, out) = unsafe {
            (
                std::slice::from_raw_parts(tile.bytes.add(at * BLOCK), tile.blocks * BLOCK),
                std::slice::from_raw_parts(tile.scales.add(at), tile.blocks),
                std::slice::from_raw_parts(tile.begins.add(at), tile.blocks),
                std::slice::from_raw_parts(tile.sums.add(at), tile.blocks),
                std::slice::from_raw_parts_mut(tile.out.add(i * tile.out_row), PANEL),
            )
        };
        if tile.start == Start::Zero {
            out.fill(0.0);
        }
        for block in 0..tile.blocks {
            let grid = if tile.weights.least { 2 * PANEL } else { PANEL };
            let (weight, grid) = unsafe {
                (
                    std::slice::from_raw_parts(tile.weights.bytes.add(block * BLOCK_BYTES), BLOCK_BYTES),
                    std::slice::from_raw_parts(tile.weights.grids.add(block * grid), grid),
                )
            };
            for (column, out) in out.iter_mut().enumerate() {
                let product = |s: usize| {
                    i32::from(weight[(s / 4 * PANEL + column) * 4 + s % 4]) * i32::from(x[block * BLOCK + s])
                };
                let sum = begins[block] + (0..BLOCK).map(product).sum::<i32>();
                if tile.weights.least {
                    *out = sums[block].mul_add(grid[PANEL + column].to_f32(), *out);
                }
                *out = (sum as f32).mul_add(scales[block] * grid[column].to_f32(), *out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::multiply::tests::values;
    use super::*;

    /// A column's block by itself, and its scale.
    fn plain(block: &[f32; BLOCK]) -> ([i32; BLOCK], f32) {
        let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let tries = WEIGHT_MOST.map(|most| {
            let scale = f16::from_f32(largest / most).to_f32();
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            let bytes = block.map(|value| (value * inverse).clamp(-MOST, MOST).round_ties_even() as i32);
            let error = block.iter().zip(bytes).map(|(value, byte)| (value - byte as f32 * scale).abs());
            (error.fold(0.0, f32::max), bytes, scale)
        });
        let (_, bytes, scale) =
            tries.into_iter().reduce(|best, next| if next.0 < best.0 { next } else { best }).unwrap();
        (bytes, scale)
    }

    #[test]
    fn weights_are_rounded_with_the_least_error_on_every_instruction_set() {
        let mut which = [0; WEIGHT_MOST.len()];
        for (seed, k) in [(1, 32), (2, 96), (3, 50), (4, 1)] {
            let mut panel = values(k * PANEL, seed);
            // Multiples of an eighth and of a sixteenth, as GGUF's types have them; zeros; what is nearly zero.
            for (s, input) in panel.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                input[1] = (s as f32 % 16.0 - 8.0) * 0.37;
                input[2] = (s as f32 % 32.0 - 16.0) * 0.11;
                (input[3], input[4]) = (0.0, 1e-31);
            }
            for isa in Isa::available() {
                let blocks = k.div_ceil(BLOCK);
                let (mut bytes, mut scales) = (vec![0; blocks * BLOCK_BYTES], vec![f16::ZERO; blocks * PANEL]);
                pack_panel(isa, &panel, &mut bytes, &mut scales);
                for (block, column) in (0..blocks).flat_map(|block| (0..PANEL).map(move |column| (block, column))) {
                    let value = |s| panel.get((block * BLOCK + s) * PANEL + column).copied().unwrap_or(0.0);
                    let (expected, scale) = plain(&std::array::from_fn(value));
                    let found = std::array::from_fn(|s| {
                        i32::from(bytes[block * BLOCK_BYTES + (s / 4 * PANEL + column) * 4 + s % 4]) - OFFSET
                    });
                    assert_eq!(
                        (found, scales[block * PANEL + column].to_f32()),
                        (expected, scale),
                        "{isa:?}, {k}, {column}"
                    );
                    let most = expected.into_iter().map(i32::abs).max().unwrap();
                    which.iter_mut().zip(WEIGHT_MOST).for_each(|(n, of)| *n += usize::from(most == of as i32));
                }
            }
        }
        assert!(which.iter().all(|n| *n > 10), "{which:?}");
    }

    #[test]
    fn what_is_no_number_is_none_when_it_is_rounded() {
        let mut panel = vec![1.0; BLOCK * PANEL];
        (panel[PANEL], panel[5 * PANEL + 1]) = (f32::NAN, f32::INFINITY);
        let (mut bytes, mut scales) = (vec![0; BLOCK_BYTES], vec![f16::ZERO; PANEL]);
        pack_panel(Isa::best(), &panel, &mut bytes, &mut scales);
        assert!(
            scales[..2].iter().all(|scale| !scale.is_finite())
                && scales[2..].iter().all(|scale| *scale == f16::from_f32(1.0 / 64.0))
        );
    }
}

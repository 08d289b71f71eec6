//! Weights of eight-bit products that are kept in four or five bits, as GGUF's types of so many bits have them: a block of 32 inputs of an output is a
//! scale and levels from 0 to 15 or 31, of which the middle one is zero or the first one is a least value.
//!
//! They are read in little more than half the time, which is all that counts with one row. Tiles with AVX-512 take them as they are; for the others
//! they are widened to bytes, a few blocks at a time.

#![expect(clippy::inline_always, reason = "bodies must be compiled anew for each instruction set that calls them")]

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::Isa;
use super::buffer::Buffer;
use super::int8::{self, BLOCK, BLOCK_BYTES, OFFSET};
use super::tile::PANEL;

/// Bits of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// 16 levels.
    Four,
    /// 32 levels.
    Five,
}

/// How the blocks of a weight are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Of a level.
    pub bits: Bits,
    /// The first level is a value of the block's own; if not, the middle level is zero.
    pub least: bool,
}

/// Bytes of a block's low four bits: of the first half of its inputs, and above them of the second.
const LOW: usize = BLOCK_BYTES / 2;
/// Bytes of a block's fifth bits: bit `p` of byte `j` is of byte `p * HIGH + j`.
const HIGH: usize = BLOCK_BYTES / 8;
/// How far off its level a value may be, of the step between levels.
const OFF: f32 = 0.01;

impl Bits {
    /// Bytes of a block of a panel.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::Four => LOW,
            Self::Five => LOW + HIGH,
        }
    }

    /// The level in the middle, half of all.
    fn middle(self) -> i8 {
        match self {
            Self::Four => 8,
            Self::Five => 16,
        }
    }
}

impl Form {
    /// Half floats of a block of a panel: its columns' scales, and their least values if it has them.
    pub(super) fn grid_values(self) -> usize {
        if self.least { 2 * PANEL } else { PANEL }
    }
}

/// A packed weight: its panels' blocks, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    pub(super) form: Form,
    /// `[blocks]` of [`Bits::block_bytes`].
    pub(super) bytes: Buffer<u8>,
    /// `[blocks]` of [`Form::grid_values`].
    pub(super) grids: Buffer<f16>,
}

/// Packs a panel `[k][32]` into `bytes` and `grids` of its blocks; says whether all of them have so few levels.
pub(super) fn pack_panel(isa: Isa, form: Form, panel: &[f32], bytes: &mut [u8], grids: &mut [f16]) -> bool {
    isa.run(
        #[inline(always)]
        || pack_blocks(form, panel, bytes, grids),
    )
}

#[inline(always)]
fn pack_blocks(form: Form, panel: &[f32], bytes: &mut [u8], grids: &mut [f16]) -> bool {
    let blocks = bytes.chunks_exact_mut(form.bits.block_bytes()).zip(grids.chunks_exact_mut(form.grid_values()));
    for (values, (bytes, halves)) in panel.chunks(BLOCK * PANEL).zip(blocks) {
        // The last block may be short; what is not there is what the first input has.
        let mut block = [[0.0; PANEL]; BLOCK];
        block.fill(*values.first_chunk().expect("a block has an input"));
        block.as_flattened_mut()[..values.len()].copy_from_slice(values);
        let Some(grid) = Grid::of(form, &block) else { return false };
        let (scales, leasts) = halves.split_at_mut(PANEL);
        scales.convert_from_f32_slice(&grid.scale);
        if form.least {
            leasts.convert_from_f32_slice(&grid.least);
        }
        let mut levels = [0; BLOCK_BYTES];
        for (s, input) in block.iter().enumerate() {
            for (column, value) in input.iter().enumerate() {
                let level = (value - grid.least[column]) * grid.inverse[column] + 0.5;
                levels[(s / 4 * PANEL + column) * 4 + s % 4] = level as u8;
            }
        }
        for (j, byte) in bytes[..LOW].iter_mut().enumerate() {
            *byte = levels[j] & 15 | (levels[LOW + j] & 15) << 4;
        }
        for (j, byte) in bytes[LOW..].iter_mut().enumerate() {
            *byte = (0..8).map(|p| (levels[p * HIGH + j] >> 4) << p).sum();
        }
    }
    true
}

/// The levels of a block's columns.
struct Grid {
    least: [f32; PANEL],
    scale: [f32; PANEL],
    inverse: [f32; PANEL],
}

impl Grid {
    /// None if a column has more levels, or what is no number.
    #[inline(always)]
    fn of(form: Form, block: &[[f32; PANEL]; BLOCK]) -> Option<Self> {
        if !block.as_flattened().iter().fold(true, |finite, value| finite & value.is_finite()) {
            return None;
        }
        let (mut least, mut largest) = (block[0], block[0]);
        for input in block {
            for (column, value) in input.iter().enumerate() {
                least[column] = least[column].min(*value);
                largest[column] = largest[column].max(*value);
            }
        }
        let middle = f32::from(form.bits.middle());
        if form.least {
            return Self::above(least, largest, block, 2.0 * middle - 1.0);
        }
        let mut sizes = *block;
        sizes.as_flattened_mut().iter_mut().for_each(|value| *value = value.abs());
        let mut most = [0.0; PANEL];
        for (most, (least, largest)) in most.iter_mut().zip(least.iter().zip(&largest)) {
            *most = largest.max(-least);
        }
        let mut grid = Self::above([0.0; PANEL], most, &sizes, middle)?;
        for column in 0..PANEL {
            // There is one level more below the middle than above it.
            if largest[column] * grid.inverse[column] > middle - 0.5 {
                if least[column] * grid.inverse[column] < 0.5 - middle {
                    return None;
                }
                (grid.scale[column], grid.inverse[column]) = (-grid.scale[column], -grid.inverse[column]);
            }
            grid.least[column] = -middle * grid.scale[column];
        }
        Some(grid)
    }

    /// Levels from `least` on, up to number `most`. The step between them divides the distance of the two least: it is the largest that does for all.
    #[inline(always)]
    fn above(least: [f32; PANEL], largest: [f32; PANEL], block: &[[f32; PANEL]; BLOCK], most: f32) -> Option<Self> {
        let mut gap = [f32::INFINITY; PANEL];
        for input in block {
            for (column, value) in input.iter().enumerate() {
                let (above, range) = (value - least[column], largest[column] - least[column]);
                let is_another = above > range * (OFF / most);
                gap[column] = gap[column].min(if is_another { above } else { f32::INFINITY });
            }
        }
        let mut grid = Self { least, scale: [0.0; PANEL], inverse: [0.0; PANEL] };
        let mut found = [false; PANEL];
        for (column, found) in found.iter_mut().enumerate() {
            // All values alike.
            *found = gap[column] == f32::INFINITY;
        }
        for parts in 1..=most as u32 {
            if found.iter().all(|found| *found) {
                break;
            }
            let (mut scale, mut inverse, mut off) = ([0.0; PANEL], [0.0; PANEL], [0.0f32; PANEL]);
            for column in 0..PANEL {
                let range = largest[column] - least[column];
                let steps = (range / gap[column] * parts as f32).round_ties_even();
                (scale[column], inverse[column]) = (range / steps, steps / range);
                off[column] = if steps <= most { 0.0 } else { 1.0 };
            }
            for input in block {
                for (column, value) in input.iter().enumerate() {
                    let level = (value - least[column]) * inverse[column];
                    off[column] = off[column].max((level - level.round_ties_even()).abs());
                }
            }
            for column in 0..PANEL {
                if !found[column] && off[column] < OFF {
                    (found[column], grid.scale[column], grid.inverse[column]) = (true, scale[column], inverse[column]);
                }
            }
        }
        found.iter().all(|found| *found).then_some(grid)
    }
}

/// A packed panel.
pub(super) struct Panel<'a> {
    form: Form,
    bytes: &'a [u8],
    grids: &'a [f16],
}

impl Levels {
    /// What lies from block `block` on.
    pub(super) fn panel(&self, block: usize) -> Panel<'_> {
        let (bytes, grids) = (block * self.form.bits.block_bytes(), block * self.form.grid_values());
        Panel { form: self.form, bytes: &self.bytes[bytes..], grids: &self.grids[grids..] }
    }
}

impl Panel<'_> {
    /// The value of input `s` and column `column`.
    pub(super) fn value(&self, s: usize, column: usize) -> f32 {
        let (block, s) = (s / BLOCK, s % BLOCK);
        let bytes = &self.bytes[block * self.form.bits.block_bytes()..];
        let at = (s / 4 * PANEL + column) * 4 + s % 4;
        let low = if at < LOW { bytes[at] & 15 } else { bytes[at - LOW] >> 4 };
        let level = match self.form.bits {
            Bits::Four => low,
            Bits::Five => low | (bytes[LOW + at % HIGH] >> (at / HIGH) & 1) << 4,
        };
        let grid = &self.grids[block * self.form.grid_values()..];
        let scale = grid[column].to_f32();
        if self.form.least {
            f32::from(level).mul_add(scale, grid[PANEL + column].to_f32())
        } else {
            f32::from(level.wrapping_sub(self.form.bits.middle() as u8) as i8) * scale
        }
    }

    /// Widens the first `blocks` blocks to bytes of eight-bit weights.
    pub(super) fn widen(&self, isa: Isa, blocks: usize, bytes: &mut [u8]) {
        let (bits, packed) = (self.form.bits, &self.bytes[..blocks * self.form.bits.block_bytes()]);
        let add = OFFSET as u8 - if self.form.least { 0 } else { bits.middle() as u8 };
        int8::widen(isa, bits, packed, add, bytes);
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    pub(super) fn bytes(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(super) fn grids(&self) -> *const f16 {
        self.grids.as_ptr()
    }
}

/// As [`int8::widen`], by the compiler's own vectorisation.
pub(super) fn widen(isa: Isa, bits: Bits, packed: &[u8], add: u8, bytes: &mut [u8]) {
    isa.run(
        #[inline(always)]
        || match bits {
            Bits::Four => widen_blocks::<LOW>(packed, add, bytes),
            Bits::Five => widen_blocks::<{ LOW + HIGH }>(packed, add, bytes),
        },
    );
}

#[inline(always)]
fn widen_blocks<const SIZE: usize>(packed: &[u8], add: u8, bytes: &mut [u8]) {
    for (packed, bytes) in packed.as_chunks::<SIZE>().0.iter().zip(bytes.as_chunks_mut::<BLOCK_BYTES>().0) {
        let (low, high) = packed.split_at(LOW);
        let (first, second) = bytes.split_at_mut(LOW);
        for ((first, second), low) in first.iter_mut().zip(second).zip(low) {
            (*first, *second) = ((low & 15) + add, (low >> 4) + add);
        }
        if SIZE > LOW {
            for (p, bytes) in bytes.as_chunks_mut::<HIGH>().0.iter_mut().enumerate() {
                bytes.iter_mut().zip(high).for_each(|(byte, high)| *byte += (high >> p & 1) << 4);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Packed;
    use super::super::multiply::tests::values;
    use super::*;

    const FORMS: [Form; 4] = [
        Form { bits: Bits::Four, least: false },
        Form { bits: Bits::Four, least: true },
        Form { bits: Bits::Five, least: false },
        Form { bits: Bits::Five, least: true },
    ];

    /// Rows of `k` values on levels of their own for each block, some of which may be missing.
    pub(in super::super) fn on_levels(form: Form, n: usize, k: usize) -> Vec<f32> {
        let middle = form.bits.middle() as usize;
        let value = |at: usize| {
            let block = at / k * k.div_ceil(BLOCK) + at % k / BLOCK;
            let step = f16::from_f32(0.002 + (block % 13) as f32 * 0.0011).to_f32();
            let level = at * 7919 % (1 + block % (2 * middle));
            if form.least {
                level as f32 * step - (block % 7) as f32 * 0.013
            } else {
                (level as f32 - middle as f32) * if block.is_multiple_of(2) { step } else { -step }
            }
        };
        (0..n * k).map(value).collect()
    }

    fn pack(form: Form, weight: &[f32], n: usize, k: usize) -> Option<Packed> {
        let part = |rows: std::ops::Range<usize>| Ok::<_, ()>(weight[rows.start * k..rows.end * k].to_vec());
        Packed::from_levels((n, k), form, PANEL, part).unwrap()
    }

    #[test]
    fn levels_are_kept_but_for_the_rounding_of_scale_and_least() {
        for form in FORMS {
            for (n, k) in [(1, 1), (32, 32), (40, 50), (33, 831), (64, 1600)] {
                let weight = on_levels(form, n, k);
                let packed = pack(form, &weight, n, k).expect("the values are on levels");
                let off = if form.least { 3e-4 } else { 1e-8 };
                for (at, (value, kept)) in weight.iter().zip(packed.unpack()).enumerate() {
                    assert!((value - kept).abs() < off, "{form:?} {n}x{k} at {at}: {kept} for {value}");
                }
                assert!(n * k < 1024 || packed.bytes() < n.next_multiple_of(PANEL) * k.next_multiple_of(BLOCK) * 7 / 8);
                let turned = packed.transposed().unpack();
                let kept: Vec<f32> = (0..n * k).map(|at| turned[at % k * n + at / k]).collect();
                assert_eq!(kept, packed.unpack(), "turned");
            }
        }
    }

    #[test]
    fn what_has_more_levels_is_not_taken() {
        let (n, k) = (40, 96);
        for least in [false, true] {
            let [four, five] = [Bits::Four, Bits::Five].map(|bits| Form { bits, least });
            assert!(pack(five, &values(n * k, 1), n, k).is_none());
            let mut weight = on_levels(four, n, k);
            weight[39 * k + 70] += 0.0004;
            assert!(pack(four, &weight, n, k).is_none(), "one value off its level");
            weight[39 * k + 70] = f32::NAN;
            assert!(pack(four, &weight, n, k).is_none(), "no number");
            assert!(pack(four, &on_levels(five, n, k), n, k).is_none(), "32 levels");
        }
        // As far above zero as below it: one level too many, unless the levels may begin anywhere.
        let weight: Vec<f32> = (0..BLOCK).map(|s| (s % 17) as f32 - 8.0).collect();
        assert!(pack(Form { bits: Bits::Four, least: false }, &weight, 1, BLOCK).is_none());
        assert!(pack(Form { bits: Bits::Four, least: true }, &weight, 1, BLOCK).is_none());
        assert!(pack(Form { bits: Bits::Five, least: false }, &weight, 1, BLOCK).is_some());
    }

    #[test]
    fn packing_and_widening_are_the_same_on_every_instruction_set() {
        for form in FORMS {
            let weight = on_levels(form, PANEL, 100);
            let panel: Vec<f32> = (0..100 * PANEL).map(|at| weight[at % PANEL * 100 + at / PANEL]).collect();
            let runs: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| {
                    let mut bytes = vec![0; 4 * form.bits.block_bytes()];
                    let mut grids = vec![f16::ZERO; 4 * form.grid_values()];
                    assert!(pack_panel(isa, form, &panel, &mut bytes, &mut grids));
                    let mut wide = vec![0; 4 * BLOCK_BYTES];
                    Panel { form, bytes: &bytes, grids: &grids }.widen(isa, 4, &mut wide);
                    (bytes, grids, wide)
                })
                .collect();
            assert!(runs.iter().all(|run| *run == runs[0]), "{form:?}");
        }
    }
}

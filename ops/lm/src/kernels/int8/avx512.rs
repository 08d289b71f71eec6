//! Tiles in eight bits with AVX-512's dot products of bytes.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi8, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi16, _mm512_srli_epi16,
    _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::super::avx512::sixteen;
use super::{BLOCK, BLOCK_BYTES, Bits, Fetch, PANEL, Start, Tile8};

/// Bytes that are fetched at a time.
const LINE: usize = 64;

/// Computes one tile.
///
/// # Safety
///
/// As [`Tile8::run`]; the machine has AVX-512 F, BW and VNNI.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn tile(tile: &Tile8) {
    unsafe {
        match (tile.weights.bits, tile.weights.least) {
            (None, false) => any_rows::<8, false>(tile),
            (None, true) => any_rows::<8, true>(tile),
            (Some(Bits::Four), false) => any_rows::<4, false>(tile),
            (Some(Bits::Four), true) => any_rows::<4, true>(tile),
            (Some(Bits::Five), false) => any_rows::<5, false>(tile),
            (Some(Bits::Five), true) => any_rows::<5, true>(tile),
        }
    }
}

#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn any_rows<const BITS: usize, const LEAST: bool>(tile: &Tile8) {
    unsafe {
        match tile.rows {
            1 => rows::<1, BITS, LEAST>(tile),
            2 => rows::<2, BITS, LEAST>(tile),
            3 => rows::<3, BITS, LEAST>(tile),
            4 => rows::<4, BITS, LEAST>(tile),
            5 => rows::<5, BITS, LEAST>(tile),
            _ => rows::<6, BITS, LEAST>(tile),
        }
    }
}

#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rows<const ROWS: usize, const BITS: usize, const LEAST: bool>(tile: &Tile8) {
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        if tile.start == Start::Out {
            for (i, sum) in sums.iter_mut().enumerate() {
                let out = tile.out.add(i * tile.out_row);
                *sum = [_mm512_loadu_ps(out), _mm512_loadu_ps(out.add(16))];
            }
        }
        // Of four inputs; below eight bits there are two in a byte. Were it known, the loop would be unrolled, and the sums would leave their registers for each block.
        let groups = std::hint::black_box(if BITS == 8 { BLOCK / 4 } else { BLOCK / 8 });
        for block in 0..tile.blocks {
            let mut dots = [[_mm512_set1_epi32(0); 2]; ROWS];
            for (i, dot) in dots.iter_mut().enumerate() {
                if BITS == 8 || !LEAST {
                    // Made for 128 that was added; of levels it is the middle one, 8 or 16.
                    let begin = *tile.begins.add(i * tile.row_blocks + block) >> (8 - BITS);
                    *dot = [_mm512_set1_epi32(begin); 2];
                }
            }
            let x = |i: usize, group: usize| {
                let x = tile.bytes.add((i * tile.row_blocks + block) * BLOCK + 4 * group);
                _mm512_set1_epi32(x.cast::<i32>().read_unaligned())
            };
            let weight = tile.weights.bytes.add(block * BITS * BLOCK_BYTES / 8);
            let grid_values = if LEAST { 2 * PANEL } else { PANEL };
            let grid: *const u8 = tile.weights.grids.add(block * grid_values).cast();
            let Fetch { ahead, first, step } = tile.fetch;
            if step > 0 {
                for line in (first..BITS * BLOCK_BYTES / 8 / LINE).step_by(step) {
                    fetch(weight.wrapping_add(ahead * BITS * BLOCK_BYTES / 8 + line * LINE));
                }
                if first == 0 {
                    for line in 0..2 * grid_values / LINE {
                        fetch(grid.wrapping_add(ahead * 2 * grid_values + line * LINE));
                    }
                }
            }
            let mut fifths = Fifths::of::<BITS>(weight);
            for group in 0..groups {
                if BITS == 8 {
                    let some = two(weight.add(group * 4 * PANEL));
                    for (i, dot) in dots.iter_mut().enumerate() {
                        add(dot, some, x(i, group));
                    }
                    continue;
                }
                let (low, high) = unpack::<BITS>(weight, group, &mut fifths);
                for (i, dot) in dots.iter_mut().enumerate() {
                    add(dot, low, x(i, group));
                    add(dot, high, x(i, group + BLOCK / 8));
                }
            }
            if LEAST {
                let (low, high) = (sixteen::<true>(grid, PANEL), sixteen::<true>(grid, PANEL + 16));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let inputs = _mm512_set1_ps(*tile.sums.add(i * tile.row_blocks + block));
                    sum[0] = _mm512_fmadd_ps(inputs, low, sum[0]);
                    sum[1] = _mm512_fmadd_ps(inputs, high, sum[1]);
                }
            }
            let (low, high) = (sixteen::<true>(grid, 0), sixteen::<true>(grid, 16));
            for (i, (sum, dot)) in sums.iter_mut().zip(&dots).enumerate() {
                let scale = _mm512_set1_ps(*tile.scales.add(i * tile.row_blocks + block));
                sum[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[0]), _mm512_mul_ps(scale, low), sum[0]);
                sum[1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[1]), _mm512_mul_ps(scale, high), sum[1]);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            let out = tile.out.add(i * tile.out_row);
            _mm512_storeu_ps(out, sum[0]);
            _mm512_storeu_ps(out.add(16), sum[1]);
        }
    }
}

/// Has the line at `address`, which need not exist, brought into the first cache.
#[inline]
fn fetch(address: *const u8) {
    #[expect(unsafe_code, reason = "a hint, which reads nothing")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
}

/// 128 bytes.
#[expect(unsafe_code, reason = "a raw pointer and machine instructions")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn two(bytes: *const u8) -> [__m512i; 2] {
    unsafe { [_mm512_loadu_si512(bytes.cast()), _mm512_loadu_si512(bytes.add(64).cast())] }
}

/// Adds four inputs' products in each column.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn add(dots: &mut [__m512i; 2], weights: [__m512i; 2], inputs: __m512i) {
    dots[0] = _mm512_dpbusd_epi32(dots[0], weights[0], inputs);
    dots[1] = _mm512_dpbusd_epi32(dots[1], weights[1], inputs);
}

/// The fifth bits of a block's levels, where there are such: in each byte, that of the next group as its fifth bit. Other bits are of other groups.
struct Fifths {
    /// Of groups below the fourth.
    low: [__m512i; 2],
    /// Of those from it on.
    high: [__m512i; 2],
}

impl Fifths {
    #[expect(unsafe_code, reason = "a raw pointer")]
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn of<const BITS: usize>(block: *const u8) -> Self {
        if BITS != 5 {
            return Self { low: [_mm512_setzero_si512(); 2], high: [_mm512_setzero_si512(); 2] };
        }
        // Bit `p` is of group `p`.
        let high = unsafe { two(block.add(BLOCK_BYTES / 2)) };
        Self { low: high.map(|bits| _mm512_slli_epi16::<4>(bits)), high }
    }
}

/// A block's levels of a group and of the fourth after it; the groups one after the other, as `fifths` goes from one to the next.
#[expect(unsafe_code, reason = "a raw pointer and machine instructions")]
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn unpack<const BITS: usize>(
    block: *const u8,
    group: usize,
    fifths: &mut Fifths,
) -> ([__m512i; 2], [__m512i; 2]) {
    let some = unsafe { two(block.add(group * 4 * PANEL)) };
    let mut low = some.map(|some| _mm512_and_si512(some, _mm512_set1_epi8(15)));
    let mut high = some.map(|some| _mm512_and_si512(_mm512_srli_epi16::<4>(some), _mm512_set1_epi8(15)));
    if BITS == 5 {
        for (levels, fifths) in [(&mut low, &mut fifths.low), (&mut high, &mut fifths.high)] {
            for (levels, fifths) in levels.iter_mut().zip(fifths) {
                *levels = _mm512_or_si512(*levels, _mm512_and_si512(*fifths, _mm512_set1_epi8(16)));
                *fifths = _mm512_srli_epi16::<1>(*fifths);
            }
        }
    }
    (low, high)
}

/// Widens whole blocks of levels to bytes, with `add` added.
///
/// # Safety
///
/// The machine has AVX-512 F and BW.
///
/// # Panics
///
/// If `bytes` has fewer blocks than `packed`.
#[expect(unsafe_code, reason = "machine instructions")]
#[target_feature(enable = "avx512f,avx512bw")]
pub(in super::super) unsafe fn widen<const BITS: usize>(packed: &[u8], add: u8, bytes: &mut [u8]) {
    let packed = packed.chunks_exact(BITS * BLOCK_BYTES / 8);
    let bytes = &mut bytes.as_chunks_mut::<BLOCK_BYTES>().0[..packed.len()];
    let add = _mm512_set1_epi8(add as i8);
    for (packed, bytes) in packed.zip(bytes) {
        let mut fifths = unsafe { Fifths::of::<BITS>(packed.as_ptr()) };
        for group in 0..BLOCK / 8 {
            unsafe {
                let (low, high) = unpack::<BITS>(packed.as_ptr(), group, &mut fifths);
                for (some, group) in [(low, group), (high, group + BLOCK / 8)] {
                    let to = bytes.as_mut_ptr().add(group * 4 * PANEL);
                    _mm512_storeu_si512(to.cast(), _mm512_add_epi8(some[0], add));
                    _mm512_storeu_si512(to.add(64).cast(), _mm512_add_epi8(some[1], add));
                }
            }
        }
    }
}

//! Tiles in eight bits with AVX2, whose own product of bytes saturates: bytes are widened to sixteen bits first.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_set1_epi32, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi16, _mm256_fmadd_ps, _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_madd_epi16, _mm256_mul_ps,
    _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_storeu_ps,
};

use super::super::avx2::eight;
use super::{BLOCK, BLOCK_BYTES, PANEL, Start, Tile8};

/// Rows of a part.
const PART: usize = 3;

/// Computes one tile, eight columns and three rows at a time.
///
/// # Safety
///
/// As [`Tile8::run`]; the machine has AVX2, FMA and F16C.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile(tile: &Tile8) {
    unsafe {
        for first in (0..tile.rows).step_by(PART) {
            for column in (0..PANEL).step_by(8) {
                match (tile.rows - first).min(PART) {
                    1 => part::<1>(tile, first, column),
                    2 => part::<2>(tile, first, column),
                    _ => part::<3>(tile, first, column),
                }
            }
        }
    }
}

#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn part<const ROWS: usize>(tile: &Tile8, first: usize, column: usize) {
    unsafe {
        let out = |i: usize| tile.out.add((first + i) * tile.out_row + column);
        let mut sums = [_mm256_setzero_ps(); ROWS];
        if tile.start == Start::Out {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(out(i));
            }
        }
        for block in 0..tile.blocks {
            let at = |i: usize| (first + i) * tile.row_blocks + block;
            // Sums of two inputs each: of four columns, and of the four after them.
            let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
            for group in 0..BLOCK / 4 {
                let weight = tile.weights.bytes.add(block * BLOCK_BYTES + (group * PANEL + column) * 4);
                let (low, high) = (wide(weight), wide(weight.add(16)));
                for (i, dot) in dots.iter_mut().enumerate() {
                    let x = tile.bytes.add(at(i) * BLOCK + 4 * group).cast::<i32>().read_unaligned();
                    let x = _mm256_cvtepi8_epi16(_mm_set1_epi32(x));
                    dot[0] = _mm256_add_epi32(dot[0], _mm256_madd_epi16(low, x));
                    dot[1] = _mm256_add_epi32(dot[1], _mm256_madd_epi16(high, x));
                }
            }
            let grid = if tile.weights.least { 2 * PANEL } else { PANEL };
            let grid = tile.weights.grids.add(block * grid).cast();
            let scales = eight::<true>(grid, column);
            if tile.weights.least {
                let leasts = eight::<true>(grid, PANEL + column);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_fmadd_ps(_mm256_set1_ps(*tile.sums.add(at(i))), leasts, *sum);
                }
            }
            for (i, (sum, dot)) in sums.iter_mut().zip(&dots).enumerate() {
                let pairs = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(dot[0], dot[1]));
                let dot = _mm256_add_epi32(pairs, _mm256_set1_epi32(*tile.begins.add(at(i))));
                let scale = _mm256_mul_ps(_mm256_set1_ps(*tile.scales.add(at(i))), scales);
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            _mm256_storeu_ps(out(i), *sum);
        }
    }
}

/// Sixteen bytes as sixteen-bit numbers: four inputs of four columns.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[expect(clippy::cast_ptr_alignment, reason = "the load is an unaligned one")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn wide(bytes: *const u8) -> __m256i {
    unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.cast::<__m128i>())) }
}

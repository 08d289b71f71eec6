//! Tiles with AVX2 and FMA: six rows by sixteen columns at a time, of the tile's twelve by 32.
#![expect(
    clippy::cast_ptr_alignment,
    reason = "panels hold whole values; loads that need alignment are unaligned ones"
)]

use std::arch::x86_64::{
    __m128i, __m256, _mm_loadu_si128, _mm256_broadcast_ss, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::tile::{HALF_PANEL, PANEL, Start, Tile};

/// Rows of a part: with two registers of columns, 12 of AVX2's 16 registers hold sums.
const PART: usize = 6;

/// Computes one tile, part by part.
///
/// # Safety
///
/// As [`Tile::run`]; the machine has AVX2, FMA and F16C.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile(tile: &Tile) {
    unsafe {
        for first in (0..tile.rows).step_by(PART) {
            for column in (0..if tile.narrow { HALF_PANEL } else { PANEL }).step_by(16) {
                let size = if tile.half { 2 } else { 4 };
                let part = Tile {
                    rows: PART.min(tile.rows - first),
                    left: tile.left.add(first * tile.left_row),
                    right: tile.right.add(column * size),
                    out: tile.out.add(first * tile.out_row + column),
                    ..*tile
                };
                if tile.half { rows::<true>(&part) } else { rows::<false>(&part) }
            }
        }
    }
}

#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const HALF: bool>(part: &Tile) {
    unsafe {
        match part.rows {
            1 => chains::<1, HALF>(part),
            2 => chains::<2, HALF>(part),
            3 => chains::<3, HALF>(part),
            4 => chains::<4, HALF>(part),
            5 => chains::<5, HALF>(part),
            _ => chains::<6, HALF>(part),
        }
    }
}

/// The chains of `ROWS` rows: two sums of eight lanes each.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn chains<const ROWS: usize, const HALF: bool>(part: &Tile) {
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        if part.start == Start::Out {
            for (i, sum) in sums.iter_mut().enumerate() {
                let out = part.out.add(i * part.out_row);
                *sum = [_mm256_loadu_ps(out), _mm256_loadu_ps(out.add(8))];
            }
        }
        let bytes = part.right_step * if HALF { 2 } else { 4 };
        let mut left = part.left;
        let mut right = part.right;
        for _ in 0..part.k {
            let low = eight::<HALF>(right, 0);
            let high = eight::<HALF>(right, 8);
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*left.add(i * part.left_row));
                sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
            }
            left = left.wrapping_add(part.left_step);
            right = right.wrapping_add(bytes);
        }
        for (i, sum) in sums.iter().enumerate() {
            let out = part.out.add(i * part.out_row);
            _mm256_storeu_ps(out, sum[0]);
            _mm256_storeu_ps(out.add(8), sum[1]);
        }
    }
}

/// Eight values of the right operand, from element `at`.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn eight<const HALF: bool>(right: *const u8, at: usize) -> __m256 {
    unsafe {
        if HALF {
            _mm256_cvtph_ps(_mm_loadu_si128(right.add(2 * at).cast::<__m128i>()))
        } else {
            _mm256_loadu_ps(right.add(4 * at).cast::<f32>())
        }
    }
}

//! Tiles with AVX-512: up to twelve rows by two registers of sixteen columns.
#![expect(
    clippy::cast_ptr_alignment,
    reason = "panels hold whole values; loads that need alignment are unaligned ones"
)]

use std::arch::x86_64::{
    __m256i, __m512, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::tile::{Start, Tile};

/// Computes one tile.
///
/// # Safety
///
/// As [`Tile::run`]; the machine has AVX-512 F.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile(tile: &Tile) {
    unsafe {
        match tile.rows {
            1 => rows::<1>(tile),
            2 => rows::<2>(tile),
            3 => rows::<3>(tile),
            4 => rows::<4>(tile),
            5 => rows::<5>(tile),
            6 => rows::<6>(tile),
            7 => rows::<7>(tile),
            8 => rows::<8>(tile),
            9 => rows::<9>(tile),
            10 => rows::<10>(tile),
            11 => rows::<11>(tile),
            _ => rows::<12>(tile),
        }
    }
}

#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f")]
unsafe fn rows<const ROWS: usize>(tile: &Tile) {
    unsafe {
        match (tile.half, tile.narrow) {
            (false, false) => chains::<ROWS, 2, false>(tile),
            (true, false) => chains::<ROWS, 2, true>(tile),
            (false, true) => chains::<ROWS, 1, false>(tile),
            (true, true) => chains::<ROWS, 1, true>(tile),
        }
    }
}

/// The chains of `ROWS` rows: one or two sums of sixteen lanes each.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f")]
unsafe fn chains<const ROWS: usize, const WIDE: usize, const HALF: bool>(tile: &Tile) {
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); WIDE]; ROWS];
        if tile.start == Start::Out {
            for (i, sum) in sums.iter_mut().enumerate() {
                let out = tile.out.add(i * tile.out_row);
                *sum = std::array::from_fn(|at| _mm512_loadu_ps(out.add(16 * at)));
            }
        }
        let bytes = tile.right_step * if HALF { 2 } else { 4 };
        let mut left = tile.left;
        let mut right = tile.right;
        for _ in 0..tile.k {
            _mm_prefetch::<_MM_HINT_T0>(right.wrapping_add(tile.ahead).cast());
            let weights: [__m512; WIDE] = std::array::from_fn(|at| sixteen::<HALF>(right, 16 * at));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*left.add(i * tile.left_row));
                for (sum, weight) in sum.iter_mut().zip(weights) {
                    *sum = _mm512_fmadd_ps(x, weight, *sum);
                }
            }
            left = left.wrapping_add(tile.left_step);
            right = right.wrapping_add(bytes);
        }
        for (i, sum) in sums.iter().enumerate() {
            let out = tile.out.add(i * tile.out_row);
            for (at, sum) in sum.iter().enumerate() {
                _mm512_storeu_ps(out.add(16 * at), *sum);
            }
        }
    }
}

/// Sixteen values of the right operand, from element `at`.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn sixteen<const HALF: bool>(right: *const u8, at: usize) -> __m512 {
    unsafe {
        if HALF {
            _mm512_cvtph_ps(_mm256_loadu_si256(right.add(2 * at).cast::<__m256i>()))
        } else {
            _mm512_loadu_ps(right.add(4 * at).cast::<f32>())
        }
    }
}

//! Tiles in eight bits with AVX-512's dot products of bytes.

use std::arch::x86_64::{
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::super::avx512::sixteen;
use super::{BLOCK, BLOCK_BYTES, PANEL, Start, Tile8};

/// Computes one tile.
///
/// # Safety
///
/// As [`Tile8::run`]; the machine has AVX-512 F and VNNI.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn tile(tile: &Tile8) {
    unsafe {
        match tile.rows {
            1 => rows::<1>(tile),
            2 => rows::<2>(tile),
            3 => rows::<3>(tile),
            4 => rows::<4>(tile),
            5 => rows::<5>(tile),
            _ => rows::<6>(tile),
        }
    }
}

#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn rows<const ROWS: usize>(tile: &Tile8) {
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        if tile.start == Start::Out {
            for (i, sum) in sums.iter_mut().enumerate() {
                let out = tile.out.add(i * tile.out_row);
                *sum = [_mm512_loadu_ps(out), _mm512_loadu_ps(out.add(16))];
            }
        }
        // Were it known, the loop would be unrolled, and the sums would leave their registers for each block.
        let groups = std::hint::black_box(BLOCK / 4);
        for block in 0..tile.blocks {
            let mut dots = [[_mm512_set1_epi32(0); 2]; ROWS];
            for (i, dot) in dots.iter_mut().enumerate() {
                *dot = [_mm512_set1_epi32(*tile.begins.add(i * tile.row_blocks + block)); 2];
            }
            let weight = tile.weight.add(block * BLOCK_BYTES);
            for group in 0..groups {
                let at = weight.add(group * 4 * PANEL);
                let low = _mm512_loadu_si512(at.cast());
                let high = _mm512_loadu_si512(at.add(64).cast());
                for (i, dot) in dots.iter_mut().enumerate() {
                    let x = tile.bytes.add((i * tile.row_blocks + block) * BLOCK + 4 * group);
                    let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
                    dot[0] = _mm512_dpbusd_epi32(dot[0], low, x);
                    dot[1] = _mm512_dpbusd_epi32(dot[1], high, x);
                }
            }
            let scales = tile.weight_scales.add(block * PANEL).cast();
            let (low, high) = (sixteen::<true>(scales, 0), sixteen::<true>(scales, 16));
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

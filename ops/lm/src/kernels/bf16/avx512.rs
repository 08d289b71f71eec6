//! Tiles in bfloat16 with AVX-512's dot products of pairs.
//!
//! A lane's instruction adds the product of a pair's upper halves, then that of its lower ones: two links of one chain. So a pair holds two
//! inputs of the same chain.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_and_si512, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
    _mm512_storeu_si512,
};

use super::super::Isa;
use super::super::tile::PANEL;
use super::{BLOCK, BLOCK_VALUES, Tile16};

/// Rows whose chains are held in registers: two chains of two registers for each.
const ROWS: usize = 6;

/// Lays a panel out for [`tile`]: `[blocks][8][4][16][2]`, of four inputs in a row the pairs of the even chain, then of the odd, two registers of columns each.
pub(super) fn to_chains(panel: &[u16], into: &mut [u16]) {
    assert!(Isa::best() == Isa::Avx512 && panel.len() == into.len() && panel.len().is_multiple_of(BLOCK_VALUES));
    #[expect(unsafe_code, reason = "the machine has AVX-512, and both have whole blocks")]
    unsafe {
        turn(panel, into);
    }
}

#[expect(unsafe_code, reason = "machine instructions")]
#[target_feature(enable = "avx512f")]
unsafe fn turn(panel: &[u16], into: &mut [u16]) {
    let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
    let lower = _mm512_set1_epi32(0xffff);
    for (block, into) in panel.as_chunks::<BLOCK_VALUES>().0.iter().zip(into.as_chunks_mut::<BLOCK_VALUES>().0) {
        for (pair, into) in into.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            for half in 0..2 {
                let from = &block[half * (BLOCK_VALUES / 2) + pair * 64..][..64];
                unsafe {
                    let first = _mm512_loadu_si512(from.as_ptr().cast());
                    let second = _mm512_loadu_si512(from.as_ptr().add(32).cast());
                    let even = _mm512_or_si512(_mm512_slli_epi32::<16>(first), _mm512_and_si512(second, lower));
                    let odd = _mm512_or_si512(_mm512_and_si512(first, upper), _mm512_srli_epi32::<16>(second));
                    _mm512_storeu_si512(into.as_mut_ptr().add(half * 32).cast(), even);
                    _mm512_storeu_si512(into.as_mut_ptr().add(64 + half * 32).cast(), odd);
                }
            }
        }
    }
}

/// Computes one tile.
///
/// # Safety
///
/// As [`Tile16::run`]; the machine has AVX-512 F and BF16.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile(tile: &Tile16<'_>) {
    unsafe {
        let mut row = 0;
        while row < tile.rows {
            match tile.rows - row {
                1 => rows::<1>(tile, row),
                2 => rows::<2>(tile, row),
                3 => rows::<3>(tile, row),
                4 => rows::<4>(tile, row),
                5 => rows::<5>(tile, row),
                _ => rows::<ROWS>(tile, row),
            }
            row += ROWS;
        }
    }
}

#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const ROWS: usize>(tile: &Tile16<'_>, first: usize) {
    unsafe {
        let mut sums: [[f32; PANEL]; ROWS] = std::array::from_fn(|i| tile.begin(first + i));
        for block in 0..tile.blocks {
            let xs: [*const u16; ROWS] = std::array::from_fn(|i| tile.x(first + i, block).as_ptr());
            let weight = tile.weight(block).as_ptr();
            let mut chains = [[_mm512_setzero_ps(); 4]; ROWS];
            for pair in 0..BLOCK / 4 {
                let weight = weight.add(pair * 128);
                let weights: [__m512bh; 4] =
                    std::array::from_fn(|at| as_pairs(_mm512_loadu_si512(weight.add(at * 32).cast())));
                for (chains, x) in chains.iter_mut().zip(xs) {
                    let (even, odd) = (twice(x.add(2 * pair)), twice(x.add(BLOCK / 2 + 2 * pair)));
                    chains[0] = _mm512_dpbf16_ps(chains[0], even, weights[0]);
                    chains[1] = _mm512_dpbf16_ps(chains[1], even, weights[1]);
                    chains[2] = _mm512_dpbf16_ps(chains[2], odd, weights[2]);
                    chains[3] = _mm512_dpbf16_ps(chains[3], odd, weights[3]);
                }
            }
            for (sums, chains) in sums.iter_mut().zip(chains) {
                add_to(sums.as_mut_ptr(), _mm512_add_ps(chains[0], chains[2]));
                add_to(sums.as_mut_ptr().add(16), _mm512_add_ps(chains[1], chains[3]));
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            tile.write(first + i, sums);
        }
    }
}

/// Adds to sixteen values.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn add_to(to: *mut f32, more: __m512) {
    unsafe { _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), more)) };
}

/// A pair of inputs in all lanes.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn twice(pair: *const u16) -> __m512bh {
    as_pairs(_mm512_set1_epi32(unsafe { pair.cast::<i32>().read_unaligned() }))
}

#[expect(unsafe_code, reason = "registers of the same size, of which any bits are values")]
#[target_feature(enable = "avx512f")]
#[inline]
fn as_pairs(bits: __m512i) -> __m512bh {
    unsafe { std::mem::transmute(bits) }
}

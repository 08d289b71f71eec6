//! Tiles in bfloat16 with AVX-512's dot products of pairs.
//!
//! A lane's instruction adds the product of a pair's upper halves, then that of its lower ones: two links of one chain. So a pair holds two
//! inputs of the same chain.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_or_si512,
    _mm512_permutex2var_epi32, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_srli_epi32, _mm512_storeu_ps,
    _mm512_storeu_si512,
};

use super::super::tile::PANEL;
use super::{BLOCK, QUAD, Tile16};

/// Computes one tile: as many rows at a time as have their chains in registers, two chains of a register or two for each.
///
/// # Safety
///
/// As [`Tile16::run`]; the machine has AVX-512 F and BF16.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile(tile: &Tile16<'_>) {
    let mut row = 0;
    while row < tile.rows {
        let left = tile.rows - row;
        row += unsafe {
            if tile.narrow {
                match left {
                    1..4 => rows::<1, 1>(tile, row),
                    4..8 => rows::<4, 1>(tile, row),
                    8..12 => rows::<8, 1>(tile, row),
                    _ => rows::<12, 1>(tile, row),
                }
            } else {
                match left {
                    1 => rows::<1, 2>(tile, row),
                    2 => rows::<2, 2>(tile, row),
                    3 => rows::<3, 2>(tile, row),
                    4 => rows::<4, 2>(tile, row),
                    5 => rows::<5, 2>(tile, row),
                    _ => rows::<6, 2>(tile, row),
                }
            }
        };
    }
}

/// Computes some rows of the first `HALVES` halves of the columns, and gives how many.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const ROWS: usize, const HALVES: usize>(tile: &Tile16<'_>, first: usize) -> usize {
    unsafe {
        let mut sums: [[f32; PANEL]; ROWS] = std::array::from_fn(|i| tile.begin(first + i));
        for block in 0..tile.blocks {
            let xs: [*const u16; ROWS] = std::array::from_fn(|i| tile.x(first + i, block).as_ptr());
            let weight = tile.weight(block).as_ptr();
            let mut chains = [[[_mm512_setzero_ps(); HALVES]; 2]; ROWS];
            // The zeros past the last input change no chain.
            for quad in 0..(tile.k - block * BLOCK).min(BLOCK).div_ceil(QUAD) {
                let weight = weight.add(quad * QUAD * PANEL);
                let weights: [[__m512bh; HALVES]; 2] = std::array::from_fn(|chain| {
                    std::array::from_fn(|half| as_pairs(_mm512_loadu_si512(weight.add(chain * 64 + half * 32).cast())))
                });
                for (chains, x) in chains.iter_mut().zip(xs) {
                    for (chain, sums) in chains.iter_mut().enumerate() {
                        let pair = twice(x.add(chain * (BLOCK / 2) + 2 * quad));
                        for (sums, weights) in sums.iter_mut().zip(weights[chain]) {
                            *sums = _mm512_dpbf16_ps(*sums, pair, weights);
                        }
                    }
                }
            }
            for (sums, [even, odd]) in sums.iter_mut().zip(chains) {
                for (half, (even, odd)) in even.into_iter().zip(odd).enumerate() {
                    add_to(sums.as_mut_ptr().add(half * 16), _mm512_add_ps(even, odd));
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            tile.write(first + i, sums);
        }
    }
    ROWS
}

/// Lays inputs, which are in the upper halves, as [`super::Layout::Chains`] says: of four in a row the pair of the even chain in the first half of the
/// block, that of the odd chain in the second.
#[expect(unsafe_code, reason = "machine instructions")]
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn in_chains(wide: &[u32; BLOCK], to: &mut [u16; BLOCK]) {
    const FIRST: [u32; 16] = [0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29];
    unsafe {
        let begin = _mm512_loadu_si512(wide.as_ptr().cast());
        let end = _mm512_loadu_si512(wide.as_ptr().add(16).cast());
        let first = _mm512_loadu_si512(FIRST.as_ptr().cast());
        let second = _mm512_or_si512(first, _mm512_set1_epi32(2));
        let first = _mm512_permutex2var_epi32(begin, first, end);
        let second = _mm512_srli_epi32::<16>(_mm512_permutex2var_epi32(begin, second, end));
        _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_or_si512(first, second));
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

//! Tiles in bfloat16 by multiply-adds of single floats: the law, written down.
//!
//! The product of two bfloat16 is exact in single floats, so a multiplication and an addition are as good as a fused multiply-add, which not every
//! machine has.

#![expect(clippy::inline_always, reason = "bodies must be compiled anew for each instruction set that calls them")]

use super::super::tile::PANEL;
use super::{BLOCK, Tile16, widen};

/// Computes one tile, row by row.
///
/// # Safety
///
/// As [`Tile16::run`].
#[expect(unsafe_code, reason = "raw pointers")]
#[inline(always)]
pub(super) unsafe fn tile<const FUSED: bool>(tile: &Tile16<'_>) {
    for row in 0..tile.rows {
        let mut sums = unsafe { tile.begin(row) };
        for block in 0..tile.blocks {
            let (x, weight) = (tile.x(row, block), tile.weight(block));
            let mut chains = [[0.0f32; PANEL]; 2];
            for (s, &x) in x.iter().enumerate() {
                let x = widen(x);
                for half in 0..2 {
                    let weight = &weight[half * 16 * BLOCK + s / 2 * 32..][..32];
                    for column in 0..16 {
                        let sum = &mut chains[s % 2][half * 16 + column];
                        let weight = widen(weight[2 * column + s % 2]);
                        *sum = if FUSED { x.mul_add(weight, *sum) } else { x * weight + *sum };
                    }
                }
            }
            for (sum, (even, odd)) in sums.iter_mut().zip(chains[0].iter().zip(&chains[1])) {
                *sum += even + odd;
            }
        }
        unsafe { tile.write(row, &sums) };
    }
}

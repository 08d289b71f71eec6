//! Tiles in plain Rust: the fallback, and the same bits as the others (each step is a fused `mul_add`).
#![expect(
    clippy::cast_ptr_alignment,
    reason = "panels hold whole values; loads that need alignment are unaligned ones"
)]

use half::f16;

use super::tile::{HALF_PANEL, PANEL, Start, Tile};

/// Computes one tile, row by row.
///
/// # Safety
///
/// As [`Tile::run`].
#[expect(unsafe_code, reason = "raw pointers")]
pub(super) unsafe fn tile(tile: &Tile) {
    unsafe {
        let columns = if tile.narrow { HALF_PANEL } else { PANEL };
        for i in 0..tile.rows {
            let out = std::slice::from_raw_parts_mut(tile.out.add(i * tile.out_row), columns);
            let mut sums = [0.0f32; PANEL];
            if tile.start == Start::Out {
                sums[..columns].copy_from_slice(out);
            }
            for s in 0..tile.k {
                let x = *tile.left.add(i * tile.left_row + s * tile.left_step);
                let right = right_row(tile, s);
                for (sum, w) in sums.iter_mut().zip(right) {
                    *sum = x.mul_add(w, *sum);
                }
            }
            out.copy_from_slice(&sums[..columns]);
        }
    }
}

/// The right operand's values of step `s`.
#[expect(unsafe_code, reason = "raw pointers")]
unsafe fn right_row(tile: &Tile, s: usize) -> [f32; PANEL] {
    let mut values = [0.0f32; PANEL];
    unsafe {
        if tile.half {
            let halves = std::slice::from_raw_parts(tile.right.cast::<u16>().add(s * tile.right_step), PANEL);
            for (value, &bits) in values.iter_mut().zip(halves) {
                *value = f16::from_bits(bits).to_f32();
            }
        } else {
            let row = std::slice::from_raw_parts(tile.right.cast::<f32>().add(s * tile.right_step), PANEL);
            values.copy_from_slice(row);
        }
    }
    values
}

//! What one tile of a product is: the contract of the instruction-set files.

use super::Isa;

/// Columns in a panel of packed weights, and in a tile.
pub const PANEL: usize = 32;

/// Columns of a tile that takes the first half of a panel.
pub(super) const HALF_PANEL: usize = PANEL / 2;

/// Most rows in a tile: with 32 columns, 24 of AVX-512's 32 registers hold sums.
pub(super) const TILE_ROWS: usize = 12;

/// Where the chains of a product begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From zero: the output is overwritten.
    Zero,
    /// From what the output holds: the product is added, as the continuation of the same chain.
    Out,
}

/// Up to [`TILE_ROWS`] rows by [`PANEL`] columns of `out = left · right`, over `k` steps.
///
/// Element `(i, s)` of the left operand is `left[i * left_row + s * left_step]`; of the right one, `(s, j)` is
/// `right[s * right_step + j]` (in elements; half floats if `half`); of the output, `(i, j)` is
/// `out[i * out_row + j]`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) k: usize,
    pub(super) left: *const f32,
    pub(super) left_row: usize,
    pub(super) left_step: usize,
    /// Points to `u16` half floats if `half`, to `f32` otherwise.
    pub(super) right: *const u8,
    pub(super) right_step: usize,
    pub(super) half: bool,
    /// Only the first [`HALF_PANEL`] columns are computed and written.
    pub(super) narrow: bool,
    /// What lies so many bytes after the right operand is fetched for later; 0 fetches nothing new.
    pub(super) ahead: usize,
    pub(super) out: *mut f32,
    pub(super) out_row: usize,
    pub(super) start: Start,
}

impl Tile {
    /// Computes the tile with `isa`.
    ///
    /// # Safety
    ///
    /// All elements that the fields describe lie in live allocations, `out`'s are not accessed by others meanwhile,
    /// `rows` is 1 to [`TILE_ROWS`], and this machine has `isa`.
    #[expect(unsafe_code, reason = "tiles work on raw pointers")]
    #[inline]
    pub(super) unsafe fn run(&self, isa: Isa) {
        debug_assert!((1..=TILE_ROWS).contains(&self.rows));
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { super::avx512::tile(self) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { super::avx2::tile(self) },
            Isa::Portable => unsafe { super::portable::tile(self) },
        }
    }
}

//! Tiles in bfloat16 with AMX: two by two tile registers of sums, over all blocks.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::super::tile::PANEL;
use super::{BLOCK, GROUP, ROWS, Sums, Tile16};

/// What the tile registers hold: sixteen rows of 64 bytes each.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

static SHAPES: Shapes = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut register = 0;
    while register < 8 {
        bytes[16 + 2 * register] = 64;
        bytes[48 + register] = GROUP as u8;
        register += 1;
    }
    Shapes(bytes)
};

/// Bytes of a block of a group of inputs, and of a half of a block of a panel: one tile register.
const REGISTER: usize = GROUP * BLOCK * 2;

/// Whether this machine has AMX for bfloat16, and the system lets this process use it. Asked once.
pub(super) fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        const TILES_AND_BF16: u32 = (1 << 24) | (1 << 22);
        __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_BF16 == TILES_AND_BF16 && ask()
    })
}

/// Asks the system for the registers, which are too large to be saved for every process: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[expect(unsafe_code, reason = "a system call that touches no memory")]
fn ask() -> bool {
    let answer: i64;
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158i64 => answer,
            in("rdi") 0x1023,
            in("rsi") 18,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// The tile registers of this thread, set up for [`tile`] as long as it lives.
pub(super) struct Registers(());

impl Registers {
    /// Setting them up takes as long as some tiles.
    ///
    /// # Panics
    ///
    /// If this machine has none.
    pub(super) fn set_up() -> Self {
        assert!(allowed(), "this machine has no tile registers");
        #[expect(unsafe_code, reason = "it may; the shapes are right")]
        unsafe {
            asm!("ldtilecfg [{shapes}]", shapes = in(reg) &raw const SHAPES, options(nostack));
        }
        Self(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // Registers in use are saved when the system switches to another thread.
        #[expect(unsafe_code, reason = "they were set up")]
        unsafe {
            asm!("tilerelease", options(nostack));
        }
    }
}

/// Computes one tile.
///
/// # Safety
///
/// As [`Tile16::run`]; this thread has [`Registers`].
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
pub(super) unsafe fn tile(tile: &Tile16<'_>) {
    if tile.rows.is_multiple_of(GROUP) && tile.sums != Sums::AddTo {
        unsafe { sums(tile, tile.out, tile.out_row) };
        return;
    }
    let mut space = [[0.0f32; PANEL]; ROWS];
    unsafe {
        if tile.sums == Sums::GoOn {
            for (row, space) in space.iter_mut().take(tile.rows).enumerate() {
                *space = tile.begin(row);
            }
        }
        sums(tile, space.as_mut_ptr().cast(), PANEL);
        for (row, sums) in space.iter().take(tile.rows).enumerate() {
            tile.write(row, sums);
        }
    }
}

/// Writes the sums of whole groups of rows. Meanwhile the tile's output is fetched, a row or two a block: where it is far away, waiting for it would
/// take as long as the sums. Fetching ahead of what is there does no harm.
#[expect(unsafe_code, reason = "raw pointers and machine instructions")]
unsafe fn sums(tile: &Tile16<'_>, out: *mut f32, out_row: usize) {
    let (x, weight, blocks) = (tile.x.as_ptr(), tile.weight.as_ptr(), tile.blocks);
    let row = out_row * 4;
    unsafe {
        if tile.rows > GROUP {
            asm!(
                "test {go_on:e}, {go_on:e}",
                "jnz 4f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 5f",
                "4:",
                "tileloadd tmm0, [{out} + {row}]",
                "tileloadd tmm1, [{out} + {row} + 64]",
                "tileloadd tmm2, [{below} + {row}]",
                "tileloadd tmm3, [{below} + {row} + 64]",
                "5:",
                "test {blocks}, {blocks}",
                "jz 3f",
                "2:",
                "prefetchw [{ahead}]",
                "prefetchw [{ahead} + 64]",
                "add {ahead}, {apart}",
                "prefetchw [{ahead}]",
                "prefetchw [{ahead} + 64]",
                "add {ahead}, {apart}",
                "tileloadd tmm4, [{x} + {line}]",
                "tileloadd tmm6, [{weight} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{weight} + {line} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{next} + {line}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {x}, 1024",
                "add {next}, 1024",
                "add {weight}, 2048",
                "dec {blocks}",
                "jnz 2b",
                "3:",
                "tilestored [{out} + {row}], tmm0",
                "tilestored [{out} + {row} + 64], tmm1",
                "tilestored [{below} + {row}], tmm2",
                "tilestored [{below} + {row} + 64], tmm3",
                x = inout(reg) x => _,
                next = inout(reg) x.wrapping_byte_add(blocks * REGISTER) => _,
                weight = inout(reg) weight => _,
                blocks = inout(reg) blocks => _,
                line = in(reg) 64usize,
                out = in(reg) out,
                below = in(reg) out.wrapping_add(GROUP * out_row),
                row = in(reg) row,
                go_on = in(reg) u32::from(tile.sums == Sums::GoOn),
                ahead = inout(reg) tile.out => _,
                apart = in(reg) tile.out_row * 4,
                options(nostack),
            );
        } else {
            asm!(
                "test {go_on:e}, {go_on:e}",
                "jnz 4f",
                "tilezero tmm0",
                "tilezero tmm1",
                "jmp 5f",
                "4:",
                "tileloadd tmm0, [{out} + {row}]",
                "tileloadd tmm1, [{out} + {row} + 64]",
                "5:",
                "test {blocks}, {blocks}",
                "jz 3f",
                "2:",
                "prefetchw [{ahead}]",
                "prefetchw [{ahead} + 64]",
                "add {ahead}, {apart}",
                "tileloadd tmm4, [{x} + {line}]",
                "tileloadd tmm6, [{weight} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{weight} + {line} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {x}, 1024",
                "add {weight}, 2048",
                "dec {blocks}",
                "jnz 2b",
                "3:",
                "tilestored [{out} + {row}], tmm0",
                "tilestored [{out} + {row} + 64], tmm1",
                x = inout(reg) x => _,
                weight = inout(reg) weight => _,
                blocks = inout(reg) blocks => _,
                line = in(reg) 64usize,
                out = in(reg) out,
                row = in(reg) row,
                go_on = in(reg) u32::from(tile.sums == Sums::GoOn),
                ahead = inout(reg) tile.out => _,
                apart = in(reg) tile.out_row * 4,
                options(nostack),
            );
        }
    }
}

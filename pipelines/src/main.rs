//! The `retort` command.

use std::process::ExitCode;

/// Graphs of many nodes are many small values: with glibc's allocator one of 100,000 nodes is checked in nearly twice the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2 and 3: milliseconds until pages that are free go back to the system.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    give_memory_back_soon();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_contexts();
    retort::cli::main(retort_ops::REGISTRY)
}

/// With long documents a second's worth of free pages, which is mimalloc's own delay, is a fifth of all memory. MIMALLOC_PURGE_DELAY sets
/// another.
#[expect(unsafe_code, reason = "a call to C that sets a number")]
fn give_memory_back_soon() {
    // SAFETY: the option is there in every mimalloc that this binding builds, and other threads don't run yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 25) }
}

/// zstd has a context for every column that is read or written, of C's allocator. glibc gives each back to the system and takes it anew, which is a fifth
/// of what a small node costs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "calls to C that set numbers")]
fn keep_contexts() {
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}

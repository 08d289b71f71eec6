//! The `retort` command.

use std::process::ExitCode;

/// Graphs of many nodes are many small values: with glibc's allocator one of 100,000 nodes is checked in nearly twice the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    retort::cli::main(retort_ops::REGISTRY)
}

//! The `retort` command under a name of this package, so that tests can start it, and kill it.

use std::process::ExitCode;

fn main() -> ExitCode {
    retort::cli::main(retort_ops::REGISTRY)
}

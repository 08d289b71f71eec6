//! `read-apart`: not for people. The process in which `extract` reads PDF files, so that it can be ended.

use std::io;

use clap::Args as Arguments;
use retort_ops::extract::apart::{self, Limits};

use super::stop::{Ended, Result};

/// The name of the command.
pub(super) const NAME: &str = "read-apart";

#[derive(Debug, Arguments)]
pub(super) struct Args {
    /// Bytes of memory.
    #[arg(long, default_value_t = Limits::default().memory)]
    memory: u64,
    /// Seconds of processor time for a file.
    #[arg(long, default_value_t = Limits::default().seconds)]
    seconds: u64,
}

/// From now on PDF files are read apart, by this very program.
pub(super) fn begin() {
    // On Linux the file that runs, even where another was put in its place.
    let own = if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
    if let Ok(path) = own {
        apart::by(path, vec![NAME.into()]);
    }
}

/// The processes that were started have nothing more to do.
pub(super) fn end() {
    apart::end();
}

pub(super) fn run(args: &Args) -> Result<Ended> {
    let limits = Limits { memory: args.memory, seconds: args.seconds };
    apart::serve(io::stdin().lock(), io::stdout().lock(), limits)?;
    Ok(Ended::DONE)
}

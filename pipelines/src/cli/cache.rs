//! `retort cache`: what the store holds, and what of it can go.

mod gc;
mod size;
mod travel;
mod verify;

use std::path::{Path, PathBuf};

use retort_engine::OpInfo;

use super::pipeline::StoreArgs;
use super::stop::{Ended, Result, Stop};
use super::workplace::root;

/// Commands of `cache`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// How much the store holds, by kind, pipeline and node.
    Size(size::Args),
    /// Remove what nobody reaches or has used for long; without `--yes` only say what.
    Gc(gc::Args),
    /// Send what a remote store lacks.
    Push(travel::Args),
    /// Bring what a remote store has and this one lacks.
    Pull(travel::Args),
    /// Read everything, and put aside what is damaged; status 1 if anything is.
    Verify(verify::Args),
}

pub(super) fn run(command: &Command, ops: &[OpInfo]) -> Result<Ended> {
    match command {
        Command::Size(args) => size::run(args, ops),
        Command::Gc(args) => gc::run(args, ops),
        Command::Push(args) => travel::send(args, ops),
        Command::Pull(args) => travel::bring(args, ops),
        Command::Verify(args) => verify::run(args),
    }
}

/// The folder of a store that is there.
fn there(store: &StoreArgs) -> Result<PathBuf> {
    existing(None, store)
}

/// The same of a pipeline's store.
fn existing(pipeline: Option<&Path>, store: &StoreArgs) -> Result<PathBuf> {
    let root = root(pipeline, store.folder.as_deref())?;
    if root.join("version").exists() {
        return Ok(root);
    }
    Err(Stop::wrong(format!("no store in `{}`", root.display())).hint("`--store DIR` names another"))
}

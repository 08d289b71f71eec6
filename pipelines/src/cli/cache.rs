//! `retort cache`: what the store holds.

mod travel;
mod verify;

use std::io::Write;
use std::path::PathBuf;

use retort_cache::Disk;
use retort_engine::OpInfo;
use serde_json::json;

use super::pipeline::StoreArgs;
use super::stop::{Ended, Result, Stop};
use super::workplace::root;
use crate::observe::words;
use crate::tables::{Column, Grid};

/// Commands of `cache`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// How much the store holds, by kind.
    Size(SizeArgs),
    /// Send what a remote store lacks.
    Push(travel::Args),
    /// Bring what a remote store has and this one lacks.
    Pull(travel::Args),
    /// Read everything, and put aside what is damaged; status 1 if anything is.
    Verify(verify::Args),
}

/// Arguments of `cache size`.
#[derive(Debug, clap::Args)]
pub(super) struct SizeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, ops: &[OpInfo]) -> Result<Ended> {
    match command {
        Command::Size(args) => size(args),
        Command::Push(args) => travel::send(args, ops),
        Command::Pull(args) => travel::bring(args, ops),
        Command::Verify(args) => verify::run(args),
    }
}

/// The folder of a store that is there.
fn there(args: &StoreArgs) -> Result<PathBuf> {
    let root = root(None, args.folder.as_deref())?;
    if !root.join("version").exists() {
        return Err(Stop::wrong(format!("no store in `{}`", root.display())).hint("`--store DIR` names another"));
    }
    Ok(root)
}

fn size(args: &SizeArgs) -> Result<Ended> {
    let root = there(&args.store)?;
    let sizes = Disk::open(&root)?.sizes()?;
    let total = sizes.iter().fold((0, 0), |sum, (_, bytes, files)| (sum.0 + bytes, sum.1 + files));
    let mut out = std::io::stdout().lock();
    if args.json {
        let kind = |(kind, bytes, files): &(String, u64, u64)| json!({"kind": kind, "bytes": bytes, "files": files});
        let kinds: Vec<_> = sizes.iter().map(kind).collect();
        writeln!(out, "{}", json!({"store": root, "kinds": kinds, "bytes": total.0, "files": total.1}))?;
        return Ok(Ended::DONE);
    }
    let mut grid = Grid::new([Column::new("kind", false), Column::new("size", true), Column::new("files", true)]);
    for (kind, bytes, files) in sizes {
        grid.push([kind, words::bytes(bytes), words::number(files)]);
    }
    grid.push(["total".to_string(), words::bytes(total.0), words::number(total.1)]);
    writeln!(out, "{}", root.display())?;
    out.write_all(grid.render(None).as_bytes())?;
    Ok(Ended::DONE)
}

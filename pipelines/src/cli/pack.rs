//! `retort pack`: an experiment as one file.

use std::path::PathBuf;

use retort_cache::Disk;
use retort_engine::{Event, OpInfo};

use super::lock::current;
use super::pipeline::PipelineArgs;
use super::stop::{Ended, Result, Stop, say};
use crate::observe::words;
use crate::pack::{Choice, Contents, PackError, write};

/// Arguments of `pack`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The file to write [default: the pipeline's name with `.retort`, here]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Packs the answers and their tables: nothing is computed again over there
    #[arg(long)]
    tables: bool,
    /// Packs the remembered rows: an edit over there costs what the edit costs
    #[arg(long)]
    rows: bool,
    /// Packs the local files of models
    #[arg(long)]
    assets: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let place = args.pipeline.look()?;
    let events = |_: &Event| ();
    let locked = current(&args.pipeline, &loaded, place.world(&events));
    place.save();
    let (lock, answers) = locked?;
    let choice = Choice { tables: args.tables, rows: args.rows, assets: args.assets };
    let contents = Contents::of(&loaded, &lock, &answers, &Disk::open(&place.root)?, choice)?;
    let stem = args.pipeline.path.file_stem().map(PathBuf::from).unwrap_or_default();
    let output = args.output.clone().unwrap_or_else(|| stem.with_extension("retort"));
    let (manifest, bytes) = write(&contents, &output)?;
    let files = words::count(manifest.members.len() as u64, "file");
    say(&format!("packed {files} into {} ({})", output.display(), words::bytes(bytes)));
    Ok(Ended::DONE)
}

impl From<PackError> for Stop {
    fn from(error: PackError) -> Self {
        let status = match &error {
            PackError::Store(_) | PackError::Failure(_) | PackError::Changed { .. } => Ended::FAILED,
            _ => Ended::WRONG,
        };
        let hint = error.hint().map(String::from);
        Stop::Error { status, message: super::stop::chain(&error), hint }
    }
}

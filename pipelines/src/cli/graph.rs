//! `retort graph`: the pipeline as a picture.

use std::io::Write;

use retort_engine::OpInfo;

use super::pipeline::PipelineArgs;
use super::stop::{Ended, Result};
use crate::graph_view::{Format, Picture};

/// Arguments of `graph`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// How it is drawn
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let picture = Picture::of(&loaded.graph).write(args.format);
    std::io::stdout().lock().write_all(picture.as_bytes())?;
    Ok(Ended::DONE)
}

//! `retort chat`: talk to a model that was trained.

use retort_engine::OpInfo;

use super::pipeline::{PipelineArgs, node};
use super::stop::{Ended, Result, Stop};

/// Arguments of `chat`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node that trained the adapter
    #[arg(value_name = "NODE")]
    node: String,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    node(&loaded.graph, &args.node)?;
    Err(Stop::wrong("chat has not landed"))
}

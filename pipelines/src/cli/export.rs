//! `retort export`: a node's answer as files for other tools.

use std::path::PathBuf;

use retort_engine::OpInfo;

use super::pipeline::{PipelineArgs, answer, port};
use super::stop::{Ended, Result, Stop, say};
use crate::export::{Dtype, Format, Target, export};
use crate::observe::words;

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node, or one of its outputs
    #[arg(value_name = "NODE[.OUTPUT]")]
    node: String,
    /// The folder to write to; made where it is missing
    #[arg(value_name = "DIR")]
    into: PathBuf,
    /// What is written
    #[arg(long, value_enum)]
    format: Format,
    /// What a PEFT folder calls the base model: a Hugging Face name or a folder [default: made from the weights' source]
    #[arg(long, value_name = "NAME")]
    base: Option<String>,
    /// How `merged` and `gguf` store the weights
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let place = args.pipeline.look()?;
    let (id, port) = port(&loaded.graph, &args.node)?;
    let answer = answer(&args.pipeline, &loaded.graph, id, &place)?;
    let events = |_: &retort_engine::Event| ();
    let world = place.world(&events);
    let (port, base) = (port.as_deref(), args.base.as_deref());
    let target = Target { format: args.format, port, base, dtype: args.dtype, folder: &args.into };
    let written = export(&loaded, id, &answer, world, target);
    place.save();
    for (path, bytes) in written.map_err(|error| Stop::failed(&error))? {
        say(&format!("wrote {} ({})", path.display(), words::bytes(bytes)));
    }
    Ok(Ended::DONE)
}

//! `retort check`: all mistakes of a pipeline, nothing run.

use std::io::Write;

use super::pipeline::PipelineArgs;
use super::stop::{Ended, Result, Stop};
use crate::observe::words::count;
use retort_engine::OpInfo;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Prints the mistakes as JSON, an object a line: file, line, column, end_line, end_column, code, message, hint
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let mut out = std::io::stdout().lock();
    match args.pipeline.load(ops) {
        Ok(_) if args.json => {}
        Ok(loaded) => {
            let nodes = count(loaded.graph.order().len() as u64, "node");
            writeln!(out, "{}: no mistakes in {nodes}", args.pipeline.path.display())?;
        }
        Err(Stop::Mistakes(mistakes)) if args.json => {
            super::stop::print_json(&mistakes, &mut out)?;
            return Ok(Ended::WRONG);
        }
        Err(Stop::Mistakes(mistakes)) => {
            super::stop::diagnose(&mistakes);
            super::stop::error(&format!("{} in the pipeline", count(mistakes.count() as u64, "mistake")), None);
            return Ok(Ended::WRONG);
        }
        Err(other) => return Err(other),
    }
    Ok(Ended::DONE)
}

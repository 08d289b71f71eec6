//! `retort graph`: the pipeline as a picture.

use std::io::Write;

use retort_engine::OpInfo;

use super::pipeline::PipelineArgs;
use super::stop::{Ended, Result};
use crate::graph_view::{Format, Mark, Picture};

/// Arguments of `graph`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// How it is drawn
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Shows what a run would do with each node: by word, and by colour where the format has any
    #[arg(long)]
    plan: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let mut picture = Picture::of(&loaded.graph);
    if args.plan {
        let place = args.pipeline.look()?;
        let events = |_: &retort_engine::Event| ();
        let plans = retort_engine::plan(&loaded.graph, &[], place.world(&events));
        place.save();
        let plans = plans?;
        let plan = |id| plans.iter().find(|plan| plan.id == id).expect("every node is planned");
        picture.marks = loaded.graph.order().iter().map(|id| Mark::of(&plan(*id).verdict)).collect();
    }
    std::io::stdout().lock().write_all(picture.write(args.format).as_bytes())?;
    Ok(Ended::DONE)
}

//! `retort publish`: a trained model as folders that are ready for the Hugging Face Hub.

use std::path::PathBuf;

use retort_engine::OpInfo;

use super::pipeline::{PipelineArgs, answer, node};
use super::stop::{Ended, Result, Stop, say, warn};
use crate::export::Dtype;
use crate::observe::words;
use crate::publish::{Weights, Wishes, is_hub_name, publish};
use crate::tuned::base_name;

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node that trained
    #[arg(value_name = "NODE")]
    node: String,
    /// The folder to write to; made where it is missing
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Which weights
    #[arg(long, value_enum, default_value_t)]
    weights: Weights,
    /// How merged weights are stored
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
    /// What the model will be called on the Hub; its data will be OWNER/NAME-data
    #[arg(long, value_name = "OWNER/NAME", value_parser = hub_name)]
    name: Option<String>,
    /// What the base model is called on the Hub [default: made from the weights' source]
    #[arg(long, value_name = "NAME")]
    base: Option<String>,
    /// The licence, as the Hub calls it: apache-2.0, mit, cc-by-4.0 …
    #[arg(long, value_name = "LICENCE")]
    license: Option<String>,
}

/// A name as the Hub takes it.
fn hub_name(text: &str) -> std::result::Result<String, String> {
    if is_hub_name(text) {
        return Ok(text.to_owned());
    }
    Err("expected OWNER/NAME, of letters, digits, `-`, `_` and `.`".into())
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let place = args.pipeline.look()?;
    let id = node(&loaded.graph, &args.node)?;
    let answer = answer(&args.pipeline, &loaded.graph, id, &place)?;
    let events = |_: &retort_engine::Event| ();
    let wishes = Wishes {
        weights: args.weights,
        dtype: args.dtype,
        name: args.name.as_deref(),
        base: args.base.as_deref(),
        license: args.license.as_deref(),
        folder: &args.to,
    };
    let written = publish(&loaded, id, &answer, place.world(&events), wishes);
    place.save();
    for (path, bytes) in written.map_err(|error| Stop::failed(&error))? {
        say(&format!("wrote {} ({})", path.display(), words::bytes(bytes)));
    }
    let asset = loaded.graph.node(id).made.assets.first();
    let source = asset.and_then(|asset| asset.sources.first()).map(|source| base_name(source));
    if args.base.is_none() && !source.is_some_and(|name| is_hub_name(&name)) {
        warn("the card names no base model of the Hub: `--base OWNER/NAME` does");
    }
    if args.license.is_none() {
        warn("the cards name no licence: `--license` does");
    }
    let name = args.name.as_deref().unwrap_or("OWNER/NAME");
    let (model, dataset) = (args.to.join("model"), args.to.join("dataset"));
    say("nothing was sent; when the cards say what you want, the Hub's own command sends the folders:");
    say(&format!("  hf upload {name} {}", model.display()));
    say(&format!("  hf upload {name}-data {} --repo-type dataset", dataset.display()));
    Ok(Ended::DONE)
}

//! `retort publish`: a trained model as folders that are ready for the Hugging Face Hub, and sent there when told to.

use std::path::PathBuf;

use retort_engine::OpInfo;

use super::pipeline::{PipelineArgs, answer, node};
#[cfg(feature = "hub")]
use super::remote::Bar;
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
    /// Sends what was written to the Hub as --name, with the token of HF_TOKEN or of `hf auth login`
    #[arg(long, value_enum, value_name = "WHAT", requires = "name")]
    upload: Option<Upload>,
    /// Lets only its owner see a repository that --upload makes
    #[arg(long, requires = "upload")]
    private: bool,
}

/// What is sent to the Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Upload {
    /// The model and its card
    Model,
    /// What it learned from, and its card
    Dataset,
    /// Both, the dataset first
    Both,
}

/// A name as the Hub takes it.
fn hub_name(text: &str) -> std::result::Result<String, String> {
    if is_hub_name(text) {
        return Ok(text.to_owned());
    }
    Err("expected OWNER/NAME, of letters, digits, `-`, `_` and `.`".into())
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    if args.upload.is_some() && !cfg!(feature = "hub") {
        return Err(Stop::wrong("`--upload`: this `retort` was built without the Hub's client").hint(
            "build it with `cargo build --release --features hub`; or leave `--upload` out, and `hf upload` sends the folders",
        ));
    }
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
    let written = written.map_err(|error| Stop::failed(&error))?;
    for (path, bytes) in &written {
        say(&format!("wrote {} ({})", path.display(), words::bytes(*bytes)));
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
    #[cfg(feature = "hub")]
    if let Some(what) = args.upload {
        upload(args, what, name, &written, &format!("{} of {}, by retort publish", args.node, loaded.name))?;
        return Ok(Ended::DONE);
    }
    say_how(args, name);
    Ok(Ended::DONE)
}

/// How the folders are sent by other means.
fn say_how(args: &Args, name: &str) {
    let (model, dataset) = (args.to.join("model"), args.to.join("dataset"));
    say("nothing was sent; when the cards say what you want, the Hub's own command sends the folders:");
    say(&format!("  hf upload {name} {}", model.display()));
    say(&format!("  hf upload {name}-data {} --repo-type dataset", dataset.display()));
}

/// Sends the folders, the dataset first: the model's card leads to it.
#[cfg(feature = "hub")]
fn upload(args: &Args, what: Upload, name: &str, written: &[(PathBuf, u64)], message: &str) -> Result<()> {
    use crate::hub::{Kind, Parcel, send};

    let data = format!("{name}-data");
    let parcels =
        [(Upload::Dataset, Kind::Dataset, data.as_str(), "dataset"), (Upload::Model, Kind::Model, name, "model")];
    for (this, kind, name, folder) in parcels {
        if what != this && what != Upload::Both {
            continue;
        }
        let folder = args.to.join(folder);
        let files = written.iter().map(|(path, _)| path).filter(|path| path.starts_with(&folder));
        let files: Vec<PathBuf> = files.cloned().collect();
        let bar = Bar::new("sending");
        let parcel = Parcel { kind, name, private: args.private, folder: &folder, files: &files, message };
        let sent = send(parcel, bar.of_bytes());
        drop(bar);
        let sent = sent.map_err(|error| match error.hint() {
            Some(hint) => Stop::failed(&error).hint(hint),
            None => Stop::failed(&error),
        })?;
        say(&format!("sent {} to {sent}", words::count(files.len() as u64, "file")));
    }
    Ok(())
}

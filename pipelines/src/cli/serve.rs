//! `retort serve`: a model behind an OpenAI-compatible address of this machine.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use retort_engine::{Failure, OpInfo};
use retort_lm::generate::Limits;
use retort_lm::lora::Adapter;
use retort_ops::models::{Precision, load_file};

use super::chat::precision;
use super::pipeline::{PipelineArgs, StoreArgs, answer, node};
use super::stop::{Ended, Result, Stop, say};
use crate::observe::words;
use crate::serve::{Served, serve};
use crate::tuned;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pipeline's YAML file
    #[arg(value_name = "PIPELINE", required_unless_present = "model", requires = "node")]
    path: Option<PathBuf>,
    /// The node that trained an adapter, or that asks a model
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Serves this GGUF file or Hugging Face folder, without a pipeline
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    model: Option<PathBuf>,
    /// Serves the base model, without the adapter
    #[arg(long, conflicts_with = "model")]
    base: bool,
    /// The port of 127.0.0.1 that is listened at; 0 takes a free one
    #[arg(long, default_value_t = 8080, value_name = "N")]
    port: u16,
    /// What clients call the model [default: the node, or the file's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the model computes in: `int8` is several times as fast
    #[arg(long, value_parser = precision(), default_value = "f16", value_name = "PRECISION")]
    precision: Precision,
    /// Texts that are written side by side, at most
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Sets a param; the value is read as YAML
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::pipeline::setting)]
    set: Vec<(String, String)>,
    /// A set of overrides that the pipeline names under `profiles`
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

/// What is to be served.
struct Found {
    weights: PathBuf,
    adapter: Option<Adapter>,
    name: String,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let found = match (&args.model, &args.path, &args.node) {
        (Some(model), ..) => Found { weights: model.clone(), adapter: None, name: stem(model) },
        (None, Some(path), Some(node)) => find(args, path, node, ops)?,
        _ => return Err(Stop::wrong("a pipeline and a node, or `--model`, say what is served".to_owned())),
    };
    // Before the model is read: an address that is taken should cost no wait.
    let address = (Ipv4Addr::LOCALHOST, args.port);
    let listener = TcpListener::bind(address).map_err(|error| {
        Stop::failed(&error).hint(format!("port {} cannot be had; `--port 0` takes a free one", args.port))
    })?;
    let loaded = load_file(&found.weights, args.precision).map_err(|error| Stop::failed(&error))?;
    let limits = Limits { rows: args.parallel.into(), ..Limits::of(&loaded.model) };
    let name = args.name.clone().unwrap_or(found.name);
    say(&format!("serving `{name}` at http://{}/v1; Ctrl-C ends it", listener.local_addr()?));
    serve(Served { name, loaded, adapter: found.adapter, limits }, listener)?;
    Ok(Ended::DONE)
}

/// A node's model: the base model and its adapter where it trained one, or else the weights that it asks.
fn find(args: &Args, path: &Path, name: &str, ops: &[OpInfo]) -> Result<Found> {
    let pipeline = PipelineArgs {
        path: path.to_owned(),
        set: args.set.clone(),
        profile: args.profile.clone(),
        store: args.store.clone(),
    };
    let loaded = pipeline.load(ops)?;
    let id = node(&loaded.graph, name)?;
    let node = loaded.graph.node(id);
    let mut told = false;
    let mut progress = |_: u64, of: u64| {
        if !std::mem::replace(&mut told, true) {
            say(&format!("fetching the model ({})", words::bytes(of)));
        }
        Ok::<(), Failure>(())
    };
    let events = |_: &retort_engine::Event| ();
    let trains = node.ports.iter().any(|(port, _)| port == tuned::ADAPTER_PORT);
    if trains && !args.base {
        let place = pipeline.look()?;
        let answer = answer(&pipeline, &loaded.graph, id, &place)?;
        let tuned = tuned::open(node, &answer, place.world(&events), &mut progress);
        place.save();
        let tuned = tuned.map_err(|error| Stop::failed(&error))?;
        return Ok(Found { weights: tuned.weights, adapter: Some(tuned.adapter), name: name.to_owned() });
    }
    let Some(asset) = node.made.assets.iter().find(|asset| asset.name == "model") else {
        let stop = Stop::wrong(format!("`{name}` has no model with weights"));
        return Err(stop.hint("a `lora-train` or a `prompt-llm` node has"));
    };
    let place = pipeline.workplace()?;
    let weights = place.world(&events).assets.path(asset, &mut progress);
    place.save();
    Ok(Found { weights: weights.map_err(|error| Stop::failed(&error))?, adapter: None, name: name.to_owned() })
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

//! The arguments that name a pipeline, and how its nodes are named.

use std::path::PathBuf;

use retort_cache::Answer;
use retort_engine::{Graph, NodeId, OpInfo, Verdict, plan};

use super::stop::{Result, Stop, warn};
use super::workplace::{Workplace, root};
use crate::load::{LoadOptions, Loaded, load, read};

/// Nodes whose answers are read while the pipeline is checked, at most.
const AHEAD: usize = 2048;

/// Which pipeline, with which params, in which store.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PipelineArgs {
    /// The pipeline's YAML file
    #[arg(value_name = "PIPELINE")]
    pub path: PathBuf,
    /// Sets a param; the value is read as YAML
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// A set of overrides that the pipeline names under `profiles`
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Which store.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// The store's folder [env: RETORT_STORE] [default: `.retort` beside the nearest `retort.toml`, or else here]
    #[arg(long = "store", value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

pub(super) fn setting(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

impl PipelineArgs {
    /// Reads and checks the pipeline.
    pub(super) fn load(&self, ops: &[OpInfo]) -> Result<Loaded> {
        load(&self.path, &self.options(), ops).map_err(|mistakes| Stop::Mistakes(Box::new(mistakes)))
    }

    /// The same in a store that is there: the answers that it may need are read meanwhile.
    pub(super) fn load_from(&self, ops: &[OpInfo], place: &Workplace) -> Result<Loaded> {
        let wrong = |mistakes| Stop::Mistakes(Box::new(mistakes));
        let read = read(&self.path, &self.options(), ops).map_err(wrong)?;
        place.read_ahead(&read.store_names().take(AHEAD).collect::<Vec<_>>());
        read.check(ops).map_err(wrong)
    }

    fn options(&self) -> LoadOptions {
        let fetched = root(Some(&self.path), self.store.folder.as_deref()).ok().map(|root| root.join("assets/models"));
        LoadOptions { set: self.set.clone(), profile: self.profile.clone(), fetched }
    }

    /// Whether the store that belongs to the pipeline is there already.
    pub(super) fn has_workplace(&self) -> bool {
        Workplace::exists(Some(&self.path), self.store.folder.as_deref())
    }

    /// Opens the store that belongs to the pipeline, or begins one.
    pub(super) fn workplace(&self) -> Result<Workplace> {
        Workplace::open(Some(&self.path), self.store.folder.as_deref())
    }

    /// The store that belongs to the pipeline; an empty one in memory where there is none yet.
    pub(super) fn look(&self) -> Result<Workplace> {
        Workplace::look(Some(&self.path), self.store.folder.as_deref())
    }
}

/// The nodes of these names; of one that a matrix or a `foreach` multiplies, all copies.
pub(super) fn nodes(graph: &Graph, names: &[String]) -> Result<Vec<NodeId>> {
    let mut nodes = Vec::new();
    for name in names {
        let is_copy = |id: &NodeId| graph.node(*id).name.strip_prefix(name).is_some_and(|rest| rest.starts_with('@'));
        let copies: Vec<_> = graph.order().iter().copied().filter(is_copy).collect();
        match graph.find(name) {
            None if !copies.is_empty() => nodes.extend(copies),
            _ => nodes.push(node(graph, name)?),
        }
    }
    Ok(nodes)
}

/// The node of a name.
pub(super) fn node(graph: &Graph, name: &str) -> Result<NodeId> {
    graph.find(name).ok_or_else(|| {
        let names = graph.order().iter().map(|id| graph.node(*id).name.as_str());
        let hint = format!("its nodes are {}", names.clone().collect::<Vec<_>>().join(", "));
        Stop::wrong(format!("unknown node `{name}`")).did_you_mean(name, names, hint)
    })
}

/// The node and port that `node` or `node.port` names.
pub(super) fn port(graph: &Graph, name: &str) -> Result<(NodeId, Option<String>)> {
    if let Some(id) = graph.find(name) {
        return Ok((id, None));
    }
    let Some((before, port)) = name.rsplit_once('.') else { return Ok((node(graph, name)?, None)) };
    let id = node(graph, before)?;
    let ports = graph.node(id).ports.iter().map(|(port, _)| port.as_str());
    if ports.clone().any(|other| other == port) {
        return Ok((id, Some(port.to_string())));
    }
    let hint = format!("its outputs are {}", ports.clone().collect::<Vec<_>>().join(", "));
    Err(Stop::wrong(format!("`{before}` has no output `{port}`")).did_you_mean(port, ports, hint))
}

/// A node's answer: that of the pipeline as it stands, or else the newest there is, with a warning.
pub(super) fn answer(args: &PipelineArgs, graph: &Graph, id: NodeId, place: &Workplace) -> Result<Answer> {
    let name = &graph.node(id).name;
    let events = |_: &retort_engine::Event| ();
    let world = place.world(&events);
    let planned = plan(graph, &[id], world)?.pop().filter(|planned| planned.verdict == Verdict::Fresh);
    if let Some(answer) = planned.and_then(|planned| planned.answer) {
        return Ok(answer);
    }
    let command = format!("retort run {} {name}", args.path.display());
    let Some(answer) = world.store.last(&graph.store_name(id))? else {
        return Err(Stop::wrong(format!("`{name}` has no answer yet")).hint(format!("`{command}` makes one")));
    };
    warn(&format!("this is an earlier answer of `{name}`: the pipeline or its files have changed since (`{command}`)"));
    Ok(answer)
}

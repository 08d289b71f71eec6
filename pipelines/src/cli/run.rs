//! `retort run`: what is stale, and what it needs.

use std::mem::ManuallyDrop;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use retort_engine::{Event, Graph, Limits, Observer, OpInfo, Summary};

use super::closing;
use super::interrupt;
use super::lock::Held;
use super::pipeline::{PipelineArgs, node, nodes};
use super::remote::RemoteArgs;
use super::report;
use super::stop::{Ended, Result, chain, error, say, warn};
use super::workplace::width_of_stderr;
use crate::history;
use crate::load::Loaded;
use crate::observe::{About, Clock, Json, Live, Plain, Record, Stage, State, Tally, TensorBoard, View};

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Nodes to bring up to date, with all that they need [default: all]
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Nodes side by side [default: one a processor]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Runs a node although its answer is known; may be given several times
    #[arg(long, value_name = "NODE")]
    force: Vec<String>,
    /// Goes on with nodes that don't need a failed one
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    /// Sends the answers and the remembered rows to the remote store when the run is over
    #[arg(long)]
    push: bool,
    /// Asks the nodes again whose answers are known, and compares; nothing in the store is replaced
    #[arg(long, conflicts_with_all = ["force", "keep_going", "locked", "push", "jobs"])]
    verify: bool,
    /// Lets a node of the operator `exec` run its program, by the node's name; may be given several times
    #[arg(long, value_name = "NODE")]
    allow_exec: Vec<String>,
    /// Holds the run to the pipeline's lock: stops with exit status 3 at the first difference
    #[arg(long)]
    locked: bool,
    /// Prints events on standard output, an object a line, and last a summary
    #[arg(long)]
    json: bool,
    /// Writes a page about the run when it is over, as `report` does
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let clock = Clock::start();
    let mut args = args.clone();
    let held = if args.locked { Some(Held::take(&mut args.pipeline)?) } else { None };
    let args = &args;
    // A store is begun for a pipeline without mistakes only.
    let there = if args.pipeline.has_workplace() { Some(args.remote.place(&args.pipeline)?) } else { None };
    let loaded = match &there {
        Some((place, _)) => args.pipeline.load_from(ops, place)?,
        None => args.pipeline.load(ops)?,
    };
    // The process ends with the command: taking a large graph apart would only delay it.
    let loaded = ManuallyDrop::new(loaded);
    let graph = &loaded.graph;
    let targets = nodes(graph, &args.nodes)?;
    let limits = args.limits(graph)?;
    if args.push {
        args.remote.required()?;
    }
    let (mut place, far) = there.map_or_else(|| args.remote.place(&args.pipeline), Ok)?;
    place.allow(args.allowed(graph)?);
    if let Some(held) = &held
        && let Some(ended) = held.before(graph, &targets, place.world(&|_: &Event| ()))?
    {
        return Ok(ended);
    }
    let record = Record::begin(&place.root, &clock, &args.about(&loaded))?;
    // To verify a node asks nothing of those that feed it.
    let shown = if args.verify && !targets.is_empty() { targets.clone() } else { graph.needed(&targets) };
    let names: Vec<_> = shown.into_iter().map(|id| graph.node(id).name.clone()).collect();
    let id = record.id().to_owned();
    let views = args.views(record, &clock, &names);
    let stage = Arc::new(Stage::new(clock, names, views));
    let (told, json) = (stage.clone(), args.json);
    interrupt::watch(place.cancelled.clone(), move |text| if json { say(text) } else { told.say(text) });

    let watched = held.as_ref().map(|held| held.watch(stage.as_ref(), &place.cancelled));
    let events: &dyn Observer = watched.as_ref().map_or(stage.as_ref(), |watched| watched);
    let summary = if args.verify {
        retort_engine::verify(graph, &targets, place.world(events))
    } else {
        retort_engine::run(graph, &targets, place.world(events), &limits)
    };
    place.save();
    let (nodes, seconds) = stage.end(&summary);
    let nodes = ManuallyDrop::new(nodes);
    if !args.json {
        say("");
        say(closing::nodes(&nodes, &summary, seconds).trim_end());
        let tables = closing::tables(graph, &nodes, &place, width_of_stderr());
        if !tables.is_empty() {
            say(&format!("\n{}", tables.trim_end()));
        }
    }
    for trouble in stage.troubles() {
        warn(&format!("the record of this run is not whole: {}", chain(&trouble)));
    }
    if let Some(path) = &args.html {
        match history::read(&place.root, &id) {
            Ok(run) => report::write(&place.root, run, path)?,
            Err(why) => warn(&format!("there is no page about this run: {why}")),
        }
    }
    if let Some(far) = &far {
        far.say();
        if args.push && !summary.cancelled {
            far.push(graph, &graph.needed(&targets))?;
        }
    }
    if let Some(ended) = held.as_ref().and_then(Held::found) {
        return Ok(ended);
    }
    match (args.end(&nodes, &summary), &held) {
        (Ended::DONE, Some(held)) => held.after(&args.pipeline, graph, &targets, place.world(&|_: &Event| ())),
        (ended, _) => Ok(ended),
    }
}

impl Args {
    fn limits(&self, graph: &Graph) -> Result<Limits> {
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Limits {
            jobs: self.jobs.map_or_else(processors, NonZero::get),
            keep_going: self.keep_going,
            force: nodes(graph, &self.force)?,
        })
    }

    /// The nodes that may run programs; each must be there.
    fn allowed(&self, graph: &Graph) -> Result<&[String]> {
        let is_copy = |name: &str| graph.order().iter().any(|id| graph.node(*id).name.split('@').next() == Some(name));
        for name in self.allow_exec.iter().filter(|name| !is_copy(name)) {
            node(graph, name)?;
        }
        Ok(&self.allow_exec)
    }

    fn about(&self, loaded: &Loaded) -> About {
        About {
            file: self.pipeline.path.display().to_string(),
            pipeline: loaded.name.clone(),
            targets: self.nodes.clone(),
            set: self.pipeline.set.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            profile: self.pipeline.profile.clone(),
            force: self.force.clone(),
        }
    }

    fn views(&self, record: Record, clock: &Clock, names: &[String]) -> Vec<Box<dyn View>> {
        let board = TensorBoard::new(record.folder().join("tensorboard"), clock);
        let shown: Box<dyn View> = if self.json {
            Box::new(Json::new(std::io::stdout()))
        } else if console::user_attended_stderr() {
            Box::new(Live::new(names.iter().map(String::as_str)))
        } else {
            Box::new(Plain::new(std::io::stderr()))
        };
        vec![shown, Box::new(record), Box::new(board)]
    }

    /// Says what went wrong; gives the exit status.
    fn end(&self, nodes: &[(String, Tally)], summary: &Summary) -> Ended {
        for (name, tally) in nodes {
            if let State::Differs(place) = &tally.state {
                let hint = "the answer that is known stays; DuckDB opens both tables";
                error(&format!("`{name}` has two answers: {place}"), Some(hint));
            }
            if let State::Failed(why) = &tally.state {
                error(&format!("`{name}` failed: {why}"), None);
            }
        }
        let again = format!("retort run {}", self.pipeline.path.display());
        if summary.cancelled {
            error("interrupted", Some(&format!("what is finished is kept; `{again}` goes on from there")));
            return Ended::INTERRUPTED;
        }
        if summary.failed > 0 { Ended::FAILED } else { Ended::DONE }
    }
}

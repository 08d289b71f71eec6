//! `retort cache push` and `pull`: what one store has and the other lacks.

use std::collections::BTreeSet;
use std::path::PathBuf;

use retort_cache::remote::{Freight, Moved, Remote, Survey, freight_of, pull, push};
use retort_cache::{Answer, Disk, Recipe, RecipeId, Store};
use retort_engine::{Graph, OpInfo, World, op_facts, plan};

use crate::cli::pipeline::{PipelineArgs, StoreArgs};
use crate::cli::remote::{Bar, RemoteArgs, say_pulled, say_pushed};
use crate::cli::stop::{Ended, Result, Stop};
use crate::cli::workplace::{Workplace, root};

/// Arguments of `cache push` and `cache pull`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Pipelines whose answers and remembered rows travel [default: all that the store has]
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<PathBuf>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// Sets a param of the pipelines; the value is read as YAML
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::cli::pipeline::setting)]
    set: Vec<(String, String)>,
    /// A set of overrides that the pipelines name under `profiles`
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(in crate::cli) fn send(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let remote = args.remote.required()?;
    if args.pipelines.is_empty() {
        let disk = args.disk()?;
        send_freight(&disk, &remote, &Freight::all(&disk)?)?;
    }
    for pipeline in args.each() {
        let loaded = pipeline.load(ops)?;
        let disk = Disk::open(root(Some(&pipeline.path), pipeline.store.folder.as_deref())?)?;
        let mut answers = Vec::new();
        for id in loaded.graph.order() {
            answers.extend(disk.last(&loaded.graph.store_name(*id))?);
        }
        if answers.is_empty() {
            let stop = Stop::wrong(format!("`{}` has no answers yet", pipeline.path.display()));
            return Err(stop.hint(format!("`retort run {}` makes them", pipeline.path.display())));
        }
        send_freight(&disk, &remote, &Freight::of(answers))?;
    }
    Ok(Ended::DONE)
}

fn send_freight(disk: &Disk, remote: &Remote, freight: &Freight) -> Result<()> {
    let bar = Bar::new("pushing");
    let moved = push(disk, remote, freight, &|progress| bar.show(progress));
    drop(bar);
    say_pushed(&moved?, remote);
    Ok(())
}

pub(in crate::cli) fn bring(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let remote = args.remote.required()?;
    if !remote.look()? {
        let stop = Stop::Error {
            status: Ended::FAILED,
            message: format!("there is no store at {}", remote.url()),
            hint: None,
        };
        return Err(stop.hint("`retort cache push` begins one"));
    }
    let mut all_true = true;
    if args.pipelines.is_empty() {
        let disk = args.disk()?;
        let (freight, untrue) = freight_of(&remote)?;
        all_true &= bring_freight(&disk, &remote, &freight, untrue)?;
    }
    for pipeline in args.each() {
        let loaded = pipeline.load(ops)?;
        let place = pipeline.workplace()?;
        let disk = Disk::open(&place.root)?;
        let (answers, freight, untrue) = survey(&loaded.graph, &place, &disk, &remote)?;
        place.save();
        all_true &= bring_freight(&disk, &remote, &freight, untrue)?;
        for (name, answer) in answers {
            if disk.recall(answer.recipe.id())?.is_some() {
                disk.commit(&name, &answer)?;
            }
        }
    }
    Ok(if all_true { Ended::DONE } else { Ended::FAILED })
}

/// What the pipeline's nodes are known to answer, here or there, by the names of the nodes; and what has to be brought.
#[expect(clippy::type_complexity, reason = "it is taken apart at once")]
fn survey(
    graph: &Graph,
    place: &Workplace,
    disk: &Disk,
    remote: &Remote,
) -> Result<(Vec<(String, Answer)>, Freight, Vec<String>)> {
    let survey = Survey::new(disk, remote);
    let events = |_: &retort_engine::Event| ();
    let world = World { store: &survey, ..place.world(&events) };
    let mut answers = Vec::new();
    for planned in plan(graph, &[], world)? {
        answers.extend(planned.answer.map(|answer| (graph.store_name(planned.id), answer)));
    }
    let rows = operators(graph, world)?;
    let freight = Freight { answers: answers.iter().map(|(_, answer)| answer.clone()).collect(), rows };
    Ok((answers, freight, survey.untrue()))
}

/// The names of the nodes' row logs, of those too whose answers nobody knows.
fn operators(graph: &Graph, world: World<'_>) -> Result<BTreeSet<RecipeId>> {
    let mut operators = BTreeSet::new();
    for id in graph.order() {
        let op = op_facts(graph.node(*id), world)?;
        operators.insert(Recipe { op, inputs: Vec::new() }.op_id());
    }
    Ok(operators)
}

fn bring_freight(disk: &Disk, remote: &Remote, freight: &Freight, mut untrue: Vec<String>) -> Result<bool> {
    let bar = Bar::new("pulling");
    let moved = pull(disk, remote, freight, &|progress| bar.show(progress));
    drop(bar);
    let mut moved: Moved = moved?;
    moved.untrue.append(&mut untrue);
    Ok(say_pulled(&moved, remote))
}

impl Args {
    fn disk(&self) -> Result<Disk> {
        Ok(Disk::open(root(None, self.store.folder.as_deref())?)?)
    }

    fn each(&self) -> impl Iterator<Item = PipelineArgs> {
        self.pipelines.iter().map(|path| PipelineArgs {
            path: path.clone(),
            set: self.set.clone(),
            profile: self.profile.clone(),
            store: self.store.clone(),
        })
    }
}

//! `retort lock`: writes down what an experiment used and what came of it; and what `run --locked` holds a run to.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use retort_cache::Answer;
use retort_engine::{Event, EventKind, Graph, NodeId, Observer, OpInfo, World, plan};

use super::pipeline::PipelineArgs;
use super::stop::{Ended, Result, Stop, say};
use crate::load::Loaded;
use crate::lock::{Difference, Lock, LockError, Used, path_of};

/// Arguments of `lock`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let place = args.pipeline.look()?;
    let events = |_: &Event| ();
    let lock = current(&args.pipeline, &loaded, place.world(&events));
    place.save();
    let (lock, _) = lock?;
    let path = path_of(&args.pipeline.path);
    let verb = if lock.write(&path)? { "wrote" } else { "nothing changed in" };
    say(&format!("{verb} {}", path.display()));
    Ok(Ended::DONE)
}

/// The lock of a pipeline as it stands, and its answers. All its nodes must be fresh.
pub(super) fn current(args: &PipelineArgs, loaded: &Loaded, world: World<'_>) -> Result<(Lock, Vec<Answer>)> {
    let nodes = loaded.graph.order();
    let used = Used::of(&loaded.graph, nodes, world)?;
    let answers = answers(args, &loaded.graph, &[], world)?;
    let mut lock = Lock::of(&loaded.name, used, &answers);
    lock.profile.clone_from(&args.profile);
    lock.set = args.set.iter().cloned().collect();
    Ok((lock, answers))
}

/// The answers of nodes that must all be fresh, in the order of the graph.
fn answers(args: &PipelineArgs, graph: &Graph, targets: &[NodeId], world: World<'_>) -> Result<Vec<Answer>> {
    let (mut answers, mut missing) = (Vec::new(), Vec::new());
    for planned in plan(graph, targets, world)? {
        match planned.answer {
            Some(answer) => answers.push(answer),
            None => missing.push(format!("`{}`", graph.node(planned.id).name)),
        }
    }
    match missing.len() {
        0 => return Ok(answers),
        n if n > 8 => drop(missing.splice(8.., [format!("{} more", n - 8)])),
        _ => {}
    }
    let message = format!("not up to date: {}", missing.join(", "));
    let stop = Stop::Error { status: Ended::FAILED, message, hint: None };
    Err(stop.hint(format!("`retort run {}` brings them up to date", args.path.display())))
}

/// A lock that a run is held to.
pub(super) struct Held {
    lock: Lock,
    path: PathBuf,
    found: Mutex<Option<Difference>>,
}

impl Held {
    /// Reads the pipeline's lock, and takes the profile and the params that it was made with, unless others are named.
    pub(super) fn take(args: &mut PipelineArgs) -> Result<Self> {
        let path = path_of(&args.path);
        let lock = Lock::read(&path).map_err(|error| match error {
            LockError::Missing(_) => {
                Stop::wrong(error.to_string()).hint(format!("`retort lock {}` writes it", args.path.display()))
            }
            error => Stop::from(error),
        })?;
        if args.profile.is_none() && args.set.is_empty() {
            args.profile.clone_from(&lock.profile);
            args.set = lock.set.clone().into_iter().collect();
        }
        Ok(Held { lock, path, found: Mutex::default() })
    }

    /// Compares what is known before anything runs.
    pub(super) fn before(&self, graph: &Graph, targets: &[NodeId], world: World<'_>) -> Result<Option<Ended>> {
        let used = Used::of(graph, &graph.needed(targets), world)?;
        Ok(self.lock.differs_from_used(&used, targets.is_empty()).map(|difference| self.denied(&difference)))
    }

    /// Hands a run's events on, and stops the run at the first answer that the lock does not have.
    pub(super) fn watch<'a>(&'a self, inner: &'a dyn Observer, cancelled: &'a AtomicBool) -> impl Observer + 'a {
        move |event: &Event| {
            if let EventKind::Fresh { outputs, .. } | EventKind::Finished { outputs, .. } = &event.kind
                && let Some(difference) = self.lock.differs_from_outputs(&event.node, outputs)
            {
                self.found.lock().expect("no thread panics while it holds it").get_or_insert(difference);
                cancelled.store(true, Ordering::Relaxed);
            }
            inner.on(event);
        }
    }

    /// Whether the run was stopped because of an answer.
    pub(super) fn found(&self) -> Option<Ended> {
        let found = self.found.lock().expect("no thread panics while it holds it");
        found.as_ref().map(|difference| self.denied(difference))
    }

    /// Compares everything, all nodes being answered.
    pub(super) fn after(
        &self,
        args: &PipelineArgs,
        graph: &Graph,
        targets: &[NodeId],
        world: World<'_>,
    ) -> Result<Ended> {
        let used = Used::of(graph, &graph.needed(targets), world)?;
        let answers = answers(args, graph, targets, world)?;
        let now = Lock::of(&self.lock.pipeline, used, &answers);
        if let Some(difference) = self.lock.differs_from_answers(&now) {
            return Ok(self.denied(&difference));
        }
        say(&format!("everything is as {} has it", self.path.display()));
        Ok(Ended::DONE)
    }

    fn denied(&self, difference: &Difference) -> Ended {
        let hint = format!("`{}` is not what this experiment uses and gives now", self.path.display());
        super::stop::error(&difference.to_string(), Some(&hint));
        Ended::DIFFERS
    }
}

impl From<LockError> for Stop {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Store(error) => Stop::from(error),
            error => {
                let stop = Stop::failed(&error);
                match stop {
                    Stop::Error { message, hint, .. } => Stop::Error { status: Ended::WRONG, message, hint },
                    other => other,
                }
            }
        }
    }
}

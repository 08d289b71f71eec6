//! Runs what is stale. Independent nodes run side by side; nodes that fill the machine take turns.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use retort_cache::{Answer, Output, Recipe, Table};
use serde::Serialize;

use crate::event::{Event, EventKind, OutputSummary};
use crate::graph::{Graph, NodeId};
use crate::plan::{Reason, reason, recalled};
use crate::question::{Question, Tables};
use crate::{Cx, Failure, Lane, Operator, World, rows};

/// The answer record's format.
const ANSWER_VERSION: u32 = 1;

/// How a run may use the machine, and what it does beside the plan.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Nodes side by side.
    pub jobs: usize,
    /// Whether nodes that don't need a failed one still run.
    pub keep_going: bool,
    /// Nodes that run although their answer is known.
    pub force: Vec<NodeId>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Nodes that ran.
    pub ran: usize,
    /// Nodes whose answer was known.
    pub fresh: usize,
    /// Nodes that could not answer.
    pub failed: usize,
    /// Nodes that were not tried.
    pub skipped: usize,
    /// Whether the person asked to stop.
    pub cancelled: bool,
}

/// Where a node is. Changed in `Progress::settle` and `Progress::begin` only.
#[derive(Clone)]
enum State {
    /// Its inputs are not all answered.
    Waiting,
    /// Its thread is at work.
    Running,
    /// It has an answer.
    Answered(Arc<Tables>),
    /// It failed, or was not tried.
    Lost,
}

enum Outcome {
    Fresh(Arc<Tables>),
    Ran(Arc<Tables>),
    Failed(Failure),
}

/// Brings the targets and all that they need up to date.
pub fn run(graph: &Graph, targets: &[NodeId], world: World<'_>, limits: &Limits) -> Summary {
    let needed = graph.needed(targets);
    let states = Mutex::new(needed.iter().map(|id| (*id, State::Waiting)).collect::<BTreeMap<_, _>>());
    let mut progress = Progress { graph, world, limits, states: &states, summary: Summary::default() };
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let mut running: Vec<(NodeId, Lane)> = Vec::new();
        loop {
            while let Some(id) = progress.next(&needed, &running) {
                let lane = graph.node(id).made.lane;
                running.push((id, lane));
                progress.begin(id);
                let (sender, states) = (sender.clone(), &states);
                scope.spawn(move || work(graph, id, states, world, limits, &sender));
            }
            if running.is_empty() {
                break;
            }
            let (id, outcome) = receiver.recv().expect("a running node reports");
            running.retain(|(other, _)| *other != id);
            progress.settle(id, outcome, &needed);
        }
    });
    progress.finish(&needed)
}

struct Progress<'a> {
    graph: &'a Graph,
    world: World<'a>,
    limits: &'a Limits,
    states: &'a Mutex<BTreeMap<NodeId, State>>,
    summary: Summary,
}

impl Progress<'_> {
    /// A node that may begin now.
    fn next(&self, needed: &[NodeId], running: &[(NodeId, Lane)]) -> Option<NodeId> {
        let stopping = self.summary.failed > 0 && !self.limits.keep_going;
        if stopping || self.summary.cancelled || running.len() >= self.limits.jobs.max(1) {
            return None;
        }
        if self.world.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let states = lock(self.states);
        let answered = |id: &NodeId| matches!(states[id], State::Answered(_));
        needed.iter().copied().find(|id| {
            let lane = self.graph.node(*id).made.lane;
            let lane_free = lane == Lane::Cpu || running.iter().all(|(_, other)| *other != lane);
            matches!(states[id], State::Waiting) && lane_free && self.graph.feeds(*id).iter().all(answered)
        })
    }

    fn begin(&self, id: NodeId) {
        lock(self.states).insert(id, State::Running);
    }

    fn settle(&mut self, id: NodeId, outcome: Outcome, needed: &[NodeId]) {
        match outcome {
            Outcome::Fresh(tables) => {
                self.summary.fresh += 1;
                lock(self.states).insert(id, State::Answered(tables));
            }
            Outcome::Ran(tables) => {
                self.summary.ran += 1;
                lock(self.states).insert(id, State::Answered(tables));
            }
            Outcome::Failed(Failure::Cancelled) => {
                self.summary.cancelled = true;
                lock(self.states).insert(id, State::Lost);
            }
            Outcome::Failed(failure) => {
                self.summary.failed += 1;
                lock(self.states).insert(id, State::Lost);
                self.emit(id, EventKind::Failed { error: chain(&failure) });
                self.skip_after(id, needed);
            }
        }
    }

    /// Nodes that need a failed one, directly or not, are not tried.
    fn skip_after(&mut self, failed: NodeId, needed: &[NodeId]) {
        let because = self.graph.node(failed).name.clone();
        let mut lost = vec![failed];
        for id in needed {
            if self.graph.feeds(*id).iter().any(|feed| lost.contains(feed)) {
                lost.push(*id);
                if matches!(lock(self.states).insert(*id, State::Lost), Some(State::Waiting)) {
                    self.summary.skipped += 1;
                    self.emit(*id, EventKind::Skipped { because: because.clone() });
                }
            }
        }
    }

    fn finish(mut self, needed: &[NodeId]) -> Summary {
        let states = lock(self.states);
        self.summary.skipped += needed.iter().filter(|id| matches!(states[id], State::Waiting)).count();
        drop(states);
        self.summary.cancelled |= self.world.cancelled.load(Ordering::Relaxed) && self.summary.skipped > 0;
        self.summary
    }

    fn emit(&self, id: NodeId, kind: EventKind) {
        self.world.events.on(&Event { node: self.graph.node(id).name.clone(), kind });
    }
}

fn work(
    graph: &Graph,
    id: NodeId,
    states: &Mutex<BTreeMap<NodeId, State>>,
    world: World<'_>,
    limits: &Limits,
    sender: &Sender<(NodeId, Outcome)>,
) {
    let answers = |feed: NodeId| match &lock(states)[&feed] {
        State::Answered(tables) => tables.clone(),
        _ => unreachable!("a node begins when its inputs are answered"),
    };
    let forced = limits.force.contains(&id);
    let outcome = catch_unwind(AssertUnwindSafe(|| ask(graph, id, &answers, world, forced)));
    let outcome = match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Outcome::Failed(Failure::op(format!("a defect in retort: the operator panicked: {text}")))
        }
    };
    // The receiver outlives every worker: it is dropped after the scope.
    let _ = sender.send((id, outcome));
}

/// Answers one node: from the store, or by running it.
fn ask(
    graph: &Graph,
    id: NodeId,
    answers: &dyn Fn(NodeId) -> Arc<Tables>,
    world: World<'_>,
    forced: bool,
) -> Result<Outcome, Failure> {
    let node = graph.node(id);
    let question = Question::of(graph, id, answers, world)?;
    let name = graph.store_name(id);
    let cx = Cx { world, node: &node.name, recipe: question.recipe.id() };
    let last = world.store.last(&name)?;
    if !forced && let Some((answer, tables)) = recalled(&question.recipe, world)? {
        if last.as_ref() != Some(&answer) {
            world.store.commit(&name, &answer)?;
        }
        cx.emit(EventKind::Fresh { recipe: cx.recipe, outputs: summaries(&answer) });
        return Ok(Outcome::Fresh(Arc::new(tables)));
    }
    let why = if forced { Reason::Forced } else { reason(graph, id, &question, world)? };
    cx.emit(EventKind::Started { why });
    let (tables, asked, rejects) = produce(graph, id, &question, forced, &cx)?;
    let answer = record(&node.op, &question.recipe, node.ports.iter().map(|(port, _)| port).zip(&tables));
    world.store.commit(&name, &answer)?;
    let changed = last.is_none_or(|last| last.outputs != answer.outputs);
    cx.emit(EventKind::Finished { recipe: cx.recipe, outputs: summaries(&answer), changed, asked, rejects });
    Ok(Outcome::Ran(Arc::new(tables)))
}

fn produce(
    graph: &Graph,
    id: NodeId,
    question: &Question,
    forced: bool,
    cx: &Cx<'_>,
) -> Result<(Tables, Option<u64>, u64), Failure> {
    let node = graph.node(id);
    let writers = node.ports.iter().map(|(_, schema)| cx.world.store.writer(schema.clone()));
    let mut writers = writers.collect::<Result<Vec<_>, _>>()?;
    let (asked, rejects) = match &node.made.operator {
        Operator::Rows(op) => {
            let counts = rows::run(node, op.as_ref(), question, &mut writers, forced, cx)?;
            if let (Some(listing), Some(writer)) = (&question.listing, writers.get_mut(2)) {
                for batch in listing.batches()? {
                    writer.write(&batch?)?;
                }
            }
            (Some(counts.asked), counts.rejects)
        }
        Operator::Table(op) => {
            op.run(&question.inputs, &mut writers, cx)?;
            (None, 0)
        }
    };
    let tables = writers.into_iter().map(retort_cache::TableWriter::finish).collect::<Result<Vec<Table>, _>>()?;
    Ok((tables, asked, rejects))
}

fn record<'a>(op: &str, recipe: &Recipe, outputs: impl Iterator<Item = (&'a String, &'a Table)>) -> Answer {
    let output = |(port, table): (&String, &Table)| Output { port: port.clone(), content: table.id, rows: table.rows };
    Answer {
        version: ANSWER_VERSION,
        op: op.to_string(),
        recipe: recipe.clone(),
        outputs: outputs.map(output).collect(),
    }
}

fn summaries(answer: &Answer) -> Vec<OutputSummary> {
    let summary = |out: &Output| OutputSummary { port: out.port.clone(), content: out.content, rows: out.rows };
    answer.outputs.iter().map(summary).collect()
}

/// An error with its causes, joined by colons.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds the states")
}

//! Which node is next. What a node is asked, and how it answers, is `run`'s.
//!
//! A node waits until all that feed it are answered. Then it is looked at, once, and what is known already is settled on the
//! spot: a graph of fresh nodes never leaves this thread. The others are handed to the threads of a pool.
//!
//! | state | means | becomes |
//! |---|---|---|
//! | `Waiting(n)` | n of the nodes that feed it are not answered | `Ready` with the last of them, `Lost` with one that is lost |
//! | `Ready` | in the queue of its lane, or looked at and parked until its lane is free | `Running`, `Answered`, `Lost` |
//! | `Running` | a thread is at work | `Answered`, `Lost` |
//! | `Answered` | its tables are there | |
//! | `Lost` | it failed, or needs one that did | |

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Scope;

use crate::ahead::Ahead;
use crate::event::{Event, EventKind};
use crate::graph::{Graph, NodeId};
use crate::question::{Question, Tables};
use crate::run::{Limits, Look, Outcome, Summary, answer, ask, look};
use crate::{Failure, Lane, World};

/// Nodes that were looked at and wait for their lane, at most: each holds its question.
const PARKED: usize = 64;

/// Runs the nodes of `needed`, each after those that feed it.
pub(crate) fn schedule(graph: &Graph, needed: &[NodeId], world: World<'_>, limits: &Limits) -> Summary {
    let answered = Answered((0..graph.nodes.node_count()).map(|_| OnceLock::new()).collect());
    let mut schedule = Schedule::new(graph, needed, world, limits, &answered);
    std::thread::scope(|scope| {
        let mut pool = Pool::new(scope, graph, world, &answered);
        loop {
            let report = match schedule.step() {
                Step::Settled => pool.report_if_there(),
                Step::Run(task) => {
                    pool.give(task);
                    pool.report_if_there()
                }
                Step::Nothing if pool.busy > 0 => Some(pool.report()),
                Step::Nothing => break,
            };
            if let Some((id, outcome)) = report {
                schedule.ended(id, outcome);
            }
        }
    });
    schedule.finish(needed)
}

/// The tables of the nodes that are answered, by node.
struct Answered(Vec<OnceLock<Arc<Tables>>>);

impl Answered {
    fn of(&self, id: NodeId) -> Arc<Tables> {
        self.0[id.index()].get().expect("a node begins when its inputs are answered").clone()
    }
}

/// Where a node is. Changed in `Schedule` only; the table above says how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody needs it in this run.
    Unneeded,
    /// So many of the nodes that feed it are not answered.
    Waiting(usize),
    /// Its turn comes when a thread and its lane are free.
    Ready,
    /// A thread is at work.
    Running,
    /// It has an answer.
    Answered,
    /// It failed, or was not tried.
    Lost,
}

/// What a thread is to do.
struct Task {
    id: NodeId,
    forced: bool,
    /// The question, where it was looked at already.
    question: Option<Box<Question>>,
}

enum Step {
    /// A node was settled without a thread.
    Settled,
    /// A thread is to run this.
    Run(Task),
    /// Nothing can begin before another node ends.
    Nothing,
}

struct Schedule<'a> {
    graph: &'a Graph,
    world: World<'a>,
    jobs: usize,
    keep_going: bool,
    forced: BTreeSet<NodeId>,
    answered: &'a Answered,
    states: Vec<State>,
    ahead: Ahead<'a>,
    /// Nodes to look at, in the order of the graph: of the lane `Cpu`, and of `Model`.
    ready: BinaryHeap<Reverse<NodeId>>,
    ready_models: BinaryHeap<Reverse<NodeId>>,
    /// Nodes that were looked at and wait for the lane `Model`.
    parked: VecDeque<Task>,
    running: usize,
    model_runs: bool,
    summary: Summary,
}

impl<'a> Schedule<'a> {
    fn new(graph: &'a Graph, needed: &'a [NodeId], world: World<'a>, limits: &Limits, answered: &'a Answered) -> Self {
        let mut schedule = Schedule {
            graph,
            world,
            jobs: limits.jobs.max(1),
            keep_going: limits.keep_going,
            forced: limits.force.iter().copied().collect(),
            answered,
            states: vec![State::Unneeded; graph.nodes.node_count()],
            ahead: Ahead::new(graph, needed, world),
            ready: BinaryHeap::new(),
            ready_models: BinaryHeap::new(),
            parked: VecDeque::new(),
            running: 0,
            model_runs: false,
            summary: Summary::default(),
        };
        for id in needed {
            match graph.n_feeds(*id) {
                0 => schedule.ready(*id),
                feeds => schedule.states[id.index()] = State::Waiting(feeds),
            }
        }
        schedule
    }

    /// Does the next thing that can be done, or hands it out.
    fn step(&mut self) -> Step {
        let stopping = self.summary.failed > 0 && !self.keep_going;
        let cancelled = self.summary.cancelled || self.world.cancelled.load(Ordering::Relaxed);
        if stopping || cancelled || self.running >= self.jobs {
            return Step::Nothing;
        }
        if !self.model_runs
            && let Some(task) = self.parked.pop_front()
        {
            return self.begin(task);
        }
        let Some(id) = self.next() else { return Step::Nothing };
        self.ahead.of(id);
        let task = Task { id, forced: self.forced.contains(&id), question: None };
        if is_slow_to_ask(self.graph, id) {
            return self.begin(task);
        }
        let outcome = guarded(|| look(self.graph, id, &|feed| self.answered.of(feed), self.world, task.forced));
        match outcome {
            Ok(Look::Fresh(tables)) => {
                self.settle(id, Outcome::Fresh(tables));
                Step::Settled
            }
            Ok(Look::Stale(question)) => self.begin(Task { question: Some(question), ..task }),
            Err(failure) => {
                self.settle(id, Outcome::Failed(failure));
                Step::Settled
            }
        }
    }

    /// The first node that is ready. One of a busy lane is taken too, as long as it is not certain to wait there.
    fn next(&mut self) -> Option<NodeId> {
        let first_model = self
            .ready_models
            .peek()
            .filter(|Reverse(id)| !self.model_runs || (self.parked.len() < PARKED && !is_slow_to_ask(self.graph, *id)));
        let queue = match (self.ready.peek(), first_model) {
            (Some(Reverse(id)), Some(Reverse(model))) if model < id => &mut self.ready_models,
            (None, Some(_)) => &mut self.ready_models,
            _ => &mut self.ready,
        };
        queue.pop().map(|Reverse(id)| id)
    }

    fn begin(&mut self, task: Task) -> Step {
        if self.graph.node(task.id).made.lane == Lane::Model {
            if self.model_runs {
                self.parked.push_back(task);
                return Step::Settled;
            }
            self.model_runs = true;
        }
        self.running += 1;
        self.states[task.id.index()] = State::Running;
        Step::Run(task)
    }

    /// A thread has ended its task.
    fn ended(&mut self, id: NodeId, outcome: Outcome) {
        self.running -= 1;
        self.model_runs &= self.graph.node(id).made.lane != Lane::Model;
        self.settle(id, outcome);
    }

    fn settle(&mut self, id: NodeId, outcome: Outcome) {
        match outcome {
            Outcome::Fresh(tables) => {
                self.summary.fresh += 1;
                self.answer(id, tables);
            }
            Outcome::Ran(tables) => {
                self.summary.ran += 1;
                self.answer(id, tables);
            }
            Outcome::Failed(Failure::Cancelled) => {
                self.summary.cancelled = true;
                self.states[id.index()] = State::Lost;
            }
            Outcome::Failed(failure) => {
                self.summary.failed += 1;
                self.states[id.index()] = State::Lost;
                self.emit(id, EventKind::Failed { error: chain(&failure) });
                self.skip_after(id);
            }
        }
    }

    /// Those that waited for this node only are ready.
    fn answer(&mut self, id: NodeId, tables: Arc<Tables>) {
        self.states[id.index()] = State::Answered;
        let before = self.answered.0[id.index()].set(tables);
        assert!(before.is_ok(), "a node is answered once");
        let graph = self.graph;
        for fed in graph.fed_by(id) {
            match &mut self.states[fed.index()] {
                State::Waiting(1) => self.ready(fed),
                State::Waiting(feeds) => *feeds -= 1,
                _ => {}
            }
        }
    }

    fn ready(&mut self, id: NodeId) {
        self.states[id.index()] = State::Ready;
        match self.graph.node(id).made.lane {
            Lane::Cpu => self.ready.push(Reverse(id)),
            Lane::Model => self.ready_models.push(Reverse(id)),
        }
    }

    /// Nodes that need a failed one, directly or not, are not tried.
    fn skip_after(&mut self, failed: NodeId) {
        let because = self.graph.node(failed).name.clone();
        let mut lost: BTreeSet<NodeId> = self.graph.fed_by(failed).collect();
        while let Some(id) = lost.pop_first() {
            if matches!(self.states[id.index()], State::Waiting(_)) {
                self.states[id.index()] = State::Lost;
                self.summary.skipped += 1;
                self.emit(id, EventKind::Skipped { because: because.clone() });
                lost.extend(self.graph.fed_by(id));
            }
        }
    }

    fn finish(mut self, needed: &[NodeId]) -> Summary {
        let untried = |id: &&NodeId| matches!(self.states[id.index()], State::Waiting(_) | State::Ready);
        self.summary.skipped += needed.iter().filter(untried).count();
        self.summary.cancelled |= self.world.cancelled.load(Ordering::Relaxed) && self.summary.skipped > 0;
        self.summary
    }

    fn emit(&self, id: NodeId, kind: EventKind) {
        self.world.events.on(&Event { node: self.graph.node(id).name.clone(), kind });
    }
}

/// Whether the mere question may take long: files are listed, or a large one is hashed.
fn is_slow_to_ask(graph: &Graph, id: NodeId) -> bool {
    let made = &graph.node(id).made;
    made.source.is_some() || made.assets.iter().any(|asset| asset.sha256.is_none())
}

/// Threads that take tasks; as many as there were ever tasks at the same time.
struct Pool<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    graph: &'env Graph,
    world: World<'env>,
    answered: &'env Answered,
    tasks: Sender<Task>,
    queue: Arc<Mutex<Receiver<Task>>>,
    reports: Receiver<(NodeId, Outcome)>,
    reporter: Sender<(NodeId, Outcome)>,
    threads: usize,
    busy: usize,
}

impl<'scope, 'env> Pool<'scope, 'env> {
    fn new(
        scope: &'scope Scope<'scope, 'env>,
        graph: &'env Graph,
        world: World<'env>,
        answered: &'env Answered,
    ) -> Self {
        let (tasks, queue) = mpsc::channel();
        let (reporter, reports) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        Pool { scope, graph, world, answered, tasks, queue, reports, reporter, threads: 0, busy: 0 }
    }

    fn give(&mut self, task: Task) {
        self.busy += 1;
        if self.busy > self.threads {
            self.threads += 1;
            let (queue, reporter) = (self.queue.clone(), self.reporter.clone());
            let (graph, world, answered) = (self.graph, self.world, self.answered);
            self.scope.spawn(move || {
                // The lock is held while waiting: one idle thread waits for a task, the others for their turn to wait.
                while let Ok(task) = { queue.lock().expect("no thread panics while it holds the queue").recv() } {
                    let report = (task.id, work(graph, task, world, answered));
                    if reporter.send(report).is_err() {
                        break;
                    }
                }
            });
        }
        self.tasks.send(task).expect("the pool holds the other end");
    }

    fn report(&mut self) -> (NodeId, Outcome) {
        self.busy -= 1;
        self.reports.recv().expect("the pool holds the other end")
    }

    fn report_if_there(&mut self) -> Option<(NodeId, Outcome)> {
        let report = self.reports.try_recv().ok()?;
        self.busy -= 1;
        Some(report)
    }
}

fn work(graph: &Graph, task: Task, world: World<'_>, answered: &Answered) -> Outcome {
    let Task { id, forced, question } = task;
    let answers = |feed| answered.of(feed);
    let outcome = guarded(|| match question {
        Some(question) => answer(graph, id, &question, &answers, world, forced),
        None => ask(graph, id, &answers, world, forced),
    });
    outcome.unwrap_or_else(Outcome::Failed)
}

/// A panic is a failure of its node, not of the run.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure::op(format!("a defect in retort: the operator panicked: {text}")))
    })
}

/// An error with its causes, joined by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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

//! Runs what is stale. Independent nodes run side by side; nodes that fill the machine take turns (`schedule`).

use std::sync::Arc;

use retort_cache::{Output, Table};
use serde::Serialize;

use crate::event::{EventKind, OutputSummary};
use crate::graph::{Graph, NodeId};
use crate::plan::{Reason, reason, recalled, record};
use crate::question::{Question, Tables};
use crate::rows::Remembered;
use crate::schedule::schedule;
use crate::verify::differences;
use crate::{Cx, Failure, Operator, World, claim, recover, rows};

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

pub(crate) enum Outcome {
    Fresh(Arc<Tables>),
    Ran(Arc<Tables>),
    Failed(Failure),
}

/// What a look at a node found.
pub(crate) enum Look {
    /// Its answer is known.
    Fresh(Arc<Tables>),
    /// It must run to answer this.
    Stale(Box<Question>),
}

/// Brings the targets and all that they need up to date.
pub fn run(graph: &Graph, targets: &[NodeId], world: World<'_>, limits: &Limits) -> Summary {
    schedule(graph, &graph.needed(targets), world, limits)
}

/// Answers one node: from the store, or by running it.
pub(crate) fn ask(
    graph: &Graph,
    id: NodeId,
    answers: &dyn Fn(NodeId) -> Arc<Tables>,
    world: World<'_>,
    forced: bool,
) -> Result<Outcome, Failure> {
    match look(graph, id, answers, world, forced)? {
        Look::Fresh(tables) => Ok(Outcome::Fresh(tables)),
        Look::Stale(question) => answer(graph, id, &question, answers, world, forced),
    }
}

/// Asks the store alone. What is known becomes the newest answer of the node.
pub(crate) fn look(
    graph: &Graph,
    id: NodeId,
    answers: &dyn Fn(NodeId) -> Arc<Tables>,
    world: World<'_>,
    forced: bool,
) -> Result<Look, Failure> {
    let question = Question::of(graph, id, answers, world)?;
    let known = if forced { None } else { known(graph, id, &question, world)? };
    recover::tell(graph, id, world);
    Ok(known.map_or_else(|| Look::Stale(Box::new(question)), Look::Fresh))
}

/// The tables of an answer that is known. It becomes the newest of the node.
fn known(graph: &Graph, id: NodeId, question: &Question, world: World<'_>) -> Result<Option<Arc<Tables>>, Failure> {
    let node = graph.node(id);
    let recipe = question.recipe.id();
    let name = graph.store_name(id);
    world.store.wait_for(&name);
    let Some((outputs, tables)) = recalled(node, recipe, world)? else { return Ok(None) };
    let summary = summaries(&outputs);
    if world.store.newest(&name)? != Some(recipe) {
        world.store.point(&name, &record(node, question.recipe.clone(), outputs))?;
    }
    Cx { world, node: &node.name, recipe, inherits: false }.emit(EventKind::Fresh { recipe, outputs: summary });
    Ok(Some(Arc::new(tables)))
}

/// Runs one node. Tables that it finds damaged are made again, and so is its attempt.
pub(crate) fn answer(
    graph: &Graph,
    id: NodeId,
    question: &Question,
    answers: &dyn Fn(NodeId) -> Arc<Tables>,
    world: World<'_>,
    forced: bool,
) -> Result<Outcome, Failure> {
    recover::mending(graph, id, answers, world, &|| answer_once(graph, id, question, world, forced))
}

fn answer_once(
    graph: &Graph,
    id: NodeId,
    question: &Question,
    world: World<'_>,
    forced: bool,
) -> Result<Outcome, Failure> {
    let node = graph.node(id);
    let name = graph.store_name(id);
    let cx = Cx { world, node: &node.name, recipe: question.recipe.id(), inherits: !forced };
    let last = world.store.last(&name)?;
    let _claim = claim::wait(&name, &cx)?;
    // Someone may have answered since the look, or while the claim was waited for.
    if !forced && let Some(tables) = known(graph, id, question, world)? {
        return Ok(Outcome::Fresh(tables));
    }
    let why = if forced { Reason::Forced } else { reason(question, last.as_ref(), world)? };
    cx.emit(EventKind::Started { why });
    let remembered = if forced { Remembered::Renew } else { Remembered::Recall };
    let Produced { tables, asked, rejects, .. } = produce(graph, id, question, remembered, &cx)?;
    // What can't be read is no second answer.
    if forced && let Ok(Some((_, old))) = recalled(node, cx.recipe, world) {
        let _ = differences(node, &old, &tables, &cx);
    }
    let output =
        |((port, _), table): (&(String, _), &Table)| Output { port: port.clone(), content: table.id, rows: table.rows };
    let outputs = node.ports.iter().zip(&tables).map(output).collect();
    let answer = record(node, question.recipe.clone(), outputs);
    world.store.commit(&name, &answer)?;
    let changed = last.is_none_or(|last| last.outputs != answer.outputs);
    cx.emit(EventKind::Finished { recipe: cx.recipe, outputs: summaries(&answer.outputs), changed, asked, rejects });
    Ok(Outcome::Ran(Arc::new(tables)))
}

/// What a node gave.
pub(crate) struct Produced {
    pub tables: Tables,
    /// Rows that the operator was asked, where it is a row operator.
    pub asked: Option<u64>,
    pub rejects: u64,
    /// Rows that are remembered with another answer.
    pub two_answers: u64,
}

pub(crate) fn produce(
    graph: &Graph,
    id: NodeId,
    question: &Question,
    remembered: Remembered,
    cx: &Cx<'_>,
) -> Result<Produced, Failure> {
    let node = graph.node(id);
    let writers = node.ports.iter().map(|(_, schema)| cx.world.store.writer(schema.clone()));
    let mut writers = writers.collect::<Result<Vec<_>, _>>()?;
    let (asked, rejects, two_answers) = match &node.made.operator {
        Operator::Rows(op) => {
            let counts = rows::run(node, op.as_ref(), question, &mut writers, remembered, cx)?;
            if let (Some(listing), Some(writer)) = (&question.listing, writers.get_mut(2)) {
                for batch in listing.batches()? {
                    writer.write(&batch?)?;
                }
            }
            (Some(counts.asked), counts.rejects, counts.two_answers)
        }
        Operator::Table(op) => {
            op.run(&question.inputs, &mut writers, cx)?;
            (None, 0, 0)
        }
    };
    let tables = writers.into_iter().map(retort_cache::TableWriter::finish).collect::<Result<Vec<Table>, _>>()?;
    Ok(Produced { tables, asked, rejects, two_answers })
}

fn summaries(outputs: &[Output]) -> Vec<OutputSummary> {
    let summary = |out: &Output| OutputSummary { port: out.port.clone(), content: out.content, rows: out.rows };
    outputs.iter().map(summary).collect()
}

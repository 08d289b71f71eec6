//! What would run, and why. Nothing is changed by a plan; volatile listings are asked, since they are cheap.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use retort_cache::{ANSWER_VERSION, Answer, Change, Output, Recipe, RecipeId, StoreError};
use serde::{Deserialize, Serialize};

use crate::ahead::Ahead;
use crate::graph::{FILES_PORT, Graph, Node, NodeId};
use crate::question::{Question, Tables, op_facts};
use crate::{Failure, Memo, Operator, World, rows};

/// Whether a node must run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its answer is known.
    Fresh,
    /// Its question is not answered yet.
    Stale(Reason),
    /// Only its inputs' answers will tell: with what changed in the node itself, where anything did, and the answer may yet be known.
    Waiting(Vec<Change>),
}

/// Why a node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    /// It has never run.
    FirstRun,
    /// The person asked for it.
    Forced,
    /// Its answer is known, and is compared with what it says now.
    Verify,
    /// Facts changed since it last ran.
    Changed {
        /// Which, with old and new value.
        changes: Vec<Change>,
    },
    /// Nothing changed, but its tables are gone from the store.
    Lost,
}

/// The verdict of one node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// The node.
    pub id: NodeId,
    /// Whether it must run.
    pub verdict: Verdict,
    /// For a fresh node the rows of its answer; for a stale row operator the rows of its input.
    pub rows: Option<u64>,
    /// For a stale row operator that remembers: the rows that it would be asked, equal ones once.
    pub to_do: Option<u64>,
    /// For a fresh node its answer.
    pub answer: Option<Answer>,
}

/// The verdict of the targets and all that they need, in order.
pub fn plan(graph: &Graph, targets: &[NodeId], world: World<'_>) -> Result<Vec<NodePlan>, Failure> {
    let known: RefCell<HashMap<NodeId, Arc<Tables>>> = RefCell::default();
    let mut plans = Vec::new();
    let needed = graph.needed(targets);
    let mut ahead = Ahead::new(graph, &needed, world);
    for id in needed.iter().copied() {
        ahead.of(id);
        let inputs_known = graph.feeds(id).iter().all(|feed| known.borrow().contains_key(feed));
        plans.push(if inputs_known {
            let question = Question::of(graph, id, &|feed| known.borrow()[&feed].clone(), world)?;
            world.store.wait_for(&graph.store_name(id));
            match recalled(graph.node(id), question.recipe.id(), world)? {
                Some((outputs, tables)) => {
                    known.borrow_mut().insert(id, Arc::new(tables));
                    let rows = Some(outputs[0].rows);
                    let answer = Some(record(graph.node(id), question.recipe, outputs));
                    NodePlan { id, verdict: Verdict::Fresh, rows, to_do: None, answer }
                }
                None => stale(graph, id, &question, world)?,
            }
        } else {
            waiting(graph, id, world)?
        });
    }
    Ok(plans)
}

/// What the answer to a question gave, with its tables, if all of it is there. No table is opened: its columns are the node's.
pub(crate) fn recalled(
    node: &Node,
    recipe: RecipeId,
    world: World<'_>,
) -> Result<Option<(Vec<Output>, Tables)>, StoreError> {
    let Some(outputs) = world.store.recall(recipe)? else { return Ok(None) };
    let same = |(output, (port, _)): (&Output, &(String, SchemaRef))| output.port == *port;
    if outputs.len() != node.ports.len() || !outputs.iter().zip(&node.ports).all(same) {
        return Ok(None);
    }
    let mut tables = Vec::with_capacity(node.ports.len());
    for (output, (_, schema)) in outputs.iter().zip(&node.ports) {
        let Some(table) = world.store.table(output, schema)? else { return Ok(None) };
        tables.push(table);
    }
    Ok(Some((outputs, tables)))
}

/// The answer of a node.
pub(crate) fn record(node: &Node, recipe: Recipe, outputs: Vec<Output>) -> Answer {
    Answer { version: ANSWER_VERSION, op: node.op.clone(), recipe, outputs }
}

/// Why a question that is not answered must be asked; `last` is the node's newest answer.
pub(crate) fn reason(question: &Question, last: Option<&Answer>, world: World<'_>) -> Result<Reason, StoreError> {
    let Some(last) = last else { return Ok(Reason::FirstRun) };
    let changes = question.changes_since(last, world.store)?;
    Ok(if changes.is_empty() { Reason::Lost } else { Reason::Changed { changes } })
}

fn stale(graph: &Graph, id: NodeId, question: &Question, world: World<'_>) -> Result<NodePlan, Failure> {
    let last = world.store.last(&graph.store_name(id))?;
    let verdict = Verdict::Stale(reason(question, last.as_ref(), world)?);
    let (mut rows, mut to_do) = (None, None);
    if let Operator::Rows(op) = &graph.node(id).made.operator {
        let input = &question.inputs.0[0].1;
        rows = Some(input.rows());
        if op.memo() == Memo::Remember {
            to_do = Some(rows::count_to_do(op.as_ref(), question, input, world)?);
        }
    }
    Ok(NodePlan { id, verdict, rows, to_do, answer: None })
}

fn waiting(graph: &Graph, id: NodeId, world: World<'_>) -> Result<NodePlan, Failure> {
    let plan = |verdict| NodePlan { id, verdict, rows: None, to_do: None, answer: None };
    let Some(last) = world.store.last(&graph.store_name(id))? else {
        return Ok(plan(Verdict::Stale(Reason::FirstRun)));
    };
    let changes = retort_cache::recipe::changes(&last.recipe.op, &op_facts(graph.node(id), world)?);
    Ok(plan(Verdict::Waiting(changes)))
}

/// Whether a port is of interest to people: the listing of a source is not, unless it is asked for.
pub fn is_listing(port: &str) -> bool {
    port == FILES_PORT
}

//! Damaged tables are made again in the run that finds them.
//!
//! The store moves a damaged file away when it is read, and names the table. Then the node that made it is asked again: its
//! answer lacks a table, so it runs, and what it gives has the same name. So those who hold the table notice nothing, and
//! the node that stumbled over it begins once more. The node that makes it again may meet a damaged table itself.
//!
//! Invariant: a table is made again at most once for a node. What comes out damaged twice is no accident.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use retort_cache::{ContentId, StoreError};

use crate::event::{Event, EventKind};
use crate::graph::{Graph, NodeId};
use crate::question::Tables;
use crate::run::{Outcome, ask};
use crate::{Failure, World};

/// Does the work of node `id`; where it finds a table damaged, has it made again and begins anew.
pub(crate) fn mending(
    graph: &Graph,
    id: NodeId,
    answers: &dyn Fn(NodeId) -> Arc<Tables>,
    world: World<'_>,
    work: &dyn Fn() -> Result<Outcome, Failure>,
) -> Result<Outcome, Failure> {
    let mut mended = BTreeSet::new();
    loop {
        let outcome = work();
        tell(graph, id, world);
        let Err(failure) = outcome else { return outcome };
        match damaged(&failure) {
            Some(table) if mended.insert(table) => mend(graph, id, table, &failure, answers, world)?,
            _ => return Err(failure),
        }
    }
}

/// Has the node that made a table make it again.
fn mend(
    graph: &Graph,
    id: NodeId,
    table: ContentId,
    failure: &Failure,
    answers: &dyn Fn(NodeId) -> Arc<Tables>,
    world: World<'_>,
) -> Result<(), Failure> {
    // Someone else may have been faster. Where nobody of this run made it, it is an earlier listing, and can be done without.
    let made_it = |feed: &NodeId| answers(*feed).iter().any(|made| made.id == table);
    let Some(maker) = graph.feeds(id).into_iter().find(made_it) else { return Ok(()) };
    if world.store.open(table)?.is_some() {
        return Ok(());
    }
    note(graph, maker, world, format!("{failure}; it is made again"));
    let made = match ask(graph, maker, answers, world, false)? {
        Outcome::Fresh(tables) | Outcome::Ran(tables) => tables,
        Outcome::Failed(failure) => return Err(failure),
    };
    if made.iter().any(|made| made.id == table) {
        return Ok(());
    }
    let name = &graph.node(maker).name;
    Err(Failure::op(format!("{failure}; `{name}` made it again and gave another table: run it once more")))
}

/// The table whose damage is behind a failure.
fn damaged(failure: &Failure) -> Option<ContentId> {
    let mut cause: Option<&(dyn Error + 'static)> = match failure {
        Failure::Cancelled => None,
        Failure::Store(error) => Some(error),
        Failure::Op(error) => Some(error.as_ref()),
    };
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<StoreError>()
            && let Some(table) = error.lost_table()
        {
            return Some(table);
        }
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return damaged(failure);
        }
        cause = error.source();
    }
    None
}

/// Passes on what the store has to tell.
pub(crate) fn tell(graph: &Graph, id: NodeId, world: World<'_>) {
    for text in world.store.told() {
        note(graph, id, world, text);
    }
}

fn note(graph: &Graph, id: NodeId, world: World<'_>, text: String) {
    world.events.on(&Event { node: graph.node(id).name.clone(), kind: EventKind::Note { text } });
}

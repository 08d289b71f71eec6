//! Tells the store which nodes are looked at next, some thousand at a time, so that it can read their answers side by side.

use crate::World;
use crate::graph::{Graph, NodeId};

/// Nodes that are told at a time.
const AT_A_TIME: usize = 2048;
/// For fewer nodes it does not pay.
const FEW: usize = 32;

/// How far the store was told.
pub(crate) struct Ahead<'a> {
    graph: &'a Graph,
    world: World<'a>,
    rest: &'a [NodeId],
}

impl<'a> Ahead<'a> {
    /// Will tell of the nodes in `needed`, whose ids ascend.
    pub(crate) fn new(graph: &'a Graph, needed: &'a [NodeId], world: World<'a>) -> Self {
        let rest = if needed.len() < FEW { &[] } else { needed };
        Ahead { graph, world, rest }
    }

    /// A node is about to be looked at.
    pub(crate) fn of(&mut self, id: NodeId) {
        if self.rest.first().is_none_or(|next| *next > id) {
            return;
        }
        let (now, rest) = self.rest.split_at(AT_A_TIME.min(self.rest.len()));
        let names: Vec<_> = now.iter().map(|id| self.graph.store_name(*id)).collect();
        self.world.store.read_ahead(&names);
        self.rest = rest;
    }
}

//! Tells the store which nodes are looked at next, some thousand at a time, so that it can read their answers side by side, and those of
//! the next while these are looked at; and when all were.

use crate::World;
use crate::graph::{Graph, NodeId};

/// Nodes that are told at first; then twice as many each time, up to the most.
const AT_FIRST: usize = 128;
const AT_MOST: usize = 2048;
/// For fewer nodes it does not pay.
const FEW: usize = 32;

/// How far the store was told.
pub(crate) struct Ahead<'a> {
    graph: &'a Graph,
    world: World<'a>,
    /// The nodes that the store was told of last, and all after them.
    next: &'a [NodeId],
    /// Those that it was not told of.
    rest: &'a [NodeId],
    at_a_time: usize,
}

impl<'a> Ahead<'a> {
    /// Will tell of the nodes in `needed`, whose ids ascend.
    pub(crate) fn new(graph: &'a Graph, needed: &'a [NodeId], world: World<'a>) -> Self {
        let rest = if needed.len() < FEW { &[] } else { needed };
        Ahead { graph, world, next: rest, rest, at_a_time: AT_FIRST }
    }

    /// A node is about to be looked at.
    pub(crate) fn of(&mut self, id: NodeId) {
        if self.next.first().is_none_or(|next| *next > id) {
            return;
        }
        if self.next.len() == self.rest.len() {
            // Nothing was told yet.
            self.tell();
        }
        self.tell();
    }

    /// Tells of the next nodes; the last that it was told of come now.
    fn tell(&mut self) {
        self.next = self.rest;
        let (next, rest) = self.rest.split_at(self.at_a_time.min(self.rest.len()));
        self.at_a_time = AT_MOST.min(self.at_a_time * 2);
        let names: Vec<_> = next.iter().map(|id| self.graph.store_name(*id)).collect();
        self.world.store.read_ahead(&names);
        self.rest = rest;
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.world.store.looked();
    }
}

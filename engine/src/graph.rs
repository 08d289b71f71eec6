//! Nodes and the tables that flow between them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use serde_json::Value;

use crate::{Made, Operator, SlotSpec};

/// A node of a checked graph.
pub type NodeId = NodeIndex<u32>;

/// A node as it is written.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its operator's name.
    pub op: String,
    /// What it is fed.
    pub from: Vec<Feed>,
    /// Its config.
    pub with: Value,
    /// The folder that its paths are relative to.
    pub base: PathBuf,
}

/// What feeds one slot of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The slot, where `from` is a map.
    pub slot: Option<String>,
    /// `node` or `node.port`; several are appended.
    pub sources: Vec<String>,
}

/// A checked pipeline.
pub struct Graph {
    pub(crate) name: String,
    pub(crate) nodes: DiGraph<Node, ()>,
    /// Every node after those that feed it; otherwise in the order of the file. Ids ascend.
    pub(crate) order: Vec<NodeId>,
    /// The nodes by name.
    pub(crate) names: HashMap<String, NodeId>,
}

/// A checked node.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its operator's name.
    pub op: String,
    /// The operator with its config.
    pub made: Made,
    /// What feeds it: slot, and the nodes with their ports (an index into `ports`).
    pub inputs: Vec<(String, Vec<(NodeId, usize)>)>,
    /// The slots' schemas.
    pub input_schemas: Vec<SchemaRef>,
    /// Its outputs: names and schemas.
    pub ports: Vec<(String, SchemaRef)>,
}

/// The port that holds a source's listing.
pub const FILES_PORT: &str = "files";
/// The port that holds the rows that a row operator refused.
pub const REJECTS_PORT: &str = "rejects";

impl Node {
    /// The slots that the operator takes.
    pub fn slots(operator: &Operator) -> Vec<SlotSpec> {
        match operator {
            Operator::Rows(_) => vec![SlotSpec::required("from")],
            Operator::Table(op) => op.slots(),
        }
    }

    /// The schema of an output.
    pub fn port(&self, port: &str) -> Option<&SchemaRef> {
        self.ports.iter().find(|(name, _)| name == port).map(|(_, schema)| schema)
    }
}

impl Graph {
    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The nodes, each after those that feed it.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The node of a name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// The name under which the store knows a node.
    pub fn store_name(&self, id: NodeId) -> String {
        format!("{}/{}", self.name, self.nodes[id].name)
    }

    /// The nodes that feed a node, each once.
    pub fn feeds(&self, id: NodeId) -> Vec<NodeId> {
        let mut seen = HashSet::new();
        self.sources(id).filter(|node| seen.insert(*node)).collect()
    }

    /// How many nodes feed a node.
    pub(crate) fn n_feeds(&self, id: NodeId) -> usize {
        self.nodes.neighbors_directed(id, Direction::Incoming).count()
    }

    fn sources(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.nodes[id].inputs.iter().flat_map(|(_, sources)| sources).map(|(node, _)| *node)
    }

    /// The nodes that a node feeds, each once, in no order.
    pub(crate) fn fed_by(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.nodes.neighbors_directed(id, Direction::Outgoing)
    }

    /// The targets and all that they need, in order; everything where no target is named.
    pub fn needed(&self, targets: &[NodeId]) -> Vec<NodeId> {
        if targets.is_empty() {
            return self.order.clone();
        }
        let mut needed = vec![false; self.nodes.node_count()];
        targets.iter().for_each(|id| needed[id.index()] = true);
        for id in self.order.iter().rev() {
            if needed[id.index()] {
                self.sources(*id).for_each(|feed| needed[feed.index()] = true);
            }
        }
        self.order.iter().copied().filter(|id| needed[id.index()]).collect()
    }
}

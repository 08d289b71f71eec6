//! What came of a row: its children and theirs, node by node in the order of the pipeline.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use retort_engine::NodeId;
use retort_engine::lineage::{Offspring, Spot};
use serde_json::{Value, json};

use super::tree::Tree;
use super::{Teller, news};
use crate::observe::words;

/// All that came of a row.
#[derive(Default)]
pub(super) struct Descent {
    children: BTreeMap<Spot, Vec<Spot>>,
    /// Nodes that took a whole output, or whose rows can't be followed: the output, the node, and why not.
    taken: BTreeMap<(NodeId, usize), Vec<Taken>>,
}

/// A node, and why its rows can't be followed; it took all rows where that is nothing.
type Taken = (NodeId, Option<String>);

/// Follows a row to the last that came of it. Every node is asked once, for all rows together.
pub(super) fn follow(teller: &Teller<'_>, spot: Spot) -> super::Result<Descent> {
    let mut descent = Descent::default();
    let mut reached: BTreeMap<(NodeId, usize), BTreeSet<u64>> = BTreeMap::new();
    reached.entry((spot.node, spot.port)).or_default().insert(spot.row);
    for node in teller.graph.order().iter().copied() {
        // A listing first: what comes of it is the same node's.
        for port in (0..teller.graph.node(node).ports.len()).rev() {
            let Some(rows) = reached.get(&(node, port)).cloned() else { continue };
            for (reader, _, offspring) in teller.trail.children(node, port, &rows)? {
                let mut take = |why| descent.taken.entry((node, port)).or_default().push((reader, why));
                match offspring {
                    Offspring::Whole => take(None),
                    Offspring::Lost(lost) => take(Some(lost.to_string())),
                    Offspring::Rows(rows) => {
                        for (row, child) in rows {
                            descent.children.entry(Spot { node, port, row }).or_default().push(child);
                            reached.entry((child.node, child.port)).or_default().insert(child.row);
                        }
                    }
                }
            }
        }
    }
    Ok(descent)
}

impl Descent {
    /// The row with what came of it under it.
    pub(super) fn tree(&self, teller: &Teller<'_>, spot: Spot) -> super::Result<Tree> {
        self.twig(teller, spot, None)
    }

    fn twig(&self, teller: &Teller<'_>, spot: Spot, parent: Option<&RecordBatch>) -> super::Result<Tree> {
        let values = teller.row(spot)?;
        let lines = values.as_ref().map(|row| news(row, parent)).unwrap_or_default();
        let mut tree = Tree { head: teller.head(spot), lines, twigs: Vec::new() };
        for ((node, port), children) in self.by_output(spot) {
            for child in children.iter().take(teller.most) {
                tree.twigs.push(self.twig(teller, *child, values.as_ref())?);
            }
            if children.len() > teller.most {
                let more = words::count((children.len() - teller.most) as u64, "more row");
                tree.twigs.push(Tree::leaf(format!("… and {more} of {}", teller.name(node, port))));
            }
        }
        for (node, why) in self.taken.get(&(spot.node, spot.port)).into_iter().flatten() {
            let name = &teller.graph.node(*node).name;
            let op = &teller.graph.node(*node).op;
            tree.twigs.push(Tree::leaf(match why {
                None => format!("{name} ({op}) depends on all rows of {}", teller.name(spot.node, spot.port)),
                Some(why) => format!("{name} ({op}) can't be followed: {why}"),
            }));
        }
        Ok(tree)
    }

    /// The rows that came of a row, by output in the order of the pipeline.
    fn by_output(&self, spot: Spot) -> BTreeMap<(NodeId, usize), Vec<Spot>> {
        let mut outputs: BTreeMap<(NodeId, usize), Vec<Spot>> = BTreeMap::new();
        for child in self.children.get(&spot).into_iter().flatten() {
            outputs.entry((child.node, child.port)).or_default().push(*child);
        }
        outputs
    }

    /// The row with what came of it, as an object.
    pub(super) fn object(&self, teller: &Teller<'_>, spot: Spot) -> super::Result<Value> {
        let mut object = teller.object(spot, teller.row(spot)?.as_ref());
        let children = self.children.get(&spot).into_iter().flatten().take(teller.most);
        object["to"] = children.map(|child| self.object(teller, *child)).collect::<super::Result<Vec<_>>>()?.into();
        let taken = self.taken.get(&(spot.node, spot.port)).into_iter().flatten();
        let taken = taken.map(|(node, why)| match why {
            None => json!({"node": teller.graph.node(*node).name, "whole": true}),
            Some(why) => json!({"node": teller.graph.node(*node).name, "lost": why}),
        });
        object["taken_whole"] = taken.collect();
        Ok(object)
    }
}

//! The order of the nodes, and the circles that have none.

use std::collections::{BTreeSet, HashMap};

use petgraph::graph::DiGraph;

use super::edges::Wiring;
use crate::Problem;
use crate::graph::NodeSpec;

/// Nodes of a circle that are named, at most.
const NAMED: usize = 12;

/// The nodes, each after those that feed it, in the order of the file where the edges allow.
pub(super) fn sort(specs: &[&NodeSpec], wiring: &Wiring, problems: &mut Vec<Problem>) -> Vec<usize> {
    let feeds: Vec<BTreeSet<usize>> = wiring
        .iter()
        .map(|fed| fed.iter().flat_map(|(_, sources)| sources).flatten().map(|(feed, _)| *feed).collect())
        .collect();
    let mut fed_by = vec![Vec::new(); specs.len()];
    for (node, feeds) in feeds.iter().enumerate() {
        feeds.iter().for_each(|feed| fed_by[*feed].push(node));
    }
    let mut waits: Vec<_> = feeds.iter().map(BTreeSet::len).collect();
    let mut ready: BTreeSet<usize> = (0..specs.len()).filter(|i| waits[*i] == 0).collect();
    let mut order = Vec::with_capacity(specs.len());
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for fed in &fed_by[node] {
            waits[*fed] -= 1;
            if waits[*fed] == 0 {
                ready.insert(*fed);
            }
        }
    }
    if order.len() < specs.len() {
        let mut cycles = cycles(&feeds);
        cycles.sort();
        problems.extend(cycles.iter().map(|cycle| cycle_problem(specs, &feeds, cycle)));
    }
    order
}

/// The sets of nodes that feed each other in a circle.
fn cycles(feeds: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let mut graph = DiGraph::<(), (), usize>::default();
    let ids: Vec<_> = feeds.iter().map(|_| graph.add_node(())).collect();
    for (node, feeds) in feeds.iter().enumerate() {
        for feed in feeds {
            graph.add_edge(ids[*feed], ids[node], ());
        }
    }
    // Kosaraju's algorithm needs no stack of calls as deep as the graph.
    let sets = petgraph::algo::kosaraju_scc(&graph);
    let sets = sets.into_iter().map(|set| set.into_iter().map(petgraph::graph::NodeIndex::index).collect());
    sets.filter(|set: &BTreeSet<usize>| set.len() > 1 || set.iter().any(|node| feeds[*node].contains(node))).collect()
}

fn cycle_problem(specs: &[&NodeSpec], feeds: &[BTreeSet<usize>], cycle: &BTreeSet<usize>) -> Problem {
    let first = *cycle.first().expect("a cycle has nodes");
    let (mut path, mut places) = (vec![first], HashMap::from([(first, 0)]));
    loop {
        let at = *path.last().expect("begins with a node");
        let next = feeds[at].iter().find(|feed| cycle.contains(feed));
        let next = *next.expect("every node of a cycle is fed by one of it");
        path.push(next);
        if let Some(start) = places.insert(next, path.len() - 1) {
            path.drain(..start);
            break;
        }
    }
    let mut names: Vec<_> = path.iter().rev().map(|node| format!("`{}`", specs[*node].name)).collect();
    if names.len() > NAMED {
        names.splice(NAMED / 2..names.len() - NAMED / 2, ["…".to_string()]);
    }
    let last = &specs[path[0]].name;
    Problem::new("cycle", "from", format!("the nodes feed each other in a circle: {}", names.join(" -> ")))
        .in_node(last)
}

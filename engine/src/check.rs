//! Turns nodes as they are written into a graph that can run, or says everything that is wrong with them.
//!
//! Here the operators are made and the nodes put together; `edges` finds what feeds each, `order` who comes after whom, `columns`
//! what travels.

mod columns;
mod edges;
mod order;

use std::borrow::Borrow;
use std::collections::BTreeSet;

use petgraph::graph::DiGraph;
use rayon::prelude::*;

use crate::graph::{Graph, NodeId, NodeSpec};
use crate::{Env, Made, OpInfo, Problem};
pub(crate) use columns::{carried, project};
use edges::Wiring;

/// Checks a pipeline: names, operators, configs, edges, cycles, and the columns that travel the edges. Every problem at once.
pub fn check<S: Borrow<NodeSpec> + Sync>(pipeline: &str, specs: &[S], ops: &[OpInfo]) -> Result<Graph, Vec<Problem>> {
    let specs: Vec<&NodeSpec> = specs.iter().map(Borrow::borrow).collect();
    let mut problems = Vec::new();
    let made: Vec<_> = specs.par_iter().with_min_len(MANY).map(|spec| make(spec, ops)).collect();
    let made = made.into_iter().map(|made| made.map_err(|problem| problems.push(problem)).ok()).collect::<Vec<_>>();
    let edges = edges::wire(&specs, &made, &mut problems);
    let order = order::sort(&specs, &edges, &mut problems);
    let graph = assemble(pipeline, &specs, made, &edges, &order, &mut problems);
    match graph {
        Some(graph) if problems.is_empty() => Ok(graph),
        _ => Err(problems),
    }
}

/// Operators that are made side by side are more than this: for fewer it does not pay.
const MANY: usize = 64;

fn make(spec: &NodeSpec, ops: &[OpInfo]) -> Result<Made, Problem> {
    let Some(info) = ops.iter().find(|info| info.name == spec.op) else {
        let problem = Problem::new("unknown-operator", "op", format!("unknown operator `{}`", spec.op));
        let problem = match crate::nearest(&spec.op, ops.iter().map(|info| info.name)) {
            Some(name) => problem.hint(format!("did you mean `{name}`?")),
            None => problem.hint("`retort ops` lists them"),
        };
        return Err(problem.in_node(&spec.name));
    };
    let made = (info.make)(spec.with.clone(), &Env { base: &spec.base });
    made.map_err(|problem| name_unknown_key(problem, info).in_node(&spec.name))
}

/// serde lists all keys where one is unknown; one name is more helpful.
fn name_unknown_key(mut problem: Problem, info: &OpInfo) -> Problem {
    let Some(rest) = problem.message.strip_prefix("unknown field `") else { return problem };
    let Some((key, expected)) = rest.split_once('`') else { return problem };
    let (key, expected) = (key.to_string(), expected.to_string());
    let names: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
    if problem.at.field != "with" && !problem.at.field.ends_with(&key) {
        problem.at.field = format!("{}.{key}", problem.at.field);
    } else if problem.at.field == "with" {
        problem.at.field = format!("with.{key}");
    }
    problem.code = "unknown-key";
    problem.message = format!("unknown key `{key}`");
    problem.hint = Some(match crate::nearest(&key, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("`retort ops {}` describes its keys", info.name),
    });
    problem
}

fn assemble(
    pipeline: &str,
    specs: &[&NodeSpec],
    mut made: Vec<Option<Made>>,
    wiring: &Wiring,
    order: &[usize],
    problems: &mut Vec<Problem>,
) -> Option<Graph> {
    let mut nodes = DiGraph::with_capacity(specs.len(), specs.len());
    let mut ids: Vec<Option<NodeId>> = vec![None; specs.len()];
    for i in order {
        let spec = specs[*i];
        let Some(made) = made[*i].take() else { continue };
        let node = match columns::connect(spec, made, &wiring[*i], &nodes, &ids) {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| problem.in_node(&spec.name)));
                continue;
            }
        };
        let feeds: BTreeSet<_> = node.inputs.iter().flat_map(|(_, sources)| sources).map(|(feed, _)| *feed).collect();
        let id = nodes.add_node(node);
        for feed in feeds {
            nodes.add_edge(feed, id, ());
        }
        ids[*i] = Some(id);
    }
    let order = order.iter().map(|i| ids[*i]).collect::<Option<Vec<_>>>()?;
    let names = order.iter().map(|id| (nodes[*id].name.clone(), *id)).collect();
    Some(Graph { name: pipeline.to_string(), nodes, order, names })
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

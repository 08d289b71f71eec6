//! What the nodes of a plan are expected to take, by what they took before: rows, tokens and time.
//!
//! A node that waits is expected to be asked as many rows as its inputs are expected to change.

use std::collections::{BTreeMap, HashMap};

use retort_engine::{Graph, Memo, NodeId, NodePlan, Operator, Verdict};
use serde::Serialize;

use crate::history::{Pace, Paces};

/// What a node is expected to take.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Expected {
    /// Rows that it is asked.
    pub rows: Option<u64>,
    /// Prompt and output tokens.
    pub tokens: Option<u64>,
    /// Seconds.
    pub seconds: Option<f64>,
}

/// What is known of a node's output before it runs.
#[derive(Default)]
struct Output {
    /// The part of its rows that are not as before.
    changed: f64,
    rows: BTreeMap<String, u64>,
}

/// What each node of a plan is expected to take; nothing for one that is fresh. `changed` says of a stale node which part of its input's rows is not as
/// before, where that is known.
pub fn expect(
    graph: &Graph,
    plans: &[NodePlan],
    paces: &Paces,
    changed: &dyn Fn(&NodePlan) -> Option<f64>,
) -> Vec<Expected> {
    let mut outputs: HashMap<NodeId, Output> = HashMap::new();
    let mut expected = Vec::with_capacity(plans.len());
    for plan in plans {
        let pace = paces.get(&graph.node(plan.id).name);
        let (takes, output) = match &plan.answer {
            Some(answer) => {
                let rows = answer.outputs.iter().map(|output| (output.port.clone(), output.rows));
                (Expected::default(), Output { changed: 0.0, rows: rows.collect() })
            }
            None => of_node(graph, plan, pace, fed(graph, plan.id, &outputs), changed),
        };
        outputs.insert(plan.id, output);
        expected.push(takes);
    }
    expected
}

/// Rows that feed a node, and how many of them are not as before; nothing where it is not known.
fn fed(graph: &Graph, id: NodeId, outputs: &HashMap<NodeId, Output>) -> Option<(f64, f64)> {
    let sources = graph.node(id).inputs.iter().flat_map(|(_, sources)| sources);
    sources.into_iter().try_fold((0.0, 0.0), |(rows, changed), (feed, port)| {
        let output = outputs.get(feed)?;
        let of_port = *output.rows.get(&graph.node(*feed).ports[*port].0)? as f64;
        Some((rows + of_port, changed + of_port * output.changed))
    })
}

fn of_node(
    graph: &Graph,
    plan: &NodePlan,
    pace: Option<&Pace>,
    fed: Option<(f64, f64)>,
    changed: &dyn Fn(&NodePlan) -> Option<f64>,
) -> (Expected, Output) {
    let part = match &plan.verdict {
        Verdict::Waiting(changes) if changes.is_empty() => {
            fed.map_or(1.0, |(rows, changed)| if rows > 0.0 { changed / rows } else { 0.0 })
        }
        _ => changed(plan).unwrap_or(1.0),
    };
    let rows = pace.map(|pace| pace.outputs.clone()).unwrap_or_default();
    let Operator::Rows(op) = &graph.node(plan.id).made.operator else {
        let seconds = pace.map(|pace| pace.seconds);
        let tokens = pace.map(|pace| pace.tokens).filter(|tokens| *tokens > 0);
        return (Expected { rows: None, tokens, seconds }, Output { changed: part, rows });
    };
    let input = plan.rows.map(|rows| rows as f64).or(fed.map(|(rows, _)| rows));
    let asked = match (plan.to_do, op.memo()) {
        (Some(to_do), _) => Some(to_do as f64),
        (None, Memo::Remember) => input.map(|input| input * part),
        (None, Memo::Recompute) => input,
    };
    let part = match (op.memo(), asked, input) {
        (Memo::Remember, Some(asked), Some(input)) if input > 0.0 => asked / input,
        _ => part,
    };
    let times = pace.zip(asked).map(|(pace, asked)| (pace, asked / pace.asked.max(1) as f64));
    let expected = Expected {
        rows: asked.map(|asked| asked.ceil() as u64),
        tokens: times.map(|(pace, times)| (pace.tokens as f64 * times) as u64).filter(|tokens| *tokens > 0),
        seconds: times.map(|(pace, times)| pace.seconds * times),
    };
    let scale = pace.zip(input).map_or(1.0, |(pace, input)| input / pace.of.max(1) as f64);
    let rows = rows.into_iter().map(|(port, rows)| (port, (rows as f64 * scale) as u64)).collect();
    (expected, Output { changed: part, rows })
}

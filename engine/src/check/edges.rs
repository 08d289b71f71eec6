//! What feeds each node: the sources that `from` names, slot by slot.

use std::collections::{BTreeSet, HashMap};

use super::listed;
use crate::graph::{Feed, Node, NodeSpec};
use crate::{Made, Operator, Problem, SlotSpec};

/// Mistakes for which the nearest name is looked for.
const SEARCHED: usize = 100;

/// What feeds a slot: the index of a node, and the name of a port if one is named.
pub(super) type Edge = (usize, Option<String>);
/// The slots of every node with what feeds them. `None` where a feed is not known.
pub(super) type Wiring = Vec<Vec<(String, Vec<Option<Edge>>)>>;

/// Finds what feeds each node.
pub(super) fn wire(specs: &[&NodeSpec], made: &[Option<Made>], problems: &mut Vec<Problem>) -> Wiring {
    let index: HashMap<&str, usize> = specs.iter().enumerate().map(|(i, spec)| (spec.name.as_str(), i)).collect();
    let mut wiring = Vec::with_capacity(specs.len());
    for (spec, made) in specs.iter().zip(made) {
        let slots = made.as_ref().map(|made| slots_of(made, spec)).unwrap_or_default();
        let mut fed = Vec::new();
        for feed in &spec.from {
            let field = feed.slot.as_ref().map_or("from".to_string(), |slot| format!("from.{slot}"));
            if is_unnamed(feed, &slots) {
                problems.push(unnamed_slot(spec, &slots));
                fed.push((String::new(), vec![None]));
                continue;
            }
            let slot = feed.slot.clone().or_else(|| slots.first().map(|slot| slot.name.clone()));
            if made.is_some() && !slots.iter().any(|spec| Some(&spec.name) == slot.as_ref()) {
                problems.push(unknown_slot(spec, &field, slot.as_deref(), &slots));
            }
            let mut resolve = |(i, source): (usize, &String)| {
                let field = if feed.sources.len() == 1 { field.clone() } else { format!("{field}[{i}]") };
                resolve(source, &index, &field, spec, problems)
            };
            let sources = feed.sources.iter().enumerate().map(&mut resolve).collect();
            fed.push((slot.unwrap_or_default(), sources));
        }
        // In the operator's order: the order of a map's keys changes nothing.
        fed.sort_by_key(|(slot, _)| slots.iter().position(|spec| spec.name == *slot));
        if let Some(made) = made
            && !spec.from.iter().any(|feed| is_unnamed(feed, &slots))
        {
            missing_inputs(spec, made, &slots, &fed, problems);
        }
        wiring.push(fed);
    }
    wiring
}

/// The inputs of a node: the operator's, or those that the node names where any will do, in the order of their names.
pub(super) fn slots_of(made: &Made, spec: &NodeSpec) -> Vec<SlotSpec> {
    match &made.operator {
        Operator::Table(op) if op.takes_any_input() => {
            let names: BTreeSet<&str> = spec.from.iter().map(|feed| feed.slot.as_deref().unwrap_or("from")).collect();
            let names = if names.is_empty() { BTreeSet::from(["from"]) } else { names };
            names.into_iter().map(SlotSpec::required).collect()
        }
        operator => Node::slots(operator),
    }
}

fn unknown_slot(spec: &NodeSpec, field: &str, slot: Option<&str>, slots: &[SlotSpec]) -> Problem {
    let slot = slot.unwrap_or("from");
    let problem = if slots.is_empty() {
        Problem::new("unknown-input", field, format!("`{}` takes no inputs", spec.op))
    } else {
        Problem::new("unknown-input", field, format!("`{}` has no input `{slot}`", spec.op))
            .did_you_mean(slot, slots.iter().map(|slot| slot.name.as_str()))
    };
    problem.in_node(&spec.name)
}

/// Whether a feed does not say which of several inputs it is for.
fn is_unnamed(feed: &Feed, slots: &[SlotSpec]) -> bool {
    feed.slot.is_none() && slots.len() > 1 && slots[0].name != "from"
}

/// What is wrong where `from` does not say which of an operator's inputs it feeds.
fn unnamed_slot(spec: &NodeSpec, slots: &[SlotSpec]) -> Problem {
    let message = format!(
        "`{}` has several inputs, and `from` names none: {}",
        spec.op,
        listed(slots.iter().map(|slot| slot.name.as_str()))
    );
    let problem = Problem::new("unknown-input", "from", message);
    problem.hint(format!("say which it feeds: `from: {{{}: NODE}}`", slots[0].name)).in_node(&spec.name)
}

fn missing_inputs(
    spec: &NodeSpec,
    made: &Made,
    slots: &[SlotSpec],
    fed: &[(String, Vec<Option<Edge>>)],
    problems: &mut Vec<Problem>,
) {
    if made.source.is_some() {
        if !fed.is_empty() {
            let message = format!("`{}` lists its own input by its `with`, so it takes no `from`", spec.op);
            problems.push(Problem::new("unknown-input", "from", message).in_node(&spec.name));
        }
        return;
    }
    let is_fed = |slot: &str| fed.iter().any(|(name, sources)| name == slot && !sources.is_empty());
    for slot in slots.iter().filter(|slot| slot.required && !is_fed(&slot.name)) {
        let problem = match slot.name.as_str() {
            "from" => Problem::new("missing-input", "", format!("`{}` needs an input", spec.op))
                .hint("say which node feeds it: `from: NODE`"),
            name => Problem::new("missing-input", "from", format!("`{}` needs the input `{name}`", spec.op))
                .hint(format!("`from: {{{name}: NODE, …}}`")),
        };
        problems.push(problem.in_node(&spec.name));
    }
}

fn resolve(
    source: &str,
    index: &HashMap<&str, usize>,
    field: &str,
    spec: &NodeSpec,
    problems: &mut Vec<Problem>,
) -> Option<Edge> {
    if let Some(node) = index.get(source) {
        return Some((*node, None));
    }
    let (name, port) = source.rsplit_once('.').map_or((source, None), |(name, port)| (name, Some(port)));
    if let (Some(node), Some(port)) = (index.get(name), port) {
        return Some((*node, Some(port.to_string())));
    }
    let problem = Problem::new("unknown-node", field, format!("unknown node `{name}`"));
    // Each search looks at every node: past what anybody reads, thousands of mistakes would take minutes.
    if problems.len() >= SEARCHED {
        problems.push(problem.in_node(&spec.name));
        return None;
    }
    let mut others: Vec<&str> = index.keys().copied().filter(|name| *name != spec.name).collect();
    others.sort_unstable();
    let problem = match crate::nearest(name, others.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if (1..=8).contains(&others.len()) => {
            problem.hint(format!("the other nodes are {}", listed(others.into_iter())))
        }
        None => problem,
    };
    problems.push(problem.in_node(&spec.name));
    None
}

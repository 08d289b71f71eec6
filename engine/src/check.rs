//! Turns nodes as they are written into a graph that can run, or says everything that is wrong with them.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use petgraph::graph::DiGraph;
use rayon::prelude::*;
use retort_cache::store::rejects_schema;

use crate::graph::{FILES_PORT, Graph, Node, NodeId, NodeSpec, REJECTS_PORT};
use crate::question::appendable;
use crate::{Carry, Env, Inputs, Made, OpInfo, Operator, Problem, RowOp};

/// Checks a pipeline: names, operators, configs, edges, cycles, and the columns that travel the edges. Every problem at once.
pub fn check<S: Borrow<NodeSpec> + Sync>(pipeline: &str, specs: &[S], ops: &[OpInfo]) -> Result<Graph, Vec<Problem>> {
    let specs: Vec<&NodeSpec> = specs.iter().map(Borrow::borrow).collect();
    let mut problems = Vec::new();
    let made: Vec<_> = specs.par_iter().with_min_len(MANY).map(|spec| make(spec, ops)).collect();
    let made = made.into_iter().map(|made| made.map_err(|problem| problems.push(problem)).ok()).collect::<Vec<_>>();
    let edges = wire(&specs, &made, &mut problems);
    let order = sort(&specs, &edges, &mut problems);
    let graph = assemble(pipeline, &specs, made, &edges, &order, &mut problems);
    match graph {
        Some(graph) if problems.is_empty() => Ok(graph),
        _ => Err(problems),
    }
}

/// Operators that are made side by side are more than this: for fewer it does not pay.
const MANY: usize = 64;
/// Nodes of a circle that are named, at most.
const NAMED: usize = 12;

/// Mistakes for which the nearest name is looked for.
const SEARCHED: usize = 100;

/// What feeds a slot: the index of a node, and the name of a port if one is named.
type Edge = (usize, Option<String>);
/// The slots of every node with what feeds them. `None` where a feed is not known.
type Wiring = Vec<Vec<(String, Vec<Option<Edge>>)>>;

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

fn wire(specs: &[&NodeSpec], made: &[Option<Made>], problems: &mut Vec<Problem>) -> Wiring {
    let index: BTreeMap<&str, usize> = specs.iter().enumerate().map(|(i, spec)| (spec.name.as_str(), i)).collect();
    let mut wiring = Vec::new();
    for (spec, made) in specs.iter().zip(made) {
        let slots = made.as_ref().map(|made| Node::slots(&made.operator)).unwrap_or_default();
        let mut fed = Vec::new();
        for feed in &spec.from {
            let field = feed.slot.as_ref().map_or("from".to_string(), |slot| format!("from.{slot}"));
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
        if let Some(made) = made {
            missing_inputs(spec, made, &slots, &fed, problems);
        }
        wiring.push(fed);
    }
    wiring
}

fn unknown_slot(spec: &NodeSpec, field: &str, slot: Option<&str>, slots: &[crate::SlotSpec]) -> Problem {
    let slot = slot.unwrap_or("from");
    let problem = if slots.is_empty() {
        Problem::new("unknown-input", field, format!("`{}` takes no inputs", spec.op))
    } else {
        Problem::new("unknown-input", field, format!("`{}` has no input `{slot}`", spec.op))
            .did_you_mean(slot, slots.iter().map(|slot| slot.name.as_str()))
    };
    problem.in_node(&spec.name)
}

fn missing_inputs(
    spec: &NodeSpec,
    made: &Made,
    slots: &[crate::SlotSpec],
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
    index: &BTreeMap<&str, usize>,
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
    let others = || index.keys().copied().filter(|name| *name != spec.name);
    let problem = Problem::new("unknown-node", field, format!("unknown node `{name}`"));
    // Each search looks at every node: past what anybody reads, thousands of mistakes would take minutes.
    if problems.len() >= SEARCHED {
        problems.push(problem.in_node(&spec.name));
        return None;
    }
    let problem = match crate::nearest(name, others()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if (1..=8).contains(&others().count()) => {
            problem.hint(format!("the other nodes are {}", listed(others())))
        }
        None => problem,
    };
    problems.push(problem.in_node(&spec.name));
    None
}

/// The nodes, each after those that feed it, in the order of the file where the edges allow.
fn sort(specs: &[&NodeSpec], wiring: &Wiring, problems: &mut Vec<Problem>) -> Vec<usize> {
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

fn assemble(
    pipeline: &str,
    specs: &[&NodeSpec],
    mut made: Vec<Option<Made>>,
    wiring: &Wiring,
    order: &[usize],
    problems: &mut Vec<Problem>,
) -> Option<Graph> {
    let mut nodes = DiGraph::new();
    let mut ids: Vec<Option<NodeId>> = vec![None; specs.len()];
    for i in order {
        let spec = specs[*i];
        let Some(made) = made[*i].take() else { continue };
        let node = match connect(spec, made, &wiring[*i], &nodes, &ids) {
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

/// Joins a node to those that feed it. `None` where one of them has problems of its own.
fn connect(
    spec: &NodeSpec,
    made: Made,
    fed: &[(String, Vec<Option<Edge>>)],
    nodes: &DiGraph<Node, ()>,
    ids: &[Option<NodeId>],
) -> Result<Option<Node>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut inputs = Vec::new();
    let mut schemas: Vec<(String, SchemaRef)> = Vec::new();
    for (slot, sources) in fed {
        let field = if fed.len() == 1 && slot == "from" { "from".to_string() } else { format!("from.{slot}") };
        let mut tables = Vec::new();
        for (i, edge) in sources.iter().enumerate() {
            let Some((feed, port)) = edge else { return Ok(None) };
            let Some(id) = ids[*feed] else { return Ok(None) };
            let item = if sources.len() == 1 { field.clone() } else { format!("{field}[{i}]") };
            match port_of(&nodes[id], port.as_deref(), &item) {
                Ok(port) => tables.push((id, port)),
                Err(problem) => problems.push(problem),
            }
        }
        let Some((id, port)) = tables.first() else { continue };
        let schema = nodes[*id].ports[*port].1.clone();
        for (i, (other, port)) in tables.iter().enumerate().skip(1) {
            let other = &nodes[*other];
            if !appendable(&schema, &other.ports[*port].1) {
                let item = format!("{field}[{i}]");
                problems.push(unequal(&item, &nodes[*id].name, &other.name, &schema, &other.ports[*port].1));
            }
        }
        schemas.push((slot.clone(), relaxed(&schema, &tables, nodes)));
        inputs.push((slot.clone(), tables));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let unfed = |slot: &crate::SlotSpec| slot.required && !inputs.iter().any(|(name, _)| *name == slot.name);
    if made.source.is_none() && Node::slots(&made.operator).iter().any(unfed) {
        // Said where the edges were looked at.
        return Ok(None);
    }
    let ports = ports(&made, &schemas)?;
    let input_schemas = schemas.into_iter().map(|(_, schema)| schema).collect();
    Ok(Some(Node { name: spec.name.clone(), op: spec.op.clone(), made, inputs, input_schemas, ports }))
}

fn port_of(node: &Node, port: Option<&str>, field: &str) -> Result<usize, Problem> {
    match port {
        Some(port) => node.ports.iter().position(|(name, _)| name == port).ok_or_else(|| {
            let names = || node.ports.iter().map(|(name, _)| name.as_str());
            let problem = Problem::new("unknown-port", field, format!("`{}` has no output `{port}`", node.name));
            match crate::nearest(port, names()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("its outputs are {}", listed(names()))),
            }
        }),
        None if node.ports[0].0 == "out" => Ok(0),
        None => {
            let names: Vec<_> = node.ports.iter().map(|(name, _)| format!("`{}.{name}`", node.name)).collect();
            let message = format!("`{}` has several outputs", node.name);
            Err(Problem::new("unknown-port", field, message).hint(format!("name one: {}", names.join(", "))))
        }
    }
}

fn unequal(field: &str, one: &str, other: &str, a: &SchemaRef, b: &SchemaRef) -> Problem {
    let missing = |from: &SchemaRef, to: &SchemaRef| -> Vec<String> {
        let has = |field: &Field| {
            to.field_with_name(field.name()).is_ok_and(|f| f.data_type().equals_datatype(field.data_type()))
        };
        from.fields().iter().filter(|field| !has(field)).map(|field| format!("`{}`", field.name())).collect()
    };
    let mut parts = Vec::new();
    for (name, columns) in [(one, missing(a, b)), (other, missing(b, a))] {
        if !columns.is_empty() {
            parts.push(format!("only `{name}` has {}", columns.join(", ")));
        }
    }
    let detail = if parts.is_empty() { "their columns are in another order".into() } else { parts.join("; ") };
    Problem::new("unequal-columns", field, format!("`{one}` and `{other}` can't be appended: {detail}"))
        .hint("tables are appended when their columns are the same, in one order")
}

/// The schema under which several tables are appended: a column may be null if it may be null in one of them.
fn relaxed(schema: &SchemaRef, tables: &[(NodeId, usize)], nodes: &DiGraph<Node, ()>) -> SchemaRef {
    if tables.len() == 1 {
        return schema.clone();
    }
    let nullable = |i: usize| {
        tables.iter().any(|(id, port)| nodes[*id].ports[*port].1.fields().get(i).is_some_and(|f| f.is_nullable()))
    };
    let fields = schema.fields().iter().enumerate();
    let fields: Vec<_> = fields.map(|(i, field)| field.as_ref().clone().with_nullable(nullable(i))).collect();
    Arc::new(Schema::new(fields))
}

fn ports(made: &Made, inputs: &[(String, SchemaRef)]) -> Result<Vec<(String, SchemaRef)>, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let mut ports: Vec<(String, SchemaRef)> = Vec::new();
    match &made.operator {
        Operator::Table(op) => {
            let schemas = op.schemas(&Inputs(inputs.to_vec())).map_err(one)?;
            ports.extend(op.outputs().into_iter().zip(schemas));
        }
        Operator::Rows(op) => {
            let listed = made.source.as_ref().map(|source| source.schemas(&Inputs(Vec::new())));
            let listed = listed.transpose().map_err(one)?;
            let input = listed.as_ref().and_then(|schemas| schemas.first());
            let input = input.or_else(|| inputs.first().map(|(_, schema)| schema));
            let input = input.ok_or_else(|| one(Problem::new("missing-input", "", "nothing feeds this node")))?;
            ports.push(("out".into(), output_schema(op.as_ref(), input)?));
            ports.push((REJECTS_PORT.into(), rejects_schema(input)));
            if listed.is_some() {
                ports.push((FILES_PORT.into(), input.clone()));
            }
        }
    }
    Ok(ports)
}

/// What a row operator makes of its input's columns: those it carries, then those it adds.
fn output_schema(op: &dyn RowOp, input: &SchemaRef) -> Result<SchemaRef, Vec<Problem>> {
    let missing: Vec<_> = op.reads().iter().filter_map(|name| unknown_column(name, input)).collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let reads = project(op, input).map_err(|problem| vec![problem])?;
    let adds = op.adds(&reads).map_err(|problem| vec![problem])?;
    let mut fields: Vec<_> = carried(op, input, &adds).into_iter().map(|i| input.fields()[i].clone()).collect();
    fields.extend(adds.fields().iter().cloned());
    Ok(Arc::new(Schema::new(fields)))
}

/// The columns a row operator reads.
pub(crate) fn project(op: &dyn RowOp, input: &Schema) -> Result<Schema, Problem> {
    let mut fields = Vec::new();
    for name in op.reads() {
        if let Some(problem) = unknown_column(&name, input) {
            return Err(problem);
        }
        fields.extend(input.field_with_name(&name).cloned());
    }
    for name in op.reads_if_there() {
        if let Ok(field) = input.field_with_name(&name)
            && !fields.contains(field)
        {
            fields.push(field.clone());
        }
    }
    Ok(Schema::new(fields))
}

/// What is wrong where an operator reads a column that its input has not.
fn unknown_column(name: &str, input: &Schema) -> Option<Problem> {
    if input.field_with_name(name).is_ok() {
        return None;
    }
    let names: Vec<_> = input.fields().iter().map(|field| field.name().as_str()).collect();
    let listed = listed(names.iter().copied());
    let problem = Problem::new("unknown-column", "with", format!("the input has no column `{name}`"));
    Some(match crate::nearest(name, names) {
        Some(near) => problem.hint(format!("did you mean `{near}`? It has {listed}")),
        None => problem.hint(format!("it has {listed}")),
    })
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The input's columns that go on, by index.
pub(crate) fn carried(op: &dyn RowOp, input: &Schema, adds: &Schema) -> Vec<usize> {
    let carry = op.carries();
    let keeps = |name: &String| match &carry {
        Carry::All => true,
        Carry::Except(left_out) => !left_out.contains(name),
        Carry::Nothing => false,
    };
    let added = |name: &String| adds.field_with_name(name).is_ok();
    let fields = input.fields().iter().enumerate();
    fields.filter(|(_, field)| keeps(field.name()) && !added(field.name())).map(|(i, _)| i).collect()
}

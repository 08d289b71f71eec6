//! The columns that travel the edges: what a node's inputs have, and what it makes of them.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use petgraph::graph::DiGraph;
use retort_cache::store::rejects_schema;

use super::edges::{Edge, slots_of};
use super::listed;
use crate::graph::{FILES_PORT, Node, NodeId, NodeSpec, REJECTS_PORT};
use crate::question::appendable;
use crate::{Carry, Inputs, Made, Operator, Problem, RowOp};

/// Joins a node to those that feed it. `None` where one of them has problems of its own.
pub(super) fn connect(
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
    if made.source.is_none() && slots_of(&made, spec).iter().any(unfed) {
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

/// What is wrong with several inputs in the same way is one mistake of the key that says so.
fn each_once(problems: Vec<Problem>) -> Vec<Problem> {
    let mut once: Vec<Problem> = Vec::new();
    for problem in problems {
        if !once.contains(&problem) {
            once.push(problem);
        }
    }
    once
}

fn ports(made: &Made, inputs: &[(String, SchemaRef)]) -> Result<Vec<(String, SchemaRef)>, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let mut ports: Vec<(String, SchemaRef)> = Vec::new();
    match &made.operator {
        Operator::Table(op) => {
            let inputs = Inputs(inputs.to_vec());
            let schemas = op.schemas(&inputs).map_err(|_| each_once(op.mistakes(&inputs)))?;
            ports.extend(op.outputs().into_iter().zip(schemas));
        }
        Operator::Rows(op) => {
            let listed = made.source.as_ref().map(|source| source.schemas(&Inputs(Vec::new())));
            let listed = listed.transpose().map_err(one)?;
            let input = listed.as_ref().and_then(|schemas| schemas.first());
            let input = input.or_else(|| inputs.first().map(|(_, schema)| schema));
            let input = input.ok_or_else(|| vec![Problem::new("missing-input", "", "nothing feeds this node")])?;
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
    let missing: Vec<_> = op.reads().iter().filter_map(|name| unknown_column(name, op, input)).collect();
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
        if let Some(problem) = unknown_column(&name, op, input) {
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
fn unknown_column(name: &str, op: &dyn RowOp, input: &Schema) -> Option<Problem> {
    if input.field_with_name(name).is_ok() {
        return None;
    }
    let found = op.offers();
    let names: Vec<_> = input.fields().iter().map(|field| field.name().as_str()).collect();
    let mut has = listed(names.iter().copied());
    if !found.is_empty() {
        has = format!("{has}; found are {}", listed(found.iter().map(String::as_str)));
    }
    let problem = Problem::new("unknown-column", "with", format!("the input has no column `{name}`"));
    Some(match crate::nearest(name, found.iter().map(String::as_str).chain(names)) {
        Some(near) => problem.hint(format!("did you mean `{near}`? It has {has}")),
        None => problem.hint(format!("it has {has}")),
    })
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

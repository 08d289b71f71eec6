//! A node's question: its inputs' contents and its recipe. Shared by plan and run, so that they can't disagree.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use retort_cache::{Answer, Change, Fact, Memory, Recipe, Store, StoreError, Table};

use crate::graph::{FILES_PORT, Graph, Node, NodeId};
use crate::{Cx, Failure, Input, Inputs, World};

/// The tables of a node's outputs, in port order.
pub(crate) type Tables = Vec<Table>;

/// What a node is asked.
pub(crate) struct Question {
    pub recipe: Recipe,
    pub inputs: Inputs<Input>,
    /// The listing that the node's source gave, if it has one.
    pub listing: Option<Table>,
}

impl Question {
    /// Looks at the node's sources and inputs. `answers` are those of the nodes that feed it.
    pub(crate) fn of(
        graph: &Graph,
        id: NodeId,
        answers: &dyn Fn(NodeId) -> Arc<Tables>,
        world: World<'_>,
    ) -> Result<Self, Failure> {
        let node = graph.node(id);
        let op = op_facts(node, world)?;
        let listing = node.made.source.as_ref().map(|_| list(node, world)).transpose()?;
        let mut inputs = Vec::new();
        if let Some(listing) = &listing {
            inputs.push((
                FILES_PORT.to_string(),
                Input { schema: listing.schema.clone(), tables: vec![listing.clone()] },
            ));
        }
        for ((slot, sources), schema) in node.inputs.iter().zip(&node.input_schemas) {
            let tables = sources.iter().map(|(feed, port)| answers(*feed)[*port].clone()).collect();
            inputs.push((slot.clone(), Input { schema: schema.clone(), tables }));
        }
        let facts = inputs.iter().flat_map(|(slot, input)| input_facts(slot, input)).collect();
        Ok(Question { recipe: Recipe { op, inputs: facts }, inputs: Inputs(inputs), listing })
    }

    /// What changed since the node's last answer; files of a listing one by one.
    pub(crate) fn changes_since(&self, last: &Answer, store: &dyn Store) -> Result<Vec<Change>, StoreError> {
        let mut changes = self.recipe.changes_since(&last.recipe);
        let listed = last.outputs.iter().find(|output| output.port == FILES_PORT);
        if let (Some(new), Some(old)) = (&self.listing, listed)
            && let Some(old) = store.open(old.content)?
        {
            let files = changes_of_files(&old, new)?;
            if !files.is_empty() {
                changes.retain(|change| change.fact != format!("input.{FILES_PORT}"));
                changes.extend(files);
            }
        }
        Ok(changes)
    }
}

/// The operator's own facts: config and assets.
pub fn op_facts(node: &Node, world: World<'_>) -> Result<Vec<Fact>, Failure> {
    let mut facts = node.made.facts.clone();
    for asset in &node.made.assets {
        facts.push(Fact::new(format!("asset.{}", asset.name), world.assets.digest(asset)?));
    }
    Ok(facts)
}

/// The contents that an input has, a fact a table.
pub(crate) fn input_facts(slot: &str, input: &Input) -> Vec<Fact> {
    let name = if slot == "from" { "input.from".to_string() } else { format!("input.{slot}") };
    let fact = |i: usize, table: &Table| match input.tables.len() {
        1 => Fact::new(&name, table.id.to_string()),
        _ => Fact::new(format!("{name}[{i}]"), table.id.to_string()),
    };
    input.tables.iter().enumerate().map(|(i, table)| fact(i, table)).collect()
}

/// What a node's source finds, where it has one: names and digests, as a run would see them now.
pub fn listing(graph: &Graph, id: NodeId, world: World<'_>) -> Result<Option<Table>, Failure> {
    let node = graph.node(id);
    node.made.source.as_ref().map(|_| list(node, world)).transpose()
}

/// Asks a node's source. Its listing is small and is asked on every run, so it stays in memory unless the node runs.
fn list(node: &Node, world: World<'_>) -> Result<Table, Failure> {
    let source = node.made.source.as_ref().expect("asked only where there is a source");
    let memory = Memory::default();
    let no_inputs = Inputs(Vec::new());
    let schemas = source.schemas(&Inputs(Vec::new())).map_err(|problem| Failure::op(problem.message))?;
    let mut writers = schemas.into_iter().map(|schema| memory.writer(schema)).collect::<Result<Vec<_>, _>>()?;
    let cx = Cx { world, node: &node.name, recipe: Recipe::default().id(), inherits: false };
    source.run(&no_inputs, &mut writers, &cx)?;
    Ok(writers.remove(0).finish()?)
}

/// The listing's first two columns are a name and a digest.
fn changes_of_files(old: &Table, new: &Table) -> Result<Vec<Change>, StoreError> {
    let facts = |table: &Table| -> Result<Vec<Fact>, StoreError> {
        let batch = table.read()?;
        let (Some(names), Some(digests)) = (text(&batch, 0), text(&batch, 1)) else { return Ok(Vec::new()) };
        Ok(names.iter().zip(digests).map(|(name, digest)| fact_of_file(name, digest)).collect())
    };
    Ok(retort_cache::recipe::changes(&facts(old)?, &facts(new)?))
}

fn text(batch: &arrow::array::RecordBatch, column: usize) -> Option<&arrow::array::StringArray> {
    batch.columns().get(column)?.as_string_opt::<i32>()
}

fn fact_of_file(name: Option<&str>, digest: Option<&str>) -> Fact {
    Fact::new(format!("file {}", name.unwrap_or_default()), digest.unwrap_or_default())
}

/// Whether two inputs can be read one after the other: equal names and types.
pub(crate) fn appendable(one: &SchemaRef, other: &SchemaRef) -> bool {
    let same = |(a, b): (&Arc<arrow::datatypes::Field>, &Arc<arrow::datatypes::Field>)| {
        a.name() == b.name() && a.data_type().equals_datatype(b.data_type())
    };
    one.fields().len() == other.fields().len() && one.fields().iter().zip(other.fields()).all(same)
}

//! The answer key: every table of a graph from scratch, row by row, with no cache, no batches and no threads.
//!
//! Written from the design. It shares with the engine what an operator says of a row or of tables, how a recipe and a table are named, and
//! nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_empty_array};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_cache::{ContentId, Fact, Memory, Recipe, Store};

use super::made::listing;
use super::ops::{Carries, Docs, Kind, Row, Said, Whole, batch_of, cells, identity, text_schema};
use super::world::{Op, Sketch, World};

/// What a node is asked, and the answer.
pub(crate) struct Keyed {
    pub(crate) recipe: Recipe,
    /// In port order.
    pub(crate) outputs: Vec<(String, ContentId, RecordBatch)>,
    /// Of a row operator: what tells each row of its input, in order.
    pub(crate) rows: Option<Vec<String>>,
    pub(crate) remembers: bool,
    pub(crate) listing: Option<Vec<(String, String)>>,
}

/// Every node's question and answer.
pub(crate) fn answer(world: &World) -> BTreeMap<String, Keyed> {
    let mut done: BTreeMap<String, Keyed> = BTreeMap::new();
    while done.len() < world.nodes.len() {
        let ready = world.nodes.iter().find(|node| {
            let mut sources = node.from.iter().flat_map(|(_, sources)| sources);
            !done.contains_key(&node.name) && sources.all(|source| done.contains_key(part(source).0))
        });
        let node = ready.expect("a graph that checks has no cycle");
        let keyed = keyed(world, node, &done);
        done.insert(node.name.clone(), keyed);
    }
    done
}

fn part(source: &str) -> (&str, Option<&str>) {
    source.split_once('.').map_or((source, None), |(node, port)| (node, Some(port)))
}

fn keyed(world: &World, node: &Sketch, done: &BTreeMap<String, Keyed>) -> Keyed {
    let mut inputs = Vec::new();
    let mut facts = Vec::new();
    for (slot, sources) in slots(node) {
        let tables: Vec<_> = sources.iter().map(|source| table(source, done)).collect();
        for (at, (id, _)) in tables.iter().enumerate() {
            let name = if tables.len() == 1 { format!("input.{slot}") } else { format!("input.{slot}[{at}]") };
            facts.push(Fact::new(name, id.to_string()));
        }
        inputs.push((slot, append(&tables.into_iter().map(|(_, batch)| batch).collect::<Vec<_>>())));
    }
    let mut listed = None;
    if let Op::Docs(docs) = &node.op {
        let files = files(world, docs);
        let batch = listing(&files);
        facts.push(Fact::new("input.files", name(&batch).to_string()));
        inputs.push(("files".into(), batch));
        listed = Some(files);
    }
    let (mut rows, mut remembers) = (None, false);
    let batches = match &node.op {
        Op::Row(row) => {
            let (out, rejects, asked) = by_row(world, row, &inputs[0].1);
            (rows, remembers) = (Some(asked), row.remember);
            vec![("out".to_string(), out), ("rejects".into(), rejects)]
        }
        Op::Docs(docs) => {
            let (out, rejects, asked) = by_file(world, docs, &inputs[0].1);
            (rows, remembers) = (Some(asked), true);
            vec![("out".to_string(), out), ("rejects".into(), rejects), ("files".into(), inputs[0].1.clone())]
        }
        Op::Whole(whole) => by_table(world, whole, &inputs),
    };
    let op = node.facts(world);
    let outputs = batches.into_iter().map(|(port, batch)| (port, name(&batch), batch)).collect();
    Keyed { recipe: Recipe { op, inputs: facts }, outputs, rows, remembers, listing: listed }
}

/// The slots in the operator's order: the order in which a map is written never matters.
fn slots(node: &Sketch) -> Vec<(String, Vec<String>)> {
    let first = if matches!(&node.op, Op::Whole(Whole { kind: Kind::Join, .. })) { "left" } else { "from" };
    let named = node.from.iter().map(|(slot, sources)| (slot.clone().unwrap_or_else(|| first.into()), sources.clone()));
    let mut slots: Vec<_> = named.collect();
    slots.sort_by_key(|(slot, _)| slot == "right");
    slots
}

fn table(source: &str, done: &BTreeMap<String, Keyed>) -> (ContentId, RecordBatch) {
    let (node, port) = part(source);
    let (_, id, batch) =
        done[node].outputs.iter().find(|(name, ..)| name == port.unwrap_or("out")).expect("the graph checks");
    (*id, batch.clone())
}

/// Tables of equal columns one after the other; a column may be null if it may be in one of them.
fn append(tables: &[RecordBatch]) -> RecordBatch {
    let first = tables[0].schema();
    let field = |(at, field): (usize, &Arc<Field>)| {
        field.as_ref().clone().with_nullable(tables.iter().any(|table| table.schema().field(at).is_nullable()))
    };
    let schema: SchemaRef = Arc::new(Schema::new(first.fields().iter().enumerate().map(field).collect::<Vec<_>>()));
    let tables: Vec<_> =
        tables.iter().map(|table| RecordBatch::try_new(schema.clone(), table.columns().to_vec()).unwrap()).collect();
    concat_batches(&schema, &tables).unwrap()
}

/// What a table is called.
fn name(batch: &RecordBatch) -> ContentId {
    let mut writer = Memory::default().writer(batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap().id
}

fn files(world: &World, docs: &Docs) -> Vec<(String, String)> {
    let here = world.docs.iter().filter(|((folder, _), _)| *folder == docs.paths);
    here.map(|((_, name), text)| (name.clone(), blake3::hash(text.as_bytes()).to_hex().to_string())).collect()
}

fn by_row(world: &World, row: &Row, input: &RecordBatch) -> (RecordBatch, RecordBatch, Vec<String>) {
    let schema = input.schema();
    let mut reads = row.reads.clone();
    for name in &row.maybe {
        if schema.index_of(name).is_ok() && !reads.contains(name) {
            reads.push(name.clone());
        }
    }
    let added = row.added();
    let carried = |name: &String| {
        let kept = match row.carries {
            Carries::All => true,
            Carries::Some => !row.drops.contains(name),
            Carries::Nothing => false,
        };
        kept && added.index_of(name).is_err()
    };
    let carried: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).filter(carried).collect();
    let version = world.version("row");
    let say = |batch: &RecordBatch, at: usize| row.say(version, &cells(batch, at));
    walk(input, &reads, &carried, &added, &say)
}

fn by_file(world: &World, docs: &Docs, input: &RecordBatch) -> (RecordBatch, RecordBatch, Vec<String>) {
    let version = world.version("docs");
    let files = files(world, docs);
    let say = |batch: &RecordBatch, at: usize| {
        // Path and digest lead to the same text.
        let digest = cells(batch, at).pop().flatten().unwrap();
        let file = files.iter().find(|(_, other)| *other == digest).unwrap();
        docs.say(version, &world.docs[&(docs.paths.clone(), file.0.clone())])
    };
    walk(input, &docs.reads(), &["path".into()], &text_schema(&["text"]), &say)
}

/// Row by row: the output, the refused rows, and what tells each row.
fn walk(
    input: &RecordBatch,
    reads: &[String],
    carried: &[String],
    added: &SchemaRef,
    say: &dyn Fn(&RecordBatch, usize) -> Said,
) -> (RecordBatch, RecordBatch, Vec<String>) {
    let schema = input.schema();
    let at = |name: &String| schema.index_of(name).unwrap();
    let read = input.project(&reads.iter().map(at).collect::<Vec<_>>()).unwrap();
    let old: Vec<usize> = carried.iter().map(at).collect();
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|at| schema.field(*at).name() != "reason").collect();
    let (mut out, mut refused, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..input.num_rows() {
        asked.push(identity(&read, row));
        let (rows, reason) = match say(&read, row) {
            Said::Rows(rows) => (rows, None),
            Said::Partly(rows, reason) => (rows, Some(reason)),
            Said::Refused(reason) => (Vec::new(), Some(reason)),
        };
        for new in &rows {
            let mut columns: Vec<ArrayRef> = old.iter().map(|at| input.column(*at).slice(row, 1)).collect();
            columns.extend(batch_of(added, std::slice::from_ref(new)).columns().iter().cloned());
            out.push(columns);
        }
        if let Some(reason) = reason {
            let mut columns: Vec<ArrayRef> = kept.iter().map(|at| input.column(*at).slice(row, 1)).collect();
            columns.push(Arc::new(StringArray::from(vec![reason])));
            refused.push(columns);
        }
    }
    let mut fields: Vec<Field> = old.iter().map(|at| schema.field(*at).clone()).collect();
    fields.extend(added.fields().iter().map(|field| field.as_ref().clone()));
    let mut rejects: Vec<Field> = kept.iter().map(|at| schema.field(*at).clone()).collect();
    rejects.push(Field::new("reason", DataType::Utf8, false));
    (stack(fields, &out), stack(rejects, &refused), asked)
}

/// A table of rows that are given as columns of one value.
fn stack(fields: Vec<Field>, rows: &[Vec<ArrayRef>]) -> RecordBatch {
    let column = |(at, field): (usize, &Field)| {
        let parts: Vec<_> = rows.iter().map(|row| row[at].as_ref()).collect();
        if parts.is_empty() { new_empty_array(field.data_type()) } else { concat(&parts).unwrap() }
    };
    let columns = fields.iter().enumerate().map(column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn by_table(world: &World, whole: &Whole, inputs: &[(String, RecordBatch)]) -> Vec<(String, RecordBatch)> {
    let batches = whole.say(world.version("whole"), inputs);
    let schemas = whole.schemas(&inputs[0].1.schema());
    let typed = batches
        .into_iter()
        .zip(schemas)
        .map(|(batch, schema)| RecordBatch::try_new(schema, batch.columns().to_vec()).unwrap());
    whole.outputs().into_iter().zip(typed).collect()
}

//! `resolve`: what the links and references of documents lead to in each other. Where a link leads is found in
//! `resolve/index.rs`.

mod index;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_cache::TableWriter;
use retort_engine::{Cx, Define, Env, Failure, Input, Inputs, Lineage, Operator, Problem, TableOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chunk::sentence;
use crate::document::links::{anchors_from_arrow, anchors_type, links_from_arrow, links_type};
use crate::document::targets::{Target, targets_to_arrow, targets_type};
use crate::document::{BlocksError, Document, blocks_from_arrow, blocks_type, heading_path_builder, heading_path_type};
use index::{Index, Spot};

/// Finds what the links and references of documents lead to in other documents ("see chapter 5" where each chapter is a file), so that
/// `chunk` can say it.
///
/// A link to a file leads to its anchor, or to the section that its words name (`section 4.1`), or else to its beginning. A reference that its own document does not
/// resolve (`chapter 27`, `section 3.2`, `figure 4-2`, `the next chapter`) leads to the document that has that number, if both are parts of one work: two documents that
/// both have a chapter 1 are not. Of several the one in the nearest folder is meant, then the one of the same format; where that leaves more than one, none.
///
/// Outputs: `out`, the documents with a column `targets` more (`link`, the place of the link in `links`; `path`, `heading_path` and `text` of what it leads to, the last
/// being its first paragraph), and `unresolved`, a row a link that leads nowhere (`doc_id`, `path`, `block`, `heading_path`, `page`, `kind`, `label`, `target`,
/// `reason`). A document whose links lead to the same names and paragraphs as before keeps its row, and so its chunks.
///
/// ```yaml
/// resolved:
///   op: resolve
///   from: documents
/// linked_chunks:
///   op: chunk
///   from: resolved
///   with: {max_words: 250, references: text}
/// # `retort show PIPELINE resolved.unresolved` lists what leads nowhere.
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolve {}

impl Define for Resolve {
    const NAME: &'static str = "resolve";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(Resolver)))
    }
}

/// Of a first paragraph as many whole sentences are kept as have no more bytes.
const LONGEST_TEXT: usize = 2000;

struct Resolver;

/// The columns that are read, with their types.
fn columns() -> [(&'static str, DataType); 7] {
    [
        ("path", DataType::Utf8),
        ("doc_id", DataType::Utf8),
        ("context", DataType::Utf8),
        ("text", DataType::Utf8),
        ("blocks", blocks_type()),
        ("links", links_type()),
        ("anchors", anchors_type()),
    ]
}

impl TableOp for Resolver {
    fn outputs(&self) -> Vec<String> {
        vec!["out".into(), "unresolved".into()]
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        let Some(schema) = inputs.get("from") else { return Ok(Vec::new()) };
        if let Some(problem) = self.mistakes(inputs).into_iter().next() {
            return Err(problem);
        }
        let mut fields: Vec<_> = schema.fields().iter().filter(|field| field.name() != "targets").cloned().collect();
        fields.push(Arc::new(Field::new("targets", targets_type(), false)));
        Ok(vec![Arc::new(Schema::new(fields)), unresolved_schema()])
    }

    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        let Some(schema) = inputs.get("from") else { return Vec::new() };
        let mut problems = Vec::new();
        for (name, wanted) in columns() {
            let problem = match schema.field_with_name(name) {
                Err(_) => Problem::new("unknown-column", "from", format!("the input has no column `{name}`")),
                Ok(field) if *field.data_type() != wanted => {
                    Problem::new("type", "from", format!("column `{name}` is {}, not {wanted}", field.data_type()))
                }
                Ok(_) => continue,
            };
            problems.push(problem.hint("`resolve` reads what `extract` gives"));
        }
        problems
    }

    fn lineage(&self, output: &str, _slot: &str) -> Lineage {
        // A row of `unresolved` stands for the document that the link is in.
        let column = if output == "out" { "path" } else { "doc_id" };
        Lineage::Columns(vec![(column.into(), column.into())])
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let input = inputs.get("from").ok_or_else(|| Failure::op("nothing feeds it"))?;
        let mut index = Index::default();
        each(input, cx, |_, path, _, document| index.add(path, document))?;
        let resolved = index.resolve();
        let mut names = names_of(&resolved);
        each(input, cx, |number, _, context, document| {
            for (spot, name) in names.range_mut(Spot::first_of(number)..Spot::first_of(number + 1)) {
                *name = Name::of(document, spot.block as usize, context);
            }
        })?;
        let mut table = Unresolved::default();
        let mut number = 0;
        for batch in input.batches()? {
            cx.check()?;
            let batch = batch?;
            let mut targets = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                let document = document_of(&batch, row)?;
                let links = &resolved[number];
                targets.push(index.targets(links, &names));
                table.add(&batch, row, &document, links);
                number += 1;
            }
            let (batch, unresolved) = (with_targets(&batch, &targets, &input.schema)?, table.finish()?);
            out[0].write(&batch)?;
            out[1].write(&unresolved)?;
        }
        cx.note(counted(&resolved));
        Ok(())
    }
}

/// Every link of a document that leads, or should lead, to a place: by its place in `links`, with where that is.
type Links = Vec<(u32, Result<Spot, String>)>;

/// What is said of a place.
#[derive(Clone, Debug, Default)]
struct Name {
    heading_path: Vec<String>,
    text: Option<String>,
}

impl Name {
    fn of(document: &Document, block: usize, context: &str) -> Self {
        let Some(place) = document.blocks.get(block) else { return Self::default() };
        let mut heading_path = place.heading_path.to_vec();
        if heading_path.is_empty() {
            heading_path.push(context.to_owned());
        }
        let text = document.first_paragraph(block).map(|text| {
            let ends = sentence::starts(text).into_iter().skip(1).chain([text.len()]);
            let end = ends.take_while(|end| *end <= LONGEST_TEXT).last().unwrap_or(0);
            text[..end].trim_end().to_owned()
        });
        Self { heading_path, text: text.filter(|text| !text.is_empty()) }
    }
}

fn names_of(resolved: &[Links]) -> BTreeMap<Spot, Name> {
    let spots = resolved.iter().flatten().filter_map(|(_, to)| to.as_ref().ok());
    spots.map(|spot| (*spot, Name::default())).collect()
}

impl Index {
    fn targets(&self, links: &Links, names: &BTreeMap<Spot, Name>) -> Vec<Target> {
        let found = links.iter().filter_map(|(link, to)| Some((link, to.as_ref().ok()?)));
        let targets = found.filter_map(|(link, spot)| {
            let name = names.get(spot)?;
            let path = self.path(spot.document).to_owned();
            Some(Target { link: *link, path, heading_path: name.heading_path.clone(), text: name.text.clone() })
        });
        targets.collect()
    }
}

/// Every document: its number from 0, path, context, and itself.
fn each(input: &Input, cx: &Cx<'_>, mut visit: impl FnMut(usize, &str, &str, &Document)) -> Result<(), Failure> {
    let mut number = 0;
    for batch in input.batches()? {
        cx.check()?;
        let batch = batch?;
        let [paths, contexts] = ["path", "context"].map(|name| column(&batch, name).as_string::<i32>());
        for row in 0..batch.num_rows() {
            visit(number, paths.value(row), contexts.value(row), &document_of(&batch, row)?);
            number += 1;
        }
    }
    Ok(())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).expect("`schemas` asked for it")
}

/// The document of a row; an empty one where it has no text or no blocks.
fn document_of(batch: &RecordBatch, row: usize) -> Result<Document, Failure> {
    let read = || -> Result<Document, BlocksError> {
        let (texts, blocks) = (column(batch, "text").as_string::<i32>(), column(batch, "blocks"));
        if texts.is_null(row) || blocks.is_null(row) {
            return Ok(Document::default());
        }
        let text = texts.value(row).to_owned();
        let blocks = blocks_from_arrow(blocks, row, &text)?;
        let links = links_from_arrow(column(batch, "links"), row, blocks.len())?;
        let anchors = anchors_from_arrow(column(batch, "anchors"), row)?;
        Ok(Document { text, blocks, links, anchors, ..Document::default() })
    };
    let path = column(batch, "path").as_string::<i32>().value(row);
    read().map_err(|error| Failure::op(format!("`{path}`: {error}")))
}

fn with_targets(batch: &RecordBatch, targets: &[Vec<Target>], schema: &Schema) -> Result<RecordBatch, Failure> {
    let mut fields: Vec<_> = Vec::with_capacity(batch.num_columns() + 1);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns() + 1);
    for (field, column) in schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != "targets") {
        fields.push(field.clone());
        columns.push(column.clone());
    }
    fields.push(Arc::new(Field::new("targets", targets_type(), false)));
    columns.push(Arc::new(targets_to_arrow(targets.iter().map(Vec::as_slice))));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Failure::op(error.to_string()))
}

/// How many links lead where.
fn counted(resolved: &[Links]) -> String {
    let all: usize = resolved.iter().map(Vec::len).sum();
    let nowhere = resolved.iter().flatten().filter(|(_, to)| to.is_err()).count();
    format!("{all} links and references lead out of their documents: {} resolved, {nowhere} not", all - nowhere)
}

fn unresolved_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("doc_id", DataType::Utf8, false),
        Field::new("path", DataType::Utf8, false),
        Field::new("block", DataType::UInt32, false),
        Field::new("heading_path", heading_path_type(), false),
        Field::new("page", DataType::UInt32, true),
        Field::new("kind", DataType::Utf8, false),
        Field::new("label", DataType::Utf8, false),
        Field::new("target", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
    ]))
}

/// The rows of `unresolved` that were not written yet.
#[derive(Default)]
struct Unresolved {
    texts: Vec<[String; 6]>,
    blocks: Vec<u32>,
    heading_paths: Vec<Vec<String>>,
    pages: Vec<Option<u32>>,
}

impl Unresolved {
    fn add(&mut self, batch: &RecordBatch, row: usize, document: &Document, links: &Links) {
        let [doc_id, path] = ["doc_id", "path"].map(|name| column(batch, name).as_string::<i32>().value(row));
        for (link, to) in links {
            let Err(reason) = to else { continue };
            let link = &document.links[*link as usize];
            let block = &document.blocks[link.block as usize];
            let texts = [doc_id, path, link.kind.name(), &link.label, &link.target, reason];
            self.texts.push(texts.map(str::to_owned));
            self.blocks.push(link.block);
            self.heading_paths.push(block.heading_path.to_vec());
            self.pages.push(block.page);
        }
    }

    fn finish(&mut self) -> Result<RecordBatch, Failure> {
        let Self { texts, blocks, heading_paths, pages } = std::mem::take(self);
        let text =
            |at: usize| -> ArrayRef { Arc::new(StringArray::from_iter_values(texts.iter().map(|row| &row[at]))) };
        let mut paths = heading_path_builder();
        for path in heading_paths {
            path.iter().for_each(|heading| paths.values().append_value(heading));
            paths.append(true);
        }
        let columns: Vec<ArrayRef> = vec![
            text(0),
            text(1),
            Arc::new(UInt32Array::from(blocks)),
            Arc::new(paths.finish()),
            Arc::new(UInt32Array::from(pages)),
            text(2),
            text(3),
            text(4),
            text(5),
        ];
        RecordBatch::try_new(unresolved_schema(), columns).map_err(|error| Failure::op(error.to_string()))
    }
}

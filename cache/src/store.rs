//! The store's contract: answers by question, tables by content, remembered rows by row key.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::claim::Claimed;
use crate::{ContentId, KeptRows, Recipe, RecipeId, RowKey, StoreError};

/// Record batches as they are read.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, StoreError>> + Send>;

/// Where a table's rows are read from.
pub(crate) trait Source: Send + Sync {
    fn batches(&self) -> Result<Batches, StoreError>;
    /// The Parquet file, where there is one.
    fn path(&self) -> Option<&std::path::Path> {
        None
    }
}

/// A stored table: cheap to clone, read lazily.
#[derive(Clone)]
pub struct Table {
    /// Names the schema and the rows in order.
    pub id: ContentId,
    /// The columns.
    pub schema: SchemaRef,
    /// How many rows.
    pub rows: u64,
    pub(crate) source: Arc<dyn Source>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("id", &self.id).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Table {
    /// The rows, batch by batch; nothing is read before it is asked for.
    pub fn batches(&self) -> Result<Batches, StoreError> {
        self.source.batches()
    }

    /// All rows as one batch, for tables that are known to be small.
    pub fn read(&self) -> Result<RecordBatch, StoreError> {
        let batches = self.batches()?.collect::<Result<Vec<_>, _>>()?;
        arrow::compute::concat_batches(&self.schema, &batches).map_err(StoreError::table("join batches of", self.id))
    }

    /// The Parquet file, where the store has files.
    pub fn path(&self) -> Option<&std::path::Path> {
        self.source.path()
    }
}

/// One output of an answer, before its table is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The port: `out`, `rejects`, `train`.
    pub port: String,
    /// The table.
    pub content: ContentId,
    /// Its rows.
    pub rows: u64,
}

/// What a recipe gave: the facts, and the tables by content id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The format of this record.
    pub version: u32,
    /// The operator's name.
    pub op: String,
    /// All the facts of the question.
    pub recipe: Recipe,
    /// In port order.
    pub outputs: Vec<Output>,
}

/// A remembered row. Rejections are answers too; failures are never stored.
#[derive(Clone, Debug, PartialEq)]
pub enum RowAnswer {
    /// Any number of rows with the columns that the operator adds.
    Kept(KeptRows),
    /// The operator refused the row, and why.
    Rejected(String),
    /// The operator kept these rows and refused the rest of what it found, and why.
    Partly(KeptRows, String),
}

impl RowAnswer {
    /// The rows that were kept.
    pub fn kept(&self) -> Option<&KeptRows> {
        match self {
            RowAnswer::Kept(rows) | RowAnswer::Partly(rows, _) => Some(rows),
            RowAnswer::Rejected(_) => None,
        }
    }

    /// Why the row, or some of it, was refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            RowAnswer::Rejected(reason) | RowAnswer::Partly(_, reason) => Some(reason),
            RowAnswer::Kept(_) => None,
        }
    }
}

/// The remembered rows of one operator with one config. Row logs are shared by all tables that it ever saw.
pub trait RowMemo: Send + Sync {
    /// The answers that are known, in the order of `keys`.
    fn recall(&self, keys: &[RowKey]) -> Result<Vec<Option<RowAnswer>>, StoreError>;
    /// Whether each key is known, without reading its answer.
    fn knows(&self, keys: &[RowKey]) -> Result<Vec<bool>, StoreError>;
    /// Makes the rows durable: when this returns they survive a power cut.
    fn commit(&self, rows: &[(RowKey, RowAnswer)]) -> Result<(), StoreError>;
}

/// Answers by question. `Disk` for users; `Memory` for tests.
pub trait Store: Send + Sync {
    /// What the answer to a question gave, if it is known and all its tables are there. Another process may have given it a moment ago.
    fn recall(&self, recipe: RecipeId) -> Result<Option<Vec<Output>>, StoreError>;
    /// Opens a table by its name. `None` if it is not there.
    fn open(&self, content: ContentId) -> Result<Option<Table>, StoreError>;
    /// The table of an output that `recall` vouched for, with the columns it is known to have: nothing is read before its rows are.
    fn table(&self, output: &Output, schema: &SchemaRef) -> Result<Option<Table>, StoreError> {
        let _ = schema;
        self.open(output.content)
    }
    /// Is told of nodes that will be looked at, in this order, so that their answers can be read meanwhile. A hint: all is the same
    /// without.
    fn read_ahead(&self, nodes: &[String]) {
        let _ = nodes;
    }
    /// A node is looked at next: waits for its answer, where `read_ahead` told of it.
    fn wait_for(&self, node: &str) {
        let _ = node;
    }
    /// The nodes that `read_ahead` told of were looked at: what was seen may be noted for the next run.
    fn looked(&self) {}
    /// The newest answer of a node of a pipeline, to say what changed since.
    fn last(&self, node: &str) -> Result<Option<Answer>, StoreError>;
    /// The question of the newest answer of a node.
    fn newest(&self, node: &str) -> Result<Option<RecipeId>, StoreError> {
        Ok(self.last(node)?.map(|answer| answer.recipe.id()))
    }
    /// Writes a new table.
    fn writer(&self, schema: SchemaRef) -> Result<Box<dyn TableWriter>, StoreError>;
    /// Records an answer, and that it is the newest of `node`. Whoever has the question's claim calls it.
    fn commit(&self, node: &str, answer: &Answer) -> Result<(), StoreError>;
    /// Says that a known answer is the newest of `node`.
    fn point(&self, node: &str, answer: &Answer) -> Result<(), StoreError>;
    /// Tries to get the right to answer a question for `node`, without waiting. Who gets it asks `recall` again.
    fn claim(&self, recipe: RecipeId, node: &str) -> Result<Claimed, StoreError>;
    /// The remembered rows of one operator with one config; `schema` is that of the kept rows.
    fn rows(&self, op: RecipeId, schema: SchemaRef) -> Result<Arc<dyn RowMemo>, StoreError>;
    /// What was found damaged since the last call, and where it lies now: for the person who watches.
    fn told(&self) -> Vec<String> {
        Vec::new()
    }
    /// A folder that survives a crash, for work that can be resumed, such as training checkpoints. It is emptied by `commit` of the same recipe.
    /// Every file in it ends with its check (`work`).
    fn workspace(&self, recipe: RecipeId) -> Result<std::path::PathBuf, StoreError>;
}

/// Takes a table's rows in order.
pub trait TableWriter: Send {
    /// Appends rows.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError>;
    /// Makes the table durable under its content id.
    fn finish(self: Box<Self>) -> Result<Table, StoreError>;
}

/// The schema of a `rejects` port: the input's columns and `reason`.
pub fn rejects_schema(input: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = input.fields().iter().filter(|field| field.name() != "reason").cloned().collect();
    fields.push(Arc::new(Field::new("reason", DataType::Utf8, false)));
    Arc::new(Schema::new(fields))
}

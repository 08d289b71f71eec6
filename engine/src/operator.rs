//! What an operator is: a function of single rows, or of whole tables.

use std::sync::Mutex;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use retort_cache::{Batches, RowAnswer, RowKey, StoreError, Table, TableWriter};

use crate::{Cx, Failure, Lineage, Problem};

/// What an operator may see decides how it may be cached.
pub enum Operator {
    /// Answers each row by itself.
    Rows(Box<dyn RowOp>),
    /// Needs whole tables.
    Table(Box<dyn TableOp>),
}

/// A function of one row. The engine projects, remembers, batches and carries.
///
/// Law: a row's answer depends on the row alone, not on its neighbours, their order, or how rows are batched.
pub trait RowOp: Send + Sync {
    /// The columns `apply` is given. Nothing else is visible, nor in the key.
    fn reads(&self) -> Vec<String>;
    /// Columns that `apply` is given too, after those of `reads`, where the input has them.
    fn reads_if_there(&self) -> Vec<String> {
        Vec::new()
    }
    /// The columns `apply` adds, given those it reads. A column of the same name in the input is replaced.
    fn adds(&self, reads: &Schema) -> Result<SchemaRef, Problem>;
    /// Columns that it makes itself, and that its config may name where it names columns of the input: so that a hint can name them.
    fn offers(&self) -> Vec<String> {
        Vec::new()
    }
    /// Which of the input's other columns go on to the output.
    fn carries(&self) -> Carry {
        Carry::All
    }
    /// Whether answers are worth a look-up.
    fn memo(&self) -> Memo {
        Memo::Recompute
    }
    /// How many rows to hand over at a time.
    fn batching(&self) -> Batching {
        Batching { rows: 64, parallel: true }
    }
    /// How long a row of the columns that it reads takes, in any unit, where the lengths of its texts do not tell: who takes longest is begun first.
    fn effort(&self, _rows: &RecordBatch, _row: usize) -> Option<u64> {
        None
    }
    /// Answers every row of `rows`, in any order, through `out`; an answer is durable soon after it is handed over.
    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, cx: &Cx<'_>) -> Result<(), Failure>;
}

/// Which columns of the input go on to the output, before the added ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carry {
    /// All.
    All,
    /// All but these.
    Except(Vec<String>),
    /// None: the output has the added columns only.
    Nothing,
}

/// Whether a row operator's answers are remembered by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memo {
    /// Dear: extract, prompt-llm.
    Remember,
    /// Cheaper than a look-up: parse, filters.
    Recompute,
}

/// How the engine hands rows to `apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// At most so many rows at a time.
    pub rows: usize,
    /// Whether several batches may be in `apply` at the same time.
    pub parallel: bool,
}

/// Rows to answer: the columns that the operator reads, and each row's key.
pub struct RowBatch {
    /// The columns that the operator reads, in the order of `reads`, then those of `reads_if_there`.
    pub batch: RecordBatch,
    /// One a row.
    pub keys: Vec<RowKey>,
}

/// Takes the answers of one `RowBatch`, from any thread.
pub struct Answers<'a> {
    pub(crate) schema: SchemaRef,
    pub(crate) slots: Mutex<Vec<Option<RowAnswer>>>,
    pub(crate) taken: &'a (dyn Fn(usize, &RowAnswer) -> Result<(), Failure> + Sync),
}

impl Answers<'_> {
    /// Answers row `row` of the batch by any number of rows with the added columns.
    pub fn keep(&self, row: usize, answer: RecordBatch) -> Result<(), Failure> {
        self.put(row, RowAnswer::Kept(self.promised(answer)?.into()))
    }

    /// Answers row `row` of the batch by these rows, and refuses the rest of what was in it: nothing is dropped unsaid.
    pub fn keep_some(&self, row: usize, answer: RecordBatch, reason: impl Into<String>) -> Result<(), Failure> {
        if answer.num_rows() == 0 {
            return self.reject(row, reason);
        }
        self.put(row, RowAnswer::Partly(self.promised(answer)?.into(), reason.into()))
    }

    /// Refuses row `row` of the batch: an answer too.
    pub fn reject(&self, row: usize, reason: impl Into<String>) -> Result<(), Failure> {
        self.put(row, RowAnswer::Rejected(reason.into()))
    }

    fn promised(&self, answer: RecordBatch) -> Result<RecordBatch, Failure> {
        let (_, mut columns, n) = answer.into_parts();
        // Builders begin with room for a thousand values, and thousands of answers are in memory.
        columns.iter_mut().for_each(Array::shrink_to_fit);
        // An operator that adds no column still says how many rows it keeps.
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Failure::op(format!("the answer does not have the columns that were promised: {error}")))
    }

    fn put(&self, row: usize, answer: RowAnswer) -> Result<(), Failure> {
        (self.taken)(row, &answer)?;
        self.slots.lock().expect("no thread panics while it holds the answers")[row] = Some(answer);
        Ok(())
    }
}

/// A function of whole tables: sources, splits, training.
pub trait TableOp: Send + Sync {
    /// The inputs it takes. A `from` without names feeds `from`, or the only one.
    fn slots(&self) -> Vec<SlotSpec> {
        vec![SlotSpec::required("from")]
    }
    /// Whether it takes any number of inputs, at least one, under names of the user's choice: then `slots` says nothing.
    fn takes_any_input(&self) -> bool {
        false
    }
    /// The names of its outputs; a single one is `out`.
    fn outputs(&self) -> Vec<String> {
        vec!["out".into()]
    }
    /// The outputs' schemas, in the order of `outputs`.
    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem>;
    /// All that keeps it from having such schemas: asked where `schemas` gives a problem, which is the first of these.
    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        self.schemas(inputs).err().into_iter().collect()
    }
    /// What the rows of an output have to do with those of an input. It must hold: rows are followed by it.
    fn lineage(&self, output: &str, slot: &str) -> Lineage {
        let _ = (output, slot);
        Lineage::Whole
    }
    /// Writes every output.
    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure>;
}

/// An input that a table operator takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSpec {
    /// Its name in `from: {name: …}`.
    pub name: String,
    /// Whether the operator can't do without.
    pub required: bool,
}

impl SlotSpec {
    /// An input that must be there.
    pub fn required(name: impl Into<String>) -> Self {
        SlotSpec { name: name.into(), required: true }
    }

    /// An input that may be there.
    pub fn optional(name: impl Into<String>) -> Self {
        SlotSpec { name: name.into(), required: false }
    }
}

/// What is fed to the slots of a node, by name.
#[derive(Clone, Debug)]
pub struct Inputs<T>(pub Vec<(String, T)>);

impl<T> Inputs<T> {
    /// What is fed to a slot.
    pub fn get(&self, slot: &str) -> Option<&T> {
        self.0.iter().find(|(name, _)| name == slot).map(|(_, value)| value)
    }
}

/// One or more tables of equal columns, read one after the other.
#[derive(Clone, Debug)]
pub struct Input {
    /// The columns.
    pub schema: SchemaRef,
    /// In the order of `from`.
    pub tables: Vec<Table>,
}

impl Input {
    /// Rows in all.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// The rows, batch by batch, under one schema.
    pub fn batches(&self) -> Result<Batches, StoreError> {
        let streams = self.tables.iter().map(Table::batches).collect::<Result<Vec<_>, _>>()?;
        let schema = self.schema.clone();
        Ok(Box::new(streams.into_iter().flatten().map(move |batch| {
            RecordBatch::try_new(schema.clone(), batch?.columns().to_vec())
                .map_err(StoreError::table("append", "input tables"))
        })))
    }

    /// All rows as one batch, for inputs that are known to fit in memory.
    pub fn read(&self) -> Result<RecordBatch, StoreError> {
        let batches = self.batches()?.collect::<Result<Vec<_>, _>>()?;
        arrow::compute::concat_batches(&self.schema, &batches)
            .map_err(StoreError::table("join batches of", "input tables"))
    }
}

/// Where a node waits its turn; each lane has a depth, as Ninja's pools do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// As many nodes side by side as the limits allow.
    Cpu,
    /// Nodes that fill the machine by themselves, one at a time: a model runs or is trained.
    Model,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, ListBuilder, StringBuilder};

    use super::*;

    #[test]
    fn an_answer_takes_no_more_memory_than_its_values() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.values().append_value("one");
        lists.append(true);
        let column: ArrayRef = Arc::new(lists.finish());
        assert!(column.get_buffer_memory_size() > 1024, "builders make room");
        let answer = RecordBatch::try_from_iter([("list", column)]).unwrap();
        let (schema, slots) = (answer.schema(), Mutex::new(vec![None]));
        let answers = Answers { schema, slots, taken: &|_, _| Ok(()) };
        answers.keep(0, answer).unwrap();
        let slots = answers.slots.into_inner().unwrap();
        let kept = slots[0].as_ref().unwrap().kept().unwrap().batch();
        assert_eq!(kept.num_rows(), 1);
        // Buffers are multiples of a cache line.
        assert!(kept.column(0).get_buffer_memory_size() <= 4 * 64);
    }
}

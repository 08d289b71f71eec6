//! Kind `rows`: the program is given some rows, and every row that comes back belongs to one of them.
//!
//! Rows come back in the order in which they went. So a row's answer is whole when one of a later row comes, and is handed over then.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use retort_engine::{Answers, Batching, Cx, Failure, Memo, Problem, RowBatch, RowOp};

use super::columns::taken;
use super::process::Program;

/// The column that says which row it is.
pub(super) const ROW: &str = "_row";
/// The column that says why a row is refused.
pub(super) const REASON: &str = "_reason";

pub(super) struct RowProgram {
    pub(super) program: Program,
    pub(super) columns: SchemaRef,
    pub(super) reads: Vec<String>,
    pub(super) rows_at_a_time: usize,
    pub(super) parallel: bool,
}

impl RowOp for RowProgram {
    fn reads(&self) -> Vec<String> {
        self.reads.clone()
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(self.columns.clone())
    }

    fn memo(&self) -> Memo {
        Memo::Remember
    }

    fn batching(&self) -> Batching {
        Batching { rows: self.rows_at_a_time, parallel: self.parallel }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
        let given = numbered(&rows.batch)?;
        let mut ignored: Vec<&str> = vec![ROW, REASON];
        ignored
            .extend(self.reads.iter().map(String::as_str).filter(|name| self.columns.field_with_name(name).is_err()));
        let mut sorter = Sorter {
            columns: &self.columns,
            ignored,
            n_rows: rows.keys.len(),
            open: Open::default(),
            unnumbered: Vec::new(),
            out,
        };
        let batches = std::iter::once(Ok(given.clone()));
        self.program.talk(given.schema(), Box::new(batches), cx, &mut |batch| sorter.take(batch))?;
        sorter.end()
    }
}

/// The rows with their numbers.
fn numbered(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let mut fields = batch.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(ROW, DataType::Int64, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(0..batch.num_rows() as i64)));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Failure::op(error.to_string()))
}

/// The row whose answer is coming.
#[derive(Default)]
struct Open {
    row: usize,
    kept: Vec<RecordBatch>,
    reason: Option<String>,
}

struct Sorter<'a, 'b> {
    columns: &'a SchemaRef,
    ignored: Vec<&'a str>,
    n_rows: usize,
    open: Open,
    /// Rows without numbers: whose they are is known when all have come.
    unnumbered: Vec<(RecordBatch, Option<StringArray>)>,
    out: &'a Answers<'b>,
}

impl Sorter<'_, '_> {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let answers = taken(batch, self.columns, &self.ignored)?;
        let reasons = batch.column_by_name(REASON).map(reasons).transpose()?;
        let Some(numbers) = batch.column_by_name(ROW).map(numbers).transpose()? else {
            self.unnumbered.push((answers, reasons));
            return Ok(());
        };
        self.place(&answers, reasons.as_ref(), &|at| numbers.value(at))
    }

    /// Gives rows to those that they answer.
    fn place(
        &mut self,
        answers: &RecordBatch,
        reasons: Option<&StringArray>,
        number: &dyn Fn(usize) -> i64,
    ) -> Result<(), Failure> {
        for at in 0..answers.num_rows() {
            self.open(number(at))?;
            match reasons.filter(|reasons| reasons.is_valid(at)) {
                Some(reasons) => self.open.reason = Some(reasons.value(at).to_string()),
                None => self.open.kept.push(answers.slice(at, 1)),
            }
        }
        Ok(())
    }

    /// Turns to a row: what lies before it is whole.
    fn open(&mut self, row: i64) -> Result<(), Failure> {
        let last = self.open.row as i64;
        if row < last {
            return Err(Failure::op(format!(
                "the program gave `{ROW}` {row} after {last}: rows come back in the order in which they went"
            )));
        }
        if row >= self.n_rows as i64 {
            let n_rows = self.n_rows;
            return Err(Failure::op(format!("the program gave `{ROW}` {row}, and {n_rows} rows went in, from 0")));
        }
        while (self.open.row as i64) < row {
            self.close()?;
        }
        Ok(())
    }

    /// Hands the open row's answer over.
    fn close(&mut self) -> Result<(), Failure> {
        let next = Open { row: self.open.row + 1, ..Open::default() };
        let Open { row, kept, reason } = std::mem::replace(&mut self.open, next);
        let kept = concat_batches(self.columns, &kept).map_err(|error| Failure::op(error.to_string()))?;
        match reason {
            Some(reason) => self.out.keep_some(row, kept, reason),
            None if kept.num_rows() == 0 => self.out.reject(row, "the program gave no row for it"),
            None => self.out.keep(row, kept),
        }
    }

    fn end(mut self) -> Result<(), Failure> {
        let unnumbered = std::mem::take(&mut self.unnumbered);
        let (came, n_rows) = (unnumbered.iter().map(|(rows, _)| rows.num_rows()).sum::<usize>(), self.n_rows);
        if !unnumbered.is_empty() && came != n_rows {
            return Err(Failure::op(format!(
                "the program gave {came} rows for {n_rows}: where it is not one for each, it gives the column `{ROW}` back"
            )));
        }
        let mut first = 0;
        for (rows, reasons) in unnumbered {
            self.place(&rows, reasons.as_ref(), &|at| first + at as i64)?;
            first += rows.num_rows() as i64;
        }
        while self.open.row < self.n_rows {
            self.close()?;
        }
        Ok(())
    }
}

fn numbers(column: &ArrayRef) -> Result<Int64Array, Failure> {
    if !column.data_type().is_integer() || column.null_count() > 0 {
        let kind = column.data_type().to_string().to_lowercase();
        return Err(Failure::op(format!(
            "the program gave `{ROW}` as {kind} or with values missing; it is an integer each time"
        )));
    }
    let numbers = cast(column, &DataType::Int64).map_err(|error| Failure::op(error.to_string()))?;
    Ok(numbers.as_primitive::<Int64Type>().clone())
}

fn reasons(column: &ArrayRef) -> Result<StringArray, Failure> {
    let reasons =
        cast(column, &DataType::Utf8).map_err(|error| Failure::op(format!("`{REASON}` is no text: {error}")))?;
    Ok(reasons.as_string::<i32>().clone())
}

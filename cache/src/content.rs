//! Names for rows and tables: one canonical encoding of their values, hashed.
//!
//! A table is taken in slices of a fixed number of rows, a slice column by column (`columns`), so that long stretches of
//! bytes go into the hash as they lie in memory. Where a slice begins depends on the number of rows before it and on nothing
//! else. A row's own digest (`rows`) covers its values alone.
//!
//! What lies under a null, how rows are batched and where an array's buffers begin never shows. Floats count by their bits.

mod columns;
mod rows;

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};

use crate::digest::ContentId;
use crate::{StoreError, Table};
use columns::{Sink, Stretch, feed_column};

pub use rows::{row_digests, row_keys};

/// Rows that are encoded together.
const SLICE: usize = 1024;

/// Names a table while its rows pass by.
pub struct ContentHasher {
    sink: Sink,
    /// Less than a slice of rows, in the pieces in which they came.
    pending: Vec<(RecordBatch, Range<usize>)>,
    n_pending: usize,
    rows: u64,
}

impl ContentHasher {
    /// Begins with the schema: names, types, nullability; metadata is left out.
    pub fn new(schema: &Schema) -> Self {
        let mut sink = Sink::new("retort table 2");
        sink.put(&(schema.fields().len() as u64).to_le_bytes());
        for field in schema.fields() {
            sink.put_text(field.name());
            sink.put_text(&type_name(field));
        }
        ContentHasher { sink, pending: Vec::new(), n_pending: 0, rows: 0 }
    }

    /// Appends rows.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        batch.columns().iter().try_for_each(|column| encodable(column.data_type()))?;
        let mut at = 0;
        while at < batch.num_rows() {
            let take = (SLICE - self.n_pending).min(batch.num_rows() - at);
            if take == SLICE {
                feed_slice(&[(batch.clone(), at..at + take)], &mut self.sink);
            } else {
                self.pending.push((batch.clone(), at..at + take));
                self.n_pending += take;
            }
            if self.n_pending == SLICE {
                self.flush();
            }
            at += take;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The name of all that was appended.
    pub fn finish(mut self) -> ContentId {
        self.flush();
        // No slice has no rows, so this can't be taken for one.
        self.sink.put(&0u32.to_le_bytes());
        self.sink.put(&self.rows.to_le_bytes());
        ContentId(self.sink.finish())
    }

    fn flush(&mut self) {
        if self.n_pending > 0 {
            feed_slice(&self.pending, &mut self.sink);
            self.pending.clear();
            self.n_pending = 0;
        }
    }
}

/// Feeds the rows of one slice, which came in pieces.
fn feed_slice(pieces: &[(RecordBatch, Range<usize>)], sink: &mut Sink) {
    let rows: usize = pieces.iter().map(|(_, range)| range.len()).sum();
    sink.put(&(rows as u32).to_le_bytes());
    let mut stretches = Vec::with_capacity(pieces.len());
    for column in 0..pieces[0].0.num_columns() {
        stretches.clear();
        stretches.extend(pieces.iter().map(|(batch, range)| Stretch::of(batch.column(column).as_ref(), range.clone())));
        feed_column(&stretches, sink);
    }
}

/// Re-computes a stored table's name from its rows.
pub fn content_id(table: &Table) -> Result<ContentId, StoreError> {
    let mut hasher = ContentHasher::new(&table.schema);
    for batch in table.batches()? {
        hasher.update(&batch?)?;
    }
    Ok(hasher.finish())
}

/// Refuses what has no canonical encoding, whatever lies inside of what.
fn encodable(data_type: &DataType) -> Result<(), StoreError> {
    match data_type {
        DataType::Null
        | DataType::Boolean
        | DataType::FixedSizeBinary(_)
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::Float32
        | DataType::Float64 => Ok(()),
        integer if integer.is_integer() => Ok(()),
        DataType::List(item) => encodable(item.data_type()),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| encodable(field.data_type())),
        other => Err(StoreError::Table {
            verb: "hash",
            path: "column".into(),
            source: format!("columns of type {other} have no canonical encoding; cast it first").into(),
        }),
    }
}

/// A type as text that does not depend on a library's `Debug`.
fn type_name(field: &Field) -> String {
    let name = match field.data_type() {
        DataType::List(item) => format!("list<{}>", type_name(item)),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| format!("{}:{}", field.name(), type_name(field))).collect();
            format!("struct<{}>", fields.join(","))
        }
        DataType::FixedSizeBinary(width) => format!("binary[{width}]"),
        DataType::Utf8 => "utf8".into(),
        DataType::LargeUtf8 => "large_utf8".into(),
        DataType::Binary => "binary".into(),
        DataType::LargeBinary => "large_binary".into(),
        DataType::Boolean => "bool".into(),
        DataType::Float32 => "f32".into(),
        DataType::Float64 => "f64".into(),
        other => format!("{other}").to_lowercase(),
    };
    if field.is_nullable() { format!("{name}?") } else { name }
}

#[cfg(test)]
mod tests;

//! Names for rows and tables: one canonical encoding of a row's values, hashed.
//!
//! A value is written as a byte that says whether it is there, then its bytes: numbers little-endian, text and lists with
//! their length first, structs field by field. What lies under a null, how rows are batched and where an array's
//! buffers begin never shows. Floats count by their bits.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};

use crate::digest::{ContentId, Digest, feed_text};
use crate::{StoreError, Table};

/// Names a table while its rows pass by.
pub struct ContentHasher {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    rows: u64,
}

impl ContentHasher {
    /// Begins with the schema: names, types, nullability; metadata is left out.
    pub fn new(schema: &Schema) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("retort table 1");
        hasher.update(&(schema.fields().len() as u64).to_le_bytes());
        for field in schema.fields() {
            feed_text(&mut hasher, field.name());
            feed_text(&mut hasher, &type_name(field));
        }
        ContentHasher { hasher, buffer: Vec::new(), rows: 0 }
    }

    /// Appends rows.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let columns = encoders(batch)?;
        for row in 0..batch.num_rows() {
            for column in &columns {
                column.write(row, &mut self.buffer);
            }
            if self.buffer.len() > 1 << 16 {
                self.flush();
            }
        }
        self.flush();
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The name of all that was appended.
    pub fn finish(mut self) -> ContentId {
        self.hasher.update(&self.rows.to_le_bytes());
        ContentId(Digest::from_bytes(*self.hasher.finalize().as_bytes()))
    }

    fn flush(&mut self) {
        if self.buffer.len() > 1 << 17 {
            self.hasher.update_rayon(&self.buffer);
        } else {
            self.hasher.update(&self.buffer);
        }
        self.buffer.clear();
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

/// One digest a row, over the names, types and values of all columns of `batch`.
pub fn row_digests(batch: &RecordBatch) -> Result<Vec<Digest>, StoreError> {
    let columns = encoders(batch)?;
    let mut head = blake3::Hasher::new_derive_key("retort columns 1");
    for field in batch.schema().fields() {
        feed_text(&mut head, field.name());
        feed_text(&mut head, &type_name(field));
    }
    let mut buffer = Vec::new();
    let mut digests = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        buffer.clear();
        for column in &columns {
            column.write(row, &mut buffer);
        }
        let mut hasher = head.clone();
        hasher.update(&buffer);
        digests.push(Digest::from_bytes(*hasher.finalize().as_bytes()));
    }
    Ok(digests)
}

fn encoders(batch: &RecordBatch) -> Result<Vec<Encoder<'_>>, StoreError> {
    batch.columns().iter().map(|column| Encoder::new(column.as_ref())).collect()
}

/// A column, downcast once a batch.
struct Encoder<'a> {
    array: &'a dyn Array,
    values: Values<'a>,
}

enum Values<'a> {
    Fixed { bytes: &'a [u8], width: usize },
    Bool(&'a arrow::array::BooleanArray),
    Bytes { offsets: &'a [i32], bytes: &'a [u8] },
    LargeBytes { offsets: &'a [i64], bytes: &'a [u8] },
    List { offsets: &'a [i32], items: Box<Encoder<'a>> },
    Struct(Vec<Encoder<'a>>),
    Null,
}

impl<'a> Encoder<'a> {
    fn new(array: &'a dyn Array) -> Result<Self, StoreError> {
        macro_rules! fixed {
            ($type:ty) => {{
                let values = array.as_primitive::<$type>().values();
                let bytes = &values.inner().as_slice()[..size_of_val::<[_]>(values)];
                Values::Fixed { bytes, width: bytes.len().checked_div(array.len()).unwrap_or(0) }
            }};
        }
        let values = match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Int8 => fixed!(Int8Type),
            DataType::Int16 => fixed!(Int16Type),
            DataType::Int32 => fixed!(Int32Type),
            DataType::Int64 => fixed!(Int64Type),
            DataType::UInt8 => fixed!(UInt8Type),
            DataType::UInt16 => fixed!(UInt16Type),
            DataType::UInt32 => fixed!(UInt32Type),
            DataType::UInt64 => fixed!(UInt64Type),
            DataType::Float32 => fixed!(Float32Type),
            DataType::Float64 => fixed!(Float64Type),
            DataType::FixedSizeBinary(width) => {
                let bytes = array.as_fixed_size_binary();
                Values::Fixed { bytes: &bytes.value_data()[..array.len() * *width as usize], width: *width as usize }
            }
            DataType::Utf8 => {
                let text = array.as_string::<i32>();
                Values::Bytes { offsets: text.value_offsets(), bytes: text.value_data() }
            }
            DataType::Binary => {
                let binary = array.as_binary::<i32>();
                Values::Bytes { offsets: binary.value_offsets(), bytes: binary.value_data() }
            }
            DataType::LargeUtf8 => {
                let text = array.as_string::<i64>();
                Values::LargeBytes { offsets: text.value_offsets(), bytes: text.value_data() }
            }
            DataType::LargeBinary => {
                let binary = array.as_binary::<i64>();
                Values::LargeBytes { offsets: binary.value_offsets(), bytes: binary.value_data() }
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Values::List { offsets: list.value_offsets(), items: Box::new(Encoder::new(list.values().as_ref())?) }
            }
            DataType::Struct(_) => Values::Struct(
                array
                    .as_struct()
                    .columns()
                    .iter()
                    .map(|column| Encoder::new(column.as_ref()))
                    .collect::<Result<_, _>>()?,
            ),
            other => {
                return Err(StoreError::Table {
                    verb: "hash",
                    path: "column".into(),
                    source: format!("columns of type {other} have no canonical encoding; cast it first").into(),
                });
            }
        };
        Ok(Encoder { array, values })
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.array.is_null(row) {
            out.push(0);
            return;
        }
        out.push(1);
        match &self.values {
            Values::Null => {}
            Values::Fixed { bytes, width } => out.extend_from_slice(&bytes[row * width..(row + 1) * width]),
            Values::Bool(values) => out.push(u8::from(values.value(row))),
            Values::Bytes { offsets, bytes } => {
                write_bytes(&bytes[offsets[row] as usize..offsets[row + 1] as usize], out);
            }
            Values::LargeBytes { offsets, bytes } => {
                write_bytes(&bytes[offsets[row] as usize..offsets[row + 1] as usize], out);
            }
            Values::List { offsets, items } => {
                let items_of_row = offsets[row] as usize..offsets[row + 1] as usize;
                out.extend_from_slice(&(items_of_row.len() as u64).to_le_bytes());
                for item in items_of_row {
                    items.write(item, out);
                }
            }
            Values::Struct(fields) => fields.iter().for_each(|field| field.write(row, out)),
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
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
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::Int32Type as I32;

    use super::*;

    fn sample() -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("ccc"), Some("")]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<I32, _, _>(vec![
            Some(vec![Some(1), None]),
            Some(vec![]),
            None,
            Some(vec![Some(7)]),
        ]));
        let inner = StructArray::from(vec![(
            Arc::new(Field::new("n", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)])) as ArrayRef,
        )]);
        RecordBatch::try_from_iter_with_nullable([
            ("text", text, true),
            ("number", number, true),
            ("list", list, true),
            ("inner", Arc::new(inner) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn id(batches: &[RecordBatch]) -> ContentId {
        let mut hasher = ContentHasher::new(&batches[0].schema());
        for batch in batches {
            hasher.update(batch).unwrap();
        }
        hasher.finish()
    }

    #[test]
    fn batching_does_not_show() {
        let batch = sample();
        for cut in 0..=4 {
            assert_eq!(
                id(std::slice::from_ref(&batch)),
                id(&[batch.slice(0, cut), batch.slice(cut, 4 - cut)]),
                "cut at {cut}"
            );
        }
        let digests = row_digests(&batch).unwrap();
        for (row, digest) in digests.iter().enumerate() {
            assert_eq!(row_digests(&batch.slice(row, 1)).unwrap(), [*digest]);
        }
    }

    #[test]
    fn order_values_and_names_show() {
        let batch = sample();
        let swapped = [batch.slice(2, 2), batch.slice(0, 2)];
        assert_ne!(id(std::slice::from_ref(&batch)), id(&swapped));
        let renamed = batch.schema().as_ref().clone();
        let mut fields: Vec<_> = renamed.fields().iter().cloned().collect();
        fields[0] = Arc::new(Field::new("other", DataType::Utf8, true));
        let renamed = RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).unwrap();
        assert_ne!(id(&[batch]), id(&[renamed]));
    }

    #[test]
    fn the_encoding_is_pinned() {
        // A change of this id changes the name of every table in every store: raise the format version with it.
        assert_eq!(id(&[sample()]).to_string(), "7c64cd17dd5fba8650c6b6315b5052f5fda7dc6808c79609ebf88c5135545e99");
    }
}

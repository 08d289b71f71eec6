//! The encoding of single rows: a digest each, which depends on the row's values and the columns' names and types.
//!
//! A value is a byte that says whether it is there, then its bytes: numbers little-endian, text and lists with their
//! length first, structs field by field.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use rayon::prelude::*;

use super::{encodable, type_name};
use crate::StoreError;
use crate::digest::{Digest, RecipeId, RowKey, feed_text};

/// Rows that one thread encodes before it looks for others.
const SHARE: usize = 1024;

/// One digest a row, over the names, types and values of all columns of `batch`.
pub fn row_digests(batch: &RecordBatch) -> Result<Vec<Digest>, StoreError> {
    let key = Digest::of("retort columns 2", |hasher| feed_columns(batch, hasher));
    digests(batch, key)
}

/// The rows' questions to the operator `op`, which reads the columns of `batch`. They cover `op` and the row only, so a
/// row's answer outlives its table.
pub fn row_keys(op: RecipeId, batch: &RecordBatch) -> Result<Vec<RowKey>, StoreError> {
    let key = Digest::of("retort row 2", |hasher| {
        hasher.update(op.0.as_bytes());
        feed_columns(batch, hasher);
    });
    Ok(digests(batch, key)?.into_iter().map(RowKey).collect())
}

fn feed_columns(batch: &RecordBatch, hasher: &mut blake3::Hasher) {
    for field in batch.schema_ref().fields() {
        feed_text(hasher, field.name());
        feed_text(hasher, &type_name(field));
    }
}

/// The values of each row, hashed under `key`: what all rows share is hashed once.
fn digests(batch: &RecordBatch, key: Digest) -> Result<Vec<Digest>, StoreError> {
    batch.columns().iter().try_for_each(|column| encodable(column.data_type()))?;
    let columns: Vec<_> = batch.columns().iter().map(|column| Encoder::new(column.as_ref())).collect();
    let mut digests = vec![Digest::from_bytes([0; 32]); batch.num_rows()];
    digests.par_chunks_mut(SHARE).enumerate().for_each(|(share, digests)| {
        let mut buffer = Vec::new();
        for (row, digest) in digests.iter_mut().enumerate() {
            buffer.clear();
            for column in &columns {
                column.write(share * SHARE + row, &mut buffer);
            }
            *digest = Digest::from_bytes(*blake3::keyed_hash(key.as_bytes(), &buffer).as_bytes());
        }
    });
    Ok(digests)
}

/// A column, downcast once a batch.
struct Encoder<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Null,
    Fixed { bytes: &'a [u8], width: usize },
    Bool(&'a BooleanArray),
    Bytes { offsets: &'a [i32], bytes: &'a [u8] },
    LargeBytes { offsets: &'a [i64], bytes: &'a [u8] },
    List { offsets: &'a [i32], items: Box<Encoder<'a>> },
    Struct(Vec<Encoder<'a>>),
}

impl<'a> Encoder<'a> {
    fn new(array: &'a dyn Array) -> Self {
        macro_rules! fixed {
            ($type:ty) => {{
                let values = array.as_primitive::<$type>().values();
                let width = size_of::<<$type as arrow::datatypes::ArrowPrimitiveType>::Native>();
                Values::Fixed { bytes: values.inner().as_slice(), width }
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
                Values::Fixed { bytes: array.as_fixed_size_binary().value_data(), width: *width as usize }
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
                Values::List { offsets: list.value_offsets(), items: Box::new(Encoder::new(list.values().as_ref())) }
            }
            DataType::Struct(_) => {
                let fields = array.as_struct().columns().iter();
                Values::Struct(fields.map(|column| Encoder::new(column.as_ref())).collect())
            }
            other => unreachable!("columns of type {other} were refused"),
        };
        Encoder { nulls: array.nulls(), values }
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) || matches!(self.values, Values::Null) {
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

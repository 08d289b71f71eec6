//! The encoding of a slice's column: what is there, how long each value is, then the values, each in one piece.
//!
//! | part | what |
//! |---|---|
//! | validity | one byte, 1 where no row is null; else 0 and a bit a row |
//! | lengths | of text, binary and lists: one number a row that is there |
//! | values | numbers little-endian, truth values a bit each, text end to end; a list's items are a column by themselves, and so are a struct's fields |
//!
//! Rows that are null have neither length nor value, and so no items and no fields. With the schema known, every
//! encoding reads back to one column only.

use std::borrow::Cow;
use std::ops::Range;

use arrow::array::{Array, AsArray, BooleanBufferBuilder, GenericByteArray, OffsetSizeTrait};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, ByteArrayType, DataType, Float32Type, Float64Type, GenericBinaryType,
    GenericStringType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::digest::Digest;

/// Bytes that are hashed at a time: BLAKE3 is fastest on large blocks that begin where its own tree does.
const BLOCK: usize = 1 << 16;

/// Bytes on their way into a hash.
pub(super) struct Sink {
    hasher: blake3::Hasher,
    /// Less than a block.
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl Sink {
    pub(super) fn new(domain: &str) -> Self {
        let hasher = blake3::Hasher::new_derive_key(domain);
        Sink { hasher, buffer: Vec::with_capacity(BLOCK), scratch: Vec::new() }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let room = BLOCK - self.buffer.len();
        if bytes.len() < room {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        let mut rest = bytes;
        if !self.buffer.is_empty() {
            self.buffer.extend_from_slice(&rest[..room]);
            self.hasher.update(&self.buffer);
            self.buffer.clear();
            rest = &rest[room..];
        }
        let (blocks, rest) = rest.split_at(rest.len() / BLOCK * BLOCK);
        self.hasher.update(blocks);
        self.buffer.extend_from_slice(rest);
    }

    /// Text with its length first, so that neighbours can't run into each other.
    pub(super) fn put_text(&mut self, text: &str) {
        self.put(&(text.len() as u64).to_le_bytes());
        self.put(text.as_bytes());
    }

    pub(super) fn finish(mut self) -> Digest {
        self.hasher.update(&self.buffer);
        Digest::from_bytes(*self.hasher.finalize().as_bytes())
    }

    /// The differences of neighbouring offsets.
    fn put_lengths<O: OffsetSizeTrait>(&mut self, offsets: &[O]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.resize((offsets.len() - 1) * size_of::<O>(), 0);
        for (length, pair) in scratch.chunks_exact_mut(size_of::<O>()).zip(offsets.windows(2)) {
            let bytes = ((pair[1] - pair[0]).as_usize() as u64).to_le_bytes();
            length.copy_from_slice(&bytes[..size_of::<O>()]);
        }
        self.put(&scratch);
        self.scratch = scratch;
    }
}

/// Neighbouring rows of an array. A column of a slice is one or more of them.
#[derive(Clone)]
pub(super) struct Stretch<'a> {
    array: &'a dyn Array,
    rows: Range<usize>,
}

impl<'a> Stretch<'a> {
    pub(super) fn of(array: &'a dyn Array, rows: Range<usize>) -> Self {
        Stretch { array, rows }
    }
}

/// Feeds a column, whose stretches are of one type that has an encoding.
pub(super) fn feed_column(column: &[Stretch<'_>], sink: &mut Sink) {
    // What has no rows leaves no trace, in however many empty stretches it comes.
    let Some(part) = column.iter().find(|part| !part.rows.is_empty()) else { return };
    let data_type = part.array.data_type();
    if *data_type == DataType::Null {
        return;
    }
    let column = &*feed_validity(column, sink);
    match data_type {
        DataType::Boolean => feed_bits(column, sink),
        DataType::Int8 => feed_numbers::<Int8Type>(column, sink),
        DataType::Int16 => feed_numbers::<Int16Type>(column, sink),
        DataType::Int32 => feed_numbers::<Int32Type>(column, sink),
        DataType::Int64 => feed_numbers::<Int64Type>(column, sink),
        DataType::UInt8 => feed_numbers::<UInt8Type>(column, sink),
        DataType::UInt16 => feed_numbers::<UInt16Type>(column, sink),
        DataType::UInt32 => feed_numbers::<UInt32Type>(column, sink),
        DataType::UInt64 => feed_numbers::<UInt64Type>(column, sink),
        DataType::Float32 => feed_numbers::<Float32Type>(column, sink),
        DataType::Float64 => feed_numbers::<Float64Type>(column, sink),
        DataType::FixedSizeBinary(width) => {
            let width = *width as usize;
            for Stretch { array, rows } in column {
                sink.put(&array.as_fixed_size_binary().value_data()[rows.start * width..rows.end * width]);
            }
        }
        DataType::Utf8 => feed_bytes::<GenericStringType<i32>>(column, sink),
        DataType::LargeUtf8 => feed_bytes::<GenericStringType<i64>>(column, sink),
        DataType::Binary => feed_bytes::<GenericBinaryType<i32>>(column, sink),
        DataType::LargeBinary => feed_bytes::<GenericBinaryType<i64>>(column, sink),
        DataType::List(_) => feed_lists(column, sink),
        DataType::Struct(fields) => {
            for n in 0..fields.len() {
                let field =
                    column.iter().map(|part| Stretch::of(part.array.as_struct().column(n).as_ref(), part.rows.clone()));
                feed_column(&field.collect::<Vec<_>>(), sink);
            }
        }
        other => unreachable!("columns of type {other} were refused"),
    }
}

/// Feeds which rows are there, and gives those.
fn feed_validity<'c, 'a>(column: &'c [Stretch<'a>], sink: &mut Sink) -> Cow<'c, [Stretch<'a>]> {
    let nulls_of = |part: &Stretch<'a>| {
        let nulls = part.array.nulls().map(|nulls| nulls.slice(part.rows.start, part.rows.len()));
        nulls.filter(|nulls| nulls.null_count() > 0)
    };
    let nulls: Vec<_> = column.iter().map(nulls_of).collect();
    if nulls.iter().all(Option::is_none) {
        sink.put(&[1]);
        return Cow::Borrowed(column);
    }
    sink.put(&[0]);
    let mut bits = BooleanBufferBuilder::new(0);
    let mut there = Vec::new();
    for (part, nulls) in column.iter().zip(nulls) {
        let Some(nulls) = nulls else {
            bits.append_n(part.rows.len(), true);
            there.push(part.clone());
            continue;
        };
        bits.append_buffer(nulls.inner());
        let valid = nulls.inner().set_slices().map(|(from, to)| part.rows.start + from..part.rows.start + to);
        there.extend(valid.map(|rows| Stretch::of(part.array, rows)));
    }
    sink.put(bits.as_slice());
    Cow::Owned(there)
}

fn feed_bits(column: &[Stretch<'_>], sink: &mut Sink) {
    let mut bits = BooleanBufferBuilder::new(0);
    for Stretch { array, rows } in column {
        bits.append_buffer(&array.as_boolean().values().slice(rows.start, rows.len()));
    }
    sink.put(bits.as_slice());
}

fn feed_numbers<T: ArrowPrimitiveType>(column: &[Stretch<'_>], sink: &mut Sink) {
    let width = size_of::<T::Native>();
    for Stretch { array, rows } in column {
        let bytes = array.as_primitive::<T>().values().inner().as_slice();
        sink.put(&bytes[rows.start * width..rows.end * width]);
    }
}

fn feed_bytes<T: ByteArrayType>(column: &[Stretch<'_>], sink: &mut Sink) {
    let arrays: Vec<&GenericByteArray<T>> = column.iter().map(|part| part.array.as_bytes::<T>()).collect();
    for (array, part) in arrays.iter().zip(column) {
        sink.put_lengths(&array.value_offsets()[part.rows.start..=part.rows.end]);
    }
    for (array, part) in arrays.iter().zip(column) {
        let offsets = array.value_offsets();
        sink.put(&array.value_data()[offsets[part.rows.start].as_usize()..offsets[part.rows.end].as_usize()]);
    }
}

fn feed_lists(column: &[Stretch<'_>], sink: &mut Sink) {
    for part in column {
        sink.put_lengths(&part.array.as_list::<i32>().value_offsets()[part.rows.start..=part.rows.end]);
    }
    let items = column.iter().map(|part| {
        let list = part.array.as_list::<i32>();
        let offsets = list.value_offsets();
        Stretch::of(list.values().as_ref(), offsets[part.rows.start] as usize..offsets[part.rows.end] as usize)
    });
    feed_column(&items.collect::<Vec<_>>(), sink);
}

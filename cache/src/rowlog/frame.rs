//! Frames: some rows' keys and answers, in one piece that is whole or not there.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | a mark with the format's version, by which the next frame is found after one that is broken |
//! | 4 | number of keys, little-endian |
//! | 4 | length of the body |
//! | 8 | beginning of the BLAKE3 digest of the keys and the two numbers above |
//! | 8 | beginning of the BLAKE3 digest of the body |
//! | 32 each | the row keys |
//! | … | the body: an Arrow IPC stream with one batch, a row a key: `reason`, `answer: list<struct<added columns>>` |

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray, UInt64Array};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::{StreamDecoder, StreamReader};
use arrow::ipc::writer::StreamWriter;

use super::segment::Segment;
use crate::digest::{Digest, RowKey};
use crate::store::RowAnswer;
use crate::{KeptRows, StoreError};

const MARK: [u8; 8] = *b"\xf5row 2\r\n";
const HEAD: u64 = 32;
const KEY: u64 = 32;
/// Rows in a frame: a row's number in it has 16 bits.
pub(super) const MOST_ROWS: usize = 8192;
/// A longer body is parted, so that its length and its text's offsets fit.
const MOST_BYTES: usize = 1 << 30;

/// Where a frame is, and what its body must be.
pub(super) struct Head {
    pub(super) at: u64,
    pub(super) n_keys: u32,
    length: u32,
    check: [u8; 8],
}

impl Head {
    fn body(&self) -> u64 {
        self.at + HEAD + u64::from(self.n_keys) * KEY
    }

    pub(super) fn length(&self) -> u64 {
        u64::from(self.length)
    }

    pub(super) fn end(&self) -> u64 {
        self.body() + self.length()
    }
}

/// A frame and its keys.
pub(super) type Frame<'s> = (Head, Cow<'s, [u8]>);

/// Where a frame begins among the bytes that were written with it, and its rows.
type Written<'r> = (u64, &'r [(RowKey, RowAnswer)]);

/// The frame at `at` with its keys, if there is one that is whole as far as its head and keys go.
pub(super) fn head(segment: &Segment, at: u64) -> Result<Option<Frame<'_>>, StoreError> {
    let Some(bytes) = segment.bytes(at, HEAD)? else { return Ok(None) };
    let number = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().expect("four bytes"));
    let eight = |from: usize| -> [u8; 8] { bytes[from..from + 8].try_into().expect("eight bytes") };
    let head = Head { at, n_keys: number(8), length: number(12), check: eight(24) };
    if eight(0) != MARK || head.n_keys == 0 || head.n_keys as usize > MOST_ROWS {
        return Ok(None);
    }
    let Some(keys) = segment.bytes(at + HEAD, u64::from(head.n_keys) * KEY)? else { return Ok(None) };
    if keys_check(head.n_keys, head.length, &keys) != eight(16) || head.end() > segment.length()? {
        return Ok(None);
    }
    Ok(Some((head, keys)))
}

/// The next place from `from` on where a frame may begin.
pub(super) fn next_mark(segment: &Segment, mut from: u64) -> Result<Option<u64>, StoreError> {
    const STEP: u64 = 1 << 16;
    let end = segment.length()?;
    while from + HEAD <= end {
        let length = (STEP + MARK.len() as u64 - 1).min(end - from);
        let Some(bytes) = segment.bytes(from, length)? else { return Ok(None) };
        if let Some(found) = bytes.windows(MARK.len()).position(|bytes| bytes == MARK) {
            return Ok(Some(from + found as u64));
        }
        from += STEP;
    }
    Ok(None)
}

/// A frame's body as it was written, or `None` where it is not.
pub(super) fn body<'s>(segment: &'s Segment, head: &Head) -> Result<Option<Cow<'s, [u8]>>, StoreError> {
    let body = segment.bytes(head.body(), head.length())?;
    Ok(body.filter(|body| body_check(body) == head.check))
}

/// The batch of a body.
pub(super) fn batch(body: &[u8]) -> Option<RecordBatch> {
    StreamReader::try_new(body, None).ok()?.next()?.ok()
}

/// What a frame's bytes are.
pub(super) enum Content {
    /// Those that were written.
    Answers(Arc<Answers>),
    /// Those that were written, and not what is read here.
    Foreign,
    /// Not those that were written: its rows are not known, and are asked again.
    Broken,
}

/// The answers of a frame, read once for all its rows.
pub(super) struct Answers {
    keys: Buffer,
    reasons: StringArray,
    rows: OffsetBuffer<i32>,
    /// `None` where the rows were remembered with other columns than are wanted now.
    kept: Option<Arc<RecordBatch>>,
    /// The length of the body, where it was copied and is not that of the mapped file.
    copied: usize,
}

impl Answers {
    /// The answers of the frame at `at`.
    pub(super) fn read(segment: &Segment, at: u64, schema: &SchemaRef) -> Result<Content, StoreError> {
        let Some((head, _)) = head(segment, at)? else { return Ok(Content::Broken) };
        let keys = segment.buffer(at + HEAD, u64::from(head.n_keys) * KEY)?;
        let body = segment.buffer(head.body(), head.length())?;
        let (Some(keys), Some(body)) = (keys, body.filter(|body| body_check(body) == head.check)) else {
            return Ok(Content::Broken);
        };
        let copied = if segment.is_mapped_evenly(at) { 0 } else { body.len() };
        let answers = Self::of(keys, body, schema, copied);
        Ok(answers.map_or(Content::Foreign, |answers| Content::Answers(Arc::new(answers))))
    }

    fn of(keys: Buffer, mut body: Buffer, schema: &SchemaRef, copied: usize) -> Option<Self> {
        // What lies evenly in a mapped file is not copied.
        let batch = StreamDecoder::new().decode(&mut body).ok()??;
        let answers = batch.column_by_name("answer")?.as_list_opt::<i32>()?;
        let columns = answers.values().as_struct_opt()?.columns().to_vec();
        Some(Answers {
            keys,
            reasons: batch.column_by_name("reason")?.as_string_opt::<i32>()?.clone(),
            rows: answers.offsets().clone(),
            kept: RecordBatch::try_new(schema.clone(), columns).ok().map(Arc::new),
            copied,
        })
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        const ARRAYS: usize = 4096;
        ARRAYS + self.copied
    }

    /// Whether a row that is not copied out of it keeps its memory from being given back.
    pub(super) fn is_copied(&self) -> bool {
        self.copied > 0
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.reasons.len()
    }

    /// The answer in row `row`, if that row has the key that is looked for: a copy, or a view of the frame.
    pub(super) fn answer(&self, row: usize, key: &RowKey, copied: bool) -> Option<RowAnswer> {
        let from = row * KEY as usize;
        if self.keys.get(from..from + KEY as usize)? != key.0.as_bytes() {
            return None;
        }
        let reason = self.reasons.is_valid(row).then(|| self.reasons.value(row).to_string());
        let (from, to) = (self.rows[row] as usize, self.rows[row + 1] as usize);
        if let Some(reason) = reason {
            return Some(match to - from {
                0 => RowAnswer::Rejected(reason),
                n => RowAnswer::Partly(KeptRows::of(self.kept.as_ref()?, from, n), reason),
            });
        }
        let kept = self.kept.as_ref()?;
        if copied {
            let rows = UInt64Array::from_iter_values(from as u64..to as u64);
            return take_record_batch(kept, &rows).ok().map(|rows| RowAnswer::Kept(rows.into()));
        }
        Some(RowAnswer::Kept(KeptRows::of(kept, from, to - from)))
    }
}

/// Appends frames with these rows to `out`; gives where each begins in it, and its rows.
pub(super) fn write_rows<'r>(
    rows: &'r [(RowKey, RowAnswer)],
    schema: &SchemaRef,
    out: &mut Vec<u8>,
) -> Result<Vec<Written<'r>>, StoreError> {
    let mut frames = Vec::new();
    for rows in rows.chunks(MOST_ROWS) {
        match encode(rows, schema) {
            Ok(body) if body.len() <= MOST_BYTES || rows.len() == 1 => {
                frames.push((out.len() as u64, rows));
                let keys: Vec<u8> = rows.iter().flat_map(|(key, _)| *key.0.as_bytes()).collect();
                write(&keys, &body, out);
            }
            Err(error) if rows.len() == 1 => return Err(error),
            // Too much for one frame.
            _ => {
                let (one, other) = rows.split_at(rows.len() / 2);
                frames.extend(write_rows(one, schema, out)?);
                frames.extend(write_rows(other, schema, out)?);
            }
        }
    }
    Ok(frames)
}

/// Appends a frame to `out`.
pub(super) fn write(keys: &[u8], body: &[u8], out: &mut Vec<u8>) {
    let (n_keys, length) = ((keys.len() as u64 / KEY) as u32, body.len() as u32);
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&n_keys.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&keys_check(n_keys, length, keys));
    out.extend_from_slice(&body_check(body));
    out.extend_from_slice(keys);
    out.extend_from_slice(body);
}

/// A batch as a body.
pub(super) fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>, StoreError> {
    let fail = || StoreError::table("encode", "row log");
    let mut body = Vec::new();
    let mut writer = StreamWriter::try_new(&mut body, &batch.schema()).map_err(fail())?;
    writer.write(batch).and_then(|()| writer.finish()).map_err(fail())?;
    drop(writer);
    Ok(body)
}

fn encode(rows: &[(RowKey, RowAnswer)], schema: &SchemaRef) -> Result<Vec<u8>, StoreError> {
    let fail = || StoreError::table("encode", "row log");
    let kept = rows.iter().filter_map(|(_, row)| row.kept());
    let values = KeptRows::join(schema, kept).map_err(fail())?;
    let lengths = rows.iter().map(|(_, row)| row.kept().map_or(0, KeptRows::num_rows));
    let item = Arc::new(Field::new("item", DataType::Struct(schema.fields().clone()), false));
    let answers =
        ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(StructArray::from(values)), None)
            .map_err(fail())?;
    let reasons: StringArray = rows.iter().map(|(_, row)| row.reason()).collect();
    let fields =
        vec![Field::new("reason", DataType::Utf8, true), Field::new("answer", answers.data_type().clone(), false)];
    let columns: Vec<ArrayRef> = vec![Arc::new(reasons), Arc::new(answers)];
    encode_batch(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(fail())?)
}

fn keys_check(n_keys: u32, length: u32, keys: &[u8]) -> [u8; 8] {
    beginning(Digest::of("retort row log keys 2", |hasher| {
        hasher.update(&n_keys.to_le_bytes()).update(&length.to_le_bytes()).update(keys);
    }))
}

fn body_check(body: &[u8]) -> [u8; 8] {
    beginning(Digest::of("retort row log body 2", |hasher| {
        hasher.update(body);
    }))
}

/// The first eight bytes of a digest.
pub(super) fn beginning(digest: Digest) -> [u8; 8] {
    digest.as_bytes()[..8].try_into().expect("a digest is longer")
}

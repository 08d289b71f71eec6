//! Remembered rows: append-only segments, each frame durable once it is synced.
//!
//! A segment begins with a line that carries the format's version. Then frames follow:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | number of keys, little-endian |
//! | 4 | length of the body |
//! | 8 | beginning of the BLAKE3 digest of the keys and the two numbers above |
//! | 8 | beginning of the BLAKE3 digest of the body |
//! | 32 each | the row keys |
//! | … | the body: an Arrow IPC stream with one batch, a row a key: `reason`, `answer: list<struct<added columns>>` |
//!
//! A writer owns its segment (one a process and log), so nobody waits. A frame that a crash cut short is skipped with all that
//! follows in its segment. The keys of all frames are held in memory, the answers are read when they are asked for.
//!
//! Segments that nobody writes to any more are merged, by whoever opens the log, under a log that another process has open. A
//! segment that is gone, or is another of the same name, sends its reader back to the folder: the rows are in a newer segment.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::StoreError;
use crate::claim::leads_to;
use crate::digest::{Digest, RowKey};
use crate::files::{rename_into_place, temporary_beside};
use crate::store::{RowAnswer, RowMemo};

const HEADER: &[u8] = b"retort rows 1\n";
const FRAME_HEAD: usize = 24;
/// More finished segments than this are merged when the log is opened.
const MERGE_ABOVE: usize = 8;

/// How often a folder is listed anew because others merged segments meanwhile.
const RETRIES: usize = 100;
/// How often answers are looked for anew for the same reason. Those that are not found then are damaged: their rows are not known.
const REREADS: usize = 4;

/// The row log of one operator with one config.
pub struct RowLog {
    folder: PathBuf,
    schema: SchemaRef,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: HashMap<RowKey, Place>,
    bodies: Vec<Body>,
    writer: Option<Writer>,
}

/// Which row of which body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    body: u32,
    row: u32,
}

/// Where a frame's answers lie, and the beginning of their digest.
#[derive(Clone)]
struct Body {
    segment: Arc<Path>,
    start: u64,
    length: u32,
    check: [u8; 8],
}

struct Writer {
    file: File,
    segment: Arc<Path>,
    length: u64,
}

impl State {
    /// What all segments hold. Merges them where they are many.
    fn read(folder: &Path) -> Result<Self, StoreError> {
        let mut tries = 0;
        loop {
            match Self::try_read(folder) {
                Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && tries < RETRIES => {
                    tries += 1;
                }
                read => return read,
            }
        }
    }

    fn try_read(folder: &Path) -> Result<Self, StoreError> {
        let mut state = State::default();
        for path in merge(folder, segments(folder)?)? {
            for frame in frames(&path)? {
                state.add(frame.body, frame.keys);
            }
        }
        Ok(state)
    }

    fn add(&mut self, body: Body, keys: impl IntoIterator<Item = RowKey>) {
        let n = self.bodies.len() as u32;
        self.bodies.push(body);
        self.index.extend(keys.into_iter().zip(0..).map(|(key, row)| (key, Place { body: n, row })));
    }
}

impl RowLog {
    /// Opens the log in `folder`; nothing is written before the first commit.
    pub fn open(folder: &Path, schema: SchemaRef) -> Result<Self, StoreError> {
        Ok(RowLog { folder: folder.into(), schema, state: Mutex::new(State::read(folder)?) })
    }

    /// Reads the answers that are known and not read yet. Whether a segment is not what it was when it was indexed.
    fn collect(&self, keys: &[RowKey], answers: &mut [Option<RowAnswer>]) -> Result<bool, StoreError> {
        let mut wanted = Vec::new();
        {
            let state = self.state();
            for (at, key) in keys.iter().enumerate().filter(|(at, _)| answers[*at].is_none()) {
                if let Some(place) = state.index.get(key) {
                    wanted.push((*place, at, state.bodies[place.body as usize].clone()));
                }
            }
        }
        wanted.sort_unstable_by_key(|(place, at, _)| (*place, *at));
        let mut open: Option<(u32, Option<RecordBatch>)> = None;
        let mut moved = false;
        for (place, at, body) in wanted {
            if open.as_ref().is_none_or(|(body, _)| *body != place.body) {
                open = Some((place.body, read_body(&body)?));
            }
            match &open {
                Some((_, Some(batch))) => answers[at] = decode(batch, place.row as usize, &self.schema),
                _ => moved = true,
            }
        }
        Ok(moved)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the log")
    }
}

impl RowMemo for RowLog {
    fn recall(&self, keys: &[RowKey]) -> Result<Vec<Option<RowAnswer>>, StoreError> {
        let mut answers = vec![None; keys.len()];
        for _ in 0..REREADS {
            if !self.collect(keys, &mut answers)? {
                break;
            }
            let mut state = self.state();
            let newer = State::read(&self.folder)?;
            *state = State { writer: state.writer.take(), ..newer };
        }
        Ok(answers)
    }

    fn knows(&self, keys: &[RowKey]) -> Result<Vec<bool>, StoreError> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.index.contains_key(key)).collect())
    }

    fn commit(&self, rows: &[(RowKey, RowAnswer)]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let body = encode(rows, &self.schema)?;
        let mut frame = Vec::with_capacity(FRAME_HEAD + rows.len() * 32 + body.len());
        frame.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let keys: Vec<u8> = rows.iter().flat_map(|(key, _)| *key.0.as_bytes()).collect();
        frame.extend_from_slice(&keys_check(rows.len() as u32, body.len() as u32, &keys));
        let check = body_check(&body);
        frame.extend_from_slice(&check);
        frame.extend_from_slice(&keys);
        frame.extend_from_slice(&body);

        let mut state = self.state();
        if state.writer.is_none() {
            let (file, path) = new_segment(&self.folder)?;
            state.writer = Some(Writer { file, segment: path.into(), length: HEADER.len() as u64 });
        }
        let writer = state.writer.as_mut().expect("made above");
        let append = |file: &mut File| file.write_all(&frame).and_then(|()| file.sync_data());
        if let Err(error) = append(&mut writer.file) {
            // What follows a torn frame would never be found: cut it off, so that the next commit begins where this one did.
            let _ = writer.file.set_len(writer.length);
            return Err(StoreError::io("append to", &writer.segment)(error));
        }
        let start = writer.length + (FRAME_HEAD + keys.len()) as u64;
        writer.length += frame.len() as u64;
        let body = Body { segment: writer.segment.clone(), start, length: body.len() as u32, check };
        state.add(body, rows.iter().map(|(key, _)| *key));
        Ok(())
    }
}

struct Frame {
    start: u64,
    keys: Vec<RowKey>,
    body: Body,
}

impl Frame {
    fn end(&self) -> u64 {
        self.body.start + u64::from(self.body.length)
    }
}

/// The frames of a segment up to the first that is torn.
fn frames(path: &Path) -> Result<Vec<Frame>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let end = file.metadata().map_err(StoreError::io("inspect", path))?.len();
    let mut reader = BufReader::new(file);
    let mut found = Vec::new();
    let mut header = [0; HEADER.len()];
    if reader.read_exact(&mut header).is_err() || header != HEADER {
        return Ok(found);
    }
    let mut at = HEADER.len() as u64;
    let segment: Arc<Path> = path.into();
    while let Some(frame) = next_frame(&mut reader, &segment, at, end) {
        at = frame.end();
        reader.seek_relative(i64::from(frame.body.length)).map_err(StoreError::io("read", path))?;
        found.push(frame);
    }
    Ok(found)
}

fn next_frame(reader: &mut impl Read, segment: &Arc<Path>, at: u64, end: u64) -> Option<Frame> {
    let mut head = [0; FRAME_HEAD];
    reader.read_exact(&mut head).ok()?;
    let n_keys = u32::from_le_bytes(head[0..4].try_into().ok()?);
    let length = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let start = at + FRAME_HEAD as u64 + u64::from(n_keys) * 32;
    if start + u64::from(length) > end {
        return None;
    }
    let mut keys = vec![0; n_keys as usize * 32];
    reader.read_exact(&mut keys).ok()?;
    if keys_check(n_keys, length, &keys) != head[8..16] {
        return None;
    }
    let keys =
        keys.chunks_exact(32).map(|key| RowKey(Digest::from_bytes(key.try_into().expect("chunks of 32")))).collect();
    let check = head[16..24].try_into().ok()?;
    Some(Frame { start: at, keys, body: Body { segment: segment.clone(), start, length, check } })
}

/// What is wrong with a segment, if anything is. The end of one that a crash cut off is no damage.
pub(crate) fn damage(path: &Path) -> Result<Option<String>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    // Its writer is at work: its end is not there yet.
    if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
        return Ok(None);
    }
    let frames = frames(path)?;
    let mut broken = 0;
    for frame in &frames {
        broken += usize::from(read_body(&frame.body)?.is_none());
    }
    let end = frames.last().map_or(HEADER.len() as u64, Frame::end);
    let mut rest = Vec::new();
    let mut reader = File::open(path).map_err(StoreError::io("open", path))?;
    let read = reader.seek(SeekFrom::Start(end)).and_then(|_| reader.read_to_end(&mut rest));
    read.map_err(StoreError::io("read", path))?;
    let number = |at: usize| rest.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")));
    let torn = number(0).zip(number(4)).is_none_or(|(n_keys, length)| {
        (FRAME_HEAD as u64 + u64::from(n_keys) * 32 + u64::from(length)) > rest.len() as u64
    });
    let headless = frames.is_empty() && fs::metadata(path).is_ok_and(|of| of.len() > HEADER.len() as u64);
    Ok(match (broken, torn && !headless) {
        (0, true) => None,
        (0, false) => Some("it can't be read to its end".into()),
        (n, _) => Some(format!("{n} of its pieces are not what was written")),
    })
}

fn keys_check(n_keys: u32, length: u32, keys: &[u8]) -> [u8; 8] {
    let digest = Digest::of("retort row log keys 1", |hasher| {
        hasher.update(&n_keys.to_le_bytes()).update(&length.to_le_bytes()).update(keys);
    });
    digest.as_bytes()[..8].try_into().expect("a digest is longer")
}

fn body_check(body: &[u8]) -> [u8; 8] {
    let digest = Digest::of("retort row log body 1", |hasher| {
        hasher.update(body);
    });
    digest.as_bytes()[..8].try_into().expect("a digest is longer")
}

/// `None` where the bytes are not those that were written: the row is then not known, and is asked again.
fn read_body(body: &Body) -> Result<Option<RecordBatch>, StoreError> {
    let mut bytes = vec![0; body.length as usize];
    let mut file = match File::open(&body.segment) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", &body.segment)(error)),
    };
    match file.seek(SeekFrom::Start(body.start)).and_then(|_| file.read_exact(&mut bytes)) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(StoreError::io("read", &body.segment)(error)),
    }
    if body_check(&bytes) != body.check {
        return Ok(None);
    }
    Ok(StreamReader::try_new(bytes.as_slice(), None).ok().and_then(|mut stream| stream.next()?.ok()))
}

fn encode(rows: &[(RowKey, RowAnswer)], schema: &SchemaRef) -> Result<Vec<u8>, StoreError> {
    let fail = || StoreError::table("encode", "row log");
    let kept = rows.iter().filter_map(|(_, row)| match row {
        RowAnswer::Kept(batch) => Some(batch),
        RowAnswer::Rejected(_) => None,
    });
    let values = concat_batches(schema, kept).map_err(fail())?;
    let lengths = rows.iter().map(|(_, row)| match row {
        RowAnswer::Kept(batch) => batch.num_rows(),
        RowAnswer::Rejected(_) => 0,
    });
    let item = Arc::new(Field::new("item", DataType::Struct(schema.fields().clone()), false));
    let answers =
        ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(StructArray::from(values)), None)
            .map_err(fail())?;
    let reasons: StringArray = rows
        .iter()
        .map(|(_, row)| match row {
            RowAnswer::Kept(_) => None,
            RowAnswer::Rejected(reason) => Some(reason.as_str()),
        })
        .collect();
    let fields =
        vec![Field::new("reason", DataType::Utf8, true), Field::new("answer", answers.data_type().clone(), false)];
    let columns: Vec<ArrayRef> = vec![Arc::new(reasons), Arc::new(answers)];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(fail())?;
    let mut body = Vec::new();
    let mut writer = StreamWriter::try_new(&mut body, &batch.schema()).map_err(fail())?;
    writer.write(&batch).and_then(|()| writer.finish()).map_err(fail())?;
    drop(writer);
    Ok(body)
}

/// `None` where the row was remembered with other columns than are wanted now.
fn decode(batch: &RecordBatch, row: usize, schema: &SchemaRef) -> Option<RowAnswer> {
    let reasons = batch.column(0).as_string_opt::<i32>()?;
    if reasons.is_valid(row) {
        return Some(RowAnswer::Rejected(reasons.value(row).to_string()));
    }
    let values = batch.column(1).as_list_opt::<i32>()?.value(row);
    let kept = values.as_struct_opt()?;
    RecordBatch::try_new(schema.clone(), kept.columns().to_vec()).ok().map(RowAnswer::Kept)
}

fn segments(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "rows") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A segment of our own, locked as long as we may write to it.
fn new_segment(folder: &Path) -> Result<(File, PathBuf), StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    for serial in 0u32.. {
        let path = folder.join(format!("{}-{serial}.rows", std::process::id()));
        let mut file = match File::options().append(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(StoreError::io("create", &path)(error)),
        };
        file.lock().map_err(StoreError::io("lock", &path))?;
        // Before it was locked it looked like one that is finished, and may have been merged away.
        if !leads_to(&path, &file) {
            continue;
        }
        file.write_all(HEADER).map_err(StoreError::io("write", &path))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))?;
        return Ok((file, path));
    }
    unreachable!("a folder does not hold four billion segments")
}

/// Joins segments that nobody writes to any more, where there are many. Frames are copied as they are; a crash in between
/// leaves rows twice, which is harmless.
fn merge(folder: &Path, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, StoreError> {
    if paths.len() <= MERGE_ABOVE {
        return Ok(paths);
    }
    let (mut kept, mut merged, mut locks) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        if file.try_lock().is_err() {
            kept.push(path);
        } else if leads_to(&path, &file) {
            locks.push(file);
            merged.push(path);
        } else {
            // Merged by someone else meanwhile: the list is out of date.
            return Err(StoreError::io("open", &path)(ErrorKind::NotFound.into()));
        }
    }
    if merged.len() < 2 {
        kept.extend(merged);
        return Ok(kept);
    }
    let temporary = temporary_beside(&folder.join("merged"))?;
    let mut out = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
    out.write_all(HEADER).map_err(StoreError::io("write", &temporary))?;
    let mut hasher = blake3::Hasher::new_derive_key("retort row log merged 1");
    for path in &merged {
        let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
        for frame in frames(path)? {
            let frame = &bytes[frame.start as usize..frame.end() as usize];
            hasher.update(frame);
            out.write_all(frame).map_err(StoreError::io("write", &temporary))?;
        }
    }
    out.sync_all().map_err(StoreError::io("sync", &temporary))?;
    // Named by its content: two who merge at the same time can't take each other's name.
    let path = folder.join(format!("merged-{}.rows", &hasher.finalize().to_hex()[..32]));
    rename_into_place(&temporary, &path)?;
    for old in merged.into_iter().filter(|old| *old != path) {
        fs::remove_file(&old).map_err(StoreError::io("remove", &old))?;
    }
    drop(locks);
    kept.push(path);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("output", DataType::Utf8, false)]))
    }

    fn key(n: u32) -> RowKey {
        RowKey(Digest::of("test", |hasher| {
            hasher.update(&n.to_le_bytes());
        }))
    }

    fn kept(texts: &[&str]) -> RowAnswer {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        RowAnswer::Kept(RecordBatch::try_new(schema(), vec![texts]).unwrap())
    }

    #[test]
    fn rows_outlive_the_process_that_answered_them() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [(key(1), kept(&["a", "b"])), (key(2), RowAnswer::Rejected("too long".into())), (key(3), kept(&[]))];
        let log = RowLog::open(folder.path(), schema()).unwrap();
        log.commit(&rows[..2]).unwrap();
        log.commit(&rows[2..]).unwrap();
        drop(log);
        let log = RowLog::open(folder.path(), schema()).unwrap();
        let answers = log.recall(&[key(3), key(9), key(1), key(2)]).unwrap();
        assert_eq!(answers, [Some(rows[2].1.clone()), None, Some(rows[0].1.clone()), Some(rows[1].1.clone())]);
    }

    #[test]
    fn a_torn_or_flipped_frame_costs_only_its_own_rows() {
        let folder = tempfile::tempdir().unwrap();
        let log = RowLog::open(folder.path(), schema()).unwrap();
        log.commit(&[(key(1), kept(&["first"]))]).unwrap();
        log.commit(&[(key(2), kept(&["second"]))]).unwrap();
        drop(log);
        let path = segments(folder.path()).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let log = RowLog::open(folder.path(), schema()).unwrap();
            for answer in log.recall(&[key(1), key(2)]).unwrap().into_iter().flatten() {
                assert!(answer == kept(&["first"]) || answer == kept(&["second"]));
            }
            if cut < whole.len() {
                assert_eq!(log.recall(&[key(2)]).unwrap(), [None], "cut at {cut}");
            }
        }
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 16;
            fs::write(&path, &bytes).unwrap();
            let log = RowLog::open(folder.path(), schema()).unwrap();
            for (n, answer) in log.recall(&[key(1), key(2)]).unwrap().into_iter().enumerate() {
                let right = if n == 0 { kept(&["first"]) } else { kept(&["second"]) };
                assert!(answer.is_none() || answer == Some(right), "byte {at}");
            }
        }
    }

    #[test]
    fn many_segments_become_one() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..20 {
            RowLog::open(folder.path(), schema()).unwrap().commit(&[(key(n), kept(&["x"]))]).unwrap();
        }
        let log = RowLog::open(folder.path(), schema()).unwrap();
        assert!(segments(folder.path()).unwrap().len() <= MERGE_ABOVE + 1);
        assert!((0..20).all(|n| log.recall(&[key(n)]).unwrap()[0].is_some()));
    }
}

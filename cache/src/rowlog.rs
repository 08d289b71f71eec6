//! Remembered rows: append-only segments of frames, each frame durable once it is synced.
//!
//! | file | what |
//! |---|---|
//! | `*.rows` | a segment: frames one after the other (`frame`) |
//! | `*.index` | where the rows of a sealed segment are (`index`); made when it is missing or wrong |
//!
//! A writer owns its segment (one a process and log), so nobody waits. A segment that nobody writes to any more is sealed:
//! its rows are found through its index, which is mapped and not read, so neither memory nor the time to open a log grow with
//! it. A frame that a crash cut short, or whose bytes changed, costs its own rows only: they are asked again. Where such a one is
//! met, when a log is opened or a row is read, its segment goes to the quarantine, and what is whole of it to a new one (`salvage`).
//! A segment that ends early between two frames is one that nothing was added to, unless it has an index.
//!
//! Segments are joined when a log is opened and they are many (`merge`). What other processes have open they go on
//! reading.

mod frame;
mod index;
mod inventory;
mod merge;
mod recent;
mod salvage;
mod segment;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::datatypes::SchemaRef;
use rayon::prelude::*;

use crate::StoreError;
use crate::digest::RowKey;
use crate::quarantine::Quarantine;
use crate::store::{RowAnswer, RowMemo};
use frame::Content;
use index::{Place, first_of};
pub(crate) use inventory::damage;
pub use inventory::{LogInfo, drop_log, logs};
pub(crate) use salvage::put_aside;
use salvage::put_aside_and_tell;
use segment::{Segment, Writer};

/// When segments are parted, joined and indexed.
#[derive(Clone, Copy)]
struct Limits {
    /// More sealed segments than this are joined.
    segments: usize,
    /// A segment with more bytes gets an index; the rows of a smaller one are kept in memory.
    small: u64,
    /// Rows after which a writer begins another segment: it keeps the keys of its own in memory.
    own: usize,
    /// Rows that a joined segment has at most: so many entries are in memory while its index is made.
    rows: usize,
}

const LIMITS: Limits = Limits { segments: 4, small: 1 << 20, own: 1 << 19, rows: 1 << 22 };

/// The row log of one operator with one config.
pub struct RowLog {
    folder: PathBuf,
    schema: SchemaRef,
    limits: Limits,
    state: Mutex<State>,
    quarantine: Option<Arc<Quarantine>>,
}

struct State {
    segments: Vec<Arc<Segment>>,
    own: Option<Own>,
    quarantine: Option<Arc<Quarantine>>,
}

/// The segment that we write to.
struct Own {
    writer: Writer,
    segment: Arc<Segment>,
    rows: HashMap<RowKey, Place>,
}

impl RowLog {
    /// Opens the log in `folder`; no row is written before the first commit.
    pub fn open(folder: &Path, schema: SchemaRef) -> Result<Self, StoreError> {
        Self::with(folder, schema, LIMITS, None)
    }

    /// Opens the log in `folder`; what is damaged in it goes to the quarantine, and is told there.
    pub(crate) fn of_store(folder: &Path, schema: SchemaRef, quarantine: Arc<Quarantine>) -> Result<Self, StoreError> {
        Self::with(folder, schema, LIMITS, Some(quarantine))
    }

    fn with(
        folder: &Path,
        schema: SchemaRef,
        limits: Limits,
        quarantine: Option<Arc<Quarantine>>,
    ) -> Result<Self, StoreError> {
        let segments = segments(folder, &limits, quarantine.as_deref())?;
        let state = Mutex::new(State { segments, own: None, quarantine: quarantine.clone() });
        Ok(RowLog { folder: folder.into(), schema, limits, state, quarantine })
    }

    /// Moves damaged segments away, and goes on with what is whole of them.
    fn put_aside(&self, broken: &BTreeSet<PathBuf>) -> Result<(), StoreError> {
        let Some(quarantine) = self.quarantine.as_deref().filter(|_| !broken.is_empty()) else { return Ok(()) };
        let mut state = self.state();
        for path in broken {
            if state.own.as_ref().is_some_and(|own| own.writer.path == *path) {
                // Sealed by letting go of it.
                state.own = None;
            }
            put_aside_and_tell(path, quarantine);
        }
        state.segments = segments(&self.folder, &self.limits, Some(quarantine))?;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the log")
    }

    /// Reads the rows at these places; `found[at]` becomes the answer to `keys[at]` where the frame is what it was. Segments
    /// with a frame that is not are added to `broken`.
    fn read(
        &self,
        mut wanted: Vec<Wanted>,
        keys: &[RowKey],
        found: &mut [Option<RowAnswer>],
        broken: &mut BTreeSet<PathBuf>,
    ) -> Result<(), StoreError> {
        wanted.sort_unstable_by_key(|wanted| (Arc::as_ptr(&wanted.segment) as usize, wanted.place));
        let same_frame = |one: &Wanted, other: &Wanted| {
            Arc::ptr_eq(&one.segment, &other.segment) && one.place.frame() == other.place.frame()
        };
        let frames: Vec<&[Wanted]> = wanted.chunk_by(same_frame).collect();
        let read = |rows: &&[Wanted]| -> Result<Read, StoreError> {
            let (segment, frame) = (&rows[0].segment, rows[0].place.frame());
            let answers = match segment.answers(frame, &self.schema)? {
                Content::Answers(answers) => answers,
                Content::Foreign => return Ok(Ok(Vec::new())),
                Content::Broken => return Ok(Err(segment.path.clone())),
            };
            // A few rows of one in memory are copied, or each would keep all of it there.
            let few = answers.is_copied() && rows.len() * 4 < answers.len();
            let answer = |row: &Wanted| Some((row.at, answers.answer(row.place.row(), &keys[row.at], few)?));
            Ok(Ok(rows.iter().filter_map(answer).collect()))
        };
        for read in frames.par_iter().map(read).collect::<Result<Vec<_>, _>>()? {
            match read {
                Ok(rows) => rows.into_iter().for_each(|(at, answer)| found[at] = Some(answer)),
                Err(segment) => drop(broken.insert(segment)),
            }
        }
        Ok(())
    }
}

/// The rows of a frame with their places among the keys, or the segment in which it is broken.
type Read = Result<Vec<(usize, RowAnswer)>, PathBuf>;

/// A row to be read: the place of the answer to the key number `at`.
struct Wanted {
    segment: Arc<Segment>,
    place: Place,
    at: usize,
}

impl RowMemo for RowLog {
    fn recall(&self, keys: &[RowKey]) -> Result<Vec<Option<RowAnswer>>, StoreError> {
        let mut answers = vec![None; keys.len()];
        let mut wanted = Vec::new();
        self.state().first_places(keys, |at, segment, place| {
            wanted.push(Wanted { segment: segment.clone(), place, at });
        })?;
        let found: Vec<usize> = wanted.iter().map(|wanted| wanted.at).collect();
        let mut broken = BTreeSet::new();
        self.read(wanted, keys, &mut answers, &mut broken)?;
        for at in found.iter().copied() {
            if answers[at].is_none() {
                // That was another key that begins alike, or a broken frame; the row may be elsewhere too.
                let places = self.state().places(&keys[at])?;
                for (segment, place) in places {
                    if answers[at].is_none() {
                        self.read(vec![Wanted { segment, place, at }], keys, &mut answers, &mut broken)?;
                    }
                }
            }
        }
        self.put_aside(&broken)?;
        Ok(answers)
    }

    /// Goes by the first eight bytes of the keys: of 10 million rows one that is not known is taken for one that is once in
    /// two million million times.
    fn knows(&self, keys: &[RowKey]) -> Result<Vec<bool>, StoreError> {
        let mut known = vec![false; keys.len()];
        self.state().first_places(keys, |at, _, _| known[at] = true)?;
        Ok(known)
    }

    fn commit(&self, rows: &[(RowKey, RowAnswer)]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let frames = frame::write_rows(rows, &self.schema, &mut bytes)?;
        let mut state = self.state();
        if state.own.is_none() {
            state.own = Some(Own::begin(&self.folder)?);
        }
        let own = state.own.as_mut().expect("made above");
        let begin = own.writer.length;
        own.writer.append(&bytes)?;
        for (at, rows) in frames {
            let places = (0..).map(|row| Place::new(begin + at, row));
            own.rows.extend(rows.iter().map(|(key, _)| *key).zip(places));
        }
        if own.rows.len() >= self.limits.own {
            // Sealed by letting go of it; with the others it is found through its index.
            state.own = None;
            state.segments = segments(&self.folder, &self.limits, self.quarantine.as_deref())?;
        }
        Ok(())
    }
}

impl Own {
    fn begin(folder: &Path) -> Result<Self, StoreError> {
        let writer = Writer::begin(folder)?;
        let file = File::open(&writer.path).map_err(StoreError::io("open", &writer.path))?;
        let segment = Arc::new(Segment::growing(&writer.path, file));
        Ok(Own { writer, segment, rows: HashMap::new() })
    }
}

impl State {
    /// Tells `take` one place of every key that is known. Keys are looked up in their order, so that neighbours lie together.
    fn first_places(
        &mut self,
        keys: &[RowKey],
        mut take: impl FnMut(usize, &Arc<Segment>, Place),
    ) -> Result<(), StoreError> {
        let mut order: Vec<(u64, usize)> = keys.iter().map(first_of).zip(0..).collect();
        order.sort_unstable();
        if let Some(own) = &self.own {
            order.retain(|(_, at)| match own.rows.get(&keys[*at]) {
                Some(place) => {
                    take(*at, &own.segment, *place);
                    false
                }
                None => true,
            });
        }
        for segment in &mut self.segments {
            let mut rest = Vec::with_capacity(order.len());
            for (first, at) in order {
                match nth(segment, first, 0, self.quarantine.as_deref())? {
                    Some(place) => take(at, segment, place),
                    None => rest.push((first, at)),
                }
            }
            order = rest;
        }
        Ok(())
    }

    /// All places where a key's row may be.
    fn places(&mut self, key: &RowKey) -> Result<Vec<(Arc<Segment>, Place)>, StoreError> {
        let own = self.own.as_ref().and_then(|own| Some((own.segment.clone(), *own.rows.get(key)?)));
        let mut places: Vec<_> = own.into_iter().collect();
        for segment in &mut self.segments {
            let mut n = 0;
            while let Some(place) = nth(segment, first_of(key), n, self.quarantine.as_deref())? {
                places.push((segment.clone(), place));
                n += 1;
            }
        }
        Ok(places)
    }
}

/// The `nth` place in a segment, whose index is made anew if it is torn.
fn nth(
    segment: &mut Arc<Segment>,
    first: u64,
    n: usize,
    quarantine: Option<&Quarantine>,
) -> Result<Option<Place>, StoreError> {
    if let Ok(place) = segment.nth(first, n) {
        return Ok(place);
    }
    *segment = Arc::new(segment.indexed_anew(quarantine)?);
    Ok(segment.nth(first, n).unwrap_or(None))
}

/// Opens all segments of a folder, damaged ones put aside, joined where they are many.
fn segments(folder: &Path, limits: &Limits, quarantine: Option<&Quarantine>) -> Result<Vec<Arc<Segment>>, StoreError> {
    const TRIES: usize = 100;
    let (mut tries, mut tried) = (0, BTreeSet::new());
    loop {
        let paths = segment::files(folder, "rows")?;
        for index in segment::files(folder, "index")? {
            // An index is written after its segment has its name, so this one's is gone.
            if !index.with_extension("rows").exists() {
                let _ = std::fs::remove_file(index);
            }
        }
        let opened: Result<Vec<_>, _> =
            paths.iter().map(|path| Segment::open(path, limits.small, quarantine)).collect();
        let broken = opened.iter().flatten().find(|segment| segment.broken && !tried.contains(&segment.path));
        if let (Some(segment), Some(quarantine)) = (broken, quarantine) {
            tried.insert(segment.path.clone());
            if put_aside_and_tell(&segment.path, quarantine) {
                continue;
            }
        }
        match opened.and_then(|segments| merge::merge(folder, segments, limits, quarantine)) {
            // Another process joined what was listed: what came of it is listed by the next look.
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound && tries < TRIES => tries += 1,
            segments => return Ok(segments?.into_iter().map(Arc::new).collect()),
        }
    }
}

#[cfg(test)]
mod tests;

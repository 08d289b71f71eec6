//! Push and pull: what one store has and the other lacks travels, several objects side by side.
//!
//! Tables and rows go first, the answers that name them last: whoever finds an answer finds its tables. What arrived stays, so
//! an interrupted journey goes on where it ended: the next one asks again what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::{Object, Remote};
use crate::adopt::segment_digest;
use crate::disk::Disk;
use crate::files::write_atomically;
use crate::{Answer, ContentId, Digest, RecipeId, StoreError};

/// Objects that travel at a time.
const SIDE_BY_SIDE: usize = 8;
/// Up to so many objects are asked for one by one; for more, the store is listed.
const ASK_UP_TO: usize = 200;
/// The memo of the segments that came from, or went to, a remote store. Segments are merged on disk, so their files don't tell.
const TRAVELLED: &str = "travelled.json";
const TRAVELLED_VERSION: u32 = 1;

/// What is to travel.
#[derive(Clone, Debug, Default)]
pub struct Freight {
    /// The answers, and with them their tables.
    pub answers: Vec<Answer>,
    /// The operators whose remembered rows go along.
    pub rows: BTreeSet<RecipeId>,
}

/// How far a journey is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects that arrived.
    pub done: u64,
    /// Objects in all.
    pub of: u64,
    /// Bytes that arrived.
    pub bytes: u64,
}

/// What travelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Tables.
    pub tables: u64,
    /// Answers.
    pub answers: u64,
    /// Segments of remembered rows.
    pub segments: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Objects that did not need to travel.
    pub there: u64,
    /// Objects of the remote store that are not what their names promise, and were not taken.
    pub untrue: Vec<String>,
}

impl Freight {
    /// Answers with their tables, and the rows that their operators remember.
    pub fn of(answers: Vec<Answer>) -> Self {
        let rows = answers.iter().map(|answer| answer.recipe.op_id()).collect();
        Freight { answers, rows }
    }

    /// All that a store has.
    pub fn all(disk: &Disk) -> Result<Self, StoreError> {
        Ok(Freight { answers: disk.answers()?, rows: disk.operators_with_rows()?.into_iter().collect() })
    }

    fn tables(&self) -> BTreeSet<ContentId> {
        self.answers.iter().flat_map(|answer| &answer.outputs).map(|output| output.content).collect()
    }
}

impl Moved {
    pub(super) fn count(&mut self, object: Object, bytes: u64) {
        match object {
            Object::Version => {}
            Object::Table(_) => self.tables += 1,
            Object::Answer(_) => self.answers += 1,
            Object::Rows(..) => self.segments += 1,
        }
        self.bytes += bytes;
    }
}

/// A file that is to be sent: the object, where it lies, how many of its bytes.
type Parcel = (Object, PathBuf, u64);

/// Sends what the remote store lacks. Answers whose tables are not all here stay.
pub fn push(
    disk: &Disk,
    remote: &Remote,
    freight: &Freight,
    watch: &(dyn Fn(Progress) + Sync),
) -> Result<Moved, StoreError> {
    remote.begin()?;
    let whole = |answer: &&Answer| answer.outputs.iter().all(|output| disk.has_table(output.content));
    let answers: Vec<Answer> = freight.answers.iter().filter(whole).cloned().collect();
    let mut first: Vec<Parcel> = Vec::new();
    for content in Freight::of(answers.clone()).tables() {
        first.extend(parcel(Object::Table(content), disk.table_path(content))?);
    }
    let mut rows: BTreeMap<RecipeId, Vec<Digest>> = BTreeMap::new();
    for op in &freight.rows {
        for parcel in segments(disk, *op)? {
            if let Object::Rows(op, digest) = parcel.0 {
                rows.entry(op).or_default().push(digest);
            }
            first.push(parcel);
        }
    }
    let mut last: Vec<Parcel> = Vec::new();
    for answer in &answers {
        let recipe = answer.recipe.id();
        last.extend(parcel(Object::Answer(recipe), disk.answer_path(recipe))?);
    }
    let n = (first.len() + last.len()) as u64;
    let (first, last) = (remote.lacks(first)?, remote.lacks(last)?);
    let journey = Journey::new((first.len() + last.len()) as u64, watch);
    for parcels in [first, last] {
        side_by_side(&parcels, |(object, path, length)| {
            // A segment that was merged away in the meantime lives on in another.
            if matches!(object, Object::Rows(..)) && !path.exists() {
                return Ok(());
            }
            remote.put(*object, path, *length)?;
            journey.arrived(*object, *length);
            Ok(())
        })?;
    }
    for (op, digests) in rows {
        Travelled::of(disk, op).add(disk, op, &digests)?;
    }
    let moved = journey.end();
    Ok(Moved { there: n - (moved.tables + moved.answers + moved.segments), ..moved })
}

/// Brings what this store lacks: the tables of the freight's answers, the rows, and last the answers themselves.
pub fn pull(
    disk: &Disk,
    remote: &Remote,
    freight: &Freight,
    watch: &(dyn Fn(Progress) + Sync),
) -> Result<Moved, StoreError> {
    let mut there = 0;
    let mut objects = Vec::new();
    for content in freight.tables() {
        if disk.has_table(content) {
            there += 1;
        } else {
            objects.push(Object::Table(content));
        }
    }
    for op in &freight.rows {
        let (new, known) = new_segments(disk, remote, *op)?;
        objects.extend(new);
        there += known;
    }
    let journey = Journey::new(objects.len() as u64, watch);
    side_by_side(&objects, |object| journey.note(fetch(disk, remote, *object), *object))?;
    for answer in &freight.answers {
        let known = fs::exists(disk.answer_path(answer.recipe.id())).unwrap_or(false);
        if known {
            there += 1;
        } else if disk.adopt_answer(answer)? {
            journey.arrived(Object::Answer(answer.recipe.id()), 0);
        }
    }
    Ok(Moved { there, ..journey.end() })
}

/// All that a remote store has, to be pulled; and the answers in it that are not what their names promise.
pub fn freight_of(remote: &Remote) -> Result<(Freight, Vec<String>), StoreError> {
    let recipes = remote.list("answers")?.into_iter().filter_map(|(object, _)| match object {
        Object::Answer(recipe) => Some(recipe),
        _ => None,
    });
    let recipes: Vec<RecipeId> = recipes.collect();
    let found: Mutex<(Vec<Answer>, Vec<String>)> = Mutex::default();
    side_by_side(&recipes, |recipe| {
        let answer = remote.answer(*recipe);
        let mut found = found.lock().expect("no thread panics while it holds it");
        match answer {
            Ok(answer) => found.0.extend(answer.map(|(answer, _)| answer)),
            Err(StoreError::Untrue { what }) => found.1.push(what),
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    let (mut answers, untrue) = found.into_inner().expect("no thread panicked");
    answers.sort_by_key(|answer| answer.recipe.id());
    let rows = remote.list("rows")?.into_iter().filter_map(|(object, _)| match object {
        Object::Rows(op, _) => Some(op),
        _ => None,
    });
    Ok((Freight { answers, rows: rows.collect() }, untrue))
}

/// Brings the remembered rows of an operator that are not here yet.
pub(super) fn pull_rows(disk: &Disk, remote: &Remote, op: RecipeId) -> Result<Moved, StoreError> {
    let (new, there) = new_segments(disk, remote, op)?;
    let journey = Journey::new(new.len() as u64, &|_| ());
    side_by_side(&new, |object| journey.note(fetch(disk, remote, *object), *object))?;
    Ok(Moved { there, ..journey.end() })
}

/// Fetches one object and takes it in, verified; gives its bytes, `None` where it is gone.
pub(super) fn fetch(disk: &Disk, remote: &Remote, object: Object) -> Result<Option<u64>, StoreError> {
    let origin = remote.url_of(object);
    let mut incoming = match object {
        Object::Rows(op, _) => disk.incoming_rows(op)?,
        _ => disk.incoming_table()?,
    };
    let Some(bytes) = remote.fetch(object, &mut incoming)? else { return Ok(None) };
    match object {
        Object::Table(content) => disk.adopt_table(content, &incoming, &origin, u64::MAX)?,
        Object::Rows(op, digest) => {
            disk.adopt_rows(op, digest, incoming, &origin)?;
            Travelled::of(disk, op).add(disk, op, &[digest])?;
        }
        Object::Version | Object::Answer(_) => unreachable!("answers are read, not fetched"),
    }
    Ok(Some(bytes))
}

/// The segments of an operator that never came here, and how many did.
fn new_segments(disk: &Disk, remote: &Remote, op: RecipeId) -> Result<(Vec<Object>, u64), StoreError> {
    let listed = remote.list(&format!("rows/{op}"))?;
    let n = listed.len() as u64;
    let travelled = Travelled::of(disk, op);
    let is_new = |object: &Object| matches!(object, Object::Rows(_, digest) if !travelled.segments.contains(digest));
    let new: Vec<Object> = listed.into_iter().map(|(object, _)| object).filter(is_new).collect();
    let known = n - new.len() as u64;
    Ok((new, known))
}

/// The segments of an operator as parcels.
fn segments(disk: &Disk, op: RecipeId) -> Result<Vec<Parcel>, StoreError> {
    let mut parcels = Vec::new();
    for path in disk.row_segments(op)? {
        // What is appended from now on belongs to the next push.
        let digest = match File::open(&path) {
            Ok(mut file) => segment_digest(&mut file, u64::MAX).map_err(StoreError::io("read", &path))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        parcels.push((Object::Rows(op, digest.0), path, digest.1));
    }
    Ok(parcels)
}

/// A file as a parcel; nothing, where it is gone.
fn parcel(object: Object, path: PathBuf) -> Result<Option<Parcel>, StoreError> {
    match fs::metadata(&path) {
        Ok(metadata) => Ok(Some((object, path, metadata.len()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("inspect", &path)(error)),
    }
}

impl Remote {
    /// The parcels that are not there, or not as long.
    fn lacks(&self, parcels: Vec<Parcel>) -> Result<Vec<Parcel>, StoreError> {
        let there: BTreeMap<Object, u64> = if parcels.len() > ASK_UP_TO {
            self.list("")?.into_iter().collect()
        } else {
            let found: Mutex<BTreeMap<Object, u64>> = Mutex::default();
            side_by_side(&parcels, |(object, _, _)| {
                if let Some(size) = self.size(*object)? {
                    found.lock().expect("no thread panics while it holds it").insert(*object, size);
                }
                Ok(())
            })?;
            found.into_inner().expect("no thread panicked")
        };
        Ok(parcels.into_iter().filter(|(object, _, length)| there.get(object) != Some(length)).collect())
    }
}

/// The names of segments that came from, or went to, a remote store.
#[derive(Default, Serialize, Deserialize)]
struct Travelled {
    version: u32,
    segments: BTreeSet<Digest>,
}

/// Two threads that write the same memo take turns. Two processes may forget a name, which costs a transfer.
static TRAVELLING: Mutex<()> = Mutex::new(());

impl Travelled {
    /// A memo that can't be read is begun anew.
    fn of(disk: &Disk, op: RecipeId) -> Self {
        let read = || serde_json::from_slice::<Travelled>(&fs::read(Self::path(disk, op)).ok()?).ok();
        read().filter(|memo| memo.version == TRAVELLED_VERSION).unwrap_or_default()
    }

    fn add(self, disk: &Disk, op: RecipeId, digests: &[Digest]) -> Result<(), StoreError> {
        if digests.iter().all(|digest| self.segments.contains(digest)) {
            return Ok(());
        }
        let _turn = TRAVELLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut memo = Travelled::of(disk, op);
        memo.version = TRAVELLED_VERSION;
        memo.segments.extend(digests);
        write_atomically(&Self::path(disk, op), &serde_json::to_vec(&memo).expect("names are plain data"))
    }

    fn path(disk: &Disk, op: RecipeId) -> PathBuf {
        disk.rows_folder(op).join(Path::new(TRAVELLED))
    }
}

/// Counts what arrives, and tells who watches.
struct Journey<'a> {
    of: u64,
    done: Mutex<(u64, Moved)>,
    watch: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Journey<'a> {
    fn new(of: u64, watch: &'a (dyn Fn(Progress) + Sync)) -> Self {
        watch(Progress { of, ..Progress::default() });
        Journey { of, done: Mutex::default(), watch }
    }

    fn arrived(&self, object: Object, bytes: u64) {
        let mut done = self.done.lock().expect("no thread panics while it holds it");
        done.0 += 1;
        done.1.count(object, bytes);
        (self.watch)(Progress { done: done.0, of: self.of, bytes: done.1.bytes });
    }

    /// Takes down how a fetch ended. An object that is not true is named, and the journey goes on.
    fn note(&self, fetched: Result<Option<u64>, StoreError>, object: Object) -> Result<(), StoreError> {
        match fetched {
            Ok(Some(bytes)) => self.arrived(object, bytes),
            Ok(None) => {}
            Err(StoreError::Untrue { what }) => {
                self.done.lock().expect("no thread panics while it holds it").1.untrue.push(what);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn end(self) -> Moved {
        let mut moved = self.done.into_inner().expect("no thread panicked").1;
        moved.untrue.sort();
        moved
    }
}

/// Does the work on all items, a few at a time. After an error nothing new is begun; the first error is given.
fn side_by_side<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<(), StoreError> + Sync) -> Result<(), StoreError> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first: Mutex<Option<StoreError>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(items.len()) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed)
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = work(item) {
                        stop.store(true, Ordering::Relaxed);
                        first.lock().expect("no thread panics while it holds it").get_or_insert(error);
                    }
                }
            });
        }
    });
    first.into_inner().expect("no thread panicked").map_or(Ok(()), Err)
}

//! Segments: files of frames. One process writes to a segment, and its lock goes with the process; all others are sealed.

use std::borrow::Cow;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::frame::{self, Answers, Content, Frame, beginning};
use super::index::{Beside, Entry, Index, Mapped, Place, Torn, entry, map};
use super::recent::Recent;
use crate::StoreError;
use crate::claim::leads_to;
use crate::digest::Digest;
use crate::quarantine::Quarantine;

/// How a segment begins. Its length, and that of all frames, is a multiple of eight: what is mapped can be used as it lies there.
pub(super) const HEADER: &[u8] = b"retort rows 3\n                                                 \n";
/// How segments of before began.
const HEADER_2: &[u8] = b"retort rows 2\n";

/// A segment that is read.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    identity: Identity,
    source: Source,
    index: Index,
    /// Whether the rows came in so small frames that reading them costs more than need be.
    pub(super) ragged: bool,
    /// Whether it was seen that something of it is not what was written. The bodies of frames are looked at by who reads them.
    pub(super) broken: bool,
    frames: Recent<Answers>,
}

enum Source {
    /// Sealed.
    Map(Buffer),
    /// Still written to: it may grow, and be cut where a write failed.
    File(Mutex<File>),
}

impl Segment {
    /// Opens a segment. One that is sealed and has more than `small` bytes gets an index beside it, if it has none yet.
    pub(super) fn open(path: &Path, small: u64, quarantine: Option<&Quarantine>) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let index = index_path(path);
        let stamp = stamp(&file, path)?;
        let mut had = 0;
        match Mapped::open(&index, stamp) {
            Beside::Its(mapped) => return Self::mapped(path, &file, Index::Mapped(mapped)),
            // It was written when the segment was whole; one of another segment goes before the name is taken again.
            Beside::Another(rows) => had = rows,
            Beside::Damaged => put_index_aside(&index, quarantine),
            Beside::Unread(error) => tell(quarantine, "is not used", &error),
            Beside::Nothing => {}
        }
        if file.try_lock_shared().is_err() {
            return Self::growing(path, file).scanned();
        }
        // A mapping would keep the lock for as long as it is there.
        file.unlock().map_err(StoreError::io("unlock", path))?;
        let mut segment = Self::mapped(path, &file, Index::InMemory(Vec::new()))?.scanned()?;
        segment.broken |= segment.rows() < had;
        if let Index::InMemory(entries) = &segment.index
            && segment.length()? > small
        {
            // Whoever can't write an index, on a full disk or one that is read only, goes on with what is in memory.
            match Mapped::write(&index, stamp, entries).map(|()| Mapped::open(&index, stamp)) {
                Ok(Beside::Its(mapped)) => segment.index = Index::Mapped(mapped),
                Ok(Beside::Unread(error)) => tell(quarantine, "is not used", &error),
                Err(error) => tell(quarantine, "is not kept", &error),
                // Another process was at it in between.
                Ok(_) => {}
            }
        }
        Ok(segment)
    }

    /// A segment that someone writes to, without its rows.
    pub(super) fn growing(path: &Path, file: File) -> Self {
        let source = Source::File(Mutex::new(file));
        Self::of(path, None, source, Index::InMemory(Vec::new()))
    }

    fn of(path: &Path, identity: Identity, source: Source, index: Index) -> Self {
        Segment { path: path.into(), identity, source, index, ragged: false, broken: false, frames: Recent::default() }
    }

    /// The same segment with a new index, when the one it had is torn: in memory now, beside it when it is next opened.
    pub(super) fn indexed_anew(&self, quarantine: Option<&Quarantine>) -> Result<Self, StoreError> {
        let Source::Map(map) = &self.source else { unreachable!("what is still written to has no index beside it") };
        put_index_aside(&index_path(&self.path), quarantine);
        let (source, index) = (Source::Map(map.clone()), Index::InMemory(Vec::new()));
        Self::of(&self.path, self.identity, source, index).scanned()
    }

    fn mapped(path: &Path, file: &File, index: Index) -> Result<Self, StoreError> {
        let source = Source::Map(Buffer::from(Bytes::from_owner(map(file).map_err(StoreError::io("map", path))?)));
        let identity = identity(&file.metadata().map_err(StoreError::io("inspect", path))?);
        Ok(Self::of(path, identity, source, index))
    }

    /// Reads the keys of all frames.
    fn scanned(mut self) -> Result<Self, StoreError> {
        let (mut entries, mut n_frames): (Vec<Entry>, usize) = (Vec::new(), 0);
        let begin = self.begin()?;
        let (mut end, mut gaps) = (begin.unwrap_or(0), usize::from(begin.is_none()));
        for frame in self.frames() {
            let (head, keys) = frame?;
            n_frames += 1;
            // What lies before a frame and is none was one.
            gaps += usize::from(head.at != end);
            end = head.end();
            let places = (0..).map(|row| Place::new(head.at, row));
            entries.extend(keys.chunks_exact(32).zip(places).map(|(key, place)| entry(key, place)));
        }
        entries.sort_unstable();
        self.ragged = n_frames > 1000 && entries.len() / n_frames < 32 && self.length()? / (n_frames as u64) < 1 << 16;
        // The end of one that is still written to is not there yet.
        self.broken = self.is_sealed() && (gaps > 0 || end < self.length()?);
        self.index = Index::InMemory(entries);
        Ok(self)
    }

    /// Where the first frame is; `None` where the file does not begin as a segment does.
    pub(super) fn begin(&self) -> Result<Option<u64>, StoreError> {
        let length = self.length()?;
        let Some(bytes) = self.bytes(0, length.min(HEADER.len() as u64))? else { return Ok(None) };
        if bytes.starts_with(HEADER_2) {
            return Ok(Some(HEADER_2.len() as u64));
        }
        // Of one that a crash left before anything was written there may be less.
        Ok((HEADER.starts_with(&bytes)).then_some(bytes.len() as u64))
    }

    /// The `nth` place of a row whose key begins with `first`.
    pub(super) fn nth(&self, first: u64, nth: usize) -> Result<Option<Place>, Torn> {
        self.index.nth(first, nth)
    }

    pub(super) fn rows(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.source, Source::Map(_))
    }

    /// All frames with their keys; what is broken is passed over.
    pub(super) fn frames(&self) -> impl Iterator<Item = Result<Frame<'_>, StoreError>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                match frame::head(self, at) {
                    Ok(Some((head, keys))) => {
                        at = head.end();
                        return Some(Ok((head, keys)));
                    }
                    Ok(None) => match frame::next_mark(self, at + 1) {
                        Ok(Some(mark)) => at = mark,
                        Ok(None) => return None,
                        Err(error) => return Some(Err(error)),
                    },
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// Whether this is all of that file, and not one that had its name before.
    pub(super) fn is_all_of(&self, file: &File) -> bool {
        file.metadata()
            .is_ok_and(|now| identity(&now) == self.identity && self.length().is_ok_and(|seen| seen == now.len()))
    }

    pub(super) fn length(&self) -> Result<u64, StoreError> {
        match &self.source {
            Source::Map(map) => Ok(map.len() as u64),
            Source::File(file) => Ok(lock(file).metadata().map_err(StoreError::io("inspect", &self.path))?.len()),
        }
    }

    /// Some bytes; `None` past the end.
    pub(super) fn bytes(&self, at: u64, length: u64) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        match &self.source {
            Source::Map(map) => {
                let range =
                    usize::try_from(at).ok().zip(at.checked_add(length).and_then(|to| usize::try_from(to).ok()));
                Ok(range.and_then(|(from, to)| map.as_slice().get(from..to)).map(Cow::Borrowed))
            }
            Source::File(file) => {
                let mut bytes = vec![0; length as usize];
                let mut file = lock(file);
                match file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes)) {
                    Ok(()) => Ok(Some(Cow::Owned(bytes))),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
                    Err(error) => Err(StoreError::io("read", &self.path)(error)),
                }
            }
        }
    }
}

/// Reading rows.
impl Segment {
    /// The answers of the frame at `at`, which may have been read before.
    pub(super) fn answers(&self, at: u64, schema: &SchemaRef) -> Result<Content, StoreError> {
        if let Some(answers) = self.frames.get(at, Answers::bytes) {
            return Ok(Content::Answers(answers));
        }
        let content = Answers::read(self, at, schema)?;
        if let Content::Answers(answers) = &content {
            self.frames.put(at, answers, answers.bytes());
        }
        Ok(content)
    }

    /// Some bytes as they are mapped, or a copy of them; `None` past the end.
    pub(super) fn buffer(&self, at: u64, length: u64) -> Result<Option<Buffer>, StoreError> {
        Ok(match (&self.source, self.bytes(at, length)?) {
            (_, None) => None,
            (Source::Map(map), Some(_)) => Some(map.slice_with_length(at as usize, length as usize)),
            (Source::File(_), Some(bytes)) => Some(Buffer::from_vec(bytes.into_owned())),
        })
    }

    /// Whether what begins at `at` can be used as it is mapped.
    pub(super) fn is_mapped_evenly(&self, at: u64) -> bool {
        self.is_sealed() && at.is_multiple_of(8)
    }
}

/// The segment that this process writes to, locked as long as it does.
pub(super) struct Writer {
    file: File,
    pub(super) path: PathBuf,
    pub(super) length: u64,
}

impl Writer {
    /// A segment of our own.
    pub(super) fn begin(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        for serial in 0u32.. {
            let path = folder.join(format!("{}-{serial}.rows", std::process::id()));
            let mut file = match File::options().append(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(StoreError::io("create", &path)(error)),
            };
            file.lock().map_err(StoreError::io("lock", &path))?;
            if !leads_to(&path, &file) {
                // Before it was locked another process took it for one that nobody writes to, and cleared it away.
                continue;
            }
            // Of a segment that had this name, and went in a crash.
            let _ = fs::remove_file(index_path(&path));
            file.write_all(HEADER).map_err(StoreError::io("write", &path))?;
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))?;
            return Ok(Writer { file, path, length: HEADER.len() as u64 });
        }
        unreachable!("a folder does not hold four billion segments")
    }

    /// Appends frames: when this returns they survive a power cut.
    pub(super) fn append(&mut self, frames: &[u8]) -> Result<(), StoreError> {
        if let Err(error) = self.file.write_all(frames).and_then(|()| self.file.sync_data()) {
            // What is half-written goes, so that the next frame begins where this one did.
            let _ = self.file.set_len(self.length);
            return Err(StoreError::io("append to", &self.path)(error));
        }
        self.length += frames.len() as u64;
        Ok(())
    }
}

/// Device and inode: what a file is while someone has it open, whatever its name.
type Identity = Option<(u64, u64)>;

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_metadata: &Metadata) -> Identity {
    None
}

/// The files of a folder with this extension, in the order of their names. No folder has no files.
pub(super) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Begins the file of a segment that is written at once.
pub(super) fn write_header(out: &mut impl Write) -> std::io::Result<()> {
    out.write_all(HEADER)
}

/// Where the index of a segment is.
pub(super) fn index_path(segment: &Path) -> PathBuf {
    segment.with_extension("index")
}

/// Moves an index away that is not what was written. It is a memo: where that fails, all is the same without.
fn put_index_aside(index: &Path, quarantine: Option<&Quarantine>) {
    let told = quarantine.map(|to| to.take_and_tell(index, "an index of remembered rows", "is made anew"));
    if !matches!(told, Some(Ok(()))) {
        let _ = fs::remove_file(index);
    }
}

/// Tells what became of an index in the system's way. All is the same without, but slower.
fn tell(quarantine: Option<&Quarantine>, what: &str, error: &StoreError) {
    if let Some(quarantine) = quarantine {
        quarantine.tell(format!("an index of remembered rows {what}: {}", error.with_cause()));
    }
}

/// What tells a segment from another of its name: its length, how it begins and how it ends.
fn stamp(file: &File, path: &Path) -> Result<[u8; 8], StoreError> {
    const ENDS: u64 = 1 << 12;
    let fail = || StoreError::io("read", path);
    let length = file.metadata().map_err(StoreError::io("inspect", path))?.len();
    let mut ends = Vec::new();
    let mut file = file;
    file.take(ENDS).read_to_end(&mut ends).map_err(fail())?;
    file.seek(SeekFrom::Start(length.saturating_sub(ENDS))).map_err(fail())?;
    file.take(ENDS).read_to_end(&mut ends).map_err(fail())?;
    Ok(beginning(Digest::of("retort row segment 1", |hasher| {
        hasher.update(&length.to_le_bytes()).update(&ends);
    })))
}

fn lock(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().expect("no thread panics while it reads")
}

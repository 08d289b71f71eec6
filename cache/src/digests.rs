//! Digests of files outside the store, remembered while size, time and inode stay.
//!
//! A file that was changed so shortly before it was hashed that a further change could leave the same time stamp is not
//! remembered (git's racy entries). Whether that is so is told by the file system's own time, read off a file that the memo
//! touches before it hashes: no clock is asked.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::StoreError;
use crate::digest::Digest;
use crate::files::{temporary_beside, write_atomically};

const VERSION: u32 = 2;
/// Time stamps nearer than this may belong to different contents.
const GRANULE: Duration = Duration::from_millis(20);

/// Remembered digests of files.
pub struct FileDigests {
    path: Option<PathBuf>,
    state: Mutex<State>,
    damaged: bool,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    changed: bool,
    now: Option<SystemTime>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    /// Of the entries.
    check: Digest,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    blake3: Option<Digest>,
    sha256: Option<String>,
}

/// What tells that a file is still the same without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    modified_ns: u128,
    inode: u64,
}

impl FileDigests {
    /// Digests that are remembered in the file `path`. A memo that can't be read is begun anew.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let entries = fs::read(&path).ok().and_then(|bytes| read(&bytes));
        let damaged = entries.is_none() && path.exists();
        let state = Mutex::new(State { entries: entries.unwrap_or_default(), ..State::default() });
        FileDigests { path: Some(path), state, damaged }
    }

    /// Whether there was a memo that could not be used.
    pub fn was_damaged(&self) -> bool {
        self.damaged
    }

    /// Digests that are remembered as long as the process lives.
    pub fn in_memory() -> Self {
        FileDigests { path: None, state: Mutex::default(), damaged: false }
    }

    /// The BLAKE3 digest of a file's content.
    pub fn blake3(&self, path: &Path) -> Result<Digest, StoreError> {
        let digest = |entry: &Entry| entry.blake3;
        self.digest(path, digest, |path| {
            let mut hasher = blake3::Hasher::new();
            hasher.update_mmap_rayon(path).map_err(StoreError::io("read", path))?;
            let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
            Ok((digest, |entry: &mut Entry, digest| entry.blake3 = Some(digest)))
        })
    }

    /// The SHA-256 of a file's content, in hexadecimal.
    pub fn sha256(&self, path: &Path) -> Result<String, StoreError> {
        let digest = |entry: &Entry| entry.sha256.clone();
        self.digest(path, digest, |path| {
            let digest = sha256_of(path)?;
            Ok((digest, |entry: &mut Entry, digest| entry.sha256 = Some(digest)))
        })
    }

    /// Writes what was learned.
    pub fn save(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let Some(path) = self.path.as_ref().filter(|_| state.changed) else { return Ok(()) };
        let entries = state.entries.clone();
        let saved = Saved { version: VERSION, check: check_of(&entries), entries };
        write_atomically(path, &serde_json::to_vec(&saved).expect("digests are plain data"))?;
        state.changed = false;
        Ok(())
    }

    fn digest<T: Clone, Set: Fn(&mut Entry, T)>(
        &self,
        path: &Path,
        known: impl Fn(&Entry) -> Option<T>,
        compute: impl Fn(&Path) -> Result<(T, Set), StoreError>,
    ) -> Result<T, StoreError> {
        let key = path.to_string_lossy().into_owned();
        let stamp = stamp(&inspect(path)?);
        let now = {
            let mut state = self.state();
            let entry = state.entries.get(&key).filter(|entry| entry.stamp == stamp);
            if let Some(digest) = entry.and_then(known) {
                return Ok(digest);
            }
            self.now(&mut state)?
        };
        let (digest, set) = compute(path)?;
        let metadata = inspect(path)?;
        let settled = metadata.modified().ok().zip(now).is_some_and(|(modified, now)| modified + GRANULE < now);
        if self::stamp(&metadata) == stamp && settled {
            let mut state = self.state();
            let entry = state.entries.entry(key).or_insert(Entry { stamp, blake3: None, sha256: None });
            if entry.stamp != stamp {
                *entry = Entry { stamp, blake3: None, sha256: None };
            }
            set(entry, digest.clone());
            state.changed = true;
        }
        Ok(digest)
    }

    /// The file system's time when this memo was first asked for something new.
    fn now(&self, state: &mut State) -> Result<Option<SystemTime>, StoreError> {
        if state.now.is_none()
            && let Some(path) = &self.path
        {
            let probe = temporary_beside(path)?;
            File::create(&probe).map_err(StoreError::io("create", &probe))?;
            state.now = inspect(&probe)?.modified().ok();
            fs::remove_file(&probe).map_err(StoreError::io("remove", &probe))?;
        }
        Ok(state.now)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the memo")
    }
}

/// Whether a saved memo is not what was written.
pub(crate) fn is_damaged(path: &Path) -> Result<bool, StoreError> {
    Ok(read(&fs::read(path).map_err(StoreError::io("read", path))?).is_none())
}

/// The entries of a saved memo; none where it is damaged, all of them anew where it has another format.
fn read(bytes: &[u8]) -> Option<BTreeMap<String, Entry>> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    match serde_json::from_slice::<Saved>(bytes) {
        Ok(saved) if saved.version == VERSION => Some(saved.entries).filter(|entries| check_of(entries) == saved.check),
        _ => serde_json::from_slice::<Head>(bytes).ok().filter(|head| head.version < VERSION).map(|_| BTreeMap::new()),
    }
}

fn check_of(entries: &BTreeMap<String, Entry>) -> Digest {
    let bytes = serde_json::to_vec(entries).expect("digests are plain data");
    Digest::of("retort file digests 2", |hasher| {
        hasher.update(&bytes);
    })
}

fn inspect(path: &Path) -> Result<Metadata, StoreError> {
    fs::metadata(path).map_err(StoreError::io("inspect", path))
}

fn stamp(metadata: &Metadata) -> Stamp {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    Stamp { size: metadata.len(), modified_ns: since.map_or(0, |time| time.as_nanos()), inode: inode(metadata) }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> u64 {
    0
}

/// The SHA-256 of a file's content, in hexadecimal, read from the disk.
pub(crate) fn sha256_of(path: &Path) -> Result<String, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(StoreError::io("read", path))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let digest = hasher.finalize();
    Ok(digest.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path, seconds: u64) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(inspect(path).unwrap().modified().unwrap() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn an_old_file_is_remembered_and_a_new_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "old").unwrap();
        age(&old, 10);
        let memo = FileDigests::open(folder.path().join("memo/digests.json"));
        memo.blake3(&old).unwrap();
        fs::write(&new, "new").unwrap();
        memo.blake3(&new).unwrap();
        memo.save().unwrap();
        let memo = FileDigests::open(folder.path().join("memo/digests.json"));
        let known: Vec<_> = memo.state().entries.keys().map(|key| key.ends_with("old")).collect();
        assert_eq!(known, [true]);
    }

    #[test]
    fn a_changed_file_is_hashed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        age(&path, 10);
        let memo = FileDigests::open(folder.path().join("digests.json"));
        let (blake3, sha256) = (memo.blake3(&path).unwrap(), memo.sha256(&path).unwrap());
        assert_eq!(sha256, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
        fs::write(&path, "two").unwrap();
        assert_ne!(memo.blake3(&path).unwrap(), blake3);
        assert_ne!(memo.sha256(&path).unwrap(), sha256);
    }
}

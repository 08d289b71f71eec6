//! Digests of files outside the store, remembered while size, times and inode stay.
//!
//! A file that was changed shortly before it was hashed is not remembered (`stamp`).
//!
//! The memo is one file (`memo`), read at once and written anew when something was learned.

mod memo;

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::StoreError;
use crate::digest::Digest;
use crate::files::{temporary_beside, write_atomically};
use crate::stamp::Stamp;

/// Remembered digests of files.
pub struct FileDigests {
    path: Option<PathBuf>,
    state: Mutex<State>,
    damaged: bool,
    unread: Option<StoreError>,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    changed: bool,
    now: Option<SystemTime>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    stamp: Stamp,
    blake3: Option<Digest>,
    sha256: Option<[u8; 32]>,
    /// Whether this process asked for it.
    asked: bool,
}

impl FileDigests {
    /// Digests that are remembered in the file `path`. A memo that can't be read is begun anew.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let bytes = fs::read(&path);
        let entries = bytes.as_ref().ok().and_then(|bytes| memo::decode(bytes));
        let damaged = entries.is_none() && bytes.is_ok();
        // A file that the system can't read is not damaged, but of no use either.
        let unread = bytes.err().filter(|error| error.kind() != ErrorKind::NotFound).map(StoreError::io("read", &path));
        let state = Mutex::new(State { entries: entries.unwrap_or_default(), ..State::default() });
        FileDigests { path: Some(path), state, damaged, unread }
    }

    /// Whether there was a memo that could not be used.
    pub fn was_damaged(&self) -> bool {
        self.damaged
    }

    /// Why there is a memo that is not used though nothing is wrong with it: the system did not let it be read.
    pub fn unread(&self) -> Option<&StoreError> {
        self.unread.as_ref()
    }

    /// Digests that are remembered as long as the process lives.
    pub fn in_memory() -> Self {
        FileDigests { path: None, state: Mutex::default(), damaged: false, unread: None }
    }

    /// The BLAKE3 digest of a file's content.
    pub fn blake3(&self, path: &Path) -> Result<Digest, StoreError> {
        Ok(self.content(path)?.0)
    }

    /// The BLAKE3 digest of a file's content, and its length: a file that is remembered is looked at once.
    pub fn content(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
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
        let digest = |entry: &Entry| entry.sha256.map(|digest| Digest::from_bytes(digest).hex());
        let (digest, _) = self.digest(path, digest, |path| {
            let digest = sha256_of(path)?;
            let bytes = Digest::from_hex(&digest).map(|digest| *digest.as_bytes());
            Ok((digest, move |entry: &mut Entry, _| entry.sha256 = bytes))
        })?;
        Ok(digest)
    }

    /// Writes what was learned, and forgets files that are gone.
    pub fn save(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let Some(path) = self.path.as_ref().filter(|_| state.changed) else { return Ok(()) };
        state.entries.retain(|path, entry| entry.asked || Path::new(path).exists());
        write_atomically(path, &memo::encode(&state.entries))?;
        state.changed = false;
        Ok(())
    }

    fn digest<T: Clone, Set: Fn(&mut Entry, T)>(
        &self,
        path: &Path,
        known: impl Fn(&Entry) -> Option<T>,
        compute: impl Fn(&Path) -> Result<(T, Set), StoreError>,
    ) -> Result<(T, u64), StoreError> {
        let key = path.to_string_lossy();
        let stamp = Stamp::of(&inspect(path)?);
        let now = {
            let mut state = self.state();
            let entry = state.entries.get_mut(key.as_ref()).filter(|entry| entry.stamp == stamp);
            if let Some(entry) = entry
                && let Some(digest) = known(entry)
            {
                entry.asked = true;
                return Ok((digest, stamp.size));
            }
            self.now(&mut state)?
        };
        let (digest, set) = compute(path)?;
        let metadata = inspect(path)?;
        if Stamp::of(&metadata) == stamp && now.is_some_and(|now| stamp.is_settled(now)) {
            let mut state = self.state();
            let fresh = Entry { stamp, blake3: None, sha256: None, asked: true };
            let entry = state.entries.entry(key.into_owned()).or_insert_with(|| fresh.clone());
            if entry.stamp != stamp {
                *entry = fresh;
            }
            entry.asked = true;
            set(entry, digest.clone());
            state.changed = true;
        }
        Ok((digest, metadata.len()))
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
    Ok(memo::decode(&fs::read(path).map_err(StoreError::io("read", path))?).is_none())
}

fn inspect(path: &Path) -> Result<Metadata, StoreError> {
    fs::metadata(path).map_err(StoreError::io("inspect", path))
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
    Ok(Digest::from_bytes(hasher.finalize().into()).hex())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stamp::GRANULE;

    /// Lets the file system's time pass what is written now.
    fn wait() {
        std::thread::sleep(GRANULE * 3);
    }

    fn known(memo: &FileDigests) -> Vec<String> {
        let names = memo.state().entries.keys().map(|key| key.rsplit('/').next().unwrap().to_owned()).collect();
        let mut names: Vec<String> = names;
        names.sort();
        names
    }

    #[test]
    fn an_old_file_is_remembered_and_a_new_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "old").unwrap();
        wait();
        let memo = FileDigests::open(folder.path().join("memo/digests"));
        assert_eq!(memo.content(&old).unwrap().1, 3);
        fs::write(&new, "new").unwrap();
        memo.blake3(&new).unwrap();
        memo.save().unwrap();
        let again = FileDigests::open(folder.path().join("memo/digests"));
        assert_eq!(known(&again), ["old"]);
        assert_eq!(again.content(&old).unwrap(), memo.content(&old).unwrap());
    }

    #[test]
    fn a_changed_file_is_hashed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        wait();
        let memo = FileDigests::open(folder.path().join("digests"));
        let (blake3, sha256) = (memo.blake3(&path).unwrap(), memo.sha256(&path).unwrap());
        assert_eq!(sha256, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
        fs::write(&path, "two").unwrap();
        assert_ne!(memo.blake3(&path).unwrap(), blake3);
        assert_ne!(memo.sha256(&path).unwrap(), sha256);
    }

    #[test]
    fn a_time_stamp_that_was_set_back_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        };
        write("one");
        wait();
        let memo = FileDigests::open(folder.path().join("digests"));
        let before = memo.blake3(&path).unwrap();
        write("two");
        assert_ne!(memo.blake3(&path).unwrap(), before);
        assert!(inspect(&path).unwrap().modified().unwrap() == old);
    }

    #[test]
    fn a_memo_that_can_not_be_read_is_told_from_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digests");
        assert!(FileDigests::open(&path).unread().is_none());
        fs::create_dir(&path).unwrap();
        let memo = FileDigests::open(&path);
        let why = memo.unread().expect("a folder can't be read").with_cause();
        assert!(why.starts_with("failed to read") && why.contains("directory") && !memo.was_damaged(), "{why}");
    }

    #[test]
    fn files_that_are_gone_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        ["a", "b", "c"].iter().for_each(|name| fs::write(path(name), name).unwrap());
        wait();
        let memo = FileDigests::open(path("digests"));
        memo.blake3(&path("a")).unwrap();
        memo.blake3(&path("b")).unwrap();
        memo.save().unwrap();
        fs::remove_file(path("a")).unwrap();
        let memo = FileDigests::open(path("digests"));
        memo.blake3(&path("c")).unwrap();
        memo.save().unwrap();
        assert_eq!(known(&FileDigests::open(path("digests"))), ["b", "c"]);
    }
}

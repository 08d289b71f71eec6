//! Pins: what a process uses, or has just written, is not swept from under it.
//!
//! A process that works with a store signs in: it makes a file in `pins/`, locks it as long as it lives, and writes down when it
//! began, by the file system's own clock. What `gc` then leaves alone, for each process that lives:
//!
//! | what | why it stays |
//! |---|---|
//! | an answer or table that was written or last used less than an hour before the process began, or later | its time stamp says so: a run of a store in daily use writes nothing down |
//! | an answer that is older | using it sets its time stamp to when the process began |
//! | the tables of an answer that stays | the answer leads to them |
//! | other old tables, remembered rows, and what can't be stamped | the process appends a line to its file |
//!
//! The sign-in, the stamp and the line are made under a shared lock on `pins/lock`, and only if the thing is still there. `gc` holds
//! the same lock alone while it looks at the pins and removes a batch. So a thing is either gone before it is used, which is a miss,
//! or it stays. Both compare the same two times, so a clock that is set changes nothing.
//!
//! Where the folder can't be written (a store that is only read) or the file system has no locks, nobody can sign in, which is told;
//! `gc` needs the same lock and does nothing there.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::quarantine::Quarantine;
use crate::{ContentId, RecipeId, StoreError};

/// What was used this long before a process began needs no pin.
pub const GRACE: Duration = Duration::from_hours(1);
const HEADER: &str = "retort pins 1";
const LOCK: &str = "lock";
/// What fails where the file system has no locks.
const LOCKING: &str = "lock";

/// What one process uses of a store.
pub(crate) struct Pins {
    folder: PathBuf,
    state: Mutex<State>,
    quarantine: Arc<Quarantine>,
}

#[derive(Default)]
enum State {
    /// Nothing of the store was used yet.
    #[default]
    Unsigned,
    /// `gc` knows of this process.
    Signed(Signed),
    /// Nobody can sign in here.
    Without,
}

struct Signed {
    lock: File,
    file: File,
    path: PathBuf,
    began: SystemTime,
    pinned: BTreeSet<String>,
}

impl Pins {
    /// What this process uses of the store in `root`. That nobody can know of it is told to `quarantine`.
    pub(crate) fn of_store(root: &Path, quarantine: Arc<Quarantine>) -> Self {
        Pins { folder: folder(root), state: Mutex::default(), quarantine }
    }

    /// Makes `gc` know of this process. Comes before anything of the store is looked at.
    pub(crate) fn sign_in(&self) -> Result<(), StoreError> {
        self.signed().map(drop)
    }

    /// Keeps a file that is about to be used, and stamps it where its stamp is old. `false` if it is gone.
    pub(crate) fn keep(&self, path: &Path, name: impl FnOnce() -> String) -> Result<bool, StoreError> {
        self.keep_as(path, Some, name)
    }

    /// Whether a file that was there with this time stamp after the sign-in is kept by the stamp alone.
    pub(crate) fn keeps(&self, used: SystemTime) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*state, State::Signed(signed) if signed.keeps(used))
    }

    /// The file system's time of the sign-in, if there was one.
    pub(crate) fn began(&self) -> Option<SystemTime> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Signed(signed) => Some(signed.began),
            State::Unsigned | State::Without => None,
        }
    }

    /// The same, without a new stamp: others look at the file's.
    pub(crate) fn pin(&self, path: &Path, name: impl FnOnce() -> String) -> Result<bool, StoreError> {
        self.keep_as(path, |_| None, name)
    }

    /// Keeps a file as if it had been written when the file `new` was. `false` if it is gone.
    pub(crate) fn renew(&self, path: &Path, new: &Path, name: impl FnOnce() -> String) -> Result<bool, StoreError> {
        let mut state = self.signed()?;
        let State::Signed(signed) = &mut *state else { return Ok(path.exists()) };
        let now = modified(new)?.unwrap_or(signed.began);
        signed.shared(|signed| signed.stamp(path, Some(now), name))
    }

    fn keep_as(
        &self,
        path: &Path,
        stamp: impl FnOnce(SystemTime) -> Option<SystemTime>,
        name: impl FnOnce() -> String,
    ) -> Result<bool, StoreError> {
        let mut state = self.signed()?;
        let State::Signed(signed) = &mut *state else { return Ok(path.exists()) };
        match modified(path)? {
            None => Ok(false),
            Some(used) if signed.keeps(used) => Ok(true),
            Some(_) => signed.shared(|signed| signed.stamp(path, stamp(signed.began), name)),
        }
    }

    /// Keeps a folder that may not be there yet, and stamps it where it is.
    pub(crate) fn pin_folder(&self, path: &Path, name: String) -> Result<(), StoreError> {
        let mut state = self.signed()?;
        let State::Signed(signed) = &mut *state else { return Ok(()) };
        signed.shared(|signed| {
            if modified(path)?.is_some_and(|used| used + GRACE < signed.began) {
                // A folder that can't be stamped looks older than it is; the pin keeps it all the same.
                let _ = File::open(path).and_then(|folder| folder.set_modified(signed.began));
            }
            signed.pin(name)
        })
    }

    fn signed(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Unsigned) {
            *state = match sign_in(&self.folder) {
                Ok(signed) => State::Signed(signed),
                Err(error) if nobody_can(&error) => {
                    self.quarantine.tell(format!("`cache gc` does not know of this process: {}", error.with_cause()));
                    State::Without
                }
                Err(error) => return Err(error),
            };
        }
        Ok(state)
    }
}

impl Signed {
    fn keeps(&self, used: SystemTime) -> bool {
        used + GRACE >= self.began
    }

    /// Does something that `gc` sees done or not begun.
    fn shared<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.lock.lock_shared().map_err(StoreError::io(LOCKING, &self.path))?;
        let done = work(self);
        self.lock.unlock().map_err(StoreError::io("unlock", &self.path))?;
        done
    }

    /// Stamps a file, or writes it down where that can't be done or is not wanted.
    fn stamp(
        &mut self,
        path: &Path,
        at: Option<SystemTime>,
        name: impl FnOnce() -> String,
    ) -> Result<bool, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        if at.is_none_or(|at| file.set_modified(at).is_err()) {
            self.pin(name())?;
        }
        Ok(true)
    }

    fn pin(&mut self, name: String) -> Result<(), StoreError> {
        if self.pinned.contains(&name) {
            return Ok(());
        }
        self.file.write_all(format!("{name}\n").as_bytes()).map_err(StoreError::io("append to", &self.path))?;
        self.pinned.insert(name);
        Ok(())
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        // What stays is swept: it is locked by nobody.
        let _ = fs::remove_file(&self.path);
    }
}

/// When a file was written; `None` if it is gone.
fn modified(path: &Path) -> Result<Option<SystemTime>, StoreError> {
    match fs::metadata(path) {
        Ok(data) => data.modified().map(Some).map_err(StoreError::io("inspect", path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("inspect", path)(error)),
    }
}

/// The folder of a store's pins.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("pins")
}

/// How an answer is called in a line.
pub(crate) fn answer(recipe: RecipeId) -> String {
    format!("answer {recipe}")
}

/// How a table is called in a line.
pub(crate) fn table(content: ContentId) -> String {
    format!("table {content}")
}

/// How the remembered rows of an operator are called in a line.
pub(crate) fn rows(op: RecipeId) -> String {
    format!("rows {op}")
}

fn sign_in(folder: &Path) -> Result<Signed, StoreError> {
    let lock = lock_file(folder)?;
    lock.lock_shared().map_err(StoreError::io(LOCKING, &folder.join(LOCK)))?;
    let (mut file, path) = new_file(folder)?;
    // Who only looks may have locked it for a moment.
    file.lock().map_err(StoreError::io(LOCKING, &path)).inspect_err(|_| drop(fs::remove_file(&path)))?;
    let began = file.metadata().and_then(|data| data.modified()).map_err(StoreError::io("inspect", &path))?;
    let nanoseconds = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    file.write_all(format!("{HEADER}\n{nanoseconds}\n").as_bytes()).map_err(StoreError::io("write", &path))?;
    lock.unlock().map_err(StoreError::io("unlock", &path))?;
    Ok(Signed { lock, file, path, began, pinned: BTreeSet::new() })
}

/// Whether it is the store's nature that nobody can sign in: it is only read, or has no locks.
fn nobody_can(error: &StoreError) -> bool {
    let StoreError::Io { verb, source, .. } = error else { return false };
    *verb == LOCKING || matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn lock_file(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    opened.map_err(StoreError::io("open", &path))
}

fn new_file(folder: &Path) -> Result<(File, PathBuf), StoreError> {
    let mut serial = 0u32;
    loop {
        let path = folder.join(format!("{}-{serial}.pins", std::process::id()));
        match File::options().read(true).append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => serial += 1,
            Err(error) => return Err(StoreError::io("create", &path)(error)),
        }
    }
}

/// The store, with nobody signing in or using anything new as long as the value lives.
pub(crate) struct Alone {
    folder: PathBuf,
    _lock: File,
}

impl Alone {
    /// Waits for a moment in which nobody pins anything.
    pub(crate) fn wait(folder: &Path) -> Result<Self, StoreError> {
        let lock = lock_file(folder)?;
        lock.lock().map_err(StoreError::io(LOCKING, &folder.join(LOCK)))?;
        Ok(Alone { folder: folder.to_path_buf(), _lock: lock })
    }

    /// Who uses the store. What dead processes left is removed.
    pub(crate) fn users(&self) -> Result<Users, StoreError> {
        users(&self.folder, true)
    }
}

/// Who uses the store at the moment: a look without a lock, for those who only look.
pub(crate) fn users(folder: &Path, sweep: bool) -> Result<Users, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Users::default()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut users = Users::default();
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if path.extension().is_none_or(|extension| extension != "pins") {
            continue;
        }
        // Its process may have ended meanwhile.
        let Ok(file) = File::open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => {
                if sweep {
                    let _ = fs::remove_file(&path);
                }
            }
            Err(TryLockError::WouldBlock) => users.add(&fs::read_to_string(&path).unwrap_or_default()),
            Err(TryLockError::Error(error)) => return Err(StoreError::io(LOCKING, &path)(error)),
        }
    }
    Ok(users)
}

/// The processes that use a store, and what they pinned.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// When each began.
    began: Vec<SystemTime>,
    pinned: BTreeSet<String>,
}

impl Users {
    fn add(&mut self, text: &str) {
        let mut lines = text.lines();
        let header = lines.next();
        let began = lines.next().and_then(|line| line.parse::<u64>().ok()).map(Duration::from_nanos);
        // Of what can't be read only this is known: a process uses the store, since who knows when.
        let known = (header == Some(HEADER)).then_some(began).flatten();
        self.began.push(SystemTime::UNIX_EPOCH + known.unwrap_or_default());
        self.pinned.extend(lines.map(str::to_string));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.began.len()
    }

    /// Whether a thing that was last used then may be in use.
    pub(crate) fn keep(&self, name: &str, used: SystemTime) -> bool {
        self.pinned.contains(name) || self.began.iter().any(|began| used + GRACE >= *began)
    }

    /// Whether a half-written file that was last written then may belong to one of them.
    pub(crate) fn may_write(&self, written: SystemTime) -> bool {
        self.began.iter().any(|began| *began <= written)
    }
}

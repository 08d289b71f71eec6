//! Claims: of all who have the same question at the same time, one answers it and the others wait.
//!
//! A claim is a lock of the operating system on the file `claims/<recipe>`. The kernel drops it with its process, however that
//! ends, so there is never a stale lock to remove. The file says who holds it, for those who wait.
//!
//! | step | who claims | who waits |
//! |---|---|---|
//! | 1 | opens or makes the file, gets the lock | opens the file, does not get the lock, tries again later |
//! | 2 | looks whether the name still leads to the file that it locked; if not, begins anew | |
//! | 3 | asks the store again: the answer may have come since it looked | |
//! | 4 | answers, commits, removes the name, drops the lock | gets the lock of a file without a name: step 2 |
//!
//! A claim saves work and guards what only one may write at a time (checkpoints in `work/<recipe>`). What is right does not
//! hang on it: where the file system has no locks, two may answer the same question, and write the same bytes.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{RecipeId, StoreError};

/// The first line of a claim's file.
const HEADER: &str = "retort claim 1";
const NO_LOCKS: &str =
    "the store's file system has no locks: another run may answer the same question at the same time";

/// What asking for a claim gave.
pub enum Claimed {
    /// The question is ours until the claim is dropped.
    Ours(Claim),
    /// Someone else answers it; who, if that is known.
    Taken(Option<Holder>),
}

/// The right to answer a question. It ends with the value, or with the process.
#[must_use = "a claim ends when it is dropped"]
pub struct Claim {
    _held: Box<dyn Send>,
    /// What the person should know of it. Said once a store.
    pub remark: Option<&'static str>,
}

impl Claim {
    /// A claim that lasts as long as `held`.
    pub fn of(held: impl Send + 'static) -> Self {
        Claim { _held: Box::new(held), remark: None }
    }
}

/// Who answers a question at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node for which it is answered: `pipeline/node`.
    pub node: String,
    /// The process, as its own machine or container numbers it.
    pub process: u32,
}

/// The claims of a store on disk.
pub(crate) struct Claims {
    folder: PathBuf,
    lock: fn(&File) -> Result<(), TryLockError>,
    said: AtomicBool,
}

impl Claims {
    /// Claims that lie in `folder`.
    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        Claims { folder, lock: File::try_lock, said: AtomicBool::new(false) }
    }

    /// Tries to get the claim of a question for a node, without waiting.
    pub(crate) fn take(&self, recipe: RecipeId, node: &str) -> Result<Claimed, StoreError> {
        let path = self.folder.join(recipe.to_string());
        loop {
            let mut file = self.open(&path)?;
            match (self.lock)(&file) {
                Ok(()) if !leads_to(&path, &file) => {}
                Ok(()) => {
                    sign(&mut file, node).map_err(StoreError::io("write", &path))?;
                    return Ok(Claimed::Ours(Claim::of(Locked { _file: file, path })));
                }
                Err(TryLockError::WouldBlock) => return Ok(Claimed::Taken(holder(&mut file))),
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(_)) => {
                    let remark = (!self.said.swap(true, Ordering::Relaxed)).then_some(NO_LOCKS);
                    return Ok(Claimed::Ours(Claim { _held: Box::new(file), remark }));
                }
            }
        }
    }

    fn open(&self, path: &Path) -> Result<File, StoreError> {
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(path);
        match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder).map_err(StoreError::io("create", &self.folder))?;
                open().map_err(StoreError::io("create", path))
            }
            opened => opened.map_err(StoreError::io("open", path)),
        }
    }
}

/// A locked file that loses its name before its lock.
struct Locked {
    _file: File,
    path: PathBuf,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Whoever holds the lock is the only one to remove the name. Elsewhere than on Unix a file that others have open
        // can't go; it stays until a sweep.
        if cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn sign(file: &mut File, node: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.write_all(format!("{HEADER}\n{}\n{node}\n", std::process::id()).as_bytes())
}

/// Who signed the file. A process that has only just got the lock has not signed yet.
fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    let mut lines = text.lines();
    let signed = lines.next() == Some(HEADER);
    let process = lines.next()?.parse().ok()?;
    let node = lines.next()?.to_string();
    signed.then_some(Holder { node, process })
}

/// Whether a name still leads to an open file: it may have been removed, and made anew by someone else.
#[cfg(unix)]
pub(crate) fn leads_to(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(named), Ok(open)) = (fs::metadata(path), file.metadata()) else { return false };
    (named.dev(), named.ino()) == (open.dev(), open.ino())
}

#[cfg(not(unix))]
pub(crate) fn leads_to(_path: &Path, _file: &File) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::*;
    use crate::Recipe;

    fn recipe() -> RecipeId {
        Recipe::default().id()
    }

    fn taken(claimed: &Claimed) -> bool {
        matches!(claimed, Claimed::Taken(_))
    }

    #[test]
    fn one_has_it_and_the_others_know_who() {
        let folder = tempfile::tempdir().unwrap();
        let claims = || Claims::in_folder(folder.path().join("claims"));
        let Claimed::Ours(claim) = claims().take(recipe(), "small/answers").unwrap() else { panic!("it is free") };
        let Claimed::Taken(Some(holder)) = claims().take(recipe(), "other/answers").unwrap() else {
            panic!("it is taken by one who signed")
        };
        assert_eq!(holder, Holder { node: "small/answers".into(), process: std::process::id() });
        drop(claim);
        assert!(!taken(&claims().take(recipe(), "other/answers").unwrap()));
        assert_eq!(fs::read_dir(folder.path().join("claims")).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn what_a_dead_process_left_is_no_claim() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(recipe().to_string()), format!("{HEADER}\n1\nsmall/answers\n")).unwrap();
        assert!(!taken(&Claims::in_folder(folder.path().into()).take(recipe(), "small/answers").unwrap()));
    }

    #[test]
    fn never_two_at_once_though_the_file_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, times) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let claims = Claims::in_folder(folder.path().join("claims"));
                    while times.load(Ordering::SeqCst) < 400 {
                        let Claimed::Ours(_claim) = claims.take(recipe(), "n").unwrap() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the same claim");
                        std::thread::sleep(Duration::from_micros(50));
                        times.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn without_locks_all_may_and_it_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let refuse = |_: &File| Err(TryLockError::Error(std::io::ErrorKind::Unsupported.into()));
        let claims = Claims { lock: refuse, ..Claims::in_folder(folder.path().into()) };
        let remark = || match claims.take(recipe(), "n").unwrap() {
            Claimed::Ours(claim) => claim.remark,
            Claimed::Taken(_) => panic!("nobody can hold it"),
        };
        assert_eq!([remark(), remark()], [Some(NO_LOCKS), None]);
    }
}

//! Durable file writes: a temporary file in the same folder, synced, renamed, the folder synced.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// Replaces `path` by `bytes`, or leaves it as it was: there is no moment in between.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = temporary_beside(path)?;
    let mut file = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
    file.write_all(bytes).map_err(StoreError::io("write", &temporary))?;
    file.sync_all().map_err(StoreError::io("sync", &temporary))?;
    rename_into_place(&temporary, path)
}

/// A name that no other process or thread uses, in the folder of `path`, which is made if it is missing.
pub fn temporary_beside(path: &Path) -> Result<PathBuf, StoreError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().expect("store paths have a folder");
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(folder.join(format!(".tmp-{}-{serial}", std::process::id())))
}

/// Moves a synced file to its name and makes the name durable.
pub fn rename_into_place(temporary: &Path, path: &Path) -> Result<(), StoreError> {
    fs::rename(temporary, path).map_err(StoreError::io("rename to", path))?;
    sync_folder(path.parent().expect("store paths have a folder"))
}

/// Points the link `link` at `target` (relative to the link's folder), in one step. Where links can't be made, the file is copied.
pub fn link_atomically(link: &Path, target: &Path) -> Result<(), StoreError> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let temporary = temporary_beside(link)?;
    symlink(target, &temporary).map_err(StoreError::io("link", &temporary))?;
    fs::rename(&temporary, link).map_err(StoreError::io("rename to", link))
}

/// Removes what a killed process of an earlier run left half-written in `folder`.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(".tmp-")
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    let folder = link.parent().expect("links have a folder");
    fs::copy(folder.join(target), link).map(|_| ())
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", folder))?;
    }
    Ok(())
}

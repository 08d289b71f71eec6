//! Durable file writes: a temporary file in the same folder, synced, renamed, the folder synced.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// Replaces `path` by `bytes`, or leaves it as it was: there is no moment in between.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = temporary_beside(path)?;
    let write = || -> Result<(), StoreError> {
        let mut file = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
        file.write_all(bytes).map_err(StoreError::io("write", &temporary))?;
        file.sync_all().map_err(StoreError::io("sync", &temporary))?;
        rename_into_place(&temporary, path)
    };
    write().inspect_err(|_| {
        // A full disk should not be filled with what failed.
        let _ = fs::remove_file(&temporary);
    })
}

/// An empty file that no other process or thread uses, in the folder of `path`, which is made if it is missing.
pub fn temporary_beside(path: &Path) -> Result<PathBuf, StoreError> {
    in_free_name(path, |temporary| File::options().write(true).create_new(true).open(temporary).map(drop), "create")
}

/// An empty folder that no other process or thread uses, in the folder of `path`, which is made if it is missing.
pub fn temporary_folder_beside(path: &Path) -> Result<PathBuf, StoreError> {
    in_free_name(path, |temporary| fs::create_dir(temporary), "create")
}

/// Makes something under a temporary name that is free. The process number alone does not make it so: another container may
/// have the same, and so may a process that was killed before.
fn in_free_name(
    path: &Path,
    make: impl Fn(&Path) -> std::io::Result<()>,
    verb: &'static str,
) -> Result<PathBuf, StoreError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().expect("store paths have a folder");
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    loop {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".tmp-{}-{serial}", std::process::id()));
        match make(&temporary) {
            Ok(()) => return Ok(temporary),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StoreError::io(verb, &temporary)(error)),
        }
    }
}

/// The number of the process that made a temporary file, as its own machine or container numbered it.
pub fn maker_of_temporary(name: &str) -> Option<u32> {
    name.strip_prefix(".tmp-")?.split('-').next()?.parse().ok()
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
    let temporary = in_free_name(link, |temporary| symlink(target, temporary), "link")?;
    fs::rename(&temporary, link).map_err(StoreError::io("rename to", link))
}

/// Whether two files hold the same bytes.
pub fn equal(one: &Path, other: &Path) -> Result<bool, StoreError> {
    let open = |path: &Path| File::open(path).map_err(StoreError::io("open", path));
    let (mut first, mut second) = (open(one)?, open(other)?);
    let length = |file: &File, path: &Path| file.metadata().map(|of| of.len()).map_err(StoreError::io("inspect", path));
    if length(&first, one)? != length(&second, other)? {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    loop {
        let n = first.read(&mut ours).map_err(StoreError::io("read", one))?;
        match second.read_exact(&mut theirs[..n]) {
            Ok(()) if n == 0 => return Ok(true),
            Ok(()) if ours[..n] == theirs[..n] => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(StoreError::io("read", other)(error));
            }
            Ok(()) | Err(_) => return Ok(false),
        }
    }
}

/// Whether a file of this name is half-written, or was left so by a process that was killed.
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

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_of_the_same_number_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let probe = temporary_beside(&folder.path().join("probe")).unwrap();
        let name = probe.file_name().unwrap().to_str().unwrap();
        let serial: u64 = name.rsplit('-').next().unwrap().parse().unwrap();
        let other = |n: u64| folder.path().join(format!(".tmp-{}-{}", std::process::id(), serial + n));
        for n in 1..200 {
            fs::write(other(n), "half").unwrap();
        }
        write_atomically(&folder.path().join("file"), b"whole").unwrap();
        link_atomically(&folder.path().join("link"), Path::new("file")).unwrap();
        assert_eq!(fs::read(folder.path().join("link")).unwrap(), b"whole");
        assert_eq!(fs::read(other(1)).unwrap(), b"half", "it may still be written to");
    }
}

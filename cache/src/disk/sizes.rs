//! How large a store is, by kind.

use std::fs;
use std::path::{Path, PathBuf};

use super::Disk;
use crate::StoreError;
use crate::files::is_temporary;

impl Disk {
    /// Bytes and files below each kind's folder, in the order of their names.
    pub fn sizes(&self) -> Result<Vec<(String, u64, u64)>, StoreError> {
        let mut sizes = Vec::new();
        for kind in sorted_entries(&self.root)? {
            if kind.is_dir() && !kind.ends_with("claims") && !kind.ends_with("pins") {
                let (bytes, files) = weigh(&kind)?;
                sizes.push((file_name(&kind), bytes, files));
            }
        }
        Ok(sizes)
    }
}

fn weigh(folder: &Path) -> Result<(u64, u64), StoreError> {
    let (mut bytes, mut files) = (0, 0);
    for path in sorted_entries(folder)? {
        let metadata = fs::symlink_metadata(&path).map_err(StoreError::io("inspect", &path))?;
        if metadata.is_dir() {
            let (inner_bytes, inner_files) = weigh(&path)?;
            bytes += inner_bytes;
            files += inner_files;
        } else if !is_temporary(&file_name(&path)) {
            bytes += metadata.len();
            files += 1;
        }
    }
    Ok((bytes, files))
}

fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        paths.push(entry.map_err(StoreError::io("list", folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

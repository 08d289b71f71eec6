//! Where damaged files go. Nothing is deleted: a file is moved to `quarantine/`, under the path that it had, and what it held
//! is made again by whoever needs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::StoreError;
use crate::files::sync_folder;

/// The folder of damaged files, below the store's.
pub const FOLDER: &str = "quarantine";

/// Takes damaged files of one store, and remembers what the person should be told.
#[derive(Debug)]
pub struct Quarantine {
    root: PathBuf,
    remarks: Mutex<Vec<String>>,
}

impl Quarantine {
    /// The quarantine of the store in `root`.
    pub fn of(root: &Path) -> Self {
        Quarantine { root: root.into(), remarks: Mutex::default() }
    }

    /// Moves a file out of the way; says where it lies now, or `None` if it is gone already.
    pub fn take(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        let place = self.root.join(FOLDER).join(below.to_string_lossy().trim_start_matches('/'));
        let folder = place.parent().expect("a file has a folder");
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        // One that came damaged before stays beside it.
        let free = (0u32..).map(|n| if n == 0 { place.clone() } else { place.with_added_extension(n.to_string()) });
        let free = free.into_iter().find(|place| fs::symlink_metadata(place).is_err()).expect("a name is free");
        match fs::rename(path, &free) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("move to quarantine", path)(error)),
        }
        sync_folder(folder)?;
        sync_folder(path.parent().expect("a file has a folder"))?;
        Ok(Some(free))
    }

    /// Moves a file out of the way, and notes what it was for the person who watches.
    pub fn take_and_tell(&self, path: &Path, what: &str, then: &str) -> Result<(), StoreError> {
        if let Some(place) = self.take(path)? {
            self.tell(format!("{what} was damaged; it lies in `{}` now, and {then}", place.display()));
        }
        Ok(())
    }

    /// Notes a line for the person who watches.
    pub fn tell(&self, remark: String) {
        self.remarks().push(remark);
    }

    /// What was noted since the last call.
    pub fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.remarks())
    }

    fn remarks(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.remarks.lock().expect("no thread panics while it holds the remarks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_keeps_its_path_and_its_bytes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("answers/51/ab.json");
        let quarantine = Quarantine::of(root.path());
        for text in ["one", "two"] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            quarantine.take_and_tell(&path, "answer 51ab", "its question is asked again").unwrap();
        }
        assert!(!path.exists());
        let read = |name: &str| fs::read_to_string(root.path().join(FOLDER).join("answers/51").join(name)).unwrap();
        assert_eq!((read("ab.json"), read("ab.json.1")), ("one".into(), "two".into()));
        assert_eq!(quarantine.take(&path).unwrap(), None);
        assert_eq!(quarantine.told().len(), 2);
        assert!(quarantine.told().is_empty());
    }
}

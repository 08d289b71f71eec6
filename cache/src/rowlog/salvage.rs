//! Puts a damaged segment aside, and keeps what is whole of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::merge::Joined;
use super::segment::{Segment, index_path};
use crate::StoreError;
use crate::claim::leads_to;
use crate::quarantine::Quarantine;

/// Copies the whole frames of a segment to a new one and moves the old one to the quarantine; says where it lies then. `None`
/// if it went in between, or somebody writes to it or joins it. An index is a memo of its segment: it is moved alone.
pub(crate) fn put_aside(path: &Path, quarantine: &Quarantine) -> Result<Option<PathBuf>, StoreError> {
    if path.extension().is_some_and(|extension| extension == "index") {
        return quarantine.take(path);
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    if file.try_lock().is_err() || !leads_to(path, &file) {
        return Ok(None);
    }
    let folder = path.parent().expect("a segment lies in a folder");
    let segment = Segment::growing(path, file);
    let (mut whole, mut n_frames) = (Joined::begin(folder)?, 0);
    for frame in segment.frames() {
        let (head, keys) = frame?;
        whole.take(&segment, &head, &keys)?;
        n_frames += 1;
    }
    if n_frames > 0 {
        // Where all frames are whole it may get the name that the old one still has.
        whole.finish(folder, Some(path))?;
    }
    let place = quarantine.take(path)?;
    // Without its segment it is of no use; what stays is taken by the next clean-up.
    let _ = fs::remove_file(index_path(path));
    Ok(place)
}

/// Puts a segment aside that was found damaged, and tells it. Whether it went: another process may be at it.
pub(super) fn put_aside_and_tell(path: &Path, quarantine: &Quarantine) -> bool {
    let segment = path.display();
    match put_aside(path, quarantine) {
        Ok(Some(place)) => quarantine.tell(format!(
            "remembered rows in `{segment}` were damaged; the file lies in `{}` now, what is whole of it was kept, and the other rows are asked again",
            place.display()
        )),
        Ok(None) => {
            quarantine.tell(format!("remembered rows in `{segment}` are damaged and are asked again"));
            return false;
        }
        Err(error) => {
            quarantine.tell(format!("remembered rows in `{segment}` are damaged and are asked again; {error}"));
            return false;
        }
    }
    true
}

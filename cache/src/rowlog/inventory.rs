//! What row logs there are, for those who clear them away or send them elsewhere.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::frame;
use super::index::Mapped;
use super::segment::{Segment, files, index_path};
use crate::StoreError;
use crate::claim::leads_to;

/// A row log on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// Its folder, which is named by the operator's id.
    pub folder: PathBuf,
    /// Its segments: plain files that may be copied into another store's folder of this operator under any free name that
    /// ends in `.rows`.
    pub segments: Vec<PathBuf>,
    /// Bytes in all, indexes too.
    pub bytes: u64,
    /// When a row was last written, as the file system has it.
    pub modified: Option<SystemTime>,
}

/// The row logs below `rows`, in the order of their names.
pub fn logs(rows: &Path) -> Result<Vec<LogInfo>, StoreError> {
    let entries = match fs::read_dir(rows) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", rows)(error)),
    };
    let mut logs = Vec::new();
    for entry in entries {
        let folder = entry.map_err(StoreError::io("list", rows))?.path();
        if folder.is_dir() {
            logs.push(info(folder)?);
        }
    }
    logs.sort_by(|one, other| one.folder.cmp(&other.folder));
    Ok(logs)
}

fn info(folder: PathBuf) -> Result<LogInfo, StoreError> {
    let segments = files(&folder, "rows")?;
    let (mut bytes, mut modified) = (0, None);
    for path in segments.iter().cloned().chain(files(&folder, "index")?) {
        // A segment may be joined with others meanwhile.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        bytes += metadata.len();
        modified = modified.max(metadata.modified().ok());
    }
    Ok(LogInfo { folder, segments, bytes, modified })
}

/// Forgets the rows of the log in `folder`, but for segments that a run is writing to. Gives the bytes that went. Runs that have
/// a segment open go on reading it.
pub fn drop_log(folder: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for path in files(folder, "rows")? {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        if file.try_lock().is_ok() && leads_to(&path, &file) {
            bytes += remove(&path)? + remove(&index_path(&path))?;
        }
    }
    for index in files(folder, "index")? {
        if !index.with_extension("rows").exists() {
            bytes += remove(&index)?;
        }
    }
    // It stays where something is left in it.
    let _ = fs::remove_dir(folder);
    Ok(bytes)
}

/// What is wrong with a segment or an index, if anything is. That a crash cut an end off can't be told from other damage.
pub(crate) fn damage(path: &Path) -> Result<Option<String>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    if path.extension().is_some_and(|extension| extension == "index") {
        let is_whole = Mapped::is_whole(&file).map_err(StoreError::io("map", path))?;
        return Ok((!is_whole).then(|| "it is not what was written".into()));
    }
    // Its writer is at work: its end is not there yet.
    if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return Ok(None);
    }
    let segment = Segment::growing(path, file);
    let begin = segment.begin()?;
    let (mut broken, mut end) = (usize::from(begin.is_none()), begin.unwrap_or(0));
    for frame in segment.frames() {
        let (head, _) = frame?;
        // What lies before a frame and is none was one.
        broken += usize::from(head.at != end) + usize::from(frame::body(&segment, &head)?.is_none());
        end = head.end();
    }
    let is_cut = end < segment.length()?;
    Ok(match (broken, is_cut) {
        (0, false) => None,
        (0, true) => Some("its end was cut off, or is not what was written".into()),
        (n, _) => Some(format!("{n} of its pieces are not what was written")),
    })
}

fn remove(path: &Path) -> Result<u64, StoreError> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

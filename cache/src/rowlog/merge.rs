//! Keeps the number of segments small: sealed ones are joined, the small before the large.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::Limits;
use super::frame::{self, Head};
use super::segment::{Segment, index_path, write_header};
use crate::StoreError;
use crate::claim::leads_to;
use crate::files::{rename_into_place, temporary_beside};
use crate::quarantine::Quarantine;

/// Frames with fewer rows and bytes than these are joined.
const SMALL_FRAME: (u32, u64) = (256, 1 << 18);
/// A frame that joined ones make has about so many rows or bytes.
const JOINED: (usize, u64) = (1024, 1 << 22);

/// Joins segments where there are many, or where their frames are many and small. Readers that have the old segments open
/// go on reading them; a crash in between leaves rows twice, which is harmless.
pub(super) fn merge(
    folder: &Path,
    segments: Vec<Segment>,
    limits: &Limits,
    quarantine: Option<&Quarantine>,
) -> Result<Vec<Segment>, StoreError> {
    let (mut picked, mut kept) = pick(segments, limits)?;
    // Whoever has no lock on a segment leaves it alone: another process is at it. So does whoever saw it before all was written.
    let mut locks = Vec::new();
    for segment in std::mem::take(&mut picked) {
        match File::open(&segment.path) {
            Ok(file) if file.try_lock().is_ok() && leads_to(&segment.path, &file) && segment.is_all_of(&file) => {
                locks.push(file);
                picked.push(segment);
            }
            Ok(_) => kept.push(segment),
            Err(error) if error.kind() == ErrorKind::NotFound => kept.push(segment),
            Err(error) => return Err(StoreError::io("open", &segment.path)(error)),
        }
    }
    if picked.len() < 2 && !picked.iter().any(|segment| segment.ragged) {
        kept.extend(picked);
        return Ok(kept);
    }
    let mut joined = Joined::begin(folder)?;
    for segment in &mut picked {
        let mut n_broken = 0;
        for frame in segment.frames() {
            let (head, keys) = frame?;
            n_broken += usize::from(!joined.take(segment, &head, &keys)?);
        }
        segment.broken |= n_broken > 0;
    }
    let path = joined.finish(folder, None)?;
    kept.push(Segment::open(&path, 0, quarantine)?);
    for segment in picked.into_iter().filter(|segment| segment.path != path) {
        if let Some(quarantine) = quarantine.filter(|_| segment.broken) {
            // Nothing that is damaged is deleted.
            quarantine.take_and_tell(&segment.path, "a file of remembered rows", "what it lost is asked again")?;
        }
        for path in [segment.path.clone(), index_path(&segment.path)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
    }
    drop(locks);
    Ok(kept)
}

/// Parts the segments that are to be joined from those that stay.
fn pick(segments: Vec<Segment>, limits: &Limits) -> Result<(Vec<Segment>, Vec<Segment>), StoreError> {
    let (mut picked, mut kept) = (Vec::new(), Vec::new());
    let mut sealed = Vec::new();
    for segment in segments {
        if segment.is_sealed() { sealed.push((segment.length()?, segment)) } else { kept.push(segment) }
    }
    sealed.sort_by_key(|(length, _)| *length);
    let many = sealed.len() > limits.segments;
    let (mut bytes, mut rows, mut left) = (0, 0, sealed.len());
    for (length, segment) in sealed {
        // A segment joins others that are nearly its size in all, so that a row is copied few times in its life.
        let fits = many && (length <= 2 * bytes || picked.len() < 2 || left > limits.segments);
        if (fits || segment.ragged) && rows + segment.rows() <= limits.rows {
            (bytes, rows, left) = (bytes + length, rows + segment.rows(), left - 1);
            picked.push(segment);
        } else {
            kept.push(segment);
        }
    }
    Ok((picked, kept))
}

/// A segment that is made of others.
pub(super) struct Joined {
    path: PathBuf,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    /// Small frames of one kind that make the next.
    keys: Vec<u8>,
    batches: Vec<RecordBatch>,
    bytes: u64,
}

impl Joined {
    pub(super) fn begin(folder: &Path) -> Result<Self, StoreError> {
        let path = temporary_beside(&folder.join("merged"))?;
        let file = File::create(&path).map_err(StoreError::io("create", &path))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write_header(&mut out).map_err(StoreError::io("write", &path))?;
        let hasher = blake3::Hasher::new_derive_key("retort row log joined 1");
        Ok(Joined { path, out, hasher, keys: Vec::new(), batches: Vec::new(), bytes: 0 })
    }

    /// Takes over a frame, if its body is what was written; whether it is.
    pub(super) fn take(&mut self, segment: &Segment, head: &Head, keys: &[u8]) -> Result<bool, StoreError> {
        let Some(body) = frame::body(segment, head)? else { return Ok(false) };
        let is_small = head.n_keys < SMALL_FRAME.0 && head.length() < SMALL_FRAME.1;
        let Some(batch) = is_small.then(|| frame::batch(&body)).flatten() else {
            return self.write(keys, &body).map(|()| true);
        };
        let same = self.batches.last().is_none_or(|last| last.schema() == batch.schema());
        if !same || self.keys.len() / 32 >= JOINED.0 || self.bytes >= JOINED.1 {
            self.join()?;
        }
        self.keys.extend_from_slice(keys);
        self.batches.push(batch);
        self.bytes += head.length();
        Ok(true)
    }

    /// Writes the small frames that were taken as one.
    fn join(&mut self) -> Result<(), StoreError> {
        let Some(first) = self.batches.first() else { return Ok(()) };
        let batch = concat_batches(&first.schema(), &self.batches).map_err(StoreError::table("join", "row log"))?;
        let keys = std::mem::take(&mut self.keys);
        self.batches.clear();
        self.bytes = 0;
        self.write(&keys, &frame::encode_batch(&batch)?)
    }

    fn write(&mut self, keys: &[u8], body: &[u8]) -> Result<(), StoreError> {
        let mut frame = Vec::with_capacity(keys.len() + body.len() + 32);
        frame::write(keys, body, &mut frame);
        self.hasher.update(&frame);
        self.out.write_all(&frame).map_err(StoreError::io("write", &self.path))
    }

    /// Gives the segment a name, which is not `avoided`.
    pub(super) fn finish(mut self, folder: &Path, avoided: Option<&Path>) -> Result<PathBuf, StoreError> {
        self.join()?;
        self.out.flush().map_err(StoreError::io("write", &self.path))?;
        self.out.get_ref().sync_all().map_err(StoreError::io("sync", &self.path))?;
        // By what is in it: two who join segments at the same time can't take each other's name.
        let name = format!("merged-{}", &self.hasher.finalize().to_hex()[..32]);
        let path = folder.join(format!("{name}.rows"));
        let path = if avoided == Some(&path) { folder.join(format!("{name}-1.rows")) } else { path };
        rename_into_place(&self.path, &path)?;
        Ok(path)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // Nothing is there after it got its name; and what stays is taken by the next clean-up.
        let _ = fs::remove_file(&self.path);
    }
}

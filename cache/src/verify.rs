//! Looks at everything in a store before it is needed: what is damaged goes to the quarantine and is named.
//!
//! | file | what must hold |
//! |---|---|
//! | `tables/…` | the seal holds, and the rows give the name |
//! | `answers/…` | the check over the record holds, and the recipe gives the name |
//! | `rows/…` | every frame is what was written, an end that a crash cut off is no damage; so is every block of an index |
//! | `work/…` | the check at the file's end |
//! | `view/…` | a link that leads to a table or an answer, which is there |
//! | `runs/…` | JSON; the last event of a killed run may be cut |
//! | `assets/models/…` | the SHA-256 is the name |
//! | `assets/digests`, `assets/answers` | the check over the memo holds |
//!
//! A file is read batch by batch, one a thread, so memory does not grow with the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::ahead::file as seen;
use crate::answers::{self, Found};
use crate::digest::{Digest, RecipeId};
use crate::files::is_temporary;
use crate::quarantine::{self, Quarantine};
use crate::table_file::{TableFile, Whole};
use crate::{ContentId, StoreError, digests, rowlog, work};

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files and bytes by kind.
    pub kinds: BTreeMap<String, (u64, u64)>,
    /// In the order of the paths.
    pub wrong: Vec<Wrong>,
}

/// A file that is not what was written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrong {
    /// Where it was, below the store's folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// Where it lies now; `None` where it could not be read, or moved.
    pub place: Option<PathBuf>,
}

struct Job {
    kind: String,
    path: PathBuf,
    bytes: u64,
}

/// Looks at every file of the store in `root` with so many threads. `progress` is told bytes done and in all.
pub fn verify(root: &Path, threads: usize, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verified, StoreError> {
    let jobs = jobs(root)?;
    let of = jobs.iter().map(|job| job.bytes).sum();
    let mut verified = Verified::default();
    for job in &jobs {
        let (files, bytes) = verified.kinds.entry(job.kind.clone()).or_default();
        (*files, *bytes) = (*files + 1, *bytes + job.bytes);
    }
    let quarantine = Quarantine::of(root);
    let (next, done, wrong) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(found) = look(root, job, &quarantine) {
                        wrong.lock().expect("no thread panics while it holds the list").push(found);
                    }
                    progress(job.bytes + done.fetch_add(job.bytes, Ordering::Relaxed), of);
                }
            });
        }
    });
    verified.wrong = wrong.into_inner().expect("no thread panicked");
    verified.wrong.sort();
    Ok(verified)
}

/// All files, the large ones first: threads end at about the same time.
fn jobs(root: &Path) -> Result<Vec<Job>, StoreError> {
    let mut jobs = Vec::new();
    for kind in ["tables", "answers", "rows", "work", "view", "runs", "assets"] {
        list(&root.join(kind), kind, &mut jobs)?;
    }
    jobs.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.path.cmp(&other.path)));
    Ok(jobs)
}

fn list(folder: &Path, kind: &str, jobs: &mut Vec<Job>) -> Result<(), StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        let path = entry.path();
        // What goes while we look was swept by someone else.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            list(&path, kind, jobs)?;
        } else if !is_temporary(&entry.file_name().to_string_lossy()) {
            jobs.push(Job { kind: kind.into(), path, bytes: metadata.len() });
        }
    }
    Ok(())
}

fn look(root: &Path, job: &Job, quarantine: &Quarantine) -> Option<Wrong> {
    let below = job.path.strip_prefix(root).unwrap_or(&job.path).to_owned();
    let found = match job.kind.as_str() {
        "tables" => table(&job.path),
        "answers" => answer(&job.path),
        "rows" => rowlog::damage(&job.path),
        "work" => work::damage(&job.path),
        "view" => link(root, &job.path),
        "runs" => record(&job.path),
        _ => asset(&below, &job.path),
    };
    match found {
        Ok(None) => None,
        Ok(Some(what)) => match put_aside(job, quarantine) {
            Ok(Some(place)) => Some(Wrong { path: below, what, place: Some(place) }),
            // It went in between.
            Ok(None) => None,
            Err(error) => Some(Wrong { path: below, what: format!("{what}; {error}"), place: None }),
        },
        Err(error) => Some(Wrong { path: below, what: error.with_cause(), place: None }),
    }
}

fn put_aside(job: &Job, quarantine: &Quarantine) -> Result<Option<PathBuf>, StoreError> {
    // What is whole of a segment was paid for.
    if job.kind == "rows" { rowlog::put_aside(&job.path, quarantine) } else { quarantine.take(&job.path) }
}

fn table(path: &Path) -> Result<Option<String>, StoreError> {
    let Some(id) = name(path) else { return Ok(Some("its name is none of a table".into())) };
    let (whole, quarantine) = (Whole::default().into(), Quarantine::of(path).into());
    let file = TableFile { id: ContentId(id), path: path.into(), whole, quarantine };
    Ok((!file.is_whole()?).then(|| "it is not what was written, or its rows do not give its name".into()))
}

fn answer(path: &Path) -> Result<Option<String>, StoreError> {
    Ok(match answers::read(path)? {
        Found::Answer(answer) if Some(answer.recipe.id()) == name(path).map(RecipeId) => None,
        Found::Answer(_) => Some("it answers another question than its name says".into()),
        Found::Damaged => Some("it is not what was written".into()),
        Found::Nothing | Found::OtherFormat => None,
    })
}

/// The links under `view` are relative, and lead to a table or an answer.
fn link(root: &Path, path: &Path) -> Result<Option<String>, StoreError> {
    if cfg!(not(unix)) {
        return Ok(None);
    }
    let Ok(target) = fs::read_link(path) else { return Ok(Some("it is no link".into())) };
    let below: PathBuf = target.iter().skip_while(|part| *part == "..").collect();
    if !(below.starts_with("tables") || below.starts_with("answers")) || name(&below).is_none() {
        return Ok(Some(format!("it leads to `{}`", target.display())));
    }
    // What was damaged itself is named by itself.
    let is_there = path.exists() || fs::symlink_metadata(root.join(quarantine::FOLDER).join(&below)).is_ok();
    Ok((!is_there).then(|| format!("it leads to `{}`, which is not there", target.display())))
}

fn record(path: &Path) -> Result<Option<String>, StoreError> {
    let is_json = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    let read = || fs::read(path).map_err(StoreError::io("read", path));
    let whole = match path.file_name().and_then(|name| name.to_str()) {
        Some("run.json") => is_json(&read()?),
        Some("events.jsonl") => {
            let bytes = read()?;
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            bytes[..end].split(|byte| *byte == b'\n').all(|line| line.is_empty() || is_json(line))
        }
        _ => true,
    };
    Ok((!whole).then(|| "it is no JSON".into()))
}

fn asset(below: &Path, path: &Path) -> Result<Option<String>, StoreError> {
    if below == Path::new("assets/digests") {
        return Ok(digests::is_damaged(path)?.then(|| "it is not what was written".into()));
    }
    if below == Path::new(seen::PATH) {
        let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
        return Ok(seen::is_damaged(&bytes).then(|| "it is not what was written".into()));
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !below.starts_with("assets/models") || stem.len() != 64 {
        return Ok(None);
    }
    let digest = digests::sha256_of(path)?;
    Ok((digest != stem).then(|| format!("its SHA-256 is {digest}")))
}

/// The digest that a file is named by: `8c/2f….parquet`.
fn name(path: &Path) -> Option<Digest> {
    let tail = path.file_stem()?.to_str()?;
    let head = path.parent()?.file_name()?.to_str()?;
    Digest::from_hex(&format!("{head}{tail}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::rowlog::RowLog;
    use crate::{ANSWER_VERSION, Answer, Disk, Fact, Output, Recipe, Store};
    use crate::{RowAnswer, RowKey, RowMemo};

    fn filled(root: &Path) -> ContentId {
        let disk = Disk::open(root).unwrap();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5000));
        let batch = RecordBatch::try_from_iter([("number", numbers)]).unwrap();
        let mut writer = disk.writer(batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        let table = writer.finish().unwrap();
        let recipe = Recipe { op: vec![Fact::new("op.name", "test")], inputs: vec![] };
        let outputs = vec![Output { port: "out".into(), content: table.id, rows: table.rows }];
        let answer = Answer { version: ANSWER_VERSION, op: "test".into(), recipe, outputs };
        disk.commit("pipe/node", &answer).unwrap();
        table.id
    }

    #[test]
    fn a_whole_store_is_whole_and_a_damaged_file_is_moved() {
        let root = tempfile::tempdir().unwrap();
        let id = filled(root.path());
        let told = Mutex::new(0);
        let verified = verify(root.path(), 2, &|done, of| *told.lock().unwrap() = u64::max(done, of)).unwrap();
        assert_eq!(verified.wrong, []);
        assert_eq!(verified.kinds["tables"].0, 1);
        assert_eq!(*told.lock().unwrap(), verified.kinds.values().map(|(_, bytes)| bytes).sum::<u64>());

        let disk = Disk::open(root.path()).unwrap();
        let path = disk.open(id).unwrap().unwrap().path().unwrap().to_owned();
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 3);
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        let verified = verify(root.path(), 2, &|_, _| ()).unwrap();
        let place = verified.wrong[0].place.clone().unwrap();
        assert_eq!((verified.wrong.len(), fs::read(place).unwrap()), (1, bytes));
        assert!(!path.exists());
        assert_eq!(verify(root.path(), 2, &|_, _| ()).unwrap().wrong, [], "what was found is found once");
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_moved() {
        let root = tempfile::tempdir().unwrap();
        filled(root.path());
        let link = root.path().join("view/pipe/node.json");
        let right = fs::read_link(&link).unwrap();
        let text = right.to_str().unwrap();
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] ^= 1;
            fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink(str::from_utf8(&other).unwrap(), &link).unwrap();
            let disk = Disk::open(root.path()).unwrap();
            assert_eq!(disk.newest("pipe/node").unwrap(), None, "byte {at}");
            assert!(disk.told()[0].contains("view/pipe/node.json"), "byte {at}");
            let kept = root.path().join("quarantine/view/pipe/node.json");
            assert_eq!(fs::read_link(&kept).unwrap().as_os_str().as_encoded_bytes(), other);
            // The same, ahead of time.
            fs::rename(&kept, &link).unwrap();
            assert_eq!(verify(root.path(), 1, &|_, _| ()).unwrap().wrong.len(), 1, "byte {at}");
            fs::remove_file(&kept).unwrap();
            std::os::unix::fs::symlink(&right, &link).unwrap();
        }
        assert_eq!(verify(root.path(), 1, &|_, _| ()).unwrap().wrong, []);
    }

    #[test]
    fn of_a_damaged_segment_the_whole_pieces_stay() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("rows").join("ab".repeat(32));
        let schema = Arc::new(Schema::new(vec![Field::new("output", DataType::Utf8, false)]));
        let open = || RowLog::open(&folder, schema.clone()).unwrap();
        let key = |n: u8| {
            RowKey(Digest::of("test", |hasher| {
                hasher.update(&[n]);
            }))
        };
        let kept = |text: &str| {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values([text.repeat(400)]));
            RowAnswer::Kept(RecordBatch::try_new(schema.clone(), vec![texts]).unwrap().into())
        };
        let log = open();
        for (n, text) in [(1, "one"), (2, "two"), (3, "three")] {
            log.commit(&[(key(n), kept(text))]).unwrap();
        }
        drop(log);
        let path = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().unwrap() == "rows");
        let path = path.unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(9).position(|bytes| bytes == b"twotwotwo").unwrap();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let verified = verify(root.path(), 1, &|_, _| ()).unwrap();
        let wrong: Vec<_> = verified.wrong.iter().filter(|wrong| wrong.path.extension().unwrap() == "rows").collect();
        assert_eq!((wrong.len(), wrong[0].what.as_str()), (1, "1 of its pieces are not what was written"));
        assert_eq!(fs::read(wrong[0].place.as_ref().unwrap()).unwrap(), bytes);
        assert_eq!(open().recall(&[key(1), key(2), key(3)]).unwrap(), [Some(kept("one")), None, Some(kept("three"))]);
        assert_eq!(verify(root.path(), 1, &|_, _| ()).unwrap().wrong, []);
    }
}

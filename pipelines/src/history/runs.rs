//! The runs of a store: their names, newest first, and what `run.json` says of each.

use std::fs::{self, File};
use std::path::Path;

use retort_cache::StoreError;
use serde::{Deserialize, Serialize};

use crate::observe::{About, EVENTS_FILE, RUN_FILE, RUN_VERSION, RUNS_FOLDER};

/// A run as its record tells it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its name: when it began, and its process.
    pub id: String,
    /// When it began, in UTC.
    pub began: String,
    /// The version of retort that ran.
    pub retort: String,
    /// What was asked of it.
    pub asked: About,
    /// How it ended, if it did.
    pub status: Status,
    /// What it came to, once it has ended.
    pub counts: Option<Counts>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Everything that was asked for has its answer.
    Done,
    /// A node failed.
    Failed,
    /// The person asked to stop.
    Interrupted,
    /// Its process is at work.
    Running,
    /// Its process is gone, and wrote no end.
    Killed,
}

impl Status {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Failed => "failed",
            Status::Interrupted => "interrupted",
            Status::Running => "running",
            Status::Killed => "killed",
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Counts {
    /// Nodes that ran.
    pub ran: u64,
    /// Nodes whose answer was known.
    pub fresh: u64,
    /// Nodes that could not answer.
    pub failed: u64,
    /// Nodes that were not tried.
    pub skipped: u64,
    /// Seconds.
    #[serde(rename = "at")]
    pub seconds: f64,
}

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It was written by another version of Retort.
    #[error("its record has format {0}; this version of retort reads format {RUN_VERSION}")]
    Version(u64),
    /// It is not what was written.
    #[error("its `{RUN_FILE}` is damaged: {0}")]
    Damaged(String),
    /// There is none.
    #[error("it has no `{RUN_FILE}`")]
    Missing,
}

/// `run.json` as it is written. What else stands in it is not needed here.
#[derive(Deserialize)]
struct RunWire {
    version: u64,
    retort: String,
    began: String,
    asked: About,
    status: String,
    summary: Option<Counts>,
}

/// What every version of `run.json` has.
#[derive(Deserialize)]
struct VersionWire {
    version: u64,
}

/// The names of all runs, newest first.
pub fn ids(root: &Path) -> Result<Vec<String>, StoreError> {
    let folder = root.join(RUNS_FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", &folder)(error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", &folder))?.file_name().to_string_lossy().into_owned();
        // Names begin with the year; what else lies there is no run.
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            ids.push(name);
        }
    }
    ids.sort_unstable_by(|one, other| other.cmp(one));
    Ok(ids)
}

/// What a run's record says.
pub fn read(root: &Path, id: &str) -> Result<Run, Unreadable> {
    let folder = root.join(RUNS_FOLDER).join(id);
    let text = match fs::read(folder.join(RUN_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Unreadable::Missing),
        Err(error) => return Err(Unreadable::Damaged(error.to_string())),
    };
    let wire = match serde_json::from_slice::<RunWire>(&text) {
        Ok(wire) => wire,
        Err(error) => {
            let other = serde_json::from_slice::<VersionWire>(&text).ok().map(|wire| wire.version);
            return Err(match other.filter(|version| *version != u64::from(RUN_VERSION)) {
                Some(version) => Unreadable::Version(version),
                None => Unreadable::Damaged(error.to_string()),
            });
        }
    };
    if wire.version != u64::from(RUN_VERSION) {
        return Err(Unreadable::Version(wire.version));
    }
    let status = match wire.status.as_str() {
        "done" => Status::Done,
        "failed" => Status::Failed,
        "interrupted" => Status::Interrupted,
        "running" if is_held(&folder.join(EVENTS_FILE)) => Status::Running,
        "running" => Status::Killed,
        other => return Err(Unreadable::Damaged(format!("no run is `{other}`"))),
    };
    let RunWire { retort, began, asked, summary, .. } = wire;
    Ok(Run { id: id.into(), began, retort, asked, status, counts: summary })
}

/// Whether a process holds the lock of a file. Where there are no locks, it may.
fn is_held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// What a name of a run leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This run.
    One(String),
    /// No run.
    None,
    /// Several, newest first.
    Several(Vec<String>),
}

/// The run that `name` means, of the runs `ids`, newest first: `latest`, `@1` (the newest), `@2`, a name, or the beginning of one.
pub fn find(ids: &[String], name: &str) -> Found {
    let nth = if name == "latest" { Some("1") } else { name.strip_prefix('@') };
    if let Some(nth) = nth {
        let id = nth.parse::<usize>().ok().and_then(|nth| ids.get(nth.checked_sub(1)?));
        return id.map_or(Found::None, |id| Found::One(id.clone()));
    }
    if ids.iter().any(|id| id == name) {
        return Found::One(name.into());
    }
    let begin: Vec<_> = ids.iter().filter(|id| !name.is_empty() && id.starts_with(name)).cloned().collect();
    match begin.as_slice() {
        [] => Found::None,
        [one] => Found::One(one.clone()),
        _ => Found::Several(begin),
    }
}

/// What was asked beside the pipeline, as it is typed: `pairs --set chunk_tokens=512`.
pub fn asked(about: &About) -> String {
    let mut parts = about.targets.clone();
    parts.extend(about.set.iter().map(|set| format!("--set {set}")));
    parts.extend(about.profile.iter().map(|profile| format!("--profile {profile}")));
    parts.extend(about.force.iter().map(|node| format!("--force {node}")));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(id: &str, run: &str) -> tempfile::TempDir {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join(RUNS_FOLDER).join(id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(RUN_FILE), run).unwrap();
        store
    }

    #[test]
    fn a_run_is_named_by_its_place_or_by_how_its_name_begins() {
        let ids = ["2026-12-01-7", "2026-11-24-8", "2026-11-23-9"].map(String::from);
        let one = |id: &str| Found::One(id.into());
        assert_eq!([find(&ids, "latest"), find(&ids, "@1")], [one("2026-12-01-7"), one("2026-12-01-7")]);
        assert_eq!([find(&ids, "@3"), find(&ids, "2026-12")], [one("2026-11-23-9"), one("2026-12-01-7")]);
        assert_eq!(["@4", "@0", "@x", "2025", ""].map(|name| find(&ids, name)), [const { Found::None }; 5]);
        assert_eq!(find(&ids, "2026-11"), Found::Several(ids[1..].to_vec()));
    }

    #[test]
    fn what_is_no_record_of_ours_is_said() {
        let said = |run: &str| read(store("2026", run).path(), "2026").unwrap_err().to_string();
        assert_eq!(said("{\"version\": 7}"), "its record has format 7; this version of retort reads format 2");
        assert!(said("{\"version\": 2, \"ret").starts_with("its `run.json` is damaged: EOF while"), "{}", said(""));
        let none = store("2026", "").path().join("elsewhere");
        assert_eq!(read(&none, "2026").unwrap_err().to_string(), "it has no `run.json`");
    }

    #[test]
    fn a_run_whose_process_is_gone_was_killed() {
        let run = r#"{"version": 2, "retort": "0", "began": "", "asked": {}, "status": "running"}"#;
        let store = store("2026", run);
        assert_eq!(read(store.path(), "2026").unwrap().status, Status::Killed);
        let events = File::create(store.path().join(RUNS_FOLDER).join("2026").join(EVENTS_FILE)).unwrap();
        events.lock().unwrap();
        assert_eq!(read(store.path(), "2026").unwrap().status, Status::Running);
        drop(events);
        assert_eq!(read(store.path(), "2026").unwrap().status, Status::Killed);
    }
}

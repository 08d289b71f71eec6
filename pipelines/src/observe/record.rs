//! The record of a run: `runs/<id>/run.json` and `runs/<id>/events.jsonl` in the store.
//!
//! An id is the time at which the run began, in UTC, and the process: ids sort by time. `run.json` is written when the run
//! begins (`"status": "running"`) and again when it ends; a run that was killed keeps the first. That its process is gone
//! shows by the lock on `events.jsonl`, which goes with it. `history` reads what is written here.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use retort_cache::StoreError;
use retort_cache::files::{temporary_beside, write_atomically};
use retort_engine::EventKind;
use serde::{Deserialize, Serialize};

use super::thin::Thin;
use super::{Clock, Ending, Moment, View, json};

/// The format of `run.json` and `events.jsonl`. 2: events name the recipe of what they tell of.
pub(crate) const RUN_VERSION: u32 = 2;
/// The file that says what a run was and came to.
pub(crate) const RUN_FILE: &str = "run.json";
/// The file that says what happened, an event a line.
pub(crate) const EVENTS_FILE: &str = "events.jsonl";
/// The folder of all runs, in the store.
pub(crate) const RUNS_FOLDER: &str = "runs";
/// Seconds between two counts of progress of a node.
const INTERVAL: f64 = 1.0;
/// Bytes of lines that may wait to be written.
const PENDING: usize = 1 << 16;

/// What was asked of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The pipeline file, as it was named.
    pub file: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The nodes that were named; all where none is.
    pub targets: Vec<String>,
    /// `--set`, in order, as `name=value`.
    pub set: Vec<String>,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--force`.
    pub force: Vec<String>,
}

/// What is known of a run when it begins.
#[derive(Serialize)]
struct Head {
    version: u32,
    id: String,
    retort: &'static str,
    began: String,
    asked: About,
}

/// `run.json`.
#[derive(Serialize)]
struct Run<'a> {
    #[serde(flatten)]
    head: &'a Head,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<json::SummaryLine<'a>>,
}

/// Writes a run down.
pub struct Record {
    folder: PathBuf,
    head: Head,
    events: File,
    /// Lines that are not written yet.
    pending: String,
    thin: Thin,
    trouble: Option<StoreError>,
}

impl Record {
    /// Begins the record of a run in the store at `root`.
    pub fn begin(root: &Path, clock: &Clock, about: &About) -> Result<Self, StoreError> {
        let runs = root.join(RUNS_FOLDER);
        fs::create_dir_all(&runs).map_err(StoreError::io("create", &runs))?;
        let id = format!("{}-{}", stamp(clock.epoch()).replace([':', '.'], "-"), std::process::id());
        let folder = runs.join(&id);
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        let path = folder.join(EVENTS_FILE);
        let events = File::create(&path).map_err(StoreError::io("create", &path))?;
        // Where there are no locks, a run that was killed looks as if it went on.
        let _ = events.lock();
        let head = Head {
            version: RUN_VERSION,
            id,
            retort: env!("CARGO_PKG_VERSION"),
            began: stamp(clock.epoch()),
            asked: about.clone(),
        };
        let pending = String::new();
        let record = Record { folder, head, events, pending, thin: Thin::every(INTERVAL), trouble: None };
        record.write("running", None)?;
        Ok(record)
    }

    /// The run's name.
    pub fn id(&self) -> &str {
        &self.head.id
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes whole lines at once: a killed run leaves no other.
    fn flush(&mut self) {
        // A record that can't be written does not stop the run; it ends there, and the run's end says so.
        if self.trouble.is_none()
            && let Err(error) = self.events.write_all(self.pending.as_bytes())
        {
            self.trouble = Some(StoreError::io("write", &self.folder.join(EVENTS_FILE))(error));
        }
        self.pending.clear();
    }

    fn write(&self, status: &str, ending: Option<&Ending<'_>>) -> Result<(), StoreError> {
        let run = Run { head: &self.head, status, summary: ending.map(json::summary) };
        let path = self.folder.join(RUN_FILE);
        match ending {
            Some(ending) if ending.summary.ran + ending.summary.failed > 0 => {
                let text = serde_json::to_string_pretty(&run).expect("a run is plain data");
                write_atomically(&path, text.as_bytes())
            }
            // Nothing came of it yet, or at all: that is not worth the wait for the disk.
            _ => write_unsynced(&path, &run),
        }
    }
}

impl View for Record {
    fn see(&mut self, moment: &Moment<'_>) {
        for event in self.thin.take(moment.event, moment.at) {
            self.pending += &json::object(&event, moment.at);
            self.pending.push('\n');
        }
        // Nodes to which nothing happens come by the thousand: they wait for the next that something happens to.
        let idle = matches!(moment.event.kind, EventKind::Fresh { .. } | EventKind::Skipped { .. });
        if !idle || self.pending.len() > PENDING {
            self.flush();
        }
    }

    fn end(&mut self, ending: &Ending<'_>) {
        self.flush();
        let status = match ending.summary {
            summary if summary.cancelled => "interrupted",
            summary if summary.failed > 0 => "failed",
            _ => "done",
        };
        if let Err(error) = self.write(status, Some(ending)) {
            self.trouble.get_or_insert(error);
        }
    }

    fn trouble(&mut self) -> Option<StoreError> {
        self.trouble.take()
    }
}

/// Replaces a file in one step, and leaves it to the system when it reaches the disk.
fn write_unsynced(path: &Path, run: &Run<'_>) -> Result<(), StoreError> {
    let temporary = temporary_beside(path)?;
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(PENDING, File::create(&temporary)?);
        serde_json::to_writer_pretty(&mut file, run)?;
        file.flush()
    };
    write().map_err(StoreError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(StoreError::io("rename to", path))
}

/// A time in UTC as in RFC 3339: `2026-11-23T20:43:55.123Z`.
fn stamp(epoch: f64) -> String {
    let millis = (epoch * 1000.0) as u64;
    let (days, second) = (millis / 86_400_000, millis / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z", second % 60, millis % 1000)
}

/// Year, month and day of a day since 1970, in the Gregorian calendar: eras of 400 years that begin on 1 March
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use retort_engine::{Event, Summary};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(stamp(0.0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(951_782_400.5), "2000-02-29T00:00:00.500Z");
        assert_eq!(stamp(1_795_466_635.123), "2026-11-23T20:43:55.123Z");
    }

    #[test]
    fn a_run_is_on_disk_while_it_runs_and_after() {
        let store = tempfile::tempdir().unwrap();
        let about = About { pipeline: "tiny".into(), ..About::default() };
        let mut record = Record::begin(store.path(), &Clock::start(), &about).unwrap();
        let read = |record: &Record| -> Value {
            serde_json::from_slice(&fs::read(record.folder().join("run.json")).unwrap()).unwrap()
        };
        assert_eq!(read(&record)["status"], "running");
        let event = Event { node: "a".into(), kind: EventKind::Note { text: "x".into() } };
        record.see(&Moment { at: 0.1, event: &event, tally: &super::super::Tally::default() });
        record.end(&Ending { at: 0.2, summary: &Summary { cancelled: true, ..Summary::default() }, nodes: &[] });
        let run = read(&record);
        assert_eq!((&run["status"], &run["asked"]["pipeline"]), (&json!("interrupted"), &json!("tiny")));
        let events = fs::read_to_string(record.folder().join("events.jsonl")).unwrap();
        assert_eq!(events, "{\"event\":\"note\",\"node\":\"a\",\"text\":\"x\",\"at\":0.1}\n");
    }
}

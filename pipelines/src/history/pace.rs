//! What nodes took when they last ran: rows, tokens and time, of the newest runs of a pipeline.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use retort_cache::StoreError;

use super::{Status, ids, read, story};
use crate::observe::{State, Tally};

/// Runs that are looked at, of those in which something ran.
const RUNS: usize = 20;

/// What a node took in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    /// Rows that a row operator was asked.
    pub asked: u64,
    /// Rows of its input.
    pub of: u64,
    /// Rows of each output, by port; none where it was stopped.
    pub outputs: BTreeMap<String, u64>,
    /// Prompt and output tokens.
    pub tokens: u64,
    /// Seconds.
    pub seconds: f64,
}

/// The nodes that are asked about: whether each is a row operator.
pub type Wanted<'a> = HashMap<&'a str, bool>;

/// What nodes took, by name.
pub type Paces = HashMap<String, Pace>;

/// What nodes of a pipeline took. Of a row operator the run counts in which it was asked the most rows, stopped or not: what a model takes to load is the least
/// of it there. Of a table operator the newest counts that came to an end.
pub fn paces(root: &Path, pipeline: &str, wanted: &Wanted<'_>) -> Result<Paces, StoreError> {
    let mut paces = Paces::new();
    let of_pipeline = ids(root)?.into_iter().filter(|id| {
        let Ok(run) = read(root, id) else { return false };
        let idle = run.status == Status::Done && run.counts.is_some_and(|counts| counts.ran == 0);
        run.asked.pipeline == pipeline && !idle
    });
    for id in of_pipeline.take(RUNS) {
        // Who plans is not to be troubled by a record that was cleared away meanwhile.
        let Ok(story) = story(root, &id) else { continue };
        for node in &story.nodes {
            let Some(by_rows) = wanted.get(node.name.as_str()) else { continue };
            let Some(pace) = pace(&node.tally, *by_rows, story.seconds) else { continue };
            match paces.get_mut(&node.name) {
                Some(known) if *by_rows && pace.asked > known.asked => {
                    let outputs = if pace.outputs.is_empty() { known.outputs.clone() } else { pace.outputs };
                    *known = Pace { outputs, ..pace };
                }
                Some(known) if known.outputs.is_empty() => known.outputs = pace.outputs,
                Some(_) => {}
                None => _ = paces.insert(node.name.clone(), pace),
            }
        }
    }
    Ok(paces)
}

fn pace(tally: &Tally, by_rows: bool, end: f64) -> Option<Pace> {
    let ended = match tally.state {
        State::Ran => true,
        State::Running | State::Failed(_) => false,
        _ => return None,
    };
    let recalled = tally.recalled.map_or(0, |(rows, _)| rows);
    let (done, of) = tally.progress.unwrap_or_default();
    let asked = tally.asked.unwrap_or_else(|| done.saturating_sub(recalled));
    if by_rows && asked == 0 || !by_rows && !ended {
        return None;
    }
    Some(Pace {
        asked,
        of: tally.recalled.map_or(of, |(_, of)| of).max(asked),
        outputs: tally.outputs.iter().map(|output| (output.port.clone(), output.rows)).collect(),
        tokens: tally.prompt_tokens + tally.output_tokens,
        seconds: if tally.ended > tally.began { tally.seconds() } else { end - tally.began },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::observe::{EVENTS_FILE, RUN_FILE, RUNS_FOLDER};

    fn recorded(store: &Path, id: &str, pipeline: &str, events: &[&str]) {
        let folder = store.join(RUNS_FOLDER).join(id);
        fs::create_dir_all(&folder).unwrap();
        let run = format!(
            r#"{{"version": 2, "retort": "0", "began": "", "asked": {{"pipeline": "{pipeline}"}}, "status": "interrupted"}}"#
        );
        fs::write(folder.join(RUN_FILE), run).unwrap();
        fs::write(folder.join(EVENTS_FILE), events.join("\n")).unwrap();
    }

    #[test]
    fn of_rows_the_most_and_of_tables_the_newest() {
        let store = tempfile::tempdir().unwrap();
        let recipe = "ab".repeat(32);
        let finished = |node: &str, asked: &str, rows: u64, at: f64| {
            format!(
                r#"{{"event":"finished","node":"{node}","recipe":"{recipe}","outputs":[{{"port":"out","content":"{recipe}","rows":{rows}}}],"changed":true,"asked":{asked},"rejects":0,"at":{at}}}"#
            )
        };
        let started =
            |node: &str| format!(r#"{{"event":"started","node":"{node}","why":{{"reason":"first-run"}},"at":1.0}}"#);
        let (begin, train) = (started("answers"), started("adapter"));
        let stopped = [
            &train,
            &begin,
            r#"{"event":"recalled","node":"answers","rows":10,"of":95,"at":1.5}"#,
            r#"{"event":"tokens","node":"answers","prompt":400,"output":100,"at":8.0}"#,
            r#"{"event":"progress","node":"answers","done":60,"of":95,"at":11.0}"#,
        ];
        recorded(
            store.path(),
            "2026-3",
            "p",
            &[&begin, &finished("answers", "1", 95, 4.0), &train, &finished("adapter", "null", 7, 61.0)],
        );
        recorded(store.path(), "2026-2", "p", &stopped);
        recorded(store.path(), "2026-1", "p", &[&train, &finished("adapter", "null", 7, 9.0)]);
        recorded(store.path(), "2026-4", "other", &[&begin, &finished("answers", "95", 95, 4.0)]);
        let paces = paces(store.path(), "p", &HashMap::from([("answers", true), ("adapter", false)])).unwrap();
        let answers = &paces["answers"];
        assert_eq!((answers.asked, answers.of, answers.tokens, answers.seconds), (50, 95, 500, 10.0));
        assert_eq!(answers.outputs["out"], 95, "as the run says that came to an end");
        assert_eq!((paces["adapter"].seconds, paces.len()), (60.0, 2));
    }
}

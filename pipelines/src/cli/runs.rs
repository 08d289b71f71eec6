//! `retort runs`: the runs in the store, newest first.

use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use retort_engine::OpInfo;
use serde_json::{Value, json};

use super::pipeline::StoreArgs;
use super::stop::{Ended, Result, Stop, say};
use super::workplace::{root, width_of_stdout};
use crate::history::{self, Found, Run, Unreadable, asked};
use crate::load::{LoadOptions, load};
use crate::observe::words;
use crate::tables::{Column, Grid};

/// Runs that a grid shows, where no number is named.
const SHOWN: usize = 20;
/// Runs that are read at a time.
const AT_A_TIME: usize = 512;
/// Runs that a message names.
const NAMED: usize = 5;

/// Arguments of `runs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only runs of this pipeline: its YAML file, or its name
    #[arg(value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Runs at most [default: 20 as a table, else all]
    #[arg(long, short = 'n', value_name = "N")]
    number: Option<usize>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// A run with its place, counted from the newest.
struct Placed {
    place: usize,
    id: String,
    run: std::result::Result<Run, Unreadable>,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let file = args.pipeline.as_deref().filter(|path| path.exists());
    let root = root(file, args.store.folder.as_deref())?;
    let name = args.pipeline.as_deref().map(|pipeline| name(pipeline, file, ops));
    let ids = history::ids(&root)?;
    let most = args.number.unwrap_or(if args.json { usize::MAX } else { SHOWN });
    let runs = newest(&root, &ids, name.as_deref(), most);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({"runs": runs.iter().map(object).collect::<Vec<_>>()}))?;
        return Ok(Ended::DONE);
    }
    if runs.is_empty() {
        let of = name.map(|name| format!(" of `{name}`")).unwrap_or_default();
        say(&format!("no runs{of} in `{}`", root.display()));
        return Ok(Ended::DONE);
    }
    out.write_all(grid(&runs).render(width_of_stdout()).as_bytes())?;
    out.flush()?;
    if name.is_none() && runs.len() < ids.len() {
        say(&format!(
            "{} of {}; `-n` shows more",
            words::number(runs.len() as u64),
            words::count(ids.len() as u64, "run")
        ));
    }
    Ok(Ended::DONE)
}

/// The pipeline's name: as its file says, or else the file's own, or what was typed.
pub(super) fn name(pipeline: &Path, file: Option<&Path>, ops: &[OpInfo]) -> String {
    let typed = pipeline.display().to_string();
    let Some(file) = file else { return typed };
    let stem = || file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    load(file, &LoadOptions::default(), ops).map_or_else(|_| stem().unwrap_or(typed), |loaded| loaded.name)
}

/// The newest run of a pipeline, by its name.
pub(super) fn newest_of(root: &Path, name: &str) -> Result<Option<Run>> {
    let runs = newest(root, &history::ids(root)?, Some(name), 1);
    Ok(runs.into_iter().next().and_then(|placed| placed.run.ok()))
}

/// The newest runs. Records are read side by side, and no more than are needed.
fn newest(root: &Path, ids: &[String], name: Option<&str>, most: usize) -> Vec<Placed> {
    let mut runs = Vec::new();
    let step = if name.is_none() { most.clamp(1, AT_A_TIME) } else { AT_A_TIME };
    for (ids, first) in ids.chunks(step).zip((1..).step_by(step)) {
        let read: Vec<_> = ids.par_iter().map(|id| history::read(root, id)).collect();
        let placed = ids.iter().zip(read).zip(first..).map(|((id, run), place)| Placed { place, id: id.clone(), run });
        runs.extend(
            placed.filter(|placed| {
                name.is_none_or(|name| placed.run.as_ref().is_ok_and(|run| run.asked.pipeline == name))
            }),
        );
        if runs.len() >= most {
            break;
        }
    }
    runs.truncate(most);
    runs
}

fn grid(runs: &[Placed]) -> Grid {
    let columns = [
        ("", false),
        ("run, by its time in UTC", false),
        ("pipeline", false),
        ("status", false),
        ("ran", true),
        ("fresh", true),
        ("failed", true),
        ("time", true),
        ("asked", false),
    ];
    let mut grid = Grid::new(columns.map(|(name, right)| Column::new(name, right)));
    for Placed { place, id, run } in runs {
        let head = [format!("@{place}"), id.clone()];
        let tail = match run {
            Ok(run) => {
                let count = |of: fn(&history::Counts) -> u64| run.counts.as_ref().map(of).map(words::number);
                [
                    Some(run.asked.pipeline.clone()),
                    Some(run.status.word().into()),
                    count(|counts| counts.ran),
                    count(|counts| counts.fresh),
                    count(|counts| counts.failed),
                    run.counts.map(|counts| words::duration(counts.seconds)),
                    Some(asked(&run.asked)),
                ]
                .map(Option::unwrap_or_default)
            }
            Err(why) => ["", "unreadable", "", "", "", "", &why.to_string()].map(String::from),
        };
        grid.push(head.into_iter().chain(tail));
    }
    grid
}

fn object(placed: &Placed) -> Value {
    let run = match &placed.run {
        Ok(run) => run,
        Err(why) => return json!({"id": placed.id, "status": "unreadable", "problem": why.to_string()}),
    };
    let mut object = json!({
        "id": run.id,
        "began": run.began,
        "retort": run.retort,
        "pipeline": run.asked.pipeline,
        "status": run.status,
        "asked": run.asked,
    });
    if let Some(counts) = run.counts {
        object["ran"] = json!(counts.ran);
        object["fresh"] = json!(counts.fresh);
        object["failed"] = json!(counts.failed);
        object["skipped"] = json!(counts.skipped);
        object["seconds"] = json!(counts.seconds);
    }
    object
}

/// The run that a name means, with its record.
pub(super) fn named(root: &Path, name: &str) -> Result<Run> {
    let ids = history::ids(root)?;
    match history::find(&ids, name) {
        Found::One(id) => {
            history::read(root, &id).map_err(|why| Stop::wrong(format!("run `{id}` can't be read: {why}")))
        }
        Found::None => {
            let hint = "`retort runs` lists them; `@1` is the newest";
            Err(Stop::wrong(format!("no run `{name}` in `{}`", root.display())).hint(hint))
        }
        Found::Several(ids) => {
            let more = if ids.len() > NAMED { ", …" } else { "" };
            let some = ids.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(Stop::wrong(format!("{} begin with `{name}`", words::count(ids.len() as u64, "run")))
                .hint(format!("name one: {some}{more}")))
        }
    }
}

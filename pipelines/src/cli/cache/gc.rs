//! `retort cache gc`: says what would go, and with `--yes` removes it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use retort_cache::gc::{self, Freed, Item, Kind, Plan, Reach, Root, Rules};
use retort_cache::{Recipe, StoreError};
use retort_engine::{OpInfo, op_facts};
use serde_json::{Value, json};

use super::super::pipeline::StoreArgs;
use super::super::stop::{Ended, Result, Stop, say, warn};
use super::super::workplace::Workplace;
use super::existing;
use crate::load::{LoadOptions, load};
use crate::observe::words;
use crate::tables::{Column, Grid};

/// What nobody has used for so long goes, if nothing else is said.
const OLD: Duration = Duration::from_hours(30 * 24);
/// Things that are named one by one.
const NAMED: usize = 10;

/// Arguments of `cache gc`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Pipelines whose newest answers stay, with their remembered rows and models [default: every pipeline in the store]
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<PathBuf>,
    /// What else was not used for so long goes: `12h`, `30d`, `8w` [default: 30d, or never with --max-size]
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// What else was not used for the longest goes until the store fits: `500MB`, `10GB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Removes it; without this nothing is removed
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let root = existing(args.pipelines.first().map(PathBuf::as_path), &args.store)?;
    let older_than = args.older_than.or(args.max_size.is_none().then_some(OLD));
    let rules = Rules { reach: args.reach(ops)?, older_than, max_size: args.max_size, now: SystemTime::now() };
    let plan = gc::plan(&root, &rules)?;
    let freed = if args.yes { Some(gc::sweep(&root, &rules, &plan).map_err(no_locks)?) } else { None };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", object(&root, &plan, freed.as_ref(), rules.now))?;
        return Ok(Ended::DONE);
    }
    if !plan.items.is_empty() {
        out.write_all(kinds(&plan, freed.as_ref()).render(None).as_bytes())?;
    }
    if freed.is_none() && !plan.items.is_empty() {
        writeln!(out)?;
        out.write_all(largest(&plan, rules.now).render(None).as_bytes())?;
    }
    writeln!(out, "{}", conclusion(&plan, freed.as_ref()))?;
    if plan.users > 0 {
        let who =
            if plan.users == 1 { "one process uses".to_string() } else { format!("{} processes use", plan.users) };
        say(&format!("{who} the store now; what is in use stays"));
    }
    let left = plan.total - freed.as_ref().map_or_else(|| plan.bytes(), Freed::bytes);
    if let Some(most) = args.max_size.filter(|most| left > *most) {
        warn(&format!(
            "{} are more than {}: what is left is reachable or in use",
            words::bytes(left),
            words::bytes(most)
        ));
    }
    Ok(Ended::DONE)
}

impl Args {
    /// From where things are reached: the nodes of the pipelines that are named, or all links.
    fn reach(&self, ops: &[OpInfo]) -> Result<Reach> {
        if self.pipelines.is_empty() {
            return Ok(Reach::Views);
        }
        let mut roots = Vec::new();
        let events = |_: &retort_engine::Event| ();
        for path in &self.pipelines {
            let options = LoadOptions::default();
            let loaded = load(path, &options, ops).map_err(|mistakes| Stop::Mistakes(Box::new(mistakes)))?;
            let place = Workplace::look(Some(path), self.store.folder.as_deref())?;
            for id in loaded.graph.order() {
                let facts = op_facts(loaded.graph.node(*id), place.world(&events))?;
                let assets = facts.iter().filter(|fact| fact.name.starts_with("asset."));
                roots.push(Root {
                    node: loaded.graph.store_name(*id),
                    assets: assets.map(|fact| fact.value.clone()).collect(),
                    op: Recipe { op: facts.clone(), inputs: Vec::new() }.op_id(),
                });
            }
        }
        Ok(Reach::Nodes(roots))
    }
}

/// Without locks nobody can tell what a run uses.
fn no_locks(error: StoreError) -> Stop {
    let is_lock = matches!(&error, StoreError::Io { verb: "lock", .. });
    let stop = Stop::from(error);
    if is_lock {
        stop.hint("the store's file system has no locks, so nobody can tell whether a run uses it")
    } else {
        stop
    }
}

fn kinds(plan: &Plan, freed: Option<&Freed>) -> Grid {
    let what = if freed.is_some() { "removed" } else { "would go" };
    let mut grid = Grid::new([Column::new("kind", false), Column::new(what, true), Column::new("size", true)]);
    for kind in Kind::ALL {
        let (n, bytes) = match freed {
            Some(freed) => freed.kinds.get(&kind).copied().unwrap_or_default(),
            None => count(plan, kind),
        };
        if n > 0 {
            grid.push([kind.word().to_string(), words::number(n), words::bytes(bytes)]);
        }
    }
    grid
}

fn count(plan: &Plan, kind: Kind) -> (u64, u64) {
    let items = plan.items.iter().filter(|item| item.kind == kind);
    items.fold((0, 0), |(n, bytes), item| (n + 1, bytes + item.bytes))
}

fn largest(plan: &Plan, now: SystemTime) -> Grid {
    let columns = [("largest", true), ("kind", false), ("last used", false), ("of", false)];
    let mut grid = Grid::new(columns.map(|(name, right)| Column::new(name, right)));
    let mut items: Vec<&Item> = plan.items.iter().collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    for item in items.into_iter().take(NAMED) {
        let of = words::value(&item.about);
        grid.push([words::bytes(item.bytes), item.kind.word().to_string(), ago(now, item.used), of]);
    }
    grid
}

fn conclusion(plan: &Plan, freed: Option<&Freed>) -> String {
    let total = words::bytes(plan.total);
    match freed {
        None if plan.items.is_empty() => format!("nothing of {total} would go"),
        None => format!("{} of {total} would go; `--yes` removes it", words::bytes(plan.bytes())),
        Some(freed) if freed.spared > 0 => {
            let spared = words::count(freed.spared, "thing");
            format!("removed {} of {total}; {spared} stayed: they were used meanwhile", words::bytes(freed.bytes()))
        }
        Some(freed) => format!("removed {} of {total}", words::bytes(freed.bytes())),
    }
}

fn object(root: &Path, plan: &Plan, freed: Option<&Freed>, now: SystemTime) -> Value {
    let kind = |kind: Kind| {
        let (n, bytes) =
            freed.map_or_else(|| count(plan, kind), |freed| freed.kinds.get(&kind).copied().unwrap_or_default());
        json!({"kind": kind.word(), "items": n, "bytes": bytes})
    };
    let item = |item: &Item| {
        let seconds = now.duration_since(item.used).unwrap_or_default().as_secs();
        json!({"kind": item.kind.word(), "path": item.path, "of": item.about, "bytes": item.bytes, "unused_seconds": seconds})
    };
    json!({
        "store": root,
        "dry_run": freed.is_none(),
        "total": plan.total,
        "bytes": freed.map_or_else(|| plan.bytes(), Freed::bytes),
        "spared": freed.map_or(0, |freed| freed.spared),
        "users": plan.users,
        "kinds": Kind::ALL.into_iter().map(kind).collect::<Vec<_>>(),
        "items": plan.items.iter().map(item).collect::<Vec<_>>(),
    })
}

fn ago(now: SystemTime, used: SystemTime) -> String {
    let seconds = now.duration_since(used).unwrap_or_default().as_secs();
    let (n, unit) = match seconds {
        0..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", words::count(n, unit))
}

/// `90s`, `12h`, `30d`, `8w`.
fn age(text: &str) -> std::result::Result<Duration, String> {
    let units = [("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0), ("w", 604_800.0)];
    let seconds = measured(text, &units).ok_or("expected a number and a unit: `90s`, `30min`, `12h`, `30d`, `8w`")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// `500MB`, `10GB`, `2GiB`.
fn size(text: &str) -> std::result::Result<u64, String> {
    const K: f64 = 1024.0;
    let units = [
        ("B", 1.0),
        ("kB", 1e3),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", K),
        ("MiB", K * K),
        ("GiB", K * K * K),
        ("TiB", K * K * K * K),
    ];
    let bytes = measured(text, &units).ok_or("expected a number and a unit: `500MB`, `10GB`, `2GiB`")?;
    Ok(bytes as u64)
}

fn measured(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_have_units() {
        assert_eq!(age("30d").unwrap(), OLD);
        assert_eq!(age("1.5h").unwrap(), Duration::from_mins(90));
        assert_eq!(["10GB", "1.5kB", "2 MiB"].map(|text| size(text).unwrap()), [10_000_000_000, 1500, 2 << 20]);
        for wrong in ["", "30", "d", "-1d", "3 fortnights", "10gb"] {
            assert!(age(wrong).is_err() && size(wrong).is_err(), "{wrong}");
        }
    }
}

//! `retort diff`: what differs between two runs, or two pipelines, or a run and a pipeline.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use retort_cache::Change;
use retort_engine::OpInfo;
use serde_json::json;

use super::pipeline::StoreArgs;
use super::runs::named;
use super::stop::{Ended, Result, Stop};
use super::workplace::Workplace;
use crate::history::{self, Difference, FactDiff, MetricDiff, NodeDiff, RowDiff, RowsDiff, Side, TableDiff, parts};
use crate::load::{LoadOptions, load};
use crate::observe::words;

/// Rows of each kind that are shown of a table, where no number is named.
const SHOWN: usize = 3;
/// The longest that a value is shown.
const LONGEST: usize = 80;
/// Values of a row that are shown.
const CELLS: usize = 8;

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The old side: a run (`@2`, a name or its beginning) or a pipeline's YAML file
    #[arg(value_name = "A")]
    old: String,
    /// The new side
    #[arg(value_name = "B")]
    new: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Only what differs in this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Rows that are shown of a table, of each kind [default: 3]
    #[arg(long, short = 'n', value_name = "N", default_value_t = SHOWN, hide_default_value = true)]
    rows: usize,
    /// Ends with status 1 where something differs
    #[arg(long)]
    exit_code: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let file = [&args.old, &args.new].map(|side| as_file(side)).into_iter().flatten().next();
    let place = Workplace::look(file.as_deref(), args.store.folder.as_deref())?;
    let events = |_: &retort_engine::Event| ();
    let world = place.world(&events);
    let (old, new) = (side(&args.old, &place, ops)?, side(&args.new, &place, ops)?);
    place.save();
    if let Some(node) = &args.node
        && old.find(node).is_none()
        && new.find(node).is_none()
    {
        let names = || old.nodes.iter().chain(&new.nodes).map(|node| node.name.as_str());
        let hint = format!(
            "their nodes are {}",
            names().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
        );
        return Err(Stop::wrong(format!("neither side has a node `{node}`")).did_you_mean(node, names(), hint));
    }
    let wanted = |name: &str| args.node.as_ref().is_none_or(|node| node == name);
    let difference = history::between(&old, &new, &wanted, world.store, args.rows)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut object = serde_json::to_value(&difference).unwrap_or_default();
        object["old"] = json!(old.title);
        object["new"] = json!(new.title);
        object["different"] = json!(!difference.is_none());
        writeln!(out, "{object}")?;
    } else {
        out.write_all(told(&old, &new, &difference).as_bytes())?;
    }
    Ok(if args.exit_code && !difference.is_none() { Ended::FAILED } else { Ended::DONE })
}

/// A side is a file where there is one of that name.
fn as_file(side: &str) -> Option<PathBuf> {
    let path = Path::new(side);
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    (path.is_file() || is_yaml).then(|| path.into())
}

fn side(text: &str, place: &Workplace, ops: &[OpInfo]) -> Result<Side> {
    let Some(path) = as_file(text) else {
        let run = named(&place.root, text)?;
        return Ok(history::of_run(&place.root, &retort_cache::Disk::open(&place.root)?, &run)?);
    };
    let loaded = load(&path, &LoadOptions::default(), ops).map_err(|mistakes| Stop::Mistakes(Box::new(mistakes)))?;
    let events = |_: &retort_engine::Event| ();
    Ok(history::of_pipeline(&path, &loaded.graph, place.world(&events))?)
}

fn told(old: &Side, new: &Side, difference: &Difference) -> String {
    let mut text = format!("- {}\n+ {}\n", old.title, new.title);
    for node in &difference.nodes {
        let op = node.op.as_ref().map(|op| format!(" ({op})")).unwrap_or_default();
        let _ = writeln!(text, "\n{}{op}", node.node);
        node_told(node, &mut text);
    }
    text.push('\n');
    for (names, what) in [(&difference.only_old, "- only there"), (&difference.only_new, "+ only here")] {
        if !names.is_empty() {
            let _ = writeln!(text, "{what}: {}", names.join(", "));
        }
    }
    if !difference.same.is_empty() {
        let _ = writeln!(text, "the same: {}", difference.same.join(", "));
    }
    text
}

fn node_told(node: &NodeDiff, text: &mut String) {
    let mut line = |line: String| {
        text.push_str("  ");
        text.push_str(&line);
        text.push('\n');
    };
    match &node.state {
        (old, new) if old != new => line(format!("{old} → {new}")),
        (old, _) if old != "answered" => line(old.clone()),
        _ => {}
    }
    for fact in &node.facts {
        let mut lines = fact_told(fact).into_iter();
        lines.next().into_iter().for_each(&mut line);
        lines.for_each(|more| line(format!("  {more}")));
    }
    if node.same_question_other_answer {
        line("the same question had another answer".into());
    }
    for table in &node.tables {
        table_told(table).into_iter().for_each(&mut line);
    }
    for MetricDiff { name, old, new } in &node.metrics {
        let [old, new] = [old, new].map(|value| value.map_or("-".to_string(), words::measure));
        line(if old == new { format!("{name}: {old}") } else { format!("{name}: {old} → {new}") });
    }
}

/// `input.from (chunks) 8c2f… → 51ab…`, or all that changed of a text.
fn fact_told(fact: &FactDiff) -> Vec<String> {
    let change = Change { fact: fact.fact.clone(), old: fact.old.clone(), new: fact.new.clone() };
    let Some((old, new)) = &fact.from else { return history::details(&change) };
    let names = match (old, new) {
        (Some(old), Some(new)) if old == new => format!(" ({new})"),
        (None, None) => String::new(),
        (old, new) => {
            let name = |side: &Option<String>| side.clone().unwrap_or_else(|| "?".into());
            format!(" ({} → {})", name(old), name(new))
        }
    };
    vec![words::change(&Change { fact: format!("{}{names}", fact.fact), ..change })]
}

fn table_told(table: &TableDiff) -> Vec<String> {
    let rows = |side: &Option<retort_engine::event::OutputSummary>| {
        side.as_ref().map_or("no table".to_string(), |table| words::count(table.rows, "row"))
    };
    let head = format!("{}: {} → {}", table.port, rows(&table.old), rows(&table.new));
    let Some(diff) = &table.rows else {
        let gone = table.old.is_some() && table.new.is_some();
        return vec![if gone { format!("{head}; a table is gone from the store") } else { head }];
    };
    let mut lines = vec![format!("{head}: {}", counts(diff))];
    for (names, what) in [(&diff.columns_added, "new"), (&diff.columns_removed, "gone")] {
        if !names.is_empty() {
            lines.push(format!("  {what} columns: {}", names.join(", ")));
        }
    }
    lines.extend(diff.shown.iter().flat_map(row_told));
    lines
}

/// `12 same, 1 changed, 2 added, by chunk_id`.
pub(super) fn counts(diff: &RowsDiff) -> String {
    let all = [(diff.same, "same"), (diff.changed, "changed"), (diff.added, "added"), (diff.removed, "removed")];
    let counts: Vec<_> =
        all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", words::number(*n))).collect();
    match (counts.is_empty(), diff.matched_by.is_empty()) {
        (true, _) => "no rows differ, but their order or columns".into(),
        (false, true) => counts.join(", "),
        (false, false) => format!("{}, by {}", counts.join(", "), diff.matched_by.join(", ")),
    }
}

fn row_told(row: &RowDiff) -> Vec<String> {
    let (mark, at) = match (row.old, row.new) {
        (Some(_), Some(new)) => ("~", new),
        (None, new) => ("+", new.unwrap_or_default()),
        (Some(old), None) => ("-", old),
    };
    let name = named_row(row);
    let mut lines =
        vec![format!("  {mark} row {}{}{name}", words::number(at), if name.is_empty() { "" } else { ", " })];
    lines.extend(row.cells.iter().take(CELLS).map(|cell| format!("      {}: {}", cell.column, cell_told(cell))));
    if row.cells.len() > CELLS {
        let more = words::count((row.cells.len() - CELLS) as u64, "more column");
        lines.push(format!("      … and {more}"));
    }
    lines
}

/// A value, or what changed of it. What is nested is longer than it says.
fn cell_told(cell: &history::Cell) -> String {
    let is_nested = |text: &&str| text.starts_with("[{") || text.starts_with('{');
    let cut = |text: &str| words::cut_middle(text, LONGEST);
    match (cell.old.as_deref(), cell.new.as_deref()) {
        (Some(old), Some(new)) if is_nested(&old) || is_nested(&new) => "changed".into(),
        (Some(old), Some(new)) if words::is_digest(old) => format!("{} → {}", words::value(old), words::value(new)),
        (Some(old), Some(new)) => {
            let (old, new) = parts(old, new);
            format!("{} → {}", cut(&old), cut(&new))
        }
        (Some(one), None) | (None, Some(one)) if is_nested(&one) => "…".into(),
        (Some(one), None) | (None, Some(one)) if words::is_digest(one) => words::value(one),
        (Some(one), None) | (None, Some(one)) => cut(one),
        (None, None) => String::new(),
    }
}

/// What names a row, in words.
pub(super) fn named_row(row: &RowDiff) -> String {
    let name = row.name.iter().map(|(column, value)| format!("{column} {}", words::cut_middle(value, 50)));
    name.collect::<Vec<_>>().join(", ")
}

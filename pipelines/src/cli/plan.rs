//! `retort plan`: the verdict of every node with its reasons and what it is expected to take, nothing run.

use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::Path;

use retort_cache::Change;
use retort_engine::{NodePlan, OpInfo, Operator, Reason, Verdict};
use serde_json::{Value, json};

use super::causes::Causes;
use super::pipeline::{PipelineArgs, nodes};
use super::remote::RemoteArgs;
use super::stop::{Ended, Result, warn};
use super::workplace::width_of_stdout;
use crate::expect::{Expected, expect};
use crate::history::{self, Paces};
use crate::observe::{TOLD, words};
use crate::tables::{Column, Grid};

/// Reasons of a node that are shown.
const SHOWN: usize = 8;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Nodes to plan for, with all that they need [default: all]
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    // The process ends with the command: taking a large graph apart would only delay it.
    let loaded = ManuallyDrop::new(args.pipeline.load(ops)?);
    let targets = nodes(&loaded.graph, &args.nodes)?;
    let (place, far) = args.remote.look(&args.pipeline)?;
    let events = |_: &retort_engine::Event| ();
    let plans = retort_engine::plan(&loaded.graph, &targets, place.world(&events));
    place.save();
    let plans = ManuallyDrop::new(plans?);
    let causes = Causes::of(&loaded.graph, &plans, place.world(&events));
    let expected = expected(&causes, &plans, &place.root)?;
    place.world(&events).store.told().iter().for_each(|text| warn(text));
    if let Some(far) = far {
        far.say();
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        let nodes = plans.iter().zip(&expected).map(|(plan, expected)| object(&causes, plan, expected));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        writeln!(out, "{}", json!({ "nodes": nodes }))?;
    } else {
        out.write_all(table(&causes, &plans, &expected)?.render(width_of_stdout()).as_bytes())?;
        let seconds = in_all(&expected).map(|seconds| format!(": {} by what the runs before took", time(seconds)));
        writeln!(out, "{}{}", conclusion(&plans), seconds.unwrap_or_default())?;
    }
    Ok(Ended::DONE)
}

/// What each node is expected to take, by the newest runs of the pipeline.
fn expected(causes: &Causes<'_>, plans: &[NodePlan], root: &Path) -> Result<Vec<Expected>> {
    let to_run = plans.iter().filter(|plan| plan.verdict != Verdict::Fresh).map(|plan| causes.graph.node(plan.id));
    let wanted: history::Wanted<'_> =
        to_run.map(|node| (node.name.as_str(), matches!(node.made.operator, Operator::Rows(_)))).collect();
    let paces = if wanted.is_empty() { Paces::default() } else { history::paces(root, causes.graph.name(), &wanted)? };
    Ok(expect(causes.graph, plans, &paces, &|plan| causes.changed(plan)))
}

fn object(causes: &Causes<'_>, plan: &NodePlan, expected: &Expected) -> Result<Value> {
    let node = causes.graph.node(plan.id);
    let (verdict, reasons) = match &plan.verdict {
        Verdict::Fresh => ("fresh", Vec::new()),
        Verdict::Stale(reason) => ("stale", changes(reason)),
        Verdict::Waiting(changes) => ("waiting", changes.clone()),
    };
    let reason = |change: &Change| -> Result<Value> {
        let mut reason = serde_json::to_value(change).unwrap_or_default();
        if let Some(cause) = causes.input(plan.id, change)? {
            reason["from"] = json!(cause.from);
            reason["rows"] = json!(cause.rows);
        }
        Ok(reason)
    };
    let mut object = json!({
        "node": node.name,
        "op": node.op,
        "verdict": verdict,
        "reasons": reasons.iter().map(reason).collect::<Result<Vec<_>>>()?,
        "rows": plan.to_do.or(plan.rows),
    });
    if *expected != Expected::default() {
        object["expected"] = json!(expected);
    }
    if matches!(plan.verdict, Verdict::Waiting(_)) {
        object["waits_for"] =
            causes.waits_for(plan.id).into_iter().map(|id| &causes.graph.node(id).name).cloned().collect();
    }
    Ok(object)
}

/// What is no changed fact is a fact of its own, that was not so before.
fn changes(reason: &Reason) -> Vec<Change> {
    let fact = |name: &str| vec![Change { fact: name.into(), old: None, new: Some("true".into()) }];
    match reason {
        Reason::FirstRun => fact("first-run"),
        Reason::Forced => fact("forced"),
        Reason::Verify => fact("verify"),
        Reason::Lost => fact("tables-lost"),
        Reason::Changed { changes } => changes.clone(),
    }
}

fn table(causes: &Causes<'_>, plans: &[NodePlan], expected: &[Expected]) -> Result<Grid> {
    let tokens = expected.iter().any(|expected| expected.tokens.is_some());
    let seconds = in_all(expected).is_some();
    let columns = [("node", false, true), ("verdict", false, true), ("rows", true, true)].into_iter();
    let columns = columns.chain([("tokens", true, tokens), ("time", true, seconds), ("why", false, true)]);
    let columns: Vec<_> = columns.filter(|(.., there)| *there).collect();
    let mut grid = Grid::new(columns.iter().map(|(name, right, _)| Column::new(*name, *right)));
    let told = |(plan, _): &(&NodePlan, &Expected)| plans.len() <= TOLD || plan.verdict != Verdict::Fresh;
    for (plan, expected) in plans.iter().zip(expected).filter(told) {
        let verdict = match &plan.verdict {
            Verdict::Fresh => "fresh",
            Verdict::Stale(_) => "stale",
            Verdict::Waiting(_) => "waiting",
        };
        let rows = match (plan.to_do, plan.rows, expected.rows) {
            (Some(to_do), Some(rows), _) => format!("{} of {}", words::number(to_do), words::number(rows)),
            (_, Some(rows), _) => words::number(rows),
            (_, None, Some(rows)) => about(&words::number(rows)),
            (_, None, None) => String::new(),
        };
        let mut cells = vec![causes.graph.node(plan.id).name.clone(), verdict.into(), rows];
        cells.extend(tokens.then(|| expected.tokens.map(|n| about(&words::number(n))).unwrap_or_default()));
        cells.extend(seconds.then(|| expected.seconds.map(time).unwrap_or_default()));
        let mut why = why(causes, plan)?.into_iter();
        cells.push(why.next().unwrap_or_default());
        grid.push(cells);
        why.for_each(|why| grid.push((1..columns.len()).map(|_| String::new()).chain([why])));
    }
    Ok(grid)
}

/// What is expected, and not known: `~12 s`.
fn about(text: &str) -> String {
    format!("~{text}")
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 { "<1 s".into() } else { about(&words::duration(seconds)) }
}

/// Seconds that all of it is expected to take, where that is worth a word.
fn in_all(expected: &[Expected]) -> Option<f64> {
    Some(expected.iter().filter_map(|expected| expected.seconds).sum()).filter(|seconds| *seconds >= 1.0)
}

/// The reasons of a node, and under each what it comes down to.
fn why(causes: &Causes<'_>, plan: &NodePlan) -> Result<Vec<String>> {
    let changes = match &plan.verdict {
        Verdict::Fresh => return Ok(Vec::new()),
        Verdict::Waiting(changes) if changes.is_empty() => return Ok(vec![causes.waiting(plan.id, false)]),
        Verdict::Waiting(changes) | Verdict::Stale(Reason::Changed { changes }) => changes,
        Verdict::Stale(reason) => return Ok(words::reasons(reason)),
    };
    let mut why = Vec::new();
    let shown = if changes.len() > SHOWN + 1 { SHOWN } else { changes.len() };
    for change in &changes[..shown] {
        let mut lines = match causes.input(plan.id, change)? {
            Some(cause) => cause.told(change),
            None => history::details(change),
        }
        .into_iter();
        why.extend(lines.next());
        why.extend(lines.map(|line| format!("  {line}")));
    }
    if shown < changes.len() {
        why.push(format!("and {} more", changes.len() - shown));
    }
    if matches!(plan.verdict, Verdict::Waiting(_)) {
        why.push(causes.waiting(plan.id, true));
    }
    Ok(why)
}

fn conclusion(plans: &[NodePlan]) -> String {
    let fresh = plans.iter().filter(|plan| plan.verdict == Verdict::Fresh).count() as u64;
    let also = if plans.len() > TOLD { format!(", {} fresh", words::number(fresh)) } else { String::new() };
    format!("{}{also}", to_run(plans))
}

fn to_run(plans: &[NodePlan]) -> String {
    let n = |wanted: fn(&Verdict) -> bool| plans.iter().filter(|plan| wanted(&plan.verdict)).count() as u64;
    let stale = n(|verdict| matches!(verdict, Verdict::Stale(_)));
    let waiting = n(|verdict| matches!(verdict, Verdict::Waiting(_)));
    match (stale, waiting) {
        (0, 0) => "nothing to run".into(),
        (_, 0) => format!("{} to run", words::count(stale, "node")),
        _ => format!("{} to run, {} that may have to", words::count(stale, "node"), words::number(waiting)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_fact() {
        assert_eq!(changes(&Reason::FirstRun)[0].fact, "first-run");
        let change = Change { fact: "with.epochs".into(), old: Some("1".into()), new: Some("2".into()) };
        let shown = serde_json::to_value(changes(&Reason::Changed { changes: vec![change] })).unwrap();
        assert_eq!(shown, json!([{"fact": "with.epochs", "old": "1", "new": "2"}]));
    }
}

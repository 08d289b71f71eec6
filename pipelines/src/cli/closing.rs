//! What a run says last: its nodes, and the small tables that tell what came out.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use retort_engine::event::OutputSummary;
use retort_engine::graph::{FILES_PORT, REJECTS_PORT};
use retort_engine::{Event, Graph, Summary};

use super::workplace::Workplace;
use crate::history::losses;
use crate::observe::{State, TOLD, Tally, words};
use crate::report::Exam;
use crate::tables::{self, Column, Grid};

/// Rows of the table of nodes, at most.
const ROWS: usize = 200;
/// A table of the port `summary` is shown if it has no more rows than this.
const FEW: u64 = 8;

/// A line a node, and one for the run. Where there are many nodes, only those to which something happened have one.
pub(super) fn nodes(nodes: &[(String, Tally)], summary: &Summary, seconds: f64) -> String {
    let columns = [("node", false), ("", false), ("rows", true), ("rejects", true), ("asked", true), ("time", true)];
    let mut grid = Grid::new(columns.map(|(name, right)| Column::new(name, right)));
    let idle = |tally: &Tally| matches!(tally.state, State::Fresh | State::Skipped(_) | State::Waiting);
    let told = |tally: &Tally| nodes.len() <= TOLD || !idle(tally);
    for (name, tally) in nodes.iter().filter(|(_, tally)| told(tally)).take(ROWS) {
        let ran = tally.state == State::Ran;
        grid.push([
            name.clone(),
            tally.state.word().into(),
            rows(tally),
            Some(tally.rejects()).filter(|n| *n > 0).map(words::number).unwrap_or_default(),
            tally.asked.map(words::number).unwrap_or_default(),
            if ran { words::duration(tally.seconds()) } else { String::new() },
        ]);
    }
    let n_told = nodes.iter().filter(|(_, tally)| told(tally)).count();
    let table = match n_told {
        0 => String::new(),
        n if n > ROWS => format!("{}… and {} more\n\n", grid.render(None), words::number((n - ROWS) as u64)),
        _ => format!("{}\n", grid.render(None)),
    };
    format!("{table}{}\n", conclusion(summary, seconds))
}

/// `24`, or `112 train, 13 eval` where there are several outputs. Only outputs of data are named.
fn rows(tally: &Tally) -> String {
    let data = |out: &&OutputSummary| out.port != REJECTS_PORT && out.port != FILES_PORT;
    let outputs: Vec<_> = tally.outputs.iter().filter(data).collect();
    match outputs.as_slice() {
        [one] => words::number(one.rows),
        several => {
            several.iter().map(|out| format!("{} {}", words::number(out.rows), out.port)).collect::<Vec<_>>().join(", ")
        }
    }
}

fn conclusion(summary: &Summary, seconds: f64) -> String {
    let all =
        [(summary.ran, "ran"), (summary.fresh, "fresh"), (summary.failed, "failed"), (summary.skipped, "not run")];
    let counts = all.iter().filter(|(n, _)| *n > 0);
    let counts: Vec<_> = counts.map(|(n, what)| format!("{} {what}", words::number(*n as u64))).collect();
    format!("{} in {}", counts.join(", "), words::duration(seconds))
}

/// Small tables of the port `summary`, and first, best and last value of what the port `metrics` logged.
pub(super) fn tables(graph: &Graph, nodes: &[(String, Tally)], place: &Workplace, width: Option<usize>) -> String {
    let mut text = String::new();
    for (name, tally) in nodes {
        let op = graph.find(name).map(|id| graph.node(id).op.clone()).unwrap_or_default();
        for out in &tally.outputs {
            let grid = match out.port.as_str() {
                "summary" if out.rows <= FEW => read(out, place).map(|batch| summary(&batch)),
                "metrics" => read(out, place).and_then(|batch| metrics(&batch)),
                _ => None,
            };
            if let Some(grid) = grid {
                let _ = writeln!(text, "{name} ({op}, {})\n{}{}", out.port, grid.render(width), notes(out, place));
            }
        }
    }
    text
}

/// A table that can't be read is not shown; the run is told by its state.
fn read(out: &OutputSummary, place: &Workplace) -> Option<RecordBatch> {
    let events = |_: &Event| ();
    place.world(&events).store.open(out.content).ok().flatten()?.read().ok()
}

/// An exam with its scores one below the other, or else the table as it is.
fn summary(batch: &RecordBatch) -> Grid {
    let Some(exam) = Exam::read(batch) else { return tables::grid(batch) };
    let (head, lines) = exam.lines();
    let mut grid = Grid::new(head.into_iter().map(|name| Column::new(name, false)));
    lines.into_iter().for_each(|line| grid.push(line));
    grid
}

/// First, best (smallest) and last of every logged loss.
fn metrics(batch: &RecordBatch) -> Option<Grid> {
    let columns = [("loss", false), ("values", true), ("first", true), ("best", true), ("last", true)];
    let mut grid = Grid::new(columns.map(|(name, right)| Column::new(name, right)));
    let mut n = 0;
    for (name, values) in losses(batch) {
        let (Some(first), Some(last)) = (values.first(), values.last()) else { continue };
        let best = values.iter().copied().fold(f64::INFINITY, f64::min);
        let count = words::number(values.len() as u64);
        grid.push([name, count, words::measure(*first), words::measure(best), words::measure(*last)]);
        n += 1;
    }
    (n > 0).then_some(grid)
}

/// What a log notes: why a phase ended. A table without notes has none.
fn notes(out: &OutputSummary, place: &Workplace) -> String {
    let Some(batch) = read(out, place).filter(|_| out.port == "metrics") else { return String::new() };
    let column = |name: &str| batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
    let (Some(notes), phases) = (column("note"), column("phase")) else { return String::new() };
    let phase = |row: usize| phases.map(|phases| format!("{}: ", phases.value(row))).unwrap_or_default();
    let mut text = String::new();
    for row in (0..batch.num_rows()).filter(|row| notes.is_valid(*row)) {
        let _ = writeln!(text, "{}{}", phase(row), notes.value(row));
    }
    text
}

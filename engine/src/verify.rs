//! Recomputes nodes whose answers are known, and compares: the same question must have the same answer.
//!
//! Nothing in the store is replaced. The answer stays as it is recorded, remembered rows are neither taken nor written. A table that
//! comes out differently is kept under its own name, so that a person can lay the two side by side.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use retort_cache::{Batches, Fact, Recipe, RowAnswer, StoreError, Table};

use crate::event::{Event, EventKind, OutputSummary};
use crate::graph::{Graph, NodeId};
use crate::plan::{Reason, recalled};
use crate::question::{Question, Tables};
use crate::rows::Remembered;
use crate::run::{Summary, produce};
use crate::schedule::{chain, guarded};
use crate::{Cx, Failure, Node, Operator, World};

/// Characters of a value that are told.
const LONGEST: usize = 200;

/// Recomputes the targets, or all nodes where none is named. In the summary, those that were recomputed `ran`, those that came out
/// differently or could not answer `failed`, and those whose answers are not known were `skipped`.
pub fn verify(graph: &Graph, targets: &[NodeId], world: World<'_>) -> Summary {
    let (mut known, mut summary) = (HashMap::new(), Summary::default());
    for id in graph.needed(targets) {
        if world.cancelled.load(Ordering::Relaxed) {
            summary.cancelled = true;
            break;
        }
        let wanted = targets.is_empty() || targets.contains(&id);
        match guarded(|| look(graph, id, wanted, &mut known, world)) {
            Ok(Some(same)) => {
                summary.ran += 1;
                summary.failed += usize::from(!same);
            }
            Ok(None) => summary.skipped += usize::from(wanted),
            Err(Failure::Cancelled) => {
                summary.cancelled = true;
                break;
            }
            Err(failure) => {
                summary.failed += 1;
                emit(graph.node(id), EventKind::Failed { error: chain(&failure) }, world);
            }
        }
    }
    summary
}

/// Whether a node came out the same; `None` where it is not recomputed.
fn look(
    graph: &Graph,
    id: NodeId,
    wanted: bool,
    known: &mut HashMap<NodeId, Arc<Tables>>,
    world: World<'_>,
) -> Result<Option<bool>, Failure> {
    let node = graph.node(id);
    let unknown = |because: &str| {
        if wanted {
            emit(node, EventKind::Unverified { because: because.into() }, world);
        }
        Ok(None)
    };
    if !graph.feeds(id).iter().all(|feed| known.contains_key(feed)) {
        return unknown("the answer of a node that feeds it is not known");
    }
    let question = Question::of(graph, id, &|feed| known[&feed].clone(), world)?;
    let Some((_, tables)) = recalled(node, question.recipe.id(), world)? else {
        return unknown("its answer is not known");
    };
    let tables = Arc::new(tables);
    known.insert(id, tables.clone());
    if wanted { recompute(graph, id, &question, &tables, world).map(Some) } else { Ok(None) }
}

fn recompute(graph: &Graph, id: NodeId, question: &Question, old: &Tables, world: World<'_>) -> Result<bool, Failure> {
    let node = graph.node(id);
    // Checkpoints of an attempt to verify are no checkpoints of the answer.
    let mut aside: Recipe = question.recipe.clone();
    aside.op.push(Fact::new("verify", "1"));
    let cx = Cx { world, node: &node.name, recipe: aside.id(), inherits: false };
    cx.emit(EventKind::Started { why: Reason::Verify });
    let made = produce(graph, id, question, Remembered::Leave, &cx)?;
    if matches!(node.made.operator, Operator::Table(_)) {
        let workspace = world.store.workspace(aside.id())?;
        std::fs::remove_dir_all(&workspace).map_err(StoreError::io("remove", &workspace))?;
    }
    let same = differences(node, old, &made.tables, &cx)? == 0 && made.two_answers == 0;
    if same {
        let summary = |((port, _), table): (&(String, _), &Table)| OutputSummary {
            port: port.clone(),
            content: table.id,
            rows: table.rows,
        };
        let outputs = node.ports.iter().zip(&made.tables).map(summary).collect();
        cx.emit(EventKind::Verified { recipe: question.recipe.id(), outputs });
    }
    Ok(same)
}

/// Tells where the tables of an answer that was known and of a new one part. How many do.
pub(crate) fn differences(node: &Node, old: &Tables, new: &Tables, cx: &Cx<'_>) -> Result<usize, Failure> {
    let mut n_differ = 0;
    for ((port, _), (old, new)) in node.ports.iter().zip(old.iter().zip(new)) {
        if old.id == new.id {
            continue;
        }
        n_differ += 1;
        let parted = part(old, new)?;
        cx.emit(parted.told(Some(port.clone()), Some((old.id, new.id))));
    }
    Ok(n_differ)
}

/// Tells the first row whose remembered answer is not the one that was given now. How many there are; `first` is the number of the first row.
pub(crate) fn rows_that_differ(
    remembered: &[Option<RowAnswer>],
    given: &[RowAnswer],
    first: u64,
    is_told: bool,
    cx: &Cx<'_>,
) -> u64 {
    let mut n_differ = 0;
    for (row, (old, new)) in remembered.iter().zip(given).enumerate() {
        let Some(old) = old.as_ref().filter(|old| *old != new) else { continue };
        if n_differ == 0 && !is_told {
            cx.emit(part_of_row(first + row as u64, old, new).told(None, None));
        }
        n_differ += 1;
    }
    n_differ
}

/// Where two tables part.
struct Parted {
    row: u64,
    column: Option<String>,
    old: Option<String>,
    new: Option<String>,
}

impl Parted {
    fn told(
        self,
        port: Option<String>,
        tables: Option<(retort_cache::ContentId, retort_cache::ContentId)>,
    ) -> EventKind {
        let Parted { row, column, old, new } = self;
        let (old, new) = excerpts(old, new);
        EventKind::Differs { port, was: tables.map(|ids| ids.0), now: tables.map(|ids| ids.1), row, column, old, new }
    }
}

fn part_of_row(row: u64, old: &RowAnswer, new: &RowAnswer) -> Parted {
    if let (Some(old), Some(new)) = (old.kept(), new.kept()) {
        let rows = old.num_rows().min(new.num_rows());
        let found = first_cell(&old.batch().slice(0, rows), &new.batch().slice(0, rows));
        if let Some((_, column, old, new)) = found {
            return Parted { row, column: Some(column), old: Some(old), new: Some(new) };
        }
    }
    let said = |answer: &RowAnswer| match answer {
        RowAnswer::Kept(rows) => format!("{} rows", rows.num_rows()),
        RowAnswer::Partly(rows, reason) => format!("{} rows, the rest refused: {reason}", rows.num_rows()),
        RowAnswer::Rejected(reason) => format!("refused: {reason}"),
    };
    Parted { row, column: None, old: Some(said(old)), new: Some(said(new)) }
}

/// The first row and column in which two tables of the same columns differ.
fn part(old: &Table, new: &Table) -> Result<Parted, StoreError> {
    let (mut ours, mut theirs) = (Rows::of(old)?, Rows::of(new)?);
    let mut row = 0;
    loop {
        let n = ours.at_hand()?.min(theirs.at_hand()?);
        if n == 0 {
            let said = |table: &Table| Some(format!("{} rows", table.rows));
            return Ok(Parted { row, column: None, old: said(old), new: said(new) });
        }
        if let Some((at, column, old, new)) = first_cell(&ours.take(n), &theirs.take(n)) {
            return Ok(Parted { row: row + at, column: Some(column), old: Some(old), new: Some(new) });
        }
        row += n as u64;
    }
}

fn first_cell(old: &RecordBatch, new: &RecordBatch) -> Option<(u64, String, String, String)> {
    let columns = || old.columns().iter().zip(new.columns()).enumerate();
    if columns().all(|(_, (old, new))| old.as_ref() == new.as_ref()) {
        return None;
    }
    for row in 0..old.num_rows() {
        for (at, (a, b)) in columns() {
            if a.slice(row, 1).as_ref() != b.slice(row, 1).as_ref() {
                return Some((row as u64, old.schema().field(at).name().clone(), said(a, row), said(b, row)));
            }
        }
    }
    None
}

fn said(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "null".into();
    }
    array_value_to_string(column, row).unwrap_or_else(|error| error.to_string())
}

/// Both values from shortly before they part.
fn excerpts(old: Option<String>, new: Option<String>) -> (Option<String>, Option<String>) {
    let (Some(one), Some(other)) = (&old, &new) else { return (old, new) };
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(LONGEST / 4);
    let excerpt = |text: &String| {
        let mut part: String = text.chars().skip(from).take(LONGEST).collect();
        if from > 0 {
            part.insert(0, '…');
        }
        if text.chars().count() > from + LONGEST {
            part.push('…');
        }
        Some(part)
    };
    (excerpt(one), excerpt(other))
}

/// A table's rows, in as many as are wanted.
struct Rows {
    batches: Batches,
    batch: Option<RecordBatch>,
}

impl Rows {
    fn of(table: &Table) -> Result<Self, StoreError> {
        Ok(Rows { batches: table.batches()?, batch: None })
    }

    /// Rows that can be taken; none at the end.
    fn at_hand(&mut self) -> Result<usize, StoreError> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| batch.num_rows() > 0) {
                return Ok(batch.num_rows());
            }
            match self.batches.next() {
                Some(batch) => self.batch = Some(batch?),
                None => return Ok(0),
            }
        }
    }

    fn take(&mut self, n: usize) -> RecordBatch {
        let batch = self.batch.take().expect("rows are at hand");
        self.batch = Some(batch.slice(n, batch.num_rows() - n));
        batch.slice(0, n)
    }
}

fn emit(node: &Node, kind: EventKind, world: World<'_>) {
    world.events.on(&Event { node: node.name.clone(), kind });
}

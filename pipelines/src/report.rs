//! A run as one page of HTML that needs nothing else: what its nodes did, how training went, what the exam says, what was refused.
//!
//! What is on it is gathered here from the run's record and the tables that its answers have; `report/html.rs` writes it down.

mod exam;
mod html;
mod plot;
mod rejects;
mod training;

use std::path::Path;

use arrow::array::RecordBatch;
use retort_cache::{Disk, Store, StoreError};
use retort_engine::event::OutputSummary;
use retort_engine::graph::{FILES_PORT, REJECTS_PORT};

use crate::history::{self, NodeStory, Run};

pub use exam::{Exam, Example, Score, Tells, Value, brief, examples};
pub use html::escape;
pub use plot::{Line, Plot};
pub use rejects::{Refused, refused};
pub use training::{Log, Measure};

/// Questions shown of an exam: those that gained most, and those that lost most.
const SHOWN: (usize, usize) = (8, 4);
/// Tables that are larger are not looked into.
const LARGEST: u64 = 200_000;

/// What a page tells.
#[derive(Debug)]
pub struct Report {
    /// The run.
    pub run: Run,
    /// Seconds from its beginning to its end, or to the last that is known of it.
    pub seconds: f64,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A node on a page.
#[derive(Debug)]
pub struct Node {
    /// What happened to it.
    pub story: NodeStory,
    /// Its operator, where its answer is in the store.
    pub op: Option<String>,
    /// What was learned, if it trained.
    pub log: Option<Log>,
    /// What it came to, if it was an exam; the questions that changed most.
    pub exam: Option<(Exam, Vec<Example>)>,
    /// What it refused, by reason.
    pub refused: Vec<Refused>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The store could not be read, or the page not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Gathers what a run's page tells. A table that is gone from the store is left out.
pub fn gather(root: &Path, disk: &Disk, run: Run) -> Result<Report, ReportError> {
    let story = history::story(root, &run.id)?;
    let seconds = run.counts.map_or(story.seconds, |counts| counts.seconds);
    let nodes = story.nodes.into_iter().map(|story| node(disk, story)).collect::<Result<_, _>>()?;
    Ok(Report { run, seconds, nodes })
}

impl Report {
    /// The page.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

fn node(disk: &Disk, story: NodeStory) -> Result<Node, ReportError> {
    let record = story.tally.recipe.map(|recipe| disk.record(recipe)).transpose()?.flatten();
    let mut node = Node { op: record.map(|record| record.op), story, log: None, exam: None, refused: Vec::new() };
    let mut summary = None;
    for output in node.story.tally.outputs.clone() {
        match output.port.as_str() {
            FILES_PORT => {}
            REJECTS_PORT => {
                if let Some(batch) = read(disk, &output)? {
                    node.refused = refused(&batch);
                }
            }
            "metrics" => node.log = read(disk, &output)?.as_ref().and_then(Log::read),
            "summary" => summary = read(disk, &output)?.as_ref().and_then(Exam::read),
            _ => {}
        }
    }
    if let Some(exam) = summary {
        let rows = node.story.tally.outputs.iter().find(|output| output.port == "out");
        let rows = rows.map(|output| read(disk, output)).transpose()?.flatten();
        let examples = rows.map(|batch| examples(&batch, SHOWN.0, SHOWN.1)).unwrap_or_default();
        node.exam = Some((exam, examples));
    }
    Ok(node)
}

/// A table that is there, and not too large.
fn read(disk: &Disk, output: &OutputSummary) -> Result<Option<RecordBatch>, StoreError> {
    if output.rows == 0 || output.rows > LARGEST {
        return Ok(None);
    }
    disk.open(output.content)?.map(|table| table.read()).transpose()
}

#[cfg(test)]
mod tests;

//! Where a row came from: its parents and theirs, up to the file.

use arrow::array::RecordBatch;
use retort_engine::NodeId;
use retort_engine::graph::FILES_PORT;
use retort_engine::lineage::{Lost, Origin, Spot};
use serde_json::{Value, json};

use super::passages::{Passage, passages, span};
use super::tree::Tree;
use super::{Teller, news};
use crate::observe::words;

/// A row with all that it came from.
pub(super) struct Ancestry {
    spot: Spot,
    values: Option<RecordBatch>,
    /// By input.
    from: Vec<(String, From)>,
    /// Where the row is a document: what the row that came of it covers.
    passages: Vec<Passage>,
}

/// Where a row came from, by one input.
enum From {
    /// These rows, and how many more.
    Rows(Vec<Ancestry>, usize),
    /// All rows of these outputs.
    Whole(Vec<(NodeId, usize)>),
    /// It can't be told.
    Lost(Lost),
}

/// Follows a row back to where nothing comes before.
pub(super) fn follow(teller: &Teller<'_>, spot: Spot) -> super::Result<Ancestry> {
    ancestry(teller, spot, None)
}

/// `covered` is what the row below covers of a document's text.
fn ancestry(teller: &Teller<'_>, spot: Spot, covered: Option<(u64, u64)>) -> super::Result<Ancestry> {
    let values = teller.row(spot)?;
    let document = values.as_ref().zip(covered).and_then(|(row, covered)| passages(row, covered));
    // Above a document, bytes are those of a file.
    let covered = match (&document, &values) {
        (Some(_), _) => None,
        (None, Some(row)) => span(row).or(covered),
        (None, None) => covered,
    };
    let mut from = Vec::new();
    for (slot, origin) in teller.trail.parents(spot)? {
        let origin = match origin {
            Origin::Rows(rows) => {
                let some = rows.iter().take(teller.most).map(|row| ancestry(teller, *row, covered));
                From::Rows(some.collect::<super::Result<_>>()?, rows.len().saturating_sub(teller.most))
            }
            Origin::Whole(outputs) => From::Whole(outputs),
            Origin::Lost(lost) => From::Lost(lost),
        };
        from.push((slot, origin));
    }
    Ok(Ancestry { spot, values, from, passages: document.unwrap_or_default() })
}

impl Ancestry {
    /// The row with what it came from under it.
    pub(super) fn tree(&self, teller: &Teller<'_>) -> Tree {
        let mut twigs: Vec<_> = self.passages.iter().map(|passage| passage.tree(teller.full)).collect();
        let several = self.from.len() > 1;
        for (slot, from) in &self.from {
            let by = |head: String| if several { format!("{slot}: {head}") } else { head };
            match from {
                From::Rows(rows, more) => {
                    twigs.extend(rows.iter().map(|row| {
                        let tree = row.tree(teller);
                        Tree { head: by(tree.head.clone()), ..tree }
                    }));
                    if *more > 0 {
                        twigs.push(Tree::leaf(by(format!("… and {}", words::count(*more as u64, "more row")))));
                    }
                }
                From::Whole(outputs) => {
                    let all = outputs.iter().map(|(node, port)| Tree::leaf(by(whole(teller, *node, *port))));
                    twigs.extend(all);
                }
                From::Lost(lost) => twigs.push(Tree::leaf(by(format!("can't be followed: {lost}")))),
            }
        }
        let lines = self.values.as_ref().map(|row| news(row, self.parent())).unwrap_or_default();
        Tree { head: teller.head(self.spot), lines, twigs }
    }

    /// The values of the one row that it came from, which need not be said again. A file's are too few to be missed.
    fn parent(&self) -> Option<&RecordBatch> {
        match self.from.as_slice() {
            [(slot, From::Rows(rows, 0))] if rows.len() == 1 && slot != FILES_PORT => rows[0].values.as_ref(),
            _ => None,
        }
    }

    /// The row with what it came from, as an object.
    pub(super) fn object(&self, teller: &Teller<'_>) -> Value {
        let mut object = teller.object(self.spot, self.values.as_ref());
        if !self.passages.is_empty() {
            object["passages"] = self.passages.iter().map(Passage::object).collect();
        }
        let from = |(slot, from): &(String, From)| match from {
            From::Rows(rows, _) => {
                json!({"input": slot, "rows": rows.iter().map(|row| row.object(teller)).collect::<Vec<_>>()})
            }
            From::Whole(outputs) => {
                let all: Vec<_> = outputs.iter().map(|(node, port)| teller.name(*node, *port)).collect();
                json!({"input": slot, "whole": all})
            }
            From::Lost(lost) => json!({"input": slot, "lost": lost.to_string()}),
        };
        object["from"] = self.from.iter().map(from).collect();
        object
    }
}

fn whole(teller: &Teller<'_>, node: NodeId, port: usize) -> String {
    let answer = teller.trail.answer(node);
    let name = &teller.graph.node(node).ports[port].0;
    let output = answer.and_then(|answer| answer.outputs.iter().find(|output| output.port == *name));
    let rows = output.map(|output| format!(" {}", words::count(output.rows, "row"))).unwrap_or_default();
    format!("all{rows} of {} ({})", teller.name(node, port), teller.graph.node(node).op)
}

//! The paragraphs of a document that a stretch of its text covers.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use retort_ops::document::blocks_from_arrow;
use serde_json::{Value, json};

use super::tree::Tree;
use crate::observe::words;

/// The longest that a passage is shown, if it is not wanted in full.
const LONGEST: usize = 160;

/// A block, or the part of one, that is covered.
pub(super) struct Passage {
    kind: &'static str,
    page: Option<u32>,
    heading_path: Vec<String>,
    start: usize,
    end: usize,
    text: String,
}

/// The bytes that a row covers, where its columns say so.
pub(super) fn span(row: &RecordBatch) -> Option<(u64, u64)> {
    let bytes = |name: &str| -> Option<u64> {
        let column: &ArrayRef = row.column_by_name(name)?;
        let values = column.as_primitive_opt::<UInt64Type>()?;
        values.is_valid(0).then(|| values.value(0))
    };
    Some((bytes("start")?, bytes("end")?))
}

/// What `span` covers of a document; `None` where the row is none.
pub(super) fn passages(document: &RecordBatch, span: (u64, u64)) -> Option<Vec<Passage>> {
    let text = document.column_by_name("text")?.as_string_opt::<i32>()?;
    let text = text.is_valid(0).then(|| text.value(0))?;
    let blocks = blocks_from_arrow(document.column_by_name("blocks")?, 0, text).ok()?;
    let (from, to) = (span.0 as usize, span.1 as usize);
    let mut passages = Vec::new();
    for block in blocks {
        let (start, end) = (block.start.max(from), block.end.min(to));
        if start >= end {
            continue;
        }
        // A span that cuts a letter in two is none of ours.
        let text = text.get(start..end)?.to_string();
        let heading_path = block.heading_path.to_vec();
        passages.push(Passage { kind: block.kind.name(), page: block.page, heading_path, start, end, text });
    }
    Some(passages)
}

impl Passage {
    pub(super) fn tree(&self, full: bool) -> Tree {
        let page = self.page.map(|page| format!(" on page {page}")).unwrap_or_default();
        let under = if self.heading_path.is_empty() || self.kind == "heading" {
            String::new()
        } else {
            format!(" under {}", self.heading_path.join(" > "))
        };
        let head = format!("{}{page}{under}, bytes {} to {}", self.kind, self.start, self.end);
        let lines = if full {
            self.text.lines().map(String::from).collect()
        } else {
            vec![words::cut_middle(&self.text, LONGEST)]
        };
        Tree { head, lines, twigs: Vec::new() }
    }

    pub(super) fn object(&self) -> Value {
        json!({
            "kind": self.kind,
            "page": self.page,
            "heading_path": self.heading_path,
            "start": self.start,
            "end": self.end,
            "text": self.text,
        })
    }
}

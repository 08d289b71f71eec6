//! What a chunk carries before the document's own text: the headings above it, and the header of a table that it goes on with.

use std::collections::BTreeMap;

use super::measure::{Measure, MeasureError};
use crate::document::{BLOCK_BREAK, Block, Document, Kind};

/// A text before a chunk, and its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) text: String,
    pub(super) tokens: usize,
}

/// The prefixes of a document. Each different one is counted once.
pub(super) struct Prefixes {
    max: usize,
    known: Vec<Prefix>,
    by_text: BTreeMap<String, usize>,
    /// By block: of a chunk that begins with it, and of one that begins inside it.
    by_block: Vec<[Option<usize>; 2]>,
    /// The path that was looked for last, which is that of most blocks that follow, and its prefix.
    last: Option<(Vec<String>, usize)>,
}

impl Prefixes {
    /// For chunks of at most `max` tokens.
    pub(super) fn new(document: &Document, max: usize) -> Self {
        let by_block = vec![[None; 2]; document.blocks.len()];
        Self { max, known: vec![Prefix::default()], by_text: BTreeMap::new(), by_block, last: None }
    }

    /// What a chunk carries that begins with the beginning of a block, or inside it.
    pub(super) fn of(
        &mut self,
        document: &Document,
        measure: &dyn Measure,
        block: usize,
        begins: bool,
    ) -> Result<&Prefix, MeasureError> {
        let place = usize::from(!begins);
        let number = match self.by_block[block][place] {
            Some(number) => number,
            None => self.find(document, measure, &document.blocks[block], begins)?,
        };
        self.by_block[block][place] = Some(number);
        Ok(&self.known[number])
    }

    /// The tokens of what a chunk carries that begins with a block, if it was asked for.
    pub(super) fn tokens(&self, block: usize) -> usize {
        self.by_block[block][0].map_or(0, |number| self.known[number].tokens)
    }

    /// Leaves all prefixes out; whether there were any.
    pub(super) fn clear(&mut self) -> bool {
        let mut cleared = false;
        for prefix in &mut self.known {
            cleared |= !prefix.text.is_empty();
            *prefix = Prefix::default();
        }
        cleared
    }

    /// Headings outside in, as many as a third of the budget holds; the header of a table as well.
    fn find(
        &mut self,
        document: &Document,
        measure: &dyn Measure,
        block: &Block,
        begins: bool,
    ) -> Result<usize, MeasureError> {
        let mut path = &block.heading_path[..];
        if block.kind == Kind::Heading {
            path = &path[..path.len().saturating_sub(1)];
        }
        let mut found = self.of_path(measure, path)?;
        if !begins && block.kind == Kind::Table {
            let header = table_header(document.text_of(block));
            let number = self.count(measure, format!("{}{header}\n", self.known[found].text))?;
            if self.known[number].tokens * 2 <= self.max {
                found = number;
            }
        }
        Ok(found)
    }

    fn of_path(&mut self, measure: &dyn Measure, path: &[String]) -> Result<usize, MeasureError> {
        if let Some((_, number)) = self.last.as_ref().filter(|(last, _)| last == path) {
            return Ok(*number);
        }
        let mut found = 0;
        for outermost in 0..path.len() {
            let number = self.count(measure, format!("{}{BLOCK_BREAK}", path[outermost..].join(" > ")))?;
            if self.known[number].tokens * 3 <= self.max {
                found = number;
                break;
            }
        }
        self.last = Some((path.to_vec(), found));
        Ok(found)
    }

    fn count(&mut self, measure: &dyn Measure, text: String) -> Result<usize, MeasureError> {
        if let Some(number) = self.by_text.get(&text) {
            return Ok(*number);
        }
        let tokens = measure.count(&text)?;
        self.by_text.insert(text.clone(), self.known.len());
        self.known.push(Prefix { text, tokens });
        Ok(self.known.len() - 1)
    }
}

/// The first two lines of a table.
fn table_header(table: &str) -> &str {
    let end = table.match_indices('\n').nth(1).map_or(table.len(), |(at, _)| at);
    &table[..end]
}

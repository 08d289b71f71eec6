//! A document to its chunks: atoms are measured, cut the cheapest way, and every chunk's text is counted as it is.

use std::collections::BTreeMap;
use std::ops::Range;

use retort_lm::tokenizer::Marks;

use super::atoms::{self, Atom, Joint};
use super::carry::{Prefix, Prefixes};
use super::cut::{By, Layout, Limits, Ways};
use super::measure::{Measure, MeasureError};
use super::see::{self, References, Tail};
use super::ties;
use super::topics::Falls;
use crate::document::{Block, Document, Kind};

/// What a chunk is allowed, in the measure's units.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// No chunk's text has more.
    pub max: usize,
    /// Smaller chunks are joined to a neighbour where that does not tear something else.
    pub min: usize,
    /// So much of the sentences before a cut inside a section is said again, at most.
    pub overlap: usize,
    /// Where to cut by preference.
    pub by: By,
}

/// A piece of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The headings that all of it lies under.
    pub heading_path: Vec<String>,
    /// The page it begins on.
    pub page: Option<u32>,
    /// First byte in the document's text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// Of `text`, exactly.
    pub n_tokens: usize,
    /// The headings above it on one line, a blank line, and the document's text from `start` to `end`. A piece of a
    /// table that does not begin it has the table's header between the two. At its end, if asked for, the places that it
    /// points to.
    pub text: String,
    /// Places that it points to, for which there was no room.
    pub left_out: usize,
}

/// Why a document could not be chunked.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The tokenizer refused the text.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A single letter takes more than a chunk may have.
    #[error("not even a single letter fits into {0}")]
    TooSmall(usize),
}

/// Cuts a document. Chunks come in order, cover all text but headings that stand over nothing, and overlap only where
/// `budget.overlap` says so.
///
/// The same document and budget give the same chunks, whatever other documents there are.
pub fn chunks(document: &Document, measure: &dyn Measure, budget: Budget) -> Result<Vec<Piece>, ChunkError> {
    chunks_with(document, measure, budget, References::Off, &Falls::default())
}

/// As [`chunks`]; each chunk says at its end what it points to, in at most a quarter of the budget, and where the text turns to something else a
/// cut is cheap.
pub fn chunks_with(
    document: &Document,
    measure: &dyn Measure,
    budget: Budget,
    references: References,
    falls: &Falls,
) -> Result<Vec<Piece>, ChunkError> {
    if document.blocks.is_empty() {
        return Ok(Vec::new());
    }
    let marks = measure.marks(&document.text)?;
    let atoms = atoms::of(document);
    let prefixes = Prefixes::new(document, budget.max);
    let (slack, counts) = (BTreeMap::new(), BTreeMap::new());
    let mut packer = Packer { document, measure, budget, references, falls, marks, atoms, prefixes, slack, counts };
    packer.split_long()?;
    let limits = Limits { max: budget.max, min: budget.min, by: budget.by };
    let (mut ways, mut changed) = (Ways::default(), ALL);
    let mut layout = packer.layout()?;
    loop {
        let cuts = layout.cheapest(limits, changed, &mut ways);
        let ends = cuts.iter().skip(1).copied().chain([packer.atoms.len()]);
        let spans: Vec<(usize, usize)> = cuts.iter().copied().zip(ends).collect();
        if let Some(over) = packer.make_room(&mut layout, &spans)? {
            if over == ALL {
                layout = packer.layout()?;
            }
            changed = over;
            continue;
        }
        let mut pieces = Vec::with_capacity(spans.len());
        for (start, end) in spans {
            if packer.has_text(layout.from[start], end) {
                pieces.push(packer.piece(layout.from[start], end)?);
            }
        }
        return Ok(pieces);
    }
}

/// There are other atoms than before.
const ALL: usize = usize::MAX;

struct Packer<'a> {
    document: &'a Document,
    measure: &'a dyn Measure,
    budget: Budget,
    references: References,
    falls: &'a Falls,
    /// Where the tokens of the document's text begin.
    marks: Marks,
    atoms: Vec<Atom>,
    prefixes: Prefixes,
    /// Tokens that a chunk beginning at a byte has more by itself than it was counted for in the whole.
    slack: BTreeMap<usize, usize>,
    /// Exact counts of chunks, by the bytes at which they begin and end.
    counts: BTreeMap<(usize, usize), usize>,
}

impl Packer<'_> {
    /// The token that a byte lies in.
    fn token_at(&self, byte: usize) -> usize {
        self.marks.starts.partition_point(|start| *start <= byte).saturating_sub(1)
    }

    /// One past the token that the byte before lies in.
    fn token_end(&self, byte: usize) -> usize {
        self.marks.starts.partition_point(|start| *start < byte)
    }

    /// The tokens of a stretch of the document, as counted in the whole.
    fn tokens(&self, bytes: Range<usize>) -> usize {
        self.token_end(bytes.end).saturating_sub(self.token_at(bytes.start))
    }

    fn block(&self, atom: usize) -> &Block {
        &self.document.blocks[self.atoms[atom].block]
    }

    /// Splits the atoms that don't fit a chunk by themselves, into words and, if need be, letters.
    fn split_long(&mut self) -> Result<(), ChunkError> {
        let mut fitting = Vec::with_capacity(self.atoms.len());
        let mut left: Vec<Atom> = std::mem::take(&mut self.atoms);
        left.reverse();
        while let Some(atom) = left.pop() {
            let begins = atom.start == self.document.blocks[atom.block].start;
            let prefix = self.prefixes.of(self.document, self.measure, atom.block, begins)?.tokens;
            let fits = self.tokens(atom.start..atom.end) + prefix <= self.budget.max;
            let parts = if fits { Vec::new() } else { atoms::split(atom, &self.document.text) };
            if parts.is_empty() {
                fitting.push(atom);
            } else {
                left.extend(parts.into_iter().rev());
            }
        }
        self.atoms = fitting;
        Ok(())
    }

    /// Counts every chunk as it is; nothing if all are within the budget. Where one is not, the next cuts leave it room:
    /// joined differently, the same text may take some tokens more than it did in the whole. Then it is the atom from which on
    /// nothing changed, or `ALL`.
    fn make_room(&mut self, layout: &mut Layout, spans: &[(usize, usize)]) -> Result<Option<usize>, ChunkError> {
        let mut to_split = Vec::new();
        let mut changed = None;
        for &(start, end) in spans {
            let count = self.count(layout.from[start], end)?;
            if count <= self.budget.max {
                continue;
            }
            changed = Some(start + 1);
            if end - start > 1 || layout.from[start] < start {
                let known = layout.tokens(start, end);
                *self.slack.entry(self.atoms[start].start).or_default() += count.saturating_sub(known).max(1);
                let (from, prefix) = self.beginning(start, &layout.first_token, layout.end_token[start])?;
                (layout.from[start], layout.prefix[start]) = (from, prefix);
            } else {
                to_split.push(start);
            }
        }
        for atom in to_split.into_iter().rev() {
            self.split(atom)?;
            changed = Some(ALL);
        }
        Ok(changed)
    }

    /// Splits an atom that is over the budget by itself.
    fn split(&mut self, atom: usize) -> Result<(), ChunkError> {
        let parts = atoms::split(self.atoms[atom], &self.document.text);
        if !parts.is_empty() {
            self.atoms.splice(atom..=atom, parts);
            return Ok(());
        }
        // A letter by itself: without headings, if there are any.
        self.counts.clear();
        if self.prefixes.clear() { Ok(()) } else { Err(ChunkError::TooSmall(self.budget.max)) }
    }

    fn layout(&mut self) -> Result<Layout, ChunkError> {
        let count = self.atoms.len();
        let (first_token, end_token) = self.tokens_of_atoms();
        let (mut from, mut prefix) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (atom, end_token) in end_token.iter().enumerate() {
            let (begins, carried) = self.beginning(atom, &first_token, *end_token)?;
            from.push(begins);
            prefix.push(carried);
        }
        Ok(Layout {
            joints: self.atoms.iter().map(|atom| atom.joint).collect(),
            first_token,
            end_token,
            level: self.levels(),
            led_in: ties::of(self.document, &self.atoms),
            whole: self.whole_blocks(),
            fall: self.atoms.iter().map(|atom| self.falls.before(atom.start)).collect(),
            from,
            prefix,
        })
    }

    /// Where a chunk that is cut before an atom begins, with its overlap, and the tokens that it carries before that. `end_token` is the atom's.
    fn beginning(
        &mut self,
        atom: usize,
        first_token: &[usize],
        end_token: usize,
    ) -> Result<(usize, usize), ChunkError> {
        let slack = self.slack.get(&self.atoms[atom].start).copied().unwrap_or(0);
        // Where the overlap leaves no room for what comes after it, there is less of it.
        let mut start = self.overlap_start(atom, first_token);
        loop {
            let carried = self.prefix(start)?.tokens + slack;
            let tokens = end_token.saturating_sub(first_token[start]);
            if start == atom || carried + tokens <= self.budget.max {
                return Ok((start, carried));
            }
            start += 1;
            while start < atom && matches!(self.atoms[start].joint, Joint::Word | Joint::Inside) {
                start += 1;
            }
        }
    }

    /// Of every atom: the token that it begins in, and one past the one that it ends in.
    fn tokens_of_atoms(&self) -> (Vec<usize>, Vec<usize>) {
        let starts = &self.marks.starts;
        let (mut begun, mut before_end) = (0, 0);
        let tokens = self.atoms.iter().map(|atom| {
            begun += starts[begun..].iter().take_while(|start| **start <= atom.start).count();
            before_end += starts[before_end..].iter().take_while(|start| **start < atom.end).count();
            (begun.saturating_sub(1), before_end)
        });
        tokens.unzip()
    }

    fn levels(&self) -> Vec<u8> {
        let mut level = 0;
        let levels = self.atoms.iter().map(|atom| {
            let block = &self.document.blocks[atom.block];
            if block.kind == Kind::Heading {
                level = block.level;
            }
            level
        });
        levels.collect()
    }

    /// Of every atom, whether the block it lies in fits a chunk by itself.
    fn whole_blocks(&self) -> Vec<bool> {
        let mut whole = Vec::with_capacity(self.atoms.len());
        for (at, atom) in self.atoms.iter().enumerate() {
            if at > 0 && self.atoms[at - 1].block == atom.block {
                whole.push(whole[at - 1]);
                continue;
            }
            let block = &self.document.blocks[atom.block];
            whole.push(self.tokens(block.start..block.end) + self.prefixes.tokens(atom.block) <= self.budget.max);
        }
        whole
    }

    /// Where a chunk that is cut before `atom` begins: as many whole sentences back as the overlap allows.
    fn overlap_start(&self, atom: usize, first_token: &[usize]) -> usize {
        let mut start = atom;
        if self.budget.overlap == 0 || matches!(self.atoms[atom].joint, Joint::Section | Joint::Heading) {
            return start;
        }
        for back in (0..atom).rev() {
            let tokens = first_token[atom].saturating_sub(first_token[back]);
            if tokens > self.budget.overlap || self.block(back).kind == Kind::Heading {
                break;
            }
            if !matches!(self.atoms[back].joint, Joint::Word | Joint::Inside) {
                start = back;
            }
        }
        start
    }

    /// What a chunk that begins with this atom carries before it.
    fn prefix(&mut self, atom: usize) -> Result<&Prefix, ChunkError> {
        let begins = self.atoms[atom].start == self.block(atom).start;
        Ok(self.prefixes.of(self.document, self.measure, self.atoms[atom].block, begins)?)
    }

    /// The chunk of the atoms `start..end`: its text, the bytes of the document that it holds, and the places left out.
    fn text(&mut self, start: usize, end: usize) -> Result<(String, Range<usize>, usize), ChunkError> {
        let mut text = self.prefix(start)?.text.clone();
        let span = self.atoms[start].start..self.atoms[end - 1].end;
        text.push_str(&self.document.text[span.clone()]);
        let tail = self.tail(start, end, &text)?;
        text.push_str(&tail.text);
        Ok((text, span, tail.left_out))
    }

    /// What the atoms `start..end` point to. No atom is split for it: of a single one the rest of the budget is the room.
    fn tail(&self, start: usize, end: usize, text: &str) -> Result<Tail, ChunkError> {
        if self.references == References::Off {
            return Ok(Tail::default());
        }
        let mut room = self.budget.max / 4;
        if end - start == 1 {
            room = room.min(self.budget.max.saturating_sub(self.measure.count(text)? + 4));
        }
        let blocks = self.atoms[start].block..self.atoms[end - 1].block + 1;
        let span = self.atoms[start].start..self.atoms[end - 1].end;
        Ok(see::tail(self.document, self.measure, self.references, blocks, &span, room)?)
    }

    fn count(&mut self, start: usize, end: usize) -> Result<usize, ChunkError> {
        let key = (self.atoms[start].start, self.atoms[end - 1].end);
        if let Some(count) = self.counts.get(&key) {
            return Ok(*count);
        }
        let (text, span, _) = self.text(start, end)?;
        let carried = self.prefix(start)?.text.len();
        let part = carried..carried + span.len();
        let count = self.measure.count_part(&text, part, &self.marks, span.start)?;
        self.counts.insert(key, count);
        Ok(count)
    }

    fn piece(&mut self, start: usize, end: usize) -> Result<Piece, ChunkError> {
        let n_tokens = self.count(start, end)?;
        let (text, span, left_out) = self.text(start, end)?;
        let blocks = &self.document.blocks[self.atoms[start].block..=self.atoms[end - 1].block];
        let heading_path = common_path(blocks);
        Ok(Piece { heading_path, page: blocks[0].page, start: span.start, end: span.end, n_tokens, text, left_out })
    }

    /// Whether there is more to a chunk than headings.
    fn has_text(&self, start: usize, end: usize) -> bool {
        let blocks = &self.document.blocks[self.atoms[start].block..=self.atoms[end - 1].block];
        blocks.iter().any(|block| block.kind != Kind::Heading)
    }
}

/// The headings that all the text of some blocks lies under.
fn common_path(blocks: &[Block]) -> Vec<String> {
    let mut paths = blocks.iter().filter(|block| block.kind != Kind::Heading).map(|block| &block.heading_path);
    let Some(first) = paths.next().or(blocks.first().map(|block| &block.heading_path)) else { return Vec::new() };
    let mut length = first.len();
    for path in paths {
        length = first.iter().zip(path.iter()).take(length).take_while(|(a, b)| a == b).count();
    }
    first[..length].to_vec()
}

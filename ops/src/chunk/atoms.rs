//! A document as a row of atoms: the pieces that a cut may lie between, and what each cut would part.

use unicode_segmentation::UnicodeSegmentation;

use super::sentence;
use crate::document::{Document, Kind};

/// What lies before an atom, and so what a cut there would part. From the cheapest to the dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Joint {
    /// A heading begins here, and text lies before it.
    Section,
    /// Two blocks of one section.
    Block,
    /// Two items of a list.
    Item,
    /// Inside an item of a list: a nested item, or a line of it.
    Nested,
    /// Two rows of a table.
    Row,
    /// Two parts of a listing, with a blank line between them.
    Gap,
    /// Two lines of a listing.
    Line,
    /// Two sentences.
    Sentence,
    /// Two words.
    Word,
    /// The middle of a word.
    Inside,
    /// A heading and what it stands over.
    Heading,
}

/// A piece of text that is cut only in need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atom {
    /// First byte in the document's text.
    pub start: usize,
    /// One past its last byte; no white space before it.
    pub end: usize,
    /// The block it lies in.
    pub block: usize,
    /// What lies before it.
    pub joint: Joint,
}

/// The atoms of a document, in order: sentences, items, rows, lines.
pub fn of(document: &Document) -> Vec<Atom> {
    let mut atoms = Vec::new();
    for (index, block) in document.blocks.iter().enumerate() {
        let follows_heading = index > 0 && document.blocks[index - 1].kind == Kind::Heading;
        let first = match (block.kind, follows_heading) {
            (_, true) => Joint::Heading,
            (Kind::Heading, false) => Joint::Section,
            _ => Joint::Block,
        };
        let text = document.text_of(block);
        for (number, (at, joint)) in starts(block.kind, text).into_iter().enumerate() {
            let joint = if number == 0 { first } else { joint };
            atoms.push(Atom { start: block.start + at, end: block.end, block: index, joint });
        }
    }
    close(&mut atoms, &document.text);
    atoms
}

/// Splits an atom into its words, or a word into its letters. Nothing if it is a single letter.
pub fn split(atom: Atom, text: &str) -> Vec<Atom> {
    let inner = &text[atom.start..atom.end];
    let words: Vec<usize> =
        inner.split_whitespace().map(|word| word.as_ptr() as usize - inner.as_ptr() as usize).collect();
    let (starts, joint) = if words.len() > 1 {
        (words, Joint::Word)
    } else {
        let mut letters: Vec<usize> = inner.grapheme_indices(true).map(|(at, _)| at).collect();
        if letters.len() == 1 {
            // One letter to the reader, several to the tokenizer: a family of emoji.
            letters = inner.char_indices().map(|(at, _)| at).collect();
        }
        (letters, Joint::Inside)
    };
    if starts.len() < 2 {
        return Vec::new();
    }
    let mut parts: Vec<Atom> = Vec::with_capacity(starts.len());
    for (number, at) in starts.into_iter().enumerate() {
        let (start, joint) = if number == 0 { (atom.start, atom.joint) } else { (atom.start + at, joint) };
        parts.push(Atom { start, joint, ..atom });
    }
    close(&mut parts, text);
    parts
}

/// An atom ends where the next one of its block begins, without the white space before that.
fn close(atoms: &mut [Atom], text: &str) {
    for at in 1..atoms.len() {
        if atoms[at].block == atoms[at - 1].block {
            let start = atoms[at - 1].start;
            atoms[at - 1].end = start + text[start..atoms[at].start].trim_end().len();
        }
    }
}

/// Where the atoms of a block begin in it, and what lies before each.
fn starts(kind: Kind, text: &str) -> Vec<(usize, Joint)> {
    match kind {
        Kind::Heading => vec![(0, Joint::Section)],
        Kind::Paragraph => sentences(text, 0),
        Kind::List => list(text),
        Kind::Table => table(text),
        Kind::Code => code(text),
    }
}

fn sentences(text: &str, base: usize) -> Vec<(usize, Joint)> {
    sentence::starts(text).into_iter().map(|at| (base + at, Joint::Sentence)).collect()
}

/// Byte offset and text of every line.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split('\n').map(move |line| {
        let start = at;
        at += line.len() + 1;
        (start, line)
    })
}

fn list(text: &str) -> Vec<(usize, Joint)> {
    let mut starts = Vec::new();
    for (at, line) in lines(text).filter(|(_, line)| !line.trim().is_empty()) {
        let joint = if line.starts_with(' ') { Joint::Nested } else { Joint::Item };
        let mut inside = sentences(line, at);
        if let Some(first) = inside.first_mut() {
            *first = (at, joint);
        }
        // The marker of an item is no sentence: `1.` stays with what follows it.
        let marker = line.trim_start();
        let digits = marker.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && marker[digits..].starts_with(". ") && inside.len() > 1 {
            let first_words = at + line.len() - marker.len() + digits + 2;
            inside.retain(|(start, _)| *start == at || *start > first_words);
        }
        starts.extend(inside);
    }
    starts
}

/// The header and the rule stay with the first row.
fn table(text: &str) -> Vec<(usize, Joint)> {
    let rows = lines(text).enumerate().filter(|(number, _)| *number == 0 || *number > 2);
    rows.map(|(_, (at, _))| (at, Joint::Row)).collect()
}

fn code(text: &str) -> Vec<(usize, Joint)> {
    let mut starts = Vec::new();
    let mut after_gap = false;
    for (at, line) in lines(text) {
        if line.trim().is_empty() {
            after_gap = true;
            continue;
        }
        starts.push((at, if after_gap { Joint::Gap } else { Joint::Line }));
        after_gap = false;
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Raw;

    fn seen(document: &Document) -> Vec<(&str, Joint)> {
        of(document).into_iter().map(|atom| (&document.text[atom.start..atom.end], atom.joint)).collect()
    }

    #[test]
    fn pieces_and_joints() {
        let document = Document::assemble(
            None,
            vec![
                Raw::new(Kind::Heading, 1, "One"),
                Raw::new(Kind::Paragraph, 0, "Do it. Now."),
                Raw::new(Kind::List, 2, "1. Open. Close.\n  - deep"),
                Raw::new(Kind::Code, 0, "  a\n  b\n\n  c"),
                Raw::new(Kind::Table, 0, "| h |\n| --- |\n| a |\n| b |"),
                Raw::new(Kind::Heading, 1, "Two"),
            ],
        );
        assert_eq!(
            seen(&document),
            [
                ("One", Joint::Section),
                ("Do it.", Joint::Heading),
                ("Now.", Joint::Sentence),
                ("1. Open.", Joint::Block),
                ("Close.", Joint::Sentence),
                ("  - deep", Joint::Nested),
                ("  a", Joint::Block),
                ("  b", Joint::Line),
                ("  c", Joint::Gap),
                ("| h |\n| --- |\n| a |", Joint::Block),
                ("| b |", Joint::Row),
                ("Two", Joint::Section),
            ]
        );
    }

    #[test]
    fn split_into_words_and_letters() {
        let text = "ab  cd é";
        let atom = Atom { start: 0, end: text.len(), block: 0, joint: Joint::Sentence };
        let words = split(atom, text);
        assert_eq!(words.iter().map(|word| &text[word.start..word.end]).collect::<Vec<_>>(), ["ab", "cd", "é"]);
        assert_eq!(words[1].joint, Joint::Word);
        assert_eq!(split(words[0], text).len(), 2);
        assert_eq!(split(words[2], text), []);
    }
}

//! Which blocks belong to the one before: a list to its lead-in, a table to its caption, a step to the steps before it.

use super::atoms::{Atom, Joint};
use crate::document::{Block, Document, Kind};

/// So many blocks may stand between two steps of one sequence: what a step shows and says.
const BETWEEN_STEPS: usize = 3;
/// A longer paragraph is no caption.
const LONGEST_CAPTION: usize = 200;

/// Of every atom: whether a block begins with it that goes on with what lies before.
pub(super) fn of(document: &Document, atoms: &[Atom]) -> Vec<bool> {
    let goes_on = blocks(document);
    atoms.iter().map(|atom| atom.joint == Joint::Block && goes_on[atom.block]).collect()
}

fn blocks(document: &Document) -> Vec<bool> {
    let mut goes_on = vec![false; document.blocks.len()];
    let mut last_step: Option<(usize, usize)> = None;
    for (at, block) in document.blocks.iter().enumerate() {
        if block.kind == Kind::Heading {
            last_step = None;
            continue;
        }
        if at > 0 && leads_in(document, &document.blocks[at - 1], block) {
            goes_on[at] = true;
        }
        let Some((first, last)) = steps(document.text_of(block), block.kind) else { continue };
        if let Some((before, number)) = last_step
            && first == number + 1
            && at - before <= BETWEEN_STEPS + 1
        {
            goes_on[before + 1..=at].fill(true);
        }
        last_step = Some((at, last));
    }
    goes_on
}

/// The block before ends with a colon, or is the caption of a table or listing.
fn leads_in(document: &Document, before: &Block, block: &Block) -> bool {
    let text = document.text_of(before);
    if before.kind == Kind::Heading {
        return false;
    }
    let captioned = matches!(block.kind, Kind::Table | Kind::Code)
        && before.kind == Kind::Paragraph
        && text.len() <= LONGEST_CAPTION
        && ["Table ", "Listing ", "Example "].iter().any(|noun| {
            text.strip_prefix(noun).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        });
    captioned || text.ends_with(':')
}

/// The first and the last number of a block that begins with one: `1.`, `Step 2`, `3)`.
fn steps(text: &str, kind: Kind) -> Option<(usize, usize)> {
    let mut lines = text.lines().filter_map(|line| number_of(line, kind));
    let first = number_of(text, kind)?;
    Some((first, lines.next_back().unwrap_or(first)))
}

fn number_of(line: &str, kind: Kind) -> Option<usize> {
    let (line, marked) = match line.strip_prefix("Step ") {
        Some(rest) => (rest, true),
        None => (line, kind == Kind::List),
    };
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let ends = marked && line[digits..].starts_with(['.', ')', ':', ' ']) || line[digits..].starts_with(") ");
    let number = line[..digits].parse().ok().filter(|_| ends)?;
    matches!(kind, Kind::List | Kind::Paragraph).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Raw;

    fn going_on(blocks: &[(Kind, &str)]) -> Vec<bool> {
        let raws = blocks.iter().map(|(kind, text)| Raw::new(*kind, u8::from(*kind == Kind::Heading), *text)).collect();
        super::blocks(&Document::assemble(None, raws))
    }

    #[test]
    fn lead_ins_and_captions() {
        let blocks = [
            (Kind::Paragraph, "Type this:"),
            (Kind::Code, "ls"),
            (Kind::Paragraph, "Table 3. Ports"),
            (Kind::Table, "| a |\n| --- |\n| b |"),
            (Kind::Paragraph, "After."),
        ];
        assert_eq!(going_on(&blocks), [false, true, false, true, false]);
    }

    #[test]
    fn steps_with_listings_between_are_one_sequence() {
        let blocks = [
            (Kind::List, "1. Open it.\n2. Log in."),
            (Kind::Code, "login: root"),
            (Kind::List, "3. Close it."),
            (Kind::Paragraph, "Another matter."),
            (Kind::List, "1. Begin anew."),
        ];
        assert_eq!(going_on(&blocks), [false, true, true, false, false]);
        let parted =
            [(Kind::List, "1. Open it."), (Kind::Heading, "Two"), (Kind::List, "2. Log in."), (Kind::List, "7. No.")];
        assert_eq!(going_on(&parted), [false; 4]);
        assert_eq!(going_on(&[(Kind::Paragraph, "Step 1: open."), (Kind::Paragraph, "Step 2: close.")]), [false, true]);
    }
}

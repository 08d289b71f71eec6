//! What a chunk points to, said at its end: the headings of the place, or also its first paragraph.
//!
//! `extract` has found what the links and references of a document lead to. A reader of one chunk has no chapter 5; here
//! it is told what that is, inside the budget.

use std::collections::BTreeSet;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::measure::{Measure, MeasureError};
use super::sentence;
use crate::document::links::{Link, LinkKind};
use crate::document::targets::Target;
use crate::document::{Document, Kind};

/// What is said of the places that a chunk points to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum References {
    /// Nothing.
    #[default]
    Off,
    /// Their headings.
    Names,
    /// Their headings and first paragraphs, or as many sentences of these as there is room for.
    Text,
}

/// What stands before the places.
const HEAD: &str = "\n\nSee:";

/// What is appended to a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// A line a place under [`HEAD`], or nothing.
    pub(super) text: String,
    /// Places for which there was no room.
    pub(super) left_out: usize,
}

/// The links of a document that lead nowhere, though they should lead to a place in it or, by their words, in another.
pub(super) fn unresolved<'a>(document: &'a Document) -> impl Iterator<Item = &'a Link> {
    let nowhere = |(at, link): (usize, &'a Link)| {
        (is_inner(link) && link.to.is_none() && elsewhere(document, at).is_none()).then_some(link)
    };
    document.links.iter().enumerate().filter_map(nowhere)
}

/// Links that should lead to a place in the document itself.
pub(super) fn inner(document: &Document) -> usize {
    document.links.iter().filter(|link| is_inner(link)).count()
}

/// A link as a reader knows it: its words, or what it names where it has none.
pub(super) fn said(link: &Link) -> &str {
    if link.label.is_empty() { &link.target } else { &link.label }
}

fn is_inner(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Anchor | LinkKind::Reference)
}

/// What a link leads to in another document.
fn elsewhere(document: &Document, link: usize) -> Option<&Target> {
    let targets = &document.targets;
    targets.binary_search_by_key(&link, |target| target.link as usize).ok().map(|at| &targets[at])
}

/// A place that a chunk points to.
struct Place<'a> {
    /// The headings of the place on one line.
    name: String,
    /// Its first paragraph.
    paragraph: Option<&'a str>,
    /// Places that are alike in this are the same.
    identity: String,
}

/// What the text `span`, which lies in the blocks `blocks`, points to, in at most `room` tokens.
pub(super) fn tail(
    document: &Document,
    measure: &dyn Measure,
    references: References,
    blocks: Range<usize>,
    span: &Range<usize>,
    room: usize,
) -> Result<Tail, MeasureError> {
    let mut tail = Tail::default();
    if references == References::Off {
        return Ok(tail);
    }
    let mut said = BTreeSet::new();
    let first = document.links.partition_point(|link| (link.block as usize) < blocks.start);
    for (at, link) in document.links.iter().enumerate().skip(first) {
        if link.block as usize >= blocks.end {
            break;
        }
        let Some(place) = place(document, at, &blocks, span).filter(|_| stands_in(document, link, span)) else {
            continue;
        };
        let same = if references == References::Names { &place.name } else { &place.identity };
        if place.name.is_empty() || !said.insert(same.clone()) {
            continue;
        }
        let head = if tail.text.is_empty() { HEAD } else { "" };
        let mut fitted = None;
        for line in lines(&link.label, &place, references) {
            let longer = format!("{}{head}\n- {line}", tail.text);
            if measure.count(&longer)? <= room {
                fitted = Some(longer);
                break;
            }
        }
        match fitted {
            Some(longer) => tail.text = longer,
            None => tail.left_out += 1,
        }
    }
    Ok(tail)
}

/// Where a link leads: to a place of the document that the chunk does not have, or to another document.
fn place<'a>(document: &'a Document, at: usize, blocks: &Range<usize>, span: &Range<usize>) -> Option<Place<'a>> {
    let link = &document.links[at];
    if let Some(to) = link.to.map(|to| to as usize).filter(|_| is_inner(link)) {
        let name = document.blocks[to].heading_path.join(" > ");
        let known = is_known(document, to, blocks, span);
        return (!known).then(|| Place { name, paragraph: document.first_paragraph(to), identity: format!("#{to}") });
    }
    let target = elsewhere(document, at)?;
    let name = target.heading_path.join(" > ");
    let identity = format!("{} {name}", target.path);
    Some(Place { name, paragraph: target.text.as_deref(), identity })
}

/// What may be said of a place, longest first.
fn lines(label: &str, place: &Place, references: References) -> Vec<String> {
    let label = label.trim();
    let named = label.is_empty() || place.name.to_lowercase().contains(&label.to_lowercase());
    let name = if named { place.name.clone() } else { format!("{label}: {}", place.name) };
    let mut lines = Vec::new();
    if references == References::Text
        && let Some(paragraph) = place.paragraph
    {
        let ends = sentence::starts(paragraph).into_iter().skip(1).chain([paragraph.len()]);
        let words = |end: usize| paragraph[..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut longer: Vec<String> = ends.map(|end| format!("{name}: {}", words(end))).collect();
        longer.reverse();
        lines.extend(longer);
    }
    lines.push(name);
    lines
}

/// Whether a link's words lie in the part of its block that a chunk has.
fn stands_in(document: &Document, link: &Link, span: &Range<usize>) -> bool {
    let block = &document.blocks[link.block as usize];
    if span.start <= block.start && block.end <= span.end {
        return true;
    }
    let part = &document.text[block.start.max(span.start)..block.end.min(span.end)];
    part.split_whitespace().collect::<Vec<_>>().join(" ").contains(link.label.as_str())
}

/// Whether a chunk has the place itself, or lies under it and so carries its heading.
fn is_known(document: &Document, to: usize, blocks: &Range<usize>, span: &Range<usize>) -> bool {
    let target = &document.blocks[to];
    let above = &document.blocks[blocks.start].heading_path;
    let carried = target.kind == Kind::Heading && above.starts_with(&target.heading_path);
    carried || span.start <= target.start && target.end <= span.end
}

#[cfg(test)]
mod tests {
    use super::super::measure::Words;
    use super::*;
    use crate::document::Raw;

    fn manual() -> Document {
        Document::assemble(
            None,
            vec![
                Raw::new(Kind::Heading, 1, "Chapter 1: Users"),
                Raw::new(
                    Kind::Paragraph,
                    0,
                    "To print, see chapter 2. For mail see section 2.1. Chapter 9 is missing.",
                ),
                Raw::new(Kind::Heading, 1, "Chapter 2: Printing"),
                Raw::new(Kind::Paragraph, 0, "A queue holds jobs. It is served in turn."),
                Raw::new(Kind::Heading, 2, "2.1 Mail"),
                Raw::new(Kind::Paragraph, 0, "Mail is sent by sendmail."),
            ],
        )
    }

    fn of(document: &Document, references: References, room: usize) -> Tail {
        let block = &document.blocks[1];
        tail(document, &Words, references, 1..2, &(block.start..block.end), room).unwrap()
    }

    #[test]
    fn headings_and_paragraphs_inside_the_room() {
        let document = manual();
        let names = of(&document, References::Names, 50);
        assert_eq!(names.text, "\n\nSee:\n- Chapter 2: Printing\n- section 2.1: Chapter 2: Printing > 2.1 Mail");
        let text = of(&document, References::Text, 50).text;
        assert!(
            text.contains("- Chapter 2: Printing: A queue holds jobs. It is served in turn.\n- section 2.1"),
            "{text}"
        );
        let short = of(&document, References::Text, 9);
        assert_eq!(short, Tail { text: "\n\nSee:\n- Chapter 2: Printing: A queue holds jobs.".into(), left_out: 1 });
        assert_eq!(of(&document, References::Names, 2), Tail { text: String::new(), left_out: 2 });
        assert_eq!(of(&document, References::Off, 50), Tail::default());
        let nowhere: Vec<_> = unresolved(&document).map(|link| link.target.as_str()).collect();
        assert_eq!((nowhere, inner(&document)), (vec!["chapter 9"], 3));
    }

    #[test]
    fn what_lies_in_another_document_is_said_too() {
        let mut document = manual();
        let missing = document.links.iter().position(|link| link.target == "chapter 9").unwrap();
        document.targets = vec![Target {
            link: missing as u32,
            path: "mail.md".into(),
            heading_path: vec!["Chapter 9: Mail".into()],
            text: Some("Letters go out by night. And come in.".into()),
        }];
        assert_eq!(unresolved(&document).count(), 0);
        let names = of(&document, References::Names, 50).text;
        assert!(names.ends_with("\n- Chapter 9: Mail"), "{names}");
        let text = of(&document, References::Text, 50).text;
        assert!(text.ends_with("\n- Chapter 9: Mail: Letters go out by night. And come in."), "{text}");
    }

    #[test]
    fn what_a_chunk_has_or_lies_under_is_not_said_again() {
        let document = manual();
        let all = 0..document.text.len();
        let blocks = 0..document.blocks.len();
        let whole = tail(&document, &Words, References::Text, blocks, &all, 99).unwrap();
        assert_eq!(whole, Tail::default());
        // The first sentence alone points to one place.
        let start = document.blocks[1].start;
        let part = tail(&document, &Words, References::Names, 1..2, &(start..start + 24), 50).unwrap();
        assert_eq!(part.text, "\n\nSee:\n- Chapter 2: Printing");
    }
}

//! Paragraphs that carry a look (size, bold, fixed pitch) to blocks: what the look says about headings and listings.
//!
//! RTF, DOCX and PDF files give such paragraphs.

use super::tidy;
use crate::document::links::Marks;
use crate::document::{Kind, Raw};

/// What a paragraph is known to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Role {
    /// Nothing but its look is known.
    #[default]
    Text,
    /// A heading by its style, with its level.
    Heading(u8),
    /// An item of a list: marker with its blank, and depth from 1.
    Item(String, u8),
    /// A row of a table.
    Row(Vec<String>),
    /// An empty paragraph.
    Gap,
}

/// A paragraph and its look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Styled {
    pub(super) text: String,
    /// Points; 0 where unknown.
    pub(super) size: f32,
    /// All of it.
    pub(super) bold: bool,
    /// All of it is of fixed pitch.
    pub(super) mono: bool,
    pub(super) role: Role,
    pub(super) page: Option<u32>,
    /// The anchors and links in it.
    pub(super) marks: Marks,
}

/// A heading is set at least this much larger than running text.
const LARGER: f32 = 1.12;
/// Longer than this, in characters, is no heading.
const LONGEST_HEADING: usize = 140;

/// Finds the headings, and joins rows to tables, items to lists, lines to listings.
pub(super) fn blocks(mut paragraphs: Vec<Styled>) -> Vec<Raw> {
    tabbed_rows(&mut paragraphs);
    mark_headings(&mut paragraphs);
    let mut blocks: Vec<Raw> = Vec::new();
    let mut waiting = Marks::default();
    let mut at = 0;
    while at < paragraphs.len() {
        let end = run_end(&paragraphs, at);
        paragraphs[at..end].iter_mut().for_each(|paragraph| waiting.add(std::mem::take(&mut paragraph.marks)));
        let first = &paragraphs[at];
        let run = &paragraphs[at..end];
        let mut raw = match &first.role {
            Role::Heading(level) => Raw::new(Kind::Heading, (*level).clamp(1, 6), tidy::inline(&first.text, false)),
            Role::Gap => {
                at = end;
                continue;
            }
            Role::Row(_) => Raw::new(Kind::Table, 0, tidy::table(&rows(run))),
            Role::Item(..) => list(run),
            Role::Text if first.mono => Raw::new(Kind::Code, 0, tidy::layout(&lines(run))),
            Role::Text => Raw::new(Kind::Paragraph, 0, tidy::inline(&first.text, true)),
        };
        raw.page = first.page;
        raw.marks = std::mem::take(&mut waiting);
        blocks.push(raw);
        at = end;
    }
    if let Some(last) = blocks.last_mut() {
        last.marks.add(waiting);
    }
    blocks
}

/// Where the run of paragraphs that make one block with the one at `at` ends.
fn run_end(paragraphs: &[Styled], at: usize) -> usize {
    let alike = |next: &Styled| match (&paragraphs[at].role, &next.role) {
        (Role::Row(_), Role::Row(_)) | (Role::Item(..), Role::Item(..)) => true,
        (Role::Text, Role::Text) => paragraphs[at].mono && next.mono,
        _ => false,
    };
    let mut end = at + 1;
    let mut next = at + 1;
    while next < paragraphs.len() {
        if alike(&paragraphs[next]) {
            end = next + 1;
        } else if !(paragraphs[next].role == Role::Gap && paragraphs[at].mono) {
            break;
        }
        next += 1;
    }
    end
}

fn lines(run: &[Styled]) -> String {
    run.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}

fn rows(run: &[Styled]) -> Vec<Vec<String>> {
    let cells = run.iter().filter_map(|row| if let Role::Row(cells) = &row.role { Some(cells.clone()) } else { None });
    cells.filter(|cells| cells.iter().any(|cell| !cell.trim().is_empty())).collect()
}

fn list(run: &[Styled]) -> Raw {
    let mut deepest = 1;
    let items = run.iter().filter_map(|item| {
        let Role::Item(marker, depth) = &item.role else { return None };
        deepest = deepest.max(*depth);
        let blanks = "  ".repeat(usize::from(depth.saturating_sub(1)));
        let text = tidy::inline(&item.text, true);
        let text = text.replace('\n', &format!("\n{blanks}  "));
        (!text.is_empty()).then(|| format!("{blanks}{marker}{text}"))
    });
    let text = items.collect::<Vec<_>>().join("\n");
    Raw::new(Kind::List, deepest, text)
}

/// Three paragraphs or more with the same number of tabs inside are the rows of a table.
fn tabbed_rows(paragraphs: &mut [Styled]) {
    let tabs = |paragraph: &Styled| {
        let plain = paragraph.role == Role::Text && !paragraph.mono && !paragraph.text.contains('\n');
        if plain { paragraph.text.trim().matches('\t').count() } else { 0 }
    };
    let mut at = 0;
    while at < paragraphs.len() {
        let count = tabs(&paragraphs[at]);
        let end = (at..paragraphs.len()).find(|next| tabs(&paragraphs[*next]) != count).unwrap_or(paragraphs.len());
        if count > 0 && end - at >= 3 {
            for paragraph in &mut paragraphs[at..end] {
                let cells = paragraph.text.trim().split('\t').map(|cell| cell.trim().to_owned()).collect();
                paragraph.role = Role::Row(cells);
            }
        }
        at = end.max(at + 1);
    }
}

/// Short paragraphs larger than running text, or bold throughout, are headings: the larger the higher.
/// A document whose headings have styles is left as it is.
fn mark_headings(paragraphs: &mut [Styled]) {
    if paragraphs.iter().any(|paragraph| matches!(paragraph.role, Role::Heading(_))) {
        return;
    }
    let body = body_size(paragraphs);
    let is_short = |paragraph: &Styled| {
        let text = paragraph.text.trim();
        paragraph.role == Role::Text
            && !paragraph.mono
            && text.chars().count() <= LONGEST_HEADING
            && text.chars().any(char::is_alphabetic)
            && !text.ends_with([',', ';'])
    };
    let is_large = |paragraph: &Styled| is_short(paragraph) && body > 0.0 && paragraph.size >= body * LARGER;
    let mut sizes: Vec<u32> =
        paragraphs.iter().filter(|paragraph| is_large(paragraph)).map(|paragraph| halves(paragraph.size)).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.dedup();
    let last_is_bold = |at: usize, paragraphs: &[Styled]| {
        let follows = paragraphs[at + 1..].iter().find(|next| next.role != Role::Gap);
        follows.is_none_or(|next| next.bold && next.role == Role::Text)
    };
    for at in 0..paragraphs.len() {
        let paragraph = &paragraphs[at];
        if is_large(paragraph) {
            let rank = sizes.iter().position(|size| *size == halves(paragraph.size)).unwrap_or(0);
            paragraphs[at].role = Role::Heading((rank as u8).saturating_add(1).min(5));
        } else if paragraph.bold
            && is_short(paragraph)
            && paragraph.text.trim().chars().count() <= 80
            && !paragraph.text.trim_end().ends_with(['.', ':', '!'])
            && !last_is_bold(at, paragraphs)
        {
            paragraphs[at].role = Role::Heading((sizes.len() as u8).saturating_add(1).min(6));
        }
    }
}

/// The size that most characters have.
fn body_size(paragraphs: &[Styled]) -> f32 {
    let mut counts = std::collections::BTreeMap::<u32, usize>::new();
    for paragraph in paragraphs.iter().filter(|paragraph| !paragraph.mono && paragraph.size > 0.0) {
        *counts.entry(halves(paragraph.size)).or_default() += paragraph.text.len();
    }
    let most = counts.into_iter().max_by_key(|(size, count)| (*count, std::cmp::Reverse(*size)));
    most.map_or(0.0, |(size, _)| size as f32 / 2.0)
}

/// A size in half points, so that sizes can be compared.
fn halves(size: f32) -> u32 {
    (size * 2.0).round() as u32
}

/// The marker that a paragraph begins with where lists are made by hand, and the text after it.
pub(super) fn hand_made_item(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    for bullet in ['•', '·', '◦', '▪', '‣', '○', '●', '–', '\u{f0b7}'] {
        if let Some(rest) = text.strip_prefix(bullet)
            && rest.starts_with([' ', '\t', '\u{a0}'])
        {
            return Some(("- ".to_owned(), rest.trim_start()));
        }
    }
    if let Some(rest) = text.strip_prefix("-\t").or_else(|| text.strip_prefix("- ")) {
        return Some(("- ".to_owned(), rest.trim_start()));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text[digits..].strip_prefix(['.', ')'])?;
    ((1..=3).contains(&digits) && rest.starts_with([' ', '\t']))
        .then(|| (format!("{}. ", &text[..digits]), rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styled(text: &str, size: f32) -> Styled {
        Styled { text: text.into(), size, ..Styled::default() }
    }

    #[test]
    fn looks_tell_headings_and_listings() {
        let mut strong = styled("Small heading", 10.0);
        strong.bold = true;
        let mut code = styled("ls -l", 10.0);
        code.mono = true;
        let mut gap = styled("", 10.0);
        gap.role = Role::Gap;
        let given = vec![
            styled("Big", 20.0),
            styled("Middle", 14.0),
            styled("Running text that is much longer than the headings are.", 10.0),
            strong,
            code.clone(),
            gap,
            code,
            styled("More running text.", 10.0),
        ];
        let seen: Vec<_> = blocks(given).into_iter().map(|raw| (raw.kind, raw.level, raw.text)).collect();
        assert_eq!(seen[0], (Kind::Heading, 1, "Big".into()));
        assert_eq!(seen[1], (Kind::Heading, 2, "Middle".into()));
        assert_eq!(seen[3], (Kind::Heading, 3, "Small heading".into()));
        assert_eq!(seen[4], (Kind::Code, 0, "ls -l\n\nls -l".into()));
        assert_eq!(seen[5].0, Kind::Paragraph);
    }

    #[test]
    fn tabs_make_tables() {
        let given = ["Name\tUse", "a\tb", "c\td"].map(|text| styled(text, 10.0));
        assert_eq!(blocks(given.to_vec())[0].text, "| Name | Use |\n| --- | --- |\n| a | b |\n| c | d |");
    }

    #[test]
    fn markers() {
        assert_eq!(hand_made_item("•\tone"), Some(("- ".into(), "one")));
        assert_eq!(hand_made_item("12.\tone"), Some(("12. ".into(), "one")));
        assert_eq!(hand_made_item("3.1 one"), None);
        assert_eq!(hand_made_item("1999. "), None);
    }
}

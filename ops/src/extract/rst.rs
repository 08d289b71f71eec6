//! reStructuredText to blocks, after docutils' "reStructuredText Markup Specification", with the directives and roles of Sphinx.
//!
//! Marks inside lines are read in `rst/inline.rs`, directives in `rst/directive.rs`, tables in `rst/table.rs`.

mod directive;
mod inline;
mod table;

use std::collections::BTreeMap;

use self::inline::Names;
use super::format::Format;
use super::reader::{MAX_DEPTH, Unreadable};
use super::{encoding, tidy};
use crate::document::links::Marks;
use crate::document::{Document, Kind, Raw};

/// Reads a reStructuredText file.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let text = tidy::layout(&encoding::decode(bytes, None));
    let lines: Vec<&str> = text.lines().collect();
    let mut parser = Parser { names: Names::of(&lines), styles: Vec::new(), anchors: Vec::new() };
    let blocks = parser.body(&lines, 0)?;
    let title = blocks.iter().find(|block| block.kind == Kind::Heading).map(|block| block.text.clone());
    Ok(Document::assemble(title, blocks))
}

struct Parser {
    names: Names,
    /// How headings are adorned, the highest first: the character, and whether a line of it stands above, too.
    styles: Vec<(char, bool)>,
    /// Anchors that wait for a block.
    anchors: Vec<String>,
}

impl Parser {
    /// The blocks of some lines that have no indent in common.
    fn body(&mut self, lines: &[&str], depth: usize) -> Result<Vec<Raw>, Unreadable> {
        if depth > MAX_DEPTH / 4 {
            return Err(Unreadable::TooDeep(Format::Rst));
        }
        let mut blocks: Vec<Raw> = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            if line.is_empty() {
                at += 1;
            } else if line == ".." || line.starts_with(".. ") || line.starts_with("__ ") {
                let end = indented_end(lines, at + 1);
                self.explicit(&lines[at..end], &mut blocks, depth)?;
                at = end;
            } else if let Some((style, title, used)) = heading(&lines[at..]) {
                blocks.push(self.heading(style, title));
                at += used;
            } else if let Some((rows, used)) = table::read(&lines[at..]) {
                blocks.push(self.table(&rows));
                at += used;
            } else if is_adornment(line) && line.len() >= 4 {
                at += 1;
            } else if item(line).is_some() {
                at = self.list(lines, at, &mut blocks, depth)?;
            } else if line.starts_with(">>> ") {
                let end = blank_after(lines, at);
                self.push(&mut blocks, Raw::new(Kind::Code, 0, lines[at..end].join("\n")));
                at = end;
            } else if line.starts_with(' ') {
                let end = indented_end(lines, at);
                let inner = self.body(&dedented(&lines[at..end]), depth + 1)?;
                blocks.extend(inner);
                at = end;
            } else {
                at = self.paragraph(lines, at, &mut blocks, depth)?;
            }
        }
        Ok(blocks)
    }

    /// Adds a block, which takes the anchors that wait.
    fn push(&mut self, blocks: &mut Vec<Raw>, mut block: Raw) {
        block.marks.anchors.append(&mut self.anchors);
        blocks.push(block);
    }

    fn heading(&mut self, style: (char, bool), title: &str) -> Raw {
        let known = self.styles.iter().position(|known| *known == style);
        let level = known.unwrap_or_else(|| {
            self.styles.push(style);
            self.styles.len() - 1
        });
        let (text, mut marks) = self.names.inline(title);
        marks.anchors.append(&mut self.anchors);
        marks.anchors.push(inline::normal(title));
        Raw { marks, ..Raw::new(Kind::Heading, (level as u8).saturating_add(1).min(6), text) }
    }

    fn table(&mut self, rows: &[Vec<String>]) -> Raw {
        let mut marks = Marks { anchors: std::mem::take(&mut self.anchors), ..Marks::default() };
        let mut plain = Vec::with_capacity(rows.len());
        for row in rows {
            let cells = row.iter().map(|cell| self.names.inline(cell));
            let (texts, links): (Vec<String>, Vec<Marks>) = cells.unzip();
            links.into_iter().for_each(|more| marks.add(more));
            plain.push(texts);
        }
        Raw { marks, ..Raw::new(Kind::Table, 0, tidy::table(&plain)) }
    }

    /// A paragraph and the literal block after its `::`; or, if what follows is indented, a term and its definition.
    fn paragraph(
        &mut self,
        lines: &[&str],
        at: usize,
        blocks: &mut Vec<Raw>,
        depth: usize,
    ) -> Result<usize, Unreadable> {
        let end = blank_after(lines, at);
        let is_term = end > at + 1 && lines[at + 1].starts_with(' ') && !lines[at].ends_with("::");
        if is_term {
            return self.definitions(lines, at, blocks, depth);
        }
        let is_line_block = lines[at..end].iter().all(|line| line.starts_with("| ") || *line == "|");
        let mut text = if is_line_block {
            lines[at..end].iter().map(|line| line[1..].trim()).collect::<Vec<_>>().join("\n")
        } else {
            lines[at..end].join(" ")
        };
        let literal = text.ends_with("::") && !is_line_block;
        if literal {
            let bare = text.trim_end_matches(':').trim_end().len();
            let said = text[..=bare].trim_end().to_owned();
            text = if bare == 0 {
                String::new()
            } else if text[bare..].starts_with(' ') {
                text[..bare].to_owned()
            } else {
                said
            };
        }
        let (text, marks) = self.names.inline_lines(&text);
        if !text.is_empty() {
            self.push(blocks, Raw { marks, ..Raw::new(Kind::Paragraph, 0, text) });
        }
        let mut next = end;
        if literal {
            let stop = indented_end(lines, end);
            let code = dedented(&lines[end..stop]).join("\n");
            if !code.trim().is_empty() {
                self.push(blocks, Raw::new(Kind::Code, 0, tidy::layout(&code)));
            }
            next = stop;
        }
        Ok(next)
    }

    fn definitions(
        &mut self,
        lines: &[&str],
        mut at: usize,
        blocks: &mut Vec<Raw>,
        depth: usize,
    ) -> Result<usize, Unreadable> {
        let mut items = Vec::new();
        while at + 1 < lines.len()
            && !lines[at].is_empty()
            && !lines[at].starts_with(' ')
            && lines[at + 1].starts_with(' ')
        {
            // The first is a term whatever it looks like: who calls has asked everybody else.
            if !items.is_empty() && (item(lines[at]).is_some() || lines[at].starts_with("..")) {
                break;
            }
            let end = indented_end(lines, at + 1);
            let (term, marks) = self.names.inline(lines[at]);
            let mut inner = self.body(&dedented(&lines[at + 1..end]), depth + 1)?;
            match inner.first_mut().filter(|first| first.kind == Kind::Paragraph) {
                Some(first) => first.text = format!("{term}: {}", first.text),
                None => inner.insert(0, Raw::new(Kind::Paragraph, 0, format!("{term}:"))),
            }
            inner[0].marks.add(marks);
            items.push(("- ".to_owned(), inner));
            at = end;
            while lines.get(at).is_some_and(|line| line.is_empty()) {
                at += 1;
            }
        }
        let list = list(items);
        self.push(blocks, list);
        Ok(at)
    }

    fn list(
        &mut self,
        lines: &[&str],
        mut at: usize,
        blocks: &mut Vec<Raw>,
        depth: usize,
    ) -> Result<usize, Unreadable> {
        let mut items = Vec::new();
        let mut number = 0_u64;
        let first = item(lines[at]).map(|(kind, _, _)| kind);
        while at < lines.len() {
            let Some((kind, marker, text)) = item(lines[at]).filter(|(kind, _, _)| Some(*kind) == first) else { break };
            let mut end = at + 1;
            end = indented_end(lines, end);
            let mut inner: Vec<&str> = vec![text];
            inner.extend(dedented(&lines[at + 1..end]));
            let marker = match kind {
                ItemKind::Bullet => "- ".to_owned(),
                ItemKind::Number => {
                    number = marker.parse().unwrap_or(number + 1);
                    format!("{number}. ")
                }
                ItemKind::Field => "- ".to_owned(),
            };
            let mut content = self.body(&inner, depth + 1)?;
            if kind == ItemKind::Field {
                let name = item(lines[at]).map_or("", |(_, name, _)| name);
                match content.first_mut().filter(|first| first.kind == Kind::Paragraph) {
                    Some(first) => first.text = format!("{name}: {}", first.text),
                    None => content.insert(0, Raw::new(Kind::Paragraph, 0, format!("{name}:"))),
                }
            }
            items.push((marker, content));
            at = end;
            while lines.get(at).is_some_and(|line| line.is_empty()) {
                at += 1;
            }
        }
        items.retain(|(_, content)| !content.is_empty());
        if !items.is_empty() {
            let list = list(items);
            self.push(blocks, list);
        }
        Ok(at)
    }
}

/// One block of some items.
fn list(items: Vec<(String, Vec<Raw>)>) -> Raw {
    let inner = || items.iter().flat_map(|(_, blocks)| blocks);
    let deepest = inner().filter(|block| block.kind == Kind::List).map(|block| block.level).max().unwrap_or(0);
    let text = items.iter().map(|(marker, blocks)| tidy::list_item(marker, blocks)).collect::<Vec<_>>().join("\n");
    let mut marks = Marks::default();
    items.into_iter().flat_map(|(_, blocks)| blocks).for_each(|block| marks.add(block.marks));
    Raw { marks, ..Raw::new(Kind::List, deepest.saturating_add(1), text) }
}

/// What an item of a list begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Bullet,
    Number,
    /// `:name: value`
    Field,
}

/// The kind of a line that begins an item, its number or name, and its text.
fn item(line: &str) -> Option<(ItemKind, &str, &str)> {
    if let Some(rest) = ["- ", "* ", "+ ", "• "].iter().find_map(|bullet| line.strip_prefix(bullet)) {
        return Some((ItemKind::Bullet, "", rest.trim_start()));
    }
    if let Some(field) = line.strip_prefix(':')
        && let Some((name, text)) = field.split_once(':')
        && !name.is_empty()
        && !name.contains('`')
        && (text.is_empty() || text.starts_with(' '))
    {
        return Some((ItemKind::Field, name, text.trim_start()));
    }
    let open = line.strip_prefix('(').unwrap_or(line);
    let length = open.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'#').count();
    let (number, rest) = open.split_at(length);
    let rest = rest.strip_prefix(['.', ')'])?.strip_prefix(' ')?;
    let is_number = number == "#" || length <= 3 && length > 0 && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_letter = length == 1 && number != "#";
    (is_number || is_letter).then_some((ItemKind::Number, number, rest.trim_start()))
}

/// A title with its adornments: style, text, lines used.
fn heading<'a>(lines: &[&'a str]) -> Option<((char, bool), &'a str, usize)> {
    let adorned = |index: usize| lines.get(index).filter(|line| is_adornment(line));
    if let (Some(over), Some(title), Some(under)) = (adorned(0), lines.get(1), adorned(2))
        && over.chars().next() == under.chars().next()
        && !title.trim().is_empty()
    {
        return Some(((over.chars().next()?, true), title.trim(), 3));
    }
    let (title, under) = (lines[0], adorned(1)?);
    let wide = under.chars().count() >= title.chars().count().min(4) && under.chars().count() >= 3;
    let plain = !title.is_empty()
        && !title.starts_with(' ')
        && !is_adornment(title)
        && title.chars().any(char::is_alphanumeric);
    (wide && plain).then(|| ((under.chars().next().unwrap_or('='), false), title.trim(), 2))
}

/// A line of one punctuation character.
fn is_adornment(line: &str) -> bool {
    let Some(first) = line.chars().next() else { return false };
    first.is_ascii_punctuation()
        && line.len() >= 2
        && line.chars().all(|char| char == first)
        && line != "::"
        && line != ".."
}

/// Where the lines from `at` that are blank or indented end; blank lines at the end are not counted.
fn indented_end(lines: &[&str], at: usize) -> usize {
    let mut end = at.min(lines.len());
    for (index, line) in lines.iter().enumerate().skip(at) {
        if line.starts_with(' ') {
            end = index + 1;
        } else if !line.is_empty() {
            break;
        }
    }
    end
}

fn blank_after(lines: &[&str], at: usize) -> usize {
    lines[at..].iter().position(|line| line.is_empty()).map_or(lines.len(), |blank| at + blank)
}

/// Lines without the indent that they have in common.
fn dedented<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let indent = |line: &&&str| line.len() - line.trim_start_matches(' ').len();
    let common = lines.iter().filter(|line| !line.is_empty()).map(|line| indent(&line)).min().unwrap_or(0);
    lines.iter().map(|line| line.get(common..).unwrap_or("")).collect()
}

/// What a directive's options say.
type Options<'a> = BTreeMap<&'a str, &'a str>;

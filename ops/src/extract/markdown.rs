//! Markdown to blocks, with tables and front matter; inline marks go, their text stays.

use std::collections::BTreeMap;

use pulldown_cmark::{Event, MetadataBlockKind, Options, Parser, Tag, TagEnd};

use super::format::Format;
use super::reader::{MAX_DEPTH, Unreadable};
use super::{encoding, tidy};
use crate::document::links::{Marks, percent_decoded};
use crate::document::{Document, Kind, Raw};

/// Reads a markdown file.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let text = encoding::decode(bytes, None);
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let mut state = State { frames: vec![Frame::default()], ..State::default() };
    for event in Parser::new_ext(&text, options) {
        state.event(event);
        if state.frames.len() > MAX_DEPTH {
            return Err(Unreadable::TooDeep(Format::Markdown));
        }
    }
    let blocks = state.close_all();
    let heading = blocks.iter().find(|block| block.kind == Kind::Heading && block.level == 1);
    let title = state.title.or_else(|| heading.map(|heading| heading.text.clone()));
    Ok(Document::assemble(title, blocks))
}

/// A place that blocks are gathered in: the document, or an item of a list.
#[derive(Default)]
struct Frame {
    blocks: Vec<Raw>,
    /// Inline text of the block that is open.
    line: String,
    /// Its anchors and links.
    marks: Marks,
    /// Where in `line` the words of the open link begin, and its target.
    link: Option<(usize, String)>,
}

/// A list being read: its next number, and its finished items.
struct List {
    number: Option<u64>,
    depth: u8,
    items: Vec<String>,
    marks: Marks,
}

#[derive(Default)]
struct State {
    frames: Vec<Frame>,
    lists: Vec<List>,
    rows: Vec<Vec<String>>,
    title: Option<String>,
    /// Anchors of headings, and how often each came.
    slugs: BTreeMap<String, usize>,
    in_metadata: Option<MetadataBlockKind>,
}

impl State {
    fn top(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the document's frame stays")
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_metadata.is_some() => self.metadata(&text),
            Event::Text(text) | Event::Code(text) => self.top().line.push_str(&text),
            Event::InlineHtml(html) if html.starts_with("<br") => self.top().line.push('\n'),
            Event::InlineHtml(html) if html.starts_with("<a ") => {
                let name = ["id=\"", "name=\""].iter().find_map(|key| Some(html.split_once(key)?.1.split_once('"')?.0));
                self.top().marks.anchors.extend(name.map(str::to_owned));
            }
            Event::Html(html) => self.top().line.push_str(&html),
            Event::SoftBreak => self.top().line.push(' '),
            Event::HardBreak => self.top().line.push('\n'),
            Event::TaskListMarker(done) => self.top().line.push_str(if done { "[x] " } else { "[ ] " }),
            Event::InlineHtml(_) | Event::InlineMath(_) | Event::DisplayMath(_) | Event::Rule => {}
            Event::FootnoteReference(name) => self.top().marks.links.push((name.to_string(), format!("#fn:{name}"))),
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::List(number) => {
                self.flush();
                self.lists.push(List { number: *number, depth: 1, items: Vec::new(), marks: Marks::default() });
            }
            Tag::Item => self.frames.push(Frame::default()),
            Tag::Table(_) => {
                self.flush();
                self.rows.clear();
            }
            Tag::TableHead | Tag::TableRow => self.rows.push(Vec::new()),
            Tag::MetadataBlock(kind) => self.in_metadata = Some(*kind),
            Tag::Link { dest_url, .. } => {
                let top = self.top();
                top.link = Some((top.line.len(), percent_decoded(dest_url)));
            }
            Tag::Paragraph | Tag::Heading { .. } | Tag::BlockQuote(_) | Tag::CodeBlock(_) | Tag::HtmlBlock => {
                self.flush();
            }
            Tag::FootnoteDefinition(name) => {
                self.flush();
                self.top().marks.anchors.push(format!("fn:{name}"));
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => self.close(Kind::Heading, level as u8),
            TagEnd::CodeBlock => self.close(Kind::Code, 0),
            TagEnd::Item => self.item(),
            TagEnd::List(_) => self.list(),
            TagEnd::TableCell => {
                let cell = tidy::inline(&std::mem::take(&mut self.top().line), false);
                if let Some(row) = self.rows.last_mut() {
                    row.push(cell);
                }
            }
            TagEnd::Table => {
                let text = tidy::table(&std::mem::take(&mut self.rows));
                let top = self.top();
                let marks = std::mem::take(&mut top.marks);
                top.blocks.push(Raw { marks, ..Raw::new(Kind::Table, 0, text) });
            }
            TagEnd::Link => {
                let top = self.top();
                if let Some((start, target)) = top.link.take() {
                    let label = top.line.get(start..).unwrap_or("").to_owned();
                    top.marks.links.push((label, target));
                }
            }
            TagEnd::MetadataBlock(_) => self.in_metadata = None,
            TagEnd::HtmlBlock => self.html(),
            TagEnd::Paragraph | TagEnd::BlockQuote(_) | TagEnd::FootnoteDefinition => self.flush(),
            _ => {}
        }
    }

    /// Ends the open block as a paragraph.
    fn flush(&mut self) {
        self.close(Kind::Paragraph, 0);
    }

    fn close(&mut self, kind: Kind, level: u8) {
        let line = std::mem::take(&mut self.top().line);
        let text = match kind {
            Kind::Code => tidy::layout(&line),
            _ => tidy::inline(&line, kind == Kind::Paragraph),
        };
        if text.is_empty() {
            return;
        }
        if kind == Kind::Heading {
            let name = self.slug(&text);
            self.top().marks.anchors.push(name);
        }
        let top = self.top();
        let marks = std::mem::take(&mut top.marks);
        top.blocks.push(Raw { marks, ..Raw::new(kind, level, text) });
    }

    /// The anchor that GitHub gives a heading: small letters, blanks as `-`, a number where it stood before.
    fn slug(&mut self, heading: &str) -> String {
        let kept = heading.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        let slug = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let count = self.slugs.entry(slug.clone()).or_default();
        *count += 1;
        if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
    }

    fn item(&mut self) {
        self.flush();
        let item = self.frames.pop().expect("an item's end has its start");
        let deepest = item.blocks.iter().filter(|block| block.kind == Kind::List).map(|block| block.level).max();
        let Some(list) = self.lists.last_mut() else { return };
        list.depth = list.depth.max(deepest.map_or(1, |level| level.saturating_add(1)));
        let marker = match &mut list.number {
            Some(number) => {
                *number = number.saturating_add(1);
                format!("{}. ", *number - 1)
            }
            None => "- ".to_owned(),
        };
        if !item.blocks.is_empty() {
            list.items.push(tidy::list_item(&marker, &item.blocks));
            item.blocks.into_iter().for_each(|block| list.marks.add(block.marks));
        }
        list.marks.add(item.marks);
    }

    fn list(&mut self) {
        let Some(list) = self.lists.pop() else { return };
        if !list.items.is_empty() {
            let text = list.items.join("\n");
            self.top().blocks.push(Raw { marks: list.marks, ..Raw::new(Kind::List, list.depth, text) });
        }
    }

    /// A stretch of HTML inside markdown is read as HTML.
    fn html(&mut self) {
        let html = std::mem::take(&mut self.top().line);
        let page = format!("<meta charset=utf-8><body>{html}");
        if let Ok(inner) = super::html::read(page.as_bytes()) {
            let blocks = inner.blocks.iter().map(|block| Raw::new(block.kind, block.level, inner.text_of(block)));
            let blocks: Vec<Raw> = blocks.collect();
            self.top().blocks.extend(blocks);
        }
    }

    /// `title:` of the front matter (`title =` where it is TOML).
    fn metadata(&mut self, text: &str) {
        for line in text.lines() {
            let value = line.strip_prefix("title").map(str::trim_start);
            let Some(value) = value.and_then(|value| value.strip_prefix([':', '='])) else { continue };
            let value = value.trim().trim_matches(['"', '\'']).trim();
            if !value.is_empty() {
                self.title = Some(value.to_owned());
            }
        }
    }

    fn close_all(&mut self) -> Vec<Raw> {
        self.flush();
        std::mem::take(&mut self.top().blocks)
    }
}

//! OpenDocument texts (ODT, ISO/IEC 26300) to blocks: headings by their outline level, listings by their styles.
//!
//! Styles are read in `odt/styles.rs`; here the body's elements change a state, paragraph by paragraph.

mod styles;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use self::styles::Styles;
use super::format::Format;
use super::package::{self, Package, attribute};
use super::reader::{MAX_DEPTH, Unreadable};
use super::styled::{self, Role, Styled};
use super::tidy;
use crate::document::links::{Marks, percent_decoded};
use crate::document::{Document, Kind};

/// Reads an ODT file.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let mut package = Package::open(Format::Odt, bytes)?;
    if package.text("META-INF/manifest.xml")?.contains("encryption-data") {
        return Err(Unreadable::Encrypted(Format::Odt));
    }
    let content = package.text("content.xml")?;
    let styles = Styles::read(&[&package.text("styles.xml")?, &content])?;
    let meta = package.text("meta.xml")?;
    let mut body = Body::new(&styles);
    body.read(&content)?;
    let (title, paragraphs) = (body.title, body.paragraphs);
    let blocks = styled::blocks(paragraphs);
    let first =
        || blocks.iter().find(|block| block.kind == Kind::Heading && block.level == 1).map(|block| block.text.clone());
    let title = package::element_text(&meta, "title").or(title).or_else(first);
    Ok(Document::assemble(title, blocks))
}

/// A list that is open: its style, whether its items are numbered, and how many it has.
struct List {
    style: String,
    numbered: bool,
    count: u32,
}

/// A table that is open.
#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
    cell: String,
    /// How many columns the open cell covers, or how often it is repeated.
    columns: usize,
    marks: Marks,
}

struct Body<'a> {
    styles: &'a Styles,
    paragraphs: Vec<Styled>,
    title: Option<String>,
    /// Paragraphs that are open, innermost last: a note is inside a paragraph.
    open: Vec<Paragraph>,
    lists: Vec<List>,
    tables: Vec<Table>,
    /// The next paragraph begins an item.
    item: bool,
    /// Inside something whose text is not read.
    hidden: usize,
    /// Notes of the open paragraph, which come after it.
    notes: Vec<Styled>,
    anchors: Vec<String>,
}

/// The paragraph being read.
#[derive(Default)]
struct Paragraph {
    text: String,
    style: String,
    heading: Option<u8>,
    links: Vec<(usize, String)>,
    marks: Marks,
}

impl<'a> Body<'a> {
    fn new(styles: &'a Styles) -> Self {
        Self {
            styles,
            paragraphs: Vec::new(),
            title: None,
            open: Vec::new(),
            lists: Vec::new(),
            tables: Vec::new(),
            item: false,
            hidden: 0,
            notes: Vec::new(),
            anchors: Vec::new(),
        }
    }

    fn read(&mut self, xml: &str) -> Result<(), Unreadable> {
        let mut reader = Reader::from_str(xml);
        let mut depth = 0_usize;
        loop {
            match reader.read_event().map_err(|error| Unreadable::malformed(Format::Odt, error))? {
                Event::Start(element) => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(Unreadable::TooDeep(Format::Odt));
                    }
                    self.start(&element);
                }
                Event::Empty(element) => {
                    self.start(&element);
                    self.end(element.local_name().as_ref());
                }
                Event::End(element) => {
                    depth = depth.saturating_sub(1);
                    self.end(element.local_name().as_ref());
                }
                Event::Text(text) => self.push(&one_blank(&text.xml10_content())),
                Event::CData(text) => self.push(&one_blank(&text.xml10_content())),
                Event::GeneralRef(reference) => self.push(&package::entity(&reference)),
                Event::Eof if depth > 0 => return Err(Unreadable::malformed(Format::Odt, "its XML is cut short")),
                Event::Eof => return Ok(()),
                _ => {}
            }
        }
    }

    fn start(&mut self, element: &BytesStart<'_>) {
        let local = element.local_name();
        match local.as_ref() {
            "tracked-changes" | "annotation" | "table-of-content" | "alphabetical-index" | "forms" | "ruby-text" => {
                self.hidden += 1;
            }
            "p" | "h" => self.open_paragraph(element, local.as_ref() == "h"),
            "list" => {
                let own = attribute(element, "style-name");
                let above = || self.lists.last().map_or_else(String::new, |above| above.style.clone());
                let style = if own.is_empty() { above() } else { own };
                let numbered = self.styles.is_numbered(&style, self.lists.len() + 1);
                let numbered = numbered.unwrap_or_else(|| self.lists.last().is_some_and(|above| above.numbered));
                self.lists.push(List { style, numbered, count: 0 });
            }
            "list-item" => self.item = true,
            "table" => self.tables.push(Table::default()),
            "table-row" => self.table(|table| table.rows.push(Vec::new())),
            "table-cell" | "covered-table-cell" => {
                let columns = attribute(element, "number-columns-repeated").parse::<usize>().unwrap_or(1).clamp(1, 64);
                self.table(|table| table.columns = columns);
            }
            "s" => self.push(&" ".repeat(attribute(element, "c").parse::<usize>().unwrap_or(1).min(256))),
            "tab" => self.push("\t"),
            "line-break" => self.push("\n"),
            "a" => self.open_link(percent_decoded(&attribute(element, "href"))),
            "bookmark-ref" | "sequence-ref" | "note-ref" | "reference-ref" => {
                self.open_link(format!("#{}", attribute(element, "ref-name")));
            }
            "bookmark" | "bookmark-start" | "reference-mark" | "reference-mark-start" => {
                self.anchors.push(attribute(element, "name"));
            }
            "sequence" => self.anchors.push(attribute(element, "ref-name")),
            "note-citation" => self.hidden += 1,
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "tracked-changes" | "annotation" | "table-of-content" | "alphabetical-index" | "forms" | "ruby-text"
            | "note-citation" => self.hidden = self.hidden.saturating_sub(1),
            "p" | "h" => self.close_paragraph(),
            "list" => drop(self.lists.pop()),
            "table-cell" | "covered-table-cell" => self.table(|table| {
                let cell = tidy::inline(&std::mem::take(&mut table.cell), false);
                let columns = table.columns;
                if let Some(row) = table.rows.last_mut() {
                    row.push(cell);
                    row.extend(std::iter::repeat_n(String::new(), columns.saturating_sub(1)));
                }
            }),
            "table" => self.close_table(),
            "a" | "bookmark-ref" | "sequence-ref" | "note-ref" | "reference-ref" => {
                if let Some(paragraph) = self.open.last_mut()
                    && let Some((start, target)) = paragraph.links.pop()
                {
                    let label = paragraph.text.get(start..).unwrap_or("").to_owned();
                    paragraph.marks.links.push((label, target));
                }
            }
            _ => {}
        }
    }

    fn table(&mut self, change: impl FnOnce(&mut Table)) {
        if let Some(table) = self.tables.last_mut() {
            change(table);
        }
    }

    fn push(&mut self, text: &str) {
        if let Some(paragraph) = self.open.last_mut().filter(|_| self.hidden == 0) {
            paragraph.text.push_str(text);
        }
    }

    fn open_link(&mut self, target: String) {
        if let Some(paragraph) = self.open.last_mut() {
            paragraph.links.push((paragraph.text.len(), target));
        }
    }

    fn open_paragraph(&mut self, element: &BytesStart<'_>, heading: bool) {
        let level = attribute(element, "outline-level").parse::<u8>().unwrap_or(1).clamp(1, 6);
        let style = attribute(element, "style-name");
        self.open.push(Paragraph { style, heading: heading.then_some(level), ..Paragraph::default() });
    }

    fn close_paragraph(&mut self) {
        let Some(mut paragraph) = self.open.pop() else { return };
        paragraph.marks.anchors.append(&mut self.anchors);
        if self.hidden > 0 {
            return;
        }
        if !self.open.is_empty() && self.tables.is_empty() {
            // A note, or a text box: it comes after the paragraph that it hangs on.
            self.notes.push(Styled { text: paragraph.text, marks: paragraph.marks, ..Styled::default() });
            return;
        }
        if let Some(table) = self.tables.last_mut() {
            table.marks.add(paragraph.marks);
            table.cell.push_str(&paragraph.text);
            return table.cell.push(' ');
        }
        let style = self.styles.get(&paragraph.style);
        if style.title && self.title.is_none() {
            self.title = Some(tidy::inline(&paragraph.text, false)).filter(|title| !title.is_empty());
        }
        let role = self.role(&paragraph);
        self.paragraphs.push(Styled {
            text: paragraph.text,
            size: style.size.unwrap_or(0.0),
            bold: style.bold.unwrap_or(false),
            mono: style.mono,
            role,
            page: None,
            marks: paragraph.marks,
        });
        self.paragraphs.append(&mut self.notes);
    }

    fn role(&mut self, paragraph: &Paragraph) -> Role {
        let style = self.styles.get(&paragraph.style);
        if paragraph.text.trim().is_empty() {
            return Role::Gap;
        }
        if let Some(level) = paragraph.heading.or(style.title.then_some(1)) {
            return Role::Heading(level);
        }
        let depth = self.lists.len().min(8) as u8;
        match self.lists.last_mut() {
            Some(list) if std::mem::take(&mut self.item) => {
                list.count += 1;
                let marker = if list.numbered { format!("{}. ", list.count) } else { "- ".to_owned() };
                Role::Item(marker, depth)
            }
            // What goes on in an item stands under its text.
            Some(_) => Role::Item("  ".to_owned(), depth),
            None => Role::Text,
        }
    }

    fn close_table(&mut self) {
        let Some(mut table) = self.tables.pop() else { return };
        if let Some(outer) = self.tables.last_mut() {
            let text: Vec<String> = table.rows.into_iter().map(|row| row.join(" ")).collect();
            outer.marks.add(table.marks);
            return outer.cell.push_str(&text.join(" "));
        }
        for mut row in table.rows {
            let filled = row.iter().rposition(|cell| !cell.is_empty()).map_or(0, |last| last + 1);
            row.truncate(filled.max(1));
            let marks = std::mem::take(&mut table.marks);
            self.paragraphs.push(Styled { role: Role::Row(row), marks, ..Styled::default() });
        }
        self.paragraphs.push(Styled { role: Role::Gap, ..Styled::default() });
    }
}

/// White space in the XML is a single blank; those that count are elements.
fn one_blank(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut gap = false;
    for char in text.chars() {
        if matches!(char, ' ' | '\t' | '\n' | '\r') {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) {
            plain.push(' ');
        }
        plain.push(char);
    }
    if gap {
        plain.push(' ');
    }
    plain
}

//! Word documents (DOCX, ISO/IEC 29500) to blocks: styles name headings and listings, numbering makes lists.

mod links;
mod parts;

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use self::links::Links;
use self::parts::{Numbering, Style, Styles, value};
use super::format::Format;
use super::package::{self, Package, attribute};
use super::reader::{MAX_DEPTH, Unreadable};
use super::styled::{self, Role, Styled};
use super::tidy;
use crate::document::links::Marks;
use crate::document::{Document, Kind};

/// Reads a DOCX file.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let mut package = Package::open(Format::Docx, bytes)?;
    let body = package.text("word/document.xml")?;
    let styles = Styles::read(&package.text("word/styles.xml")?)?;
    let numbering = Numbering::read(&package.text("word/numbering.xml")?)?;
    let core = package.text("docProps/core.xml")?;
    let mut reader = Body {
        styles: &styles,
        numbering,
        paragraphs: Vec::new(),
        title: None,
        state: State::default(),
        tables: Vec::new(),
        relations: links::relations(&package.text("word/_rels/document.xml.rels")?)?,
        field: None,
        marks: Marks::default(),
        cell_marks: Marks::default(),
    };
    reader.read(&body)?;
    let Body { paragraphs, title, .. } = reader;
    let blocks = styled::blocks(paragraphs);
    let first =
        || blocks.iter().find(|block| block.kind == Kind::Heading && block.level == 1).map(|block| block.text.clone());
    let title = title.or_else(|| package::element_text(&core, "title")).or_else(first);
    Ok(Document::assemble(title, blocks))
}

/// The paragraph being read.
#[derive(Default)]
struct State {
    text: String,
    style: String,
    list: Option<(String, u8)>,
    outline: Option<u8>,
    in_run: bool,
    in_text: bool,
    /// Inside something whose text is not read: deleted text, field codes, drawings' fallbacks.
    hidden: usize,
    run: Look,
    letters: usize,
    bold_letters: usize,
    mono_letters: usize,
    size: f32,
    links: Links,
}

/// The look of a run.
#[derive(Clone, Copy, Default)]
struct Look {
    bold: Option<bool>,
    mono: Option<bool>,
    size: Option<f32>,
}

/// A table being read.
#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
    cell: String,
    /// Columns of the open cell beyond its first.
    extra: usize,
}

struct Body<'a> {
    styles: &'a Styles,
    numbering: Numbering,
    paragraphs: Vec<Styled>,
    title: Option<String>,
    state: State,
    tables: Vec<Table>,
    /// Targets of the archive's relations by id.
    relations: BTreeMap<String, String>,
    /// What the open field does, while it is read.
    field: Option<String>,
    /// Anchors of the open paragraph, or of the next.
    marks: Marks,
    /// Those of the cells of the open table.
    cell_marks: Marks,
}

impl Body<'_> {
    fn read(&mut self, xml: &str) -> Result<(), Unreadable> {
        let mut reader = Reader::from_str(xml);
        let mut depth = 0_usize;
        loop {
            match reader.read_event().map_err(|error| Unreadable::malformed(Format::Docx, error))? {
                Event::Start(element) => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(Unreadable::TooDeep(Format::Docx));
                    }
                    self.start(&element, false);
                }
                Event::Empty(element) => self.start(&element, true),
                Event::End(element) => {
                    depth = depth.saturating_sub(1);
                    self.end(element.local_name().as_ref());
                }
                Event::Text(text) if self.field.is_some() => {
                    self.field.get_or_insert_default().push_str(&text.xml10_content());
                }
                Event::Text(text) if self.state.in_text => self.push(&text.xml10_content()),
                Event::CData(text) if self.state.in_text => self.push(&text.xml10_content()),
                Event::GeneralRef(reference) if self.state.in_text => self.push(&package::entity(&reference)),
                Event::Eof => return Ok(()),
                _ => {}
            }
        }
    }

    fn start(&mut self, element: &BytesStart<'_>, empty: bool) {
        let local = element.local_name();
        let name = local.as_ref();
        let state = &mut self.state;
        match name {
            "p" => *state = State { hidden: state.hidden, ..State::default() },
            "pStyle" => state.style = value(element),
            "outlineLvl" => state.outline = value(element).parse().ok().filter(|level| *level < 9),
            "ilvl" => {
                let level = value(element).parse::<u8>().unwrap_or(0).min(8);
                state.list.get_or_insert_default().1 = level;
            }
            "numId" => state.list.get_or_insert_default().0 = value(element),
            "r" => (state.in_run, state.run) = (true, Look::default()),
            "b" if state.in_run => state.run.bold = Some(!matches!(value(element).as_str(), "0" | "false")),
            "sz" if state.in_run => state.run.size = value(element).parse::<f32>().ok().map(|halves| halves / 2.0),
            "rFonts" if state.in_run => state.run.mono = Some(parts::is_mono(&attribute(element, "ascii"))),
            "t" if !empty => state.in_text = true,
            "tab" if state.in_run => self.push("\t"),
            "br" | "cr" if state.in_run => self.push("\n"),
            "noBreakHyphen" => self.push("-"),
            "instrText" if !empty => self.field = Some(String::new()),
            "fldSimple" | "hyperlink" if !empty => {
                let target = links::target(element, &self.relations);
                self.state.links.open(self.state.text.len(), target);
            }
            "fldChar" if attribute(element, "fldCharType") == "end" => self.state.links.close(&self.state.text),
            "bookmarkStart" => self.marks.anchors.push(attribute(element, "name")),
            "del" | "Fallback" | "delText" | "footnotePr" | "txbxContent" if !empty => state.hidden += 1,
            "tbl" => self.tables.push(Table::default()),
            "tr" => self.table(|table| table.rows.push(Vec::new())),
            "gridSpan" => {
                let extra = value(element).parse::<usize>().unwrap_or(1).clamp(1, 64) - 1;
                self.table(|table| table.extra = extra);
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "p" => self.paragraph(),
            "r" => self.state.in_run = false,
            "t" => self.state.in_text = false,
            "hyperlink" | "fldSimple" => self.state.links.close(&self.state.text),
            "instrText" => {
                let field = self.field.take().unwrap_or_default();
                if self.state.hidden == 0 {
                    self.state.links.open(self.state.text.len(), links::of_field(&field));
                }
            }
            "del" | "Fallback" | "delText" | "footnotePr" | "txbxContent" => {
                self.state.hidden = self.state.hidden.saturating_sub(1);
            }
            "tc" => self.table(|table| {
                let cell = tidy::inline(&std::mem::take(&mut table.cell), false);
                let extra = std::mem::take(&mut table.extra);
                if let Some(row) = table.rows.last_mut() {
                    row.push(cell);
                    row.extend(std::iter::repeat_n(String::new(), extra));
                }
            }),
            "tbl" => self.end_table(),
            _ => {}
        }
    }

    fn table(&mut self, change: impl FnOnce(&mut Table)) {
        if let Some(table) = self.tables.last_mut() {
            change(table);
        }
    }

    fn end_table(&mut self) {
        let Some(table) = self.tables.pop() else { return };
        if let Some(outer) = self.tables.last_mut() {
            let text: Vec<String> = table.rows.into_iter().map(|row| row.join(" ")).collect();
            outer.cell.push_str(&text.join(" "));
            return;
        }
        for row in table.rows {
            let marks = std::mem::take(&mut self.cell_marks);
            self.paragraphs.push(Styled { role: Role::Row(row), marks, ..Styled::default() });
        }
        self.paragraphs.push(Styled { role: Role::Gap, ..Styled::default() });
    }

    fn push(&mut self, text: &str) {
        let state = &mut self.state;
        if state.hidden > 0 {
            return;
        }
        let style = self.styles.get(&state.style);
        let letters = text.chars().filter(|char| !char.is_whitespace()).count();
        state.text.push_str(text);
        state.letters += letters;
        state.bold_letters += if state.run.bold.unwrap_or(style.bold) { letters } else { 0 };
        state.mono_letters += if state.run.mono.unwrap_or(style.mono) { letters } else { 0 };
        state.size = state.size.max(state.run.size.unwrap_or(style.size));
    }

    fn paragraph(&mut self) {
        let mut state = std::mem::take(&mut self.state);
        self.state.hidden = state.hidden;
        if state.hidden > 0 {
            return;
        }
        let mut marks = std::mem::take(&mut self.marks);
        marks.links = std::mem::take(&mut state.links).ended(&state.text);
        if let Some(table) = self.tables.last_mut() {
            self.cell_marks.add(marks);
            table.cell.push_str(&state.text);
            return table.cell.push(' ');
        }
        let style = self.styles.get(&state.style).clone();
        let role = self.role(&state, &style);
        let all = |count: usize| state.letters > 0 && count == state.letters;
        let mono = (style.mono && style.is_listing) || all(state.mono_letters);
        let paragraph =
            Styled { text: state.text, size: state.size, bold: all(state.bold_letters), mono, role, page: None, marks };
        if style.is_title {
            self.title.get_or_insert_with(|| tidy::inline(&paragraph.text, false));
        }
        self.paragraphs.push(paragraph);
    }

    fn role(&mut self, state: &State, style: &Style) -> Role {
        if state.text.trim().is_empty() {
            return Role::Gap;
        }
        if let Some(level) = state.outline.map(|level| level + 1).or(style.heading) {
            return Role::Heading(level.min(6));
        }
        if style.is_title {
            return Role::Heading(1);
        }
        let (id, level) = state.list.clone().or_else(|| style.list.clone()).unwrap_or_default();
        if id != "0" && !id.is_empty() {
            return Role::Item(self.numbering.next(&id, level), level + 1);
        }
        match style.bullet {
            Some(true) => Role::Item("- ".to_owned(), style.list_depth),
            Some(false) => Role::Item(self.numbering.next(&format!("style {}", state.style), 0), style.list_depth),
            None => Role::Text,
        }
    }
}

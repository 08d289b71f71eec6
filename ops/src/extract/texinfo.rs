//! Texinfo sources to blocks, after the GNU Texinfo manual: chapters, lists, examples, tables, cross references.
//!
//! Commands in braces are read in `texinfo/inline.rs`. No other file is ever included.

mod inline;

use std::collections::BTreeMap;

use super::format::Format;
use super::reader::{MAX_DEPTH, Unreadable};
use super::{encoding, tidy};
use crate::document::links::Marks;
use crate::document::{Document, Kind, Raw};

/// Reads a texinfo file.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let text = encoding::decode(bytes, declared(bytes).as_deref());
    let mut page = Page { frames: vec![Frame::default()], ..Page::default() };
    for line in text.lines().filter(|line| !line.starts_with("\\input")) {
        page.line(line)?;
        if line.trim_end() == "@bye" {
            break;
        }
    }
    page.close_all();
    let blocks = page.frames.pop().map(|frame| frame.blocks).unwrap_or_default();
    let first = blocks.iter().find(|block| block.kind == Kind::Heading).map(|block| block.text.clone());
    Ok(Document::assemble(page.title.or(first), blocks))
}

/// The `@documentencoding` in the first kilobytes.
fn declared(bytes: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(8192)]);
    head.lines().find_map(|line| line.strip_prefix("@documentencoding ")).map(|label| label.trim().to_owned())
}

/// What is open: the document, a list, a table, a listing.
#[derive(Default)]
struct Frame {
    /// The command that opened it: `itemize`, `multitable`; empty for the document.
    name: String,
    blocks: Vec<Raw>,
    /// Finished items: marker and blocks.
    items: Vec<(String, Vec<Raw>)>,
    /// The terms of the open item.
    terms: Vec<String>,
    rows: Vec<Vec<String>>,
    number: u32,
    in_item: bool,
}

#[derive(Default)]
struct Page {
    frames: Vec<Frame>,
    open: Vec<String>,
    anchors: Vec<String>,
    title: Option<String>,
    values: BTreeMap<String, String>,
    /// The environment whose lines are left out until its end, and how deep it is in itself.
    ignoring: Option<(String, usize)>,
}

impl Page {
    fn top(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the document's frame stays")
    }

    fn line(&mut self, line: &str) -> Result<(), Unreadable> {
        let trimmed = line.trim();
        if let Some((name, depth)) = &mut self.ignoring {
            if trimmed.strip_prefix("@end ").is_some_and(|end| end.trim() == name) {
                *depth -= 1;
            } else if trimmed.strip_prefix('@').is_some_and(|command| command.split(' ').next() == Some(&**name)) {
                *depth += 1;
            }
            if *depth == 0 {
                self.ignoring = None;
            }
            return Ok(());
        }
        let is_listing = is_listing(&self.frames.last().map_or_else(String::new, |frame| frame.name.clone()));
        let command =
            trimmed.strip_prefix('@').filter(|rest| rest.starts_with(|char: char| char.is_ascii_alphabetic()));
        let Some(command) = command else {
            if trimmed.is_empty() && !is_listing {
                self.flush();
            } else {
                self.open.push(line.to_owned());
            }
            return Ok(());
        };
        let length = command.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (name, rest) = command.split_at(length);
        if rest.starts_with('{') && !matches!(name, "anchor" | "settitle") {
            self.open.push(line.to_owned());
            return Ok(());
        }
        self.command(name, rest.trim(), line)
    }

    fn command(&mut self, name: &str, rest: &str, line: &str) -> Result<(), Unreadable> {
        match name {
            "c" | "comment" | "cindex" | "findex" | "kindex" | "pindex" | "tindex" | "vindex" | "noindent"
            | "indent" | "page" | "sp" | "need" | "group" | "setfilename" | "set" | "clear" | "bye"
            | "headitemfont" | "documentencoding" | "documentlanguage" | "include" | "contents" | "shortcontents"
            | "printindex" | "syncodeindex" | "synindex" | "defcodeindex" | "defindex" | "finalout"
            | "setchapternewpage" | "dircategory" | "paragraphindent" | "exampleindent" | "footnotestyle"
            | "smallbook" | "afourpaper" | "iftex" | "ifinfo" | "ifhtml" | "ifnottex" | "ifnotinfo" | "ifnothtml"
            | "ifplaintext" | "ifnotplaintext" | "ifset" | "ifclear" => self.aside(name, rest),
            "node" => self.anchors.push(inline::node(rest.split(',').next().unwrap_or(rest))),
            "anchor" => self.anchors.push(inline::node(rest.trim_matches(['{', '}']))),
            "settitle" | "title" => {
                let title = self.inline(rest).0;
                self.title.get_or_insert(title);
            }
            "menu" | "detailmenu" | "direntry" | "ignore" | "tex" | "html" | "docbook" | "xml" | "macro" | "rmacro"
            | "titlepage" | "copying" => self.ignoring = Some((name.to_owned(), 1)),
            "item" | "itemx" | "headitem" => self.item(name, rest),
            "tab" => self.tab(rest),
            "end" => self.end(rest),
            "center" | "exdent" => self.open.push(rest.to_owned()),
            _ if level(name).is_some() => self.heading(level(name).unwrap_or(1), rest),
            _ if is_environment(name) => return self.open(name),
            _ if name.starts_with("def") => self.definition(name, rest),
            // A command of the running text that begins its line.
            _ => self.open.push(line.to_owned()),
        }
        Ok(())
    }

    fn aside(&mut self, name: &str, rest: &str) {
        match name {
            "set" => {
                let (flag, value) = rest.split_once(' ').unwrap_or((rest, ""));
                self.values.insert(flag.to_owned(), value.trim().to_owned());
            }
            "clear" => drop(self.values.remove(rest)),
            "iftex" | "ifhtml" | "ifnotinfo" | "ifplaintext" => self.ignoring = Some((name.to_owned(), 1)),
            "ifset" if !self.values.contains_key(rest) => self.ignoring = Some((name.to_owned(), 1)),
            "ifclear" if self.values.contains_key(rest) => self.ignoring = Some((name.to_owned(), 1)),
            _ => {}
        }
    }

    fn inline(&self, text: &str) -> (String, Marks) {
        let (text, marks) = inline::plain(text, &self.values);
        (tidy::inline(&text, false), marks)
    }

    fn heading(&mut self, level: u8, text: &str) {
        self.close_all();
        let (text, mut marks) = self.inline(text);
        marks.anchors.append(&mut self.anchors);
        if !text.is_empty() {
            self.top().blocks.push(Raw { marks, ..Raw::new(Kind::Heading, level, text) });
        }
    }

    /// Ends the open paragraph, or the lines of the open listing.
    fn flush(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.is_empty() {
            return;
        }
        let name = self.top().name.clone();
        let (text, mut marks) = inline::plain(&open.join("\n"), &self.values);
        let (kind, text) = match () {
            () if is_listing(&name) && !is_prose(&name) => (Kind::Code, tidy::layout(&text)),
            () => (Kind::Paragraph, tidy::inline(&text, is_prose(&name))),
        };
        if text.is_empty() {
            return;
        }
        marks.anchors.append(&mut self.anchors);
        self.top().blocks.push(Raw { marks, ..Raw::new(kind, 0, text) });
    }

    fn open(&mut self, name: &str) -> Result<(), Unreadable> {
        self.flush();
        self.frames.push(Frame { name: name.to_owned(), ..Frame::default() });
        if self.frames.len() > MAX_DEPTH / 4 { Err(Unreadable::TooDeep(Format::Texinfo)) } else { Ok(()) }
    }

    fn end(&mut self, name: &str) {
        let name = name.split([' ', '\t']).next().unwrap_or(name);
        if !self.frames.iter().any(|frame| frame.name == name) {
            return;
        }
        while self.frames.len() > 1 {
            let last = self.top().name == name;
            self.close();
            if last {
                break;
            }
        }
    }

    fn close_all(&mut self) {
        self.flush();
        while self.frames.len() > 1 {
            self.close();
        }
    }

    /// Ends the innermost environment: its blocks go to the one around it.
    fn close(&mut self) {
        if self.top().name == "multitable" {
            self.cell();
        }
        self.flush();
        self.end_item();
        let Some(frame) = self.frames.pop() else { return };
        let top = self.top();
        if frame.name == "multitable" {
            let mut marks = Marks::default();
            frame.blocks.into_iter().for_each(|block| marks.add(block.marks));
            let table = tidy::table(&frame.rows);
            top.blocks.push(Raw { marks, ..Raw::new(Kind::Table, 0, table) });
            return;
        }
        if frame.items.is_empty() {
            return top.blocks.extend(frame.blocks);
        }
        let inner = || frame.items.iter().flat_map(|(_, blocks)| blocks);
        let deepest = inner().filter(|block| block.kind == Kind::List).map(|block| block.level).max().unwrap_or(0);
        let text = frame.items.iter().map(|(marker, blocks)| tidy::list_item(marker, blocks));
        let text = text.collect::<Vec<_>>().join("\n");
        let mut marks = Marks::default();
        frame.items.into_iter().flat_map(|(_, blocks)| blocks).for_each(|block| marks.add(block.marks));
        top.blocks.push(Raw { marks, ..Raw::new(Kind::List, deepest.saturating_add(1), text) });
    }

    fn item(&mut self, name: &str, rest: &str) {
        let environment = self.top().name.clone();
        if environment == "multitable" {
            self.cell();
            self.top().rows.push(Vec::new());
            return self.open.push(rest.to_owned());
        }
        if is_table(&environment) {
            let open = !self.top().blocks.is_empty() || !self.open.is_empty();
            if name == "item" || open {
                self.flush();
                self.end_item();
            }
            let term = self.inline(rest).0;
            let top = self.top();
            top.terms.push(term);
            top.in_item = true;
            return;
        }
        self.flush();
        self.end_item();
        self.top().in_item = true;
        if !rest.is_empty() {
            self.open.push(rest.to_owned());
        }
    }

    fn end_item(&mut self) {
        let top = self.top();
        if !std::mem::take(&mut top.in_item) || top.name == "multitable" {
            return;
        }
        let mut blocks = std::mem::take(&mut top.blocks);
        let term = std::mem::take(&mut top.terms).join(", ");
        if !term.is_empty() {
            match blocks.first_mut().filter(|first| first.kind == Kind::Paragraph) {
                Some(first) => first.text = format!("{term}: {}", first.text),
                None => blocks.insert(0, Raw::new(Kind::Paragraph, 0, term)),
            }
        }
        top.number += 1;
        let marker = if top.name == "enumerate" { format!("{}. ", top.number) } else { "- ".to_owned() };
        if !blocks.is_empty() {
            top.items.push((marker, blocks));
        }
    }

    fn tab(&mut self, rest: &str) {
        self.cell();
        self.open.push(rest.to_owned());
    }

    /// Ends the open cell of a `@multitable`.
    fn cell(&mut self) {
        let open = std::mem::take(&mut self.open).join(" ");
        for cell in open.split("@tab") {
            let (text, marks) = self.inline(cell);
            let top = self.top();
            if let Some(row) = top.rows.last_mut() {
                row.push(text);
            }
            top.blocks.push(Raw { marks, ..Raw::new(Kind::Paragraph, 0, "") });
        }
    }

    /// `@deftypefn {Category} type name args`: the line as it reads.
    fn definition(&mut self, name: &str, rest: &str) {
        self.flush();
        let text = self.inline(rest).0;
        self.top().blocks.push(Raw::new(Kind::Paragraph, 0, text.replace(['{', '}'], "")));
        if !name.ends_with('x') {
            self.frames.push(Frame { name: name.to_owned(), ..Frame::default() });
        }
    }
}

/// The level of a heading's command.
fn level(name: &str) -> Option<u8> {
    Some(match name {
        "top" | "chapter" | "unnumbered" | "appendix" | "majorheading" | "chapheading" | "centerchap" | "part" => 1,
        "section" | "unnumberedsec" | "appendixsec" | "appendixsection" | "heading" => 2,
        "subsection" | "unnumberedsubsec" | "appendixsubsec" | "subheading" => 3,
        "subsubsection" | "unnumberedsubsubsec" | "appendixsubsubsec" | "subsubheading" => 4,
        _ => return None,
    })
}

fn is_environment(name: &str) -> bool {
    is_listing(name)
        || is_table(name)
        || matches!(
            name,
            "itemize"
                | "enumerate"
                | "multitable"
                | "quotation"
                | "smallquotation"
                | "indentedblock"
                | "cartouche"
                | "flushleft"
                | "flushright"
                | "raggedright"
                | "float"
        )
}

fn is_table(name: &str) -> bool {
    matches!(name, "table" | "ftable" | "vtable")
}

fn is_listing(name: &str) -> bool {
    matches!(name, "example" | "smallexample" | "lisp" | "smalllisp" | "verbatim") || is_prose(name)
}

/// Lines of running text that keep their ends.
fn is_prose(name: &str) -> bool {
    matches!(name, "display" | "smalldisplay" | "format" | "smallformat")
}

//! DocBook (5.1 and 4.5, OASIS) to blocks: its elements are turned into those of HTML, which have a reader. `antiword` writes it, too.
//!
//! No file that an entity names is opened. An entity stands for a character, or for the words that the file itself says; of any other, the name stands
//! in the text.

use std::collections::HashMap;
use std::sync::LazyLock;

use html5ever::data::NAMED_ENTITIES;
use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use regex::Regex;

use super::format::Format;
use super::package::{attribute, entity};
use super::reader::{MAX_DEPTH, Unreadable};
use super::{encoding, html, tidy};
use crate::document::Document;

/// Reads a book, an article, or a part of one.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let xml = encoding::decode(bytes, None);
    let mut titles = Titles::default();
    events(&xml, &mut |piece| titles.take(piece))?;
    let mut page = Page { titles: titles.by_id, html: String::new(), open: Vec::new(), hidden: 0 };
    events(&xml, &mut |piece| page.take(piece))?;
    let title = titles.first.map(|title| format!("<title>{}</title>", escaped(&title))).unwrap_or_default();
    html::read(format!("<!DOCTYPE html><meta charset=utf-8>{title}<body>{}", page.html).as_bytes())
}

/// What the XML is made of.
enum Piece<'a> {
    Start(&'a BytesStart<'a>, &'a str),
    Text(&'a str),
    End(&'a str),
}

fn events(xml: &str, take: &mut dyn FnMut(&Piece<'_>)) -> Result<(), Unreadable> {
    let mut reader = Reader::from_str(xml);
    let mut depth = 0_usize;
    let mut own = HashMap::new();
    loop {
        match reader.read_event().map_err(|error| Unreadable::malformed(Format::DocBook, error))? {
            Event::Start(element) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Unreadable::TooDeep(Format::DocBook));
                }
                take(&Piece::Start(&element, element.local_name().as_ref()));
            }
            Event::Empty(element) => {
                take(&Piece::Start(&element, element.local_name().as_ref()));
                take(&Piece::End(element.local_name().as_ref()));
            }
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                take(&Piece::End(element.local_name().as_ref()));
            }
            Event::Text(text) => take(&Piece::Text(&text.xml10_content())),
            Event::CData(text) => take(&Piece::Text(&text.xml10_content())),
            Event::DocType(declared) => own = own_entities(&declared.xml10_content()),
            Event::GeneralRef(reference) => take(&Piece::Text(&meaning(&reference, &own))),
            Event::Eof if depth > 0 => return Err(Unreadable::malformed(Format::DocBook, "its XML is cut short")),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

/// The entities that a document type gives words, and nothing that would have to be read again.
fn own_entities(declared: &str) -> HashMap<String, String> {
    static ENTITY: LazyLock<Regex> = LazyLock::new(|| {
        let words = r#"<!ENTITY\s+([\w.-]+)\s+(?:"([^"<>&%]*)"|'([^'<>&%]*)')\s*>"#;
        Regex::new(words).expect("a fixed pattern")
    });
    let words = |found: regex::Captures<'_>| {
        let value = found.get(2).or(found.get(3)).map_or("", |value| value.as_str());
        (found[1].to_owned(), value.to_owned())
    };
    ENTITY.captures_iter(declared).map(words).collect()
}

fn meaning(reference: &BytesRef<'_>, own: &HashMap<String, String>) -> String {
    let name: &str = reference;
    let known = entity(reference);
    if !known.is_empty() {
        return known;
    }
    if let Some(words) = own.get(name) {
        return words.clone();
    }
    // The sets of characters that DocBook draws in have the names of HTML.
    let codes = NAMED_ENTITIES.get(&*format!("{name};")).map_or([0, 0], |(first, second)| [*first, *second]);
    let chars: String = codes.iter().filter(|code| **code != 0).filter_map(|code| char::from_u32(*code)).collect();
    if chars.is_empty() { name.to_owned() } else { chars }
}

/// What stands over the things that are named, for references that leave the words to the reader.
#[derive(Default)]
struct Titles {
    by_id: HashMap<String, String>,
    /// The first of all.
    first: Option<String>,
    /// The names of the open elements, innermost last; empty where they have none or are titled already.
    open: Vec<String>,
    title: Option<String>,
}

impl Titles {
    fn take(&mut self, piece: &Piece<'_>) {
        match *piece {
            Piece::Start(_, "title") => {
                self.title = Some(String::new());
                self.open.push(String::new());
            }
            Piece::Start(element, _) => self.open.push(attribute(element, "id")),
            Piece::Text(text) => {
                if let Some(title) = &mut self.title {
                    title.push_str(text);
                }
            }
            Piece::End(name) => {
                self.open.pop();
                let Some(title) = self.title.take_if(|_| name == "title") else { return };
                let title = tidy::inline(&title, false);
                // That of a `bookinfo` is the book's.
                let named = self.open.iter_mut().rev().take(2).find(|id| !id.is_empty());
                if let Some(id) = named {
                    self.by_id.entry(std::mem::take(id)).or_insert_with(|| title.clone());
                }
                self.first.get_or_insert(title);
            }
        }
    }
}

/// A DocBook element that is open.
struct Open {
    name: String,
    /// What closes it in HTML.
    close: &'static str,
    /// Elements in it so far.
    children: usize,
}

/// The page as it is written.
struct Page {
    titles: HashMap<String, String>,
    html: String,
    open: Vec<Open>,
    /// Inside something whose text is not read.
    hidden: usize,
}

impl Page {
    fn take(&mut self, piece: &Piece<'_>) {
        match *piece {
            Piece::Start(element, name) => self.start(element, name),
            Piece::Text(text) => {
                // Between keys and menus the white space says nothing.
                let joined = self.open.last().is_some_and(|open| between(&open.name).is_some());
                let text = if joined { text.trim() } else { text };
                if self.hidden == 0 && !text.is_empty() {
                    if joined {
                        self.join();
                    }
                    self.html.push_str(&escaped(text));
                }
            }
            Piece::End(_) => {
                let Some(Open { name, close, .. }) = self.open.pop() else { return };
                if is_hidden(&name) {
                    self.hidden = self.hidden.saturating_sub(1);
                }
                if self.hidden == 0 {
                    self.html.push_str(close);
                }
            }
        }
    }

    /// What stands between the last thing in the open element and the next.
    fn join(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.children += 1;
            let joint = between(&open.name).filter(|_| open.children > 1 && self.hidden == 0);
            self.html.push_str(joint.unwrap_or(""));
        }
    }

    fn start(&mut self, element: &BytesStart<'_>, name: &str) {
        if is_hidden(name) {
            self.hidden += 1;
        }
        let (begin, close) = if self.hidden == 0 { self.html_of(element, name) } else { (String::new(), "") };
        self.join();
        if self.hidden == 0 {
            self.html.push_str(&begin);
            let id = attribute(element, "id");
            if !id.is_empty() {
                self.html.extend(["<a id=\"", &escaped(&id), "\"></a>"]);
            }
        }
        self.open.push(Open { name: name.to_owned(), close, children: 0 });
    }

    /// What an element begins and ends with in HTML; nothing for one that only groups others.
    fn html_of(&self, element: &BytesStart<'_>, name: &str) -> (String, &'static str) {
        let plain = |begin: &str, close| (begin.to_owned(), close);
        match name {
            "title" => self.title(),
            "refname" | "subtitle" | "bridgehead" | "attribution" | "glossterm" | "question" => {
                plain("<p><b>", "</b></p>")
            }
            // Inside a note at the foot of a page it goes on in the line.
            "para" | "simpara" | "formalpara" | "refpurpose" if !self.is_in("footnote") => plain("<div>", "</div>"),
            "footnote" => plain(" (", ")"),
            "itemizedlist" | "simplelist" => plain("<ul>", "</ul>"),
            "orderedlist" | "procedure" | "substeps" => plain("<ol>", "</ol>"),
            "variablelist" | "segmentedlist" => plain("<dl>", "</dl>"),
            "term" => plain("<dt>", "</dt>"),
            "listitem" if self.open.last().is_some_and(|open| open.name == "varlistentry") => plain("<dd>", "</dd>"),
            "listitem" | "step" | "member" => plain("<li>", "</li>"),
            "programlisting" | "screen" | "literallayout" | "synopsis" | "cmdsynopsis" => plain("<pre>", "</pre>"),
            "table" | "informaltable" => plain("<table>", "</table>"),
            "row" | "tr" => plain("<tr>", "</tr>"),
            "entry" | "td" if self.is_in("thead") => plain("<th>", "</th>"),
            "th" => plain("<th>", "</th>"),
            "entry" | "td" => plain("<td>", "</td>"),
            "blockquote" | "epigraph" => plain("<blockquote>", "</blockquote>"),
            "figure" | "example" | "note" | "tip" | "warning" | "caution" | "important" => plain("<div>", "</div>"),
            "quote" => plain("\u{201c}", "\u{201d}"),
            "link" | "ulink" | "xref" => self.link(element, name == "xref"),
            _ => plain("", ""),
        }
    }

    /// A heading where it stands over a section, else what stands over a table or a figure.
    fn title(&self) -> (String, &'static str) {
        const CLOSE: [&str; 6] = ["</h1>", "</h2>", "</h3>", "</h4>", "</h5>", "</h6>"];
        match self.open.last().map(|open| open.name.as_str()) {
            Some("table") => ("<caption>".to_owned(), "</caption>"),
            Some(name) if is_section(name) => {
                let depth = self.open.iter().filter(|open| is_section(&open.name)).count().clamp(1, 6);
                (format!("<h{depth}>"), CLOSE[depth - 1])
            }
            // A book's is the page's.
            Some("book" | "set") => ("<span hidden>".to_owned(), "</span>"),
            _ => ("<p>".to_owned(), "</p>"),
        }
    }

    fn link(&self, element: &BytesStart<'_>, wordless: bool) -> (String, &'static str) {
        let [place, url, href] = ["linkend", "url", "href"].map(|name| attribute(element, name));
        let target = if place.is_empty() { [url, href].concat() } else { format!("#{place}") };
        let words = if wordless { self.titles.get(&place).map_or(&*place, String::as_str) } else { "" };
        (format!("<a href=\"{}\">{}", escaped(&target), escaped(words)), "</a>")
    }

    fn is_in(&self, wanted: &str) -> bool {
        self.open.iter().any(|open| open.name == wanted)
    }
}

/// What stands between keys that are pressed together, and between a menu and what is chosen in it.
fn between(name: &str) -> Option<&'static str> {
    match name {
        "keycombo" => Some("+"),
        "menuchoice" => Some(" &gt; "),
        _ => None,
    }
}

fn is_section(name: &str) -> bool {
    let numbered = name.strip_prefix("sect").or(name.strip_prefix("refsect"));
    let numbered = numbered.is_some_and(|rest| rest == "ion" || rest.parse::<u8>().is_ok());
    numbered
        || matches!(
            name,
            "part"
                | "chapter"
                | "article"
                | "appendix"
                | "preface"
                | "reference"
                | "refentry"
                | "refsection"
                | "simplesect"
                | "glossary"
                | "bibliography"
                | "dedication"
                | "refsynopsisdiv"
        )
}

/// What is said of the document and not in it (`bookinfo`), or is no text.
fn is_hidden(name: &str) -> bool {
    name.ends_with("info")
        || matches!(name, "indexterm" | "remark" | "refmeta" | "titleabbrev" | "toc" | "imageobject" | "videoobject")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

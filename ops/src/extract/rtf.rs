//! RTF to blocks. The control words are those of Microsoft's RTF 1.9.1 specification, and NeXT's own (`\rtf0`).
//!
//! Tokens are told apart in `rtf/tokens.rs`; here they change a state that is pushed at `{` and popped at `}`.

mod fonts;
mod tokens;

use std::collections::BTreeMap;

use self::fonts::{Charset, Fonts};
use self::tokens::{Token, Tokens};
use super::format::Format;
use super::reader::{MAX_DEPTH, Unreadable};
use super::styled::{self, Role, Styled};
use super::tidy;
use crate::document::links::Marks;
use crate::document::{Document, Kind};

/// Reads an RTF file, or the `TXT.rtf` of an RTFD folder.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let mut reader = Reader::new();
    for token in Tokens::new(bytes) {
        match token {
            Token::Open => reader.open()?,
            Token::Close => reader.close(),
            Token::Word(word, number) => reader.word(word, number),
            Token::Symbol(symbol) => reader.symbol(symbol),
            Token::Byte(byte) => reader.byte(byte),
        }
        if reader.done {
            break;
        }
    }
    if !reader.done {
        return Err(Unreadable::malformed(Format::Rtf, "it ends inside a group: the file is cut short"));
    }
    reader.end_paragraph();
    let title = Some(tidy::inline(&reader.title, false)).filter(|title| !title.is_empty());
    let blocks = styled::blocks(reader.paragraphs);
    let first = blocks.first().filter(|block| block.kind == Kind::Heading).map(|block| block.text.clone());
    Ok(Document::assemble(title.or(first), blocks))
}

/// Where text goes.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Body,
    /// The marker of a list's item.
    Marker,
    Fonts,
    Styles,
    Title,
    /// The name of a bookmark.
    Bookmark,
    /// What a field does.
    Instruction,
    Nowhere,
}

/// What `{` saves and `}` restores.
#[derive(Clone)]
struct State {
    target: Target,
    size: f32,
    bold: bool,
    hidden: bool,
    font: i32,
    style: i32,
    outline: Option<u8>,
    in_table: bool,
    listed: bool,
    /// Of a list's item, from 1.
    depth: u8,
    /// Characters that follow a `\u` for readers without Unicode.
    skip_after_unicode: usize,
}

/// How much of a paragraph has a look, in characters.
#[derive(Default)]
struct Looks {
    all: usize,
    bold: usize,
    mono: usize,
    sizes: BTreeMap<u32, usize>,
}

struct Reader {
    state: State,
    saved: Vec<State>,
    fonts: Fonts,
    styles: BTreeMap<i32, String>,
    charset: Charset,
    /// Bytes of the paragraph that wait to be decoded with the font's encoding.
    pending: Vec<u8>,
    skip: usize,
    high_surrogate: Option<u16>,
    text: String,
    marker: String,
    looks: Looks,
    cells: Vec<String>,
    /// A bookmark's name, or a field's instruction.
    aside: String,
    /// The open field's link: how many groups are open around its words, where they begin, and its target.
    link: Option<(usize, usize, String)>,
    marks: Marks,
    title: String,
    paragraphs: Vec<Styled>,
    star: bool,
    done: bool,
}

impl Reader {
    fn new() -> Self {
        let state = State {
            target: Target::Body,
            size: 12.0,
            bold: false,
            hidden: false,
            font: 0,
            style: 0,
            outline: None,
            in_table: false,
            listed: false,
            depth: 1,
            skip_after_unicode: 1,
        };
        Self {
            state,
            saved: Vec::new(),
            fonts: Fonts::default(),
            styles: BTreeMap::new(),
            charset: Charset::Web(encoding_rs::WINDOWS_1252),
            pending: Vec::new(),
            skip: 0,
            high_surrogate: None,
            text: String::new(),
            marker: String::new(),
            looks: Looks::default(),
            cells: Vec::new(),
            aside: String::new(),
            link: None,
            marks: Marks::default(),
            title: String::new(),
            paragraphs: Vec::new(),
            star: false,
            done: false,
        }
    }

    fn open(&mut self) -> Result<(), Unreadable> {
        self.decode_pending();
        self.skip = 0;
        self.saved.push(self.state.clone());
        if self.saved.len() > MAX_DEPTH {
            return Err(Unreadable::TooDeep(Format::Rtf));
        }
        Ok(())
    }

    fn close(&mut self) {
        self.decode_pending();
        self.skip = 0;
        self.end_aside();
        match self.saved.pop() {
            Some(state) => self.state = state,
            None => self.done = true,
        }
        self.done |= self.saved.is_empty();
    }

    /// A bookmark's name is complete, or a field's instruction, or the words of a link.
    fn end_aside(&mut self) {
        match self.state.target {
            Target::Bookmark => self.marks.anchors.push(std::mem::take(&mut self.aside).trim().to_owned()),
            Target::Instruction => {
                let mut words = self.aside.split_whitespace();
                let (name, first) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                let local = first == "\\l" || matches!(name, "REF" | "PAGEREF");
                let target = if first == "\\l" { words.next().unwrap_or("") } else { first }.trim_matches('"');
                if matches!(name, "HYPERLINK" | "REF" | "PAGEREF") && !target.is_empty() {
                    let target = if local { format!("#{target}") } else { target.to_owned() };
                    self.link = Some((usize::MAX, self.text.len(), target));
                }
                self.aside.clear();
            }
            _ => {}
        }
        if self.link.as_ref().is_some_and(|(groups, _, _)| *groups == self.saved.len())
            && let Some((_, start, target)) = self.link.take()
        {
            self.marks.links.push((self.text.get(start..).unwrap_or("").to_owned(), target));
        }
    }

    fn symbol(&mut self, symbol: u8) {
        if !matches!(symbol, b'\\' | b'{' | b'}') {
            self.decode_pending();
        }
        match symbol {
            b'*' => self.star = true,
            b'~' => self.push(' '),
            b'_' => self.push('-'),
            b'\n' | b'\r' => self.word("par", None),
            b'\\' | b'{' | b'}' => self.byte(symbol),
            _ => {}
        }
    }

    fn word(&mut self, word: &str, number: Option<i32>) {
        self.decode_pending();
        let star = std::mem::take(&mut self.star);
        let on = number != Some(0);
        match word {
            "rtf" if number == Some(0) => self.charset = Charset::NextStep,
            "mac" => self.charset = Charset::Web(encoding_rs::MACINTOSH),
            "ansicpg" => self.charset = Charset::of_code_page(number.unwrap_or(0)).unwrap_or(self.charset),
            "uc" => self.state.skip_after_unicode = number.unwrap_or(1).clamp(0, 16) as usize,
            "u" => self.unicode(number.unwrap_or(0)),
            "b" => self.state.bold = on,
            "v" => self.state.hidden = on,
            "fs" => self.state.size = number.unwrap_or(24) as f32 / 2.0,
            "f" | "deff" => self.state.font = number.unwrap_or(0),
            "fcharset" => self.fonts.charset(self.state.font, number.unwrap_or(0)),
            "fmodern" => self.fonts.mono(self.state.font),
            "plain" => (self.state.bold, self.state.hidden, self.state.size) = (false, false, 12.0),
            "pard" => {
                self.state.style = 0;
                self.state.outline = None;
                self.state.in_table = false;
                self.state.listed = false;
                self.state.depth = 1;
            }
            "s" => self.state.style = number.unwrap_or(0),
            "outlinelevel" => {
                self.state.outline = number.and_then(|level| u8::try_from(level).ok()).filter(|level| *level < 9);
            }
            "ilvl" => self.state.depth = number.unwrap_or(0).clamp(0, 8) as u8 + 1,
            "ls" => self.state.listed = on,
            "intbl" => self.state.in_table = true,
            "par" | "sect" | "page" => self.end_paragraph(),
            "line" => self.push('\n'),
            "tab" => self.push('\t'),
            "cell" | "nestcell" => self.end_cell(),
            "row" | "nestrow" => self.end_row(),
            "fonttbl" => self.state.target = Target::Fonts,
            "stylesheet" => self.state.target = Target::Styles,
            "title" => self.state.target = Target::Title,
            "bkmkstart" => self.state.target = Target::Bookmark,
            "fldinst" => self.state.target = Target::Instruction,
            "fldrslt" => {
                if let Some((groups, start, _)) = &mut self.link {
                    (*groups, *start) = (self.saved.len(), self.text.len());
                }
            }
            "listtext" | "pntext" => self.state.target = Target::Marker,
            "info" | "colortbl" | "pict" | "object" | "header" | "headerl" | "headerr" | "headerf" | "footer"
            | "footerl" | "footerr" | "footerf" | "footnote" | "annotation" | "author" | "operator" | "creatim"
            | "revtim" | "NeXTGraphic" | "listtable" | "listoverridetable" | "revtbl" | "rsidtbl" | "generator"
            | "xe" | "tc" | "template" | "filetbl" | "datafield" | "nonshppict" | "bkmkend" => {
                self.state.target = Target::Nowhere;
            }
            // A destination that we do not know, and that says we need not.
            _ if star => self.state.target = Target::Nowhere,
            _ => self.special(word),
        }
    }

    fn special(&mut self, word: &str) {
        let char = match word {
            "emdash" => '—',
            "endash" => '–',
            "bullet" => '•',
            "lquote" => '‘',
            "rquote" => '’',
            "ldblquote" => '“',
            "rdblquote" => '”',
            "emspace" | "enspace" | "qmspace" => ' ',
            _ => return,
        };
        self.push(char);
    }

    fn byte(&mut self, byte: u8) {
        if self.skip > 0 {
            self.skip -= 1;
        } else {
            self.pending.push(byte);
        }
    }

    fn unicode(&mut self, number: i32) {
        let unit = (number & 0xffff) as u16;
        let units: &[u16] = match self.high_surrogate.take() {
            Some(high) => &[high, unit],
            None if (0xd800..0xdc00).contains(&unit) => {
                self.high_surrogate = Some(unit);
                &[]
            }
            None => &[unit],
        };
        for char in char::decode_utf16(units.iter().copied()).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)) {
            self.push(char);
        }
        self.skip = self.state.skip_after_unicode;
    }

    fn decode_pending(&mut self) {
        let bytes = std::mem::take(&mut self.pending);
        if bytes.is_empty() {
            return;
        }
        let text = self.fonts.decode(self.state.font, self.charset, &bytes);
        for char in text.chars() {
            self.push(char);
        }
    }

    fn push(&mut self, char: char) {
        if self.state.hidden {
            return;
        }
        match self.state.target {
            Target::Body => {
                self.text.push(char);
                if !char.is_whitespace() {
                    let mono = self.fonts.is_mono(self.state.font);
                    self.looks.all += 1;
                    self.looks.bold += usize::from(self.state.bold);
                    self.looks.mono += usize::from(mono);
                    *self.looks.sizes.entry((self.state.size * 2.0) as u32).or_default() += 1;
                }
            }
            Target::Marker => self.marker.push(char),
            Target::Title => self.title.push(char),
            Target::Fonts => self.fonts.name(self.state.font, char),
            Target::Styles => {
                let style = self.state.style;
                self.styles.entry(style).or_default().push(char);
            }
            Target::Bookmark | Target::Instruction => self.aside.push(char),
            Target::Nowhere => {}
        }
    }

    fn end_cell(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.cells.push(tidy::inline(&text, false));
        self.looks = Looks::default();
        self.marker.clear();
    }

    fn end_row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        let marks = std::mem::take(&mut self.marks);
        self.paragraphs.push(Styled { role: Role::Row(cells), marks, ..Styled::default() });
    }

    fn end_paragraph(&mut self) {
        self.decode_pending();
        if self.state.in_table && self.state.target == Target::Body {
            return self.text.push(' ');
        }
        let text = std::mem::take(&mut self.text);
        let looks = std::mem::take(&mut self.looks);
        let marker = std::mem::take(&mut self.marker);
        let size = looks.sizes.iter().max_by_key(|(_, count)| **count).map_or(0.0, |(size, _)| *size as f32 / 2.0);
        let role = self.role(&text, &marker);
        let text = match &role {
            Role::Item(..) if marker.trim().is_empty() => {
                styled::hand_made_item(&text).map_or(text.clone(), |(_, rest)| rest.to_owned())
            }
            _ => text,
        };
        let all = |count: usize| looks.all > 0 && count == looks.all;
        let marks = std::mem::take(&mut self.marks);
        let (bold, mono) = (all(looks.bold), all(looks.mono));
        self.paragraphs.push(Styled { text, size, bold, mono, role, page: None, marks });
    }

    fn role(&self, text: &str, marker: &str) -> Role {
        if text.trim().is_empty() {
            return Role::Gap;
        }
        let style =
            self.styles.get(&self.state.style).map_or("", String::as_str).trim_end_matches(';').to_ascii_lowercase();
        let styled_level = style.trim().strip_prefix("heading").and_then(|level| level.trim().parse::<u8>().ok());
        if let Some(level) = styled_level.or(self.state.outline.map(|level| level + 1)) {
            return Role::Heading(level);
        }
        let marker = marker.trim();
        if !marker.is_empty() || self.state.listed {
            let number = marker.trim_end_matches(['.', ')']);
            let is_number = !number.is_empty() && number.chars().all(|char| char.is_ascii_digit());
            return Role::Item(if is_number { format!("{number}. ") } else { "- ".to_owned() }, self.state.depth);
        }
        match styled::hand_made_item(text) {
            Some((marker, _)) => Role::Item(marker, 1),
            None => Role::Text,
        }
    }
}

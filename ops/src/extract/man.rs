//! Manual pages (roff with the `man` macros, and the commonest of `mdoc`) to blocks.

mod tbl;

use super::reader::Unreadable;
use super::{encoding, tidy};
use crate::document::{Document, Kind, Raw};

/// Reads a manual page.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let text = encoding::decode(bytes, None);
    let mut page = Page::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        while line.ends_with('\\') && !line.ends_with("\\\\") {
            line.pop();
            line.push_str(lines.next().unwrap_or(""));
        }
        page.line(&line);
    }
    page.end_table();
    page.flush();
    Ok(Document::assemble(page.title, page.blocks))
}

#[derive(Default)]
struct Page {
    blocks: Vec<Raw>,
    title: Option<String>,
    /// The lines of the open block.
    open: Vec<String>,
    /// The term of the item that is open.
    term: Option<String>,
    in_item: bool,
    wants_term: bool,
    in_code: bool,
    /// The lines of the table that is open.
    table: Option<Vec<String>>,
    /// Inside a macro's definition or a comment block.
    ignoring: bool,
}

impl Page {
    fn line(&mut self, line: &str) {
        if let Some(table) = &mut self.table {
            if line.trim_end() == ".TE" {
                self.end_table();
            } else {
                table.push(line.to_owned());
            }
            return;
        }
        if self.ignoring {
            self.ignoring = !(line == ".." || line.trim_end() == ".");
            return;
        }
        let Some(request) = line.strip_prefix(['.', '\'']) else { return self.text(&plain(line)) };
        let request = request.trim_start();
        let (name, rest) = request.split_once([' ', '\t']).unwrap_or((request, ""));
        let words = arguments(rest);
        match name {
            "TH" => self.title = words.first().zip(words.get(1)).map(|(name, section)| format!("{name}({section})")),
            "Dt" => {
                self.title = words.first().map(|name| format!("{name}({})", words.get(1).map_or("", String::as_str)));
            }
            "SH" | "Sh" => self.heading(1, &words),
            "SS" | "Ss" => self.heading(2, &words),
            "TP" | "TQ" => {
                self.flush();
                self.wants_term = true;
            }
            "IP" | "It" => {
                self.flush();
                self.in_item = true;
                let term = if name == "It" { mdoc(rest) } else { words.first().cloned().unwrap_or_default() };
                self.term = Some(term).filter(|term| !term.is_empty() && term != "•" && term != "-" && term != "o");
            }
            "PP" | "LP" | "P" | "Pp" | "HP" | "RS" | "RE" | "sp" | "Bl" | "El" => {
                if self.in_code && name == "sp" {
                    self.open.push(String::new());
                } else {
                    self.flush();
                }
            }
            "nf" | "EX" | "Bd" => {
                self.flush();
                self.in_code = true;
            }
            "fi" | "EE" | "Ed" => {
                self.flush();
                self.in_code = false;
            }
            "TS" => {
                self.flush();
                self.table = Some(Vec::new());
            }
            "br" if self.in_code => {}
            "br" => self.open.push("\n".to_owned()),
            "B" | "I" | "R" | "SM" => self.text(&words.join(" ")),
            "BR" | "RB" | "BI" | "IB" | "RI" | "IR" | "SB" => self.text(&words.concat()),
            "Nd" => self.text(&format!("- {}", plain(rest))),
            "de" | "ig" | "am" => self.ignoring = true,
            "Nm" | "Fl" | "Ar" | "Op" | "Pa" | "Xr" | "Cm" | "Ev" | "Em" | "Sy" | "Dq" | "Ql" | "Li" | "Ic" | "Va"
            | "Fn" | "Dv" | "Ns" => {
                self.text(&mdoc(request));
            }
            _ => {}
        }
    }

    fn end_table(&mut self) {
        let lines = self.table.take().unwrap_or_default();
        self.blocks.extend(tbl::read(&lines));
    }

    fn heading(&mut self, level: u8, words: &[String]) {
        self.flush();
        self.in_code = false;
        self.in_item = false;
        let text = tidy::inline(&words.join(" "), false);
        if !text.is_empty() {
            self.blocks.push(Raw::new(Kind::Heading, level, text));
        }
    }

    fn text(&mut self, text: &str) {
        if std::mem::take(&mut self.wants_term) {
            self.term = Some(tidy::inline(text, false));
            self.in_item = true;
        } else if text.trim().is_empty() && !self.in_code {
            self.flush();
        } else {
            self.open.push(text.to_owned());
        }
    }

    fn flush(&mut self) {
        let open = std::mem::take(&mut self.open);
        if self.in_code {
            let text = tidy::layout(&open.join("\n"));
            if !text.is_empty() {
                self.blocks.push(Raw::new(Kind::Code, 0, text));
            }
            return;
        }
        let text = tidy::inline(&open.join(" "), true);
        let term = self.term.take();
        let in_item = std::mem::take(&mut self.in_item);
        let text = match (&term, text.is_empty()) {
            (Some(term), false) => format!("{term}: {text}"),
            (Some(term), true) => term.clone(),
            (None, _) => text,
        };
        if text.is_empty() {
            self.in_item = in_item;
        } else if in_item {
            let item = tidy::list_item("- ", &[Raw::new(Kind::Paragraph, 0, text)]);
            match self.blocks.last_mut() {
                Some(list) if list.kind == Kind::List => {
                    list.text.push('\n');
                    list.text.push_str(&item);
                }
                _ => self.blocks.push(Raw::new(Kind::List, 1, item)),
            }
        } else {
            self.blocks.push(Raw::new(Kind::Paragraph, 0, text));
        }
    }
}

/// The arguments of a request: words, or phrases in quotes.
fn arguments(rest: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => split_word(rest),
        };
        words.push(plain(word));
        rest = after.trim_start();
    }
    words
}

/// At the first blank that no backslash stands before.
fn split_word(rest: &str) -> (&str, &str) {
    let blank = rest.char_indices().find(|(at, char)| *char == ' ' && !rest[..*at].ends_with('\\'));
    blank.map_or((rest, ""), |(at, _)| (&rest[..at], &rest[at + 1..]))
}

/// A line of mdoc macros, as the text that they print: `Fl x Ar file` is `-x file`.
fn mdoc(request: &str) -> String {
    let mut text = String::new();
    let mut optional = 0;
    let mut tight = false;
    let words = arguments(request);
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_str();
        at += 1;
        match word {
            "Fl" => {
                text.push_str(if text.is_empty() || tight { "-" } else { " -" });
                tight = true;
                continue;
            }
            "Op" => {
                text.push_str(" [");
                optional += 1;
                tight = true;
                continue;
            }
            "Ns" => {
                tight = true;
                continue;
            }
            "Xr" => {
                let section = words.get(at + 1).filter(|section| section.len() <= 3);
                let page = words.get(at).map_or("", String::as_str);
                text.extend([" ", page, "(", section.map_or("", String::as_str), ")"]);
                at += 1 + usize::from(section.is_some());
                continue;
            }
            "Nm" | "Ar" | "Pa" | "Cm" | "Ev" | "Em" | "Sy" | "Dq" | "Ql" | "Li" | "Ic" | "Va" | "Fn" | "Dv" => continue,
            _ => {}
        }
        let closes = word.len() == 1 && ",.;:)?!".contains(word);
        if !(text.is_empty() || tight || closes) {
            text.push(' ');
        }
        text.push_str(word);
        tight = false;
    }
    text.push_str(&"]".repeat(optional));
    text.trim().to_owned()
}

/// Text without roff's escapes (groff(7)): fonts, sizes and widths go, characters become themselves.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '\\' {
            plain.push(char);
            continue;
        }
        match chars.next() {
            Some('f' | '*' | 'n' | 'k' | 'm' | 'M' | 'F' | 'g') => skip_name(&mut chars),
            Some('s') => {
                chars.next_if(|char| "+-".contains(*char));
                while chars.next_if(char::is_ascii_digit).is_some() {}
            }
            Some('h' | 'v' | 'w' | 'u' | 'd' | 'o' | 'Z' | 'l' | 'L') => {
                if let Some(quote) = chars.next_if(|char| *char == '\'') {
                    while chars.next().is_some_and(|char| char != quote) {}
                }
            }
            Some('(') => {
                let name: String = chars.by_ref().take(2).collect();
                plain.push_str(special(&name));
            }
            Some('[') => {
                let name: String = chars.by_ref().take_while(|char| *char != ']').collect();
                plain.push_str(special(&name));
            }
            Some('"' | '#') => break,
            Some('-') => plain.push('-'),
            Some('e' | '\\') => plain.push('\\'),
            Some('\'') => plain.push('´'),
            Some('`') => plain.push('`'),
            Some(' ' | '~' | '0') => plain.push(' '),
            Some('&' | '|' | '^' | '/' | ',' | ')' | '%' | ':' | 'c' | 'p') | None => {}
            Some(other) => plain.push(other),
        }
    }
    plain
}

fn skip_name(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('(') => {
            chars.nth(1);
        }
        Some('[') => while chars.next().is_some_and(|char| char != ']') {},
        _ => {}
    }
}

fn special(name: &str) -> &'static str {
    match name {
        "bu" => "•",
        "em" => "—",
        "en" => "–",
        "hy" => "-",
        "aq" => "'",
        "dq" => "\"",
        "lq" => "“",
        "rq" => "”",
        "oq" => "‘",
        "cq" => "’",
        "co" => "©",
        "rg" => "®",
        "tm" => "™",
        "rs" => "\\",
        "ti" => "~",
        "ha" => "^",
        "mu" => "×",
        "+-" => "±",
        "->" => "→",
        "<-" => "←",
        ">=" => "≥",
        "<=" => "≤",
        "de" => "°",
        "sc" => "§",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_macros() {
        let page = ".\\\" c\n.TH NIDUMP 8 \"1990\"\n.SH NAME\nnidump \\- extract text from NetInfo\n.SH SYNOPSIS\n.B nidump\n[\\fB\\-r\\fR]\n.I domain\n.SH OPTIONS\n.TP\n.B \\-r\nRaw.\n.TP\n.B \\-t\nBy tag.\n.nf\n  a\n   b\n.fi\n";
        let document = read(page.as_bytes()).unwrap();
        assert_eq!(document.title.as_deref(), Some("NIDUMP(8)"));
        assert_eq!(
            document.text,
            "NAME\n\nnidump - extract text from NetInfo\n\nSYNOPSIS\n\nnidump [-r] domain\n\nOPTIONS\n\n- -r: Raw.\n- -t: By tag.\n\n  a\n   b"
        );
    }

    #[test]
    fn mdoc_macros() {
        let page = ".Dd x\n.Dt LS 1\n.Sh NAME\n.Nm ls\n.Nd list\n.Sh OPTIONS\n.Bl -tag\n.It Fl l Ar file\nLong, see\n.Xr stat 1 .\n.El\n";
        let document = read(page.as_bytes()).unwrap();
        assert_eq!(document.text, "NAME\n\nls - list\n\nOPTIONS\n\n- -l file: Long, see stat(1).");
    }
}

//! Mistakes of YAML's syntax in plain words: what was meant, and how it is written.
//!
//! The parser says where it gave up, which is often after the mistake; the usual ones are looked for before that place.

use saphyr_parser::Marker;

use super::parse::{MAX_DEPTH, Places};
use crate::diagnostics::{Diagnostic, Span};

/// What the parser knew when it gave up.
pub(super) struct Known<'a> {
    /// Where each list and map begins that is not closed, the innermost last.
    pub(super) open: Vec<usize>,
    /// The names of the anchors so far.
    pub(super) anchors: Vec<&'a str>,
}

/// A mistake of syntax at a mark of the parser; `info` is what the parser says of it.
pub(super) fn syntax(places: &Places<'_>, mark: Marker, info: &str, known: &Known<'_>) -> Diagnostic {
    let at = At::of(places, places.byte(mark));
    at.tab()
        .filter(|_| info.contains("tab") || at.indent().contains('\t'))
        .or_else(|| at.reference())
        .or_else(|| at.braces())
        .or_else(|| at.alias(info, known))
        .or_else(|| at.colon(info))
        .or_else(|| at.unclosed(info, known))
        .or_else(|| at.other(info))
        .unwrap_or_else(|| {
            let info = match info {
                "recursion limit exceeded" => format!("lists and maps more than {MAX_DEPTH} deep"),
                info => format!("not YAML: {}", info.trim_end_matches('.')),
            };
            at.mistake(at.character(), info)
        })
}

/// A text that begins with `{{` and is not in quotes is read as a map in a map.
pub(super) fn braces_hint(text: &str) -> String {
    let line = text.split('\n').next().unwrap_or(text).trim_end();
    if line.contains(['"', '\\']) { format!("write `'{line}'`") } else { format!("write `\"{line}\"`") }
}

/// A place in a text, with its line.
struct At<'a> {
    text: &'a str,
    file: usize,
    /// The byte.
    byte: usize,
    /// The first byte of the line.
    start: usize,
    line: &'a str,
}

impl<'a> At<'a> {
    fn of(places: &Places<'a>, byte: usize) -> Self {
        // At the end of the file the mistake is in the last line.
        let byte = if byte >= places.text.len() { places.text.trim_end().len() } else { byte };
        let start = places.text[..byte].rfind('\n').map_or(0, |at| at + 1);
        let line = places.text[start..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        At { text: places.text, file: places.file, byte, start, line }
    }

    fn mistake(&self, (start, end): (usize, usize), message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Span { file: self.file, start, end }, "yaml", message)
    }

    fn indent(&self) -> &'a str {
        &self.line[..self.line.len() - self.line.trim_start_matches([' ', '\t']).len()]
    }

    /// The character at the place.
    fn character(&self) -> (usize, usize) {
        let next = self.text[self.byte..].chars().next().filter(|c| !matches!(c, '\n' | '\r'));
        (self.byte, self.byte + next.map_or(0, char::len_utf8))
    }

    /// The line without its indent.
    fn whole_line(&self) -> (usize, usize) {
        (self.start + self.indent().len(), self.start + self.line.trim_end().len())
    }

    /// A tab before the first word of this line, or of one of the next: a scalar may go on over them.
    fn tab(&self) -> Option<Diagnostic> {
        let mut start = self.start;
        for line in self.text[self.start..].split('\n').take(3) {
            let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
            if let Some(tab) = indent.find('\t') {
                let place = (start + tab, start + tab + 1);
                return Some(self.mistake(place, "a tab can't indent a line of YAML").hint("use spaces"));
            }
            start += line.len() + 1;
        }
        None
    }

    /// `${` in a flow map or list of this line, outside of quotes.
    fn reference(&self) -> Option<Diagnostic> {
        let at = unquoted_reference(self.line)?;
        let end = self.line[at..].find('}').map_or(self.line.len(), |len| at + len + 1);
        let place = (self.start + at, self.start + end);
        let problem = self.mistake(place, "within `{…}` and `[…]` a `${…}` stands in quotes");
        Some(problem.hint(format!("write `\"{}\"`", &self.line[at..end])))
    }

    /// A line that begins with `{{`, or a value that does.
    fn braces(&self) -> Option<Diagnostic> {
        let words = self.line.trim();
        if words.starts_with("{{") {
            let problem = self.mistake(self.whole_line(), "a text that begins with `{{` is read as a map");
            return Some(problem.hint("below `|` the text is indented further than its key; else it stands in quotes"));
        }
        let at = self.line.find(": {{")? + 2;
        let value = &self.line[at..];
        let place = (self.start + at, self.start + at + value.trim_end().len());
        Some(self.mistake(place, "a text that begins with `{{` is read as a map").hint(braces_hint(value)))
    }

    fn alias(&self, info: &str, known: &Known<'_>) -> Option<Diagnostic> {
        if !(info.contains("unknown anchor") || info.contains("anchor or alias")) {
            return None;
        }
        let rest = &self.text[self.byte..];
        let rest = rest.split('\n').next().unwrap_or(rest).trim_end();
        let end = rest.find([' ', ',', ']', '}']).unwrap_or(rest.len());
        let (word, place) = (&rest[..end], (self.byte, self.byte + end));
        let name = word.strip_prefix('*')?;
        if name.is_empty() || name.contains(['*', '/', '.', '{']) {
            let problem = self.mistake(place, "a text that begins with `*` stands in quotes");
            return Some(problem.hint(format!("write `\"{word}\"`")));
        }
        let problem = self.mistake(place, format!("nothing above is called `&{name}`"));
        Some(match retort_engine::nearest(name, known.anchors.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `*{near}`?")),
            None => problem.hint(format!("for the text itself write `\"{word}\"`")),
        })
    }

    /// A colon too many in a line, or one that is missing in the line above.
    fn colon(&self, info: &str) -> Option<Diagnostic> {
        if !matches!(info, "mapping values are not allowed in this context" | "simple key expect ':'") {
            return None;
        }
        let before = &self.text[self.start..self.byte.min(self.start + self.line.len())];
        if let Some(colon) = before.find(": ") {
            let value = colon + 2 + (before[colon + 2..].len() - before[colon + 2..].trim_start().len());
            let text = self.line[value..].trim_end();
            let place = (self.start + value, self.start + value + text.len());
            let problem = self.mistake(place, "a text with a colon and a blank in it stands in quotes");
            return Some(problem.hint(braces_hint(text)));
        }
        // `op extract`, and below it a line that goes on as a map.
        let above = if info.starts_with("simple") { self.start + self.line.len() + 1 } else { self.start };
        let above = self.text.get(..above.saturating_sub(1))?;
        let start = above.rfind('\n').map_or(0, |at| at + 1);
        let line = above[start..].trim_end();
        let words = line.trim_start();
        if words.is_empty() || words.contains(": ") || words.ends_with(':') {
            return None;
        }
        let place = (start + line.len() - words.len(), start + line.len());
        let problem = self.mistake(place, format!("expected `key: value`, found `{words}`"));
        let (key, value) = words.split_once([':', ' ']).unwrap_or((words, "…"));
        Some(problem.hint(format!("a colon and a blank stand after a key: `{key}: {}`", value.trim())))
    }

    /// A bracket or a quote that is not closed.
    fn unclosed(&self, info: &str, known: &Known<'_>) -> Option<Diagnostic> {
        let (message, close) = if info.starts_with("while parsing a flow sequence") {
            ("expected `,` or `]` here", "[")
        } else if info.starts_with("while parsing a flow mapping") {
            ("expected `,` or `}` here", "{")
        } else if info.contains("quoted scalar, found unexpected") {
            return Some(self.mistake(self.character(), "the quotes that begin here are not closed"));
        } else {
            return None;
        };
        let problem = self.mistake(self.character(), message);
        let open = known.open.last().filter(|open| self.text[**open..].starts_with(close));
        Some(match open {
            Some(open) => {
                let span = Span { file: self.file, start: *open, end: *open + 1 };
                problem.also(span, format!("`{close}` opens here"))
            }
            None => problem,
        })
    }

    fn other(&self, info: &str) -> Option<Diagnostic> {
        let here = self.character();
        if info.starts_with("unexpected character") || info.starts_with("plain scalar cannot start") {
            let message = format!("a text can't begin with {}", quoted(&self.text[here.0..here.1]));
            return Some(self.mistake(here, message).hint("put the whole text in quotes: `\"…\"`"));
        }
        if info == "found unprintable character" {
            return Some(
                self.mistake(here, "a control character in the file").hint("remove it; in quotes write `\\x…`"),
            );
        }
        let misaligned = ["did not find expected key", "did not find expected '-' indicator", "invalid indentation"];
        if misaligned.iter().any(|part| info.contains(part)) {
            let problem = self.mistake(self.whole_line(), "this line does not fit to those above it");
            return Some(problem.hint("the keys of a map, and the dashes of a list, begin in one column"));
        }
        None
    }
}

fn quoted(text: &str) -> String {
    if text == "`" { "a backtick".into() } else { format!("`{text}`") }
}

fn unquoted_reference(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '$') if depth > 0 && line[at..].starts_with("${") => return Some(at),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

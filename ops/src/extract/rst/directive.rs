//! Explicit markup of reStructuredText: directives, targets, footnotes, comments.

use super::inline::{normal, target};
use super::{Options, Parser, dedented, table};
use crate::document::{Kind, Raw};
use crate::extract::reader::Unreadable;
use crate::extract::tidy;

impl Parser {
    /// Reads what begins with `.. `: its first line and those below that are indented.
    pub(super) fn explicit(&mut self, lines: &[&str], blocks: &mut Vec<Raw>, depth: usize) -> Result<(), Unreadable> {
        let first = lines[0].strip_prefix(".. ").unwrap_or("").trim();
        if let Some((name, url)) = first.strip_prefix('_').and_then(target) {
            if url.is_empty() {
                self.anchors.push(normal(&name));
            }
            return Ok(());
        }
        // A substitution: `Names` has it.
        if first.starts_with('|') {
            return Ok(());
        }
        if let Some((name, text)) = first.strip_prefix('[').and_then(|note| note.split_once(']')) {
            let mut inner = vec![text.trim_start()];
            inner.extend(dedented(&lines[1..]));
            let mut note = self.body(&inner, depth + 1)?;
            if let Some(first) = note.first_mut() {
                first.text = format!("[{name}] {}", first.text);
                first.marks.anchors.push(format!("fn:{name}"));
            }
            blocks.extend(note);
            return Ok(());
        }
        let Some((name, argument)) = first.split_once("::").filter(|(name, _)| is_name(name)) else { return Ok(()) };
        self.directive(name.trim(), argument.trim(), &lines[1..], blocks, depth)
    }

    fn directive(
        &mut self,
        name: &str,
        argument: &str,
        lines: &[&str],
        blocks: &mut Vec<Raw>,
        depth: usize,
    ) -> Result<(), Unreadable> {
        let body = dedented(lines);
        let (argument, options, content) = parts(argument, &body);
        if let Some(name) = options.get("name") {
            self.anchors.push(normal(name));
        }
        match name.rsplit(':').next().unwrap_or(name) {
            "code-block" | "code" | "sourcecode" | "parsed-literal" | "prompt" | "productionlist" | "doctest"
            | "testcode" | "testoutput" | "math" | "graphviz" | "digraph" | "highlight-block" => {
                let code = tidy::layout(&content.join("\n"));
                if let Some(caption) = options.get("caption") {
                    self.paragraph_of(caption, blocks);
                }
                if !code.is_empty() {
                    self.push(blocks, Raw::new(Kind::Code, 0, code));
                }
            }
            "toctree" | "contents" | "index" | "highlight" | "module" | "currentmodule" | "default-domain"
            | "include" | "raw" | "sectionauthor" | "moduleauthor" | "codeauthor" | "meta" | "image"
            | "literalinclude" | "role" | "testsetup" | "testcleanup" | "tabularcolumns" | "centered" | "sectnum"
            | "header" | "footer" | "title" | "unicode" | "date" | "replace" | "py" | "audit-event-table" => {}
            "list-table" => {
                self.paragraph_of(&argument, blocks);
                let inner = self.body(&content, depth + 1)?;
                if let Some(rows) = inner.iter().find(|block| block.kind == Kind::List).map(table::of_list) {
                    let table = Raw::new(Kind::Table, 0, tidy::table(&rows));
                    self.push(blocks, table);
                }
            }
            "csv-table" => {
                self.paragraph_of(&argument, blocks);
                let rows = table::of_csv(options.get("header").copied(), &content);
                let table = self.table(&rows);
                blocks.push(table);
            }
            "rubric" => self.paragraph_of(&argument, blocks),
            "table" | "figure" => {
                if name == "table" {
                    self.paragraph_of(&argument, blocks);
                }
                blocks.extend(self.body(&content, depth + 1)?);
            }
            kind => {
                let lead = lead(kind, &argument);
                let mut inner = self.body(&content, depth + 1)?;
                if let Some(lead) = lead {
                    match inner.first_mut().filter(|first| first.kind == Kind::Paragraph && lead.ends_with(':')) {
                        Some(first) => first.text = format!("{lead} {}", first.text),
                        None => inner.insert(0, Raw::new(Kind::Paragraph, 0, self.names.inline(&lead).0)),
                    }
                }
                blocks.extend(inner);
            }
        }
        Ok(())
    }

    fn paragraph_of(&mut self, text: &str, blocks: &mut Vec<Raw>) {
        let (text, marks) = self.names.inline(text);
        if !text.is_empty() {
            self.push(blocks, Raw { marks, ..Raw::new(Kind::Paragraph, 0, text) });
        }
    }
}

fn is_name(name: &str) -> bool {
    let name = name.trim();
    !name.is_empty()
        && (name.starts_with('|') || name.chars().all(|char| char.is_alphanumeric() || "-_:+.".contains(char)))
}

/// What is said before a directive's content.
fn lead(kind: &str, argument: &str) -> Option<String> {
    let word = match kind {
        "note" => "Note",
        "warning" => "Warning",
        "tip" => "Tip",
        "hint" => "Hint",
        "important" => "Important",
        "caution" => "Caution",
        "danger" => "Danger",
        "attention" => "Attention",
        "error" => "Error",
        "seealso" => "See also",
        "versionadded" => return Some(format!("New in version {argument}:")),
        "versionchanged" => return Some(format!("Changed in version {argument}:")),
        "deprecated" | "deprecated-removed" => return Some(format!("Deprecated since version {argument}:")),
        "only" | "container" | "compound" | "class" if argument.is_empty() || kind == "only" => return None,
        "epigraph" | "highlights" | "pull-quote" | "glossary" | "hlist" | "tabs" | "div" => return None,
        // `function:: open(path)` and its like: the signature.
        _ if argument.is_empty() => return None,
        _ => return Some(argument.to_owned()),
    };
    Some(if argument.is_empty() { format!("{word}:") } else { format!("{word}: {argument}") })
}

/// A directive's argument with the lines that go on with it, its options, and its content.
fn parts<'a>(argument: &str, body: &[&'a str]) -> (String, Options<'a>, Vec<&'a str>) {
    let mut argument = argument.to_owned();
    let mut options = Options::new();
    let mut at = 0;
    while at < body.len() && !body[at].is_empty() {
        match body[at].strip_prefix(':').and_then(|option| option.split_once(':')) {
            Some((name, value)) => drop(options.insert(name, value.trim())),
            None if options.is_empty() && !argument.is_empty() => {
                argument.push(' ');
                argument.push_str(body[at].trim());
            }
            None => break,
        }
        at += 1;
    }
    (argument, options, dedented(&body[at..]))
}

//! `retort fmt`: a pipeline's text, laid out in one way. What it says stays, and so do comments, anchors and blank lines.

mod pieces;
mod read;
mod write;

use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::diagnostics::{Diagnostic, Diagnostics, Files, SourceFile, Span};
pub use crate::document::MAX_BYTES;
use crate::document::decode;
use crate::yaml::{self, Data, Entry, Yaml};
use pieces::{Item, Items, Layout, Shape};

/// The order of a node's keys. Others follow as they are.
const NODE: [&str; 5] = ["op", "foreach", "matrix", "from", "with"];
/// The order of a group's keys.
const GROUP: [&str; 2] = ["foreach", "nodes"];

/// Lays the text of a pipeline out: two spaces a level, a node's keys in the order `op`, `foreach`, `matrix`, `from`, `with`, lists
/// further in than their key, brackets and braces on one line or, where they do not fit in 120 characters, without.
///
/// The bytes must be YAML, and `path` is what mistakes call them. Doing it twice changes nothing more, and what comes out means the
/// same: that is looked at here, and where it is not so the file is refused.
pub fn fmt(path: &Path, bytes: Vec<u8>) -> Result<String, Diagnostics> {
    let (text, problem) = decode(bytes, 0);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let laid_out = problem.map_or_else(|| lay_out(&text), |problem| Err(vec![problem]));
    laid_out.map_err(|problems| Diagnostics::new(Files(vec![SourceFile { path: path.to_path_buf(), text }]), problems))
}

fn lay_out(text: &str) -> Result<String, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let root = yaml::parse(text, 0, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let Some(root) = root.filter(|root| !matches!(root.data, Data::Null)) else { return Ok(bare(text)) };
    let Some(mut layout) = read::read(text) else {
        return Err(refused("a file that is written like this can't be laid out"));
    };
    arrange(&mut layout);
    let new = write::write(&layout);
    let again = yaml::parse(&new, 0, &mut problems);
    let same = problems.is_empty() && again.is_some_and(|again| same(&root, &again, Place::Root));
    if !same || comments(text) != comments(&new) {
        return Err(refused("laid out, this file would not mean the same"));
    }
    Ok(new)
}

fn refused(what: &str) -> Vec<Diagnostic> {
    let problem = Diagnostic::at(Span { file: 0, start: 0, end: 0 }, "fmt", what);
    vec![problem.hint("nothing was written: `retort fmt` knows YAML as it is written by hand")]
}

/// A text that says nothing, but may have comments.
fn bare(text: &str) -> String {
    text.lines().map(|line| line.trim_end().to_string() + "\n").collect::<String>().trim_start_matches('\n').to_string()
}

/// What a map is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Nodes,
    Node,
    Other,
}

impl Place {
    fn within(self, key: &str) -> Place {
        match (self, key) {
            (Place::Root | Place::Node, "nodes") => Place::Nodes,
            (Place::Nodes, _) => Place::Node,
            _ => Place::Other,
        }
    }
}

/// Puts the keys of nodes in order.
fn arrange(layout: &mut Layout<'_>) {
    if let Shape::Items(items) = &mut layout.root.value.shape {
        arrange_items(items, Place::Root);
    }
}

fn arrange_items(items: &mut Items<'_>, place: Place) {
    let name = |item: &Item<'_>| item.key.as_deref().unwrap_or_default().trim_matches(['"', '\'']).to_string();
    for item in &mut items.list {
        let place = place.within(&name(item));
        if let Shape::Items(items) = &mut item.value.shape
            && place != Place::Other
        {
            arrange_items(items, place);
        }
    }
    // An alias must not come before its anchor.
    let (mut anchors, mut aliases) = (Vec::new(), Vec::new());
    items.list.iter().for_each(|item| marks(item, &mut anchors, &mut aliases));
    if place == Place::Node && items.is_map && !anchors.iter().any(|anchor| aliases.contains(anchor)) {
        let is_group = items.list.iter().any(|item| name(item) == "nodes");
        let order = if is_group { &GROUP[..] } else { &NODE[..] };
        let rank = |item: &Item<'_>| order.iter().position(|key| *key == name(item)).unwrap_or(order.len());
        items.list.sort_by_key(rank);
    }
}

/// The names of the anchors and aliases in an item.
fn marks<'a>(item: &Item<'a>, anchors: &mut Vec<&'a str>, aliases: &mut Vec<&'a str>) {
    anchors.extend(item.value.props.iter().filter_map(|prop| prop.strip_prefix('&')));
    match &item.value.shape {
        Shape::Text(text) => aliases.extend(text.strip_prefix('*')),
        Shape::Items(items) => items.list.iter().for_each(|item| marks(item, anchors, aliases)),
        Shape::Empty | Shape::Block { .. } => {}
    }
}

/// Whether two trees say the same: only the keys of nodes may be in another order.
fn same(one: &Yaml, other: &Yaml, place: Place) -> bool {
    match (&one.data, &other.data) {
        (Data::List(one), Data::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other, Place::Other))
        }
        (Data::Map(entries), Data::Map(others)) => {
            let alike = |one: &Entry, other: &Entry| {
                one.key == other.key && same(&one.value, &other.value, place.within(&one.key))
            };
            entries.len() == others.len()
                && if place == Place::Node {
                    entries.iter().all(|entry| other.entry(&entry.key).is_some_and(|other| alike(entry, other)))
                } else {
                    entries.iter().zip(others).all(|(one, other)| alike(one, other))
                }
        }
        (one, other) => one == other,
    }
}

/// The comments of a text, sorted: whatever begins with `#` and is in no value.
fn comments(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut is_value = vec![false; chars.len()];
    for (event, span) in Parser::new_from_str(text).flatten() {
        if let Event::Scalar(_, style, ..) = event
            && !(style == ScalarStyle::Plain && span.start.index() == span.end.index())
        {
            let end = span.end.index().min(chars.len());
            is_value[span.start.index().min(end)..end].fill(true);
        }
    }
    let mut comments = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let begins = at == 0 || chars[at - 1].is_whitespace();
        if chars[at] == '#' && begins && !is_value[at] {
            let comment: String = chars[at..].iter().take_while(|c| **c != '\n').collect();
            at += comment.chars().count();
            comments.push(comment.trim_end().to_string());
        }
        at += 1;
    }
    comments.sort();
    comments
}

#[cfg(test)]
mod tests;

//! GNU info files to blocks: nodes without their headers, menus and indices; text as in plain files.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::reader::Unreadable;
use super::{encoding, text};
use crate::document::{Document, Kind, Raw};

/// Reads an info file that stands by itself; the index of a split one holds no text and is refused as such.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let all = encoding::decode(bytes, None);
    let mut blocks: Vec<Raw> = Vec::new();
    // Nodes begin with U+001F, as Texinfo's manual says ("Info Format Specification").
    for node in all.split('\u{1f}').skip(1) {
        let node = node.trim_start_matches(['\n', '\u{c}']);
        let header = node.lines().next().unwrap_or("");
        if !header.starts_with("File:") {
            continue;
        }
        let name = field(header, "Node:").unwrap_or("");
        if name.to_lowercase().ends_with("index") {
            continue;
        }
        let body = without_menu(&node[header.len()..]);
        let mut inner = text::blocks(&body);
        link(name, &mut inner);
        blocks.extend(inner);
    }
    level_by_underline(&mut blocks);
    let title = blocks.iter().find(|block| block.kind == Kind::Heading).map(|block| block.text.clone());
    Ok(Document::assemble(title, blocks))
}

fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(name)?;
    Some(rest.split([',', '\t']).next().unwrap_or(rest).trim())
}

/// The text of a node, without its menu, and cross references said plainly: `*Note Foo: Bar.` becomes `see Foo`.
fn without_menu(node: &str) -> String {
    let mut text = String::new();
    let mut in_menu = false;
    for line in node.lines() {
        if line.starts_with("* Menu:") {
            in_menu = true;
        } else if in_menu && (line.starts_with("* ") || line.starts_with("    ") || line.trim().is_empty()) {
            // An entry, or what goes on about it.
        } else if in_menu && line.starts_with(char::is_alphabetic) && !line.contains(". ") && line.len() < 70 {
            // A heading inside the menu.
        } else {
            in_menu = false;
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The node's name as an anchor, and its notes as links: `*note Foo: Bar.` says `see Foo` and leads to node `Bar`.
fn link(name: &str, blocks: &mut [Raw]) {
    static NOTE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)\*note\s+([^:*]{1,200}):(?::|\s*((?:\([^)]*\))?[^.,\t]{0,200}[.,]))")
            .expect("a pattern of ours")
    });
    if let Some(first) = blocks.first_mut() {
        first.marks.anchors.push(name.to_owned());
    }
    for block in blocks {
        let mut links = Vec::new();
        let said = NOTE.replace_all(&block.text, |note: &Captures<'_>| {
            let node = note.get(2).map_or(&note[1], |node| node.as_str().trim_end_matches(['.', ',']).trim());
            let node = node.split_whitespace().collect::<Vec<_>>().join(" ");
            let target = if node.starts_with('(') { format!("info:{node}") } else { format!("#{node}") };
            links.push((note[1].to_owned(), target));
            let end = note.get(2).and_then(|node| node.as_str().chars().last());
            format!("see {}{}", &note[1], end.map_or_else(String::new, String::from))
        });
        block.text = said.into_owned();
        block.marks.links.extend(links);
    }
}

/// Texinfo underlines chapters with `*`, sections with `=`, subsections with `-`, subsubsections with `.`.
/// Plain text has no such order of `=` and `-`, but it agrees but for `*`, which then goes above the others.
fn level_by_underline(blocks: &mut [Raw]) {
    for block in blocks.iter_mut().filter(|block| block.kind == Kind::Heading) {
        let number = block.text.split(' ').next().unwrap_or("");
        let parts = number.split('.').filter(|part| !part.is_empty());
        if number.starts_with(|char: char| char.is_ascii_digit()) {
            block.level = (parts.count() as u8).clamp(1, 6);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        let info = "This is a.info, produced by makeinfo version 6.8.\n\n\u{1f}\nFile: a.info,  Node: Top,  Up: (dir)\n\nThe Tool\n********\n\nIt works.\n\n* Menu:\n\n* Use::   how\n\n\u{1f}\nFile: a.info,  Node: Use,  Prev: Top\n\n1 Use\n*****\n\nRun it, *note Top::.\n\n     tool -x\n\n\u{1f}\nFile: a.info,  Node: Concept Index,  Prev: Use\n\nIndex\n*****\n\n* a: Use. 1\n\n\u{1f}\nTag Table:\n";
        let document = read(info.as_bytes()).unwrap();
        assert_eq!(document.text, "The Tool\n\nIt works.\n\n1 Use\n\nRun it, see Top.\n\ntool -x");
        assert_eq!(document.title.as_deref(), Some("The Tool"));
        assert_eq!(document.blocks[4].kind, Kind::Code);
    }
}

//! Links as data: what a document points to, the anchors in it, and their columns in Arrow.
//!
//! A reader gives [`Marks`] with its blocks; `assemble` makes them [`Link`]s and [`Anchor`]s, and finds the blocks that they
//! lead to. References in running text ("see chapter 5") are left to `references`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringBuilder, StructArray, UInt32Builder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, UInt32Type};
use serde::{Deserialize, Serialize};

use super::BlocksError;

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LinkKind {
    /// A place in the same document; `target` is `#name`.
    Anchor,
    /// Another file: `target` is its path, relative to the pipeline as `path` is, and perhaps `#name`.
    Document,
    /// Whatever has a scheme: `https:`, `mailto:`.
    Url,
    /// Words of the running text: `chapter 5`, `the next section`; `target` is what they name, in lower case. It ends with
    /// `of another work` where they say so (`section 3 of RFC 1034`).
    Reference,
}

impl LinkKind {
    const ALL: [Self; 4] = [Self::Anchor, Self::Document, Self::Url, Self::Reference];

    /// The word that stands in the `kind` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Document => "document",
            Self::Url => "url",
            Self::Reference => "reference",
        }
    }
}

/// A link or cross reference of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The block that holds it, by its place in `blocks` from 0.
    pub block: u32,
    /// What it leads to.
    pub kind: LinkKind,
    /// Its words as they stand in the block, white space collapsed; may be empty (a picture that is a link).
    pub label: String,
    /// What it names: see [`LinkKind`].
    pub target: String,
    /// The block it leads to, where that is in this document. Nothing for an anchor or a reference: not resolved.
    pub to: Option<u32>,
}

/// A name that links lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The name, without `#`.
    pub name: String,
    /// The block that it stands before or in, by its place in `blocks` from 0.
    pub block: u32,
}

/// The anchors and links of a block, as a reader finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Names that lead here.
    pub anchors: Vec<String>,
    /// Label and target as the file has them: `#name`, a relative path, a URL.
    pub links: Vec<(String, String)>,
}

impl Marks {
    /// Takes over those of another block that becomes a part of this one.
    pub fn add(&mut self, other: Self) {
        self.anchors.extend(other.anchors);
        self.links.extend(other.links);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty() && self.links.is_empty()
    }
}

/// Names to blocks, and each block's links to those that they lead to. The first of equal names counts.
pub(super) fn resolve(marks: Vec<Marks>) -> (Vec<Anchor>, Vec<Link>) {
    let mut anchors = Vec::new();
    let mut places = BTreeMap::<String, u32>::new();
    for (block, marks) in marks.iter().enumerate() {
        for name in &marks.anchors {
            if !places.contains_key(name) {
                places.insert(name.clone(), block as u32);
                anchors.push(Anchor { name: name.clone(), block: block as u32 });
            }
        }
    }
    let mut links = Vec::new();
    for (block, marks) in marks.into_iter().enumerate() {
        for (label, target) in marks.links {
            let kind = kind_of(&target);
            let to = target.strip_prefix('#').and_then(|name| places.get(name)).copied();
            let label = label.split_whitespace().collect::<Vec<_>>().join(" ");
            links.push(Link { block: block as u32, kind, label, target, to });
        }
    }
    (anchors, links)
}

fn kind_of(target: &str) -> LinkKind {
    let scheme = target.split_once(':').is_some_and(|(scheme, _)| {
        scheme.len() > 1
            && scheme.starts_with(|char: char| char.is_ascii_alphabetic())
            && scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
    });
    if target.starts_with('#') {
        LinkKind::Anchor
    } else if scheme || target.starts_with("//") {
        LinkKind::Url
    } else {
        LinkKind::Document
    }
}

impl super::Document {
    /// Makes relative targets relative to the pipeline, and those that name this very file anchors. `path` is the file's own.
    pub(crate) fn locate_links(&mut self, path: &str) {
        let places: BTreeMap<&str, u32> =
            self.anchors.iter().map(|anchor| (anchor.name.as_str(), anchor.block)).collect();
        for link in self.links.iter_mut().filter(|link| link.kind == LinkKind::Document) {
            let (file, name) =
                link.target.split_once('#').map_or((&*link.target, None), |(file, name)| (file, Some(name)));
            let located = joined(path, file.split('?').next().unwrap_or(file));
            if located != path {
                link.target = name.map_or(located.clone(), |name| format!("{located}#{name}"));
                continue;
            }
            link.kind = LinkKind::Anchor;
            link.to = name.map_or(Some(0), |name| places.get(name).copied());
            link.target = format!("#{}", name.unwrap_or(""));
        }
    }
}

/// A relative path, seen from the folder of `path`. What climbs out of the pipeline's folder keeps its `..`.
pub(crate) fn joined(path: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    if relative.starts_with('/') {
        return relative.to_owned();
    }
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A target with its `%20` and the like as the characters that they stand for.
pub(crate) fn percent_decoded(target: &str) -> String {
    if !target.contains('%') {
        return target.to_owned();
    }
    let bytes = target.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| target.to_owned())
}

fn list_of(fields: Fields) -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(fields), false)))
}

fn link_fields() -> Fields {
    Fields::from(vec![
        Field::new("block", DataType::UInt32, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("label", DataType::Utf8, false),
        Field::new("target", DataType::Utf8, false),
        Field::new("to", DataType::UInt32, true),
    ])
}

fn anchor_fields() -> Fields {
    Fields::from(vec![Field::new("name", DataType::Utf8, false), Field::new("block", DataType::UInt32, false)])
}

/// The type of the `links` column: `list<struct<block, kind, label, target, to>>`.
pub fn links_type() -> DataType {
    list_of(link_fields())
}

/// The type of the `anchors` column: `list<struct<name, block>>`.
pub fn anchors_type() -> DataType {
    list_of(anchor_fields())
}

fn lists(fields: Fields, columns: Vec<ArrayRef>, lengths: Vec<usize>) -> ListArray {
    let items = StructArray::new(fields.clone(), columns, None);
    let item = Arc::new(Field::new("item", DataType::Struct(fields), false));
    ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(items), None)
}

/// The `links` column of some documents.
pub fn links_to_arrow<'a>(documents: impl IntoIterator<Item = &'a [Link]>) -> ListArray {
    let (mut blocks, mut to) = (UInt32Builder::new(), UInt32Builder::new());
    let (mut kinds, mut labels, mut targets) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let mut lengths = Vec::new();
    for links in documents {
        lengths.push(links.len());
        for link in links {
            blocks.append_value(link.block);
            kinds.append_value(link.kind.name());
            labels.append_value(&link.label);
            targets.append_value(&link.target);
            to.append_option(link.to);
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(blocks.finish()),
        Arc::new(kinds.finish()),
        Arc::new(labels.finish()),
        Arc::new(targets.finish()),
        Arc::new(to.finish()),
    ];
    lists(link_fields(), columns, lengths)
}

/// The `anchors` column of some documents.
pub fn anchors_to_arrow<'a>(documents: impl IntoIterator<Item = &'a [Anchor]>) -> ListArray {
    let (mut names, mut blocks) = (StringBuilder::new(), UInt32Builder::new());
    let mut lengths = Vec::new();
    for anchors in documents {
        lengths.push(anchors.len());
        for anchor in anchors {
            names.append_value(&anchor.name);
            blocks.append_value(anchor.block);
        }
    }
    lists(anchor_fields(), vec![Arc::new(names.finish()), Arc::new(blocks.finish())], lengths)
}

/// The anchors of one row of an `anchors` column.
pub fn anchors_from_arrow(column: &dyn Array, row: usize) -> Result<Vec<Anchor>, BlocksError> {
    if *column.data_type() != anchors_type() {
        return Err(BlocksError::Type(column.data_type().to_string()));
    }
    let row = column.as_list::<i32>().value(row);
    let anchors = row.as_struct();
    let (names, blocks) = (anchors.column(0).as_string::<i32>(), anchors.column(1).as_primitive::<UInt32Type>());
    Ok((0..anchors.len()).map(|at| Anchor { name: names.value(at).to_owned(), block: blocks.value(at) }).collect())
}

/// The links of one row of a `links` column, checked against that row's number of blocks.
pub fn links_from_arrow(column: &dyn Array, row: usize, n_blocks: usize) -> Result<Vec<Link>, BlocksError> {
    if *column.data_type() != links_type() {
        return Err(BlocksError::Type(column.data_type().to_string()));
    }
    let row = column.as_list::<i32>().value(row);
    let links = row.as_struct();
    let blocks = links.column(0).as_primitive::<UInt32Type>();
    let [kinds, labels, targets] = [1, 2, 3].map(|column| links.column(column).as_string::<i32>());
    let to = links.column(4).as_primitive::<UInt32Type>();
    let mut read = Vec::with_capacity(links.len());
    for index in 0..links.len() {
        let name = kinds.value(index);
        let kind = LinkKind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| BlocksError::Kind(name.to_owned()))?;
        let to = (!to.is_null(index)).then(|| to.value(index));
        let block = blocks.value(index);
        if block as usize >= n_blocks || to.is_some_and(|to| to as usize >= n_blocks) {
            return Err(BlocksError::Link(index));
        }
        let (label, target) = (labels.value(index).to_owned(), targets.value(index).to_owned());
        read.push(Link { block, kind, label, target, to });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::super::{Document, Kind, Raw};
    use super::*;

    fn raw(text: &str, anchors: &[&str], links: &[(&str, &str)]) -> Raw {
        let anchors = anchors.iter().map(ToString::to_string).collect();
        let links = links.iter().map(|(label, target)| (label.to_string(), target.to_string())).collect();
        Raw { marks: Marks { anchors, links }, ..Raw::new(Kind::Paragraph, 0, text) }
    }

    fn sample() -> Document {
        let raws = vec![
            raw("a", &["top"], &[("down", "#end"), ("gone", "#gone"), ("web", "https://x.org/a#b")]),
            raw(" ", &["end"], &[]),
            raw("b", &["top"], &[("b", "../c/d.html#e"), ("self", "b.html#top"), ("whole", "b.html")]),
        ];
        let mut document = Document::assemble(None, raws);
        document.locate_links("docs/b.html");
        document
    }

    #[test]
    fn links_find_their_blocks() {
        let document = sample();
        let seen: Vec<_> =
            document.links.iter().map(|link| (link.block, link.kind.name(), &*link.target, link.to)).collect();
        assert_eq!(
            seen,
            [
                (0, "anchor", "#end", Some(1)),
                (0, "anchor", "#gone", None),
                (0, "url", "https://x.org/a#b", None),
                (1, "document", "c/d.html#e", None),
                (1, "anchor", "#top", Some(0)),
                (1, "anchor", "#", Some(0)),
            ]
        );
        assert_eq!(document.anchors.len(), 2, "an empty block's anchor goes to the next; a name counts once");
    }

    #[test]
    fn arrow_gives_back_the_same_links() {
        let document = sample();
        let column = links_to_arrow([&[][..], &document.links]);
        assert_eq!(*column.data_type(), links_type());
        assert_eq!(links_from_arrow(&column, 0, 0).unwrap(), []);
        assert_eq!(links_from_arrow(&column, 1, 2).unwrap(), document.links);
        assert_eq!(links_from_arrow(&column, 1, 1), Err(BlocksError::Link(0)), "a block that is not there");
        let column = anchors_to_arrow([&document.anchors[..]]);
        assert_eq!(*column.data_type(), anchors_type());
        assert_eq!(anchors_from_arrow(&column, 0).unwrap(), document.anchors);
    }

    #[test]
    fn paths_are_joined_and_decoded() {
        assert_eq!(joined("a/b.html", "c.html"), "a/c.html");
        assert_eq!(joined("a/b.html", "../../x/./y.html"), "../x/y.html");
        assert_eq!(percent_decoded("a%20b%C3%A9%zz%"), "a bé%zz%");
    }
}

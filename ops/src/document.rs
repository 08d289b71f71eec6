//! The block model: a document is its plain text and the blocks that lie in it, to and from Arrow.
//!
//! Readers give [`Raw`] blocks in reading order; [`Document::assemble`] joins them with blank lines, notes where each
//! lies, and hangs each under its headings. How a file becomes blocks is left to `extract`, how blocks become chunks
//! to `chunk`.

pub mod links;
pub(crate) mod references;
pub mod targets;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, ListBuilder, StringBuilder, StructArray, UInt8Builder, UInt32Builder,
    UInt64Builder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, UInt8Type, UInt32Type, UInt64Type};
use serde::{Deserialize, Serialize};

use self::links::{Anchor, Link, Marks};
use self::targets::Target;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A heading, one line; `level` 1 to 6.
    Heading,
    /// Running text; a line break in it was one in the source.
    Paragraph,
    /// A whole list: `- ` or `1. ` before an item, two spaces of indent a level; `level` is its deepest level.
    List,
    /// A table in markdown: a header row, a rule, a row a line.
    Table,
    /// Lines whose layout counts, as they stood.
    Code,
}

impl Kind {
    /// The word that stands in the `kind` column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heading => "heading",
            Self::Paragraph => "paragraph",
            Self::List => "list",
            Self::Table => "table",
            Self::Code => "code",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Heading, Self::Paragraph, Self::List, Self::Table, Self::Code]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// The headings above a block, outermost first; shared by the blocks of a section.
pub type HeadingPath = Arc<[String]>;

/// A stretch of a document's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// What it is.
    pub kind: Kind,
    /// 1 to 6 for a heading, the depth for a list, else 0.
    pub level: u8,
    /// The headings it lies under, a heading's own text included.
    pub heading_path: HeadingPath,
    /// The page it begins on, from 1, where the format has pages.
    pub page: Option<u32>,
    /// First byte in the document's text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// A block as a reader gives it: no place and no headings yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// What it is.
    pub kind: Kind,
    /// As in [`Block`].
    pub level: u8,
    /// Its text, trimmed, never empty.
    pub text: String,
    /// As in [`Block`].
    pub page: Option<u32>,
    /// The anchors and links in it.
    pub marks: Marks,
}

impl Raw {
    /// A block of `text`, without page.
    pub fn new(kind: Kind, level: u8, text: impl Into<String>) -> Self {
        Self { kind, level, text: text.into(), page: None, marks: Marks::default() }
    }
}

/// A file's text and structure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// What the file calls itself.
    pub title: Option<String>,
    /// The blocks' texts, joined by blank lines.
    pub text: String,
    /// In reading order, not overlapping.
    pub blocks: Vec<Block>,
    /// What it points to, in reading order.
    pub links: Vec<Link>,
    /// Names that links lead to, in reading order.
    pub anchors: Vec<Anchor>,
    /// What its links lead to in other documents, in their order, where `resolve` looked for it.
    pub targets: Vec<Target>,
}

/// What lies between two blocks in a document's text.
pub const BLOCK_BREAK: &str = "\n\n";

impl Document {
    /// Joins blocks into a document, and finds what its links and references lead to. Empty blocks are left out; their
    /// anchors and links go to the next.
    ///
    /// Invariant: `text[block.start..block.end]` is the text of the block that the reader gave, with its ends trimmed
    /// (a code block keeps the indent of its first line).
    pub fn assemble(title: Option<String>, raws: Vec<Raw>) -> Self {
        let mut document = Self { title, ..Self::default() };
        let mut headings: Vec<(u8, String)> = Vec::new();
        let mut path: HeadingPath = Arc::from([]);
        let mut marks: Vec<Marks> = Vec::with_capacity(raws.len());
        let mut waiting = Marks::default();
        for raw in raws {
            waiting.add(raw.marks);
            let text = if raw.kind == Kind::Code { trim_layout(&raw.text) } else { raw.text.trim() };
            if text.is_empty() {
                continue;
            }
            if raw.kind == Kind::Heading {
                headings.retain(|(level, _)| *level < raw.level);
                headings.push((raw.level, text.to_owned()));
                path = headings.iter().map(|(_, heading)| heading.clone()).collect();
            }
            if !document.text.is_empty() {
                document.text.push_str(BLOCK_BREAK);
            }
            let start = document.text.len();
            document.text.push_str(text);
            let end = document.text.len();
            let heading_path = Arc::clone(&path);
            document.blocks.push(Block { kind: raw.kind, level: raw.level, heading_path, page: raw.page, start, end });
            marks.push(std::mem::take(&mut waiting));
        }
        if let Some(last) = marks.last_mut() {
            last.add(waiting);
        }
        (document.anchors, document.links) = links::resolve(marks);
        references::find(&mut document);
        document
    }

    /// The text of a block.
    pub fn text_of(&self, block: &Block) -> &str {
        &self.text[block.start..block.end]
    }
}

/// Without the blank lines around it, and without blanks at its end; the first line keeps its indent.
fn trim_layout(text: &str) -> &str {
    let text = text.trim_end();
    let blank = text.len() - text.trim_start().len();
    let line = text[..blank].rfind('\n').map_or(0, |at| at + 1);
    &text[line..]
}

/// The type of the `blocks` column: `list<struct<kind, level, heading_path, page, start, end>>`.
pub fn blocks_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(block_fields()), false)))
}

/// The type of a heading path: `list<utf8>`.
pub fn heading_path_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Utf8, false)))
}

fn block_fields() -> Fields {
    Fields::from(vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("level", DataType::UInt8, false),
        Field::new("heading_path", heading_path_type(), false),
        Field::new("page", DataType::UInt32, true),
        Field::new("start", DataType::UInt64, false),
        Field::new("end", DataType::UInt64, false),
    ])
}

/// A builder for heading paths, with the field that [`heading_path_type`] names.
pub fn heading_path_builder() -> ListBuilder<StringBuilder> {
    ListBuilder::new(StringBuilder::new()).with_field(Field::new("item", DataType::Utf8, false))
}

/// The `blocks` column of some documents: one list each.
pub fn blocks_to_arrow<'a>(documents: impl IntoIterator<Item = &'a [Block]>) -> ListArray {
    let mut kinds = StringBuilder::new();
    let mut levels = UInt8Builder::new();
    let mut paths = heading_path_builder();
    let mut pages = UInt32Builder::new();
    let mut starts = UInt64Builder::new();
    let mut ends = UInt64Builder::new();
    let mut lengths = Vec::new();
    for blocks in documents {
        lengths.push(blocks.len());
        for block in blocks {
            kinds.append_value(block.kind.name());
            levels.append_value(block.level);
            for heading in block.heading_path.iter() {
                paths.values().append_value(heading);
            }
            paths.append(true);
            pages.append_option(block.page);
            starts.append_value(block.start as u64);
            ends.append_value(block.end as u64);
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(kinds.finish()),
        Arc::new(levels.finish()),
        Arc::new(paths.finish()),
        Arc::new(pages.finish()),
        Arc::new(starts.finish()),
        Arc::new(ends.finish()),
    ];
    let blocks = StructArray::new(block_fields(), columns, None);
    let item = Arc::new(Field::new("item", DataType::Struct(block_fields()), false));
    ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(blocks), None)
}

/// Why a `blocks` column could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlocksError {
    /// Not the type that [`blocks_type`] names.
    #[error("a `blocks` column of another type: {0}")]
    Type(String),
    /// A kind that this version does not know.
    #[error("unknown kind of block `{0}`")]
    Kind(String),
    /// Offsets that do not lie in the text.
    #[error("block {0} does not lie in the document's text")]
    Offsets(usize),
    /// From or to a block that is not there.
    #[error("link {0} names a block that is not there")]
    Link(usize),
}

/// The blocks of one row of a `blocks` column, checked against that row's text.
pub fn blocks_from_arrow(column: &dyn Array, row: usize, text: &str) -> Result<Vec<Block>, BlocksError> {
    if *column.data_type() != blocks_type() {
        return Err(BlocksError::Type(column.data_type().to_string()));
    }
    let row = column.as_list::<i32>().value(row);
    let blocks = row.as_struct();
    let kinds = blocks.column(0).as_string::<i32>();
    let levels = blocks.column(1).as_primitive::<UInt8Type>();
    let paths = blocks.column(2).as_list::<i32>();
    let pages = blocks.column(3).as_primitive::<UInt32Type>();
    let starts = blocks.column(4).as_primitive::<UInt64Type>();
    let ends = blocks.column(5).as_primitive::<UInt64Type>();
    let mut read: Vec<Block> = Vec::with_capacity(blocks.len());
    let mut at = 0;
    for index in 0..blocks.len() {
        let kind = Kind::from_name(kinds.value(index)).ok_or_else(|| BlocksError::Kind(kinds.value(index).into()))?;
        let (start, end) = (starts.value(index) as usize, ends.value(index) as usize);
        if start < at || text.get(start..end).is_none_or(str::is_empty) {
            return Err(BlocksError::Offsets(index));
        }
        at = end;
        let path = paths.value(index);
        let heading_path: HeadingPath = path.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        let heading_path = match read.last() {
            Some(last) if last.heading_path == heading_path => Arc::clone(&last.heading_path),
            _ => heading_path,
        };
        let page = (!pages.is_null(index)).then(|| pages.value(index));
        read.push(Block { kind, level: levels.value(index), heading_path, page, start, end });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Document {
        let mut page_two = Raw::new(Kind::Code, 0, "\n\n    ls -l  \n  cat\n\n");
        page_two.page = Some(2);
        Document::assemble(
            Some("T".into()),
            vec![
                Raw::new(Kind::Paragraph, 0, " before "),
                Raw::new(Kind::Heading, 2, "One"),
                Raw::new(Kind::Heading, 4, "Deep"),
                Raw::new(Kind::Paragraph, 0, "  "),
                page_two,
                Raw::new(Kind::Heading, 3, "Shallower"),
                Raw::new(Kind::List, 1, "- a\n- é"),
                Raw::new(Kind::Heading, 1, "Top"),
            ],
        )
    }

    #[test]
    fn blocks_lie_where_they_say_and_under_their_headings() {
        let document = sample();
        assert_eq!(document.text, "before\n\nOne\n\nDeep\n\n    ls -l  \n  cat\n\nShallower\n\n- a\n- é\n\nTop");
        let seen: Vec<_> =
            document.blocks.iter().map(|block| (document.text_of(block), block.heading_path.join("/"))).collect();
        assert_eq!(seen[0], ("before", String::new()));
        assert_eq!(seen[3], ("    ls -l  \n  cat", "One/Deep".into()));
        assert_eq!(seen[5], ("- a\n- é", "One/Shallower".into()));
        assert_eq!(seen[6], ("Top", "Top".into()));
    }

    #[test]
    fn arrow_gives_back_the_same_blocks() {
        let document = sample();
        let column = blocks_to_arrow([&[][..], &document.blocks]);
        assert_eq!(*column.data_type(), blocks_type());
        assert_eq!(blocks_from_arrow(&column, 0, "").unwrap(), []);
        assert_eq!(blocks_from_arrow(&column, 1, &document.text).unwrap(), document.blocks);
    }

    #[test]
    fn offsets_outside_the_text_are_refused() {
        let document = sample();
        let column = blocks_to_arrow([&document.blocks[..]]);
        assert_eq!(blocks_from_arrow(&column, 0, &document.text[..20]), Err(BlocksError::Offsets(3)));
        let shifted = document.text.replace("- a", "é a");
        assert!(blocks_from_arrow(&column, 0, &shifted).is_err());
    }
}

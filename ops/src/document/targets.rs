//! What the links of a document lead to in other documents, as a column: `resolve` fills it, `chunk` says it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringBuilder, StructArray, UInt32Builder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, UInt32Type};
use serde::{Deserialize, Serialize};

use super::{BlocksError, Document, Kind, heading_path_builder, heading_path_type};

/// A place in another document that a link leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The link, by its place in `links` from 0.
    pub link: u32,
    /// The other document's path.
    pub path: String,
    /// The headings of the place, or what the document calls itself where it has none there.
    pub heading_path: Vec<String>,
    /// The first paragraph or list of the place, if it has one.
    pub text: Option<String>,
}

impl Document {
    /// Of a heading, the first paragraph or list of its section; of another block, itself.
    pub(crate) fn first_paragraph(&self, to: usize) -> Option<&str> {
        let target = &self.blocks[to];
        let is_text = |kind| matches!(kind, Kind::Paragraph | Kind::List);
        if target.kind != Kind::Heading {
            return is_text(target.kind).then(|| self.text_of(target));
        }
        let section = self.blocks[to + 1..].iter();
        let mut section = section.take_while(|block| block.kind != Kind::Heading || block.level > target.level);
        section.find(|block| is_text(block.kind)).map(|block| self.text_of(block))
    }
}

fn target_fields() -> Fields {
    Fields::from(vec![
        Field::new("link", DataType::UInt32, false),
        Field::new("path", DataType::Utf8, false),
        Field::new("heading_path", heading_path_type(), false),
        Field::new("text", DataType::Utf8, true),
    ])
}

/// The type of the `targets` column: `list<struct<link, path, heading_path, text>>`.
pub fn targets_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(target_fields()), false)))
}

/// The `targets` column of some documents.
pub fn targets_to_arrow<'a>(documents: impl IntoIterator<Item = &'a [Target]>) -> ListArray {
    let mut links = UInt32Builder::new();
    let (mut paths, mut headings, mut texts) = (StringBuilder::new(), heading_path_builder(), StringBuilder::new());
    let mut lengths = Vec::new();
    for targets in documents {
        lengths.push(targets.len());
        for target in targets {
            links.append_value(target.link);
            paths.append_value(&target.path);
            for heading in &target.heading_path {
                headings.values().append_value(heading);
            }
            headings.append(true);
            texts.append_option(target.text.as_deref());
        }
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(links.finish()), Arc::new(paths.finish()), Arc::new(headings.finish()), Arc::new(texts.finish())];
    let items = StructArray::new(target_fields(), columns, None);
    let item = Arc::new(Field::new("item", DataType::Struct(target_fields()), false));
    ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(items), None)
}

/// The targets of one row of a `targets` column, checked against that row's number of links.
pub fn targets_from_arrow(column: &dyn Array, row: usize, n_links: usize) -> Result<Vec<Target>, BlocksError> {
    if *column.data_type() != targets_type() {
        return Err(BlocksError::Type(column.data_type().to_string()));
    }
    let row = column.as_list::<i32>().value(row);
    let targets = row.as_struct();
    let links = targets.column(0).as_primitive::<UInt32Type>();
    let paths = targets.column(1).as_string::<i32>();
    let headings = targets.column(2).as_list::<i32>();
    let texts = targets.column(3).as_string::<i32>();
    let mut read = Vec::with_capacity(targets.len());
    for index in 0..targets.len() {
        let link = links.value(index);
        if link as usize >= n_links {
            return Err(BlocksError::Link(index));
        }
        let path = headings.value(index);
        let heading_path = path.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        let text = (!texts.is_null(index)).then(|| texts.value(index).to_owned());
        read.push(Target { link, path: paths.value(index).to_owned(), heading_path, text });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrow_gives_back_the_same_targets() {
        let named = |link, text: Option<&str>| Target {
            link,
            path: "b.md".into(),
            heading_path: vec!["One".into(), "Two".into()],
            text: text.map(str::to_owned),
        };
        let targets = [named(0, Some("é")), named(3, None)];
        let column = targets_to_arrow([&[][..], &targets]);
        assert_eq!(*column.data_type(), targets_type());
        assert_eq!(targets_from_arrow(&column, 0, 0).unwrap(), []);
        assert_eq!(targets_from_arrow(&column, 1, 4).unwrap(), targets);
        assert_eq!(targets_from_arrow(&column, 1, 3), Err(BlocksError::Link(1)), "a link that is not there");
    }
}

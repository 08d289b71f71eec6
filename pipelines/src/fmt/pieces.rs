//! The pieces of a pipeline's text: values, items and lines, as they are written.

/// A value as it is written.
#[derive(Debug)]
pub(super) struct Value<'a> {
    /// Anchor and tag, in their order.
    pub(super) props: Vec<&'a str>,
    pub(super) shape: Shape<'a>,
}

#[derive(Debug)]
pub(super) enum Shape<'a> {
    /// Nothing after the colon or the dash.
    Empty,
    /// A text as it is written, quotes and all; or an alias.
    Text(&'a str),
    /// A text below `|` or `>`: how it begins, its lines without their indent, and how far in it says that they stand.
    Block { header: &'a str, lines: Vec<&'a str>, digit: Option<usize> },
    /// A list or a map.
    Items(Items<'a>),
}

/// A list or a map.
#[derive(Debug)]
pub(super) struct Items<'a> {
    pub(super) is_map: bool,
    /// Whether it is written in brackets or braces.
    pub(super) flow: bool,
    pub(super) list: Vec<Item<'a>>,
    /// What stands after the last.
    pub(super) tail: Vec<Line<'a>>,
}

/// An item of a list, or an entry of a map.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// What stands on the lines before it.
    pub(super) before: Vec<Line<'a>>,
    /// With its anchor, if it has one.
    pub(super) key: Option<String>,
    pub(super) value: Value<'a>,
    /// The comment on its line, and how far from the rest.
    pub(super) after: Option<(usize, &'a str)>,
}

/// A line that is no value's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Line<'a> {
    Blank,
    Comment(&'a str),
}

/// A text taken apart.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    /// What stands before `---`, if that is there.
    pub(super) head: Option<Vec<Line<'a>>>,
    pub(super) root: Item<'a>,
    /// What stands after all of it.
    pub(super) end: Vec<Line<'a>>,
}

impl Default for Item<'_> {
    fn default() -> Self {
        Item { before: Vec::new(), key: None, value: Value { props: Vec::new(), shape: Shape::Empty }, after: None }
    }
}

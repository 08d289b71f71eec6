//! Writes a layout: two spaces a level, lists further in than their key, brackets and braces on one line or not at all.

use super::pieces::{Item, Items, Layout, Line, Shape, Value};

/// What does not fit into so many characters is written over several lines.
const WIDTH: usize = 120;
/// Spaces a level.
const STEP: usize = 2;

/// The text of a layout.
pub(super) fn write(layout: &Layout<'_>) -> String {
    let mut writer = Writer { out: String::new() };
    if let Some(head) = &layout.head {
        writer.lines(head, 0, true);
        writer.out.push_str("---\n");
    }
    let root = &layout.root;
    writer.lines(&root.before, 0, true);
    match &root.value.shape {
        Shape::Items(items) if inline(root, 0).is_none() => {
            let after = root.after.map(|(_, comment)| Line::Comment(comment));
            writer.lines(after.as_slice(), 0, true);
            if !root.value.props.is_empty() {
                writer.out.push_str(&root.value.props.join(" "));
                writer.out.push('\n');
            }
            writer.items(items, 0);
        }
        _ => writer.value(root, 0),
    }
    writer.lines(&layout.end, 0, false);
    writer.out
}

struct Writer {
    out: String,
}

impl Writer {
    /// Comments and blank lines; a blank one is left out where something begins.
    fn lines(&mut self, lines: &[Line<'_>], indent: usize, begins: bool) {
        let mut begins = begins;
        for line in lines {
            match line {
                Line::Blank if begins || self.out.ends_with("\n\n") => {}
                Line::Blank => self.out.push('\n'),
                Line::Comment(text) => {
                    self.pad(indent);
                    self.out.push_str(text);
                    self.out.push('\n');
                }
            }
            begins = false;
        }
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    fn items(&mut self, items: &Items<'_>, indent: usize) {
        for (i, item) in items.list.iter().enumerate() {
            self.lines(&item.before, indent, i == 0);
            self.lines(&hoisted(item, indent), indent, i == 0 && item.before.is_empty());
            self.pad(indent);
            self.item(item, items.is_map, indent);
        }
        self.lines(&items.tail, indent, items.list.is_empty());
    }

    /// An item, from its key or dash on.
    fn item(&mut self, item: &Item<'_>, in_map: bool, indent: usize) {
        match &item.key {
            Some(key) if in_map => {
                self.out.push_str(key);
                self.out.push(':');
            }
            _ => self.out.push('-'),
        }
        if let Some(inner) = compact(item, indent) {
            // The first entry stands on the line of the dash.
            self.out.push(' ');
            for (i, entry) in inner.list.iter().enumerate() {
                if i > 0 {
                    self.lines(&entry.before, indent + STEP, false);
                    self.lines(&hoisted(entry, indent + STEP), indent + STEP, false);
                    self.pad(indent + STEP);
                }
                self.item(entry, inner.is_map, indent + STEP);
            }
            self.lines(&inner.tail, indent + STEP, false);
            return;
        }
        if !matches!(item.value.shape, Shape::Empty) || !item.value.props.is_empty() {
            self.out.push(' ');
        }
        self.value(item, indent);
    }

    /// A value, from where it stands on its line; `indent` is that of its key or dash.
    fn value(&mut self, item: &Item<'_>, indent: usize) {
        if let Some(text) = inline(item, indent) {
            self.out.push_str(&text);
            return self.after(item);
        }
        let props = item.value.props.join(" ");
        match &item.value.shape {
            Shape::Empty => self.out.push_str(&props),
            Shape::Text(text) => {
                self.out.push_str(&joined(&props, ""));
                self.out.push_str(&folded(text, indent + STEP));
            }
            Shape::Block { header, lines, digit } => {
                self.out.push_str(&joined(&props, header));
                self.after(item);
                for line in lines {
                    if !line.is_empty() {
                        self.pad(indent + digit.unwrap_or(STEP));
                        self.out.push_str(line);
                    }
                    self.out.push('\n');
                }
                return;
            }
            Shape::Items(items) => {
                if props.is_empty() {
                    // The space after the colon.
                    self.out.truncate(self.out.trim_end_matches(' ').len());
                }
                self.out.push_str(&props);
                self.after(item);
                return self.items(items, indent + STEP);
            }
        }
        self.after(item);
    }

    /// The end of an item's line.
    fn after(&mut self, item: &Item<'_>) {
        if let Some((distance, comment)) = item.after {
            self.pad(distance);
            self.out.push_str(comment);
        }
        self.out.push('\n');
    }
}

/// A value on one line, if it is so written and fits behind its key or dash.
fn inline(item: &Item<'_>, indent: usize) -> Option<String> {
    let text = flat(&item.value)?;
    let is_items = matches!(&item.value.shape, Shape::Items(items) if !items.list.is_empty());
    let before = indent + STEP + item.key.as_ref().map_or(0, |key| key.chars().count());
    (!is_items || before + text.chars().count() <= WIDTH).then_some(text)
}

/// A value as it stands on one line; `None` where it can't.
fn flat(value: &Value<'_>) -> Option<String> {
    let text = match &value.shape {
        Shape::Empty => String::new(),
        Shape::Text(text) if text.contains('\n') => return None,
        Shape::Text(text) => (*text).to_string(),
        Shape::Block { .. } => return None,
        Shape::Items(items) => flat_items(items)?,
    };
    Some(joined(&value.props.join(" "), &text).trim_end().to_string())
}

fn flat_items(items: &Items<'_>) -> Option<String> {
    let has_comment = |lines: &[Line<'_>]| lines.iter().any(|line| matches!(line, Line::Comment(_)));
    if !items.flow || has_comment(&items.tail) {
        return None;
    }
    let mut parts = Vec::with_capacity(items.list.len());
    for item in &items.list {
        if item.after.is_some() || has_comment(&item.before) {
            return None;
        }
        let value = flat(&item.value)?;
        parts.push(match &item.key {
            Some(key) if value.is_empty() => key.trim_end().to_string(),
            Some(key) => format!("{key}: {value}"),
            None => value,
        });
    }
    let text = parts.join(", ");
    Some(if items.is_map { format!("{{{text}}}") } else { format!("[{text}]") })
}

fn joined(props: &str, text: &str) -> String {
    if props.is_empty() { text.to_string() } else { format!("{props} {text}") }
}

/// A text of several lines that is no block: how far in its lines stand says nothing.
fn folded(text: &str, indent: usize) -> String {
    let mut lines = text.split('\n').map(|line| {
        let trimmed = line.trim_end();
        // A blank behind a backslash is part of the text.
        if trimmed.ends_with('\\') && line.len() > trimmed.len() { &line[..=trimmed.len()] } else { trimmed }
    });
    let mut folded = lines.next().unwrap_or_default().to_string();
    for line in lines.map(|line| line.trim_start_matches([' ', '\t'])) {
        folded.push('\n');
        if !line.is_empty() {
            folded.extend(std::iter::repeat_n(' ', indent));
            folded.push_str(line);
        }
    }
    folded
}

/// The list or map whose first item stands on the line of its dash.
fn compact<'a, 'b>(item: &'b Item<'a>, indent: usize) -> Option<&'b Items<'a>> {
    let Shape::Items(items) = &item.value.shape else { return None };
    let plain = item.key.is_none() && item.value.props.is_empty() && item.after.is_none();
    (plain && !items.list.is_empty() && inline(item, indent).is_none()).then_some(items)
}

/// The comments before the first item of a compact list or map, which can't stand between it and the dash.
fn hoisted<'a>(item: &Item<'a>, indent: usize) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    let (mut item, mut indent) = (item, indent);
    while let Some(first) = compact(item, indent).and_then(|items| items.list.first()) {
        lines.extend(first.before.iter().filter(|line| matches!(line, Line::Comment(_))));
        (item, indent) = (first, indent + STEP);
    }
    lines
}

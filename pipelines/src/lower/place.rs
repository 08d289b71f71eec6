//! The way back: from a field of a node, as the engine names it, to its place in a file.

use super::Lowering;
use crate::config;
use crate::diagnostics::{Files, Span};
use crate::yaml::{Data, Origin, Yaml};

/// Where a field of a node is written.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) span: Span,
    /// Where its value was given, if elsewhere.
    pub(crate) origin: Option<&'a Origin>,
    /// Whether it was complained about already.
    pub(crate) is_broken: bool,
    /// The value's own place, all lines of it.
    pub(crate) value: Option<Span>,
    /// Whether the field itself is written; else the place is that of what encloses it.
    pub(crate) is_written: bool,
}

impl Lowering {
    /// The place of a field: `op`, `from.train[1]`, `with.sample.top_p`; of what encloses it, where it is not written.
    /// With `key`, the place of its key.
    pub(crate) fn find(&self, field: &str, key: bool, files: &Files) -> Found<'_> {
        let mut found = Found {
            span: self.written.key_span,
            origin: None,
            is_broken: false,
            value: None,
            is_written: field.is_empty(),
        };
        let mut value = &self.written.value;
        let steps = self.as_written(steps(field));
        for (i, step) in steps.iter().copied().enumerate() {
            let (next, span) = match (&value.data, step) {
                (Data::Map(_), Step::Key(name)) => match value.entry(name) {
                    Some(entry) => (&entry.value, if key { entry.key_span } else { config::place(entry, files) }),
                    None => break,
                },
                (Data::List(items), Step::Item(i)) if i < items.len() => (&items[i], items[i].span),
                _ => break,
            };
            value = next;
            found = Found {
                span,
                origin: value.origin.as_deref().or(found.origin),
                is_broken: matches!(value.data, Data::Broken),
                value: Some(value.span),
                is_written: i + 1 == steps.len(),
            };
        }
        found
    }

    /// The steps to a source as it is written, where one that is written means several.
    fn as_written<'a>(&self, mut steps: Vec<Step<'a>>) -> Vec<Step<'a>> {
        let slot = match steps[..] {
            [Step::Key("from"), Step::Item(_)] => None,
            [Step::Key("from"), Step::Key(slot), Step::Item(_)] => Some(slot),
            _ => return steps,
        };
        let feed = self.spec.from.iter().position(|feed| feed.slot.as_deref() == slot);
        if let (Some(Step::Item(i)), Some(written)) =
            (steps.last_mut(), feed.and_then(|feed| self.written_sources.get(feed)))
            && let Some(of) = written.get(*i)
        {
            *i = *of;
        }
        steps
    }

    /// The place in a field of the node that names a column: a value that is it, or a template that uses it.
    pub(crate) fn column(&self, field: &str, name: &str, files: &Files) -> Option<Span> {
        let mut value = &self.written.value;
        for step in steps(field) {
            value = match (&value.data, step) {
                (Data::Map(_), Step::Key(key)) => value.get(key)?,
                (Data::List(items), Step::Item(i)) => items.get(i)?,
                _ => return None,
            };
        }
        column(value, name, files)
    }
}

fn column(value: &Yaml, name: &str, files: &Files) -> Option<Span> {
    match &value.data {
        Data::Text(text) if text == name => Some(value.span),
        Data::Text(text) if text.contains("{{") => {
            let templates =
                [format!("{{{{ {name} "), format!("{{{{{name}}}}}"), format!("{{{{ {name}."), name.to_string()];
            let used = templates.into_iter().find(|template| text.contains(template))?;
            if !files.text(value.span).contains(&used) {
                // A param wrote it.
                return Some(value.span);
            }
            Some(files.within(value.span, &used)).map(|span| files.within(span, name))
        }
        Data::List(items) => items.iter().find_map(|item| column(item, name, files)),
        Data::Map(entries) => entries.iter().find_map(|entry| match &entry.value.data {
            Data::Text(text) if entry.key == "where" => in_condition(&entry.value, text, name, files),
            _ => column(&entry.value, name, files),
        }),
        _ => None,
    }
}

/// The place in a condition that names a column.
fn in_condition(value: &Yaml, text: &str, name: &str, files: &Files) -> Option<Span> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let ends = |at: usize| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word);
    let (at, _) = text.match_indices(name).find(|(at, _)| ends(*at))?;
    let line = text[..at].matches('\n').count() + 1;
    let column = text[..at].rsplit('\n').next()?.chars().count() + 1;
    files.word(value.span, line, column).or(Some(value.span))
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

/// The steps of a field path: `messages[1].user` is three.
fn steps(field: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        let name = pieces.next().unwrap_or_default();
        if !name.is_empty() {
            steps.push(Step::Key(name));
        }
        steps.extend(pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok()).map(Step::Item));
    }
    steps
}

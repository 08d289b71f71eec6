//! A YAML tree that knows the place of every key and value. What the keys mean is `document`'s.

mod parse;
mod scalar;
mod syntax;

use serde_json::{Map, Number, Value};
use std::borrow::Cow;

use crate::diagnostics::{Diagnostic, Span};

pub(crate) use parse::{MAX_VALUES, parse};

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Yaml {
    pub(crate) span: Span,
    pub(crate) data: Data,
    /// Where the value was given, if elsewhere: a param. Boxed, since few have one and files have many values.
    pub(crate) origin: Option<Box<Origin>>,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// A number, and how it is written.
    Number(Number, String),
    Text(String),
    List(Vec<Yaml>),
    /// In the order of the file, no key twice.
    Map(Vec<Entry>),
    /// A value that a mistake was already reported for: it is not complained about again.
    Broken,
}

/// A key of a map and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Yaml,
}

/// The param or matrix key that gave a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    pub(crate) name: String,
    /// `None` for a value of the command line.
    pub(crate) span: Option<Span>,
    /// `the param` or `the matrix key`.
    pub(crate) what: &'static str,
}

impl Origin {
    /// Shows in a mistake where its value was given.
    pub(crate) fn explain(&self, problem: Diagnostic) -> Diagnostic {
        match self.span {
            Some(span) => problem.also(span, format!("given by {} `{}`", self.what, self.name)),
            None if problem.hint.is_none() => problem.hint(format!("it is given by `--set {}=…`", self.name)),
            None => problem,
        }
    }
}

impl Yaml {
    pub(crate) fn new(span: Span, data: Data) -> Self {
        Yaml { span, data, origin: None }
    }

    /// The entries of a map; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        if let Data::Map(entries) = &self.data { entries } else { &[] }
    }

    /// An entry of a map.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Yaml> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of a key, to be changed.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Yaml> {
        let Data::Map(entries) = &mut self.data else { return None };
        entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    /// Text, and numbers and truth values as they are written.
    pub(crate) fn scalar(&self) -> Option<Cow<'_, str>> {
        match &self.data {
            Data::Text(text) | Data::Number(_, text) => Some(Cow::Borrowed(text)),
            Data::Bool(truth) => Some(Cow::Owned(truth.to_string())),
            Data::Null | Data::Broken | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The value in words: ``the text `many` ``.
    pub(crate) fn describe(&self) -> String {
        match &self.data {
            Data::Null | Data::Broken => "nothing".into(),
            Data::Bool(truth) => format!("`{truth}`"),
            Data::Number(_, text) => format!("the number `{text}`"),
            Data::Text(text) if text.len() <= 40 && !text.contains('\n') => format!("the text `{text}`"),
            Data::Text(_) => "text".into(),
            Data::List(items) if items.is_empty() => "an empty list".into(),
            Data::List(_) => "a list".into(),
            Data::Map(_) => "a map".into(),
        }
    }

    /// The value without places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null | Data::Broken => Value::Null,
            Data::Bool(truth) => Value::Bool(*truth),
            Data::Number(number, _) => Value::Number(number.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => Value::Array(items.iter().map(Yaml::to_json).collect()),
            Data::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// This value and all within.
    pub(crate) fn count(&self) -> usize {
        match &self.data {
            Data::List(items) => 1 + items.iter().map(Yaml::count).sum::<usize>(),
            Data::Map(entries) => 1 + entries.iter().map(|entry| 1 + entry.value.count()).sum::<usize>(),
            _ => 1,
        }
    }

    /// The same value, said to be at another place.
    pub(crate) fn moved(&self, span: Span) -> Yaml {
        let data = match &self.data {
            Data::List(items) => Data::List(items.iter().map(|item| item.moved(span)).collect()),
            Data::Map(entries) => {
                let moved =
                    |entry: &Entry| Entry { key: entry.key.clone(), key_span: span, value: entry.value.moved(span) };
                Data::Map(entries.iter().map(moved).collect())
            }
            data => data.clone(),
        };
        Yaml { span, data, origin: self.origin.clone() }
    }

    /// Puts `over`'s keys into this map, map by map; anything else is replaced.
    pub(crate) fn merge(&mut self, over: &Yaml) {
        let (Data::Map(entries), Data::Map(new)) = (&mut self.data, &over.data) else {
            *self = over.clone();
            return;
        };
        for entry in new {
            match entries.iter_mut().find(|old| old.key == entry.key) {
                Some(old) => old.value.merge(&entry.value),
                None => entries.push(entry.clone()),
            }
        }
    }
}

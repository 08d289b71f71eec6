//! From the sections of a document to nodes as the engine takes them, with the way back from a node's field to its place.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use retort_engine::{Feed, NodeSpec, OpInfo};
use serde_json::Value;

use crate::config;
use crate::diagnostics::{Diagnostic, Files, Span};
use crate::document::{Document, check_name, unknown_key};
use crate::matrix::{self, Matrix};
use crate::models;
use crate::params::{self, Scope};
use crate::yaml::{Data, Entry, Origin, Yaml};

/// The keys of a node.
pub(crate) const KEYS: [&str; 4] = ["op", "from", "with", "matrix"];

/// What a document means.
#[derive(Debug, Default)]
pub(crate) struct Lowered {
    pub(crate) nodes: Vec<Lowering>,
    pub(crate) params: BTreeMap<String, Yaml>,
    pub(crate) models: BTreeMap<String, Yaml>,
}

/// A node, and where it is written.
#[derive(Debug)]
pub(crate) struct Lowering {
    pub(crate) spec: NodeSpec,
    /// As it is written, references and models filled in.
    pub(crate) written: Entry,
    /// Whether `op` was complained about already.
    pub(crate) op_is_broken: bool,
    /// Whether `from` was complained about already.
    pub(crate) from_is_broken: bool,
}

/// Lowers a document under the settings of the command line.
pub(crate) fn lower(
    document: &Document,
    set: &[(String, String)],
    ops: &[OpInfo],
    files: &Files,
    problems: &mut Vec<Diagnostic>,
) -> Lowered {
    let keys = matrix_keys(document);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let params = params::resolve(&document.params, set, files, &keys, problems);
    let scope = Scope { files, params: &params, axes: &[], matrix: &keys, env: None };
    let models = models::resolve(&document.models, scope, &document.env, problems);
    let axes = matrix::axes(document, scope, problems);
    let sources = |node: &Entry, axes: &[(&str, &Yaml)]| {
        let from = node.value.get("from").map(|from| Scope { axes, ..scope }.fill(from, &mut Vec::new()));
        let feeds = from.map(|from| feeds(&from, &mut Vec::new())).unwrap_or_default();
        feeds.into_iter().flat_map(|feed| feed.sources).collect()
    };
    let matrix = Matrix::new(axes, &document.nodes, sources, problems);
    let known = Known { ops, models: &models, files, schemas: RefCell::default() };
    let mut nodes = Vec::with_capacity(document.nodes.len());
    for (i, node) in document.nodes.iter().enumerate() {
        if let Err(message) = check_name(&node.key) {
            problems.push(Diagnostic::at(node.key_span, "name", message));
        }
        for choice in matrix.choices(i) {
            let axes = matrix.values(&choice);
            let filled = Scope { axes: &axes, ..scope }.fill(&node.value, problems);
            let written = Entry { key: node.key.clone(), key_span: node.key_span, value: filled };
            let name = matrix.copy(i, &choice);
            let mut lowering = lowering(name, written, &known, problems);
            for source in lowering.spec.from.iter_mut().flat_map(|feed| &mut feed.sources) {
                *source = matrix.source(source, &choice);
            }
            nodes.push(lowering);
        }
    }
    // A key that is misspelt where it is used is not reported as unused too.
    if !problems.iter().any(|problem| problem.code == "unknown-param") {
        matrix.unused(problems);
    }
    Lowered { nodes, params, models }
}

fn matrix_keys(document: &Document) -> Vec<String> {
    let own = document.nodes.iter().filter_map(|node| node.value.get("matrix")).flat_map(Yaml::entries);
    document.matrix.iter().chain(own).map(|entry| entry.key.clone()).collect()
}

/// What nodes refer to.
struct Known<'a> {
    ops: &'a [OpInfo],
    models: &'a BTreeMap<String, Yaml>,
    files: &'a Files,
    /// The schemas of the operators' configs, made once an operator.
    schemas: RefCell<HashMap<String, Option<Rc<Value>>>>,
}

impl Known<'_> {
    fn schema(&self, op: &str) -> Option<Rc<Value>> {
        let mut schemas = self.schemas.borrow_mut();
        if let Some(schema) = schemas.get(op) {
            return schema.clone();
        }
        let info = self.ops.iter().find(|info| info.name == op);
        let schema = info.map(|info| Rc::new((info.schema)().to_value()));
        schemas.insert(op.to_string(), schema.clone());
        schema
    }
}

fn lowering(name: String, mut node: Entry, known: &Known<'_>, problems: &mut Vec<Diagnostic>) -> Lowering {
    shape(&mut node, known.ops, problems);
    let op = node.value.get("op").and_then(Yaml::scalar).unwrap_or_default().into_owned();
    let before = problems.len();
    let from = node.value.get("from").map(|from| feeds(from, problems)).unwrap_or_default();
    let from_is_broken = problems.len() > before || node.value.get("from").is_some_and(has_broken);
    let base = known.files.base(node.key_span);
    let schema = known.schema(&op);
    if let Data::Map(fields) = &mut node.value.data
        && let Some(with) = fields.iter_mut().find(|field| field.key == "with")
    {
        fill_models(&mut with.value, schema.as_deref(), known.models, problems);
    }
    let with = node.value.get("with").map(|with| rebased(with, known.files, &base)).unwrap_or_default();
    let op_is_broken = op.is_empty();
    let spec = NodeSpec { name, op, from, with, base };
    Lowering { spec, written: node, op_is_broken, from_is_broken }
}

/// Finds what is wrong with a node's keys. One that is misspelt is taken for the one that is meant.
fn shape(node: &mut Entry, ops: &[OpInfo], problems: &mut Vec<Diagnostic>) {
    let op = node.value.get("op").and_then(Yaml::scalar).unwrap_or_default().into_owned();
    let Data::Map(fields) = &mut node.value.data else {
        if !matches!(node.value.data, Data::Null | Data::Broken) {
            let message = format!("expected a node, which is a map, found {}", node.value.describe());
            problems.push(Diagnostic::at(node.value.span, "type", message).hint("a node has `op`, `from` and `with`"));
            node.value.data = Data::Broken;
        } else if matches!(node.value.data, Data::Null) {
            problems.push(without_operator(node));
        }
        return;
    };
    let strays = take_strays(fields, &op, ops, problems);
    for i in 0..fields.len() {
        if !KEYS.contains(&fields[i].key.as_str()) {
            problems.push(unknown_key(&fields[i], &KEYS));
            let free = KEYS.into_iter().filter(|key| fields.iter().all(|field| field.key != *key));
            if let Some(meant) = retort_engine::nearest(&fields[i].key, free) {
                fields[i].key = meant.into();
            }
        }
    }
    for field in fields.iter_mut() {
        let expected = match (field.key.as_str(), &field.value.data) {
            ("op", Data::Bool(_) | Data::Number(..) | Data::List(_) | Data::Map(_)) => "the name of an operator",
            ("with", Data::Bool(_) | Data::Number(..) | Data::List(_) | Data::Text(_)) => {
                "a map of the operator's keys"
            }
            _ => continue,
        };
        let message = format!("expected {expected}, found {}", field.value.describe());
        problems.push(Diagnostic::at(field.value.span, "type", message));
        field.value.data = Data::Broken;
    }
    put_strays(fields, strays);
    if node.value.get("op").is_none_or(|op| matches!(op.data, Data::Null)) {
        problems.push(without_operator(node));
    }
}

/// Takes out the keys of the operator that stand beside `op` and not in `with`, and says so.
fn take_strays(fields: &mut Vec<Entry>, op: &str, ops: &[OpInfo], problems: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let is_unknown = |field: &Entry| !KEYS.contains(&field.key.as_str());
    if !fields.iter().any(is_unknown) {
        return Vec::new();
    }
    let Some(info) = ops.iter().find(|info| info.name == op) else { return Vec::new() };
    let schema = (info.schema)().to_value();
    let is_stray = |field: &mut Entry| is_unknown(field) && schema["properties"].get(&field.key).is_some();
    let strays: Vec<Entry> = fields.extract_if(.., is_stray).collect();
    for stray in &strays {
        let message = format!("`{}` is a key of `{op}` and stands under `with`", stray.key);
        problems
            .push(Diagnostic::at(stray.key_span, "unknown-key", message).hint(format!("`with: {{{}: …}}`", stray.key)));
    }
    strays
}

/// Puts such keys where they are meant, so that they are not missed and are checked too.
fn put_strays(fields: &mut Vec<Entry>, strays: Vec<Entry>) {
    let Some(first) = strays.first() else { return };
    let (key_span, span) = (first.key_span, first.value.span);
    if !fields.iter().any(|field| field.key == "with") {
        let value = Yaml::new(span, Data::Map(Vec::new()));
        fields.push(Entry { key: "with".into(), key_span, value });
    }
    let with = fields.iter_mut().find(|field| field.key == "with").expect("it was just added");
    if matches!(with.value.data, Data::Null) {
        with.value.data = Data::Map(Vec::new());
    }
    if let Data::Map(entries) = &mut with.value.data {
        entries.extend(strays);
    }
}

fn without_operator(node: &Entry) -> Diagnostic {
    let problem = Diagnostic::at(node.key_span, "missing-key", format!("the node `{}` has no `op`", node.key));
    problem.hint("`op:` names its operator; `retort ops` lists them")
}

/// What `from` says: a source, a list of sources, or a map of inputs to either.
fn feeds(from: &Yaml, problems: &mut Vec<Diagnostic>) -> Vec<Feed> {
    match &from.data {
        Data::Map(slots) => {
            let feed = |slot: &Entry| {
                let sources = sources(&slot.value, problems);
                (!sources.is_empty()).then(|| Feed { slot: Some(slot.key.clone()), sources })
            };
            slots.iter().filter_map(feed).collect()
        }
        Data::Null => Vec::new(),
        _ => {
            let sources = sources(from, problems);
            if sources.is_empty() { Vec::new() } else { vec![Feed { slot: None, sources }] }
        }
    }
}

fn sources(value: &Yaml, problems: &mut Vec<Diagnostic>) -> Vec<String> {
    let items = if let Data::List(items) = &value.data { items.as_slice() } else { std::slice::from_ref(value) };
    let mut sources = Vec::new();
    for item in items {
        match item.scalar() {
            Some(source) => sources.push(source.into_owned()),
            None if matches!(item.data, Data::Broken) => {}
            None => {
                let message = format!("expected the name of a node, found {}", item.describe());
                let problem = Diagnostic::at(item.span, "type", message);
                problems
                    .push(problem.hint("`from` is `NODE`, `NODE.OUTPUT`, a list of them, or a map of inputs to them"));
            }
        }
    }
    sources
}

/// Puts models in the place of their names.
fn fill_models(
    with: &mut Yaml,
    schema: Option<&Value>,
    models: &BTreeMap<String, Yaml>,
    problems: &mut Vec<Diagnostic>,
) {
    let Data::Map(fields) = &mut with.data else { return };
    let properties = schema.and_then(|schema| schema.get("properties"));
    for field in fields {
        let property = properties.and_then(|properties| properties.get(&field.key));
        // An operator that is not known tells nothing of its fields; one that is and has no such key will say so.
        let holds = match (schema, property) {
            (None, _) => field.key == "model",
            (Some(_), Some(property)) => config::is_model(&field.key, property),
            (Some(_), None) => false,
        };
        if holds {
            field.value = models::named(&field.value, field.key_span, models, problems);
        }
    }
}

/// A config as data; a `file:` of a model that another file names is made relative to the node's folder.
fn rebased(with: &Yaml, files: &Files, base: &Path) -> Value {
    let mut value = with.to_json();
    for field in with.entries() {
        let Some(weights) = field.value.get("weights") else { continue };
        let folder = files.base(weights.span);
        if folder == base {
            continue;
        }
        let rebase = |source: &mut Value| {
            let path = source.as_str().and_then(|text| text.strip_prefix("file:")).map(PathBuf::from);
            if let Some(path) = path.filter(|path| path.is_relative()) {
                *source = Value::String(format!("file:{}", relative(&folder.join(path), base).display()));
            }
        };
        match &mut value[&field.key]["weights"] {
            Value::Array(parts) => parts.iter_mut().for_each(rebase),
            source => rebase(source),
        }
    }
    value
}

/// A path as seen from a folder, both seen from the same folder.
fn relative(path: &Path, base: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<PathBuf> {
        let kept = path.components().filter(|part| *part != Component::CurDir);
        kept.map(|part| PathBuf::from(part.as_os_str())).collect()
    };
    let (path, base) = (parts(path), parts(base));
    let shared = path.iter().zip(&base).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(PathBuf::from(".."), base.len() - shared);
    up.chain(path[shared..].iter().cloned()).collect()
}

fn has_broken(value: &Yaml) -> bool {
    match &value.data {
        Data::Broken => true,
        Data::List(items) => items.iter().any(has_broken),
        Data::Map(entries) => entries.iter().any(|entry| has_broken(&entry.value)),
        _ => false,
    }
}

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
        let steps = steps(field);
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
                origin: value.origin.as_ref().or(found.origin),
                is_broken: matches!(value.data, Data::Broken),
                value: Some(value.span),
                is_written: i + 1 == steps.len(),
            };
        }
        found
    }
}

impl Lowering {
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
        Data::Map(entries) => entries.iter().find_map(|entry| column(&entry.value, name, files)),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_seen_from_another_folder() {
        let seen = |path: &str, base: &str| relative(Path::new(path), Path::new(base)).display().to_string();
        assert_eq!(seen("./shared/../shared/a.gguf", "."), "shared/../shared/a.gguf");
        assert_eq!(seen("models/a.gguf", "pipelines/b"), "../../models/a.gguf");
        assert_eq!(seen("/x/models/a.gguf", "/x/y"), "../models/a.gguf");
    }
}

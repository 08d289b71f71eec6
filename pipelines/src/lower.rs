//! From the sections of a document to nodes as the engine takes them, with the way back from a node's field to its place.

mod copies;
mod filled;
mod place;
mod shape;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rayon::prelude::*;
use retort_engine::{Feed, NodeSpec, OpInfo};
use serde_json::Value;

use crate::diagnostics::{Diagnostic, Files};
use crate::document::{Document, check_name};
use crate::foreach;
use crate::matrix::{self, Given, Matrix};
use crate::models;
use crate::params::{self, Scope};
use crate::yaml::{Data, Entry, Yaml};
use filled::{fill_models, rebased};

/// The keys of a node.
pub(crate) const KEYS: [&str; 5] = ["op", "from", "with", "matrix", "foreach"];

/// Nodes that are lowered side by side are more than this: for fewer it does not pay.
const MANY: usize = 64;

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
    /// What made it what it is, where it is a copy.
    pub(crate) given: Option<Given>,
    /// Of each feed's sources, which of those that are written it is: a source may mean several copies.
    written_sources: Vec<Vec<usize>>,
}

/// Lowers a document under the settings of the command line.
pub(crate) fn lower(
    mut document: Document,
    set: &[(String, String)],
    ops: &[OpInfo],
    files: &Files,
    problems: &mut Vec<Diagnostic>,
) -> Lowered {
    let keys = matrix_keys(&document);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let params = params::resolve(&document.params, set, files, &keys, problems);
    let scope = Scope { files, params: &params, axes: &[], matrix: &keys, env: None };
    let models = models::resolve(&document.models, scope, &document.env, problems);
    let templates = foreach::templates(std::mem::take(&mut document.nodes), problems);
    let axes = templates.axes(scope, problems);
    let axes = matrix::axes(axes, &document, &templates.nodes, scope, problems);
    let sources = |node: &Entry, axes: &[(&str, &Yaml)]| {
        let from = node.value.get("from").map(|from| Scope { axes, ..scope }.filled(from, &mut Vec::new()));
        let feeds = from.map(|from| feeds(&from, &mut Vec::new())).unwrap_or_default();
        feeds.into_iter().flat_map(|feed| feed.sources).collect()
    };
    let matrix = Matrix::new(axes, &templates.nodes, sources, problems);
    let known = Known { ops, models: &models, files, schemas: ops.iter().map(|_| OnceLock::new()).collect() };
    let copies = |(i, node): (usize, Entry)| {
        let (mut copies, mut problems) = (Vec::new(), Vec::new());
        if let Err(message) = check_name(&node.key) {
            problems.push(Diagnostic::at(node.key_span, "name", message));
        }
        let choices = matrix.choices(i);
        // The last copy takes what is written: most nodes are the only one.
        for (choice, mut written) in choices.iter().zip(std::iter::repeat_n(node, choices.len())) {
            let axes = matrix.values(choice);
            let before = problems.len();
            Scope { axes: &axes, ..scope }.fill(&mut written.value, &mut problems);
            let mut lowering = lowering(matrix.copy(i, choice), written, &known, &mut problems);
            lowering.given = matrix.given(i, choice);
            lowering.spread(|source| matrix.sources(source, choice));
            let name = &lowering.spec.name;
            problems[before..].iter_mut().for_each(|problem| problem.node = Some(name.clone()));
            copies.push(lowering);
        }
        (copies, problems)
    };
    let lowered: Vec<_> = templates.nodes.into_par_iter().enumerate().with_min_len(MANY).map(copies).collect();
    let mut nodes = Vec::with_capacity(lowered.len());
    for (copies, found) in lowered {
        nodes.extend(copies);
        problems.extend(found);
    }
    // A key that is misspelt where it is used is not reported as unused too.
    if !problems.iter().any(|problem| problem.code == "unknown-param") {
        matrix.unused(problems);
    }
    Lowered { nodes, params, models }
}

fn matrix_keys(document: &Document) -> Vec<String> {
    let inner = |node: &'_ Entry| node.value.get("nodes").map_or(Vec::new(), |nodes| nodes.entries().to_vec());
    let groups: Vec<Entry> = document.nodes.iter().flat_map(inner).collect();
    let nodes = document.nodes.iter().chain(&groups);
    let own = nodes.filter_map(|node| node.value.get("matrix")).flat_map(Yaml::entries);
    document.matrix.iter().chain(own).map(|entry| entry.key.clone()).collect()
}

impl Lowering {
    /// Puts in the place of each source those that it means.
    fn spread(&mut self, means: impl Fn(&str) -> Vec<String>) {
        for feed in &mut self.spec.from {
            let meant: Vec<_> = feed.sources.iter().map(|source| means(source)).collect();
            let written = meant.iter().enumerate().flat_map(|(i, meant)| vec![i; meant.len()]).collect();
            self.written_sources.push(written);
            feed.sources = meant.concat();
        }
    }
}

/// What nodes refer to.
struct Known<'a> {
    ops: &'a [OpInfo],
    models: &'a BTreeMap<String, Yaml>,
    files: &'a Files,
    /// The schemas of the operators' configs, made once an operator that is used.
    schemas: Vec<OnceLock<Value>>,
}

impl Known<'_> {
    fn schema(&self, op: &str) -> Option<&Value> {
        let at = self.ops.iter().position(|info| info.name == op)?;
        Some(self.schemas[at].get_or_init(|| (self.ops[at].schema)().to_value()))
    }
}

fn lowering(name: String, mut node: Entry, known: &Known<'_>, problems: &mut Vec<Diagnostic>) -> Lowering {
    shape::check(&mut node, known.ops, problems);
    let op = node.value.get("op").and_then(Yaml::scalar).unwrap_or_default().into_owned();
    let before = problems.len();
    let from = node.value.get("from").map(|from| feeds(from, problems)).unwrap_or_default();
    let from_is_broken = problems.len() > before || node.value.get("from").is_some_and(has_broken);
    let base = known.files.base(node.key_span);
    let schema = known.schema(&op);
    if let Data::Map(fields) = &mut node.value.data
        && let Some(with) = fields.iter_mut().find(|field| field.key == "with")
    {
        fill_models(&mut with.value, schema, known.models, problems);
    }
    let with = node.value.get("with").map(|with| rebased(with, known.files, &base)).unwrap_or_default();
    let op_is_broken = op.is_empty();
    let spec = NodeSpec { name, op, from, with, base };
    Lowering { spec, written: node, op_is_broken, from_is_broken, given: None, written_sources: Vec::new() }
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

fn has_broken(value: &Yaml) -> bool {
    match &value.data {
        Data::Broken => true,
        Data::List(items) => items.iter().any(has_broken),
        Data::Map(entries) => entries.iter().any(|entry| has_broken(&entry.value)),
        _ => false,
    }
}

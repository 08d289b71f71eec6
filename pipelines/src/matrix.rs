//! `matrix:`: which nodes are multiplied, and what their copies are called.
//!
//! A key stands at the top, or in a node, which then depends on it. A node depends on the keys that it refers to and on those
//! that the nodes feeding it depend on; for every combination of their values there is a copy: `adapter@rank=8,seed=1`.
//! The items of a `foreach` are an axis too, which reaches its own nodes only: `chunks@manuals`.

use std::collections::{HashMap, VecDeque};

use crate::diagnostics::{Diagnostic, Span};
use crate::document::{Document, check_name, map};
use crate::params::{Scope, references};
use crate::yaml::{Data, Entry, Yaml};

/// Copies of all nodes together, at most.
const MAX_COPIES: usize = 1000;

/// A key of a matrix with its values, or a `foreach` with its items.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) values: Vec<Yaml>,
    pub(crate) span: Span,
    /// The values in the names of copies.
    pub(crate) labels: Vec<String>,
    pub(crate) reach: Reach,
}

/// Which nodes an axis multiplies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reach {
    /// Of a matrix: those that use it, the node that it stands in, and all that depend on these.
    Matrix { node: Option<String> },
    /// Of a `foreach`: its own nodes only. Who reads one of them from outside reads all copies.
    Foreach { members: Vec<String> },
}

impl Axis {
    fn is_foreach(&self) -> bool {
        matches!(self.reach, Reach::Foreach { .. })
    }
}

/// What made a copy what it is.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// The place of its first value.
    pub(crate) span: Span,
    /// How many copies the node has.
    pub(crate) of: usize,
}

/// The nodes' copies.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    pub(crate) axes: Vec<Axis>,
    /// The axes that each node depends on, in order.
    on: Vec<Vec<usize>>,
    names: Vec<String>,
    places: HashMap<String, usize>,
}

/// One combination of values: of each axis that a node depends on, the index of the value.
pub(crate) type Choice = Vec<(usize, usize)>;

/// The keys of all matrices, references filled in, after the axes that there are already.
pub(crate) fn axes(
    mut axes: Vec<Axis>,
    document: &Document,
    nodes: &[Entry],
    scope: Scope<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<Axis> {
    let own = |node: &Entry, problems: &mut Vec<Diagnostic>| {
        let entries = node.value.get("matrix").map(|matrix| map(matrix, "`matrix`", problems).to_vec());
        entries.unwrap_or_default().into_iter().map(|entry| (Some(node.key.clone()), entry)).collect::<Vec<_>>()
    };
    let mut entries: Vec<_> = document.matrix.iter().map(|entry| (None, entry.clone())).collect();
    for node in nodes {
        entries.extend(own(node, problems));
    }
    for (node, entry) in entries {
        if let Err(message) = check_name(&entry.key) {
            problems.push(Diagnostic::at(entry.key_span, "name", message));
        }
        if let Some(item) = axes.iter().find(|axis| axis.name == entry.key && axis.is_foreach()) {
            let message = format!("`{}` is what a `foreach` calls its items: the key needs another name", entry.key);
            problems.push(Diagnostic::at(entry.key_span, "duplicate-key", message).also(item.span, "the `foreach`"));
        } else if axes.iter().any(|axis| axis.name == entry.key) {
            let message = format!("`{}` is the key of another matrix too", entry.key);
            problems.push(Diagnostic::at(entry.key_span, "duplicate-key", message));
        } else if let Some(param) = document.params.iter().find(|param| param.key == entry.key) {
            let message = format!("`{}` is a param too: one of them needs another name", entry.key);
            let problem = Diagnostic::at(entry.key_span, "duplicate-key", message);
            problems.push(problem.also(param.key_span, "the param"));
        } else if let Some(values) = values(&entry, scope, problems) {
            let labels = values.iter().map(label).collect();
            axes.push(Axis { name: entry.key, values, span: entry.key_span, labels, reach: Reach::Matrix { node } });
        }
    }
    axes
}

fn values(entry: &Entry, scope: Scope<'_>, problems: &mut Vec<Diagnostic>) -> Option<Vec<Yaml>> {
    let filled = scope.filled(&entry.value, problems);
    let Data::List(values) = filled.data else {
        if !matches!(filled.data, Data::Broken) {
            let message = format!("expected a list of the values of `{}`, found {}", entry.key, filled.describe());
            problems.push(Diagnostic::at(entry.value.span, "type", message));
        }
        return None;
    };
    let mut kept: Vec<Yaml> = Vec::new();
    for value in values {
        if value.scalar().is_none() {
            let message = format!("expected text or a number, found {}", value.describe());
            problems.push(Diagnostic::at(value.span, "type", message));
        } else if kept.iter().any(|other| label(other) == label(&value)) {
            let message = format!("two values of `{}` would be called `{}`", entry.key, label(&value));
            problems.push(Diagnostic::at(value.span, "duplicate-key", message));
        } else {
            kept.push(value);
        }
    }
    if kept.is_empty() && matches!(&entry.value.data, Data::List(items) if items.is_empty()) {
        let message = format!("the matrix key `{}` has no values", entry.key);
        let problem = Diagnostic::at(entry.value.span, "type", message);
        problems.push(problem.hint("remove it, or say which: `[1, 2]`"));
    }
    (!kept.is_empty()).then_some(kept)
}

/// A value in the name of a copy, which is part of file names.
pub(crate) fn label(value: &Yaml) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+') { c } else { '-' };
    value.scalar().unwrap_or_default().chars().map(plain).collect()
}

impl Matrix {
    /// Finds which nodes depend on which axes. `sources` gives the names in a node's `from`, filled in under a choice.
    pub(crate) fn new(
        axes: Vec<Axis>,
        nodes: &[Entry],
        sources: impl Fn(&Entry, &[(&str, &Yaml)]) -> Vec<String>,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let names: Vec<String> = nodes.iter().map(|node| node.key.clone()).collect();
        let places = names.iter().enumerate().map(|(place, name)| (name.clone(), place)).collect();
        if axes.is_empty() {
            return Matrix { axes, on: vec![Vec::new(); names.len()], names, places };
        }
        let direct = |node: &Entry| -> Vec<usize> {
            let refers = references(&node.value);
            let on = |axis: &Axis| match &axis.reach {
                Reach::Matrix { node: own } => refers.contains(&axis.name) || own.as_ref() == Some(&node.key),
                Reach::Foreach { members } => members.contains(&node.key),
            };
            (0..axes.len()).filter(|i| on(&axes[*i])).collect()
        };
        let on: Vec<Vec<usize>> = nodes.iter().map(direct).collect();
        let mut matrix = Matrix { axes, on, names, places };
        let feeds: Vec<Vec<usize>> = nodes
            .iter()
            .enumerate()
            .map(|(i, node)| {
                let choices = matrix.choices(i);
                let sources = choices.iter().take(MAX_COPIES).flat_map(|choice| sources(node, &matrix.values(choice)));
                sources.filter_map(|source| matrix.node(&source).map(|(node, _)| node)).collect()
            })
            .collect();
        matrix.spread(&feeds);
        if (0..nodes.len()).map(|i| matrix.count(i)).fold(0, usize::saturating_add) > MAX_COPIES + nodes.len() {
            let place = matrix.axes[0].values[0].span;
            let maker = if matrix.axes[0].is_foreach() { "`foreach`" } else { "the matrix" };
            let message = format!("{maker} makes more than {MAX_COPIES} copies of nodes");
            problems.push(Diagnostic::at(place, "too-large", message));
            // One copy of each node is checked all the same.
            matrix.axes.iter_mut().for_each(|axis| axis.values.truncate(1));
        }
        matrix
    }

    /// Finds the keys that no node uses: who wrote one expected copies.
    pub(crate) fn unused(&self, problems: &mut Vec<Diagnostic>) {
        for (i, axis) in self.axes.iter().enumerate() {
            if !axis.is_foreach() && !self.on.iter().any(|on| on.contains(&i)) {
                let message = format!("no node uses the matrix key `{}`", axis.name);
                let problem = Diagnostic::at(axis.span, "unused", message);
                problems.push(problem.hint(format!("a node that says `${{matrix.{}}}` is multiplied", axis.name)));
            }
        }
    }

    /// Hands the axes on along the edges.
    fn spread(&mut self, feeds: &[Vec<usize>]) {
        let mut fed_by = vec![Vec::new(); feeds.len()];
        for (node, feeds) in feeds.iter().enumerate() {
            feeds.iter().for_each(|feed| fed_by[*feed].push(node));
        }
        let mut news: VecDeque<usize> = (0..feeds.len()).filter(|node| !self.on[*node].is_empty()).collect();
        while let Some(feed) = news.pop_front() {
            for node in &fed_by[feed] {
                let mut on = self.on[*node].clone();
                on.extend(self.on[feed].iter().filter(|axis| !self.axes[**axis].is_foreach()));
                on.sort_unstable();
                on.dedup();
                if on.len() > self.on[*node].len() {
                    self.on[*node] = on;
                    news.push_back(*node);
                }
            }
        }
    }

    /// The node that a source names, and the rest of it: `.port` or nothing.
    fn node<'a>(&self, source: &'a str) -> Option<(usize, &'a str)> {
        let position = |name: &str| self.places.get(name).copied();
        let whole = position(source).map(|node| (node, ""));
        whole.or_else(|| source.rfind('.').and_then(|at| position(&source[..at]).map(|node| (node, &source[at..]))))
    }

    fn count(&self, node: usize) -> usize {
        self.on[node].iter().map(|axis| self.axes[*axis].values.len()).fold(1, usize::saturating_mul)
    }

    /// The combinations of values that a node has a copy for; one that is empty where it depends on no axis.
    pub(crate) fn choices(&self, node: usize) -> Vec<Choice> {
        let mut choices: Vec<Choice> = vec![Vec::new()];
        for axis in &self.on[node] {
            let values = 0..self.axes[*axis].values.len();
            let longer = |choice: &Choice| -> Vec<Choice> {
                values.clone().map(|value| choice.iter().copied().chain([(*axis, value)]).collect()).collect()
            };
            choices = choices.iter().take(MAX_COPIES + 1).flat_map(longer).collect();
        }
        choices
    }

    /// The values of a choice by the names of their axes.
    pub(crate) fn values(&self, choice: &[(usize, usize)]) -> Vec<(&str, &Yaml)> {
        choice.iter().map(|(axis, value)| (self.axes[*axis].name.as_str(), &self.axes[*axis].values[*value])).collect()
    }

    /// What made a copy of a node what it is; `None` of a node that is not multiplied.
    pub(crate) fn given(&self, node: usize, choice: &[(usize, usize)]) -> Option<Given> {
        let (axis, value) = choice.first()?;
        Some(Given { span: self.axes[*axis].values[*value].span, of: self.count(node) })
    }

    /// The name of a node's copy.
    pub(crate) fn copy(&self, node: usize, choice: &[(usize, usize)]) -> String {
        let of = |axis: &usize| choice.iter().find(|(other, _)| other == axis);
        let part = |(axis, value): &(usize, usize)| match &self.axes[*axis] {
            axis if axis.is_foreach() => axis.labels[*value].clone(),
            axis => format!("{}={}", axis.name, axis.labels[*value]),
        };
        let parts: Vec<_> = self.on[node].iter().filter_map(of).map(part).collect();
        if parts.is_empty() {
            return self.names[node].clone();
        }
        format!("{}@{}", self.names[node], parts.join(","))
    }

    /// The copies that a source means to a copy of another node: one, or those of all items of a `foreach` that it is not in.
    pub(crate) fn sources(&self, source: &str, choice: &[(usize, usize)]) -> Vec<String> {
        let Some((node, port)) = self.node(source) else { return vec![source.to_string()] };
        let is_open = |axis: &&usize| self.axes[**axis].is_foreach() && choice.iter().all(|(other, _)| other != *axis);
        match self.on[node].iter().find(is_open) {
            Some(axis) => {
                let of = |value| self.copy(node, &[choice, &[(*axis, value)]].concat()) + port;
                (0..self.axes[*axis].values.len()).map(of).collect()
            }
            None => vec![self.copy(node, choice) + port],
        }
    }
}

//! `foreach:`: a node, or a group of nodes, once for each item of a list.
//!
//! The copies are those of a matrix whose key is the item, with one difference: who reads a copy from outside is not multiplied
//! but reads all of them, one after the other. So items are an [`Axis`] among those of `matrix`, which makes the copies.

use std::collections::HashMap;

use crate::diagnostics::{Diagnostic, Span};
use crate::document::{map, unknown_key};
use crate::matrix::{Axis, Reach, label};
use crate::params::{ITEM, Scope, references};
use crate::yaml::{Data, Entry, Yaml};

/// The keys of a group of nodes.
pub(crate) const GROUP_KEYS: [&str; 2] = ["foreach", "nodes"];
/// The keys that a node has and a group has not.
const NODE_KEYS: [&str; 4] = ["op", "from", "with", "matrix"];

/// The nodes of a pipeline, those of groups among the others, and the lists that they are repeated for.
pub(crate) struct Templates {
    pub(crate) nodes: Vec<Entry>,
    lists: Vec<List>,
}

/// A `foreach`.
struct List {
    /// The node or group that it stands in.
    name: String,
    entry: Entry,
    /// The nodes that are repeated.
    members: Vec<String>,
}

/// Takes groups apart, and the lists out of the nodes that have one.
pub(crate) fn templates(nodes: Vec<Entry>, problems: &mut Vec<Diagnostic>) -> Templates {
    let is_plain = |node: &Entry| GROUP_KEYS.iter().all(|key| node.value.entry(key).is_none());
    if nodes.iter().all(is_plain) {
        return Templates { nodes, lists: Vec::new() };
    }
    let (mut kept, mut lists) = (Vec::with_capacity(nodes.len()), Vec::new());
    for node in &nodes {
        let before = kept.len();
        if node.value.entry("nodes").is_some() {
            kept.extend(group(node, problems));
        } else {
            kept.push(without_list(node));
        }
        if let Some(entry) = node.value.entry("foreach") {
            let members = kept[before..].iter().map(|member| member.key.clone()).collect();
            lists.push(List { name: node.key.clone(), entry: entry.clone(), members });
        }
    }
    Templates { nodes: once_each(kept, problems), lists }
}

fn without_list(node: &Entry) -> Entry {
    let mut node = node.clone();
    if let Data::Map(fields) = &mut node.value.data {
        fields.retain(|field| field.key != "foreach");
    }
    node
}

/// The nodes of a group.
fn group(group: &Entry, problems: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let name = &group.key;
    for field in group.value.entries().iter().filter(|field| !GROUP_KEYS.contains(&field.key.as_str())) {
        problems.push(if NODE_KEYS.contains(&field.key.as_str()) {
            let message = format!("`{name}` is a group of nodes, and `{}` a key of a node", field.key);
            Diagnostic::at(field.key_span, "unknown-key", message).hint("it stands in the nodes of the group")
        } else {
            unknown_key(field, &GROUP_KEYS)
        });
    }
    if group.value.entry("foreach").is_none() {
        let problem = Diagnostic::at(group.key_span, "missing-key", format!("the group `{name}` has no `foreach`"));
        problems.push(problem.hint("`foreach: [a, b]` lists what its nodes are repeated for"));
    }
    let nodes = group.value.get("nodes").map_or(&[][..], |nodes| map(nodes, "`nodes`", problems));
    if nodes.is_empty() {
        problems.push(Diagnostic::at(group.key_span, "no-nodes", format!("the group `{name}` has no nodes")));
    }
    for node in nodes {
        for inner in node.value.entries().iter().filter(|field| GROUP_KEYS.contains(&field.key.as_str())) {
            let message = format!("`{}` within a `foreach`: groups do not stand in each other", inner.key);
            let problem = Diagnostic::at(inner.key_span, "unknown-key", message);
            problems.push(problem.hint("a `matrix` in the node multiplies it further"));
        }
    }
    let is_node = |node: &&Entry| node.value.entry("nodes").is_none();
    nodes.iter().filter(is_node).map(without_list).collect()
}

/// The nodes without those whose name another has too.
fn once_each(nodes: Vec<Entry>, problems: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let mut places: HashMap<String, Span> = HashMap::new();
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes {
        match places.get(&node.key) {
            Some(first) => {
                let problem = format!("two nodes are called `{}`", node.key);
                let problem = Diagnostic::at(node.key_span, "duplicate-key", problem).also(*first, "the first");
                problems.push(problem.hint("the nodes of all groups are named side by side"));
            }
            None => {
                places.insert(node.key.clone(), node.key_span);
                kept.push(node);
            }
        }
    }
    kept
}

impl Templates {
    /// An axis for each list, references filled in.
    pub(crate) fn axes(&self, scope: Scope<'_>, problems: &mut Vec<Diagnostic>) -> Vec<Axis> {
        if let (Some(list), Some(param)) = (self.lists.first(), scope.params.get(ITEM)) {
            let message = format!("`{ITEM}` is what a `foreach` calls its items: the param needs another name");
            problems
                .push(Diagnostic::at(param.span, "duplicate-key", message).also(list.entry.key_span, "the `foreach`"));
        }
        self.lists.iter().map(|list| self.axis(list, scope, problems)).collect()
    }

    fn axis(&self, list: &List, scope: Scope<'_>, problems: &mut Vec<Diagnostic>) -> Axis {
        let filled = scope.filled(&list.entry.value, problems);
        let mut values = items(list, filled, problems);
        let uses = |name: &String| name == ITEM || name.strip_prefix(ITEM).is_some_and(|rest| rest.starts_with('.'));
        let is_used = |node: &Entry| list.members.contains(&node.key) && references(&node.value).iter().any(uses);
        if !values.is_empty() && !list.members.is_empty() && !self.nodes.iter().any(is_used) {
            let message = format!("nothing in `{}` says `${{item}}`: its copies would be equal", list.name);
            let problem = Diagnostic::at(list.entry.key_span, "unused", message);
            problems
                .push(problem.hint("`${item}` stands for the item, `${item.words}` for a value of one that is a map"));
        }
        if values.is_empty() {
            // The nodes are checked all the same.
            values.push(Yaml::new(list.entry.value.span, Data::Broken));
        }
        let labels = values.iter().map(|item| name(item).map_or_else(|| ITEM.into(), label)).collect();
        let reach = Reach::Foreach { members: list.members.clone() };
        Axis { name: ITEM.into(), values, span: list.entry.key_span, labels, reach }
    }
}

/// The items that can be named.
fn items(list: &List, filled: Yaml, problems: &mut Vec<Diagnostic>) -> Vec<Yaml> {
    let Data::List(items) = filled.data else {
        if !matches!(filled.data, Data::Broken) {
            let message = format!("expected a list of items, found {}", filled.describe());
            let problem = Diagnostic::at(list.entry.value.span, "type", message);
            problems.push(filled.origin.iter().fold(problem, |problem, origin| origin.explain(problem)));
        }
        return Vec::new();
    };
    if items.is_empty() {
        let problem = Diagnostic::at(filled.span, "type", format!("the `foreach` of `{}` has no items", list.name));
        problems.push(problem.hint("say which: `foreach: [a, b]`"));
    }
    let mut kept: Vec<Yaml> = Vec::new();
    for item in items {
        let Some(name) = name(&item) else {
            if !matches!(item.data, Data::Broken) {
                problems.push(unnamed(&item));
            }
            continue;
        };
        if let Some(first) = kept.iter().find(|other| self::name(other).map(label) == Some(label(name))) {
            let message = format!("two items would be called `{}`", label(name));
            problems.push(Diagnostic::at(item.span, "duplicate-key", message).also(first.span, "the first"));
        } else {
            kept.push(item);
        }
    }
    kept
}

/// What an item is called by: itself, or the `name` of one that is a map.
fn name(item: &Yaml) -> Option<&Yaml> {
    let value = if matches!(item.data, Data::Map(_)) { item.get("name")? } else { item };
    value.scalar().is_some().then_some(value)
}

fn unnamed(item: &Yaml) -> Diagnostic {
    match &item.data {
        Data::Map(_) => {
            let problem = Diagnostic::at(item.span, "missing-key", "an item that is a map needs a `name`");
            problem.hint("its copies are called by it: `{name: manuals, words: 250}`")
        }
        _ => {
            let message = format!("expected text, a number or a map, found {}", item.describe());
            Diagnostic::at(item.span, "type", message)
        }
    }
}

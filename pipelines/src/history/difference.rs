//! What differs between two sides, node by node: facts, tables, rows, and what was measured.

use std::collections::{BTreeMap, BTreeSet};

use retort_cache::{Change, ContentId, Store, StoreError, recipe};
use retort_engine::event::OutputSummary;
use serde::Serialize;

use super::metrics::measures;
use super::rows::{RowsDiff, compare};
use super::sides::{Side, SideNode};

/// What differs between two sides.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Difference {
    /// Nodes that differ.
    pub nodes: Vec<NodeDiff>,
    /// Nodes that only the old side has.
    pub only_old: Vec<String>,
    /// Nodes that only the new side has.
    pub only_new: Vec<String>,
    /// Nodes that are the same.
    pub same: Vec<String>,
}

/// What differs in a node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeDiff {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: Option<String>,
    /// How it stands on either side.
    pub state: (String, String),
    /// Facts that differ.
    pub facts: Vec<FactDiff>,
    /// Whether one question had two answers: the operator is not deterministic, or the store was changed by hand.
    pub same_question_other_answer: bool,
    /// Tables that differ.
    pub tables: Vec<TableDiff>,
    /// What was measured, where some of it differs.
    pub metrics: Vec<MetricDiff>,
}

/// A fact that differs.
#[derive(Clone, Debug, Serialize)]
pub struct FactDiff {
    /// The fact's name.
    pub fact: String,
    /// Its old value.
    pub old: Option<String>,
    /// Its new value.
    pub new: Option<String>,
    /// For the content of an input: the output that it is, on either side where that is known.
    pub from: Option<(Option<String>, Option<String>)>,
}

/// A table that differs.
#[derive(Clone, Debug, Serialize)]
pub struct TableDiff {
    /// The port.
    pub port: String,
    /// The old table.
    pub old: Option<OutputSummary>,
    /// The new table.
    pub new: Option<OutputSummary>,
    /// Its rows, where both tables are still in the store.
    pub rows: Option<RowsDiff>,
}

/// Something that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricDiff {
    /// Its name.
    pub name: String,
    /// Its old value.
    pub old: Option<f64>,
    /// Its new value.
    pub new: Option<f64>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_none(&self) -> bool {
        self.nodes.is_empty() && self.only_old.is_empty() && self.only_new.is_empty()
    }
}

/// Compares two sides. Of the rows that differ, `show` of each kind are given.
pub fn between(
    old: &Side,
    new: &Side,
    wanted: &dyn Fn(&str) -> bool,
    store: &dyn Store,
    show: usize,
) -> Result<Difference, StoreError> {
    let mut difference = Difference::default();
    let pair = Pair { sources: (old.sources(), new.sources()), store, show };
    let known: BTreeMap<&str, &SideNode> = new.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    for node in old.nodes.iter().filter(|node| wanted(&node.name)) {
        let Some(other) = known.get(node.name.as_str()) else {
            difference.only_old.push(node.name.clone());
            continue;
        };
        let diff = pair.diff(node, other)?;
        let differs = !diff.facts.is_empty() || !diff.tables.is_empty() || diff.state.0 != diff.state.1;
        if differs { difference.nodes.push(diff) } else { difference.same.push(node.name.clone()) }
    }
    let known: BTreeSet<&str> = old.nodes.iter().map(|node| node.name.as_str()).collect();
    let only_new = new.nodes.iter().map(|node| node.name.clone()).filter(|name| wanted(name));
    difference.only_new = only_new.filter(|name| !known.contains(name.as_str())).collect();
    Ok(difference)
}

struct Pair<'a> {
    /// The outputs of either side by their contents.
    sources: (BTreeMap<String, String>, BTreeMap<String, String>),
    store: &'a dyn Store,
    show: usize,
}

impl Pair<'_> {
    fn diff(&self, old: &SideNode, new: &SideNode) -> Result<NodeDiff, StoreError> {
        let facts = self.facts(old, new);
        let answered = |node: &SideNode| !node.outputs.is_empty();
        let both = answered(old) && answered(new);
        let mut diff = NodeDiff {
            node: new.name.clone(),
            op: new.op.clone().or_else(|| old.op.clone()),
            state: (state(old), state(new)),
            ..NodeDiff::default()
        };
        if both {
            diff.tables = self.tables(old, new)?;
            diff.metrics = self.metrics(old, new)?;
            let known = old.input_facts.is_some() && new.input_facts.is_some();
            diff.same_question_other_answer = known && facts.is_empty() && !diff.tables.is_empty();
        }
        diff.facts = facts;
        Ok(diff)
    }

    fn facts(&self, old: &SideNode, new: &SideNode) -> Vec<FactDiff> {
        let mut changes = Vec::new();
        if let (Some(old), Some(new)) = (&old.op_facts, &new.op_facts) {
            changes.extend(recipe::changes(old, new));
        }
        if let (Some(old), Some(new)) = (&old.input_facts, &new.input_facts) {
            changes.extend(recipe::changes(old, new));
        }
        let fact = |Change { fact, old, new }| {
            let source = |side: &BTreeMap<String, String>, value: &Option<String>| side.get(value.as_ref()?).cloned();
            let (of_old, of_new) = &self.sources;
            let from = fact.starts_with("input.").then(|| (source(of_old, &old), source(of_new, &new)));
            FactDiff { fact, old, new, from }
        };
        changes.into_iter().map(fact).collect()
    }

    fn tables(&self, old: &SideNode, new: &SideNode) -> Result<Vec<TableDiff>, StoreError> {
        let find = |node: &SideNode, port: &str| node.outputs.iter().find(|output| output.port == port).cloned();
        let ports = new.outputs.iter().map(|output| output.port.clone());
        let gone = old.outputs.iter().map(|output| &output.port).filter(|port| find(new, port).is_none()).cloned();
        let mut tables = Vec::new();
        for port in ports.chain(gone) {
            let (old, new) = (find(old, &port), find(new, &port));
            if old.as_ref().map(|table| table.content) == new.as_ref().map(|table| table.content) {
                continue;
            }
            let rows = match (&old, &new) {
                (Some(old), Some(new)) => self.rows(old.content, new.content)?,
                _ => None,
            };
            tables.push(TableDiff { port, old, new, rows });
        }
        Ok(tables)
    }

    fn rows(&self, old: ContentId, new: ContentId) -> Result<Option<RowsDiff>, StoreError> {
        let (Some(old), Some(new)) = (self.store.open(old)?, self.store.open(new)?) else { return Ok(None) };
        compare(&old, &new, self.show).map(Some)
    }

    /// What both measured, from their tables, or from what was told while they ran.
    fn metrics(&self, old: &SideNode, new: &SideNode) -> Result<Vec<MetricDiff>, StoreError> {
        let (old, new) = (self.measured(old)?, self.measured(new)?);
        let value =
            |side: &[(String, f64)], name: &str| side.iter().find(|(of, _)| of == name).map(|(_, value)| *value);
        let gone = old.iter().filter(|(name, _)| value(&new, name).is_none());
        let metric = |(name, _): &(String, f64)| MetricDiff {
            name: name.clone(),
            old: value(&old, name),
            new: value(&new, name),
        };
        let metrics: Vec<_> = new.iter().chain(gone).map(metric).collect();
        let differs = |metric: &MetricDiff| metric.old.map(f64::to_bits) != metric.new.map(f64::to_bits);
        Ok(if metrics.iter().any(differs) { metrics } else { Vec::new() })
    }

    fn measured(&self, node: &SideNode) -> Result<Vec<(String, f64)>, StoreError> {
        let mut found = Vec::new();
        for output in node.outputs.iter().filter(|output| ["metrics", "summary"].contains(&output.port.as_str())) {
            if let Some(table) = self.store.open(output.content)? {
                found.extend(measures(&output.port, &table.read()?));
            }
        }
        if found.is_empty() {
            let told = node.series.iter().filter(|series| series.name.contains("loss"));
            let both = |series: &super::Series| {
                [(format!("{}, last", series.name), series.last), (format!("{}, best", series.name), series.best)]
            };
            found.extend(told.flat_map(both));
        }
        Ok(found)
    }
}

/// An answer is an answer, whether it was known or made.
fn state(node: &SideNode) -> String {
    match node.state.as_str() {
        "fresh" | "ran" => "answered".into(),
        other => other.into(),
    }
}

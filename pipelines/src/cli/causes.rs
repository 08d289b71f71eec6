//! What the reasons of a plan come down to: the node and the rows behind a changed input, and what a node waits for.

use std::collections::{BTreeMap, BTreeSet};

use retort_cache::{Change, ContentId, Digest, Table};
use retort_engine::{Graph, NodeId, NodePlan, Reason, Verdict, World};

use super::diff::{counts, named_row};
use super::stop::Result;
use crate::history::{RowsDiff, compare};
use crate::observe::words;

/// Tables of more rows are not compared row by row: a plan must be quick.
const LARGEST: u64 = 200_000;
/// Rows that are named, of each kind.
const NAMED: usize = 2;
/// The longest that a reason of another node is said.
const LONGEST: usize = 60;

/// A plan, to be asked for causes.
pub(super) struct Causes<'a> {
    pub(super) graph: &'a Graph,
    world: World<'a>,
    fresh: BTreeSet<NodeId>,
    /// For a node that is not fresh: the node with which it began, and its reason.
    roots: BTreeMap<NodeId, (NodeId, String)>,
}

/// What stands behind the changed content of an input.
pub(super) struct InputCause {
    /// The output that feeds it.
    pub(super) from: String,
    /// How its rows differ from those before, where both tables are there and not too large.
    pub(super) rows: Option<RowsDiff>,
}

impl<'a> Causes<'a> {
    /// The causes of a plan's verdicts.
    pub(super) fn of(graph: &'a Graph, plans: &[NodePlan], world: World<'a>) -> Self {
        let mut causes = Causes { graph, world, fresh: BTreeSet::new(), roots: BTreeMap::new() };
        for plan in plans {
            match &plan.verdict {
                Verdict::Fresh => _ = causes.fresh.insert(plan.id),
                Verdict::Stale(reason) => _ = causes.roots.insert(plan.id, (plan.id, words::reason(reason))),
                Verdict::Waiting(changes) if !changes.is_empty() => {
                    let reason = words::reason(&Reason::Changed { changes: changes.clone() });
                    causes.roots.insert(plan.id, (plan.id, reason));
                }
                Verdict::Waiting(_) => {
                    let feeds = graph.feeds(plan.id);
                    let root = feeds.iter().find_map(|feed| causes.roots.get(feed)).cloned();
                    causes.roots.extend(root.map(|root| (plan.id, root)));
                }
            }
        }
        causes
    }

    /// The nodes that must run before it can be told whether a node must.
    pub(super) fn waits_for(&self, id: NodeId) -> Vec<NodeId> {
        self.graph.feeds(id).into_iter().filter(|feed| !self.fresh.contains(feed)).collect()
    }

    /// ``if `chunks` changes (`documents`: file docs/a.md changed)``, or where the node itself changed, ``after `chunks` (…)``.
    pub(super) fn waiting(&self, id: NodeId, itself: bool) -> String {
        let (before, changes) = if itself { ("after", "") } else { ("if", " changes") };
        let feed = |feed: NodeId| {
            let name = &self.graph.node(feed).name;
            let Some((root, reason)) = self.roots.get(&feed) else { return format!("`{name}`{changes}") };
            let reason = words::cut_middle(reason, LONGEST);
            if *root == feed {
                return format!("`{name}`{changes} ({reason})");
            }
            format!("`{name}`{changes} (`{}`: {reason})", self.graph.node(*root).name)
        };
        let feeds: Vec<_> = self.waits_for(id).into_iter().map(feed).collect();
        format!("{before} {}", feeds.join(if itself { ", " } else { " or " }))
    }

    /// What stands behind the changed content of an input; `None` where something else changed.
    pub(super) fn input(&self, id: NodeId, change: &Change) -> Result<Option<InputCause>> {
        let Some(name) = change.fact.strip_prefix("input.") else { return Ok(None) };
        let (slot, at) = match name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
            Some((slot, at)) => (slot, at.parse().unwrap_or(usize::MAX)),
            None => (name, 0),
        };
        let node = self.graph.node(id);
        let fed = node.inputs.iter().find(|(name, _)| name == slot).and_then(|(_, sources)| sources.get(at));
        let Some((feed, port)) = fed else { return Ok(None) };
        let (feed, port) = (self.graph.node(*feed), *port);
        let from = match feed.ports[port].0.as_str() {
            "out" => feed.name.clone(),
            port => format!("{}.{port}", feed.name),
        };
        let rows = match (self.table(change.old.as_ref())?, self.table(change.new.as_ref())?) {
            (Some(old), Some(new)) if old.rows.max(new.rows) <= LARGEST => Some(compare(&old, &new, NAMED)?),
            _ => None,
        };
        Ok(Some(InputCause { from, rows }))
    }

    /// The part of a node's input that is not as before, where only its input changed and the tables are there to be compared.
    pub(super) fn changed(&self, plan: &NodePlan) -> Option<f64> {
        let Verdict::Stale(Reason::Changed { changes }) = &plan.verdict else { return None };
        let (mut new, mut all) = (0, 0);
        for change in changes {
            let rows = self.input(plan.id, change).ok()??.rows?;
            new += rows.added + rows.changed;
            all += rows.added + rows.changed + rows.same;
        }
        (all > 0).then(|| new as f64 / all as f64)
    }

    fn table(&self, content: Option<&String>) -> Result<Option<Table>> {
        let Some(digest) = content.and_then(|content| Digest::from_hex(content)) else { return Ok(None) };
        Ok(self.world.store.open(ContentId(digest))?)
    }
}

impl InputCause {
    /// `input.from (chunks) 8c2f… → 51ab…: 11 same, 1 added, by chunk_id`, and the first of the rows.
    pub(super) fn told(&self, change: &Change) -> Vec<String> {
        let fact = format!("{} ({})", change.fact, self.from);
        let head = words::change(&Change { fact, ..change.clone() });
        let Some(rows) = &self.rows else { return vec![head] };
        let mut lines = vec![format!("{head}: {}", counts(rows))];
        for row in rows.shown.iter().filter(|row| !row.name.is_empty()) {
            let mark = match (row.old, row.new) {
                (Some(_), Some(_)) => '~',
                (None, _) => '+',
                (_, None) => '-',
            };
            lines.push(format!("{mark} {}", named_row(row)));
        }
        lines
    }
}

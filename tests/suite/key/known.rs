//! What a store knows, kept by the fuzzer itself: from it and the answer key follows what a run must do, and why.

use std::collections::{BTreeMap, BTreeSet};

use retort_cache::{Change, ContentId, Fact, Recipe, RecipeId};
use retort_engine::Reason;

use super::answer::Keyed;

/// What is in the store.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) answers: BTreeMap<RecipeId, Vec<ContentId>>,
    pub(crate) tables: BTreeSet<ContentId>,
    /// What tells the remembered rows, by operator.
    pub(crate) rows: BTreeMap<RecipeId, BTreeSet<String>>,
    /// The newest question of each node that was answered.
    pub(crate) last: BTreeMap<String, Recipe>,
    /// What stands in the listings that were ever seen.
    listings: BTreeMap<ContentId, Vec<(String, String)>>,
}

/// What a node must do.
pub(crate) struct Duty {
    pub(crate) runs: bool,
    pub(crate) why: Why,
    /// Of a row operator that runs: what tells the rows it must be asked, each once.
    pub(crate) asked: Option<BTreeSet<String>>,
    /// Rows of the input that are remembered.
    pub(crate) recalled: u64,
}

/// A reason with its changes in no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    First,
    Forced,
    Lost,
    Changed(BTreeSet<(String, Option<String>, Option<String>)>),
}

impl Why {
    pub(crate) fn of(reason: &Reason) -> Self {
        match reason {
            Reason::FirstRun => Why::First,
            Reason::Forced | Reason::Verify => Why::Forced,
            Reason::Lost => Why::Lost,
            Reason::Changed { changes } => Why::changes(changes),
        }
    }

    pub(crate) fn changes(changes: &[Change]) -> Self {
        Why::Changed(
            changes.iter().map(|change| (change.fact.clone(), change.old.clone(), change.new.clone())).collect(),
        )
    }
}

impl Known {
    /// Whether the question is answered and all its tables are there.
    pub(crate) fn knows(&self, keyed: &Keyed) -> bool {
        let answer = self.answers.get(&keyed.recipe.id());
        answer.is_some_and(|tables| tables.iter().all(|table| self.tables.contains(table)))
    }

    pub(crate) fn duty(&self, node: &str, keyed: &Keyed, forced: bool) -> Duty {
        let none = BTreeSet::new();
        let remembered = self.rows.get(&keyed.recipe.op_id()).filter(|_| keyed.remembers).unwrap_or(&none);
        let asked = keyed.rows.as_ref().map(|rows| {
            rows.iter().filter(|row| forced || !remembered.contains(*row)).cloned().collect::<BTreeSet<_>>()
        });
        let recalled = keyed.rows.iter().flatten().filter(|row| remembered.contains(*row)).count() as u64;
        let why = if forced { Why::Forced } else { self.why(node, keyed) };
        Duty { runs: forced || !self.knows(keyed), why, asked, recalled }
    }

    /// The newest answer of a node, if its record is there.
    pub(crate) fn last(&self, node: &str) -> Option<&Recipe> {
        self.last.get(node).filter(|last| self.answers.contains_key(&last.id()))
    }

    fn why(&self, node: &str, keyed: &Keyed) -> Why {
        let Some(last) = self.last(node) else { return Why::First };
        let mut changes = differences(&last.op, &keyed.recipe.op);
        changes.extend(differences(&last.inputs, &keyed.recipe.inputs));
        if let (Some(new), Some(old)) = (&keyed.listing, self.old_listing(last)) {
            let facts = |files: &[(String, String)]| -> Vec<Fact> {
                files.iter().map(|(path, digest)| Fact::new(format!("file {path}"), digest)).collect()
            };
            let files = differences(&facts(old), &facts(new));
            if !files.is_empty() {
                changes.retain(|(fact, ..)| fact != "input.files");
                changes.extend(files);
            }
        }
        if changes.is_empty() { Why::Lost } else { Why::Changed(changes) }
    }

    fn old_listing(&self, last: &Recipe) -> Option<&Vec<(String, String)>> {
        // The listing is an output too, the third.
        let id = self.answers.get(&last.id())?.get(2)?;
        self.listings.get(id).filter(|_| self.tables.contains(id))
    }

    /// A node's question has its answer.
    pub(crate) fn answered(&mut self, node: &str, keyed: &Keyed) {
        let tables: Vec<_> = keyed.outputs.iter().map(|(_, id, _)| *id).collect();
        self.tables.extend(&tables);
        if let Some(files) = &keyed.listing {
            self.listings.insert(tables[2], files.clone());
        }
        self.answers.insert(keyed.recipe.id(), tables);
        self.last.insert(node.into(), keyed.recipe.clone());
    }

    /// A node's question was known.
    pub(crate) fn recalled(&mut self, node: &str, keyed: &Keyed) {
        self.last.insert(node.into(), keyed.recipe.clone());
    }

    /// Rows were answered.
    pub(crate) fn remember(&mut self, keyed: &Keyed, rows: impl IntoIterator<Item = String>) {
        if keyed.remembers {
            self.rows.entry(keyed.recipe.op_id()).or_default().extend(rows);
        }
    }
}

/// The facts that are not the same in both.
pub(crate) fn differences(old: &[Fact], new: &[Fact]) -> BTreeSet<(String, Option<String>, Option<String>)> {
    let map = |facts: &[Fact]| -> BTreeMap<String, String> {
        facts.iter().map(|fact| (fact.name.clone(), fact.value.clone())).collect()
    };
    let (old, new) = (map(old), map(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| (name.clone(), old.get(name).cloned(), new.get(name).cloned());
    names.into_iter().map(change).filter(|(_, old, new)| old != new).collect()
}

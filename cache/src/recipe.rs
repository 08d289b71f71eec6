//! Recipes: all the facts of a question. Hashed it is the key; stored beside the answer; compared it says why.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, RecipeId, feed_text};

/// One named thing an answer depends on: `with.max_tokens` = `384`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// A dotted path: `op.version`, `with.sample.seed`, `asset.weights`, `input.from`.
    pub name: String,
    /// The value as JSON or hexadecimal text.
    pub value: String,
}

impl Fact {
    /// A fact from its two halves.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Fact { name: name.into(), value: value.into() }
    }
}

/// All the facts of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The operator's own: name, version, config, assets. What a remembered row depends on besides itself.
    pub op: Vec<Fact>,
    /// The inputs' contents.
    pub inputs: Vec<Fact>,
}

impl Recipe {
    /// The key of the whole answer.
    pub fn id(&self) -> RecipeId {
        RecipeId(Digest::of("retort recipe 1", |hasher| {
            feed_facts(hasher, &self.op);
            feed_facts(hasher, &self.inputs);
        }))
    }

    /// The key of what the operator itself is, without its inputs: names the operator's row log.
    pub fn op_id(&self) -> RecipeId {
        RecipeId(Digest::of("retort operator 1", |hasher| feed_facts(hasher, &self.op)))
    }

    /// The facts that differ, in the order in which this recipe names them; facts that went away come last.
    pub fn changes_since(&self, old: &Recipe) -> Vec<Change> {
        let mut changes = changes(&old.op, &self.op);
        changes.extend(self::changes(&old.inputs, &self.inputs));
        changes
    }
}

/// One fact that differs between two recipes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The fact's name.
    pub fact: String,
    /// Its value before, if it was there.
    pub old: Option<String>,
    /// Its value now, if it is there.
    pub new: Option<String>,
}

/// What differs between two lists of facts.
pub fn changes(old: &[Fact], new: &[Fact]) -> Vec<Change> {
    fn by_name(facts: &[Fact]) -> HashMap<&str, &str> {
        facts.iter().map(|fact| (fact.name.as_str(), fact.value.as_str())).collect()
    }
    let (before, now) = (by_name(old), by_name(new));
    let mut changes = Vec::new();
    for fact in new {
        let before = before.get(fact.name.as_str()).copied();
        if before != Some(&fact.value) {
            let old = before.map(str::to_owned);
            changes.push(Change { fact: fact.name.clone(), old, new: Some(fact.value.clone()) });
        }
    }
    for fact in old {
        if !now.contains_key(fact.name.as_str()) {
            changes.push(Change { fact: fact.name.clone(), old: Some(fact.value.clone()), new: None });
        }
    }
    changes
}

fn feed_facts(hasher: &mut blake3::Hasher, facts: &[Fact]) {
    hasher.update(&(facts.len() as u64).to_le_bytes());
    for fact in facts {
        feed_text(hasher, &fact.name);
        feed_text(hasher, &fact.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(tokens: &str, input: &str) -> Recipe {
        Recipe { op: vec![Fact::new("with.max_tokens", tokens)], inputs: vec![Fact::new("input.from", input)] }
    }

    #[test]
    fn a_row_outlives_its_table() {
        let (before, after) = (recipe("384", "aa"), recipe("384", "bb"));
        assert_ne!(before.id(), after.id());
        assert_eq!(before.op_id(), after.op_id());
    }

    #[test]
    fn changes_name_old_and_new() {
        let mut new = recipe("512", "aa");
        new.op.push(Fact::new("with.overlap", "0"));
        let changes = new.changes_since(&recipe("384", "aa"));
        assert_eq!(
            changes,
            [
                Change { fact: "with.max_tokens".into(), old: Some("384".into()), new: Some("512".into()) },
                Change { fact: "with.overlap".into(), old: None, new: Some("0".into()) },
            ]
        );
    }
}

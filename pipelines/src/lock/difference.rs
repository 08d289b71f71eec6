//! The first thing in which an experiment differs from its lock, with both values.
//!
//! | order | what | known |
//! |---|---|---|
//! | 1 | operator versions | before anything runs |
//! | 2 | assets | before anything runs |
//! | 3 | source files | before anything runs |
//! | 4 | nodes that are there, their operators and configs | before anything runs |
//! | 5 | recipes and tables, node by node in the order of the graph | as the nodes are answered |

use std::collections::BTreeMap;
use std::fmt;

use retort_engine::OutputSummary;

use super::{Lock, LockedNode, LockedTable, NodeUse, Used};

/// Something that is not as the lock has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The node, where it is one node's.
    pub node: Option<String>,
    /// What differs: `file docs/a.md`, `the version of operator chunk`.
    pub what: String,
    /// What it is now; `None` where it is not there.
    pub now: Option<String>,
    /// What it is in the lock; `None` where it is not there.
    pub locked: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            write!(f, "`{node}`: ")?;
        }
        match (&self.now, &self.locked) {
            (Some(now), Some(locked)) => write!(f, "{} is {now}, the lock has {locked}", self.what),
            (Some(now), None) => write!(f, "{} is {now}, the lock does not have it", self.what),
            (None, Some(locked)) => write!(f, "{} is not there, the lock has {locked}", self.what),
            (None, None) => write!(f, "{} differs from the lock", self.what),
        }
    }
}

impl Lock {
    /// The first difference of what is used; `whole` says whether `used` is all of the pipeline.
    pub fn differs_from_used(&self, used: &Used, whole: bool) -> Option<Difference> {
        let pairs = || used.nodes.iter().filter_map(|node| Some((node, self.node(&node.node)?)));
        operators(&self.operators, &used.operators)
            .or_else(|| pairs().find_map(|(node, locked)| assets(node, locked)))
            .or_else(|| self.sources(used))
            .or_else(|| self.graph(used, whole))
            .or_else(|| pairs().find_map(|(node, locked)| config(node, locked)))
    }

    /// How a node's tables differ; a node that the lock does not have was said before.
    pub fn differs_from_outputs(&self, node: &str, outputs: &[OutputSummary]) -> Option<Difference> {
        let now = outputs
            .iter()
            .map(|output| (output.port.clone(), LockedTable { content: output.content, rows: output.rows }));
        tables(self.node(node)?, &now.collect())
    }

    /// How another lock's answers differ from this one's, in the other's order.
    pub fn differs_from_answers(&self, now: &Lock) -> Option<Difference> {
        now.nodes.iter().find_map(|node| {
            let locked = self.node(&node.node)?;
            tables(locked, &node.outputs).or_else(|| {
                let (now, locked) = (node.recipe.to_string(), locked.recipe.to_string());
                value(Some(&node.node), "its recipe", Some(&now), Some(&locked))
            })
        })
    }

    fn sources(&self, used: &Used) -> Option<Difference> {
        let nothing = BTreeMap::new();
        used.nodes.iter().find_map(|node| {
            let now = used.sources.get(&node.node).unwrap_or(&nothing);
            let locked = self.sources.get(&node.node).unwrap_or(&nothing);
            first(now, locked).and_then(|name| {
                let what = format!("file {name}");
                value(Some(&node.node), &what, now.get(name).map(String::as_str), locked.get(name).map(String::as_str))
            })
        })
    }

    fn graph(&self, used: &Used, whole: bool) -> Option<Difference> {
        let node = |name: &str, now: Option<&str>, locked: Option<&str>| {
            let operator = |op: &str| format!("`{op}`");
            let (now, locked) = (now.map(operator), locked.map(operator));
            Some(Difference { node: None, what: format!("node `{name}`"), now, locked })
        };
        for used in &used.nodes {
            match self.node(&used.node) {
                Some(locked) if locked.op == used.op => {}
                locked => return node(&used.node, Some(&used.op), locked.map(|locked| locked.op.as_str())),
            }
        }
        let is_gone = |locked: &&LockedNode| !used.nodes.iter().any(|node| node.node == locked.node);
        let gone = self.nodes.iter().find(is_gone).filter(|_| whole)?;
        node(&gone.node, None, Some(&gone.op))
    }
}

/// An operator of a version that the lock does not have; one that is not used at all shows in the nodes.
fn operators(locked: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<Difference> {
    now.iter().find_map(|(op, version)| {
        let locked = locked.get(op)?;
        value(None, &format!("the version of operator `{op}`"), Some(version), Some(locked))
    })
}

fn assets(now: &NodeUse, locked: &LockedNode) -> Option<Difference> {
    let name = first(&now.assets, &locked.assets)?;
    let text = |assets: &BTreeMap<String, String>| assets.get(name).cloned();
    let (now_has, locked_has) = (text(&now.assets), text(&locked.assets));
    value(Some(&now.node), &format!("asset `{name}`"), now_has.as_deref(), locked_has.as_deref())
}

fn config(now: &NodeUse, locked: &LockedNode) -> Option<Difference> {
    let name = first(&now.facts, &locked.facts)?;
    let text = |facts: &BTreeMap<String, String>| facts.get(name).map(|text| one_line(text));
    let (now_has, locked_has) = (text(&now.facts), text(&locked.facts));
    value(Some(&now.node), &format!("`{name}`"), now_has.as_deref(), locked_has.as_deref())
}

fn tables(locked: &LockedNode, now: &BTreeMap<String, LockedTable>) -> Option<Difference> {
    let port = first(now, &locked.outputs)?;
    let text = |tables: &BTreeMap<String, LockedTable>| {
        tables.get(port).map(|table| {
            format!("{} ({})", short(&table.content.to_string()), crate::observe::words::count(table.rows, "row"))
        })
    };
    let (now, locked_has) = (text(now), text(&locked.outputs));
    Some(Difference { node: Some(locked.node.clone()), what: format!("table `{port}`"), now, locked: locked_has })
}

/// The first name whose value is not the same in both.
fn first<'a, T: PartialEq>(now: &'a BTreeMap<String, T>, locked: &'a BTreeMap<String, T>) -> Option<&'a String> {
    let mut names: Vec<&String> = now.keys().chain(locked.keys()).collect();
    names.sort();
    names.into_iter().find(|name| now.get(*name) != locked.get(*name))
}

/// A difference of two values, if they are two.
fn value(node: Option<&str>, what: &str, now: Option<&str>, locked: Option<&str>) -> Option<Difference> {
    if now == locked {
        return None;
    }
    let (now, locked) = (now.map(short), locked.map(short));
    Some(Difference { node: node.map(String::from), what: what.into(), now, locked })
}

/// Digests by their beginnings; everything else as it is.
fn short(text: &str) -> String {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { format!("{}…", &text[..12]) } else { text.to_string() }
}

/// A value's text on one line, and not longer than one.
fn one_line(text: &str) -> String {
    let text = text.replace('\n', "⏎");
    if text.chars().count() <= 60 { text } else { text.chars().take(59).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use retort_cache::{Digest, RecipeId};

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    }

    fn used() -> Used {
        let node = |node: &str, op: &str, facts: &[(&str, &str)], assets: &[(&str, &str)]| NodeUse {
            node: node.into(),
            op: op.into(),
            assets: map(assets),
            facts: map(facts),
        };
        Used {
            operators: map(&[("chunk", "2"), ("extract", "1")]),
            sources: [("documents".to_string(), map(&[("a.md", "aa"), ("b.md", "bb")]))].into(),
            nodes: vec![
                node("documents", "extract", &[], &[]),
                node("chunks", "chunk", &[("with.max_words", "40")], &[("model", "ee")]),
            ],
        }
    }

    fn locked(used: Used) -> Lock {
        let node = |node: NodeUse| LockedNode {
            node: node.node,
            op: node.op,
            assets: node.assets,
            facts: node.facts,
            recipe: RecipeId(Digest::of("test", |_| {})),
            outputs: BTreeMap::new(),
        };
        Lock {
            version: super::super::VERSION,
            retort: "0".into(),
            pipeline: "p".into(),
            profile: None,
            set: BTreeMap::new(),
            operators: used.operators,
            sources: used.sources,
            nodes: used.nodes.into_iter().map(node).collect(),
        }
    }

    fn told(edit: impl FnOnce(&mut Used)) -> Option<String> {
        let mut now = used();
        edit(&mut now);
        locked(used()).differs_from_used(&now, true).map(|difference| difference.to_string())
    }

    #[test]
    fn what_is_the_same_differs_in_nothing() {
        assert_eq!(told(|_| {}), None);
    }

    #[test]
    fn each_kind_is_named_with_both_values() {
        let told = |edit: fn(&mut Used)| told(edit).unwrap();
        assert_eq!(
            told(|now| now.operators = map(&[("chunk", "3")])),
            "the version of operator `chunk` is 3, the lock has 2"
        );
        assert_eq!(
            told(|now| now.nodes[1].assets = map(&[("model", "ff")])),
            "`chunks`: asset `model` is ff, the lock has ee"
        );
        let edit: fn(&mut Used) = |now| drop(now.sources.insert("documents".into(), map(&[("a.md", "ac")])));
        assert_eq!(told(edit), "`documents`: file a.md is ac, the lock has aa");
        let edit: fn(&mut Used) = |now| drop(now.sources.get_mut("documents").unwrap().remove("b.md"));
        assert_eq!(told(edit), "`documents`: file b.md is not there, the lock has bb");
        assert_eq!(
            told(|now| now.nodes[1].facts = map(&[("with.max_words", "30")])),
            "`chunks`: `with.max_words` is 30, the lock has 40"
        );
        assert_eq!(told(|now| drop(now.nodes.pop())), "node `chunks` is not there, the lock has `chunk`");
    }

    #[test]
    fn the_first_is_named_in_order() {
        let told = told(|now| {
            now.nodes[1].facts.clear();
            now.nodes[1].assets.clear();
            now.sources.clear();
        });
        assert_eq!(told.unwrap(), "`chunks`: asset `model` is not there, the lock has ee");
    }

    #[test]
    fn digests_are_shortened_and_texts_kept_on_a_line() {
        assert_eq!(short(&"ab".repeat(32)), "abababababab…");
        assert_eq!(one_line("a\nb"), "a⏎b");
    }
}

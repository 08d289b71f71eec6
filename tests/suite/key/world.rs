//! What the fuzzer turns: documents and nodes, and the steps that change them. Steps are data, so a failure can be cut down and printed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use retort_cache::Fact;
use retort_engine::{Feed, Graph, NodeSpec};
use serde_json::{Value, json};

use super::made::registry;
use super::ops::{Docs, Row, Whole};

/// Documents and nodes as they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// By folder and name.
    pub(crate) docs: BTreeMap<(String, String), String>,
    pub(crate) nodes: Vec<Sketch>,
    pub(crate) versions: BTreeMap<String, u32>,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sketch {
    pub(crate) name: String,
    pub(crate) op: Op,
    /// Slot and sources.
    pub(crate) from: Vec<(Option<String>, Vec<String>)>,
    /// Whether defaults are spelled out in its config.
    pub(crate) spelled: bool,
}

/// An operator with its config.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Docs(Docs),
    Row(Row),
    Whole(Whole),
}

/// A change of the world, or a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Add(usize, Sketch),
    Remove(String),
    Rename(String, String),
    Configure(String, Op),
    Feed(String, Vec<(Option<String>, Vec<String>)>),
    Spell(String),
    Version(String, u32),
    Write(String, String, String),
    Delete(String, String),
    Move(String, String, String),
    Touch(String, String),
    Lose(Loss),
    Run(Run),
}

/// Files of the store that are deleted; `n` counts those there are, round and round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Loss {
    Table(usize),
    Answer(usize),
    Rows(usize),
    View(String),
    Digests,
}

/// How a run is called, and what gets in its way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) jobs: usize,
    pub(crate) keep_going: bool,
    pub(crate) force: Vec<String>,
    pub(crate) targets: Vec<String>,
    pub(crate) trouble: Option<(Trouble, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    Stop,
    Fail,
}

impl Run {
    pub(crate) fn plain() -> Self {
        Run { jobs: 1, keep_going: true, force: Vec::new(), targets: Vec::new(), trouble: None }
    }
}

/// The folders that documents lie in; they are always there.
pub(crate) const FOLDERS: [&str; 2] = ["d0", "d1"];

impl World {
    /// The world after a step; `None` where the step does not apply or leaves no graph that checks.
    pub(crate) fn after(&self, step: &Step, root: &Path) -> Option<World> {
        let mut world = self.clone();
        world.change(step)?;
        let graph_changed = world.nodes != self.nodes || world.versions != self.versions;
        (!graph_changed || world.check(root).is_some()).then_some(world)
    }

    fn change(&mut self, step: &Step) -> Option<()> {
        match step {
            Step::Add(at, sketch) => {
                if self.find(&sketch.name).is_some() {
                    return None;
                }
                self.nodes.insert((*at).min(self.nodes.len()), sketch.clone());
            }
            Step::Remove(name) => {
                let at = self.find(name)?;
                self.nodes.remove(at);
            }
            Step::Rename(old, new) => {
                let at = self.find(old)?;
                if self.find(new).is_some() {
                    return None;
                }
                self.nodes[at].name.clone_from(new);
                for source in self.nodes.iter_mut().flat_map(|node| &mut node.from).flat_map(|(_, sources)| sources) {
                    let port =
                        source.strip_prefix(old.as_str()).filter(|port| port.is_empty() || port.starts_with('.'));
                    if let Some(port) = port {
                        *source = format!("{new}{port}");
                    }
                }
            }
            Step::Configure(name, op) => {
                let at = self.find(name)?;
                self.nodes[at].op = op.clone();
            }
            Step::Feed(name, from) => {
                let at = self.find(name)?;
                self.nodes[at].from.clone_from(from);
            }
            Step::Spell(name) => {
                let at = self.find(name)?;
                self.nodes[at].spelled = !self.nodes[at].spelled;
            }
            Step::Version(op, version) => {
                self.versions.insert(op.clone(), *version);
            }
            Step::Write(folder, name, text) => {
                self.docs.insert((folder.clone(), name.clone()), text.clone());
            }
            Step::Delete(folder, name) => {
                self.docs.remove(&(folder.clone(), name.clone()))?;
            }
            Step::Move(folder, old, new) => {
                let text = self.docs.remove(&(folder.clone(), old.clone()))?;
                self.docs.insert((folder.clone(), new.clone()), text);
            }
            Step::Touch(folder, name) => {
                self.docs.get(&(folder.clone(), name.clone()))?;
            }
            Step::Lose(_) | Step::Run(_) => {}
        }
        Some(())
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The graph, if it checks.
    pub(crate) fn check(&self, root: &Path) -> Option<Graph> {
        let specs: Vec<_> = self.nodes.iter().map(|node| node.spec(root)).collect();
        retort_engine::check("fuzz", &specs, &registry(&self.versions)).ok()
    }

    pub(crate) fn version(&self, op: &str) -> u32 {
        self.versions.get(op).copied().unwrap_or(1)
    }
}

impl Sketch {
    /// Every node stands in a folder of its own, by which its probe is found. The folder is no fact.
    fn spec(&self, root: &Path) -> NodeSpec {
        let feed =
            |(slot, sources): &(Option<String>, Vec<String>)| Feed { slot: slot.clone(), sources: sources.clone() };
        let (op, with) = match &self.op {
            Op::Docs(config) => ("docs", json!(config)),
            Op::Row(config) => ("row", json!(config)),
            Op::Whole(config) => ("whole", json!(config)),
        };
        NodeSpec {
            name: self.name.clone(),
            op: op.into(),
            from: self.from.iter().map(feed).collect(),
            with: if self.spelled { with } else { terse(with) },
            base: root.join(&self.name),
        }
    }

    /// The operator's own facts, written down from the config by hand.
    pub(crate) fn facts(&self, world: &World) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut say = |name: &str, value: &dyn fmt::Display| facts.push(Fact::new(name, value.to_string()));
        let op = match &self.op {
            Op::Docs(docs) => {
                say("with.by_content", &docs.by_content);
                say("with.lines", &docs.lines);
                say("with.salt", &docs.salt);
                "docs"
            }
            Op::Row(row) => {
                say("with.adds", &row.adds);
                say("with.batch", &row.batch);
                say("with.carries", &format!("{:?}", row.carries).to_lowercase());
                say("with.coarse", &row.coarse);
                list("with.drops", &row.drops, &mut say);
                say("with.many", &row.many);
                list("with.maybe", &row.maybe, &mut say);
                say("with.nullable", &row.nullable);
                if let Some(number) = &row.number {
                    say("with.number", number);
                }
                say("with.parallel", &row.parallel);
                list("with.reads", &row.reads, &mut say);
                say("with.refuse", &row.refuse);
                say("with.remember", &row.remember);
                say("with.salt", &row.salt);
                say("with.scramble", &row.scramble);
                "row"
            }
            Op::Whole(whole) => {
                say("with.kind", &format!("{:?}", whole.kind).to_lowercase());
                say("with.salt", &whole.salt);
                "whole"
            }
        };
        let mut all = vec![Fact::new("op.name", op), Fact::new("op.version", world.version(op).to_string())];
        all.extend(facts);
        all
    }
}

fn list(name: &str, items: &[String], say: &mut dyn FnMut(&str, &dyn fmt::Display)) {
    if items.is_empty() {
        say(name, &"[]");
    }
    for (at, item) in items.iter().enumerate() {
        say(&format!("{name}[{at}]"), item);
    }
}

/// The same config with its keys backwards, and without those that are at their defaults.
fn terse(with: Value) -> Value {
    let Value::Object(fields) = with else { return with };
    let default = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty() || text == "all" || text == "reverse",
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    };
    let kept: Vec<_> = fields.into_iter().filter(|(_, value)| !default(value)).collect();
    Value::Object(kept.into_iter().rev().collect())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Add(at, node) => {
                write!(f, "add {} at {at}: {} from {}", node.name, shown(&node.op), feeds(&node.from))
            }
            Step::Remove(name) => write!(f, "remove {name}"),
            Step::Rename(old, new) => write!(f, "rename {old} to {new}"),
            Step::Configure(name, op) => write!(f, "configure {name}: {}", shown(op)),
            Step::Feed(name, from) => write!(f, "feed {name} from {}", feeds(from)),
            Step::Spell(name) => write!(f, "spell the config of {name} the other way"),
            Step::Version(op, version) => write!(f, "operator {op} in version {version}"),
            Step::Write(folder, name, text) => write!(f, "write {folder}/{name}: {text:?}"),
            Step::Delete(folder, name) => write!(f, "delete {folder}/{name}"),
            Step::Move(folder, old, new) => write!(f, "move {folder}/{old} to {new}"),
            Step::Touch(folder, name) => write!(f, "touch {folder}/{name}"),
            Step::Lose(loss) => write!(f, "lose from the store: {loss:?}"),
            Step::Run(run) => write!(f, "{run}"),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run -j{}", self.jobs)?;
        if !self.targets.is_empty() {
            write!(f, " {}", self.targets.join(" "))?;
        }
        for node in &self.force {
            write!(f, " --force {node}")?;
        }
        if self.keep_going {
            write!(f, " --keep-going")?;
        }
        if let Some((trouble, after)) = &self.trouble {
            write!(f, ", {trouble:?} after {after} rows")?;
        }
        Ok(())
    }
}

fn shown(op: &Op) -> String {
    match op {
        Op::Docs(config) => format!("docs {}", terse(json!(config))),
        Op::Row(config) => format!("row {}", terse(json!(config))),
        Op::Whole(config) => format!("whole {}", terse(json!(config))),
    }
}

fn feeds(from: &[(Option<String>, Vec<String>)]) -> String {
    let feed = |(slot, sources): &(Option<String>, Vec<String>)| {
        let sources = sources.join(", ");
        slot.as_ref().map_or(format!("[{sources}]"), |slot| format!("{slot}: [{sources}]"))
    };
    if from.is_empty() { "nothing".into() } else { from.iter().map(feed).collect::<Vec<_>>().join(", ") }
}

//! The one way from a pipeline file to a checked graph, or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use retort_engine::{Graph, NodeSpec, OpInfo, Problem, check};
use serde_json::Value;

use crate::config::{self, Examined};
use crate::context;
use crate::diagnostics::{Diagnostic, Diagnostics, Files, folder};
use crate::document::{self, Document};
use crate::lower::{Lowered, Lowering, lower};

/// What the command line adds to a pipeline file.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `--set NAME=VALUE`, in order; the value is read as YAML.
    pub set: Vec<(String, String)>,
    /// `--profile NAME`.
    pub profile: Option<String>,
    /// The folder of the models that were fetched: what is there is asked how much it takes in.
    pub fetched: Option<PathBuf>,
}

/// A pipeline without mistakes.
pub struct Loaded {
    /// The graph, ready to plan and run.
    pub graph: Graph,
    /// The nodes that the graph was made of, in the order of the file, params and models filled in.
    pub nodes: Vec<NodeSpec>,
    /// The pipeline's name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The folder that its paths are relative to.
    pub base: PathBuf,
    /// The params, after `--profile` and `--set`.
    pub params: BTreeMap<String, Value>,
    /// The entries of `models:`, params filled in, without `api_key`.
    pub models: BTreeMap<String, Value>,
}

/// Reads a pipeline and checks all of it against the operators. Nothing is run, no asset is fetched.
pub fn load(path: &Path, options: &LoadOptions, ops: &[OpInfo]) -> Result<Loaded, Diagnostics> {
    read(path, options, ops)?.check(ops)
}

/// A pipeline file that was read: params, models and copies are filled in, nothing is held against the operators' configs yet.
pub struct Read {
    files: Files,
    problems: Vec<Diagnostic>,
    lowered: Lowered,
    name: String,
    path: PathBuf,
    fetched: Option<PathBuf>,
}

/// The first half of `load`, for who has something to do with the nodes' names meanwhile.
pub fn read(path: &Path, options: &LoadOptions, ops: &[OpInfo]) -> Result<Read, Diagnostics> {
    let mut files = Files::default();
    let mut problems = Vec::new();
    let Some(mut document) = document::read(path, &mut files, &mut problems) else {
        return Err(Diagnostics::new(files, problems));
    };
    document.check_profiles(&mut problems);
    if let Some(profile) = &options.profile {
        document.apply(profile, &mut problems);
    }
    let name = name(&document, path);
    let lowered = lower(document, &options.set, ops, &files, &mut problems);
    Ok(Read { files, problems, lowered, name, path: path.to_path_buf(), fetched: options.fetched.clone() })
}

impl Read {
    /// What the nodes are called in a store, in the order of the file; none where something is wrong, which may be a name.
    pub fn store_names(&self) -> impl Iterator<Item = String> {
        let nodes = if self.problems.is_empty() { self.lowered.nodes.as_slice() } else { &[] };
        nodes.iter().map(|node| format!("{}/{}", self.name, node.spec.name))
    }

    /// Checks all of it: the second half of `load`.
    pub fn check(self, ops: &[OpInfo]) -> Result<Loaded, Diagnostics> {
        let Read { files, mut problems, lowered, name, path, fetched } = self;
        let by_name = lowered.nodes.iter().map(|node| (node.spec.name.as_str(), node)).collect();
        let checker = Checker { lowered: &lowered, by_name, ops, files: &files };
        let graph = checker.check(&name, &mut problems);
        if let Some(graph) = &graph {
            let found = context::problems(graph, fetched.as_deref());
            problems.extend(found.iter().filter_map(|problem| checker.place(problem)));
        }
        lowered.tell_copies(&mut problems);
        match graph {
            Some(graph) if problems.is_empty() => Ok(loaded(graph, name, &path, lowered)),
            _ => Err(Diagnostics::new(files, problems)),
        }
    }
}

/// Drops a value beside what follows: to take a large tree apart takes a while.
fn drop_aside(value: impl Send + 'static) {
    rayon::spawn(move || drop(value));
}

fn loaded(graph: Graph, name: String, path: &Path, lowered: Lowered) -> Loaded {
    let models = lowered.models.into_iter().map(|(name, model)| {
        let mut model = model.to_json();
        if let Value::Object(fields) = &mut model {
            fields.shift_remove("api_key");
        }
        (name, model)
    });
    let (nodes, written): (_, Vec<_>) = lowered.nodes.into_iter().map(|node| (node.spec, node.written)).unzip();
    drop_aside(written);
    Loaded {
        graph,
        nodes,
        name,
        path: path.to_path_buf(),
        base: folder(path),
        params: lowered.params.into_iter().map(|(name, value)| (name, value.to_json())).collect(),
        models: models.collect(),
    }
}

/// The pipeline's name, or else that of its file, made fit for a file name.
fn name(document: &Document, path: &Path) -> String {
    if let Some((name, _)) = &document.name {
        return name.clone();
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let stem: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    if stem.is_empty() { "pipeline".into() } else { stem }
}

struct Checker<'a> {
    lowered: &'a Lowered,
    by_name: HashMap<&'a str, &'a Lowering>,
    ops: &'a [OpInfo],
    files: &'a Files,
}

impl Checker<'_> {
    /// Checks the nodes. Where a config is wrong, it is examined for all its mistakes and mended, and the rest is checked again.
    fn check(&self, name: &str, problems: &mut Vec<Diagnostic>) -> Option<Graph> {
        let specs: Vec<&NodeSpec> = self.lowered.nodes.iter().map(|node| &node.spec).collect();
        let mut found = match check(name, &specs, self.ops) {
            Ok(graph) => return Some(graph),
            Err(found) => found,
        };
        let mut specs: Vec<NodeSpec> = specs.into_iter().cloned().collect();
        let wrong = found.iter().filter(|problem| of_config(problem)).filter_map(|problem| problem.at.node.clone());
        let wrong: HashSet<String> = wrong.collect();
        let mut mended = BTreeSet::new();
        let mut guessed = BTreeSet::new();
        for (node, spec) in self.lowered.nodes.iter().zip(&mut specs) {
            if !wrong.contains(&spec.name) {
                continue;
            }
            let Some(examined) = self.examine(node) else { continue };
            if examined.problems.is_empty() && !examined.guessed {
                continue;
            }
            problems.extend(examined.problems.into_iter().map(|problem| in_node(problem, &spec.name)));
            spec.with = examined.mended.to_json();
            mended.insert(spec.name.clone());
            if examined.guessed {
                guessed.insert(spec.name.clone());
            }
        }
        found.retain(|problem| {
            !of_config(problem) || !problem.at.node.as_ref().is_some_and(|name| mended.contains(name))
        });
        if !mended.is_empty() {
            let guessed = downstream(&specs, guessed);
            let again = check(name, &specs, self.ops).err().unwrap_or_default();
            let is_sure = |problem: &Problem| {
                of_edges(problem) || !problem.at.node.as_ref().is_some_and(|name| guessed.contains(name))
            };
            found.extend(again.into_iter().filter(is_sure));
        }
        problems
            .extend(found.iter().filter(|problem| !is_echo(problem, &found)).filter_map(|problem| self.place(problem)));
        None
    }

    fn examine(&self, node: &Lowering) -> Option<Examined> {
        let info = self.ops.iter().find(|info| info.name == node.spec.op)?;
        let schema = (info.schema)().to_value();
        let nothing = crate::yaml::Yaml::new(node.written.key_span, crate::yaml::Data::Null);
        let with = node.written.value.entry("with");
        let at = with.map_or(node.written.key_span, |with| config::place(with, self.files));
        Some(config::examine(with.map_or(&nothing, |with| &with.value), at, &schema, info.name, self.files))
    }

    /// A problem of the engine at its place; `None` where that was complained about already.
    fn place(&self, problem: &Problem) -> Option<Diagnostic> {
        let mut placed = Diagnostic::nowhere(problem.code, problem.message.clone());
        placed.hint.clone_from(&problem.hint);
        let name = problem.at.node.as_ref();
        let Some(node) = name.and_then(|name| self.by_name.get(name.as_str())) else {
            return Some(placed);
        };
        let field = problem.at.field.as_str();
        let is_input = problem.code == "missing-input" || field == "from" || field.starts_with("from.");
        if (field == "op" && node.op_is_broken) || (is_input && node.from_is_broken && problem.code != "cycle") {
            return None;
        }
        let key = matches!(problem.code, "unknown-key" | "unknown-input");
        let found = node.find(field, key, self.files);
        if found.is_broken {
            return None;
        }
        placed.span = Some(found.span);
        if problem.code == "unknown-column" {
            let name = problem.message.split('`').nth(1).unwrap_or_default();
            let column = node.column(field, name, self.files);
            // A column that the config does not name is one that its input should have.
            let input = || (!found.is_written || field == "with").then(|| node.find("from", false, self.files).span);
            placed.span = column.or_else(input).or(placed.span);
        }
        if let Some(line) = problem.at.line {
            let (line, column) = (line.get() as usize, problem.at.column.map(|column| column.get() as usize));
            let place = |value| match column {
                Some(column) => self.files.word(value, line, column),
                None => self.files.block_line(value, line),
            };
            placed.span = found.value.and_then(place).or(placed.span);
        }
        let placed = match found.origin {
            Some(origin) => origin.explain(placed),
            None => placed,
        };
        Some(in_node(placed, &node.spec.name))
    }
}

fn in_node(problem: Diagnostic, node: &str) -> Diagnostic {
    Diagnostic { node: Some(node.to_string()), ..problem }
}

/// The nodes and all that they feed.
fn downstream(specs: &[NodeSpec], mut names: BTreeSet<String>) -> BTreeSet<String> {
    loop {
        let fed = |spec: &&NodeSpec| {
            let mut sources = spec.from.iter().flat_map(|feed| &feed.sources);
            let name = |source: &String| source.rsplit_once('.').is_some_and(|(name, _)| names.contains(name));
            sources.any(|source| names.contains(source) || name(source))
        };
        let new: Vec<_> = specs.iter().filter(|spec| !names.contains(&spec.name)).filter(fed).collect();
        if new.is_empty() {
            return names;
        }
        let new: Vec<_> = new.into_iter().map(|spec| spec.name.clone()).collect();
        names.extend(new);
    }
}

/// Whether a problem only repeats another: the input that is missing is there with its name misspelt.
fn is_echo(problem: &Problem, all: &[Problem]) -> bool {
    let misspells = |other: &Problem| {
        let near = other.hint.as_ref().and_then(|hint| hint.split('`').nth(1));
        let is_meant = |near: &str| {
            problem.message.ends_with(&format!("the input `{near}`")) || problem.message.ends_with("an input")
        };
        other.code == "unknown-input" && other.at.node == problem.at.node && near.is_some_and(is_meant)
    };
    problem.code == "missing-input" && all.iter().any(misspells)
}

/// Whether a problem is one of the edges, and so the same whatever the configs are.
fn of_edges(problem: &Problem) -> bool {
    matches!(problem.code, "missing-input" | "unknown-input" | "unknown-node" | "unknown-port" | "cycle")
}

fn of_config(problem: &Problem) -> bool {
    problem.at.field == "with" || problem.at.field.starts_with("with.")
}

#[cfg(test)]
mod operators;
#[cfg(test)]
mod tests;

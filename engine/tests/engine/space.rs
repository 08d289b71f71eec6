//! A folder of documents, a pipeline over it and a store. A run is told as a story, a line a node; the story is what tests assert.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray};
use expect_test::Expect;
use retort_cache::digests::FileDigests;
use retort_cache::{Change, ContentId, Disk, Memory, Store};
use retort_engine::lineage::Trail;
use retort_engine::{
    Asset, Assets, Event, EventKind, Failure, Feed, Graph, Limits, NodeSpec, Observer, Problem, Reason, Summary,
    Verdict, World,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::ops::{OPS, Probe, probe};

/// Where tests happen.
pub(crate) struct Space {
    folder: TempDir,
    store: Box<dyn Store>,
    specs: Vec<NodeSpec>,
    digests: FileDigests,
    pub(crate) jobs: usize,
    pub(crate) keep_going: bool,
    /// Nodes to run although their answer is known.
    pub(crate) force: Vec<&'static str>,
    /// Ask to stop once so many rows are answered.
    pub(crate) stop_after: Option<u64>,
}

/// Runs a test on every kind of store.
pub(crate) fn on_every_store(mut test: impl FnMut(Space)) {
    test(Space::in_memory());
    test(Space::on_disk());
}

/// What a run was.
pub(crate) struct Run {
    pub(crate) summary: Summary,
    story: String,
    pub(crate) events: Vec<Event>,
}

impl Run {
    /// The story of the run: a line a node, in the pipeline's order.
    #[track_caller]
    pub(crate) fn ran(&self, expected: &Expect) -> &Self {
        expected.assert_eq(&self.story);
        self
    }
}

impl Space {
    pub(crate) fn in_memory() -> Self {
        Space::new(|_| Box::new(Memory::default()))
    }

    pub(crate) fn on_disk() -> Self {
        Space::new(|folder| Box::new(Disk::open(folder.join("store")).unwrap()))
    }

    fn new(store: impl Fn(&Path) -> Box<dyn Store>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        Space {
            store: store(folder.path()),
            specs: Vec::new(),
            digests: FileDigests::open(folder.path().join("digests")),
            jobs: 2,
            keep_going: true,
            force: Vec::new(),
            stop_after: None,
            folder,
        }
    }

    /// Writes a document.
    pub(crate) fn edit(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join("docs").join(name), text).unwrap();
    }

    /// Removes a document.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join("docs").join(name)).unwrap();
    }

    /// The store's folder, where there is one.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// What happened in the operators.
    pub(crate) fn probe(&self) -> Arc<Probe> {
        probe(self.folder.path())
    }

    /// The texts that operators were asked since the last time, sorted.
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.probe().asked.lock().unwrap());
        asked.sort();
        asked
    }

    /// Adds a node, or changes the one of that name. `from` is `a`, `a.port`, `a, b`, or `slot=a, other=b.port`.
    pub(crate) fn node(&mut self, name: &str, op: &str, from: &str, with: Value) -> &mut Self {
        match self.specs.iter().position(|spec| spec.name == name) {
            Some(i) => self.specs[i] = self.spec(name, op, from, with),
            None => self.add(name, op, from, with),
        }
        self
    }

    /// Adds a node of a new name.
    pub(crate) fn add(&mut self, name: &str, op: &str, from: &str, with: Value) {
        self.specs.push(self.spec(name, op, from, with));
    }

    fn spec(&self, name: &str, op: &str, from: &str, with: Value) -> NodeSpec {
        let base = self.folder.path().to_path_buf();
        NodeSpec { name: name.into(), op: op.into(), from: feeds(from), with, base }
    }

    /// Puts a node before all others.
    pub(crate) fn first(&mut self, name: &str) {
        self.specs.sort_by_key(|spec| spec.name != name);
    }

    /// Gives a node an empty list to read: `from: []`.
    pub(crate) fn unfeed(&mut self, name: &str) {
        let spec = self.specs.iter_mut().find(|spec| spec.name == name).unwrap();
        spec.from.iter_mut().for_each(|feed| feed.sources.clear());
    }

    pub(crate) fn check(&self) -> Result<Graph, Vec<Problem>> {
        retort_engine::check("test", &self.specs, OPS)
    }

    /// Everything that is wrong with the pipeline, a line a problem.
    #[track_caller]
    pub(crate) fn problems(&self, expected: &Expect) {
        let problems = self.check().err().unwrap_or_default();
        let line = |problem: &Problem| {
            let node = problem.at.node.as_deref().unwrap_or_default();
            let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{} at {node}:{}: {}{hint}\n", problem.code, problem.at.field, problem.message)
        };
        expected.assert_eq(&problems.iter().map(line).collect::<String>());
    }

    pub(crate) fn world<'a>(&'a self, events: &'a dyn Observer, cancelled: &'a AtomicBool) -> World<'a> {
        World { store: self.store.as_ref(), assets: &NoAssets, digests: &self.digests, events, cancelled }
    }

    /// Asks nodes again whose answers are known. What it says of each, and the summary.
    pub(crate) fn verify(&self, targets: &[&str]) -> (String, Summary) {
        let graph = self.check().map_err(|problems| format!("{problems:?}")).unwrap();
        let targets: Vec<_> = targets.iter().map(|name| graph.find(name).unwrap()).collect();
        let (events, cancelled) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let observer = |event: &Event| events.lock().unwrap().push(event.clone());
        let summary = retort_engine::verify(&graph, &targets, self.world(&observer, &cancelled));
        let mut told: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for Event { node, kind } in events.into_inner().unwrap() {
            let words = match kind {
                EventKind::Verified { .. } => "verified".into(),
                EventKind::Unverified { because } => format!("not verified, {because}"),
                EventKind::Failed { error } => format!("failed: {error}"),
                EventKind::Differs { port, row, column, old, new, .. } => {
                    let (port, column) = (port.unwrap_or("remembered".into()), column.unwrap_or_default());
                    format!("{port} row {row} {column}: {} -> {}", old.unwrap(), new.unwrap())
                }
                _ => continue,
            };
            let place = graph.order().iter().position(|id| graph.node(*id).name == node).unwrap();
            told.entry(place).or_default().push(words);
        }
        let line = |(place, words): (&usize, &Vec<String>)| {
            format!("{}: {}\n", graph.node(graph.order()[*place]).name, words.join(", "))
        };
        (told.iter().map(line).collect(), summary)
    }

    /// A column of text of a node's newest table.
    pub(crate) fn texts(&self, node: &str, column: &str) -> Vec<String> {
        let table = self.store.open(self.newest(node).unwrap().outputs[0].content).unwrap().unwrap();
        let batch = table.read().unwrap();
        let texts = batch.column_by_name(column).unwrap().as_string::<i32>();
        texts.iter().map(|text| text.unwrap().to_owned()).collect()
    }

    /// A node's newest answer.
    pub(crate) fn newest(&self, node: &str) -> Option<retort_cache::Answer> {
        self.store.last(&format!("test/{node}")).unwrap()
    }

    pub(crate) fn run(&self) -> Run {
        let graph = self.check().map_err(|problems| format!("{problems:?}")).unwrap();
        let (events, cancelled) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let observer = |event: &Event| {
            if let (EventKind::Progress { done, .. }, Some(after)) = (&event.kind, self.stop_after)
                && *done >= after
            {
                cancelled.store(true, Ordering::Relaxed);
            }
            events.lock().unwrap().push(event.clone());
        };
        let force = self.force.iter().map(|name| graph.find(name).unwrap()).collect();
        let limits = Limits { jobs: self.jobs, keep_going: self.keep_going, force };
        let summary = retort_engine::run(&graph, &[], self.world(&observer, &cancelled), &limits);
        let events = events.into_inner().unwrap();
        Run { summary, story: story(&graph, &events), events }
    }

    /// What a plan says, a line a node.
    #[track_caller]
    pub(crate) fn plans(&self, expected: &Expect) {
        let graph = self.check().map_err(|problems| format!("{problems:?}")).unwrap();
        let (observer, cancelled) = (|_: &Event| (), AtomicBool::new(false));
        let plans = retort_engine::plan(&graph, &[], self.world(&observer, &cancelled)).unwrap();
        let line = |plan: &retort_engine::NodePlan| {
            let verdict = match &plan.verdict {
                Verdict::Fresh => "fresh".into(),
                Verdict::Stale(reason) => format!("stale, {}", why(reason)),
                Verdict::Waiting(changes) => format!("waiting{}", list(changes)),
            };
            let rows = plan.rows.map(|rows| format!(", {rows} rows")).unwrap_or_default();
            let to_do = plan.to_do.map(|rows| format!(", {rows} to do")).unwrap_or_default();
            format!("{}: {verdict}{rows}{to_do}\n", graph.node(plan.id).name)
        };
        expected.assert_eq(&plans.iter().map(line).collect::<String>());
    }

    /// Follows rows of the answers that there are.
    pub(crate) fn follow<T>(&self, look: impl FnOnce(&Graph, &Trail<'_>) -> T) -> T {
        let graph = self.check().map_err(|problems| format!("{problems:?}")).unwrap();
        let (observer, cancelled) = (|_: &Event| (), AtomicBool::new(false));
        let trail = Trail::new(&graph, &[], self.world(&observer, &cancelled)).unwrap();
        look(&graph, &trail)
    }

    /// How many rows of a node are not known to a store.
    pub(crate) fn to_do(&self, store: &dyn Store, node: &str) -> Option<u64> {
        let graph = self.check().ok().unwrap();
        let (observer, cancelled) = (|_: &Event| (), AtomicBool::new(false));
        let world = World { store, ..self.world(&observer, &cancelled) };
        let plans = retort_engine::plan(&graph, &[], world).unwrap();
        plans.iter().find(|plan| graph.node(plan.id).name == node).unwrap().to_do
    }

    /// The names of the newest tables, by node and port.
    pub(crate) fn ids(&self) -> BTreeMap<String, ContentId> {
        let mut ids = BTreeMap::new();
        for spec in &self.specs {
            let answer = self.store.last(&format!("test/{}", spec.name)).unwrap();
            for output in answer.into_iter().flat_map(|answer| answer.outputs) {
                ids.insert(format!("{}.{}", spec.name, output.port), output.content);
            }
        }
        ids
    }

    /// A node's newest table: a line a row, columns parted by bars.
    #[track_caller]
    pub(crate) fn holds(&self, node: &str, port: &str, expected: &Expect) {
        let answer = self.store.last(&format!("test/{node}")).unwrap().unwrap();
        let output = answer.outputs.iter().find(|output| output.port == port).unwrap();
        let batch = self.store.open(output.content).unwrap().unwrap().read().unwrap();
        let schema = batch.schema();
        let mut shown =
            schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(" | ") + "\n";
        for row in 0..batch.num_rows() {
            let value = |column: &Arc<dyn Array>| match column.as_string_opt::<i32>() {
                Some(texts) if texts.is_valid(row) => texts.value(row).to_owned(),
                _ => "-".into(),
            };
            shown += &(batch.columns().iter().map(value).collect::<Vec<_>>().join(" | ") + "\n");
        }
        expected.assert_eq(&shown);
    }
}

fn feeds(from: &str) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = Vec::new();
    for source in from.split(", ").filter(|source| !source.is_empty()) {
        let (slot, source) =
            source.split_once('=').map_or((None, source), |(slot, source)| (Some(slot.to_owned()), source));
        match feeds.iter_mut().find(|feed| feed.slot == slot) {
            Some(feed) => feed.sources.push(source.into()),
            None => feeds.push(Feed { slot, sources: vec![source.into()] }),
        }
    }
    feeds
}

fn story(graph: &Graph, events: &[Event]) -> String {
    let mut story = Vec::new();
    for id in graph.order() {
        let name = &graph.node(*id).name;
        let mut words = Vec::new();
        for event in events.iter().filter(|event| event.node == *name) {
            match &event.kind {
                EventKind::Fresh { .. } => words.push("fresh".to_owned()),
                EventKind::Started { why: reason } => words.push(why(reason)),
                EventKind::Recalled { rows, of } if *rows > 0 => words.push(format!("{rows} of {of} rows recalled")),
                EventKind::Finished { outputs, changed, asked, rejects, .. } => {
                    words.extend(asked.map(|asked| format!("{asked} asked")));
                    words.extend((*rejects > 0).then(|| format!("{rejects} refused")));
                    words.push(format!("{} rows", outputs[0].rows));
                    words.extend((!changed).then(|| "the same answer".to_owned()));
                }
                EventKind::Failed { error } => words.push(format!("failed: {error}")),
                EventKind::Skipped { because } => words.push(format!("skipped because of {because}")),
                _ => {}
            }
        }
        let words = if words.is_empty() { "nothing".into() } else { words.join(", ") };
        story.push(format!("{name}: {words}\n"));
    }
    story.concat()
}

fn why(reason: &Reason) -> String {
    match reason {
        Reason::FirstRun => "first run".into(),
        Reason::Forced => "forced".into(),
        Reason::Changed { changes } => format!("changed{}", list(changes)),
        Reason::Lost => "lost".into(),
        Reason::Verify => "to compare".into(),
    }
}

fn list(changes: &[Change]) -> String {
    let short =
        |value: &Option<String>| value.as_deref().map_or("nothing", |value| &value[..value.len().min(6)]).to_owned();
    let shown =
        changes.iter().map(|change| format!(" [{}: {} -> {}]", change.fact, short(&change.old), short(&change.new)));
    shown.collect::<Vec<_>>().concat()
}

struct NoAssets;

impl Assets for NoAssets {
    fn digest(&self, asset: &Asset) -> Result<String, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }

    fn path(&self, asset: &Asset, _: &mut dyn FnMut(u64, u64) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }
}

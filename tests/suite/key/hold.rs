//! Walks through steps on a store that persists, and holds every plan and every run to the answer key.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex};

use retort_cache::digests::FileDigests;
use retort_cache::{Disk, Memory, Store};
use retort_engine::{Event, Graph, Limits};

use super::answer::{Keyed, answer};
use super::judge;
use super::known::Known;
use super::made::{self, forget_probes, probe};
use super::seen::{Seen, same};
use super::world::{FOLDERS, Loss, Run, Step, Trouble, World};
use crate::nodes::NoAssets;

/// Nothing, or what does not hold.
pub(crate) type Told = Result<(), String>;

/// What was done, for the record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) runs: usize,
    pub(crate) ran: usize,
    pub(crate) fresh: usize,
    pub(crate) asked: usize,
    pub(crate) recalled: u64,
}

/// Takes all steps; the first thing that does not hold is the error.
pub(crate) fn hold(steps: &[Step], on_disk: bool) -> Result<Counts, String> {
    // Where the store's syncs cost nothing, if there is such a place: what is held here is no durability.
    let place = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("retort-key-").tempdir_in(place).unwrap();
    let mut stage = Stage::new(folder.path(), on_disk);
    let last = steps.iter().rposition(|step| matches!(step, Step::Run(_)));
    let mut told = Ok(());
    for (at, step) in steps.iter().enumerate() {
        told = stage.take(step, Some(at) == last).map_err(|told| format!("step {at}, {step}\n  {told}"));
        if told.is_err() {
            break;
        }
    }
    forget_probes(folder.path());
    told.map(|()| stage.counts)
}

struct Stage<'a> {
    root: &'a Path,
    world: World,
    known: Known,
    memory: Option<Memory>,
    counts: Counts,
}

impl<'a> Stage<'a> {
    fn new(root: &'a Path, on_disk: bool) -> Self {
        for folder in FOLDERS {
            fs::create_dir_all(root.join("docs").join(folder)).unwrap();
        }
        let memory = (!on_disk).then(Memory::default);
        Stage { root, world: World::default(), known: Known::default(), memory, counts: Counts::default() }
    }

    fn take(&mut self, step: &Step, last: bool) -> Told {
        let Some(world) = self.world.after(step, self.root) else { return Ok(()) };
        self.world = world;
        let path = |folder: &str, name: &str| self.root.join("docs").join(folder).join(name);
        match step {
            Step::Write(folder, name, text) => fs::write(path(folder, name), text).unwrap(),
            Step::Delete(folder, name) => fs::remove_file(path(folder, name)).unwrap(),
            Step::Move(folder, old, new) => fs::rename(path(folder, old), path(folder, new)).unwrap(),
            Step::Touch(folder, name) => {
                let text = fs::read(path(folder, name)).unwrap();
                fs::write(path(folder, name), text).unwrap();
            }
            Step::Lose(loss) if self.memory.is_none() => self.lose(loss),
            Step::Run(run) => return self.run(run, last),
            _ => {}
        }
        Ok(())
    }

    fn store(&self) -> Box<dyn Store> {
        match &self.memory {
            Some(memory) => Box::new(memory.clone()),
            None => Box::new(Disk::open(self.root.join("store")).unwrap()),
        }
    }

    /// Deletes files of the store, and notes it down.
    fn lose(&mut self, loss: &Loss) {
        let store = self.root.join("store");
        let sharded =
            |kind: &str, hex: &str, ext: &str| store.join(kind).join(&hex[..2]).join(format!("{}.{ext}", &hex[2..]));
        match loss {
            Loss::Table(n) => {
                let Some(table) = nth(self.known.tables.iter(), *n).copied() else { return };
                fs::remove_file(sharded("tables", &table.to_string(), "parquet")).unwrap();
                self.known.tables.remove(&table);
            }
            Loss::Answer(n) => {
                let Some(recipe) = nth(self.known.answers.keys(), *n).copied() else { return };
                fs::remove_file(sharded("answers", &recipe.to_string(), "json")).unwrap();
                self.known.answers.remove(&recipe);
            }
            Loss::Rows(n) => {
                let Some(op) = nth(self.known.rows.keys(), *n).copied() else { return };
                // There is no folder where no row was ever committed.
                let _ = fs::remove_dir_all(store.join("rows").join(op.to_string()));
                self.known.rows.remove(&op);
            }
            Loss::View(node) => {
                if self.known.last.remove(node).is_some() {
                    fs::remove_file(store.join("view/fuzz").join(format!("{node}.json"))).unwrap();
                }
            }
            Loss::Digests => {
                let _ = fs::remove_file(self.root.join("digests.json"));
            }
        }
    }

    fn run(&mut self, run: &Run, last: bool) -> Told {
        let graph = self.world.check(self.root).expect("every step leaves a graph that checks");
        let key = answer(&self.world);
        same_shapes(&self.world, &graph, &key)?;
        let store = self.store();
        let digests = FileDigests::open(self.root.join("digests.json"));
        let find = |names: &[String]| names.iter().filter_map(|name| graph.find(name)).collect::<Vec<_>>();
        let (targets, force) = (find(&run.targets), find(&run.force));
        let (events, cancelled) = (Mutex::new(Vec::new()), Arc::new(AtomicBool::new(false)));
        let observer = |event: &Event| events.lock().unwrap().push(event.clone());
        let world = retort_engine::World {
            store: store.as_ref(),
            assets: &NoAssets,
            digests: &digests,
            events: &observer,
            cancelled: &cancelled,
        };
        let plans = retort_engine::plan(&graph, &targets, world).map_err(|error| format!("plan: {error}"))?;
        judge::planned(&self.known, &graph, &key, &plans)?;

        self.set_trouble(run, &cancelled);
        let limits = Limits { jobs: run.jobs, keep_going: run.keep_going, force };
        let summary = retort_engine::run(&graph, &targets, world, &limits);
        digests.save().unwrap();
        let events = events.into_inner().unwrap();
        let needed: Vec<String> = graph.needed(&targets).iter().map(|id| graph.node(*id).name.clone()).collect();
        let seen: BTreeMap<String, Seen> =
            needed.iter().map(|name| (name.clone(), Seen::of(name, &events, &self.root.join(name)))).collect();
        judge::summed(run, &seen, &summary)?;
        judge::ran(run, &mut self.known, &key, &seen, &needed)?;
        judge::stored(store.as_ref(), &key, &seen)?;
        self.count(&seen);
        if last && run.trouble.is_none() { self.held_from_scratch(&graph, &key) } else { Ok(()) }
    }

    fn set_trouble(&self, run: &Run, cancelled: &Arc<AtomicBool>) {
        let after = Arc::new(AtomicI64::new(run.trouble.map_or(0, |(_, after)| after)));
        let trouble = run.trouble.map(|(trouble, _)| {
            let stop = (trouble == Trouble::Stop).then(|| cancelled.clone());
            made::Trouble { after, stop }
        });
        for node in &self.world.nodes {
            probe(&self.root.join(&node.name)).begin(trouble.clone());
        }
    }

    fn count(&mut self, seen: &BTreeMap<String, Seen>) {
        self.counts.runs += 1;
        for seen in seen.values() {
            self.counts.ran += usize::from(seen.finished.is_some());
            self.counts.fresh += usize::from(seen.fresh.is_some());
            self.counts.asked += seen.asked.len();
            self.counts.recalled += seen.recalled.unwrap_or(0);
        }
    }

    /// The same graph on an empty store gives the same tables.
    fn held_from_scratch(&self, graph: &Graph, key: &BTreeMap<String, Keyed>) -> Told {
        let (store, digests) = (Memory::default(), FileDigests::in_memory());
        self.world.nodes.iter().for_each(|node| probe(&self.root.join(&node.name)).begin(None));
        let (events, cancelled) = (|_: &Event| (), AtomicBool::new(false));
        let world = retort_engine::World {
            store: &store,
            assets: &NoAssets,
            digests: &digests,
            events: &events,
            cancelled: &cancelled,
        };
        retort_engine::run(graph, &[], world, &Limits { jobs: 2, keep_going: false, force: Vec::new() });
        for (name, keyed) in key {
            let answer = store.last(&format!("fuzz/{name}")).unwrap();
            let ids: Vec<_> =
                answer.into_iter().flat_map(|answer| answer.outputs).map(|output| output.content).collect();
            same(&format!("{name} from scratch"), &ids, &keyed.outputs.iter().map(|(_, id, _)| *id).collect())?;
        }
        Ok(())
    }
}

fn nth<'a, T>(items: impl ExactSizeIterator<Item = &'a T>, n: usize) -> Option<&'a T> {
    let len = items.len();
    items.into_iter().nth(n.checked_rem(len)?)
}

/// The engine's facts, ports and columns are those of the answer key.
fn same_shapes(world: &World, graph: &Graph, key: &BTreeMap<String, Keyed>) -> Told {
    for sketch in &world.nodes {
        let node = graph.node(graph.find(&sketch.name).unwrap());
        let keyed = &key[&sketch.name];
        same(&format!("facts of {}", sketch.name), &node.made.facts, &keyed.recipe.op)?;
        let ports: Vec<_> = node.ports.iter().map(|(port, schema)| (port.clone(), schema.clone())).collect();
        let expected: Vec<_> = keyed.outputs.iter().map(|(port, _, batch)| (port.clone(), batch.schema())).collect();
        same(&format!("ports of {}", sketch.name), &ports, &expected)?;
    }
    Ok(())
}

impl Counts {
    pub(crate) fn add(&mut self, other: Counts) {
        self.runs += other.runs;
        self.ran += other.ran;
        self.fresh += other.fresh;
        self.asked += other.asked;
        self.recalled += other.recalled;
    }
}

//! What earlier runs saw of nodes' answers: one file (`file`) in place of one per node.
//!
//! An answer, its tables and the link to it are there as long as nothing comes to the folders that they lie in, or goes. So what was
//! seen is believed while the stamps of those folders are what they were, and told anew when a run ends:
//!
//! | folder | while it is as it was |
//! |---|---|
//! | `answers/51` | its answers that were seen are there |
//! | `tables/8c` | its tables that were seen are there |
//! | `view/<pipeline>` | the newest answers of the nodes are those that were seen |
//!
//! A run notes only what it saw in folders that were last changed before it began: its own commits are left to the next run. What a
//! file holds is not noted: a damaged table is found when it is read, as ever; a damaged answer when the memo can't speak for it, or
//! by `cache verify`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use super::Seen;
use super::file::{self, Memo, Shard};
use crate::disk::answer_path;
use crate::files::temporary_beside;
use crate::quarantine::Quarantine;
use crate::stamp::Stamp;
use crate::{RecipeId, StoreError};

/// What is noted, and what this run sees.
pub(crate) struct Noted {
    root: PathBuf,
    path: PathBuf,
    before: Memo,
    /// The stamps that this run found.
    shards: Vec<OnceLock<Option<Stamp>>>,
    views: Mutex<BTreeMap<String, Option<Stamp>>>,
    now: Mutex<Now>,
    /// Whether something was seen that was not noted.
    learned: AtomicBool,
}

/// What this run saw itself.
#[derive(Default)]
struct Now {
    seen: HashMap<String, Seen>,
    /// Answers that have another time stamp than was noted.
    stamped: HashSet<RecipeId>,
}

impl Noted {
    /// What is noted of the store in `root`. A memo that can't be read is begun anew, which is told to `quarantine`.
    pub(crate) fn of(root: &Path, quarantine: &Quarantine) -> Self {
        let path = root.join(file::PATH);
        let before = match fs::read(&path) {
            // Without the time at which an inode changed, a folder that was unpacked looks as it was.
            _ if cfg!(not(unix)) => None,
            Ok(bytes) => Memo::decode(&bytes).or_else(|| {
                let told = quarantine.take_and_tell(&path, "the memo of answers", "is begun anew");
                told.map_err(|error| quarantine.tell(error.with_cause())).ok();
                None
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let error = StoreError::io("read", &path)(error);
                quarantine.tell(format!("the memo of answers is not used: {}", error.with_cause()));
                None
            }
        };
        Noted {
            root: root.to_path_buf(),
            path,
            before: before.unwrap_or_default(),
            shards: Shard::all().map(|_| OnceLock::new()).collect(),
            views: Mutex::default(),
            now: Mutex::default(),
            learned: AtomicBool::new(false),
        }
    }

    /// The newest answer of a node, where nothing has to be looked at but folders.
    pub(crate) fn newest(&self, node: &str) -> Option<Seen> {
        let view = view_of(node);
        let known = lock(&self.views).get(view).copied();
        let stamp = known.unwrap_or_else(|| {
            let stamp = stamp(&self.root.join("view").join(view));
            lock(&self.views).insert(view.to_owned(), stamp);
            stamp
        });
        let as_it_was = stamp.is_some() && stamp == self.before.views.get(view).copied();
        if as_it_was { self.before.seen.get(node).filter(|seen| self.is_there(seen)).cloned() } else { None }
    }

    /// The newest answer of a node whose link leads to `recipe`.
    pub(crate) fn linked(&self, node: &str, recipe: RecipeId) -> Option<Seen> {
        let seen = self.before.seen.get(node).filter(|seen| seen.recipe == recipe && self.is_there(seen))?;
        self.saw(node, seen);
        Some(seen.clone())
    }

    /// The link of a node led to this.
    pub(crate) fn saw(&self, node: &str, seen: &Seen) {
        self.learned.store(true, Ordering::Relaxed);
        lock(&self.now).seen.insert(node.to_owned(), seen.clone());
    }

    /// An answer got a new time stamp.
    pub(crate) fn stamped(&self, recipe: RecipeId) {
        self.learned.store(true, Ordering::Relaxed);
        lock(&self.now).stamped.insert(recipe);
    }

    /// Writes what is true now, for the next run; `began` is the file system's time before anything was looked at.
    pub(crate) fn save(&self, began: SystemTime) -> Result<(), StoreError> {
        if cfg!(not(unix)) || !self.learned.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let (now, views) = (lock(&self.now), lock(&self.views));
        let shards: Vec<_> = Shard::all().map(|shard| stamp(&self.root.join(shard.path()))).collect();
        let at_end = |shard: Shard| shards[shard.index()];
        let is_settled = |shard: Shard| at_end(shard).is_some_and(|stamp| stamp.is_settled(began));
        let is_as_noted = |shard: Shard| is_same(self.before.shards[shard.index()], at_end(shard));

        // Of a folder of links that was not as noted, only what this run saw is known.
        let mut moved = HashSet::new();
        let mut stamps = self.before.views.clone();
        for view in views.keys() {
            stamps.remove(view);
            let at_end = stamp(&self.root.join("view").join(view));
            if let Some(stamp) = at_end.filter(|stamp| stamp.is_settled(began)) {
                stamps.insert(view.clone(), stamp);
                if self.before.views.get(view) != Some(&stamp) {
                    moved.insert(view.as_str());
                }
            }
        }
        let still = |(node, seen): &(&String, &Seen)| {
            !now.seen.contains_key(*node) && !moved.contains(view_of(node)) && seen.shards().all(is_as_noted)
        };
        let sure = |(_, seen): &(&String, &Seen)| seen.shards().all(is_settled);
        let dated = |(node, seen): (&String, &Seen)| {
            let mut seen = seen.clone();
            if now.stamped.contains(&seen.recipe) {
                let written = fs::metadata(answer_path(&self.root, seen.recipe)).and_then(|data| data.modified());
                seen.used = written.ok();
            }
            (node.clone(), seen)
        };
        let seen = self.before.seen.iter().filter(still).chain(now.seen.iter().filter(sure)).map(dated).collect();
        let memo = Memo { seen, shards, views: stamps };
        self.write(&memo.encode())
    }

    /// Not synced: a memo that a power cut tore is begun anew.
    fn write(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = temporary_beside(&self.path)?;
        let written = fs::write(&temporary, bytes).map_err(StoreError::io("write", &temporary));
        let renamed =
            written.and_then(|()| fs::rename(&temporary, &self.path).map_err(StoreError::io("rename to", &self.path)));
        renamed.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// Whether an answer that was seen is still there, with its tables.
    fn is_there(&self, seen: &Seen) -> bool {
        seen.shards().all(|shard| is_same(self.before.shards[shard.index()], self.stamp(shard)))
    }

    /// The stamp of a folder as this run first saw it.
    fn stamp(&self, shard: Shard) -> Option<Stamp> {
        *self.shards[shard.index()].get_or_init(|| stamp(&self.root.join(shard.path())))
    }
}

/// The stamp of a folder, if it is there.
fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().as_ref().map(Stamp::of)
}

/// Whether a folder was there, and is as it was.
fn is_same(before: Option<Stamp>, now: Option<Stamp>) -> bool {
    before.is_some() && before == now
}

/// The folder of a node's link, below `view`.
fn view_of(node: &str) -> &str {
    node.rsplit_once('/').map_or("", |(view, _)| view)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use crate::disk::table_path;
    use crate::stamp::GRANULE;
    use crate::{Answer, Disk, Fact, Output, Recipe, RecipeId, Store};

    use super::*;

    const NODES: usize = 40;

    fn names() -> Vec<String> {
        (0..NODES).map(|n| format!("pipe/n{n}")).collect()
    }

    /// An answer with one table.
    fn answer(store: &Disk, n: u64) -> Answer {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![n.cast_signed()]));
        let batch = RecordBatch::try_from_iter([("number", numbers)]).unwrap();
        let mut writer = store.writer(batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        let table = writer.finish().unwrap();
        let recipe = Recipe { op: vec![Fact::new("op.name", format!("test {n}"))], inputs: vec![] };
        let outputs = vec![Output { port: "out".into(), content: table.id, rows: 1 }];
        Answer { version: crate::ANSWER_VERSION, op: "test".into(), recipe, outputs }
    }

    fn filled(root: &Path) -> Vec<Answer> {
        let store = Disk::open(root).unwrap();
        let answers: Vec<_> = (0..NODES as u64).map(|n| answer(&store, n)).collect();
        for (name, answer) in names().iter().zip(&answers) {
            store.commit(name, answer).unwrap();
        }
        answers
    }

    /// A node's newest answer, and what it gave if all of it is there.
    type Sight = Option<(RecipeId, Option<Vec<Output>>)>;

    /// What a run that looks at all nodes sees.
    fn looked(root: &Path) -> Vec<Sight> {
        looked_while(root, &names(), || {})
    }

    /// The same of these nodes; then something happens before the run ends.
    fn looked_while(root: &Path, names: &[String], meanwhile: impl FnOnce()) -> Vec<Sight> {
        let store = Disk::open(root).unwrap();
        store.read_ahead(names);
        let see = |name: &String| {
            store.wait_for(name);
            let recipe = store.newest(name).unwrap()?;
            Some((recipe, store.recall(recipe).unwrap()))
        };
        let seen = names.iter().map(see).collect();
        meanwhile();
        store.looked();
        seen
    }

    /// The same, node by node from the files.
    fn truth(root: &Path, names: &[String]) -> Vec<Sight> {
        let store = Disk::open(root).unwrap();
        let see = |name: &String| {
            let recipe = store.newest(name).unwrap()?;
            Some((recipe, store.recall(recipe).unwrap()))
        };
        names.iter().map(see).collect()
    }

    /// Lets the file system's time pass what is written now.
    fn wait() {
        std::thread::sleep(GRANULE * 3);
    }

    fn n_noted(root: &Path) -> usize {
        Memo::decode(&fs::read(root.join(file::PATH)).unwrap_or_default()).map_or(0, |memo| memo.seen.len())
    }

    #[test]
    fn what_was_seen_is_not_read_again_until_it_may_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let answers = filled(root);
        looked(root);
        assert!(n_noted(root) < NODES, "the last were written a moment ago");
        wait();
        let seen = looked(root);
        assert_eq!(n_noted(root), NODES);
        // Written over in place: no folder changes. Nobody writes so, and who reads the files again would see.
        let paths: Vec<_> = answers.iter().map(|answer| answer_path(root, answer.recipe.id())).collect();
        let texts: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        paths.iter().for_each(|path| fs::write(path, "no answer").unwrap());
        assert_eq!(looked(root), seen, "no answer is read");
        paths.iter().zip(texts).for_each(|(path, text)| fs::write(path, text).unwrap());
        // A file that comes makes its folder unknown, and no other.
        let beside = paths[0].with_file_name("something");
        fs::write(&beside, "else").unwrap();
        fs::remove_file(&paths[0]).unwrap();
        let again = looked(root);
        assert_eq!(again[1..], seen[1..]);
        assert_ne!(again[0], seen[0]);
    }

    #[test]
    fn of_nodes_that_were_not_looked_at_the_link_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let answers = filled(root);
        wait();
        looked(root);
        Disk::open(root).unwrap().point(&names()[NODES - 1], &answers[0]).unwrap();
        wait();
        looked_while(root, &names()[..NODES / 2], || {});
        assert_eq!(n_noted(root), NODES / 2);
        assert_eq!(looked(root)[NODES - 1].as_ref().unwrap().0, answers[0].recipe.id());
        looked_while(root, &names()[..NODES / 2], || {});
        assert_eq!(n_noted(root), NODES, "nothing has changed since");
    }

    #[test]
    fn a_memo_that_is_torn_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        filled(root);
        wait();
        let seen = looked(root);
        let path = root.join(file::PATH);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let store = Disk::open(root).unwrap();
        store.read_ahead(&names());
        assert_eq!(
            store.told(),
            [format!(
                "the memo of answers was damaged; it lies in `{}` now, and is begun anew",
                root.join("quarantine/assets/answers").display()
            )]
        );
        drop(store);
        assert_eq!(looked(root), seen);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn whatever_changes_the_memo_says_what_the_files_say() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut answers = filled(root);
        let mut random = 7_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let mut n_believed = 0;
        for round in 0..150 {
            for _ in 0..next(3) {
                let n = next(NODES);
                let old = answers[n].clone();
                match next(4) {
                    // Answered anew, or with what another node has.
                    0 => {
                        let store = Disk::open(root).unwrap();
                        answers[n] = answer(&store, next(2 * NODES) as u64);
                        store.commit(&names()[n], &answers[n]).unwrap();
                    }
                    // Its link leads to another's answer.
                    1 => {
                        answers[n] = answers[next(NODES)].clone();
                        Disk::open(root).unwrap().point(&names()[n], &answers[n]).unwrap();
                    }
                    2 => drop(fs::remove_file(answer_path(root, old.recipe.id()))),
                    _ => drop(fs::remove_file(table_path(root, old.outputs[0].content))),
                }
            }
            let some = &names()[next(2) * NODES / 2..];
            let truth = truth(root, some);
            if next(2) == 0 {
                wait();
            }
            n_believed += n_noted(root);
            // Others are at work meanwhile.
            let (what, one, other) = (next(6), next(NODES), next(NODES));
            let seen = looked_while(root, some, || match what {
                0 => {
                    answers[one] = answers[other].clone();
                    Disk::open(root).unwrap().point(&names()[one], &answers[one]).unwrap();
                }
                1 => drop(fs::remove_file(table_path(root, answers[one].outputs[0].content))),
                _ => {}
            });
            for (n, (seen, truth)) in seen.iter().zip(&truth).enumerate() {
                let whole = |side: &Sight| side.clone().filter(|side| side.1.is_some());
                assert_eq!(whole(seen), whole(truth), "round {round}, node {n}");
            }
            for (n, truth) in (NODES - some.len()..).zip(&truth) {
                if truth.as_ref().is_none_or(|(_, outputs)| outputs.is_none()) && next(2) == 0 {
                    let store = Disk::open(root).unwrap();
                    answers[n] = answer(&store, n as u64);
                    store.commit(&names()[n], &answers[n]).unwrap();
                }
            }
        }
        assert!(n_believed > 1000, "{n_believed}: the memo was of use");
    }
}

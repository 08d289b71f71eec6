//! Answers that were read before they are asked for: reading many small files is most of what a run with nothing to do does.
//!
//! Threads read in the order in which they were told of nodes; who comes to a node that is still to be read reads others until it was. What
//! was read is handed out once. It is a hint, not a truth: whatever is not here is read from its file. What an earlier run saw, and is
//! still so, is not read again (`noted`).

pub(crate) mod file;
pub(crate) mod noted;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use crate::RecipeId;
use crate::store::Output;

/// Nodes that a thread takes at once.
const SOME: usize = 32;
/// Answers that may stay although nobody asked for them.
const UNASKED: usize = 8192;

/// What was seen of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub recipe: RecipeId,
    pub outputs: Vec<Output>,
    /// When it was written or last used, if that is known.
    pub used: Option<SystemTime>,
}

/// The newest answers of some nodes.
#[derive(Default)]
pub(crate) struct Ahead(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Some more were read.
    more: Condvar,
}

#[derive(Default)]
struct State {
    answers: HashMap<RecipeId, Seen>,
    newest: HashMap<String, RecipeId>,
    /// Nodes that no thread took yet.
    queue: VecDeque<String>,
    /// Nodes in the queue, and those that a thread reads.
    unread: HashSet<String>,
    readers: usize,
}

impl Ahead {
    /// Begins to read the newest answers of some nodes that were not read yet; `known` are those that need not be read.
    pub(crate) fn begin(
        &self,
        nodes: &[String],
        known: impl Fn(&str) -> Option<Seen>,
        read: impl Fn(&str) -> Option<Seen> + Clone + Send + 'static,
    ) {
        let mut state = self.0.lock();
        if state.newest.len() > UNASKED {
            (state.answers, state.newest) = (HashMap::new(), HashMap::new());
        }
        for node in nodes {
            if state.newest.contains_key(node) || state.unread.contains(node) {
                continue;
            }
            if let Some(seen) = known(node) {
                state.add(node.clone(), seen);
            } else {
                state.unread.insert(node.clone());
                state.queue.push_back(node.clone());
            }
        }
        // The thread that asks for the answers is one, too.
        let readers = thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1);
        while state.readers < readers.min(state.queue.len().div_ceil(SOME)) {
            let (shared, read) = (self.0.clone(), read.clone());
            state.readers += 1;
            if thread::Builder::new().spawn(move || shared.read_all(&read)).is_err() {
                // Where no thread can be had, all is read when it is asked for.
                state.readers -= 1;
                if state.readers == 0 {
                    (state.queue, state.unread) = (VecDeque::new(), HashSet::new());
                }
                break;
            }
        }
    }

    /// Waits for a node that is still to be read, and meanwhile reads some of those that no thread took.
    pub(crate) fn wait_for(&self, node: &str, read: &impl Fn(&str) -> Option<Seen>) {
        let mut state = self.0.lock();
        while state.unread.contains(node) {
            state = if state.queue.is_empty() {
                self.0.more.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.0.read_some(state, read)
            };
        }
    }

    /// Forgets what nobody asked for: whoever looks later may find another answer.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        (state.answers, state.newest) = (HashMap::new(), HashMap::new());
        (state.queue, state.unread) = (VecDeque::new(), HashSet::new());
        drop(state);
        self.0.more.notify_all();
    }

    /// The answer to a question, where it was read.
    pub(crate) fn answer(&self, recipe: RecipeId) -> Option<Seen> {
        self.0.lock().answers.remove(&recipe)
    }

    /// The question of the newest answer of a node, where it was read.
    pub(crate) fn newest(&self, node: &str) -> Option<RecipeId> {
        self.0.lock().newest.remove(node)
    }
}

impl State {
    fn add(&mut self, node: String, seen: Seen) {
        self.newest.insert(node, seen.recipe);
        self.answers.insert(seen.recipe, seen);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until nothing is left to be taken.
    fn read_all(&self, read: &impl Fn(&str) -> Option<Seen>) {
        let mut state = self.lock();
        while !state.queue.is_empty() {
            state = self.read_some(state, read);
        }
        state.readers -= 1;
    }

    /// Takes some nodes and reads them.
    fn read_some<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        read: &impl Fn(&str) -> Option<Seen>,
    ) -> MutexGuard<'a, State> {
        let n = SOME.min(state.queue.len());
        let nodes: Vec<String> = state.queue.drain(..n).collect();
        drop(state);
        // Those who wait for a node must not wait for a thread that panicked.
        let newest = |node: &String| catch_unwind(AssertUnwindSafe(|| read(node))).ok().flatten();
        let answers: Vec<_> = nodes.iter().map(newest).collect();
        let mut state = self.lock();
        for (node, seen) in nodes.into_iter().zip(answers) {
            let is_wanted = state.unread.remove(&node);
            if let Some(seen) = seen.filter(|_| is_wanted) {
                state.add(node, seen);
            }
        }
        self.more.notify_all();
        state
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::pins::GRACE;
    use crate::{Answer, Disk, Fact, Recipe, Store};

    fn answer(n: u32) -> Answer {
        let recipe = Recipe { op: vec![Fact::new("op.name", format!("test {n}"))], inputs: vec![] };
        Answer { version: crate::answers::ANSWER_VERSION, op: "test".into(), recipe, outputs: vec![] }
    }

    #[test]
    fn what_was_read_ahead_is_handed_out_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Disk::open(folder.path()).unwrap();
        let names: Vec<_> = (0..100).map(|n| format!("pipe/n{n}")).collect();
        for (name, n) in names.iter().zip(0..) {
            store.commit(name, &answer(n)).unwrap();
        }
        fs::remove_file(folder.path().join("view/pipe/n7.json")).unwrap();
        fs::write(folder.path().join("view/pipe/n7.json"), "no answer").unwrap();
        store.read_ahead(&names);
        store.read_ahead(&names);
        names.iter().rev().for_each(|name| store.wait_for(name));
        for n in 0..100 {
            let hex = answer(n).recipe.id().to_string();
            let path = folder.path().join(format!("answers/{}/{}.json", &hex[..2], &hex[2..]));
            fs::remove_file(&path).unwrap();
            fs::write(&path, "no answer any more").unwrap();
        }
        for (name, n) in names.iter().zip(0..) {
            let recipe = answer(n).recipe.id();
            assert_eq!(store.newest(name).unwrap(), (n != 7).then_some(recipe));
            assert_eq!(store.recall(recipe).unwrap(), (n != 7).then(Vec::new));
            assert_eq!(store.recall(recipe).unwrap(), None, "the file is the truth");
        }
    }

    #[test]
    fn what_nobody_asked_for_does_not_outlive_the_look() {
        let folder = tempfile::tempdir().unwrap();
        let store = Disk::open(folder.path()).unwrap();
        let names = ["pipe/node".to_string()];
        store.commit(&names[0], &answer(1)).unwrap();
        store.read_ahead(&names);
        store.wait_for(&names[0]);
        store.commit(&names[0], &answer(2)).unwrap();
        store.looked();
        assert_eq!(store.newest(&names[0]).unwrap(), Some(answer(2).recipe.id()));
    }

    #[test]
    fn an_old_answer_is_stamped_although_it_was_read_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (answer(1), answer(2));
        let store = Disk::open(folder.path()).unwrap();
        store.commit("pipe/old", &old).unwrap();
        store.commit("pipe/new", &new).unwrap();
        drop(store);
        let path = |answer: &Answer| {
            let hex = answer.recipe.id().to_string();
            folder.path().join(format!("answers/{}/{}.json", &hex[..2], &hex[2..]))
        };
        let stamp = |answer: &Answer| fs::metadata(path(answer)).unwrap().modified().unwrap();
        let before = [2 * GRACE, GRACE / 2].map(|age| stamp(&new) - age);
        for (answer, at) in [&old, &new].into_iter().zip(before) {
            fs::File::options().append(true).open(path(answer)).unwrap().set_modified(at).unwrap();
        }

        let store = Disk::open(folder.path()).unwrap();
        let names = ["pipe/old".to_string(), "pipe/new".to_string()];
        store.read_ahead(&names);
        names.iter().for_each(|name| store.wait_for(name));
        assert_eq!(store.recall(old.recipe.id()).unwrap(), Some(old.outputs.clone()));
        assert_eq!(store.recall(new.recipe.id()).unwrap(), Some(new.outputs.clone()));
        assert!(stamp(&old) > before[0] + GRACE, "it is in use");
        assert_eq!(stamp(&new), before[1], "its stamp is new enough");
    }
}

//! Answers that were read before they are asked for, side by side: reading many small files is most of what a run with nothing to do does.
//!
//! While the answers of some nodes are handed out, those of the next are read. What was read is handed out once. It is a hint, not
//! a truth: whatever is not here is read from its file.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::RecipeId;
use crate::store::Answer;

/// The newest answers of some nodes.
#[derive(Default)]
pub(crate) struct Ahead(Mutex<Read>);

#[derive(Default)]
struct Read {
    answers: HashMap<RecipeId, Answer>,
    newest: HashMap<String, RecipeId>,
    /// Who reads the next.
    reader: Option<JoinHandle<Vec<Newest>>>,
}

/// The newest answer of a node, with its question.
type Newest = (String, RecipeId, Answer);

impl Ahead {
    /// Begins to read the newest answers of some nodes. What was begun before is waited for and takes the place of all that is here.
    pub(crate) fn begin(&self, nodes: Vec<String>, read: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) {
        let mut state = self.read();
        let answers = state.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        (state.answers, state.newest) = (HashMap::with_capacity(answers.len()), HashMap::with_capacity(answers.len()));
        for (node, recipe, answer) in answers {
            state.newest.insert(node, recipe);
            state.answers.insert(recipe, answer);
        }
        if !nodes.is_empty() {
            // Where no thread can be had, all is read when it is asked for.
            state.reader = thread::Builder::new().spawn(move || read_all(nodes, &read)).ok();
        }
    }

    /// The answer to a question.
    pub(crate) fn answer(&self, recipe: RecipeId) -> Option<Answer> {
        self.read().answers.remove(&recipe)
    }

    /// The question of the newest answer of a node.
    pub(crate) fn newest(&self, node: &str) -> Option<RecipeId> {
        self.read().newest.remove(node)
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads answers on as many threads as there are processors. They are threads of their own: who waits for them may be one of a pool.
fn read_all(nodes: Vec<String>, read: &(impl Fn(&str) -> Option<Answer> + Sync)) -> Vec<Newest> {
    let some = |nodes: Vec<String>| -> Vec<Newest> {
        let newest = |node: String| read(&node).map(|answer| (node, answer.recipe.id(), answer));
        nodes.into_iter().filter_map(newest).collect()
    };
    let mut rest = nodes;
    let share = rest.len().div_ceil(thread::available_parallelism().map_or(1, NonZero::get));
    thread::scope(|scope| {
        let mut readers = Vec::new();
        while rest.len() > share {
            let nodes = rest.split_off(rest.len() - share);
            readers.push(scope.spawn(|| some(nodes)));
        }
        let mut answers = some(rest);
        readers.into_iter().filter_map(|reader| reader.join().ok()).for_each(|read| answers.extend(read));
        answers
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        store.read_ahead(&[]);
        for n in 0..100 {
            let hex = answer(n).recipe.id().to_string();
            let path = folder.path().join(format!("answers/{}/{}.json", &hex[..2], &hex[2..]));
            fs::remove_file(&path).unwrap();
            fs::write(&path, "no answer any more").unwrap();
        }
        for (name, n) in names.iter().zip(0..) {
            let expected = (n != 7).then(|| answer(n));
            assert_eq!(store.newest(name).unwrap(), expected.as_ref().map(|answer| answer.recipe.id()));
            assert_eq!(store.recall(answer(n).recipe.id()).unwrap(), expected);
            assert_eq!(store.recall(answer(n).recipe.id()).unwrap(), None, "the file is the truth");
        }
    }
}

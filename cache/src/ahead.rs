//! Answers that were read before they are asked for, side by side: reading many small files is most of what a run with nothing to do does.
//!
//! What was read is handed out once. It is a hint, not a truth: whatever is not here is read from its file.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::RecipeId;
use crate::store::Answer;

/// The newest answers of some nodes.
#[derive(Default)]
pub(crate) struct Ahead(Mutex<Read>);

#[derive(Default)]
struct Read {
    answers: HashMap<RecipeId, Answer>,
    newest: HashMap<String, RecipeId>,
}

impl Ahead {
    /// Puts the newest answers of some nodes in the place of all that is here.
    pub(crate) fn put(&self, answers: Vec<(String, Answer)>) {
        let mut read = Read::default();
        for (node, answer) in answers {
            let recipe = answer.recipe.id();
            read.newest.insert(node, recipe);
            read.answers.insert(recipe, answer);
        }
        *self.read() = read;
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
        self.0.lock().expect("no thread panics while it holds what was read")
    }
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

//! Read-through: what the store on disk does not know, the remote store is asked. Nothing is sent there.
//!
//! An answer comes when it is recalled, a table when it is opened, remembered rows when an operator's row log is. What is not
//! what its name promises is noted and counts as not known: the question is asked again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::datatypes::SchemaRef;

use super::travel::{Moved, fetch, pull_rows};
use super::{Object, Remote};
use crate::claim::Claimed;
use crate::disk::Disk;
use crate::store::{Answer, Output, RowMemo, Store, Table, TableWriter};
use crate::{ContentId, RecipeId, StoreError};

/// A store on disk with a remote one behind it. Clones share what they know.
#[derive(Clone)]
pub struct ReadThrough {
    disk: Arc<Disk>,
    remote: Arc<Remote>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Operators whose rows were brought.
    rows: BTreeSet<RecipeId>,
    moved: Moved,
}

impl ReadThrough {
    /// Puts `remote` behind `disk`.
    pub fn new(disk: Disk, remote: Remote) -> Self {
        ReadThrough { disk: Arc::new(disk), remote: Arc::new(remote), state: Arc::default() }
    }

    /// The store on disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The remote store.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// What came from the remote store so far.
    pub fn moved(&self) -> Moved {
        self.state().moved.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the tally")
    }

    /// What is not true is noted, and is not there.
    fn known<T>(&self, found: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
        match found {
            Err(StoreError::Untrue { what }) => {
                let untrue = &mut self.state().moved.untrue;
                if !untrue.contains(&what) {
                    untrue.push(what);
                }
                Ok(None)
            }
            found => found,
        }
    }
}

impl Store for ReadThrough {
    fn recall(&self, recipe: RecipeId) -> Result<Option<Vec<Output>>, StoreError> {
        if let Some(outputs) = self.disk.recall(recipe)? {
            return Ok(Some(outputs));
        }
        let Some((answer, bytes)) = self.known(self.remote.answer(recipe))? else { return Ok(None) };
        for output in answer.outputs.iter().filter(|output| !self.disk.has_table(output.content)) {
            if self.remote.size(Object::Table(output.content))?.is_none() {
                return Ok(None);
            }
        }
        self.state().moved.count(Object::Answer(recipe), bytes);
        Ok(Some(answer.outputs))
    }

    fn open(&self, content: ContentId) -> Result<Option<Table>, StoreError> {
        if !self.disk.has_table(content) {
            let object = Object::Table(content);
            let Some(bytes) = self.known(fetch(&self.disk, &self.remote, object))? else { return Ok(None) };
            self.state().moved.count(object, bytes);
        }
        self.disk.open(content)
    }

    fn table(&self, output: &Output, schema: &SchemaRef) -> Result<Option<Table>, StoreError> {
        if self.disk.has_table(output.content) { self.disk.table(output, schema) } else { self.open(output.content) }
    }

    fn read_ahead(&self, nodes: &[String]) {
        self.disk.read_ahead(nodes);
    }

    fn wait_for(&self, node: &str) {
        self.disk.wait_for(node);
    }

    fn looked(&self) {
        self.disk.looked();
    }

    fn last(&self, node: &str) -> Result<Option<Answer>, StoreError> {
        self.disk.last(node)
    }

    fn newest(&self, node: &str) -> Result<Option<RecipeId>, StoreError> {
        self.disk.newest(node)
    }

    fn writer(&self, schema: SchemaRef) -> Result<Box<dyn TableWriter>, StoreError> {
        self.disk.writer(schema)
    }

    fn commit(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        self.disk.commit(node, answer)
    }

    fn point(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        // What came from afar is not on disk before it is recorded.
        match self.disk.recall(answer.recipe.id())? {
            Some(_) => self.disk.point(node, answer),
            None => self.disk.commit(node, answer),
        }
    }

    fn claim(&self, recipe: RecipeId, node: &str) -> Result<Claimed, StoreError> {
        self.disk.claim(recipe, node)
    }

    fn rows(&self, op: RecipeId, schema: SchemaRef) -> Result<Arc<dyn RowMemo>, StoreError> {
        let is_new = self.state().rows.insert(op);
        if is_new {
            let moved = pull_rows(&self.disk, &self.remote, op)?;
            let mut state = self.state();
            state.moved.segments += moved.segments;
            state.moved.bytes += moved.bytes;
            state.moved.untrue.extend(moved.untrue);
        }
        self.disk.rows(op, schema)
    }

    fn told(&self) -> Vec<String> {
        self.disk.told()
    }

    fn workspace(&self, recipe: RecipeId) -> Result<PathBuf, StoreError> {
        self.disk.workspace(recipe)
    }
}

//! A look at what two stores know together, with no table fetched: a plan over it tells what a pull must bring.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{Schema, SchemaRef};

use super::{Object, Remote};
use crate::claim::Claimed;
use crate::disk::Disk;
use crate::store::{Answer, Batches, Output, RowMemo, Source, Store, Table, TableWriter};
use crate::{ContentId, Memory, RecipeId, StoreError};

/// A store to plan over. Tables that only the remote store has are there by name, without rows; nothing is written.
pub struct Survey<'a> {
    disk: &'a Disk,
    remote: &'a Remote,
    memory: Memory,
    untrue: Mutex<Vec<String>>,
}

impl<'a> Survey<'a> {
    /// Looks at both.
    pub fn new(disk: &'a Disk, remote: &'a Remote) -> Self {
        Survey { disk, remote, memory: Memory::default(), untrue: Mutex::default() }
    }

    /// The answers of the remote store that are not what their names promise.
    pub fn untrue(self) -> Vec<String> {
        self.untrue.into_inner().expect("no thread panicked")
    }
}

impl Store for Survey<'_> {
    fn recall(&self, recipe: RecipeId) -> Result<Option<Vec<Output>>, StoreError> {
        if let Some(outputs) = self.disk.recall(recipe)? {
            return Ok(Some(outputs));
        }
        match self.remote.answer(recipe) {
            Ok(answer) => Ok(answer.map(|(answer, _)| answer.outputs)),
            Err(StoreError::Untrue { .. }) => {
                let what = self.remote.url_of(Object::Answer(recipe));
                self.untrue.lock().expect("no thread panics while it holds it").push(what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn open(&self, content: ContentId) -> Result<Option<Table>, StoreError> {
        let stand_in =
            || Table { id: content, schema: Arc::new(Schema::empty()), rows: 0, source: Arc::new(Elsewhere) };
        Ok(Some(self.disk.open(content)?.unwrap_or_else(stand_in)))
    }

    fn last(&self, node: &str) -> Result<Option<Answer>, StoreError> {
        self.disk.last(node)
    }

    fn writer(&self, schema: SchemaRef) -> Result<Box<dyn TableWriter>, StoreError> {
        self.memory.writer(schema)
    }

    fn commit(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        self.memory.commit(node, answer)
    }

    fn point(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        self.memory.point(node, answer)
    }

    fn claim(&self, recipe: RecipeId, node: &str) -> Result<Claimed, StoreError> {
        self.memory.claim(recipe, node)
    }

    fn rows(&self, op: RecipeId, schema: SchemaRef) -> Result<Arc<dyn RowMemo>, StoreError> {
        self.memory.rows(op, schema)
    }

    fn workspace(&self, recipe: RecipeId) -> Result<PathBuf, StoreError> {
        self.memory.workspace(recipe)
    }
}

/// The rows of a table that was not fetched.
struct Elsewhere;

impl Source for Elsewhere {
    fn batches(&self) -> Result<Batches, StoreError> {
        Ok(Box::new(std::iter::empty()))
    }
}

//! A store that lives as long as its process, for tests and for runs that leave nothing behind.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::claim::{Claim, Claimed};
use crate::content::ContentHasher;
use crate::store::{Answer, Batches, Output, RowAnswer, RowMemo, Source, Store, Table, TableWriter};
use crate::{ContentId, RecipeId, RowKey, StoreError};

/// Answers, tables and rows in memory. Clones share them.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    tables: HashMap<ContentId, Table>,
    answers: HashMap<RecipeId, Answer>,
    newest: BTreeMap<String, RecipeId>,
    rows: HashMap<RecipeId, Arc<MemoryRows>>,
    claims: HashSet<RecipeId>,
}

impl Memory {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("no thread panics while it holds the store")
    }
}

impl Store for Memory {
    fn recall(&self, recipe: RecipeId) -> Result<Option<Vec<Output>>, StoreError> {
        let contents = self.contents();
        let answer = contents.answers.get(&recipe);
        let whole = |answer: &&Answer| answer.outputs.iter().all(|out| contents.tables.contains_key(&out.content));
        Ok(answer.filter(whole).map(|answer| answer.outputs.clone()))
    }

    fn open(&self, content: ContentId) -> Result<Option<Table>, StoreError> {
        Ok(self.contents().tables.get(&content).cloned())
    }

    fn last(&self, node: &str) -> Result<Option<Answer>, StoreError> {
        let contents = self.contents();
        Ok(contents.newest.get(node).and_then(|recipe| contents.answers.get(recipe)).cloned())
    }

    fn writer(&self, schema: SchemaRef) -> Result<Box<dyn TableWriter>, StoreError> {
        let hasher = ContentHasher::new(&schema);
        Ok(Box::new(MemoryWriter { store: self.clone(), hasher, schema, batches: Vec::new() }))
    }

    fn commit(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        let mut contents = self.contents();
        let recipe = answer.recipe.id();
        let workspace = workspace(recipe);
        if workspace.exists() {
            std::fs::remove_dir_all(&workspace).map_err(StoreError::io("remove", &workspace))?;
        }
        contents.answers.insert(recipe, answer.clone());
        contents.newest.insert(node.to_string(), recipe);
        Ok(())
    }

    fn point(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        self.contents().newest.insert(node.to_string(), answer.recipe.id());
        Ok(())
    }

    fn claim(&self, recipe: RecipeId, _node: &str) -> Result<Claimed, StoreError> {
        let is_free = self.contents().claims.insert(recipe);
        Ok(if is_free { Claimed::Ours(Claim::of(MemoryClaim(self.clone(), recipe))) } else { Claimed::Taken(None) })
    }

    fn rows(&self, op: RecipeId, _schema: SchemaRef) -> Result<Arc<dyn RowMemo>, StoreError> {
        Ok(self.contents().rows.entry(op).or_default().clone())
    }

    fn workspace(&self, recipe: RecipeId) -> Result<PathBuf, StoreError> {
        let path = workspace(recipe);
        std::fs::create_dir_all(&path).map_err(StoreError::io("create", &path))?;
        Ok(path)
    }
}

struct MemoryClaim(Memory, RecipeId);

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        self.0.contents().claims.remove(&self.1);
    }
}

fn workspace(recipe: RecipeId) -> PathBuf {
    std::env::temp_dir().join(format!("retort-{}-{recipe}", std::process::id()))
}

#[derive(Default)]
struct MemoryRows(Mutex<HashMap<RowKey, RowAnswer>>);

impl MemoryRows {
    fn rows(&self) -> MutexGuard<'_, HashMap<RowKey, RowAnswer>> {
        self.0.lock().expect("no thread panics while it holds the rows")
    }
}

impl RowMemo for MemoryRows {
    fn recall(&self, keys: &[RowKey]) -> Result<Vec<Option<RowAnswer>>, StoreError> {
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    fn knows(&self, keys: &[RowKey]) -> Result<Vec<bool>, StoreError> {
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.contains_key(key)).collect())
    }

    fn commit(&self, answers: &[(RowKey, RowAnswer)]) -> Result<(), StoreError> {
        self.rows().extend(answers.iter().cloned());
        Ok(())
    }
}

struct MemoryTable(Vec<RecordBatch>);

impl Source for MemoryTable {
    fn batches(&self) -> Result<Batches, StoreError> {
        Ok(Box::new(self.0.clone().into_iter().map(Ok)))
    }
}

struct MemoryWriter {
    store: Memory,
    hasher: ContentHasher,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl TableWriter for MemoryWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.hasher.update(batch)?;
        self.batches.push(batch.clone());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Table, StoreError> {
        let MemoryWriter { store, hasher, schema, batches } = *self;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let table = Table { id: hasher.finish(), schema, rows, source: Arc::new(MemoryTable(batches)) };
        store.contents().tables.insert(table.id, table.clone());
        Ok(table)
    }
}

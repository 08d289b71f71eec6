//! The store on disk: `.retort/`.
//!
//! | path | what |
//! |---|---|
//! | `version` | the store's format |
//! | `tables/8c/2f….parquet` | a table, named by its content; read-only |
//! | `answers/51/ab….json` | what a recipe gave |
//! | `rows/<operator>/*.rows` | remembered rows (`rowlog`) |
//! | `view/<pipeline>/<node>.parquet`, `.json` | links to the newest table and answer of a node, for people and other tools |
//! | `work/<recipe>/` | checkpoints of what is not finished |
//! | `claims/<recipe>` | a lock while the question is answered (`claim`) |
//! | `pins/` | who uses the store, so that a sweep leaves what they use (`pins`) |
//! | `quarantine/` | damaged files, under the paths that they had |
//!
//! Everything is written to a temporary file in the same folder, synced and renamed. There are no locks to be left behind:
//! locks are the kernel's, and two processes that answer the same question all the same write the same bytes under the same name.

mod sizes;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::ahead::noted::Noted;
use crate::ahead::{Ahead, Seen};
use crate::claim::{Claimed, Claims};
use crate::content::ContentHasher;
use crate::files::{equal, link_atomically, rename_into_place, temporary_beside};
use crate::parquet::FileWriter;
use crate::pins::{self, Pins};
use crate::quarantine::Quarantine;
use crate::rowlog::RowLog;
use crate::store::{Answer, Output, RowMemo, Store, Table, TableWriter};
use crate::table_file::{TableFile, Whole};
use crate::{ContentId, Digest, RecipeId, StoreError, answers, version, work};
use answers::Found;

/// A store in a folder.
pub struct Disk {
    root: PathBuf,
    claims: Claims,
    pins: Arc<Pins>,
    quarantine: Arc<Quarantine>,
    whole: Arc<Whole>,
    ahead: Ahead,
    /// Of the run that looks now.
    noted: Mutex<Option<Arc<Noted>>>,
}

impl Disk {
    /// Opens the store in `root`, or begins one there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let quarantine = Arc::new(Quarantine::of(&root));
        version::check(&root.join("version"), &quarantine)?;
        let (claims, pins) = (Claims::in_folder(root.join("claims")), Pins::of_store(&root, quarantine.clone()));
        let pins = Arc::new(pins);
        let (ahead, noted) = (Ahead::default(), Mutex::default());
        Ok(Disk { root, claims, pins, quarantine, whole: Arc::default(), ahead, noted })
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The record of an answer, whether or not its tables are still there: what was asked, and what came of it.
    pub fn record(&self, recipe: RecipeId) -> Result<Option<Answer>, StoreError> {
        self.answer(&self.answer_path(recipe))
    }

    /// Keeps a table from being swept as long as this process lives. `false` if it is gone.
    pub fn keep_table(&self, content: ContentId) -> Result<bool, StoreError> {
        self.pins.pin(&self.table_path(content), || pins::table(content))
    }

    pub(crate) fn table_path(&self, content: ContentId) -> PathBuf {
        table_path(&self.root, content)
    }

    fn table_file(&self, id: ContentId) -> TableFile {
        let (whole, quarantine) = (self.whole.clone(), self.quarantine.clone());
        TableFile { id, path: self.table_path(id), whole, quarantine }
    }

    /// An answer that can't be read, or of another format, is one that is not known: its question is asked again.
    fn answer(&self, path: &Path) -> Result<Option<Answer>, StoreError> {
        match answers::read(path)? {
            Found::Answer(answer) => Ok(Some(answer)),
            Found::Nothing | Found::OtherFormat => Ok(None),
            Found::Damaged => {
                // Of a link the file that it leads to; a link that was changed itself leads nowhere.
                let file = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
                let path = if fs::read_link(path).is_ok() { self.below_root(&file) } else { path.to_path_buf() };
                self.quarantine.take_and_tell(&path, "an answer", "its question is asked again")?;
                Ok(None)
            }
        }
    }

    /// Reads the newest answers of nodes for `ahead`.
    fn ahead_reader(&self) -> impl Fn(&str) -> Option<Seen> + Clone + Send + 'static {
        let (root, quarantine, noted) = (self.root.clone(), self.quarantine.clone(), self.noted());
        move |node| {
            // What can't be read is read again when it is asked for.
            let told = |error: StoreError| quarantine.tell(format!("at first {}", error.with_cause()));
            newest(&root, node, &noted).map_err(told).ok().flatten()
        }
    }

    /// What earlier runs saw, read when it is asked for first.
    fn noted(&self) -> Arc<Noted> {
        self.lock_noted().get_or_insert_with(|| Arc::new(Noted::of(&self.root, &self.quarantine))).clone()
    }

    fn lock_noted(&self) -> MutexGuard<'_, Option<Arc<Noted>>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A canonical path as one below the store's folder, however that was named.
    fn below_root(&self, path: &Path) -> PathBuf {
        let root = fs::canonicalize(&self.root).ok();
        let below = root.and_then(|root| path.strip_prefix(root).ok().map(|below| self.root.join(below)));
        below.unwrap_or_else(|| path.to_path_buf())
    }

    pub(crate) fn answer_path(&self, recipe: RecipeId) -> PathBuf {
        answer_path(&self.root, recipe)
    }

    /// Moves a link away that leads nowhere: it was changed, or what it led to is gone. Without it nothing else is lost.
    fn clear_dead_link(&self, link: &Path) {
        if fs::read_link(link).is_ok() && !link.exists() {
            let told = self.quarantine.take_and_tell(link, &format!("the link `{}`", link.display()), "is made anew");
            if let Err(error) = told {
                self.quarantine.tell(format!("the link `{}` leads nowhere; {error}", link.display()));
            }
        }
    }

    fn view_path(&self, node: &str, suffix: &str) -> PathBuf {
        view_path(&self.root, node, suffix)
    }
}

impl Store for Disk {
    fn recall(&self, recipe: RecipeId) -> Result<Option<Vec<Output>>, StoreError> {
        let path = self.answer_path(recipe);
        let ahead = self.ahead.answer(recipe);
        let kept = ahead.as_ref().and_then(|seen| seen.used).is_some_and(|used| self.pins.keeps(used));
        // Kept before it is read, and before what was seen ahead is believed: a sweep takes answers before their tables.
        if !kept && !self.pins.keep(&path, || pins::answer(recipe))? {
            return Ok(None);
        }
        if let Some(seen) = ahead {
            if !kept {
                self.noted().stamped(recipe);
            }
            return Ok(Some(seen.outputs));
        }
        let Some(answer) = self.answer(&path)? else { return Ok(None) };
        Ok((answer.recipe.id() == recipe && has_tables(&self.root, &answer)?).then_some(answer.outputs))
    }

    fn open(&self, content: ContentId) -> Result<Option<Table>, StoreError> {
        if !self.keep_table(content)? {
            return Ok(None);
        }
        let file = self.table_file(content);
        let (schema, rows) = file.describe()?;
        Ok(Some(Table { id: content, schema, rows, source: Arc::new(file) }))
    }

    fn table(&self, output: &Output, schema: &SchemaRef) -> Result<Option<Table>, StoreError> {
        let source = Arc::new(self.table_file(output.content));
        Ok(Some(Table { id: output.content, schema: schema.clone(), rows: output.rows, source }))
    }

    fn last(&self, node: &str) -> Result<Option<Answer>, StoreError> {
        let path = self.view_path(node, "json");
        let answer = self.answer(&path)?;
        if answer.is_none() {
            self.clear_dead_link(&path);
        }
        Ok(answer)
    }

    fn read_ahead(&self, nodes: &[String]) {
        // What is seen after that is kept, if it is not old. Where it fails, it fails again where that is said.
        let _ = self.pins.sign_in();
        let noted = self.noted();
        self.ahead.begin(nodes, |node| noted.newest(node), self.ahead_reader());
    }

    fn looked(&self) {
        self.ahead.end();
        // Without the time of a sign-in it is not known how old a folder is.
        if let (Some(noted), Some(began)) = (self.lock_noted().take(), self.pins.began())
            && let Err(error) = noted.save(began)
        {
            self.quarantine.tell(format!("the memo of answers is not kept: {}", error.with_cause()));
        }
    }

    fn wait_for(&self, node: &str) {
        self.ahead.wait_for(node, &self.ahead_reader());
    }

    fn newest(&self, node: &str) -> Result<Option<RecipeId>, StoreError> {
        if let Some(recipe) = self.ahead.newest(node) {
            return Ok(Some(recipe));
        }
        match fs::read_link(self.view_path(node, "json")) {
            Ok(target) => {
                let link = self.view_path(node, "json");
                self.clear_dead_link(&link);
                Ok(recipe_of(&target).filter(|_| link.exists()))
            }
            // Where links can't be made there are copies.
            Err(_) => Ok(self.last(node)?.map(|answer| answer.recipe.id())),
        }
    }

    fn writer(&self, schema: SchemaRef) -> Result<Box<dyn TableWriter>, StoreError> {
        self.pins.sign_in()?;
        let temporary = temporary_beside(&self.root.join("tables").join("new"))?;
        let file = File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
        Ok(Box::new(DiskWriter {
            hasher: ContentHasher::new(&schema),
            file: FileWriter::new(file, &temporary, schema.clone())?,
            guard: Temporary(temporary),
            store: (self.root.join("tables"), self.whole.clone(), self.quarantine.clone()),
            pins: self.pins.clone(),
            schema,
            rows: 0,
        }))
    }

    fn commit(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        let recipe = answer.recipe.id();
        let path = self.answer_path(recipe);
        // Written anew even where it is the same: by its time stamp a sweep knows that it is new.
        self.pins.sign_in()?;
        answers::write(&path, answer)?;
        self.point(node, answer)?;
        let workspace = work::folder(&self.root, recipe);
        if workspace.exists() {
            fs::remove_dir_all(&workspace).map_err(StoreError::io("remove", &workspace))?;
        }
        Ok(())
    }

    fn point(&self, node: &str, answer: &Answer) -> Result<(), StoreError> {
        let up = "../".repeat(1 + node.matches('/').count());
        let hex = answer.recipe.id().to_string();
        for output in &answer.outputs {
            let suffix = if output.port == "out" { "parquet".to_string() } else { format!("{}.parquet", output.port) };
            let target = format!("{up}tables/{}", sharded(&output.content.to_string(), "parquet"));
            link_atomically(&self.view_path(node, &suffix), Path::new(&target))?;
        }
        // Last: where it is right, the others are.
        link_atomically(&self.view_path(node, "json"), Path::new(&format!("{up}answers/{}", sharded(&hex, "json"))))?;
        Ok(())
    }

    fn claim(&self, recipe: RecipeId, node: &str) -> Result<Claimed, StoreError> {
        self.claims.take(recipe, node)
    }

    fn rows(&self, op: RecipeId, schema: SchemaRef) -> Result<Arc<dyn RowMemo>, StoreError> {
        let folder = self.root.join("rows").join(op.to_string());
        self.pins.pin_folder(&folder, pins::rows(op))?;
        Ok(Arc::new(RowLog::of_store(&folder, schema, self.quarantine.clone())?))
    }

    fn told(&self) -> Vec<String> {
        self.quarantine.told()
    }

    fn workspace(&self, recipe: RecipeId) -> Result<PathBuf, StoreError> {
        let path = work::folder(&self.root, recipe);
        work::open(&path, &self.quarantine)?;
        Ok(path)
    }
}

struct DiskWriter {
    file: FileWriter,
    hasher: ContentHasher,
    guard: Temporary,
    store: (PathBuf, Arc<Whole>, Arc<Quarantine>),
    pins: Arc<Pins>,
    schema: SchemaRef,
    rows: u64,
}

impl TableWriter for DiskWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.hasher.update(batch)?;
        self.rows += batch.num_rows() as u64;
        self.file.write(batch)
    }

    fn finish(self: Box<Self>) -> Result<Table, StoreError> {
        let DiskWriter { file, hasher, guard, store: (tables, whole, quarantine), pins, schema, rows } = *self;
        let id = hasher.finish();
        let file = file.seal(id)?;
        let path = tables.join(sharded(&id.to_string(), "parquet"));
        let table = TableFile { id, path, whole, quarantine };
        pins.renew(&table.path, &guard.0, || pins::table(id))?;
        // Under the name lies the same table, if it is whole. Equal tables are equal files, so that is soon seen.
        if !table.path.exists() || (!equal(&guard.0, &table.path)? && table.heal()?) {
            file.sync_all().map_err(StoreError::io("sync", &guard.0))?;
            let mut permissions = file.metadata().map_err(StoreError::io("inspect", &guard.0))?.permissions();
            permissions.set_readonly(true);
            fs::set_permissions(&guard.0, permissions).map_err(StoreError::io("protect", &guard.0))?;
            let folder = table.path.parent().expect("tables have a folder");
            fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
            rename_into_place(&guard.0, &table.path)?;
        }
        table.whole.add(id);
        Ok(Table { id, schema, rows, source: Arc::new(table) })
    }
}

/// A file that goes when nobody renamed it.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next clean-up takes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// The newest answer of a node, if its tables are there.
fn newest(root: &Path, node: &str, noted: &Noted) -> Result<Option<Seen>, StoreError> {
    let view = view_path(root, node, "json");
    // The stamp counts of the answer itself: where links can't be made, that of the copy says nothing.
    let linked = fs::read_link(&view).ok().and_then(|link| recipe_of(&link));
    if let Some(seen) = linked.and_then(|recipe| noted.linked(node, recipe)) {
        return Ok(Some(seen));
    }
    let path = linked.map_or(view, |recipe| answer_path(root, recipe));
    let Some((Found::Answer(answer), written)) = answers::read_dated(&path)? else { return Ok(None) };
    if !has_tables(root, &answer)? {
        return Ok(None);
    }
    let recipe = answer.recipe.id();
    let seen = Seen { recipe, outputs: answer.outputs, used: linked.map(|_| written) };
    if linked == Some(recipe) {
        noted.saw(node, &seen);
    }
    Ok(Some(seen))
}

pub(crate) fn answer_path(root: &Path, recipe: RecipeId) -> PathBuf {
    root.join("answers").join(sharded(&recipe.to_string(), "json"))
}

fn has_tables(root: &Path, answer: &Answer) -> Result<bool, StoreError> {
    for output in &answer.outputs {
        let path = table_path(root, output.content);
        if !path.try_exists().map_err(StoreError::io("inspect", &path))? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(crate) fn table_path(root: &Path, content: ContentId) -> PathBuf {
    root.join("tables").join(sharded(&content.to_string(), "parquet"))
}

fn view_path(root: &Path, node: &str, suffix: &str) -> PathBuf {
    root.join("view").join(format!("{node}.{suffix}"))
}

/// `8c2f…` in a folder of its first two digits: `8c/2f….parquet`.
pub(crate) fn sharded(hex: &str, extension: &str) -> String {
    format!("{}/{}.{extension}", &hex[..2], &hex[2..])
}

/// The recipe whose answer a link leads to: `sharded` read backwards.
fn recipe_of(link: &Path) -> Option<RecipeId> {
    let tail = link.file_stem()?.to_str()?;
    let head = link.parent()?.file_name()?.to_str()?;
    Digest::from_hex(&format!("{head}{tail}")).map(RecipeId)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::answers::ANSWER_VERSION;
    use crate::{Fact, Recipe, parquet};

    fn batch(from: i64, n: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + n));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((from..from + n).map(|i| format!("row {i}"))));
        RecordBatch::try_from_iter([("number", numbers), ("text", texts)]).unwrap()
    }

    fn write(store: &Disk, batches: &[RecordBatch]) -> Table {
        let mut writer = store.writer(batches[0].schema()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn equal_tables_are_equal_files_however_they_were_batched() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole = write(&Disk::open(one.path()).unwrap(), &[batch(0, 10_000)]);
        let parts: Vec<_> = (0..100).map(|i| batch(i * 100, 100)).collect();
        let parts = write(&Disk::open(two.path()).unwrap(), &parts);
        assert_eq!(whole.id, parts.id);
        assert_eq!(fs::read(whole.path().unwrap()).unwrap(), fs::read(parts.path().unwrap()).unwrap());
        assert_eq!(crate::content_id(&whole).unwrap(), whole.id, "the name survives the file");
    }

    #[test]
    fn an_answer_is_recalled_while_its_tables_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Disk::open(folder.path()).unwrap();
        let table = write(&store, &[batch(0, 3)]);
        let recipe = Recipe { op: vec![Fact::new("op.name", "test")], inputs: vec![] };
        let output = Output { port: "out".into(), content: table.id, rows: 3 };
        let answer = Answer { version: ANSWER_VERSION, op: "test".into(), recipe, outputs: vec![output] };
        assert_eq!(store.recall(answer.recipe.id()).unwrap(), None);
        store.commit("pipe/node", &answer).unwrap();
        assert_eq!(store.recall(answer.recipe.id()).unwrap(), Some(answer.outputs.clone()));
        assert_eq!(store.last("pipe/node").unwrap(), Some(answer.clone()));
        assert_eq!(parquet::describe(&folder.path().join("view/pipe/node.parquet")).unwrap().1, 3);
        fs::remove_file(table.path().unwrap()).unwrap();
        assert_eq!(store.recall(answer.recipe.id()).unwrap(), None);
    }

    #[test]
    fn another_format_is_refused_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("version"), "7\n").unwrap();
        let error = Disk::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("store format 7"), "{error}");
    }
}

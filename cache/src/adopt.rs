//! Takes into a store what another store gave. Each piece is verified before it gets its name.
//!
//! | piece | how it is verified |
//! |---|---|
//! | a table | its rows are hashed, and must give its name; they are written anew |
//! | an answer | its facts are hashed, and must give its name; its ports must be fit for file names |
//! | a segment of remembered rows | its bytes are hashed, and must give its name |
//!
//! That an answer names the right tables can't be verified without asking the question again: whoever may write to a store
//! that is shared is trusted with that.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::answers::{self, Found};
use crate::content::ContentHasher;
use crate::disk::Disk;
use crate::files::{rename_into_place, temporary_beside};
use crate::{Answer, ContentId, Digest, RecipeId, StoreError, parquet};

/// A file on its way into a store. It goes when nobody adopts it.
pub struct Incoming {
    file: File,
    path: PathBuf,
}

impl Incoming {
    fn beside(path: &Path) -> Result<Self, StoreError> {
        let path = temporary_beside(path)?;
        let file = File::create(&path).map_err(StoreError::io("create", &path))?;
        Ok(Incoming { file, path })
    }

    /// Where it is being written, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn into_place(self, to: &Path, read_only: bool) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("sync", &self.path))?;
        if read_only {
            let mut permissions = self.file.metadata().map_err(StoreError::io("inspect", &self.path))?.permissions();
            permissions.set_readonly(true);
            fs::set_permissions(&self.path, permissions).map_err(StoreError::io("protect", &self.path))?;
        }
        let folder = to.parent().expect("store paths have a folder");
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        rename_into_place(&self.path, to)
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After it was adopted there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

impl Disk {
    /// A file for a table that is on its way.
    pub fn incoming_table(&self) -> Result<Incoming, StoreError> {
        Incoming::beside(&self.root().join("tables/new"))
    }

    /// A file for a segment of rows that is on its way.
    pub fn incoming_rows(&self, op: RecipeId) -> Result<Incoming, StoreError> {
        Incoming::beside(&self.rows_folder(op).join("new"))
    }

    /// Whether a table is there.
    pub fn has_table(&self, content: ContentId) -> bool {
        self.table_path(content).exists()
    }

    /// Takes a table, if its rows have the name `content`; `origin` is where it came from. What enters the store is written anew:
    /// what the file says beside its rows (statistics, encodings, unused bytes) is not trusted. Rows that would fill more than
    /// `most` bytes are refused: a short file can hold very many.
    pub fn adopt_table(&self, content: ContentId, table: &Incoming, origin: &str, most: u64) -> Result<(), StoreError> {
        let copy = self.incoming_table()?;
        if rewrite(&table.path, &copy.path, origin, most)? != Some(content) {
            return Err(StoreError::Untrue { what: origin.into() });
        }
        copy.into_place(&self.table_path(content), true)
    }

    /// Takes a segment of remembered rows, if its bytes have the name `digest`.
    pub fn adopt_rows(&self, op: RecipeId, digest: Digest, rows: Incoming, origin: &str) -> Result<(), StoreError> {
        let mut file = File::open(&rows.path).map_err(StoreError::io("open", &rows.path))?;
        if segment_digest(&mut file, u64::MAX).map_err(StoreError::io("read", &rows.path))?.0 != digest {
            return Err(StoreError::Untrue { what: origin.into() });
        }
        let path = self.rows_folder(op).join(format!("{}.rows", digest.hex()));
        rows.into_place(&path, false)
    }

    /// Takes an answer whose tables are all here; gives whether they were.
    pub fn adopt_answer(&self, answer: &Answer) -> Result<bool, StoreError> {
        for output in &answer.outputs {
            if !self.keep_table(output.content)? {
                return Ok(false);
            }
        }
        answers::write(&self.answer_path(answer.recipe.id()), answer)?;
        Ok(true)
    }

    /// All answers that can be read, whether their tables are there or not.
    pub fn answers(&self) -> Result<Vec<Answer>, StoreError> {
        let mut all = Vec::new();
        for folder in entries(&self.root().join("answers"))? {
            for path in entries(&folder)?.iter().filter(|path| has_extension(path, "json")) {
                if let Found::Answer(answer) = answers::read(path)? {
                    all.push(answer);
                }
            }
        }
        Ok(all)
    }

    /// The operators whose rows are remembered.
    pub fn operators_with_rows(&self) -> Result<Vec<RecipeId>, StoreError> {
        let name = |path: &PathBuf| Digest::from_hex(path.file_name()?.to_str()?).map(RecipeId);
        Ok(entries(&self.root().join("rows"))?.iter().filter_map(name).collect())
    }

    /// The segments of an operator's remembered rows.
    pub fn row_segments(&self, op: RecipeId) -> Result<Vec<PathBuf>, StoreError> {
        let mut paths = entries(&self.rows_folder(op))?;
        paths.retain(|path| has_extension(path, "rows"));
        Ok(paths)
    }

    pub(crate) fn rows_folder(&self, op: RecipeId) -> PathBuf {
        self.root().join("rows").join(op.to_string())
    }
}

/// The answer in a file that another store gave for `recipe`; `None` where it is none, or another's.
pub fn true_answer(recipe: RecipeId, text: &[u8]) -> Option<Answer> {
    let Found::Answer(answer) = answers::parse(text) else { return None };
    let is_name = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        !name.is_empty() && name.len() <= 100 && name.chars().all(plain)
    };
    let is_true = answer.recipe.id() == recipe && answer.outputs.iter().all(|output| is_name(&output.port));
    is_true.then_some(answer)
}

/// The name of a segment of remembered rows: the digest of its first `length` bytes, and how many there were.
pub fn segment_digest(reader: &mut impl Read, length: u64) -> std::io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new_derive_key("retort row segment 1");
    let mut buffer = vec![0; 1 << 20];
    let mut reader = reader.take(length);
    let mut bytes = 0;
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            return Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), bytes));
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// Writes the rows of one file to another, and names them; `None` where there is no table in the file.
fn rewrite(from: &Path, to: &Path, origin: &str, most: u64) -> Result<Option<ContentId>, StoreError> {
    let copy = || -> Result<ContentId, StoreError> {
        let (schema, _) = parquet::describe(from)?;
        let file = File::options().write(true).open(to).map_err(StoreError::io("open", to))?;
        let mut hasher = ContentHasher::new(&schema);
        let mut writer = parquet::FileWriter::new(file, to, schema)?;
        let mut bytes = 0;
        for batch in parquet::read(from)? {
            let batch = batch?;
            bytes += (batch.get_array_memory_size() + 16 * batch.num_rows()) as u64;
            if bytes > most {
                let error = std::io::Error::new(std::io::ErrorKind::FileTooLarge, "its rows fill too many bytes");
                return Err(StoreError::io("take", Path::new(origin))(error));
            }
            hasher.update(&batch)?;
            writer.write(&batch)?;
        }
        let id = hasher.finish();
        writer.seal(id)?;
        Ok(id)
    };
    match catch_unwind(copy) {
        Ok(Ok(id)) => Ok(Some(id)),
        Ok(Err(StoreError::Io { verb, path, source })) => Err(StoreError::Io { verb, path, source }),
        // What a reader of Parquet refuses, or trips over, is no table.
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// What lies in a folder, sorted; nothing, where there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(StoreError::io("list", folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::{Fact, Output, Recipe, Store};

    fn table(store: &Disk) -> (ContentId, Vec<u8>) {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]).unwrap();
        let mut writer = store.writer(schema).unwrap();
        writer.write(&batch).unwrap();
        let table = writer.finish().unwrap();
        (table.id, fs::read(table.path().unwrap()).unwrap())
    }

    fn adopt(store: &Disk, content: ContentId, bytes: &[u8]) -> Result<(), StoreError> {
        let mut incoming = store.incoming_table().unwrap();
        incoming.write_all(bytes).unwrap();
        store.adopt_table(content, &incoming, "there", u64::MAX)
    }

    #[test]
    fn only_what_a_name_promises_is_taken() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (Disk::open(here.path()).unwrap(), Disk::open(there.path()).unwrap());
        let (content, bytes) = table(&there);
        for wrong in [&bytes[..bytes.len() - 9], b"", b"PAR1"] {
            let error = adopt(&here, content, wrong).unwrap_err();
            assert!(error.to_string().contains("`there` is not what its name promises"), "{error}");
        }
        // A bit that changes a row is found; of the others nothing is left.
        let mut found = 0;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let Ok(()) = adopt(&here, content, &flipped) else {
                found += 1;
                continue;
            };
            assert_eq!(fs::read(here.table_path(content)).unwrap(), bytes, "byte {at}");
            fs::remove_file(here.table_path(content)).unwrap();
            fs::remove_dir(here.table_path(content).parent().unwrap()).unwrap();
        }
        assert!(found > bytes.len() / 4, "{found} of {}", bytes.len());
        assert!(!here.has_table(content));
        assert_eq!(entries(&here.root().join("tables")).unwrap(), Vec::<PathBuf>::new(), "nothing is left behind");
        let mut incoming = here.incoming_table().unwrap();
        incoming.write_all(&bytes).unwrap();
        let error = here.adopt_table(content, &incoming, "there", 10).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "rows that fill too much are refused: {error}");
        assert!(!here.has_table(content));
        adopt(&here, content, &bytes).unwrap();
        assert_eq!(here.open(content).unwrap().unwrap().rows, 3);
    }

    #[test]
    fn an_answer_of_another_question_or_with_a_path_for_a_port_is_not_true() {
        let recipe = Recipe { op: vec![Fact::new("op.name", "test")], inputs: vec![] };
        let content = ContentId(Digest::from_bytes([7; 32]));
        let answer = |port: &str| Answer {
            version: answers::ANSWER_VERSION,
            op: "test".into(),
            recipe: recipe.clone(),
            outputs: vec![Output { port: port.into(), content, rows: 1 }],
        };
        let text = |port: &str| answers::text(&answer(port)).into_bytes();
        assert_eq!(true_answer(recipe.id(), &text("out")), Some(answer("out")));
        assert_eq!(true_answer(recipe.id(), &text("../../out")), None);
        assert_eq!(true_answer(Recipe::default().id(), &text("out")), None);
        assert_eq!(true_answer(recipe.id(), b"{}"), None);
    }
}

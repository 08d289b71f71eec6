//! A stored table's file: opened when its rows are asked for, held to its seal before and to its name while they pass by.
//!
//! | what is met | what comes of it |
//! |---|---|
//! | the bytes break the seal (`seal`), all rows were read and do not give the name, or can't be decoded | the file is read once more; if it is damaged indeed it goes to `quarantine/`, and `Corrupt` names it |
//! | the system can't read (an error of the disk, a permission) | that error; the file stays where it is |
//! | there is no file | `Gone` |
//!
//! A table that was read whole once, or written by this process, is not hashed again as long as the process lives. Columns and
//! number of rows are held to the seal whenever they are asked for. Only of a file without a seal is what changes no value not noticed.

use std::collections::HashSet;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::content::ContentHasher;
use crate::quarantine::Quarantine;
use crate::seal::{self, Seal};
use crate::store::{Batches, Source};
use crate::{ContentId, StoreError, parquet};

/// The tables that this process knows to be whole.
#[derive(Debug, Default)]
pub(crate) struct Whole(Mutex<HashSet<ContentId>>);

impl Whole {
    pub(crate) fn add(&self, id: ContentId) {
        self.ids().insert(id);
    }

    fn has(&self, id: ContentId) -> bool {
        self.ids().contains(&id)
    }

    fn remove(&self, id: ContentId) {
        self.ids().remove(&id);
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, HashSet<ContentId>> {
        self.0.lock().expect("no thread panics while it holds the ids")
    }
}

/// A table's file.
#[derive(Clone)]
pub(crate) struct TableFile {
    pub(crate) id: ContentId,
    pub(crate) path: PathBuf,
    pub(crate) whole: Arc<Whole>,
    pub(crate) quarantine: Arc<Quarantine>,
}

impl Source for TableFile {
    fn batches(&self) -> Result<Batches, StoreError> {
        let is_known = self.whole.has(self.id);
        let sealed = || if is_known { Ok(()) } else { self.unbroken(seal::check(&self.path, self.id)?) };
        let opened = sealed().and_then(|()| guarded(|| parquet::open(&self.path)));
        let (schema, batches) = opened.map_err(|error| self.explain(error))?;
        let hasher = (!is_known).then(|| ContentHasher::new(&schema));
        Ok(Box::new(Checked { file: self.clone(), batches, hasher, ended: false }))
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

impl TableFile {
    /// The columns and the number of rows, from the file's end.
    pub(crate) fn describe(&self) -> Result<(SchemaRef, u64), StoreError> {
        let sealed = || self.unbroken(seal::check_tail(&self.path, self.id)?);
        sealed().and_then(|()| guarded(|| parquet::describe(&self.path))).map_err(|error| self.explain(error))
    }

    fn unbroken(&self, seal: Seal) -> Result<(), StoreError> {
        if seal != Seal::Broken {
            return Ok(());
        }
        Err(StoreError::table("read", self.path.display())("its bytes are not those that were written"))
    }

    /// Whether the bytes are those that were written and the rows give the name. An error is one of the system.
    pub(crate) fn is_whole(&self) -> Result<bool, StoreError> {
        if seal::check(&self.path, self.id)? == Seal::Broken {
            return Ok(false);
        }
        match guarded(|| name_of(&self.path)) {
            Ok(id) => Ok(id == self.id),
            Err(error) if is_of_the_system(&error) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Moves the file to the quarantine if it is damaged; whether it was.
    pub(crate) fn heal(&self) -> Result<bool, StoreError> {
        self.whole.remove(self.id);
        match self.is_whole() {
            Ok(true) => {
                self.whole.add(self.id);
                Ok(false)
            }
            Ok(false) => Ok(self.quarantine.take(&self.path)?.is_some()),
            Err(error) => Err(error),
        }
    }

    /// What a failed read means.
    fn explain(&self, error: StoreError) -> StoreError {
        if is_missing(&error) {
            return StoreError::Gone { id: self.id };
        }
        if is_of_the_system(&error) {
            return error;
        }
        self.whole.remove(self.id);
        match self.is_whole() {
            // Another process has put it right in between, or the first look was wrong: worth another.
            Ok(true) => {
                let why = error.with_cause();
                self.quarantine.tell(format!("table {} could not be read at first, and then could: {why}", self.id));
                StoreError::Corrupt { id: self.id, place: None }
            }
            Ok(false) => match self.quarantine.take(&self.path) {
                Ok(place) => StoreError::Corrupt { id: self.id, place: place.map(|place| place.display().to_string()) },
                Err(error) => error,
            },
            Err(error) if is_missing(&error) => StoreError::Gone { id: self.id },
            Err(error) => error,
        }
    }
}

/// Rows that are hashed as they pass by.
struct Checked {
    file: TableFile,
    batches: Batches,
    hasher: Option<ContentHasher>,
    ended: bool,
}

impl Iterator for Checked {
    type Item = Result<RecordBatch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = guarded(|| self.batches.next().transpose()).and_then(|batch| {
            if let (Some(hasher), Some(batch)) = (&mut self.hasher, &batch) {
                hasher.update(batch)?;
            }
            Ok(batch)
        });
        let error = match next {
            Ok(Some(batch)) => return Some(Ok(batch)),
            Ok(None) => self.hasher.take().and_then(|hasher| {
                if hasher.finish() == self.file.id {
                    self.file.whole.add(self.file.id);
                    return None;
                }
                Some(StoreError::Corrupt { id: self.file.id, place: None })
            }),
            Err(error) => Some(error),
        };
        self.ended = true;
        error.map(|error| Err(self.file.explain(error)))
    }
}

fn name_of(path: &Path) -> Result<ContentId, StoreError> {
    let (schema, batches) = parquet::open(path)?;
    let mut hasher = ContentHasher::new(&schema);
    for batch in batches {
        hasher.update(&batch?)?;
    }
    Ok(hasher.finish())
}

/// Damaged bytes can lead a decoder into a panic; that is damage too.
fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(StoreError::Table { verb: "read", path: "a table".into(), source: "its decoder panicked".into() })
    })
}

/// Whether the operating system is behind an error. A file that ends too early is damage.
fn is_of_the_system(error: &StoreError) -> bool {
    // The library turns some of them into text, with the number that the system gives them.
    causes(error).any(|error| system_error(error).is_some() || error.to_string().contains("(os error "))
}

fn is_missing(error: &StoreError) -> bool {
    causes(error).any(|error| system_error(error).is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound))
}

fn system_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a std::io::Error> {
    error.downcast_ref::<std::io::Error>().filter(|error| error.raw_os_error().is_some())
}

/// An error and what is behind it.
fn causes(error: &StoreError) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

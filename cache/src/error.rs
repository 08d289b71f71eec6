//! How a store can fail.

use crate::ContentId;

/// The world got in the way of a store. Never remembered.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("failed to {verb} `{path}`")]
    Io {
        /// What was tried: `open`, `read`, `write`, `sync`, `rename`.
        verb: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A stored table is not what its name promises: the file was changed or cut short.
    #[error("table {id} is damaged{}", moved(.place.as_deref()))]
    Corrupt {
        /// The name.
        id: ContentId,
        /// Where the file lies now, if this process moved it there.
        place: Option<String>,
    },
    /// A stored table is not there any more.
    #[error("table {id} is gone from the store")]
    Gone {
        /// The name.
        id: ContentId,
    },
    /// The store was written by another version of Retort.
    #[error("`{path}` has store format {found}; this version of retort reads format {expected}")]
    Version {
        /// The store's version file.
        path: String,
        /// What it says.
        found: String,
        /// What was expected.
        expected: u32,
    },
    /// What another store gave is not what its name promises.
    #[error("`{what}` is not what its name promises: it was changed or cut short, and is not taken")]
    Untrue {
        /// Where it came from.
        what: String,
    },
    /// A remote store failed.
    #[error("failed to {verb} `{url}`")]
    Remote {
        /// What was tried: `get`, `put`, `list`.
        verb: &'static str,
        /// The object, or the store.
        url: String,
        /// What the other side, or the way there, said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
        /// A way out.
        hint: Option<&'static str>,
    },
    /// Arrow or Parquet refused.
    #[error("failed to {verb} table `{path}`")]
    Table {
        /// What was tried.
        verb: &'static str,
        /// The file, or what stands for it.
        path: String,
        /// What the library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn moved(place: Option<&str>) -> String {
    place.map_or_else(String::new, |place| format!(": its file was moved to `{place}`"))
}

impl StoreError {
    /// A way out, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StoreError::Remote { hint, .. } => *hint,
            StoreError::Corrupt { .. } | StoreError::Gone { .. } => Some("`retort run` makes it again"),
            _ => None,
        }
    }

    /// The table that has to be made again, if that would help.
    pub fn lost_table(&self) -> Option<ContentId> {
        match self {
            StoreError::Corrupt { id, .. } | StoreError::Gone { id } => Some(*id),
            _ => None,
        }
    }

    /// The error with what the system or a library said, in one line.
    pub fn with_cause(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }

    /// For `map_err`: names the verb and the path of a failed file operation.
    pub fn io(verb: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> StoreError {
        let path = path.display().to_string();
        move |source| StoreError::Io { verb, path, source }
    }

    /// For `map_err`: names the verb and the file of a failed table operation.
    pub fn table<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        verb: &'static str,
        path: impl std::fmt::Display,
    ) -> impl FnOnce(E) -> StoreError {
        let path = format!("{path}");
        move |source| StoreError::Table { verb, path, source: source.into() }
    }
}

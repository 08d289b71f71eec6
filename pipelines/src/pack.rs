//! An experiment as one file: the pipeline with its documents and its lock, and by choice tables, remembered rows and models.
//!
//! A pack is a tar archive, compressed with zstd:
//!
//! | member | what |
//! |---|---|
//! | `manifest.json` | the format's version; every other member in order, with its bytes and its SHA-256 |
//! | `project/…` | what lies in the pipeline's folder: YAML files, documents, the lock, `retort.toml`, local models |
//! | `store/tables/…`, `store/rows/…`, `store/answers/…` | pieces of a store, named by their contents |
//!
//! The same content gives the same bytes: the order is fixed, and no time, owner or mode of a file gets in.
//!
//! A pack may come from a stranger. Unpacking writes nowhere but below the new folder and runs nothing; whatever is not
//! exactly as the manifest says, or has a name that could lead elsewhere, refuses the pack whole.

mod contents;
mod names;
mod read;
mod write;

use serde::{Deserialize, Serialize};

use retort_cache::StoreError;
use retort_engine::Failure;

use crate::lock::LockError;

pub use contents::{Choice, Contents};
pub use read::{place, unpack};
pub use write::write;

/// The format of a pack.
pub const VERSION: u32 = 1;
/// The member that lists the others.
const MANIFEST: &str = "manifest.json";
/// A manifest is at most so many bytes.
const MAX_MANIFEST: u64 = 64 << 20;
/// Where a project's files lie in a pack.
const PROJECT: &str = "project/";
/// Where the pieces of a store lie in a pack.
const STORE: &str = "store/";

/// What a pack says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format.
    pub version: u32,
    /// The version of Retort that wrote it.
    pub retort: String,
    /// The pipeline's file, from the project's folder.
    pub pipeline: String,
    /// In the order of the archive.
    pub members: Vec<Member>,
}

/// A file in a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its path, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

/// Why something can't be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file can't be read or written, or a store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A node's files or assets can't be looked at.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The lock can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file lies outside the folder that is packed.
    #[error("{what} `{path}` lies outside the pipeline's folder")]
    Outside {
        /// What it is: `the file`, `the model`.
        what: &'static str,
        /// As the pipeline names it.
        path: String,
    },
    /// A local model is neither packed nor pinned.
    #[error("the model of `{node}` is neither packed nor pinned by a digest: over there nobody could tell what it was")]
    Unpinned {
        /// The node.
        node: String,
    },
    /// A key stands in the pipeline itself.
    #[error("an `api_key` is written in `{path}`: it would be packed")]
    Secret {
        /// The pipeline's file.
        path: String,
    },
    /// A name that another machine could not have, or that leads elsewhere.
    #[error("`{path}` can't be packed: {why}")]
    Name {
        /// The name.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file changed while it was read.
    #[error("`{path}` changed while it was packed")]
    Changed {
        /// The file.
        path: String,
    },
    /// The pack is not one, or not as its manifest says.
    #[error("the pack is refused: {0}")]
    Refused(String),
    /// It would become too large.
    #[error("the pack is refused: it unpacks to {bytes}, more than {most}")]
    TooLarge {
        /// What it declares.
        bytes: String,
        /// What is allowed.
        most: String,
    },
    /// Something is in the way.
    #[error("`{path}` is there and not empty")]
    NotEmpty {
        /// The folder.
        path: String,
    },
    /// Something in the folder could lead elsewhere.
    #[error("`{path}` is a link or no folder: nothing is unpacked through it")]
    Link {
        /// The path.
        path: String,
    },
}

impl PackError {
    /// A way out, where there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            PackError::Outside { .. } => {
                Some("what is packed lies in or below the pipeline's folder: move it there, and name it from there")
            }
            PackError::Unpinned { .. } => Some("`--assets` packs it; `sha256:` pins it"),
            PackError::Secret { .. } => {
                Some("name a variable of the environment: `api_key: ${env.KEY}` and `env: [KEY]`")
            }
            PackError::TooLarge { .. } => Some("`--max-size` allows more"),
            PackError::NotEmpty { .. } => {
                Some("name another folder, or `--force` to put the files among those that are there")
            }
            PackError::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// A refusal, for `map_err` and early returns.
fn refused(why: impl Into<String>) -> PackError {
    PackError::Refused(why.into())
}

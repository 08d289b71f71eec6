//! Files outside the graph that an answer depends on: weights, tokenizers. Known by digest, fetched when they are needed.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::Failure;

/// A file outside the graph that an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// What it is to the operator: `model`. Its fact is `asset.model`.
    pub name: String,
    /// Where it comes from: `file:`, `pypi://`, `hf://` or `https://`; several when it comes in parts that are joined.
    pub sources: Vec<String>,
    /// The pinned SHA-256, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// The folder that `file:` sources are relative to.
    pub base: PathBuf,
}

/// Finds and fetches assets. Implemented above the engine, where the network is.
pub trait Assets: Send + Sync {
    /// The SHA-256 of an asset. A pinned one is not looked at.
    fn digest(&self, asset: &Asset) -> Result<String, Failure>;
    /// A local file with the asset's content, fetched and verified first if need be; `progress` is told bytes done and in all.
    fn path(
        &self,
        asset: &Asset,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), Failure>,
    ) -> Result<PathBuf, Failure>;
    /// How a node may start programs of this machine; `None` where the user has not allowed it to, by name.
    fn programs(&self, node: &str) -> Option<Programs> {
        let _ = node;
        None
    }
}

/// How a node may start programs of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// The folders in which a program is looked for by its name, as `PATH` has them.
    pub path: OsString,
}

//! What a running operator may touch. There is no clock, no environment, no global random generator.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use retort_cache::digests::FileDigests;
use retort_cache::{Digest, RecipeId, RowKey, Store, StoreError};

use crate::asset::{Asset, Assets, Programs};
use crate::event::{Event, EventKind, Observer};

/// The run could not answer. Never remembered, unlike a reject.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The person asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator could not do its work.
    #[error("{0}")]
    Op(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Failure {
    /// A failure of an operator, from an error or a message.
    pub fn op(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Failure::Op(error.into())
    }
}

/// What a plan or a run works with.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// Answers, tables and remembered rows.
    pub store: &'a dyn Store,
    /// Finds and fetches assets.
    pub assets: &'a dyn Assets,
    /// Digests of files, remembered by size, times and inode.
    pub digests: &'a FileDigests,
    /// Is told everything that happens.
    pub events: &'a dyn Observer,
    /// Set when the person asked to stop.
    pub cancelled: &'a AtomicBool,
}

/// What a running operator may touch.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    pub(crate) world: World<'a>,
    pub(crate) node: &'a str,
    pub(crate) recipe: RecipeId,
    /// Whether it may go on from what other questions left.
    pub(crate) inherits: bool,
}

impl Cx<'_> {
    /// The seed of a row: a function of its key alone.
    pub fn seed(&self, row: RowKey) -> u64 {
        u64::from_le_bytes(row.0.as_bytes()[..8].try_into().expect("a digest is longer"))
    }

    /// Says how far a table operator is, in its own unit (steps, questions); fails when the person asked to stop.
    pub fn progress(&self, done: u64, of: u64) -> Result<(), Failure> {
        self.emit(EventKind::Progress { done, of });
        self.check()
    }

    /// Says how many prompt and output tokens were processed since the last call.
    pub fn tokens(&self, prompt: u64, output: u64) {
        self.emit(EventKind::Tokens { prompt, output, left: None });
    }

    /// Says how many tokens were read since the last call, and how many are still to be: time goes with them, where steps are of unequal length.
    pub fn tokens_of(&self, read: u64, left: u64) {
        self.emit(EventKind::Tokens { prompt: read, output: 0, left: Some(left) });
    }

    /// Records named values of a training step, in order.
    pub fn metrics(&self, step: u64, values: Vec<(String, f64)>) {
        self.emit(EventKind::Metrics { step, values });
    }

    /// A line for the person who watches: why training stopped, what a server said.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(EventKind::Note { text: text.into() });
    }

    /// Fails when the person asked to stop.
    pub fn check(&self) -> Result<(), Failure> {
        if self.cancelled() { Err(Failure::Cancelled) } else { Ok(()) }
    }

    /// Whether the person asked to stop.
    pub fn cancelled(&self) -> bool {
        self.world.cancelled.load(Ordering::Relaxed)
    }

    /// A local file with the asset's content.
    pub fn asset(&self, asset: &Asset) -> Result<PathBuf, Failure> {
        let mut progress = |done, of| {
            self.emit(EventKind::Fetching { asset: asset.name.clone(), done, of });
            self.check()
        };
        self.world.assets.path(asset, &mut progress)
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        self.node
    }

    /// How the node may start programs; `None` where the user has not allowed it to.
    pub fn programs(&self) -> Option<Programs> {
        self.world.assets.programs(self.node)
    }

    /// The SHA-256 of an asset, as its fact has it.
    pub fn asset_digest(&self, asset: &Asset) -> Result<String, Failure> {
        self.world.assets.digest(asset)
    }

    /// The BLAKE3 digest of a file's content, remembered while its size, times and inode stay.
    pub fn file_digest(&self, path: &Path) -> Result<Digest, Failure> {
        Ok(self.file_content(path)?.0)
    }

    /// The same, and the content's length: a file that is remembered is looked at once.
    pub fn file_content(&self, path: &Path) -> Result<(Digest, u64), Failure> {
        Ok(self.world.digests.content(path)?)
    }

    /// A folder that survives a crash, for checkpoints of this very question. It goes when the answer is committed.
    pub fn workspace(&self) -> Result<PathBuf, Failure> {
        Ok(self.world.store.workspace(self.recipe)?)
    }

    /// A folder that outlives the answer, for work that other questions can go on from: `key` says all that the work there depends on, the operator and
    /// its version included. Several runs may use it at the same time, so files are replaced whole. None where the question is asked again
    /// to be sure of its answer (`--force`, `--verify`).
    pub fn heritage(&self, key: &str) -> Result<Option<PathBuf>, Failure> {
        let of = Digest::of("retort heritage 1", |hasher| _ = hasher.update(key.as_bytes()));
        Ok(if self.inherits { Some(self.world.store.workspace(RecipeId(of))?) } else { None })
    }

    pub(crate) fn emit(&self, kind: EventKind) {
        self.world.events.on(&Event { node: self.node.to_string(), kind });
    }
}

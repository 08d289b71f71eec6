//! Where a command works: the store's folder, the memo of file digests, the assets, the flag that stops all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use retort_cache::digests::FileDigests;
use retort_cache::quarantine::Quarantine;
use retort_cache::{Disk, Memory, Store};
use retort_engine::{Observer, World};

use super::stop::{Result, Stop, chain, warn};
use crate::fetch::Fetch;

/// The store's folder, where nothing else names one.
const FOLDER: &str = ".retort";
/// The file that marks a project's folder.
const PROJECT: &str = "retort.toml";

/// What a plan or a run works with, but for who watches.
pub(super) struct Workplace {
    /// The store's folder.
    pub root: PathBuf,
    /// Set when the person asked to stop.
    pub cancelled: Arc<AtomicBool>,
    store: Box<dyn Store>,
    digests: Arc<FileDigests>,
    assets: Box<Fetch>,
}

impl Workplace {
    /// Opens the store, or begins one.
    pub(super) fn open(pipeline: Option<&Path>, folder: Option<&Path>) -> Result<Self> {
        let root = root(pipeline, folder)?;
        let store = Box::new(Disk::open(&root)?);
        let memo = root.join("assets/digests");
        let digests = FileDigests::open(&memo);
        if digests.was_damaged()
            && let Some(place) = Quarantine::of(&root).take(&memo)?
        {
            warn(&format!(
                "the memo of file digests was damaged; it lies in `{}` now, and files are read again",
                place.display()
            ));
        }
        if let Some(error) = digests.unread() {
            warn(&format!("the memo of file digests is not used, and files are read again: {}", chain(error)));
        }
        Ok(Workplace::of(root, store, digests))
    }

    /// Opens the store to look at it: where there is none, an empty one in memory stands for it and nothing is written.
    pub(super) fn look(pipeline: Option<&Path>, folder: Option<&Path>) -> Result<Self> {
        if Workplace::exists(pipeline, folder) {
            return Workplace::open(pipeline, folder);
        }
        let root = root(pipeline, folder)?;
        Ok(Workplace::of(root, Box::new(Memory::default()), FileDigests::in_memory()))
    }

    /// Whether there is a store.
    pub(super) fn exists(pipeline: Option<&Path>, folder: Option<&Path>) -> bool {
        root(pipeline, folder).is_ok_and(|root| root.join("version").exists())
    }

    fn of(root: PathBuf, store: Box<dyn Store>, digests: FileDigests) -> Self {
        let digests = Arc::new(digests);
        let assets = Box::new(Fetch::new(root.join("assets"), digests.clone()));
        Workplace { root, cancelled: Arc::default(), store, digests, assets }
    }

    /// The world, watched by `events`.
    pub(super) fn world<'a>(&'a self, events: &'a dyn Observer) -> World<'a> {
        World {
            store: self.store.as_ref(),
            assets: self.assets.as_ref(),
            digests: &self.digests,
            events,
            cancelled: &self.cancelled,
        }
    }

    /// Tells the store of nodes that will be looked at.
    pub(super) fn read_ahead(&self, nodes: &[String]) {
        self.store.read_ahead(nodes);
    }

    /// Lets nodes start programs, by name.
    pub(super) fn allow(&mut self, nodes: &[String]) {
        self.assets.allow(nodes.iter().cloned());
    }

    /// Puts another store in the place of the folder's own, such as one with a remote store behind it.
    pub(super) fn set_store(&mut self, store: Box<dyn Store>) {
        self.store = store;
    }

    /// Writes down what was learned about files. That it can't be is no reason to fail: it is learned again.
    pub(super) fn save(&self) {
        if let Err(error) = self.digests.save() {
            warn(&format!("the memo of file digests is not kept: {}", chain(&error)));
        }
        // No node tells what the store found when all were looked at.
        self.store.told().iter().for_each(|text| warn(text));
    }
}

/// The store's folder: the one that is named, or `.retort` beside the nearest `retort.toml`, going up from the pipeline's
/// folder, or else in the current folder.
pub(super) fn root(pipeline: Option<&Path>, folder: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = folder {
        return Ok(folder.to_path_buf());
    }
    if let Some(folder) = std::env::var_os("RETORT_STORE").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let here = std::env::current_dir().map_err(|error| Stop::failed(&error))?;
    let start = pipeline.and_then(Path::parent).map_or_else(|| here.clone(), |folder| here.join(folder));
    let start = start.canonicalize().unwrap_or(start);
    let project = start.ancestors().find(|folder| folder.join(PROJECT).exists());
    Ok(match project {
        Some(project) => project.join(FOLDER),
        None => PathBuf::from(FOLDER),
    })
}

/// The width of the terminal that standard output is; `None` where it is none.
pub(super) fn width_of_stdout() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// The width of the terminal that standard error is; `None` where it is none.
pub(super) fn width_of_stderr() -> Option<usize> {
    console::Term::stderr().size_checked().map(|(_, columns)| usize::from(columns))
}

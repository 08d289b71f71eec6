//! The lock of an experiment: what it used and what came of it, by digest, as text whose changes can be read in a diff.
//!
//! What an experiment *uses* (operator versions, configs, assets, source files) is known before anything runs; what it *gave*
//! (recipes and tables) only afterwards. Both halves can be compared with a lock, each as soon as it is known. It leaves
//! running, and stopping, to the command line.

mod difference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use retort_cache::files::write_atomically;
use retort_cache::{Answer, ContentId, RecipeId, StoreError};
use retort_engine::{Failure, Graph, NodeId, World, listing};
use serde::{Deserialize, Serialize};

pub use difference::Difference;

/// The format of a lock.
pub const VERSION: u32 = 1;

/// What an experiment used, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The format.
    pub version: u32,
    /// The version of Retort that wrote it.
    pub retort: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The profile that was laid over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The params that were set on the command line.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// The operators' versions.
    pub operators: BTreeMap<String, String>,
    /// For each node that lists files: their digests by path.
    pub sources: BTreeMap<String, BTreeMap<String, String>>,
    /// In the order of the graph.
    pub nodes: Vec<LockedNode>,
}

/// What a node used, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedNode {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The SHA-256 of its assets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assets: BTreeMap<String, String>,
    /// Its config, a fact a leaf.
    pub facts: BTreeMap<String, String>,
    /// Names the question.
    pub recipe: RecipeId,
    /// Its tables.
    pub outputs: BTreeMap<String, LockedTable>,
}

/// A table by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedTable {
    /// Names the rows.
    pub content: ContentId,
    /// How many there are.
    pub rows: u64,
}

/// What an experiment uses: all that is known before anything runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The operators' versions.
    pub operators: BTreeMap<String, String>,
    /// For each node that lists files: their digests by path.
    pub sources: BTreeMap<String, BTreeMap<String, String>>,
    /// In the order of the graph: name, operator, assets, config.
    pub nodes: Vec<NodeUse>,
}

/// What a node uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUse {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The SHA-256 of its assets.
    pub assets: BTreeMap<String, String>,
    /// Its config, a fact a leaf.
    pub facts: BTreeMap<String, String>,
}

/// A lock that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// There is none.
    #[error("there is no lock `{0}`")]
    Missing(String),
    /// The file can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no lock.
    #[error("`{path}` is no lock")]
    Malformed {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of Retort wrote it.
    #[error("`{path}` has lock format {found}; this version of retort reads format {VERSION}")]
    Version {
        /// The file.
        path: String,
        /// Its format.
        found: u64,
    },
}

/// The lock's file: beside the pipeline's, `nextstep.yaml` has `nextstep.lock`.
pub fn path_of(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("lock")
}

impl Lock {
    /// The lock of nodes that are all answered. `used` and `answers` are in the same order.
    pub fn of(pipeline: &str, used: Used, answers: &[Answer]) -> Self {
        let locked = |(node, answer): (NodeUse, &Answer)| LockedNode {
            node: node.node,
            op: node.op,
            assets: node.assets,
            facts: node.facts,
            recipe: answer.recipe.id(),
            outputs: tables(answer),
        };
        Lock {
            version: VERSION,
            retort: env!("CARGO_PKG_VERSION").into(),
            pipeline: pipeline.into(),
            profile: None,
            set: BTreeMap::new(),
            operators: used.operators,
            sources: used.sources,
            nodes: used.nodes.into_iter().zip(answers).map(locked).collect(),
        }
    }

    /// Reads a lock.
    pub fn read(path: &Path) -> Result<Self, LockError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LockError::Missing(path.display().to_string()));
            }
            Err(error) => return Err(StoreError::io("read", path)(error).into()),
        };
        Lock::parse(&text, path)
    }

    /// Reads a lock's text; `path` is for what is said when it is none.
    pub fn parse(text: &str, path: &Path) -> Result<Self, LockError> {
        let path = path.display().to_string();
        let malformed = |source| LockError::Malformed { path: path.clone(), source };
        // The format is looked at first: of another format, the fields mean nothing.
        let value: serde_json::Value = serde_json::from_str(text).map_err(malformed)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(VERSION) => Err(LockError::Version { path, found }),
            _ => serde_json::from_str(text).map_err(malformed),
        }
    }

    /// The text that `read` reads.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("locks are plain data");
        text.push('\n');
        text
    }

    /// Writes the lock; gives whether it changed.
    pub fn write(&self, path: &Path) -> Result<bool, LockError> {
        let text = self.text();
        if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        // A bare file name lies in the current folder.
        let path = if path.parent() == Some(Path::new("")) { &Path::new(".").join(path) } else { path };
        write_atomically(path, text.as_bytes())?;
        Ok(true)
    }

    /// A node's entry.
    pub fn node(&self, name: &str) -> Option<&LockedNode> {
        self.nodes.iter().find(|node| node.node == name)
    }
}

impl Used {
    /// Looks at the nodes (in the order of the graph), their assets and their sources.
    pub fn of(graph: &Graph, nodes: &[NodeId], world: World<'_>) -> Result<Self, Failure> {
        let mut used = Used::default();
        for id in nodes {
            let node = graph.node(*id);
            let mut facts: BTreeMap<String, String> =
                node.made.facts.iter().map(|fact| (fact.name.clone(), fact.value.clone())).collect();
            facts.remove("op.name");
            let version = facts.remove("op.version").unwrap_or_default();
            used.operators.insert(node.op.clone(), version);
            if let Some(listing) = listing(graph, *id, world)? {
                used.sources.insert(node.name.clone(), files(&listing)?);
            }
            let mut assets = BTreeMap::new();
            for asset in &node.made.assets {
                assets.insert(asset.name.clone(), world.assets.digest(asset)?);
            }
            used.nodes.push(NodeUse { node: node.name.clone(), op: node.op.clone(), assets, facts });
        }
        Ok(used)
    }
}

/// The tables of an answer by port.
fn tables(answer: &Answer) -> BTreeMap<String, LockedTable> {
    let table = |output: &retort_cache::Output| {
        (output.port.clone(), LockedTable { content: output.content, rows: output.rows })
    };
    answer.outputs.iter().map(table).collect()
}

/// The files of a listing, which has names and digests in its first two columns.
fn files(listing: &retort_cache::Table) -> Result<BTreeMap<String, String>, StoreError> {
    let batch = listing.read()?;
    let text = |column: usize| batch.columns().get(column).and_then(|column| column.as_string_opt::<i32>());
    let (Some(names), Some(digests)) = (text(0), text(1)) else { return Ok(BTreeMap::new()) };
    let pair = |(name, digest): (Option<&str>, Option<&str>)| {
        (name.unwrap_or_default().to_string(), digest.unwrap_or_default().to_string())
    };
    Ok(names.iter().zip(digests).map(pair).collect())
}

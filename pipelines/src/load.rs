//! The one way from a pipeline file to a checked graph, or to everything that is wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use retort_engine::{Graph, NodeSpec, OpInfo};
use serde_json::Value;

use crate::diagnostics::{Diagnostic, Diagnostics, Files};

/// What the command line adds to a pipeline file.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `--set NAME=VALUE`, in order; the value is read as YAML.
    pub set: Vec<(String, String)>,
    /// `--profile NAME`.
    pub profile: Option<String>,
}

/// A pipeline without mistakes.
pub struct Loaded {
    /// The graph, ready to plan and run.
    pub graph: Graph,
    /// The nodes that the graph was made of, in the order of the file, params and models filled in.
    pub nodes: Vec<NodeSpec>,
    /// The pipeline's name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The folder that its paths are relative to.
    pub base: PathBuf,
    /// The params, after `--profile` and `--set`.
    pub params: BTreeMap<String, Value>,
    /// The entries of `models:`, params filled in.
    pub models: BTreeMap<String, Value>,
}

/// Reads a pipeline and checks all of it against the operators. Nothing is run, no asset is fetched.
pub fn load(path: &Path, options: &LoadOptions, ops: &[OpInfo]) -> Result<Loaded, Diagnostics> {
    let _ = (path, options, ops);
    Err(Diagnostics::new(Files::default(), vec![Diagnostic::nowhere("unreadable", "not read yet")]))
}

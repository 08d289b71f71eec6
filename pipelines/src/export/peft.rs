//! A trained adapter as a PEFT folder: `adapter_config.json`, `adapter_model.safetensors`, a model card.

use std::path::{Path, PathBuf};

use retort_cache::Answer;
use retort_engine::{NodeId, World};

use super::ExportError;
use crate::load::Loaded;

pub(super) fn export(
    loaded: &Loaded,
    id: NodeId,
    _answer: &Answer,
    _world: World<'_>,
    _folder: &Path,
) -> Result<Vec<(PathBuf, u64)>, ExportError> {
    let node = loaded.graph.node(id).name.clone();
    Err(ExportError::Port { node, port: "adapter", format: "peft" })
}

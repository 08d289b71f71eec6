//! What llama.cpp loads: the adapter by itself, and the base model's file with it merged in.

use std::path::{Path, PathBuf};

use retort_lm::gguf::{write_lora, write_merged};
use retort_lm::weights::Weights;
use retort_ops::models::{Precision, load_file};

use super::{Dtype, ExportError, adapter_error, weighed};
use crate::tuned::Tuned;

/// The adapter by itself.
pub(crate) fn lora(tuned: &Tuned, node: &str, folder: &Path) -> Result<Vec<(PathBuf, u64)>, ExportError> {
    let path = folder.join(format!("{node}-lora.gguf"));
    let base = Weights::open(&tuned.weights).map_err(adapter_error)?;
    write_lora(&tuned.adapter, &base, node, &path).map_err(adapter_error)?;
    Ok(vec![weighed(path)?])
}

/// The base with the adapter in it.
pub(crate) fn merged(
    tuned: &Tuned,
    node: &str,
    dtype: Dtype,
    folder: &Path,
) -> Result<Vec<(PathBuf, u64)>, ExportError> {
    let stored = dtype.of_gguf()?;
    let path = folder.join(format!("{node}-{}.gguf", dtype.name()));
    let loaded = load_file(&tuned.weights, Precision::F16).map_err(adapter_error)?;
    write_merged(&tuned.weights, &loaded.model, &tuned.adapter, stored, &path).map_err(adapter_error)?;
    Ok(vec![weighed(path)?])
}

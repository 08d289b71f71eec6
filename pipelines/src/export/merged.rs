//! The base model with the adapter merged in, as a folder that `transformers` loads: `config.json`, `model.safetensors`, the tokenizer's files.

use std::fs;
use std::path::{Path, PathBuf};

use retort_cache::StoreError;
use retort_lm::hf::write_folder;
use retort_ops::models::{Precision, load_file};

use super::{Dtype, ExportError, adapter_error, weighed};
use crate::tuned::Tuned;

/// What stands beside the weights in a Hugging Face folder.
const BESIDE: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "preprocessor_config.json",
];

pub(crate) fn export(tuned: &Tuned, dtype: Dtype, folder: &Path) -> Result<Vec<(PathBuf, u64)>, ExportError> {
    let dtype = dtype.of_folder()?;
    let loaded = load_file(&tuned.weights, Precision::F16).map_err(adapter_error)?;
    write_folder(&loaded.model, Some(&tuned.adapter), dtype, folder).map_err(adapter_error)?;
    let mut names = vec!["config.json", "model.safetensors"];
    if tuned.weights.is_dir() {
        for name in BESIDE.into_iter().filter(|name| tuned.weights.join(name).is_file()) {
            let from = tuned.weights.join(name);
            let bytes = fs::read(&from).map_err(StoreError::io("read", &from))?;
            let to = folder.join(name);
            fs::write(&to, bytes).map_err(StoreError::io("write", &to))?;
            names.push(name);
        }
    } else {
        loaded.tokenizer.save(folder).map_err(adapter_error)?;
        names.extend(&BESIDE[..3]);
    }
    names.into_iter().map(|name| weighed(folder.join(name))).collect()
}

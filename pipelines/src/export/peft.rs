//! A trained adapter as a PEFT folder: `adapter_config.json`, `adapter_model.safetensors`, a model card.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use retort_cache::Answer;
use retort_lm::peft::{Card, write};

use super::{ExportError, adapter_error, weighed};
use crate::tuned::Tuned;

/// The files of a PEFT folder.
const FILES: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "README.md"];

pub(crate) fn export(
    tuned: &Tuned,
    title: String,
    answer: &Answer,
    base: Option<&str>,
    folder: &Path,
) -> Result<Vec<(PathBuf, u64)>, ExportError> {
    let card = Card {
        title,
        base_model: base.map_or_else(|| tuned.base_name(), Into::into),
        base_sha256: Some(tuned.base_sha256.clone()),
        license: None,
        sections: vec![("How it was made".into(), facts(answer))],
    };
    write(&tuned.adapter, &card, folder).map_err(adapter_error)?;
    FILES.iter().map(|name| weighed(folder.join(name))).collect()
}

/// Every fact of the answer as a Markdown table: who asks the same question gets the same adapter.
pub(crate) fn facts(answer: &Answer) -> String {
    let mut text = "| fact | value |\n| --- | --- |\n".to_string();
    for fact in answer.recipe.op.iter().chain(&answer.recipe.inputs) {
        let value = fact.value.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | {value} |", fact.name);
    }
    text
}

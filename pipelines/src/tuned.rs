//! What a `lora-train` node made, opened: its base model's file and its adapter.

use std::path::PathBuf;

use retort_cache::{Answer, StoreError};
use retort_engine::{Asset, Failure, Node, World};
use retort_lm::config::Config;
use retort_lm::lora::Adapter;
use retort_lm::weights::Weights;
use retort_ops::lora_train::adapter;

/// The port that holds an adapter.
pub const ADAPTER_PORT: &str = "adapter";

/// An adapter and the model that it belongs to.
pub struct Tuned {
    /// The base model's weights, on this machine.
    pub weights: PathBuf,
    /// Where the weights come from.
    pub asset: Asset,
    /// The adapter.
    pub adapter: Adapter,
    /// SHA-256 of the weights that the adapter was trained on.
    pub base_sha256: String,
}

/// Why there is nothing to open.
#[derive(Debug, thiserror::Error)]
pub enum TunedError {
    /// The node trains nothing.
    #[error("`{0}` has no output `adapter`: it is no `lora-train` node")]
    NoAdapter(String),
    /// The table is not in the store.
    #[error("the adapter of `{0}` is gone from the store")]
    Gone(String),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The base model, or the adapter, could not be had.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Opens the adapter of an answer of `node`, and fetches the base model if it is not there; `progress` is told bytes done and in all.
pub fn open(
    node: &Node,
    answer: &Answer,
    world: World<'_>,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), Failure>,
) -> Result<Tuned, TunedError> {
    let none = || TunedError::NoAdapter(node.name.clone());
    let output = answer.outputs.iter().find(|output| output.port == ADAPTER_PORT).ok_or_else(none)?;
    let asset = node.made.assets.first().ok_or_else(none)?.clone();
    let table = world.store.open(output.content)?.ok_or_else(|| TunedError::Gone(node.name.clone()))?;
    let weights = world.assets.path(&asset, progress)?;
    let config: Config = Weights::open(&weights).map_err(Failure::op)?.config().clone();
    let stored = adapter::read(table.batches()?, &config)?;
    Ok(Tuned { weights, asset, adapter: stored.adapter, base_sha256: stored.base_sha256 })
}

impl Tuned {
    /// What the base model is called: its repository on Hugging Face where it comes from there, or else its source.
    pub fn base_name(&self) -> String {
        base_name(self.asset.sources.first().map(String::as_str).unwrap_or_default())
    }
}

/// What the model of a source is called.
pub(crate) fn base_name(source: &str) -> String {
    let Some(rest) = source.strip_prefix("hf://") else { return source.to_string() };
    let repository = rest.split('/').take(2).collect::<Vec<_>>().join("/");
    repository.split('@').next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_the_hub_is_called_by_its_repository() {
        assert_eq!(base_name("hf://HuggingFaceTB/SmolLM2-135M@main/model.safetensors"), "HuggingFaceTB/SmolLM2-135M");
        assert_eq!(base_name("file:models/a.gguf"), "file:models/a.gguf");
    }
}

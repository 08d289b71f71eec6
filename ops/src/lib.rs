//! The operators, one file each, and their registry. A new operator is its file, a `mod` line and a registry line.

pub mod chunk;
pub mod document;
pub mod evaluate;
pub mod extract;
pub mod files;
pub mod lora_train;
pub mod models;
pub mod parse;
pub mod prompt_llm;
pub mod sample;
pub mod score;
pub mod server;
pub mod split_eval;
pub mod stable;

use retort_engine::OpInfo;

/// All operators, alphabetic.
pub const REGISTRY: &[OpInfo] = &[
    OpInfo::of::<chunk::Chunk>(),
    OpInfo::of::<evaluate::Evaluate>(),
    OpInfo::of::<extract::Extract>(),
    OpInfo::of::<lora_train::LoraTrain>(),
    OpInfo::of::<parse::Parse>(),
    OpInfo::of::<prompt_llm::PromptLlm>(),
    OpInfo::of::<sample::Sample>(),
    OpInfo::of::<split_eval::SplitEval>(),
];

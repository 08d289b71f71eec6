//! The operators, one file each, and their registry. A new operator is its file, a `mod` line and a registry line.

pub mod chunk;
pub mod document;
pub mod embed;
pub mod evaluate;
pub mod exec;
pub mod extract;
pub mod files;
pub mod filter;
pub mod lora_train;
pub mod models;
pub mod parse;
pub mod prompt_llm;
pub mod query;
pub mod resolve;
mod running;
pub mod sample;
pub mod score;
pub mod server;
pub mod split_eval;
pub mod sql;
pub mod stable;

use retort_engine::OpInfo;

/// All operators, alphabetic.
pub const REGISTRY: &[OpInfo] = &[
    OpInfo::of::<chunk::Chunk>(),
    OpInfo::of::<embed::Embed>(),
    OpInfo::of::<evaluate::Evaluate>(),
    OpInfo::of::<exec::Exec>(),
    OpInfo::of::<extract::Extract>(),
    OpInfo::of::<filter::Filter>(),
    OpInfo::of::<lora_train::LoraTrain>(),
    OpInfo::of::<parse::Parse>(),
    OpInfo::of::<prompt_llm::PromptLlm>(),
    OpInfo::of::<resolve::Resolve>(),
    OpInfo::of::<sample::Sample>(),
    OpInfo::of::<split_eval::SplitEval>(),
    OpInfo::of::<sql::Sql>(),
];

//! One decoder, run and trained. Knows tensors, tokenizers and text; nothing of tables, nodes or caches.

mod attention;
pub mod block;
pub mod config;
pub mod data;
mod dropout;
pub mod embed;
pub mod error;
pub mod generate;
pub mod gguf;
pub mod gradient;
pub mod guide;
pub mod header;
pub mod hf;
pub mod kernels;
pub mod kv;
#[cfg(test)]
mod laws;
mod lazy;
pub mod linear;
pub mod lora;
pub mod model;
mod norm;
pub mod optim;
#[cfg(test)]
mod oracle;
pub mod peft;
mod rope;
pub mod sample;
pub mod schedule;
pub mod template;
pub mod tensors;
#[cfg(test)]
mod testing;
pub mod tokenizer;
pub mod train;
pub mod weights;

pub use error::LmError;

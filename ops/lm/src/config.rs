//! What a checkpoint says of its decoder: sizes, heads, positions, windows. What is common to a whole family of
//! decoders, such as where its norms stand, is in `facts`; reading and writing are in `gguf` and `json`.

mod facts;
mod gguf;
mod json;
mod rotary;

pub use facts::Architecture;
pub(crate) use facts::{Facts, Named, NormKind};
pub use rotary::{Rotary, Scaling};

use crate::lora::Target;

/// The shape of a decoder. Field names are those of Hugging Face's `config.json` where it has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, each shared by `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Added to the mean square, or the variance, in norms.
    pub norm_eps: f32,
    /// Positions of the blocks that see everything.
    pub rotary: Rotary,
    /// Positions of the blocks with a window, where they differ.
    pub local_rotary: Option<Rotary>,
    /// For each block, how many of the newest tokens a token sees, itself included; none where it sees all.
    pub windows: Vec<Option<usize>>,
    /// What scores are multiplied with before the softmax.
    pub attention_scale: f32,
    /// The layers of a block that have a bias, in [`Target::ALL`]'s order.
    pub biases: Vec<Target>,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// The token that begins a text, where there is one.
    pub bos_token_id: Option<u32>,
    /// The token that ends an answer, where there is one.
    pub eos_token_id: Option<u32>,
}

impl Config {
    /// What is so in the whole family.
    pub(crate) fn facts(&self) -> &'static Facts {
        self.architecture.facts()
    }

    /// Width of all query heads.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Query heads that share a key and value head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// What the embedding of a token is multiplied with.
    pub fn embedding_scale(&self) -> f32 {
        if self.facts().scales_embedding { (self.hidden_size as f32).sqrt() } else { 1.0 }
    }

    fn checked(self) -> Result<Self, String> {
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.max_position_embeddings,
            self.rotary.dim,
        ];
        if sizes.contains(&0) || self.windows.contains(&Some(0)) {
            return Err("one of its sizes is zero".to_owned());
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(format!(
                "{} query heads over {} key heads make no sense",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if self.rotary.dim > self.head_dim || !self.rotary.dim.is_multiple_of(2) {
            return Err(format!("it rotates {} of the {} dimensions of a head", self.rotary.dim, self.head_dim));
        }
        if self.windows.len() != self.num_hidden_layers {
            return Err(format!("it has {} blocks and windows for {}", self.num_hidden_layers, self.windows.len()));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;

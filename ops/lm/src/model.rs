//! The decoder: embeddings, blocks, final norm, output head. Losses and gradients are in `gradient`, names of weights in
//! `tensors`.
//!
//! A token's hidden state and logits have the same bits whatever other sequences are in the batch, however the prompt
//! is cut into calls, whether its prefix was computed here or in a cache that was forked, and on any number of threads.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::attention::{Heads, over_caches};
use crate::block::{Block, Pass, Values};
use crate::config::Config;
use crate::kernels::{Buffer, Precision, Product, Rows, multiply};
use crate::kv::KvCache;
use crate::linear::Linear;
use crate::lora::Adapter;
use crate::norm::Norm;
use crate::rope::Ropes;
use crate::weights::Weights;

/// Tokens whose embeddings one task looks up.
const EMBEDDINGS: usize = 16;

/// A decoder with its weights, ready to run. Shared between threads by reference.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) embedding: Linear,
    /// None if the embedding is the head.
    pub(crate) head: Option<Linear>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Norm,
}

/// How a model's weights are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Keep {
    /// What weights are packed in, and products with them computed.
    pub precision: Precision,
    /// Whether the layers of blocks stay as the file has them, quantised, and are packed each time they are used (or once, where that takes no more
    /// memory), and nothing is held that can be made of them: the same bits in less memory, and slower. What it is for is QLoRA (Dettmers et al. 2023,
    /// arXiv 2305.14314).
    pub as_stored: bool,
}

impl From<Precision> for Keep {
    fn from(precision: Precision) -> Self {
        Self { precision, as_stored: false }
    }
}

/// The next tokens of one sequence, and its cache, which holds all before and will hold these.
#[derive(Debug)]
pub struct Span<'a> {
    /// At least one.
    pub tokens: &'a [u32],
    /// The sequence's past.
    pub cache: &'a mut KvCache,
}

/// Hidden states after the final norm, a row a token, sequences end to end.
#[derive(Clone, Debug)]
pub struct Hidden {
    values: Buffer<f32>,
    width: usize,
}

impl Hidden {
    /// Tokens.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// The state of token `row`, `(hidden)`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }

    /// All of them, `(rows, hidden)`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl Model {
    /// Loads a GGUF file or a Hugging Face folder; weights are kept as half floats.
    ///
    /// # Errors
    ///
    /// As [`Weights::open`] and [`Weights::tensor`].
    pub fn load(path: &Path) -> Result<Self, LmError> {
        Self::from_weights(&Weights::open(path)?)
    }

    /// As [`Model::load`], with weights kept in another way: [`Precision::Int8`] is what llama.cpp computes in.
    ///
    /// # Errors
    ///
    /// As [`Weights::open`] and [`Weights::tensor`].
    pub fn load_in(keep: impl Into<Keep>, path: &Path) -> Result<Self, LmError> {
        Self::read(&Weights::open(path)?, keep.into())
    }

    /// Loads from an opened checkpoint; weights are kept as half floats.
    ///
    /// # Errors
    ///
    /// As [`Weights::tensor`].
    pub fn from_weights(weights: &Weights) -> Result<Self, LmError> {
        Self::read(weights, Precision::F16.into())
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of weights held now (more once gradients were asked for).
    pub fn bytes(&self) -> usize {
        let linears = self.blocks.iter().flat_map(|block| block.linears.iter().flatten());
        linears.chain([&self.embedding]).chain(&self.head).map(Linear::bytes).sum()
    }

    /// An empty cache for a sequence.
    pub fn cache(&self) -> KvCache {
        KvCache::new(&self.config, self.halves_keys())
    }

    fn halves_keys(&self) -> bool {
        self.blocks.first().is_some_and(Block::halves_keys)
    }

    /// Runs the next tokens of any number of sequences and gives their hidden states, laid end to end. The caches grow
    /// by the tokens; on an error they are as before.
    ///
    /// # Errors
    ///
    /// If a span is empty, a token unknown, a sequence longer than the model's context, or a cache or the adapter made
    /// for another model.
    pub fn forward(&self, adapter: Option<&Adapter>, spans: &mut [Span<'_>]) -> Result<Hidden, LmError> {
        self.check(adapter, spans)?;
        // One step into the thread pool, instead of one for each loop.
        Ok(rayon::scope(|_| self.run(adapter, spans)))
    }

    /// Logits `(rows, vocabulary)` of hidden states `(rows, hidden)`.
    ///
    /// # Panics
    ///
    /// If `hidden` is not whole rows.
    pub fn logits(&self, hidden: &[f32]) -> Buffer<f32> {
        let rows = hidden.len() / self.config.hidden_size;
        let mut out = Buffer::any(rows * self.config.vocab_size);
        let head = self.head();
        let start = head.begin(&mut out);
        multiply(rows, &mut [Product { x: &Rows::new(hidden), weight: &head.weight(), out: &mut out, start }]);
        out
    }

    /// Whether it takes the least memory, and more work each time: see [`Keep::as_stored`].
    pub(crate) fn is_lean(&self) -> bool {
        self.head().is_lean()
    }

    pub(crate) fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The embeddings of tokens, `(tokens, hidden)`.
    pub(crate) fn embed<'t>(&self, tokens: impl Iterator<Item = &'t u32>, rows: usize) -> Buffer<f32> {
        let (width, scale) = (self.config.hidden_size, self.config.embedding_scale());
        let tokens: Vec<u32> = tokens.copied().collect();
        let mut x = Buffer::zeroed(rows * width);
        x.par_chunks_exact_mut(width).zip(tokens).with_min_len(EMBEDDINGS).for_each(|(row, token)| {
            self.embedding.weight().row(token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        });
        x
    }

    pub(crate) fn check_adapter(&self, adapter: &Adapter) -> Result<(), LmError> {
        if adapter.fits(&self.config) {
            return Ok(());
        }
        Err(LmError::Argument("the adapter was made for a model of another shape".to_owned()))
    }

    pub(crate) fn check_tokens(&self, tokens: &[u32], past: usize) -> Result<(), LmError> {
        if tokens.is_empty() {
            return Err(LmError::Argument("a sequence has no tokens".to_owned()));
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.config.vocab_size) {
            let size = self.config.vocab_size;
            return Err(LmError::Argument(format!("token {token} is not in the vocabulary of {size}")));
        }
        let (length, context) = (past + tokens.len(), self.config.max_position_embeddings);
        if length > context {
            return Err(LmError::Argument(format!("a sequence of {length} tokens exceeds the context of {context}")));
        }
        Ok(())
    }

    fn check(&self, adapter: Option<&Adapter>, spans: &[Span<'_>]) -> Result<(), LmError> {
        adapter.map_or(Ok(()), |adapter| self.check_adapter(adapter))?;
        for span in spans {
            if !span.cache.fits(&self.config, self.halves_keys()) {
                return Err(LmError::Argument("the cache was made for another model".to_owned()));
            }
            self.check_tokens(span.tokens, span.cache.len())?;
        }
        Ok(())
    }

    fn run(&self, adapter: Option<&Adapter>, spans: &mut [Span<'_>]) -> Hidden {
        let config = &self.config;
        let mut positions = Vec::new();
        for span in spans.iter_mut() {
            positions.extend(span.cache.len()..span.cache.len() + span.tokens.len());
            span.cache.reserve(span.tokens.len());
        }
        let ropes = Ropes::new(config, &positions);
        let mut x = self.embed(spans.iter().flat_map(|span| span.tokens), positions.len());
        let mut values = Values::new(config, positions.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            let pass = Pass { config, layer, rope: ropes.of(config, layer), adapter, dropout: None };
            block.forward(pass, &mut values, &mut x, |q, k, v, out| {
                remember(config, layer, spans, k, v);
                let sequences: Vec<_> = spans.iter().map(|span| (&*span.cache, span.tokens.len())).collect();
                over_caches(Heads::of(config, layer), layer, &sequences, q, out);
            });
        }
        for span in spans {
            span.cache.advance(span.tokens.len());
        }
        let mut hidden = Buffer::zeroed(x.len());
        self.norm.forward(&x, &mut hidden);
        Hidden { values: hidden, width: config.hidden_size }
    }
}

/// Writes the keys and values of new tokens to their caches.
fn remember(config: &Config, layer: usize, spans: &mut [Span<'_>], k: &[f32], v: &[f32]) {
    let width = config.key_value_width();
    let mut rows = k.chunks_exact(width).zip(v.chunks_exact(width));
    for span in spans {
        for position in span.cache.len()..span.cache.len() + span.tokens.len() {
            let (k, v) = rows.next().expect("a row for each token");
            span.cache.write(layer, position, k, v);
        }
    }
}

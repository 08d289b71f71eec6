//! The decoder: embeddings, blocks, final norm, output head. Losses and gradients are in `gradient`.
//!
//! A token's hidden state and logits have the same bits whatever other sequences are in the batch, however the prompt
//! is cut into calls, whether its prefix was computed here or in a cache that was forked, and on any number of threads.

use std::path::Path;

use rayon::prelude::*;

use crate::LmError;
use crate::attention::{Heads, over_caches};
use crate::block::{Block, Pass, Values, norm_rows};
use crate::config::Config;
use crate::kernels::{Buffer, Packed, Precision, Product, Start, multiply};
use crate::kv::KvCache;
use crate::linear::Linear;
use crate::lora::{Adapter, Target};
use crate::rope::Rope;
use crate::weights::Weights;

/// A decoder with its weights, ready to run. Shared between threads by reference.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) embedding: Linear,
    /// None if the embedding is the head.
    head: Option<Linear>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Vec<f32>,
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

/// A weight of the model under its Hugging Face name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// `[outputs, inputs]` or `[size]`.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
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

    /// Loads from an opened checkpoint; weights are kept as half floats.
    ///
    /// # Errors
    ///
    /// As [`Weights::tensor`].
    pub fn from_weights(weights: &Weights) -> Result<Self, LmError> {
        Self::build(weights.config(), Precision::F16, |name, shape| weights.tensor(name, shape))
    }

    /// Makes a model of tensors that `tensor(name, shape)` gives by Hugging Face name.
    ///
    /// # Errors
    ///
    /// The first that `tensor` gives.
    pub fn build(
        config: &Config,
        precision: Precision,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, LmError>,
    ) -> Result<Self, LmError> {
        let hidden = config.hidden_size;
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            let values = tensor(name, &[outputs, inputs])?;
            Ok::<_, LmError>(Linear::new(Packed::from_rows(&values, outputs, inputs, precision)))
        };
        let embedding = linear(EMBEDDING, config.vocab_size, hidden)?;
        let head = if config.tie_word_embeddings { None } else { Some(linear(HEAD, config.vocab_size, hidden)?) };
        let mut blocks = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let mut linears = Vec::with_capacity(Target::ALL.len());
            for target in Target::ALL {
                let (outputs, inputs) = target.shape(config);
                let name = format!("{}.weight", target.path(layer));
                let values = tensor(&name, &[outputs, inputs])?;
                linears.push(Linear::new(Packed::from_rows(&values, outputs, inputs, precision)));
            }
            blocks.push(Block {
                attention_norm: tensor(&attention_norm(layer), &[hidden])?,
                mlp_norm: tensor(&mlp_norm(layer), &[hidden])?,
                linears: linears.try_into().expect("as many as there are targets"),
            });
        }
        Ok(Self { config: config.clone(), embedding, head, blocks, norm: tensor(NORM, &[hidden])? })
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of weights held now (more once gradients were asked for).
    pub fn bytes(&self) -> usize {
        let linears = self.blocks.iter().flat_map(|block| &block.linears);
        linears.chain([&self.embedding]).chain(&self.head).map(Linear::bytes).sum()
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
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let rows = hidden.len() / self.config.hidden_size;
        let mut out = vec![0.0; rows * self.config.vocab_size];
        let weight = self.head().weight();
        multiply(rows, &mut [Product { x: hidden, weight, out: &mut out, start: Start::Zero }]);
        out
    }

    /// The weights under their Hugging Face names, one at a time; with an adapter, merged into them: `W + s·B·A`.
    /// They are what the model computes with, so after rounding to half floats.
    pub fn tensors<'a>(&'a self, adapter: Option<&'a Adapter>) -> impl Iterator<Item = NamedTensor> + 'a {
        let (vocab, hidden) = (self.config.vocab_size, self.config.hidden_size);
        let matrix = move |name: &str, linear: &Linear| NamedTensor {
            name: name.to_owned(),
            shape: vec![vocab, hidden],
            values: linear.weight().unpack(),
        };
        let vector =
            |name: String, values: &[f32]| NamedTensor { name, shape: vec![values.len()], values: values.to_vec() };
        let embedding = std::iter::once_with(move || matrix(EMBEDDING, &self.embedding));
        let head = self.head.iter().map(move |head| matrix(HEAD, head));
        let norm = std::iter::once_with(move || vector(NORM.to_owned(), &self.norm));
        let blocks = self.blocks.iter().enumerate().flat_map(move |(layer, block)| {
            let linears = Target::ALL.into_iter().map(move |target| block.tensor(layer, target, adapter));
            let norms = [(attention_norm(layer), &block.attention_norm), (mlp_norm(layer), &block.mlp_norm)];
            linears.chain(norms.into_iter().map(move |(name, values)| vector(name, values)))
        });
        embedding.chain(blocks).chain(norm).chain(head)
    }

    pub(crate) fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The embeddings of tokens, `(tokens, hidden)`.
    pub(crate) fn embed<'t>(&self, tokens: impl Iterator<Item = &'t u32>, rows: usize) -> Buffer<f32> {
        let width = self.config.hidden_size;
        let mut x = Buffer::zeroed(rows * width);
        for (row, &token) in x.chunks_exact_mut(width).zip(tokens) {
            self.embedding.weight().row(token as usize, row);
        }
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
            if !span.cache.fits(&self.config) {
                return Err(LmError::Argument("the cache was made for a model of another shape".to_owned()));
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
        let rope = Rope::new(config, &positions);
        let mut x = self.embed(spans.iter().flat_map(|span| span.tokens), positions.len());
        let mut values = Values::new(config, positions.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            let pass = Pass { config, layer, rope: &rope, adapter, dropout: None };
            block.forward(pass, &mut values, &mut x, |q, k, v, out| {
                remember(config, layer, spans, k, v);
                let sequences: Vec<_> = spans.iter().map(|span| (&*span.cache, span.tokens.len())).collect();
                over_caches(Heads::of(config), layer, &sequences, q, out);
            });
        }
        for span in spans {
            span.cache.advance(span.tokens.len());
        }
        let mut hidden = Buffer::zeroed(x.len());
        norm_rows(&x, &self.norm, config, &mut hidden);
        Hidden { values: hidden, width: config.hidden_size }
    }
}

impl Block {
    fn tensor(&self, layer: usize, target: Target, adapter: Option<&Adapter>) -> NamedTensor {
        let weight = self.linears[target as usize].weight();
        let mut values = weight.unpack();
        if let Some((adapter, at)) = adapter.and_then(|adapter| Some((adapter, adapter.index(layer, target)?))) {
            let (a, b) = (&adapter.tensors()[at], &adapter.tensors()[at + 1]);
            let (rank, inputs, scaling) = (a.shape[0], a.shape[1], adapter.config().scaling());
            values.par_chunks_exact_mut(inputs).zip(b.values.par_chunks_exact(rank)).for_each(|(row, b)| {
                for (a, &b) in a.values.chunks_exact(inputs).zip(b) {
                    row.iter_mut().zip(a).for_each(|(value, &a)| *value += scaling * b * a);
                }
            });
        }
        let name = format!("{}.weight", target.path(layer));
        NamedTensor { name, shape: vec![weight.n(), weight.k()], values }
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

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

fn attention_norm(layer: usize) -> String {
    format!("model.layers.{layer}.input_layernorm.weight")
}

fn mlp_norm(layer: usize) -> String {
    format!("model.layers.{layer}.post_attention_layernorm.weight")
}

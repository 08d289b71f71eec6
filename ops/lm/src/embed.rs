//! Sentences to vectors: BERT with a mean over its last layer (Reimers and Gurevych, arXiv 1908.10084), of unit length.
//!
//! It is made of the decoder's kernels, so by their law a text's vector has the same bits beside whatever other texts, on
//! any number of threads and on any machine. `candle-transformers`' BERT is the oracle in tests.

mod file;
#[cfg(test)]
mod tests;

use std::path::Path;

use rayon::prelude::*;

use crate::LmError;
use crate::kernels::{Buffer, Left, Product, Right, Rows, Start, add_assign, dot, gemm, layer_norm, multiply, softmax};
use crate::linear::Linear;

/// Tokens that are computed side by side, at least one text: what bounds the memory.
const BATCH_TOKENS: usize = 2048;

/// A sentence encoder, such as all-MiniLM-L6-v2.
pub struct Encoder {
    text: tokenizers::Tokenizer,
    shape: Shape,
    /// `(vocabulary, width)`.
    words: Vec<f32>,
    /// `(positions, width)`.
    positions: Vec<f32>,
    /// What is added to every token: the type of a text that stands by itself.
    kind: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

/// The sizes of an encoder.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    vocabulary: usize,
    width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    positions: usize,
    /// Tokens of a text that are read; what comes after them is not.
    most: usize,
    eps: f32,
}

/// A layer norm.
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// One block: attention over the whole text, then two products with a curve between.
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    mixed: Linear,
    mixed_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

impl Encoder {
    /// Opens what stands at `path`: a folder as Hugging Face has it (`config.json`, `tokenizer.json`, `model.safetensors`, and
    /// `sentence_bert_config.json` if it is there), or one file with the tensors and after them the others, joined.
    ///
    /// # Errors
    /// Something is missing or cannot be read, or it is no BERT.
    pub fn open(path: &Path) -> Result<Self, LmError> {
        file::read(path)
    }

    /// How many numbers a vector has.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// The vectors of some texts, each of length one. An empty text has one too.
    ///
    /// # Errors
    /// The tokenizer refuses a text.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>, LmError> {
        let tokens: Vec<Vec<u32>> =
            texts.par_iter().map(|text| self.tokens(text.as_ref())).collect::<Result<_, _>>()?;
        let mut vectors = Vec::with_capacity(texts.len());
        let mut rest = &tokens[..];
        while !rest.is_empty() {
            let mut count = 0;
            let mut total = 0;
            while count < rest.len() && (count == 0 || total + rest[count].len() <= BATCH_TOKENS) {
                total += rest[count].len();
                count += 1;
            }
            vectors.extend(self.forward(&rest[..count]));
            rest = &rest[count..];
        }
        Ok(vectors)
    }

    /// The tokens of a text with those around it, the first `most` of them.
    fn tokens(&self, text: &str) -> Result<Vec<u32>, LmError> {
        let encoding = self.text.encode_fast(text, true).map_err(|error| LmError::Tokenizer(error.to_string()))?;
        let ids = encoding.get_ids();
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.shape.vocabulary) {
            return Err(LmError::Tokenizer(format!("token {id} is beyond the encoder's vocabulary")));
        }
        Ok(ids.to_vec())
    }

    fn forward(&self, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let Shape { width, inner, heads, eps, .. } = self.shape;
        let rows = texts.iter().map(Vec::len).sum();
        let mut x = Buffer::zeroed(rows * width);
        self.look_up(texts, &mut x);
        let mut normed = Buffer::zeroed(rows * width);
        self.norm.apply(&x, eps, &mut normed);
        std::mem::swap(&mut x, &mut normed);

        let [mut query, mut key, mut value] = [(); 3].map(|()| Buffer::zeroed(rows * width));
        let (mut mixed, mut high) = (Buffer::zeroed(rows * width), Buffer::zeroed(rows * inner));
        for layer in &self.layers {
            apply(rows, &x, &mut [(&layer.query, &mut query), (&layer.key, &mut key), (&layer.value, &mut value)]);
            attend(texts, heads, width, [&query, &key, &value], &mut mixed);
            apply(rows, &mixed, &mut [(&layer.mixed, &mut query)]);
            add_assign(&mut query, &x);
            layer.mixed_norm.apply(&query, eps, &mut x);

            apply(rows, &x, &mut [(&layer.up, &mut high)]);
            high.par_chunks_mut(inner).for_each(|row| row.iter_mut().for_each(|value| *value = gelu(*value)));
            apply(rows, &high, &mut [(&layer.down, &mut query)]);
            add_assign(&mut query, &x);
            layer.norm.apply(&query, eps, &mut x);
        }
        let mut at = 0;
        let means = texts.iter().map(|text| {
            let rows = &x[at * width..(at + text.len()) * width];
            at += text.len();
            mean(rows, width)
        });
        means.collect()
    }

    /// Of every token the sum of its word, its place in its text, and the kind of text.
    fn look_up(&self, texts: &[Vec<u32>], x: &mut [f32]) {
        let width = self.shape.width;
        let tokens = texts.iter().flat_map(|text| text.iter().enumerate());
        for ((place, token), row) in tokens.zip(x.chunks_exact_mut(width)) {
            let at = *token as usize * width;
            row.copy_from_slice(&self.words[at..at + width]);
            add_assign(row, &self.kind);
            add_assign(row, &self.positions[place * width..(place + 1) * width]);
        }
    }
}

impl Norm {
    /// Norms each row of `x`.
    fn apply(&self, x: &[f32], eps: f32, out: &mut [f32]) {
        let width = self.weight.len();
        let rows = out.par_chunks_exact_mut(width).zip(x.par_chunks_exact(width)).with_min_len(16);
        rows.for_each(|(out, x)| layer_norm(x, &self.weight, &self.bias, eps, out));
    }
}

/// `out = W·x + b` for layers that read the same rows.
fn apply(rows: usize, x: &[f32], layers: &mut [(&Linear, &mut Buffer<f32>)]) {
    let x = Rows::new(x);
    let weights: Vec<_> = layers.iter().map(|(linear, _)| linear.weight()).collect();
    let products = layers.iter_mut().zip(&weights).map(|((linear, out), weight)| {
        let start = linear.begin(out);
        Product { x: &x, weight, out, start }
    });
    multiply(rows, &mut products.collect::<Vec<_>>());
}

/// Every token looks at all tokens of its own text.
fn attend(texts: &[Vec<u32>], heads: usize, width: usize, [q, k, v]: [&[f32]; 3], out: &mut [f32]) {
    let mut tasks = Vec::with_capacity(texts.len());
    let (mut begin, mut out) = (0, out);
    for text in texts {
        let (own, rest) = std::mem::take(&mut out).split_at_mut(text.len() * width);
        out = rest;
        tasks.push((begin * width, text.len(), own));
        begin += text.len();
    }
    let dim = width / heads;
    let scale = 1.0 / (dim as f32).sqrt();
    tasks.into_par_iter().for_each_init(Vec::new, |buffers, (at, rows, out)| {
        buffers.resize(rows * (rows + dim), 0.0);
        let (scores, keys) = buffers.split_at_mut(rows * rows);
        for head in (0..width).step_by(dim) {
            for row in 0..rows {
                for (d, &value) in k[at + row * width + head..][..dim].iter().enumerate() {
                    keys[d * rows + row] = value;
                }
            }
            let left = Left { data: &q[at + head..], row: width, step: 1 };
            gemm((rows, rows, dim), left, Right { data: keys, step: rows }, scores, rows, Start::Zero);
            scores.chunks_exact_mut(rows).for_each(|row| softmax(row, rows, scale));
            let left = Left { data: scores, row: rows, step: 1 };
            let right = Right { data: &v[at + head..], step: width };
            gemm((rows, dim, rows), left, right, &mut out[head..], width, Start::Zero);
        }
    });
}

/// The mean of some rows, brought to length one.
fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    rows.chunks_exact(width).for_each(|row| add_assign(&mut sum, row));
    let length = dot(&sum, &sum).sqrt().max(f32::MIN_POSITIVE);
    sum.iter_mut().for_each(|value| *value /= length);
    sum
}

/// The cosine of the angle between two vectors of length one.
pub fn similarity(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b)
}

/// GELU itself (Hendrycks and Gimpel, arXiv 1606.08415): `x · (1 + erf(x / √2)) / 2`.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function by Abramowitz and Stegun's 7.1.28, within 3e-7: products and one quotient, so the same everywhere.
fn erf(x: f32) -> f32 {
    const SERIES: [f32; 6] =
        [0.000_043_063_8, 0.000_276_567_2, 0.000_152_014_3, 0.009_270_527, 0.042_282_01, 0.070_523_08];
    let positive = x.abs();
    let sum = SERIES.iter().fold(0.0, |sum, factor| (sum + factor) * positive) + 1.0;
    let second = sum * sum;
    let fourth = second * second;
    let eighth = fourth * fourth;
    (1.0 - 1.0 / (eighth * eighth)).copysign(x)
}

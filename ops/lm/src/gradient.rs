//! Losses, and their gradients by an adapter.
//!
//! Segments lie end to end in a batch and never attend to one another; each begins at position zero. A block's
//! values are kept on the way forward; where weights stay as their file has them, the MLP's, half of the memory, are computed again on the way
//! back. The logits of a few rows exist at a time.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::attention::{Heads, over_segments, over_segments_backward};
use crate::block::{Kept, Pass, Values};
use crate::kernels::{Buffer, Product, Rows, Start, cross_entropy, multiply};
use crate::lora::{Adapter, Grads};
use crate::model::Model;
use crate::rope::Ropes;

/// Rows whose logits exist at a time: more would read the head less often.
const ROWS: usize = 192;

/// A sequence to learn from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// For each token, what it should say next; none where the loss does not look.
    pub targets: Vec<Option<u32>>,
}

impl Segment {
    /// A text whose tokens each predict the next, where `counts` is true *of the predicted token*. As long as the text
    /// less its last token.
    ///
    /// # Panics
    ///
    /// If `counts` is not as long as `text`.
    pub fn next_token(text: &[u32], counts: &[bool]) -> Self {
        assert_eq!(text.len(), counts.len(), "a mark for each token");
        let tokens = text[..text.len().saturating_sub(1)].to_vec();
        let targets = text.iter().zip(counts).skip(1).map(|(&token, &counts)| counts.then_some(token)).collect();
        Self { tokens, targets }
    }
}

/// A sum of losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Negative log-likelihood of the targets, in nats.
    pub nll: f64,
    /// Targets.
    pub tokens: u64,
}

impl LossSum {
    /// Adds another sum.
    pub fn add(&mut self, other: Self) {
        self.nll += other.nll;
        self.tokens += other.tokens;
    }

    /// Loss a target; none without targets.
    pub fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.nll / self.tokens as f64)
    }
}

impl Model {
    /// The loss of each segment, without dropout. A segment's loss has the same bits in any company.
    ///
    /// # Errors
    ///
    /// If a segment is empty, longer than the context, or its tokens or targets are unknown or of different number; or
    /// if the adapter was made for another model.
    pub fn loss(&self, adapter: Option<&Adapter>, segments: &[Segment]) -> Result<Vec<LossSum>, LmError> {
        self.check_segments(adapter, segments)?;
        Ok(rayon::scope(|_| {
            let batch = Batch::new(self, adapter, None, segments);
            let mut values = Values::new(&self.config, batch.rows());
            let mut x = self.embed(segments.iter().flat_map(|segment| &segment.tokens), batch.rows());
            for layer in 0..self.blocks.len() {
                batch.forward(layer, &mut values, &mut x);
            }
            let mut hidden = Buffer::any(x.len());
            self.norm.forward(&x, &mut hidden);
            self.head_loss(segments, &hidden, None)
        }))
    }

    /// The losses of the segments, and the gradients of their *sum* by the adapter's tensors; who wants a mean divides
    /// by the number of targets. With a `dropout_seed` the adapter's dropout is on, and a function of that seed.
    ///
    /// # Errors
    ///
    /// As [`Model::loss`].
    pub fn gradients(
        &self,
        adapter: &Adapter,
        segments: &[Segment],
        dropout_seed: Option<u64>,
    ) -> Result<(Vec<LossSum>, Grads), LmError> {
        self.check_segments(Some(adapter), segments)?;
        Ok(rayon::scope(|_| self.run_gradients(adapter, segments, dropout_seed)))
    }

    fn run_gradients(&self, adapter: &Adapter, segments: &[Segment], seed: Option<u64>) -> (Vec<LossSum>, Grads) {
        let dropout = seed.map(|seed| (adapter.config().dropout, seed));
        let batch = Batch::new(self, Some(adapter), dropout, segments);
        let mut values = Values::new(&self.config, batch.rows());
        let mut x = self.embed(segments.iter().flat_map(|segment| &segment.tokens), batch.rows());
        let mut kept = Vec::with_capacity(self.blocks.len());
        for layer in 0..self.blocks.len() {
            let input = x.clone();
            batch.forward(layer, &mut values, &mut x);
            kept.push(values.keep(input, self.blocks[layer].keeps_inner()));
        }
        let mut hidden = Buffer::any(x.len());
        self.norm.forward(&x, &mut hidden);
        let mut d_hidden = Buffer::zeroed(x.len());
        let losses = self.head_loss(segments, &hidden, Some(&mut d_hidden));
        drop(hidden);

        let mut d_x = Buffer::zeroed(x.len());
        self.norm.backward(&x, &d_hidden, &mut d_x);
        drop((x, d_hidden));
        let mut grads = adapter.zero_grads();
        while let Some(of_block) = kept.pop() {
            batch.backward(kept.len(), of_block, &mut values, &mut d_x, &mut grads);
        }
        (losses, grads)
    }

    /// The loss of each segment for the final hidden states; with `d_hidden` (zeros), also their gradients.
    fn head_loss(&self, segments: &[Segment], hidden: &[f32], mut d_hidden: Option<&mut [f32]>) -> Vec<LossSum> {
        let (width, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let targets: Vec<(usize, usize, usize)> = wanted(segments).collect();
        let mut losses = vec![LossSum::default(); segments.len()];
        let size = ROWS.min(targets.len());
        let mut logits = Buffer::any(size * vocab);
        let mut x = Buffer::any(size * width);
        let head = self.head();
        let (weight, back) = (head.weight(), d_hidden.is_some().then(|| head.back()));
        for chunk in targets.chunks(ROWS) {
            let rows = chunk.len();
            let (logits, x) = (&mut logits[..rows * vocab], &mut x[..rows * width]);
            for (x, &(_, row, _)) in x.chunks_exact_mut(width).zip(chunk) {
                x.copy_from_slice(&hidden[row * width..(row + 1) * width]);
            }
            let start = head.begin(logits);
            multiply(rows, &mut [Product { x: &Rows::new(x), weight: &weight, out: logits, start }]);
            let nlls: Vec<f64> = logits
                .par_chunks_exact_mut(vocab)
                .zip(chunk)
                .map(|(logits, &(_, _, target))| cross_entropy(logits, target))
                .collect();
            for (&(segment, ..), nll) in chunk.iter().zip(nlls) {
                losses[segment].add(LossSum { nll, tokens: 1 });
            }
            if let (Some(d_hidden), Some(back)) = (&mut d_hidden, &back) {
                multiply(rows, &mut [Product { x: &Rows::new(logits), weight: back, out: x, start: Start::Zero }]);
                for (x, &(_, row, _)) in x.chunks_exact(width).zip(chunk) {
                    d_hidden[row * width..(row + 1) * width].copy_from_slice(x);
                }
            }
        }
        losses
    }

    fn check_segments(&self, adapter: Option<&Adapter>, segments: &[Segment]) -> Result<(), LmError> {
        adapter.map_or(Ok(()), |adapter| self.check_adapter(adapter))?;
        for segment in segments {
            self.check_tokens(&segment.tokens, 0)?;
            let (tokens, targets) = (segment.tokens.len(), segment.targets.len());
            if tokens != targets {
                return Err(LmError::Argument(format!("a segment has {tokens} tokens and {targets} targets")));
            }
            let unknown = segment.targets.iter().flatten().find(|&&target| target as usize >= self.config.vocab_size);
            if let Some(target) = unknown {
                return Err(LmError::Argument(format!("target {target} is not in the vocabulary")));
            }
        }
        Ok(())
    }
}

/// `(segment, row in the batch, target)` of every target.
fn wanted(segments: &[Segment]) -> impl Iterator<Item = (usize, usize, usize)> {
    let all =
        segments.iter().enumerate().flat_map(|(at, segment)| segment.targets.iter().map(move |target| (at, target)));
    all.enumerate().filter_map(|(row, (segment, target))| Some((segment, row, (*target)? as usize)))
}

/// What the passes of one batch share.
struct Batch<'a> {
    model: &'a Model,
    adapter: Option<&'a Adapter>,
    dropout: Option<(f32, u64)>,
    lengths: Vec<usize>,
    ropes: Ropes,
}

impl<'a> Batch<'a> {
    fn new(model: &'a Model, adapter: Option<&'a Adapter>, dropout: Option<(f32, u64)>, segments: &[Segment]) -> Self {
        let lengths: Vec<usize> = segments.iter().map(|segment| segment.tokens.len()).collect();
        let positions: Vec<usize> = lengths.iter().flat_map(|&length| 0..length).collect();
        Self { model, adapter, dropout, ropes: Ropes::new(&model.config, &positions), lengths }
    }

    fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn pass(&self, layer: usize) -> Pass<'_> {
        let config = &self.model.config;
        Pass { config, layer, rope: self.ropes.of(config, layer), adapter: self.adapter, dropout: self.dropout }
    }

    fn forward(&self, layer: usize, values: &mut Values, x: &mut [f32]) {
        let heads = Heads::of(&self.model.config, layer);
        self.model.blocks[layer].forward(self.pass(layer), values, x, |q, k, v, out| {
            over_segments(heads, &self.lengths, q, k, v, out);
        });
    }

    /// Takes `d_x` back through a block.
    fn backward(&self, layer: usize, kept: Kept, values: &mut Values, d_x: &mut [f32], grads: &mut Grads) {
        let heads = Heads::of(&self.model.config, layer);
        let block = &self.model.blocks[layer];
        let input = block.forward_again(self.pass(layer), kept, values);
        block.backward(self.pass(layer), values, &input, d_x, grads, |qkv, out, d_out| {
            over_segments_backward(heads, &self.lengths, qkv, out, d_out)
        });
    }
}

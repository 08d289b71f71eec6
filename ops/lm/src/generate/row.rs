//! One text under way.

use super::{FinishReason, Finished, Request};
use crate::{
    kv::KvCache,
    model::Span,
    tokenizer::{TextStream, Tokenizer},
};

/// One text under way.
///
/// Invariant: the cache holds the first `cache.len()` tokens of `seen`.
pub(super) struct Row<'a> {
    pub(super) index: usize,
    pub(super) request: &'a Request,
    /// Set when the text has ended.
    pub(super) reason: Option<FinishReason>,
    /// The prompt, then what was written.
    seen: Vec<u32>,
    cache: KvCache,
    stream: TextStream<'a>,
    text: String,
    /// Bytes of `text` that were told.
    told: usize,
}

impl<'a> Row<'a> {
    /// A row whose prompt begins with what `cache` holds.
    pub(super) fn new(index: usize, request: &'a Request, cache: KvCache, tokenizer: &'a Tokenizer) -> Self {
        let seen = request.prompt.clone();
        let stream = tokenizer.stream();
        Self { index, request, reason: None, seen, cache, stream, text: String::new(), told: 0 }
    }

    /// Whether the prompt is done.
    pub(super) fn is_decoding(&self) -> bool {
        self.seen.len() > self.request.prompt.len()
    }

    /// Tokens that are not in the cache yet.
    pub(super) fn pending(&self) -> usize {
        self.seen.len() - self.cache.len()
    }

    /// The next `take` tokens, to be run.
    pub(super) fn span(&mut self, take: usize) -> Span<'_> {
        let start = self.cache.len();
        Span { tokens: &self.seen[start..start + take], cache: &mut self.cache }
    }

    /// Whether, after `take` tokens were run, the next token can be drawn.
    pub(super) fn advance(&self, take: usize) -> bool {
        take > 0 && self.pending() == 0
    }

    /// Draws the next token from `logits`, and ends the text if that ends it.
    pub(super) fn draw(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) {
        let written = self.written();
        let id = self.request.sampling.draw(logits, &self.seen, self.request.seed, written as u64);
        if tokenizer.ends().contains(&id) {
            self.reason = Some(FinishReason::Stop);
            return;
        }
        self.seen.push(id);
        let before = self.text.len();
        self.text.push_str(&self.stream.push(id));
        if let Some(at) = self.stop_since(before) {
            self.text.truncate(at);
            self.reason = Some(FinishReason::Stop);
        } else if written + 1 == self.request.max_tokens {
            self.reason = Some(FinishReason::Length);
        }
    }

    /// Text that has come and that no stop string can take back; all that is left when the text has ended.
    pub(super) fn settled(&mut self) -> Option<String> {
        let held = if self.reason.is_some() { 0 } else { self.held() };
        let until = self.text.len() - held;
        let piece = self.text.get(self.told..until).filter(|piece| !piece.is_empty())?.to_owned();
        self.told = until;
        Some(piece)
    }

    pub(super) fn finish(self) -> Finished {
        let reason = self.reason.expect("only rows that have ended are finished");
        let tokens = self.seen[self.request.prompt.len()..].to_vec();
        Finished { index: self.index, tokens, text: self.text, reason }
    }

    fn written(&self) -> usize {
        self.seen.len() - self.request.prompt.len()
    }

    /// Where the first stop string begins that ends after byte `before`.
    fn stop_since(&self, before: usize) -> Option<usize> {
        let first = |stop: &String| {
            let mut from = (before + 1).saturating_sub(stop.len());
            while !self.text.is_char_boundary(from) {
                from -= 1;
            }
            self.text[from..].find(stop.as_str()).map(|at| from + at)
        };
        self.request.stop.iter().filter(|stop| !stop.is_empty()).filter_map(first).min()
    }

    /// Bytes at the end that may become a stop string.
    fn held(&self) -> usize {
        let begun = |stop: &String| {
            let cuts = stop.char_indices().map(|(at, _)| at);
            cuts.filter(|&at| self.text.ends_with(&stop[..at])).max()
        };
        self.request.stop.iter().filter_map(begun).max().unwrap_or(0)
    }
}

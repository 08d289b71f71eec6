//! One text under way.

use std::borrow::Cow;

use super::{FinishReason, Finished, Request, draft, prefix::common, repetition::repeats};
use crate::{
    guide::Guided,
    kv::KvCache,
    model::Span,
    tokenizer::{TextStream, Tokenizer},
};

/// One text under way.
///
/// Invariant: the cache holds the first `cache.len()` tokens of `seen`, whose last `guesses` are guessed.
pub(super) struct Row<'a> {
    pub(super) index: usize,
    pub(super) request: Cow<'a, Request>,
    /// Nobody wants it any more.
    pub(super) dropped: bool,
    /// Set when the text has ended.
    pub(super) reason: Option<FinishReason>,
    seed: u64,
    guided: Option<Guided>,
    /// Tokens that the cache held at first.
    shared: usize,
    /// The prompt, then what was written, during a step then what may follow.
    seen: Vec<u32>,
    guesses: usize,
    cache: KvCache,
    stream: TextStream<'a>,
    text: String,
    /// Bytes of `text` that were told.
    told: usize,
    #[cfg(test)]
    drawn_from: u64,
}

impl<'a> Row<'a> {
    /// A row whose prompt begins with what `cache` holds.
    pub(super) fn new(index: usize, request: Cow<'a, Request>, cache: KvCache, tokenizer: &'a Tokenizer) -> Self {
        let seen = request.prompt.clone();
        let guided = request.guide.as_ref().map(|guide| guide.begin());
        Self {
            index,
            reason: None,
            dropped: false,
            seed: request.seed,
            guided,
            request,
            shared: cache.len(),
            seen,
            guesses: 0,
            cache,
            stream: tokenizer.stream(),
            text: String::new(),
            told: 0,
            #[cfg(test)]
            drawn_from: 0,
        }
    }

    /// Forgets what was written, and draws with another seed.
    pub(super) fn begin_anew(&mut self, seed: u64, tokenizer: &'a Tokenizer) {
        let n_prompt = self.request.prompt.len();
        self.seen.truncate(n_prompt);
        // The state of the last token is wanted again.
        self.cache.truncate(n_prompt - 1);
        self.guided = self.request.guide.as_ref().map(|guide| guide.begin());
        self.stream = tokenizer.stream();
        (self.seed, self.reason, self.told) = (seed, None, 0);
        #[cfg(test)]
        (self.drawn_from = 0);
        self.text.clear();
    }

    /// Keys and values of what of the prompt was computed.
    pub(super) fn known(&self) -> KvCache {
        let mut known = self.cache.fork();
        known.truncate(self.request.prompt.len());
        known
    }

    /// Whether the prompt is done.
    pub(super) fn is_decoding(&self) -> bool {
        self.seen.len() > self.request.prompt.len()
    }

    /// Tokens that are not in the cache yet.
    pub(super) fn pending(&self) -> usize {
        self.seen.len() - self.cache.len()
    }

    /// Has the next step run up to `most` tokens more that may follow; how many it found. The prompt is done.
    pub(super) fn guess(&mut self, most: usize) -> usize {
        let more = self.request.max_tokens - self.written().len() - 1;
        let guesses = draft::guess(&self.seen, most.min(more)).to_vec();
        self.guesses = guesses.len();
        self.seen.extend(guesses);
        self.guesses
    }

    /// The next `take` tokens, to be run.
    pub(super) fn span(&mut self, take: usize) -> Span<'_> {
        let start = self.cache.len();
        Span { tokens: &self.seen[start..start + take], cache: &mut self.cache }
    }

    /// Of how many of the `take` tokens that were run logits are wanted: those that were guessed, and the one before them.
    pub(super) fn wanted(&self, take: usize) -> usize {
        if take > 0 && self.pending() == 0 { 1 + self.guesses } else { 0 }
    }

    /// Draws a token from each of the `logits`, as long as the last one was guessed right; how many. What was guessed wrong is forgotten.
    pub(super) fn draw(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) -> u64 {
        let vocabulary = logits.len() / (1 + self.guesses);
        let known = self.seen.len() - self.guesses;
        let guesses = self.seen.split_off(known);
        self.guesses = 0;
        let mut drawn = 0;
        for (at, logits) in logits.chunks_exact_mut(vocabulary).enumerate() {
            self.draw_one(logits, tokenizer);
            drawn += 1;
            if self.reason.is_some() || self.seen.last() != guesses.get(at) {
                break;
            }
        }
        self.cache.truncate(known + common(&self.seen[known..], &guesses));
        drawn
    }

    /// Draws the next token from `logits`, and ends the text if that ends it.
    fn draw_one(&mut self, logits: &mut [f32], tokenizer: &Tokenizer) {
        if self.guided.as_mut().is_some_and(|guided| guided.mask(logits).is_err()) {
            self.reason = Some(FinishReason::Guide);
            return;
        }
        #[cfg(test)]
        self.digest(logits);
        let id = self.request.sampling.draw(logits, &self.seen, self.seed, self.written().len() as u64);
        if tokenizer.ends().contains(&id) {
            self.reason = Some(FinishReason::Stop);
            return;
        }
        self.seen.push(id);
        let before = self.text.len();
        self.text.push_str(&self.stream.push(id));
        self.reason = match self.guided.as_mut().map(|guided| guided.take(id)) {
            Some(Err(_)) => Some(FinishReason::Guide),
            Some(Ok(true)) => Some(FinishReason::Stop),
            _ if repeats(self.written(), self.request.repetition) => Some(FinishReason::Repetition),
            _ if self.written().len() == self.request.max_tokens => Some(FinishReason::Length),
            _ => None,
        };
        if let Some(at) = self.stop_since(before) {
            self.text.truncate(at);
            self.reason = Some(FinishReason::Stop);
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

    /// The tokens whose keys and values the cache holds, and the cache.
    pub(super) fn leave(mut self) -> (Vec<u32>, KvCache) {
        self.seen.truncate(self.cache.len());
        (self.seen, self.cache)
    }

    pub(super) fn finished(&self) -> Finished {
        let reason = self.reason.expect("only rows that have ended are finished");
        let (tokens, text) = (self.written().to_vec(), self.text.clone());
        Finished {
            index: self.index,
            tokens,
            text,
            reason,
            shared: self.shared,
            #[cfg(test)]
            drawn_from: self.drawn_from,
        }
    }

    #[cfg(test)]
    fn digest(&mut self, logits: &[f32]) {
        let mix = |digest: u64, logit: &f32| {
            (digest.rotate_left(5) ^ u64::from(logit.to_bits())).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        self.drawn_from = logits.iter().fold(self.drawn_from, mix);
    }

    fn written(&self) -> &[u32] {
        &self.seen[self.request.prompt.len()..]
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

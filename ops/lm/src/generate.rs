//! Many prompts at once become token streams, each the same whatever its neighbours.
//!
//! Continuous batching: a step runs the next tokens of every row that is under way, a token for a row that decodes,
//! a stretch of the prompt for one that has just come; a row that has ended leaves and the next takes its place, the
//! longest prompts first. A few rows alone run guesses of their next tokens along. The tokens that all prompts begin with are computed once
//! and their keys and values shared; a prompt that goes on like that of a row under way begins from what that row has computed.
//!
//! | question | answer |
//! |---|---|
//! | what does a row's text depend on? | model, adapter, its request. The model's law (bits do not depend on the batch, on how a prompt is cut, or on a shared prefix), draws that know only seed and step, and grammars that know only the text see to that |
//! | what bounds memory? | a row is let in when its prompt and `max_tokens` have room in `cache_bytes`, so none is ever thrown out; one row always runs |
//! | what bounds a step? | `step_tokens` of prompts besides one token for each row that decodes, guesses up to `cheap_tokens`: after each step the caller is asked whether to go on |

mod draft;
mod prefix;
mod repetition;
mod row;
mod serve;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::{
    LmError,
    guide::Guide,
    kv::KvCache,
    lora::Adapter,
    model::{Model, Span},
    sample::Sampling,
    tokenizer::Tokenizer,
};
use rayon::prelude::*;
use row::Row;

pub use repetition::REPETITION_TOKENS;
pub use serve::{Next, serve};

/// One text to be written.
#[derive(Clone, Debug)]
pub struct Request {
    /// Tokens of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Seeds the draws of this row.
    pub seed: u64,
    /// At most so many tokens are written.
    pub max_tokens: usize,
    /// The text ends before the first of these. End tokens always end it.
    pub stop: Vec<String>,
    /// What the text must be.
    pub guide: Option<Arc<Guide>>,
    /// The text ends when so many last tokens say one thing again and again; 0 lets it. See [`REPETITION_TOKENS`].
    pub repetition: usize,
}

/// What generation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of keys and values.
    pub cache_bytes: usize,
    /// Rows side by side.
    pub rows: usize,
    /// Prompt tokens in one step.
    pub step_tokens: usize,
    /// Tokens up to which a step takes little longer than with one: a step with fewer runs guesses along. Texts do not depend on it.
    pub cheap_tokens: usize,
}

/// Weights that a processor runs some hundreds of prompt tokens a second through: a step of them stays below a second.
const BYTES_AT_256: usize = 350 << 20;

impl Limits {
    /// The default, with shorter steps for larger models.
    pub fn of(model: &Model) -> Self {
        let step_tokens = (256 * BYTES_AT_256 / model.bytes().max(1)).clamp(16, 256);
        Self { step_tokens, ..Self::default() }
    }
}

impl Default for Limits {
    /// 1 GiB, 32 rows, 256 prompt tokens a step, 6 tokens at the price of one.
    fn default() -> Self {
        Self { cache_bytes: 1 << 30, rows: 32, step_tokens: 256, cheap_tokens: 6 }
    }
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string came.
    Stop,
    /// `max_tokens` were written.
    Length,
    /// It said the same again and again.
    Repetition,
    /// Its grammar's parser gave up, or no token can follow.
    Guide,
}

impl FinishReason {
    /// The word for it; OpenAI's interface has the first two: `stop`, `length`, `repetition`, `guide`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Repetition => "repetition",
            Self::Guide => "guide",
        }
    }
}

/// A text that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which request it answers.
    pub index: usize,
    /// What was written: without the end token, with the tokens of a stop string.
    pub tokens: Vec<u32>,
    /// The text, cut before a stop string. A character that `max_tokens` left unfinished is not part of it.
    pub text: String,
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of its prompt whose keys and values others had computed.
    pub shared: usize,
    /// A digest of all logits that were drawn from.
    #[cfg(test)]
    pub(crate) drawn_from: u64,
}

/// What happens while texts are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step was done.
    Step {
        /// Prompt tokens that it computed.
        prompt: u64,
        /// Tokens that it drew.
        output: u64,
    },
    /// A text grew by a piece that no stop string can take back.
    Text {
        /// Which request it answers.
        index: usize,
        /// The piece.
        text: String,
    },
    /// A text ended.
    Finished(Finished),
}

/// How generation goes on after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As before.
    Continue,
    /// After [`Event::Finished`]: the text is written anew with this seed, from what is computed of its prompt.
    Again(u64),
    /// After [`Event::Text`]: nobody wants the rest of that text.
    Drop,
    /// At once, with what is under way thrown away.
    Stop,
}

/// Is told events, and says how to go on.
pub type OnEvent<'a> = &'a mut dyn FnMut(Event) -> Flow;

/// Writes a text for every request. Texts end in any order; events say which.
///
/// # Errors
/// [`LmError::Argument`] for an empty prompt, or one that with `max_tokens` is longer than the model's context;
/// [`LmError::Cancelled`] when `on_event` stopped it; errors of the model.
pub fn generate(
    model: &Model,
    tokenizer: &Tokenizer,
    adapter: Option<&Adapter>,
    requests: &[Request],
    limits: Limits,
    on_event: OnEvent<'_>,
) -> Result<(), LmError> {
    check(model, requests)?;
    let base = model.cache();
    let mut batch = Batch { model, tokenizer, adapter, limits, base, rows: Vec::new(), keeps: false, left: Vec::new() };
    batch.compute_prefix(prefix::shared(requests), on_event)?;
    // Always in the same order, so what runs side by side is the same every time.
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(requests[index].prompt.len()));
    let mut waiting = order.into_iter().peekable();
    loop {
        while let Some(&index) = waiting.peek()
            && let Some(cache) = batch.let_in(&requests[index])
        {
            batch.rows.push(Row::new(index, Cow::Borrowed(&requests[index]), cache, tokenizer));
            waiting.next();
        }
        if batch.rows.is_empty() {
            return Ok(());
        }
        batch.step(on_event)?;
    }
}

/// Rows under way.
struct Batch<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    adapter: Option<&'a Adapter>,
    limits: Limits,
    /// What all prompts begin with.
    base: KvCache,
    rows: Vec<Row<'a>>,
    /// Whether what rows computed is wanted when they have ended; and of which that is so since somebody looked.
    keeps: bool,
    left: Vec<(Vec<u32>, KvCache)>,
}

impl Batch<'_> {
    fn compute_prefix(&mut self, prefix: &[u32], on_event: OnEvent<'_>) -> Result<(), LmError> {
        for tokens in prefix.chunks(self.limits.step_tokens.max(1)) {
            self.model.forward(self.adapter, &mut [Span { tokens, cache: &mut self.base }])?;
            tell(on_event, Event::Step { prompt: tokens.len() as u64, output: 0 })?;
        }
        Ok(())
    }

    /// The cache with which a request may come in now; the first always may.
    fn let_in(&self, request: &Request) -> Option<KvCache> {
        if self.rows.is_empty() {
            return Some(self.base.fork());
        }
        let cost =
            |request: &Request| self.base.bytes_after(self.base.len(), request.prompt.len() + request.max_tokens);
        let taken: usize = self.rows.iter().map(|row| cost(&row.request)).sum();
        let base = self.base.bytes(self.base.len());
        if self.rows.len() >= self.limits.rows || base + taken + cost(request) > self.limits.cache_bytes {
            return None;
        }
        prefix::longest(&self.base, &self.rows, request)
    }

    /// Runs the next tokens of all rows, draws where a row is through, and lets the ended ones go.
    fn step(&mut self, on_event: OnEvent<'_>) -> Result<(), LmError> {
        self.guess();
        let takes = self.takes();
        let mut spans: Vec<_> = self
            .rows
            .iter_mut()
            .zip(&takes)
            .filter(|&(_, &take)| take > 0)
            .map(|(row, &take)| row.span(take))
            .collect();
        let hidden = self.model.forward(self.adapter, &mut spans)?;
        drop(spans);
        let mut ready: Vec<(&mut Row<'_>, Range<usize>)> = Vec::new();
        let (mut end, mut prompt) = (0, 0);
        for (row, &take) in self.rows.iter_mut().zip(&takes) {
            end += take;
            prompt += if row.is_decoding() { 0 } else { take as u64 };
            let wanted = row.wanted(take);
            if wanted > 0 {
                ready.push((row, end - wanted..end));
            }
        }
        let states: Vec<f32> =
            ready.iter().flat_map(|(_, at)| at.clone()).flat_map(|at| hidden.row(at)).copied().collect();
        let mut output = 0;
        if !ready.is_empty() {
            let mut logits = self.model.logits(&states);
            let mut rest = &mut logits[..];
            let rows = ready.into_iter().map(|(row, at)| {
                let logits = rest.split_off_mut(..at.len() * self.model.config().vocab_size);
                (row, logits.unwrap_or_default())
            });
            let rows: Vec<_> = rows.collect();
            output = rows.into_par_iter().map(|(row, logits)| row.draw(logits, self.tokenizer)).sum();
        }
        tell(on_event, Event::Step { prompt, output })?;
        self.report(on_event)
    }

    /// Has rows run guesses along, where all of them decode and are few.
    fn guess(&mut self) {
        let mut room = self.limits.cheap_tokens.saturating_sub(self.rows.len());
        if self.rows.iter().all(Row::is_decoding) {
            for row in &mut self.rows {
                room -= row.guess(room);
            }
        }
    }

    /// How many of its pending tokens each row runs: all of a row that decodes, and prompts, first come, first
    /// served, while there is room in the step.
    fn takes(&self) -> Vec<usize> {
        let mut room = self.limits.step_tokens.max(1);
        let take = |row: &Row<'_>| {
            if row.is_decoding() {
                return row.pending();
            }
            let take = row.pending().min(room);
            room -= take;
            take
        };
        self.rows.iter().map(take).collect()
    }

    /// Tells what rows have new text and which have ended; the ended leave, unless they are to be written anew.
    fn report(&mut self, on_event: OnEvent<'_>) -> Result<(), LmError> {
        for row in &mut self.rows {
            if let Some(text) = row.settled()
                && tell(on_event, Event::Text { index: row.index, text })? == Flow::Drop
            {
                row.dropped = true;
            }
        }
        self.rows.retain(|row| !row.dropped);
        let mut at = 0;
        while at < self.rows.len() {
            let row = &mut self.rows[at];
            if row.reason.is_none() {
                at += 1;
            } else if let Flow::Again(seed) = tell(on_event, Event::Finished(row.finished()))? {
                row.begin_anew(seed, self.tokenizer);
                at += 1;
            } else {
                let row = self.rows.remove(at);
                self.left.extend(self.keeps.then(|| row.leave()));
            }
        }
        Ok(())
    }
}

fn tell(on_event: OnEvent<'_>, event: Event) -> Result<Flow, LmError> {
    match on_event(event) {
        Flow::Stop => Err(LmError::Cancelled),
        flow => Ok(flow),
    }
}

fn check<'r>(model: &Model, requests: impl IntoIterator<Item = &'r Request>) -> Result<(), LmError> {
    let context = model.config().max_position_embeddings;
    for (index, request) in requests.into_iter().enumerate() {
        let (prompt, output) = (request.prompt.len(), request.max_tokens);
        if prompt == 0 || output == 0 {
            return Err(LmError::Argument(format!("request {index} has no prompt or no room for a token")));
        }
        if prompt + output > context {
            let sizes = format!("{prompt} prompt tokens and {output} output tokens");
            return Err(LmError::Argument(format!("request {index}: {sizes} exceed the context of {context}")));
        }
    }
    Ok(())
}

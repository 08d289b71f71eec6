//! Many prompts at once become token streams, each the same whatever its neighbours.
//!
//! Continuous batching: a step runs the next tokens of every row that is under way, a token for a row that decodes,
//! a stretch of the prompt for one that has just come; a row that has ended leaves and the next takes its place. The
//! tokens that all prompts begin with are computed once and their keys and values shared.
//!
//! | question | answer |
//! |---|---|
//! | what does a row's text depend on? | model, adapter, its request. The model's law (bits do not depend on the batch, on how a prompt is cut, or on a shared prefix) and draws that know only seed and step see to that |
//! | what bounds memory? | a row is let in when its prompt and `max_tokens` have room in `cache_bytes`, so none is ever thrown out; one row always runs |
//! | what bounds a step? | `step_tokens` of prompts besides one token for each row that decodes |

mod row;
#[cfg(test)]
mod tests;

use crate::{
    LmError,
    kv::KvCache,
    lora::Adapter,
    model::{Model, Span},
    sample::Sampling,
    tokenizer::Tokenizer,
};
use rayon::prelude::*;
use row::Row;

/// One text to be written.
#[derive(Clone, Debug, PartialEq)]
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
}

impl Default for Limits {
    /// 1 GiB, 32 rows, 256 prompt tokens a step.
    fn default() -> Self {
        Self { cache_bytes: 1 << 30, rows: 32, step_tokens: 256 }
    }
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string came.
    Stop,
    /// `max_tokens` were written.
    Length,
}

impl FinishReason {
    /// The word that OpenAI's interface has for it: `stop`, `length`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
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
    /// Texts that are under way are finished; no further one begins.
    Drain,
    /// At once, with what is under way thrown away.
    Stop,
}

/// Is told events, and says how to go on.
pub type OnEvent<'a> = &'a mut dyn FnMut(Event) -> Flow;

/// Writes a text for every request. Texts end in any order; events say which.
///
/// # Errors
/// [`LmError::Argument`] for an empty prompt, or one that with `max_tokens` is longer than the model's context;
/// [`LmError::Cancelled`] when `on_event` stopped it, or drained it and a request was left; errors of the model.
pub fn generate(
    model: &Model,
    tokenizer: &Tokenizer,
    adapter: Option<&Adapter>,
    requests: &[Request],
    limits: Limits,
    on_event: OnEvent<'_>,
) -> Result<(), LmError> {
    check(model, requests)?;
    let mut batch = Batch {
        model,
        tokenizer,
        adapter,
        limits,
        base: KvCache::new(model.config()),
        rows: Vec::new(),
        draining: false,
    };
    batch.compute_prefix(shared_prefix(requests), on_event)?;
    let mut waiting = requests.iter().enumerate().peekable();
    loop {
        // Rows come in by their order, so what runs side by side is the same every time.
        while let Some((index, request)) = waiting.next_if(|(_, request)| batch.lets_in(request)) {
            batch.rows.push(Row::new(index, request, batch.base.fork(), tokenizer));
        }
        if batch.rows.is_empty() {
            return if waiting.peek().is_none() { Ok(()) } else { Err(LmError::Cancelled) };
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
    /// Whether no further row comes in.
    draining: bool,
}

impl Batch<'_> {
    fn compute_prefix(&mut self, prefix: &[u32], on_event: OnEvent<'_>) -> Result<(), LmError> {
        for tokens in prefix.chunks(self.limits.step_tokens.max(1)) {
            self.model.forward(self.adapter, &mut [Span { tokens, cache: &mut self.base }])?;
            self.tell(on_event, Event::Step { prompt: tokens.len() as u64, output: 0 })?;
            if self.draining {
                break;
            }
        }
        Ok(())
    }

    /// Whether a request may come in now; the first always may, unless nothing may.
    fn lets_in(&self, request: &Request) -> bool {
        if self.draining {
            return false;
        }
        if self.rows.is_empty() {
            return true;
        }
        let config = self.model.config();
        let cost = |request: &Request| {
            KvCache::bytes_after(config, self.base.len(), request.prompt.len() + request.max_tokens)
        };
        let taken: usize = self.rows.iter().map(|row| cost(row.request)).sum();
        let base = KvCache::bytes(config, self.base.len());
        self.rows.len() < self.limits.rows && base + taken + cost(request) <= self.limits.cache_bytes
    }

    /// Runs the next tokens of all rows, draws where a row is through, and lets the ended ones go.
    fn step(&mut self, on_event: OnEvent<'_>) -> Result<(), LmError> {
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
        let mut ready: Vec<(&mut Row<'_>, usize)> = Vec::new();
        let (mut end, mut prompt) = (0, 0);
        for (row, &take) in self.rows.iter_mut().zip(&takes) {
            end += take;
            prompt += if row.is_decoding() { 0 } else { take as u64 };
            if row.advance(take) {
                ready.push((row, end - 1));
            }
        }
        let output = ready.len() as u64;
        if output > 0 {
            let states: Vec<f32> = ready.iter().flat_map(|&(_, at)| hidden.row(at)).copied().collect();
            let mut logits = self.model.logits(&states);
            let rows = logits.par_chunks_exact_mut(self.model.config().vocab_size).zip(ready);
            rows.for_each(|(logits, (row, _))| row.draw(logits, self.tokenizer));
        }
        self.tell(on_event, Event::Step { prompt, output })?;
        self.report(on_event)
    }

    /// How many of its pending tokens each row runs: the one of a row that decodes, and prompts, first come, first
    /// served, while there is room in the step.
    fn takes(&self) -> Vec<usize> {
        let mut room = self.limits.step_tokens.max(1);
        let take = |row: &Row<'_>| {
            if row.is_decoding() {
                return 1;
            }
            let take = row.pending().min(room);
            room -= take;
            take
        };
        self.rows.iter().map(take).collect()
    }

    /// Tells what rows have new text and which have ended; the ended leave.
    fn report(&mut self, on_event: OnEvent<'_>) -> Result<(), LmError> {
        let text = |row: &mut Row<'_>| Some(Event::Text { index: row.index, text: row.settled()? });
        let grown: Vec<Event> = self.rows.iter_mut().filter_map(text).collect();
        for event in grown {
            self.tell(on_event, event)?;
        }
        let ended: Vec<Row<'_>> = self.rows.extract_if(.., |row| row.reason.is_some()).collect();
        for row in ended {
            self.tell(on_event, Event::Finished(row.finish()))?;
        }
        Ok(())
    }

    fn tell(&mut self, on_event: OnEvent<'_>, event: Event) -> Result<(), LmError> {
        match on_event(event) {
            Flow::Continue => {}
            Flow::Drain => self.draining = true,
            Flow::Stop => return Err(LmError::Cancelled),
        }
        Ok(())
    }
}

fn check(model: &Model, requests: &[Request]) -> Result<(), LmError> {
    let context = model.config().max_position_embeddings;
    for (index, request) in requests.iter().enumerate() {
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

/// What all prompts begin with; at least one token of each is its own, whose state gives the first logits.
fn shared_prefix(requests: &[Request]) -> &[u32] {
    let [first, others @ ..] = requests else { return &[] };
    if others.is_empty() {
        return &[];
    }
    let mut length = first.prompt.len() - 1;
    for other in others {
        let prompt = &other.prompt[..other.prompt.len() - 1];
        length = prompt.iter().zip(&first.prompt[..length]).take_while(|(a, b)| a == b).count();
    }
    &first.prompt[..length]
}

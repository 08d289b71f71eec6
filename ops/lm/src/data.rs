//! Texts and question/answer pairs become training segments; segments become the steps of a phase.
//!
//! What counts in the loss is decided here. Of a document every token does, and the token that ends it; of a pair the
//! answer does, and the token that ends the turn. End tokens always count, or the model would never learn to stop.
//! Nothing is padded: segments of any length lie end to end in a batch and never attend to one another.

mod plan;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use plan::{Amount, Batch, Part, Step, passes, steps};

use crate::LmError;
use crate::gradient::Segment;
use crate::template::{ChatTemplate, Message};
use crate::tokenizer::Tokenizer;

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What the user says.
    pub question: String,
    /// What the model is to say.
    pub answer: String,
}

/// Which tokens of a pair count in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Those of the answer, and the end of its turn.
    #[default]
    Answer,
    /// Those of the question and of the template too.
    All,
}

/// Segments, and what did not become one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    /// In the order of the input.
    pub segments: Vec<Segment>,
    /// Examples that were longer than the limit or empty, and are left out whole.
    pub dropped: usize,
    /// What the segments are made up of, in order, if of several kinds; without parts all are taken once an epoch.
    pub parts: Vec<Part>,
}

impl Examples {
    /// What an epoch goes over, in words.
    pub fn told(&self) -> String {
        let [_, _, ..] = &self.parts[..] else {
            return format!("{} sequences, {} target tokens an epoch", self.segments.len(), self.targets());
        };
        let part = |part: &Part| format!("{:.1} of {}", part.passes * part.count as f64, part.count);
        let parts: Vec<String> = self.parts.iter().map(part).collect();
        format!("an epoch takes {} sequences", parts.join(" and "))
    }

    /// Tokens that count in the loss.
    pub fn targets(&self) -> u64 {
        self.segments.iter().flat_map(|segment| &segment.targets).flatten().count() as u64
    }
}

/// Documents, each cut into segments of at most `max_length` tokens. A document begins as in pre-training: after the
/// begin token, or where the model has none after the token that ended the document before. Each of its own tokens is
/// a target exactly once, and so is the end token.
///
/// # Errors
///
/// As [`Tokenizer::encode_document`].
pub fn texts<'a>(
    tokenizer: &Tokenizer,
    texts: impl IntoIterator<Item = &'a str>,
    max_length: usize,
) -> Result<Examples, LmError> {
    let end = document_end(tokenizer);
    let mut examples = Examples::default();
    for text in texts {
        if text.trim().is_empty() {
            examples.dropped += 1;
            continue;
        }
        let mut ids = tokenizer.encode_document(text)?;
        if tokenizer.bos().is_none_or(|bos| ids.first() != Some(&bos)) {
            ids.splice(0..0, end);
        }
        ids.extend(end);
        examples.segments.extend(cut(&ids, max_length.max(1)));
    }
    Ok(examples)
}

/// Pairs as the model's chat template writes them: the question is read, the answer and the end of its turn are learnt.
/// A pair of more than `max_length` tokens is dropped, not cut: half an answer teaches to stop in the middle.
///
/// # Errors
///
/// As [`Tokenizer::encode_prompt`].
pub fn pairs<'a>(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    pairs: impl IntoIterator<Item = &'a Pair>,
    counts: Counts,
    max_length: usize,
) -> Result<Examples, LmError> {
    let mut examples = Examples::default();
    for pair in pairs {
        match counted(tokenizer, template, pair, counts)? {
            Some(segment) if segment.tokens.len() < max_length => examples.segments.push(segment),
            _ => examples.dropped += 1,
        }
    }
    Ok(examples)
}

/// One pair, however long, of which the answer counts; none if the question or the answer is empty.
///
/// # Errors
///
/// As [`Tokenizer::encode_prompt`].
pub fn pair(tokenizer: &Tokenizer, template: &ChatTemplate, pair: &Pair) -> Result<Option<Segment>, LmError> {
    counted(tokenizer, template, pair, Counts::Answer)
}

fn counted(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    pair: &Pair,
    counts: Counts,
) -> Result<Option<Segment>, LmError> {
    if pair.question.trim().is_empty() || pair.answer.trim().is_empty() {
        return Ok(None);
    }
    let mut messages = vec![Message::new("user", &*pair.question)];
    let prompt = tokenizer.encode_prompt(template, &messages, true)?;
    messages.push(Message::new("assistant", &*pair.answer));
    let whole = tokenizer.encode_prompt(template, &messages, false)?;
    // The model speaks after exactly these tokens, so they stay even where the template would write them otherwise
    // beside an answer (a blank that melts into its first word, say).
    let answer = match whole.strip_prefix(prompt.as_slice()) {
        Some(answer) => answer.to_vec(),
        None => tokenizer.encode(&pair.answer)?,
    };
    Ok(Some(answered(prompt, answer, turn_end(tokenizer, &whole), counts)))
}

/// The segment of a prompt and what follows it, up to and with the end of the turn.
fn answered(prompt: Vec<u32>, mut answer: Vec<u32>, end: Option<u32>, counts: Counts) -> Segment {
    if let Some(end) = end {
        // Templates write a line break after the turn's end; generation has stopped by then.
        let length = answer.iter().rposition(|&token| token == end).unwrap_or(answer.len());
        answer.truncate(length);
        answer.push(end);
    }
    let mut counts = vec![counts == Counts::All; prompt.len()];
    counts.resize(prompt.len() + answer.len(), true);
    let mut ids = prompt;
    ids.extend(answer);
    Segment::next_token(&ids, &counts)
}

/// The token that ends the last turn of a rendered conversation: the last in it that ends generation, or else the
/// model's end token.
fn turn_end(tokenizer: &Tokenizer, whole: &[u32]) -> Option<u32> {
    whole.iter().rev().copied().find(|token| tokenizer.ends().contains(token)).or(tokenizer.eos())
}

/// The token between documents in pre-training. Models tuned for chat often name the end of a *turn* as their end
/// token, and keep this one beside it.
fn document_end(tokenizer: &Tokenizer) -> Option<u32> {
    let named = ["<|endoftext|>", "<|end_of_text|>"].into_iter().find_map(|name| tokenizer.control(name));
    named.or(tokenizer.eos())
}

/// Segments of at most `length` tokens that together predict every token but the first, once.
fn cut(ids: &[u32], length: usize) -> impl Iterator<Item = Segment> {
    let last = ids.len().saturating_sub(1);
    (0..last).step_by(length).map(move |start| {
        let text = &ids[start..=(start + length).min(last)];
        Segment::next_token(text, &vec![true; text.len()])
    })
}

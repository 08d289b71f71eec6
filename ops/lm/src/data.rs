//! Texts and question/answer pairs become training segments; segments become the steps of a phase.
//!
//! What counts in the loss is decided here. Of a document every token does, and the token that ends it; of a pair the
//! answer does, and the token that ends the turn. End tokens always count, or the model would never learn to stop.
//! Nothing is padded: segments of any length lie end to end in a batch and never attend to one another.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

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

/// Segments, and what did not become one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    /// In the order of the input.
    pub segments: Vec<Segment>,
    /// Examples that were longer than the limit or empty, and are left out whole.
    pub dropped: usize,
}

impl Examples {
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
    max_length: usize,
) -> Result<Examples, LmError> {
    let mut examples = Examples::default();
    for pair in pairs {
        match self::pair(tokenizer, template, pair)? {
            Some(segment) if segment.tokens.len() < max_length => examples.segments.push(segment),
            _ => examples.dropped += 1,
        }
    }
    Ok(examples)
}

/// One pair, however long; none if the question or the answer is empty.
///
/// # Errors
///
/// As [`Tokenizer::encode_prompt`].
pub fn pair(tokenizer: &Tokenizer, template: &ChatTemplate, pair: &Pair) -> Result<Option<Segment>, LmError> {
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
    Ok(Some(answered(prompt, answer, turn_end(tokenizer, &whole))))
}

/// The segment of a prompt and what follows it, up to and with the end of the turn.
fn answered(prompt: Vec<u32>, mut answer: Vec<u32>, end: Option<u32>) -> Segment {
    if let Some(end) = end {
        // Templates write a line break after the turn's end; generation has stopped by then.
        let length = answer.iter().rposition(|&token| token == end).unwrap_or(answer.len());
        answer.truncate(length);
        answer.push(end);
    }
    let mut counts = vec![false; prompt.len()];
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

/// How much goes into one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// So many segments.
    Sequences(usize),
    /// As many segments as fit into so many tokens, at least one.
    Tokens(usize),
}

/// One optimizer step of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which segments, by index.
    pub segments: Vec<usize>,
    /// Epochs done after it.
    pub epoch: f64,
    /// Whether it is the last of its epoch.
    pub ends_epoch: bool,
}

/// All steps of `epochs` passes over segments of these lengths, shuffled anew in each. A function of its arguments.
pub fn steps(lengths: &[usize], batch: Batch, epochs: u64, seed: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for epoch in 0..epochs {
        let order = shuffled(lengths.len(), seed, epoch);
        let mut start = 0;
        while start < order.len() {
            let end = start + fit(&order[start..], lengths, batch);
            let done = end as f64 / order.len() as f64;
            let ends_epoch = end == order.len();
            steps.push(Step { segments: order[start..end].to_vec(), epoch: epoch as f64 + done, ends_epoch });
            start = end;
        }
    }
    steps
}

/// Splits segments, in order, into passes of at most `max_tokens` tokens, at least one segment in each. Gives how many
/// segments each pass has.
pub fn passes(lengths: impl IntoIterator<Item = usize>, max_tokens: usize) -> Vec<usize> {
    let (mut counts, mut tokens): (Vec<usize>, usize) = (Vec::new(), 0);
    for length in lengths {
        tokens += length;
        match counts.last_mut() {
            Some(count) if tokens <= max_tokens => *count += 1,
            _ => {
                counts.push(1);
                tokens = length;
            }
        }
    }
    counts
}

/// How many of the first segments of `order` make a step.
fn fit(order: &[usize], lengths: &[usize], batch: Batch) -> usize {
    match batch {
        Batch::Sequences(n) => n.clamp(1, order.len()),
        Batch::Tokens(n) => {
            let mut tokens = 0;
            let fits = |&&at: &&usize| {
                tokens += lengths[at];
                tokens <= n
            };
            order.iter().take_while(fits).count().max(1)
        }
    }
}

/// The numbers below `n` in an order that depends on the seed and the epoch (Fisher and Yates).
fn shuffled(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut order: Vec<usize> = (0..n).collect();
    for at in (1..n).rev() {
        // A number below `at + 1` from the high half of a product: its bias is under 2^-32 for any real data set.
        let other = ((u128::from(rng.next_u64()) * (at as u128 + 1)) >> 64) as usize;
        order.swap(at, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::smollm2;

    fn counted(segment: &Segment) -> Vec<u32> {
        segment.targets.iter().flatten().copied().collect()
    }

    fn said(tokenizer: &Tokenizer, ids: &[u32]) -> String {
        let name = |&id: &u32| tokenizer.control_name(id).map_or_else(|| tokenizer.decode(&[id]), str::to_owned);
        ids.iter().map(name).collect()
    }

    #[test]
    fn of_a_pair_the_answer_and_the_end_of_turn_count_and_nothing_else() {
        let tokenizer = Tokenizer::open(&smollm2()).unwrap();
        let template = ChatTemplate::of(&tokenizer).unwrap();
        for answer in ["Run niload.", "\n\nRun niload.", "  <|im_end|> is a token", "é"] {
            let pair = Pair { question: "How?".into(), answer: answer.into() };
            let segment = super::pair(&tokenizer, &template, &pair).unwrap().unwrap();
            assert_eq!(said(&tokenizer, &counted(&segment)), format!("{answer}<|im_end|>"));
            let prompt = tokenizer.encode_prompt(&template, &[Message::new("user", "How?")], true).unwrap();
            assert_eq!(segment.tokens[..prompt.len()], prompt, "what generation begins with");
            let end = tokenizer.control("<|im_end|>");
            assert_eq!(*segment.targets.last().unwrap(), end);
        }
    }

    #[test]
    fn a_pair_over_the_limit_is_dropped_and_counted() {
        let tokenizer = Tokenizer::open(&smollm2()).unwrap();
        let template = ChatTemplate::of(&tokenizer).unwrap();
        let pair = |answer: &str| Pair { question: "How?".into(), answer: answer.into() };
        let input = [pair("By hand."), pair(" "), pair(&"again ".repeat(50))];
        let all = pairs(&tokenizer, &template, &input, 1000).unwrap();
        assert_eq!((all.segments.len(), all.dropped), (2, 1), "an empty answer is no example");
        let length = all.segments[0].tokens.len() + 1;
        let short = pairs(&tokenizer, &template, &input, length).unwrap();
        assert_eq!((short.segments.len(), short.dropped), (1, 2));
        assert_eq!(pairs(&tokenizer, &template, &input, length - 1).unwrap().dropped, 3);
    }

    #[test]
    fn of_a_document_every_token_and_the_end_count_once() {
        let tokenizer = Tokenizer::open(&smollm2()).unwrap();
        let text = "The NeXT computer keeps its users in NetInfo. ".repeat(9);
        let ids = tokenizer.encode(&text).unwrap();
        for max_length in [7, 64, 1000] {
            let examples = texts(&tokenizer, [text.as_str(), "", "Short."], max_length).unwrap();
            assert!(examples.segments.iter().all(|segment| segment.tokens.len() <= max_length));
            let all: Vec<u32> = examples.segments.iter().flat_map(counted).collect();
            let end = tokenizer.control("<|endoftext|>").unwrap();
            let mut expected = ids.clone();
            expected.push(end);
            expected.extend(tokenizer.encode("Short.").unwrap());
            expected.push(end);
            assert_eq!(all, expected, "{max_length}");
            assert_eq!(examples.targets(), expected.len() as u64);
            assert_eq!(examples.dropped, 1);
        }
    }

    #[test]
    fn steps_see_each_segment_once_an_epoch_in_an_order_of_the_seed() {
        let lengths: Vec<usize> = (0..50).map(|i| 5 + i % 7).collect();
        for batch in [Batch::Sequences(8), Batch::Tokens(40), Batch::Tokens(1)] {
            let all = steps(&lengths, batch, 2, 3);
            assert_eq!(all, steps(&lengths, batch, 2, 3));
            let half = all.iter().position(|step| step.ends_epoch).unwrap() + 1;
            assert_eq!((all[half - 1].epoch, all.last().unwrap().epoch), (1.0, 2.0));
            let mut seen: Vec<usize> = all[..half].iter().flat_map(|step| step.segments.clone()).collect();
            assert_ne!(seen, (0..50).collect::<Vec<_>>());
            assert_ne!(all[0].segments, all[half].segments, "another order in the second epoch");
            seen.sort_unstable();
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
            assert_ne!(all, steps(&lengths, batch, 2, 4));
        }
        let tokens = |step: &Step| step.segments.iter().map(|&at| lengths[at]).sum::<usize>();
        assert!(steps(&lengths, Batch::Tokens(40), 1, 3).iter().all(|step| tokens(step) <= 40));
        assert!(steps(&[], Batch::Sequences(8), 3, 1).is_empty());
    }

    #[test]
    fn passes_keep_under_the_limit_where_they_can() {
        assert_eq!(passes([3, 3, 3, 9, 1, 1], 6), [2, 1, 1, 2]);
        assert_eq!(passes([3, 3], 100), [2]);
        assert_eq!(passes([], 100), [0usize; 0]);
    }
}

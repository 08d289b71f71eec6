//! Where the tokens of a text begin, so that a piece of it is counted without being cut into tokens again.

use super::{Tokenizer, classes::CLASSES, quick::Quick};
use crate::LmError;
use std::ops::{ControlFlow, Range};

/// A shorter piece is sooner counted anew.
const SHORTEST: usize = 64;

/// The places of a text's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The bytes at which tokens begin, ascending.
    pub starts: Vec<usize>,
    /// Of every token, whether a word begins with it: no token from there on depends on the text before. Empty where that is not known.
    opens: Vec<bool>,
}

impl From<Vec<usize>> for Marks {
    fn from(starts: Vec<usize>) -> Self {
        Self { starts, opens: Vec::new() }
    }
}

impl Marks {
    /// The token at which a word begins at this byte.
    fn opened(&self, byte: usize) -> Option<usize> {
        self.starts.binary_search(&byte).ok().filter(|token| self.opens[*token])
    }

    /// The token that opens the last word but one of those that begin before a byte.
    fn last_but_one(&self, byte: usize) -> Option<usize> {
        let end = self.starts.partition_point(|start| *start < byte);
        (0..end).rev().filter(|token| self.opens[*token]).nth(1)
    }
}

impl Tokenizer {
    /// Where the tokens of `text` begin.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn marks(&self, text: &str) -> Result<Marks, LmError> {
        let parts = self.quick.as_ref().filter(|quick| !quick.has_added(text)).and_then(Quick::bytes_in_front);
        if let Some(in_front) = parts {
            let room = text.len() / 3;
            let mut marks = Marks { starts: Vec::with_capacity(room), opens: Vec::with_capacity(room) };
            let quickly = self.quick_spans(text, in_front, |span, opens| {
                marks.starts.push(span.start);
                marks.opens.push(opens);
            })?;
            if quickly {
                return Ok(marks);
            }
        }
        let spans = self.encode_with_offsets(text)?;
        Ok(spans.into_iter().map(|span| span.start).collect::<Vec<_>>().into())
    }

    /// As [`Tokenizer::count`] of `text`, whose bytes `part` are those from `from` on of a text whose tokens are known.
    ///
    /// Words are cut from the left, without a look at what lies before them. So where a word of `text` ends at the end of one
    /// in the known text, the words that follow are the same, up to the end of the part: what is cut there can look ahead to what is no
    /// longer there, at most to the first character that is no white space, or into the next word but one.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn count_part(&self, text: &str, part: Range<usize>, known: &Marks, from: usize) -> Result<usize, LmError> {
        match self.spliced(text, part, known, from)? {
            Some(count) => Ok(count),
            None => self.count(text),
        }
    }

    /// Nothing where the text has to be counted as a whole.
    fn spliced(&self, text: &str, part: Range<usize>, known: &Marks, from: usize) -> Result<Option<usize>, LmError> {
        let Some(quick) = &self.quick else { return Ok(None) };
        let last = text[..part.end].char_indices().next_back().and_then(|(at, _)| CLASSES.at(text, at));
        let ends_in_space = last.is_none_or(|(class, _)| class.is_space());
        if known.opens.is_empty() || part.len() < SHORTEST || ends_in_space || quick.has_added(text) {
            return Ok(None);
        }
        let Some(last) = known.last_but_one(from + part.len()) else { return Ok(None) };
        let (mut count, mut at, mut joined) = (0, 0, None);
        let quickly = quick.tokens(&self.text, text, true, |bytes, tokens| {
            count += tokens.len();
            at += bytes;
            if at < part.start {
                return ControlFlow::Continue(());
            }
            let place = from + at - part.start;
            joined = known.opened(place);
            if joined.is_some() || place >= known.starts[last] {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let Some(joined) = joined.filter(|joined| quickly && *joined <= last) else { return Ok(None) };
        let rest = &text[part.start + known.starts[last] - from..];
        let mut after = 0;
        let quickly = quick.tokens(&self.text, rest, false, |_, tokens| {
            after += tokens.len();
            ControlFlow::Continue(())
        })?;
        Ok(quickly.then_some(count + last - joined + after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::smollm2;

    #[test]
    fn pieces_of_a_document_are_counted_from_its_marks() {
        let tokenizer = Tokenizer::from_gguf(&smollm2()).unwrap();
        let text =
            "Don't boot yet.  It'll take 123 seconds;\n\n    ls -l  /etc\n\nThe “blue” key — see §3.2 — ends it.\n"
                .repeat(9);
        let known = tokenizer.marks(&text).unwrap();
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (mut spliced, mut whole) = (0, 0);
        for (number, start) in places.iter().enumerate().step_by(7) {
            for end in places[number..].iter().step_by(11) {
                let piece = format!("Keys > Blue\n\n{}\n\nSee:\n- Keys", &text[*start..*end]);
                let part = 13..13 + end - start;
                let found = tokenizer.spliced(&piece, part.clone(), &known, *start).unwrap();
                if let Some(found) = found {
                    assert_eq!(found, tokenizer.count(&piece).unwrap(), "{piece:?}");
                }
                let to_be_found = part.len() >= 2 * SHORTEST && !text[..*end].ends_with(char::is_whitespace);
                assert!(found.is_some() || !to_be_found, "{piece:?}");
                *if found.is_some() { &mut spliced } else { &mut whole } += 1;
            }
        }
        assert!(spliced > whole, "{spliced} from marks, {whole} as a whole");
        assert_eq!(tokenizer.spliced("x", 0..1, &Marks::default(), 0).unwrap(), None);
    }

    #[test]
    fn where_a_control_token_is_named_everything_is_counted() {
        let tokenizer = Tokenizer::from_gguf(&smollm2()).unwrap();
        let text = format!("{} <|im_end|> {}", "a word ".repeat(20), "and more ".repeat(20));
        let known = tokenizer.marks(&text).unwrap();
        for end in 130..160 {
            let piece = &text[..end];
            let count = tokenizer.count_part(piece, 0..end, &known, 0).unwrap();
            assert_eq!(count, tokenizer.count(piece).unwrap(), "{piece:?}");
        }
    }
}

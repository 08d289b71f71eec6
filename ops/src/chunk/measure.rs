//! What a chunk's length is counted in: a model's tokens, or words.

use std::ops::Range;

use retort_lm::tokenizer::{Marks, Tokenizer};

/// The tokenizer refused a text.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer refused the text: {0}")]
pub struct MeasureError(pub String);

/// Counts a text in tokens or words, and says where each begins.
pub trait Measure: Send + Sync {
    /// Where the text's units begin.
    fn marks(&self, text: &str) -> Result<Marks, MeasureError>;
    /// How many units a text has by itself, exactly.
    fn count(&self, text: &str) -> Result<usize, MeasureError>;
    /// As `count` of `text`, whose bytes `part` are those from `from` on of a text whose units are known.
    fn count_part(&self, text: &str, part: Range<usize>, known: &Marks, from: usize) -> Result<usize, MeasureError> {
        let _ = (part, known, from);
        self.count(text)
    }
}

/// Words: what white space parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words;

impl Measure for Words {
    fn marks(&self, text: &str) -> Result<Marks, MeasureError> {
        let base = text.as_ptr() as usize;
        Ok(text.split_whitespace().map(|word| word.as_ptr() as usize - base).collect::<Vec<_>>().into())
    }

    fn count(&self, text: &str) -> Result<usize, MeasureError> {
        Ok(text.split_whitespace().count())
    }
}

impl Measure for Tokenizer {
    fn marks(&self, text: &str) -> Result<Marks, MeasureError> {
        self.marks(text).map_err(|error| MeasureError(error.to_string()))
    }

    fn count(&self, text: &str) -> Result<usize, MeasureError> {
        self.count(text).map_err(|error| MeasureError(error.to_string()))
    }

    fn count_part(&self, text: &str, part: Range<usize>, known: &Marks, from: usize) -> Result<usize, MeasureError> {
        self.count_part(text, part, known, from).map_err(|error| MeasureError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(Words.marks("  a bé\n\nc ").unwrap().starts, [2, 4, 9]);
        assert_eq!(Words.count("  a bé\n\nc ").unwrap(), 3);
    }
}

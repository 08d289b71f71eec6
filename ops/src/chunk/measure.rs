//! What a chunk's length is counted in: a model's tokens, or words.

use retort_lm::tokenizer::Tokenizer;

/// The tokenizer refused a text.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizer refused the text: {0}")]
pub struct MeasureError(pub String);

/// Counts a text in tokens or words, and says where each begins.
pub trait Measure: Send + Sync {
    /// The bytes at which the text's units begin, ascending.
    fn starts(&self, text: &str) -> Result<Vec<usize>, MeasureError>;
    /// How many units a text has by itself, exactly.
    fn count(&self, text: &str) -> Result<usize, MeasureError>;
}

/// Words: what white space parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words;

impl Measure for Words {
    fn starts(&self, text: &str) -> Result<Vec<usize>, MeasureError> {
        let base = text.as_ptr() as usize;
        Ok(text.split_whitespace().map(|word| word.as_ptr() as usize - base).collect())
    }

    fn count(&self, text: &str) -> Result<usize, MeasureError> {
        Ok(text.split_whitespace().count())
    }
}

impl Measure for Tokenizer {
    fn starts(&self, text: &str) -> Result<Vec<usize>, MeasureError> {
        let spans = self.encode_with_offsets(text).map_err(|error| MeasureError(error.to_string()))?;
        Ok(spans.into_iter().map(|span| span.start).collect())
    }

    fn count(&self, text: &str) -> Result<usize, MeasureError> {
        self.count(text).map_err(|error| MeasureError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(Words.starts("  a bé\n\nc ").unwrap(), [2, 4, 9]);
        assert_eq!(Words.count("  a bé\n\nc ").unwrap(), 3);
    }
}

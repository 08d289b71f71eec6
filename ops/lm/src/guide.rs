//! Grammars that a text must follow: which tokens may come next.
//!
//! The parser is llguidance's. A grammar is compiled once for a vocabulary; every text walks it by itself, with caches
//! of its own, so that what it may say, and the limits at which the parser gives up, depend on that text alone.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::{LmError, tokenizer::Tokenizer};

/// What a text must be, from its first character to its last.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON that fits a schema: on one line, a space after colons and commas.
    Json(Value),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// What a Lark grammar derives from its rule `start`.
    Lark(String),
}

/// What is wrong with a grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// In words, on one line.
    pub message: String,
    /// The line of a Lark grammar, from 1.
    pub line: Option<usize>,
}

impl Grammar {
    /// Whether it can be compiled, whatever the vocabulary.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn check(&self) -> Result<(), Mistake> {
        match self.compile(&ApproximateTokEnv::single_byte_env(), &[]) {
            Ok(_) => Ok(()),
            Err(error) => Err(Mistake::of(&error, matches!(self, Self::Lark(_)))),
        }
    }

    fn compile(&self, vocabulary: &TokEnv, slices: &[String]) -> Result<Matcher, String> {
        let mut factory = ParserFactory::new(vocabulary, InferenceCapabilities::default(), slices)
            .map_err(|error| error.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        let matcher = Matcher::new(factory.create_parser(self.top_level()));
        matcher.get_error().map_or(Ok(matcher), Err)
    }

    fn top_level(&self) -> TopLevelGrammar {
        match self {
            Self::Json(schema) => TopLevelGrammar::from_json_schema(on_one_line(schema)),
            Self::Regex(pattern) => TopLevelGrammar::from_regex(pattern),
            Self::Lark(source) => TopLevelGrammar::from_lark(source.clone()),
        }
    }
}

/// The schema, with layout fixed where it does not say otherwise: free white space invites small models to write nothing else.
fn on_one_line(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(object) = schema.as_object_mut() {
        object
            .entry("x-guidance")
            .or_insert_with(|| json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "}));
    }
    schema
}

impl Mistake {
    /// Reads what the parser says: `at 2(7): what is wrong`, then perhaps a line `error: …` of the regular expressions' parser, then the
    /// grammar's lines around it.
    fn of(error: &str, has_lines: bool) -> Self {
        let first = error.trim().lines().next().unwrap_or_default();
        let (line, what) = match first.strip_prefix("at ").unwrap_or(first).split_once("): ") {
            Some((place, what)) => (place.split('(').next().and_then(|line| line.parse().ok()), what),
            None => (None, first),
        };
        let what = if line.is_some() { what } else { first };
        let what = what.split(" (in regex)").next().unwrap_or(what).trim_end_matches(['.', ':']);
        let detail = error.lines().find_map(|line| line.trim().strip_prefix("error: "));
        let message = detail.map_or_else(|| what.to_owned(), |detail| format!("{what}: {detail}"));
        Self { message, line: line.filter(|_| has_lines) }
    }
}

/// A grammar for a vocabulary.
pub struct Guide(Mutex<Matcher>);

impl Guide {
    /// Compiles `grammar` for the tokens of `tokenizer`.
    ///
    /// # Errors
    /// [`LmError::Argument`] as [`Grammar::check`]; [`LmError::Tokenizer`] for a vocabulary without an end token.
    pub fn new(grammar: &Grammar, tokenizer: &Tokenizer) -> Result<Self, LmError> {
        let matcher = grammar.compile(&vocabulary(tokenizer)?, &SlicedBiasComputer::general_slices());
        Ok(Self(Mutex::new(matcher.map_err(|error| LmError::Argument(Mistake::of(&error, false).message))?)))
    }

    /// A text that has not begun.
    pub fn begin(&self) -> Guided {
        Guided(self.0.lock().unwrap_or_else(PoisonError::into_inner).deep_clone())
    }
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guide(…)")
    }
}

/// The bytes of every token; control tokens can only end the text.
fn vocabulary(tokenizer: &Tokenizer) -> Result<TokEnv, LmError> {
    let n_vocab = tokenizer.n_vocab() as u32;
    let ends: Vec<u32> = tokenizer.ends().iter().copied().filter(|&id| id < n_vocab).collect();
    let Some(&end) = ends.first() else {
        return Err(LmError::Tokenizer("no token ends a text, so no grammar could".to_owned()));
    };
    let words: Vec<Vec<u8>> = (0..n_vocab).map(|id| tokenizer.token_bytes(id).to_vec()).collect();
    let trie = TokTrie::from(&TokRxInfo::new(n_vocab, end), &words).with_eos_tokens(&ends);
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

/// A text that follows a grammar.
pub struct Guided(Matcher);

impl Guided {
    /// Makes the tokens impossible that may not come next; end tokens may where the text is whole. `logits: (vocabulary)`.
    ///
    /// # Errors
    /// [`LmError::Argument`] when the parser gives up at its limits, or no token can follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), LmError> {
        let allowed = self.0.compute_mask().map_err(|error| LmError::Argument(error.to_string()))?;
        let mut words = allowed.as_slice().iter();
        for logits in logits.chunks_mut(32) {
            let word = words.next().copied().unwrap_or(0);
            if word != u32::MAX {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word & (1 << bit) == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a token that was allowed. True when nothing can follow but the end.
    ///
    /// # Errors
    /// [`LmError::Argument`] when the token was not allowed.
    pub fn take(&mut self, id: u32) -> Result<bool, LmError> {
        self.0.consume_token(id).map_err(|error| LmError::Argument(error.to_string()))?;
        Ok(self.0.is_stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::smollm2;
    use std::sync::LazyLock;

    static SMOL: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_gguf(&smollm2()).unwrap());

    /// Whether every token of `text` may be written, and then an end token: `Ok`, or how far it came.
    fn follows(grammar: &Grammar, text: &str) -> Result<(), String> {
        let mut guided = Guide::new(grammar, &SMOL).unwrap().begin();
        let mut done = String::new();
        let mut over = false;
        let mut logits = vec![0.0; SMOL.n_vocab()];
        for id in SMOL.encode(text).unwrap() {
            logits.fill(0.0);
            if over || guided.mask(&mut logits).is_err() || logits[id as usize] != 0.0 {
                return Err(done);
            }
            over = guided.take(id).unwrap();
            done.push_str(&SMOL.decode(&[id]));
        }
        logits.fill(0.0);
        let ends =
            over || (guided.mask(&mut logits).is_ok() && SMOL.ends().iter().all(|&end| logits[end as usize] == 0.0));
        if ends { Ok(()) } else { Err(done) }
    }

    #[test]
    fn a_text_ends_where_its_grammar_lets_it() {
        let regex = Grammar::Regex("(yes|no), [0-9]{1,3}".into());
        assert_eq!(follows(&regex, "no, 12"), Ok(()));
        assert_eq!(follows(&regex, "no"), Err("no".into()), "it is not whole");
        assert_eq!(follows(&regex, "maybe"), Err(String::new()));
        assert_eq!(follows(&regex, "yes, 1234"), Err("yes, 123".into()));
        let lark = Grammar::Lark("start: item (\"; \" item)*\nitem: /[a-z]+/".into());
        assert_eq!(follows(&lark, "alpha; beta"), Ok(()));
        assert_eq!(follows(&lark, "alpha; "), Err("alpha; ".into()));
    }

    #[test]
    fn json_fits_its_schema_on_one_line() {
        let schema = json!({
            "type": "object", "required": ["name", "tags"], "additionalProperties": false,
            "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "integer"}}},
        });
        let json = Grammar::Json(schema);
        assert_eq!(follows(&json, "{\"name\": \"a \\\"b\\\" ü\", \"tags\": [1, 22]}"), Ok(()));
        assert!(follows(&json, "{\"name\": 3, \"tags\": []}").is_err());
        assert!(follows(&json, "{\n\"name\": \"a\", \"tags\": []}").is_err());
        assert!(follows(&json, "{\"name\": \"a\"}").is_err());
    }

    #[test]
    fn what_is_no_grammar_says_where() {
        let mistake = |grammar: Grammar| {
            let Mistake { message, line } = grammar.check().unwrap_err();
            (message, line)
        };
        assert_eq!(
            mistake(Grammar::Lark("start: item\nitem: /[a-z/\n".into())),
            ("invalid regex \"[a-z\": unclosed character class".into(), Some(2))
        );
        assert_eq!(
            mistake(Grammar::Lark("start: item\n\nitem: other \"x\"\n".into())),
            ("unknown name: \"other\"".into(), Some(3))
        );
        assert_eq!(mistake(Grammar::Regex("(a".into())), ("invalid regex \"(a\": unclosed group".into(), None));
        assert_eq!(mistake(Grammar::Json(json!({"type": "strin"}))), ("Invalid type: strin".into(), None));
        assert!(Grammar::Json(json!({"type": "string"})).check().is_ok());
    }

    #[test]
    fn control_tokens_are_never_text() {
        let mut guided = Guide::new(&Grammar::Regex("(?s).{5,}".into()), &SMOL).unwrap().begin();
        let mut logits = vec![0.0; SMOL.n_vocab()];
        guided.mask(&mut logits).unwrap();
        let allowed = logits.iter().filter(|logit| **logit == 0.0).count();
        assert!(allowed > 45_000, "{allowed}");
        assert!(SMOL.ends().iter().all(|&end| logits[end as usize] == f32::NEG_INFINITY), "too short to end");
        assert_eq!(logits[SMOL.control("<|im_start|>").unwrap() as usize], f32::NEG_INFINITY);
    }
}

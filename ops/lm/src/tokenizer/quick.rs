//! The reference's tokens without most of its work: text is cut into words here, and each different word is asked once.
//!
//! Byte pairs are merged inside words only. So the tokens of a text are those of its words one after the other, and
//! what the reference said of a word holds wherever it stands. Nothing is merged here: a word that is not known goes to
//! the reference's own model. What is not known for certain (another pre-tokenizer, a normaliser that changes the text)
//! is left to the reference altogether.

use super::{pieces::byte_spelling, words::Words};
use crate::LmError;
use regex::Regex;
use serde_json::Value;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::ControlFlow,
    sync::{PoisonError, RwLock},
};
use tokenizers::{Model, NormalizedString, Normalizer};

/// More words are not kept; some 30 MB.
const MOST_WORDS: usize = 1 << 18;
/// Words of one text that are kept at hand, where the processor finds them at once: most words are one of the last few.
const NEAR: usize = 256;
/// Longer words come once: a line of base64.
const LONGEST_WORD: usize = 64;

type Table<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

/// Tokens by word.
#[derive(Default)]
struct Memo {
    /// Nearly all: at most fifteen bytes with their number, and at most three tokens. Nothing lies elsewhere in memory.
    short: Table<u128, Few>,
    long: Table<Box<[u8]>, Box<[u32]>>,
}

/// Up to three tokens.
#[derive(Clone, Copy, Default)]
struct Few {
    count: u32,
    tokens: [u32; 3],
}

impl Few {
    fn tokens(&self) -> &[u32] {
        &self.tokens[..self.count as usize]
    }
}

/// What is needed to answer for the reference.
pub(super) struct Quick {
    cut: Cut,
    /// The normaliser composes characters: text that it would change is left to it.
    composes: bool,
    added: Option<Added>,
    memo: RwLock<Memo>,
    /// How a word's bytes are spelled in the vocabulary.
    alphabet: [char; 256],
}

/// Where words part.
enum Cut {
    /// By the rule of a byte-level pre-tokenizer.
    Words(Words),
    /// Before the spaces that follow something else: no piece of the vocabulary reaches across. `SentencePiece`; whether
    /// a text gets a space in front.
    Spaces { prefix: bool },
}

/// Tokens that are looked for in the text before it is cut.
struct Added {
    pattern: Regex,
    ids: HashMap<String, u32>,
}

impl Quick {
    /// What a tokenizer does, if it is known; nothing if it must be asked every time.
    pub(super) fn of(reference: &tokenizers::Tokenizer) -> Option<Self> {
        let normalizer = serde_json::to_value(reference.get_normalizer()).ok()?;
        let pre_tokenizer = serde_json::to_value(reference.get_pre_tokenizer()).ok()?;
        let tokenizers::ModelWrapper::BPE(model) = reference.get_model() else { return None };
        if model.dropout.is_some_and(|dropout| dropout > 0.0)
            || model.continuing_subword_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty())
            || model.end_of_word_suffix.as_ref().is_some_and(|suffix| !suffix.is_empty())
            || reference.get_truncation().is_some()
        {
            return None;
        }
        let composes = normalizer["type"] == "NFC";
        let cut = if pre_tokenizer.is_null() {
            Cut::Spaces { prefix: space_prefix(&normalizer)? }
        } else if normalizer.is_null() || composes {
            Cut::Words(Words::of(&pre_tokenizer)?)
        } else {
            return None;
        };
        if matches!(cut, Cut::Spaces { .. }) && !parts_at_spaces(model) {
            return None;
        }
        let added = Added::of(reference)?;
        Some(Self { cut, composes, added, memo: RwLock::default(), alphabet: byte_spelling() })
    }

    /// Hands the words of `text` to `take`, in order and until it has enough: each one's length in bytes and its tokens. `false`, and nothing handed
    /// over, where only the reference can tell. `begins` says whether it is a text from its beginning.
    ///
    /// # Errors
    /// The reference refuses a word.
    pub(super) fn tokens(
        &self,
        reference: &tokenizers::Tokenizer,
        text: &str,
        begins: bool,
        mut take: impl FnMut(usize, &[u32]) -> ControlFlow<()>,
    ) -> Result<bool, LmError> {
        if self.composes && !is_composed(reference, text)
            || matches!(self.cut, Cut::Spaces { .. }) && text.contains('▁')
        {
            return Ok(false);
        }
        let known = self.memo.read().unwrap_or_else(PoisonError::into_inner);
        let mut recall =
            Recall { quick: self, reference, known: &known, fresh: Memo::default(), near: [Default::default(); NEAR] };
        match recall.text(text, begins, &mut take) {
            Err(Halt::Refused(error)) => return Err(error),
            Ok(()) | Err(Halt::Enough) => {}
        }
        let fresh = recall.fresh;
        drop(known);
        if fresh.len() > 0 {
            let mut memo = self.memo.write().unwrap_or_else(PoisonError::into_inner);
            if memo.len() + fresh.len() > MOST_WORDS {
                *memo = Memo::default();
            }
            memo.short.extend(fresh.short);
            memo.long.extend(fresh.long);
        }
        Ok(true)
    }

    /// Whether a text has tokens that are found before it is cut.
    pub(super) fn has_added(&self, text: &str) -> bool {
        self.added.as_ref().is_some_and(|added| added.pattern.is_match(text))
    }

    /// How many bytes the tokens of a text have that are not its own: a space in front. Nothing where tokens do not tell
    /// their bytes: added ones get no space.
    pub(super) fn bytes_in_front(&self) -> Option<usize> {
        match self.cut {
            Cut::Words(_) => Some(0),
            Cut::Spaces { prefix } => self.added.is_none().then_some(usize::from(prefix)),
        }
    }
}

/// A word as the memo knows it.
#[derive(Clone, Copy)]
enum Key<'a> {
    Short(u128),
    Long(&'a [u8]),
}

impl<'a> Key<'a> {
    fn of(word: &'a [u8]) -> Self {
        let length = word.len();
        if length > 15 {
            return Self::Long(word);
        }
        // The first and the last bytes, which overlap: by far faster than to copy as many as there are.
        let bytes = if let (Some(first), Some(last)) = (word.first_chunk::<8>(), word.last_chunk::<8>()) {
            u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << (8 * (length - 8))
        } else if let (Some(first), Some(last)) = (word.first_chunk::<4>(), word.last_chunk::<4>()) {
            u128::from(u32::from_le_bytes(*first)) | u128::from(u32::from_le_bytes(*last)) << (8 * (length - 4))
        } else {
            word.iter().rev().fold(0, |bytes, byte| bytes << 8 | u128::from(*byte))
        };
        Self::Short(bytes | (length as u128) << 120)
    }
}

impl Memo {
    fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    #[inline]
    fn get(&self, key: Key<'_>) -> Option<&[u32]> {
        if let Key::Short(key) = key
            && let Some(few) = self.short.get(&key)
        {
            return Some(few.tokens());
        }
        self.get_long(key)
    }

    /// A short word of many tokens is kept with the long ones.
    fn get_long(&self, key: Key<'_>) -> Option<&[u32]> {
        match key {
            Key::Long(word) => self.long.get(word).map(|tokens| &**tokens),
            Key::Short(_) if self.long.is_empty() => None,
            Key::Short(key) => {
                let bytes = key.to_le_bytes();
                self.long.get(&bytes[..usize::from(bytes[15])]).map(|tokens| &**tokens)
            }
        }
    }

    fn insert(&mut self, word: &[u8], tokens: Box<[u32]>) {
        match Key::of(word) {
            Key::Short(key) if tokens.len() <= 3 => {
                let mut few = Few { count: tokens.len() as u32, tokens: [0; 3] };
                few.tokens[..tokens.len()].copy_from_slice(&tokens);
                self.short.insert(key, few);
            }
            _ => {
                self.long.insert(word.into(), tokens);
            }
        }
    }
}

/// The words of one text: what is known of them, and what was learnt on the way.
struct Recall<'a> {
    quick: &'a Quick,
    reference: &'a tokenizers::Tokenizer,
    known: &'a Memo,
    fresh: Memo,
    near: [(u128, Few); NEAR],
}

/// Why no more words are wanted.
enum Halt {
    Enough,
    Refused(LmError),
}

impl Recall<'_> {
    fn text(
        &mut self,
        text: &str,
        begins: bool,
        take: &mut impl FnMut(usize, &[u32]) -> ControlFlow<()>,
    ) -> Result<(), Halt> {
        let mut begun = 0;
        if let Some(added) = &self.quick.added {
            for found in added.pattern.find_iter(text) {
                let Some(id) = added.ids.get(found.as_str()) else { continue };
                self.run(&text[begun..found.start()], begins || begun > 0, take)?;
                hand(take, found.len(), &[*id])?;
                begun = found.end();
            }
        }
        self.run(&text[begun..], begins || begun > 0, take)
    }

    /// Text between added tokens.
    fn run(
        &mut self,
        text: &str,
        begins: bool,
        take: &mut impl FnMut(usize, &[u32]) -> ControlFlow<()>,
    ) -> Result<(), Halt> {
        let prefix = match &self.quick.cut {
            Cut::Words(words) => return words.each(text, &mut |word| self.word(word, word.len(), take)),
            Cut::Spaces { prefix } => *prefix,
        };
        let mut first = begins;
        let mut begun = 0;
        while begun < text.len() {
            let spaces = text[begun..].len() - text[begun..].trim_start_matches(' ').len();
            let end = text[begun + spaces..].find(' ').map_or(text.len(), |length| begun + spaces + length);
            if first && prefix {
                self.word(&format!(" {}", &text[begun..end]), end - begun, take)?;
            } else {
                self.word(&text[begun..end], end - begun, take)?;
            }
            first = false;
            begun = end;
        }
        Ok(())
    }

    /// A word, and how many bytes of the text it is.
    fn word(
        &mut self,
        word: &str,
        bytes: usize,
        take: &mut impl FnMut(usize, &[u32]) -> ControlFlow<()>,
    ) -> Result<(), Halt> {
        let key = Key::of(word.as_bytes());
        if let Key::Short(short) = key {
            // No word is of no bytes, so none has the key of an empty place.
            let near = &mut self.near[near(short)];
            if near.0 == short {
                return hand(take, bytes, near.1.tokens());
            }
            if let Some(few) = self.known.short.get(&short) {
                *near = (short, *few);
                return hand(take, bytes, few.tokens());
            }
        }
        if let Some(tokens) = self.known.get(key).or_else(|| self.fresh.get(key)) {
            return hand(take, bytes, tokens);
        }
        let tokens = self.ask(word).map_err(Halt::Refused)?;
        let enough = hand(take, bytes, &tokens);
        if word.len() <= LONGEST_WORD {
            self.fresh.insert(word.as_bytes(), tokens);
        }
        enough
    }

    fn ask(&self, word: &str) -> Result<Box<[u32]>, LmError> {
        let spelled: String = match self.quick.cut {
            Cut::Words(_) => word.bytes().map(|byte| self.quick.alphabet[usize::from(byte)]).collect(),
            Cut::Spaces { .. } => word.replace(' ', "▁"),
        };
        let tokens = self.reference.get_model().tokenize(&spelled);
        let tokens = tokens.map_err(|error| LmError::Tokenizer(error.to_string()))?;
        Ok(tokens.into_iter().map(|token| token.id).collect())
    }
}

/// Where a short word is kept at hand.
fn near(key: u128) -> usize {
    let folded = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (folded >> (u64::BITS - NEAR.ilog2())) as usize
}

#[inline]
fn hand(take: &mut impl FnMut(usize, &[u32]) -> ControlFlow<()>, bytes: usize, tokens: &[u32]) -> Result<(), Halt> {
    if take(bytes, tokens).is_break() { Err(Halt::Enough) } else { Ok(()) }
}

impl Added {
    /// `None` for tokens that take more than their own characters or are looked for in two passes: those are left to the
    /// reference. `Some(None)` where there are none.
    #[expect(clippy::option_option, reason = "no tokens is not the same as tokens that are not known")]
    fn of(reference: &tokenizers::Tokenizer) -> Option<Option<Self>> {
        let tokens = reference.get_added_tokens_decoder();
        let Some(normalized) = tokens.values().next().map(|token| token.normalized) else { return Some(None) };
        let plain = |token: &tokenizers::AddedToken| {
            !token.single_word && !token.lstrip && !token.rstrip && token.normalized == normalized
        };
        if !tokens.values().all(plain) || normalized && reference.get_normalizer().is_some() {
            return None;
        }
        let as_text = reference.get_encode_special_tokens();
        let mut names: Vec<&str> = tokens.values().map(|token| token.content.as_str()).collect();
        // The first that matches is taken: the longest, as the reference does.
        names.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let pattern = names.iter().map(|name| regex::escape(name)).collect::<Vec<_>>().join("|");
        // Those that are text here still hide what they contain, as they do in the reference.
        let ids = tokens.iter().filter(|(_, token)| !(as_text && token.special));
        let ids = ids.map(|(id, token)| (token.content.clone(), *id)).collect();
        Some(Some(Self { pattern: Regex::new(&pattern).ok()?, ids }))
    }
}

/// Whether NFC leaves a text as it is. What lies below U+0300 and most punctuation never changes; a line with other
/// characters is shown to the reference's own normaliser. No character composes with a line end.
fn is_composed(reference: &tokenizers::Tokenizer, text: &str) -> bool {
    let Some(normalizer) = reference.get_normalizer() else { return true };
    let simple = |character: char| matches!(character, '\0'..='\u{2FF}' | '\u{2010}'..='\u{2027}');
    text.split('\n').filter(|line| !line.is_ascii() && !line.chars().all(simple)).all(|line| {
        let mut normalized = NormalizedString::from(line);
        normalizer.normalize(&mut normalized).is_ok() && normalized.get() == line
    })
}

/// Whether a normaliser only writes `▁` for spaces, and if so, whether it puts one in front.
fn space_prefix(normalizer: &Value) -> Option<bool> {
    let steps = match normalizer["type"].as_str()? {
        "Sequence" => normalizer["normalizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(normalizer),
    };
    let replaces =
        |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "▁";
    match steps {
        [only] if replaces(only) => Some(false),
        [first, second] if first["type"] == "Prepend" && first["prepend"] == "▁" && replaces(second) => Some(true),
        _ => None,
    }
}

/// Whether no piece has a space after something else, and no character lacks a piece: then nothing is merged, and nothing
/// unknown joined, across the beginning of a run of spaces.
fn parts_at_spaces(model: &tokenizers::models::bpe::BPE) -> bool {
    let vocabulary = model.get_vocab();
    let across = |piece: &String| piece.trim_start_matches('▁').contains('▁');
    let has_bytes = (0..=u8::MAX).all(|byte| vocabulary.contains_key(&format!("<{byte:#04X}>")));
    has_bytes && model.byte_fallback && !model.ignore_merges && !vocabulary.keys().any(across)
}

/// Eight bytes at a time, multiplied and folded: words are short, and whoever fills the table is asked once a word.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9E37_79B9_7F4A_7C15) * 0xD1B5_4A32_D192_ED03;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_u128(&mut self, word: u128) {
        let (low, high) = (word as u64 ^ 0x9E37_79B9_7F4A_7C15, (word >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
        let product = u128::from(low) * u128::from(high);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
#[path = "quick/tests.rs"]
mod tests;

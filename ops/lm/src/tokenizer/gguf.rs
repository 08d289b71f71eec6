//! A tokenizer from a GGUF's metadata. Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::{
    Parts,
    pieces::{Pieces, Speller, Spelling},
};
use crate::LmError;
use candle_core::quantized::gguf_file::{Content, Value};
use std::{collections::BTreeSet, fs::File, path::Path};
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    models::bpe::{BPE, Vocab},
    normalizers::{Prepend, Replace, Sequence as Normalizers},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// Token types of `tokenizer.ggml.token_type`.
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;

/// GPT-2's words.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's words.
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's words.
pub(super) const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut into words before byte pairs are merged: patterns applied one after the other, each parting what it
/// matches from what is between. Names are those of `tokenizer.ggml.pre`; the patterns are those of the models' own
/// `tokenizer.json`, as llama.cpp lists them in `llama-vocab.cpp`.
pub(super) const WORD_PATTERNS: &[(&[&str], &[&str])] = &[
    (&["", "default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    (&["codeshell", "command-r", "exaone", "refact", "smollm", "starcoder"], &[r"\p{N}", GPT2]),
    (&["gpt-2", "jais", "mpt", "olmo", "phi-2"], &[GPT2]),
    (&["dbrx", "llama-bpe", "llama-v3", "llama3", "smaug-bpe"], &[LLAMA3]),
    (&["deepseek-r1-qwen", "hunyuan", "qwen2", "stablelm2"], &[QWEN2]),
];

/// Pre-tokenizers of vocabularies whose words skip the merges when they are tokens, and that begin with a begin token
/// unless the file says otherwise.
const LLAMA3_NAMES: &[&str] = &["llama-bpe", "llama-v3", "llama3"];

pub(super) fn read(path: &Path) -> Result<Parts, LmError> {
    let metadata = Metadata::read(path)?;
    match metadata.text("tokenizer.ggml.model")? {
        "gpt2" => byte_level(&metadata),
        "llama" => sentence_piece(&metadata),
        other => Err(metadata.unusable(format!("tokenizer kind `{other}` is not known; known are `gpt2` and `llama`"))),
    }
}

fn byte_level(metadata: &Metadata) -> Result<Parts, LmError> {
    let vocabulary = Vocabulary::read(metadata, Spelling::ByteLevel)?;
    let pre = metadata.text("tokenizer.ggml.pre").unwrap_or("");
    let Some((_, patterns)) = WORD_PATTERNS.iter().find(|(names, _)| names.contains(&pre)) else {
        return Err(metadata.unusable(format!("pre-tokenizer `{pre}` is not known")));
    };
    let merges = metadata
        .strings("tokenizer.ggml.merges")?
        .into_iter()
        .filter_map(|merge| merge.split_once(' '))
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .filter(|(left, right)| vocabulary.ids.contains_key(&format!("{left}{right}")))
        .collect();
    let llama3 = LLAMA3_NAMES.contains(&pre);
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.ids.clone(), merges)
        .ignore_merges(llama3)
        .build()
        .map_err(|error| metadata.unusable(error.to_string()))?;
    let mut text = tokenizers::Tokenizer::new(model);
    text.with_pre_tokenizer(Some(words(patterns).map_err(|error| metadata.unusable(error.to_string()))?));
    finish(metadata, vocabulary, text, llama3, true)
}

pub(super) fn words(patterns: &[&str]) -> tokenizers::Result<Sequence> {
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for &pattern in patterns {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    Ok(Sequence::new(steps))
}

fn sentence_piece(metadata: &Metadata) -> Result<Parts, LmError> {
    let vocabulary = Vocabulary::read(metadata, Spelling::SentencePiece)?;
    let merges = vocabulary.merges_by_score(&metadata.numbers("tokenizer.ggml.scores")?);
    let unknown = metadata.id("tokenizer.ggml.unknown_token_id").and_then(|id| vocabulary.names.get(id as usize));
    let mut builder =
        BPE::builder().vocab_and_merges(vocabulary.ids.clone(), merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown.filter(|unknown| vocabulary.ids.contains_key(*unknown)) {
        builder = builder.unk_token(unknown.clone());
    }
    let mut text = tokenizers::Tokenizer::new(builder.build().map_err(|error| metadata.unusable(error.to_string()))?);
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if metadata.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true) {
        steps.push(Prepend::new("▁".to_owned()).into());
    }
    let spaces = Replace::new(" ", "▁").map_err(|error| metadata.unusable(error.to_string()))?;
    steps.push(spaces.into());
    text.with_normalizer(Some(Normalizers::new(steps))).map_err(|error| metadata.unusable(error.to_string()))?;
    finish(metadata, vocabulary, text, true, false)
}

fn finish(
    metadata: &Metadata,
    vocabulary: Vocabulary,
    mut text: tokenizers::Tokenizer,
    adds_bos: bool,
    exact_bytes: bool,
) -> Result<Parts, LmError> {
    let added = vocabulary.user_defined.iter().map(|name| AddedToken::from(name.clone(), false).normalized(false));
    text.add_tokens(added).map_err(|error| metadata.unusable(error.to_string()))?;
    let leading_space = !exact_bytes && metadata.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let architecture = metadata.text("general.architecture").unwrap_or("");
    Ok(Parts {
        text,
        pieces: Pieces::new(vocabulary.bytes, leading_space),
        controls: vocabulary.controls,
        bos: metadata.id("tokenizer.ggml.bos_token_id"),
        eos: metadata.id("tokenizer.ggml.eos_token_id"),
        ends: ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]
            .iter()
            .filter_map(|key| metadata.id(key))
            .collect::<BTreeSet<_>>(),
        adds_bos: metadata.flag("tokenizer.ggml.add_bos_token").unwrap_or(adds_bos),
        exact_bytes,
        chat_template: metadata.text("tokenizer.chat_template").ok().map(str::to_owned),
        context_length: metadata.id(&format!("{architecture}.context_length")).map(|length| length as usize),
    })
}

/// The token list, sorted by what each token is for.
struct Vocabulary {
    names: Vec<String>,
    /// Tokens that text may become: all but the control tokens.
    ids: Vocab,
    bytes: Vec<Box<[u8]>>,
    controls: Vec<(String, u32)>,
    user_defined: Vec<String>,
}

impl Vocabulary {
    fn read(metadata: &Metadata, spelling: Spelling) -> Result<Self, LmError> {
        let names: Vec<String> = metadata.strings("tokenizer.ggml.tokens")?.into_iter().map(str::to_owned).collect();
        let types = metadata.numbers("tokenizer.ggml.token_type").unwrap_or_default();
        let speller = Speller::new(spelling);
        let mut vocabulary = Self {
            names: Vec::new(),
            ids: Vocab::with_capacity(names.len()),
            bytes: Vec::new(),
            controls: Vec::new(),
            user_defined: Vec::new(),
        };
        for (id, name) in names.iter().enumerate() {
            let kind = types.get(id).map_or(1, |&kind| kind as u32);
            if kind == CONTROL {
                vocabulary.controls.push((name.clone(), id as u32));
                vocabulary.bytes.push(Box::default());
                continue;
            }
            if kind == USER_DEFINED {
                vocabulary.user_defined.push(name.clone());
                vocabulary.bytes.push(name.as_bytes().into());
            } else {
                vocabulary.bytes.push(speller.bytes(name));
            }
            vocabulary.ids.insert(name.clone(), id as u32);
        }
        vocabulary.names = names;
        Ok(vocabulary)
    }

    /// `SentencePiece` merges the pair whose joined piece has the best score: as a list of merges, best first.
    fn merges_by_score(&self, scores: &[f64]) -> Vec<(String, String)> {
        let mut merges = Vec::new();
        for (name, &id) in &self.ids {
            for (at, _) in name.char_indices().skip(1) {
                let (left, right) = name.split_at(at);
                if let (Some(&left_id), Some(&right_id)) = (self.ids.get(left), self.ids.get(right)) {
                    let score = scores.get(id as usize).copied().unwrap_or(0.0);
                    merges.push((score, left_id, right_id, left, right));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
        merges.into_iter().map(|(_, _, _, left, right)| (left.to_owned(), right.to_owned())).collect()
    }
}

/// A GGUF's keys and values, with the file's name for messages.
struct Metadata {
    path: String,
    content: Content,
}

impl Metadata {
    fn read(path: &Path) -> Result<Self, LmError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| LmError::Io { verb: "open", path: name.clone(), source })?;
        let content = crate::gguf::header::read(file)
            .map_err(|error| LmError::Model { path: name.clone(), reason: error.to_string() })?;
        Ok(Self { path: name, content })
    }

    fn unusable(&self, reason: String) -> LmError {
        LmError::Model { path: self.path.clone(), reason }
    }

    fn get(&self, key: &str) -> Result<&Value, LmError> {
        self.content.metadata.get(key).ok_or_else(|| self.unusable(format!("it has no `{key}`")))
    }

    fn text(&self, key: &str) -> Result<&str, LmError> {
        match self.get(key)? {
            Value::String(text) => Ok(text),
            _ => Err(self.unusable(format!("`{key}` is not text"))),
        }
    }

    fn id(&self, key: &str) -> Option<u32> {
        number(self.content.metadata.get(key)?).map(|number| number as u32)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.content.metadata.get(key)?.to_bool().ok()
    }

    fn array(&self, key: &str) -> Result<&[Value], LmError> {
        match self.get(key)? {
            Value::Array(values) => Ok(values),
            _ => Err(self.unusable(format!("`{key}` is not a list"))),
        }
    }

    fn strings(&self, key: &str) -> Result<Vec<&str>, LmError> {
        let texts: Option<Vec<&str>> = self
            .array(key)?
            .iter()
            .map(|value| if let Value::String(text) = value { Some(text.as_str()) } else { None })
            .collect();
        texts.ok_or_else(|| self.unusable(format!("`{key}` is not a list of texts")))
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>, LmError> {
        let numbers: Option<Vec<f64>> = self.array(key)?.iter().map(number).collect();
        numbers.ok_or_else(|| self.unusable(format!("`{key}` is not a list of numbers")))
    }
}

fn number(value: &Value) -> Option<f64> {
    Some(match *value {
        Value::U8(number) => f64::from(number),
        Value::I8(number) => f64::from(number),
        Value::U16(number) => f64::from(number),
        Value::I16(number) => f64::from(number),
        Value::U32(number) => f64::from(number),
        Value::I32(number) => f64::from(number),
        Value::U64(number) => number as f64,
        Value::I64(number) => number as f64,
        Value::F32(number) => f64::from(number),
        Value::F64(number) => number,
        _ => return None,
    })
}

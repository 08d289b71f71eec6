//! Text to tokens and back, from a GGUF's metadata or a `tokenizer.json`.
//!
//! Two kinds of characters never mix. Text (documents, answers, anything a row carries) is always encoded as text: a
//! page that quotes `<|im_end|>` becomes the ordinary tokens of those ten characters. Control tokens are recognised
//! only in characters that a chat template wrote itself; see [`Tokenizer::encode_prompt`].

mod classes;
mod gguf;
mod json;
mod marks;
mod pieces;
mod quick;
mod save;
mod words;

pub use marks::Marks;
pub use pieces::TextStream;

use crate::{
    LmError,
    template::{ChatTemplate, Message, Rendered},
};
use pieces::Pieces;
use quick::Quick;
use std::{collections::BTreeSet, ops::ControlFlow, path::Path};

/// Control tokens that end a model's turn or its text, under the names that published vocabularies give them.
const END_TOKENS: &[&str] =
    &["</s>", "<end_of_turn>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<|eot_id|>", "<|im_end|>"];

/// A model's own vocabulary: encodes and decodes, and knows the control tokens. Weights are never read.
pub struct Tokenizer {
    /// The reference: what it says is right.
    text: tokenizers::Tokenizer,
    /// Says the same sooner, where it is known how.
    quick: Option<Quick>,
    pieces: Pieces,
    controls: Controls,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: BTreeSet<u32>,
    adds_bos: bool,
    exact_bytes: bool,
    chat_template: Option<String>,
    context_length: Option<usize>,
}

/// One token and the bytes of the text that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSpan {
    /// Token id.
    pub id: u32,
    /// First byte in the text. It may lie inside a character, when a character takes several tokens.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// What the two file formats tell, before it is a [`Tokenizer`].
struct Parts {
    text: tokenizers::Tokenizer,
    pieces: Pieces,
    controls: Vec<(String, u32)>,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: BTreeSet<u32>,
    adds_bos: bool,
    exact_bytes: bool,
    chat_template: Option<String>,
    context_length: Option<usize>,
}

impl Tokenizer {
    /// Opens what stands at `path`: a `.gguf` file, a `tokenizer.json`, or a folder that holds one.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`] and [`Tokenizer::from_json`].
    pub fn open(path: &Path) -> Result<Self, LmError> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            return Self::from_gguf(path);
        }
        if path.is_dir() { Self::from_json(&path.join("tokenizer.json")) } else { Self::from_json(path) }
    }

    /// Reads the metadata of a GGUF file: kinds `gpt2` (byte-level BPE) and `llama` (`SentencePiece`).
    ///
    /// # Errors
    /// The file cannot be read, is no GGUF, or names a tokenizer or pre-tokenizer that is not known here.
    pub fn from_gguf(path: &Path) -> Result<Self, LmError> {
        gguf::read(path).map(Self::from_parts)
    }

    /// Reads a Hugging Face `tokenizer.json`, and beside it, where they are, `tokenizer_config.json`,
    /// `generation_config.json`, `config.json` and `chat_template.jinja`.
    ///
    /// # Errors
    /// A file cannot be read, or its decoder is neither byte-level nor `SentencePiece`.
    pub fn from_json(path: &Path) -> Result<Self, LmError> {
        json::read(path).map(Self::from_parts)
    }

    fn from_parts(parts: Parts) -> Self {
        let mut ends = parts.ends;
        ends.extend(parts.eos);
        let named = parts.controls.iter().filter(|(name, _)| END_TOKENS.contains(&name.as_str()));
        ends.extend(named.map(|&(_, id)| id));
        Self {
            quick: Quick::of(&parts.text),
            text: parts.text,
            pieces: parts.pieces,
            controls: Controls::new(parts.controls),
            bos: parts.bos,
            eos: parts.eos,
            ends,
            adds_bos: parts.adds_bos,
            exact_bytes: parts.exact_bytes,
            chat_template: parts.chat_template,
            context_length: parts.context_length,
        }
    }

    /// Tokens of `text`. Whatever looks like a control token in it is text; no begin or end token is added.
    ///
    /// # Errors
    /// The tokenizer refuses the text: a vocabulary without bytes and without an unknown token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, LmError> {
        let mut ids = Vec::new();
        if self.quickly(text, |_, tokens| ids.extend_from_slice(tokens))? {
            return Ok(ids);
        }
        self.encode_by_reference(text)
    }

    /// Number of tokens of `text`, as [`Tokenizer::encode`] would give.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn count(&self, text: &str) -> Result<usize, LmError> {
        let mut count = 0;
        if self.quickly(text, |_, tokens| count += tokens.len())? {
            return Ok(count);
        }
        Ok(self.encoding(text)?.len())
    }

    /// Tokens of `text` by the `tokenizers` crate alone: what [`Tokenizer::encode`] is held to in tests and benches.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_by_reference(&self, text: &str) -> Result<Vec<u32>, LmError> {
        Ok(self.encoding(text)?.get_ids().to_vec())
    }

    /// Tokens of `text` with the bytes that each stands for: in order, without gaps, covering the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<TokenSpan>, LmError> {
        if let Some(in_front) = self.quick.as_ref().and_then(Quick::bytes_in_front) {
            let mut spans = Vec::new();
            if self.quick_spans(text, in_front, |span, _| spans.push(span))? {
                if let Some(last) = spans.last_mut() {
                    last.end = text.len();
                }
                return Ok(spans);
            }
        }
        if !self.exact_bytes {
            let encoding = self.text.encode(text, false).map_err(|error| LmError::Tokenizer(error.to_string()))?;
            let ends = encoding.get_offsets().iter().map(|&(_, end)| end);
            return Ok(spans(encoding.get_ids(), ends, text.len()));
        }
        let encoding = self.encoding(text)?;
        let ids = encoding.get_ids();
        let ends = ids.iter().scan(0, |end, &id| {
            *end += self.pieces.bytes(id).len();
            Some(*end)
        });
        Ok(spans(ids, ends, text.len()))
    }

    /// Tokens of a conversation, rendered by the model's chat template.
    ///
    /// Control tokens are recognised only where the template itself wrote them. Contents are rendered with every
    /// control token's name (whole, or begun at the end, or ended at the start of a content) broken by a marker that
    /// no template can write; the rendered text is then cut at the control tokens it still has, the markers are taken
    /// out, and each run between is encoded as text. So an honest prompt has the tokens that `transformers` and
    /// llama.cpp give it, a space or line break that meets a content included, and a document cannot end a turn.
    /// The begin token comes first where the model wants one and the template did not write it.
    ///
    /// # Errors
    /// The template refuses the messages, or as [`Tokenizer::encode`].
    pub fn encode_prompt(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, LmError> {
        let rendered = template.render_for(self, messages, add_generation_prompt)?;
        let mut ids = Vec::new();
        for run in self.controls.cut(rendered.escaped()) {
            match run {
                Run::Control(id) => ids.push(id),
                Run::Text(text) => ids.extend(self.encode(&Rendered::unescape(text))?),
            }
        }
        if let Some(bos) = self.bos.filter(|&bos| self.adds_bos && ids.first() != Some(&bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// Tokens of plain text as the model saw it in pre-training: the begin token where it wants one, then the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>, LmError> {
        let mut ids: Vec<u32> = self.bos.filter(|_| self.adds_bos).into_iter().collect();
        ids.extend(self.encode(text)?);
        Ok(ids)
    }

    /// The text of tokens. Control tokens are left out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = self.stream();
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// Decodes token by token; together the pieces are what [`Tokenizer::decode`] gives.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(&self.pieces)
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Every token that ends generation: the end token, and ends of turn by their published names.
    pub fn ends(&self) -> &BTreeSet<u32> {
        &self.ends
    }

    /// The control token of that name, such as `<|im_end|>`.
    pub fn control(&self, name: &str) -> Option<u32> {
        self.controls.0.iter().find(|(control, _)| control == name).map(|&(_, id)| id)
    }

    /// Names of all control tokens, longest first.
    pub fn controls(&self) -> impl Iterator<Item = &str> {
        self.controls.0.iter().map(|(name, _)| name.as_str())
    }

    /// The name of a control token.
    pub fn control_name(&self, id: u32) -> Option<&str> {
        self.controls.0.iter().find(|&&(_, control)| control == id).map(|(name, _)| name.as_str())
    }

    /// The bytes of text that a token stands for, wherever it stands; a control token has none.
    pub(crate) fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.bytes(id)
    }

    /// Number of ids that the vocabulary names.
    pub fn n_vocab(&self) -> usize {
        self.pieces.len()
    }

    /// The chat template's source, where the file has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The longest text in tokens that the model was made for, where the file says it.
    pub fn context_length(&self) -> Option<usize> {
        self.context_length
    }

    /// Hands every token with its bytes to `take`, and whether a word begins with it. The very first has some bytes that are not the text's.
    fn quick_spans(
        &self,
        text: &str,
        mut in_front: usize,
        mut take: impl FnMut(TokenSpan, bool),
    ) -> Result<bool, LmError> {
        let (mut start, mut word_end) = (0, 0);
        self.quickly(text, |bytes, tokens| {
            let mut end = word_end;
            word_end += bytes;
            for (at, &id) in tokens.iter().enumerate() {
                end += self.pieces.bytes(id).len() - std::mem::take(&mut in_front);
                // A vocabulary may lack bytes: the last token of a word has them.
                end = if at + 1 == tokens.len() { word_end } else { end.min(word_end) };
                take(TokenSpan { id, start, end }, at == 0);
                start = end;
            }
        })
    }

    /// Hands every word of `text` to `take`, its length and tokens; `false` where the reference must be asked.
    fn quickly(&self, text: &str, mut take: impl FnMut(usize, &[u32])) -> Result<bool, LmError> {
        let Some(quick) = &self.quick else { return Ok(false) };
        quick.tokens(&self.text, text, true, |bytes, tokens| {
            take(bytes, tokens);
            ControlFlow::Continue(())
        })
    }

    fn encoding(&self, text: &str) -> Result<tokenizers::Encoding, LmError> {
        self.text.encode_fast(text, false).map_err(|error| LmError::Tokenizer(error.to_string()))
    }
}

/// Spans without gaps: each token begins where the one before it ended.
fn spans(ids: &[u32], ends: impl Iterator<Item = usize>, len: usize) -> Vec<TokenSpan> {
    let mut start = 0;
    let mut spans: Vec<TokenSpan> = Vec::with_capacity(ids.len());
    for (&id, end) in ids.iter().zip(ends) {
        let end = end.clamp(start, len);
        spans.push(TokenSpan { id, start, end });
        start = end;
    }
    if let Some(last) = spans.last_mut() {
        last.end = len;
    }
    spans
}

/// Control tokens by name, longest first, so that the longest match wins.
struct Controls(Vec<(String, u32)>);

/// A stretch of a rendered prompt.
enum Run<'a> {
    Control(u32),
    Text(&'a str),
}

impl Controls {
    fn new(mut names: Vec<(String, u32)>) -> Self {
        names.retain(|(name, _)| !name.is_empty());
        names.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        Self(names)
    }

    fn cut<'a>(&self, text: &'a str) -> Vec<Run<'a>> {
        let mut runs = Vec::new();
        let (mut begun, mut at) = (0, 0);
        while at < text.len() {
            let here = &text[at..];
            if let Some((name, id)) = self.0.iter().find(|(name, _)| here.starts_with(name.as_str())) {
                if begun < at {
                    runs.push(Run::Text(&text[begun..at]));
                }
                runs.push(Run::Control(*id));
                at += name.len();
                begun = at;
            } else {
                at += here.chars().next().map_or(1, char::len_utf8);
            }
        }
        if begun < text.len() {
            runs.push(Run::Text(&text[begun..]));
        }
        runs
    }
}

#[cfg(test)]
mod tests;

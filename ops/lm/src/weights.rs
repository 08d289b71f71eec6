//! Where tensors come from: GGUF files and safetensors folders.
//!
//! Tensors are asked for by their Hugging Face names and come as `f32`, in Hugging Face's layout: GGUF's llama files
//! keep the rows of `q_proj` and `k_proj` in pairs for interleaved RoPE, its gemma files have one added to norms, its phi
//! files may have queries, keys and values in one tensor; that is undone here and nowhere else.
//! Some rows of a tensor are read at a time (`weights/stored.rs`), so opening a large file costs its header, and a model needs no
//! more memory while it is loaded than after.

mod stored;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use stored::Stored;
pub(crate) use stored::{AsStored, widen};

use crate::LmError;
use crate::config::{Config, Facts, NormKind};
use crate::kernels::{PANEL, Packed, Precision};

/// Values that are widened at a time, about: few enough for a cache, and for several threads to share a small matrix.
const PART: usize = 1 << 16;

/// An opened checkpoint.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    config: Config,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Gguf(Box<Content>),
    Safetensors(Files),
}

/// Where each tensor of a folder lies.
type Files = BTreeMap<String, Stored>;

impl Weights {
    /// Opens a GGUF file, or a folder with `config.json` and `*.safetensors`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is something else, or is of an architecture that we do not run.
    pub fn open(path: &Path) -> Result<Self, LmError> {
        let (config, source) = if path.is_dir() { open_folder(path)? } else { open_gguf(path)? };
        Ok(Self { path: path.to_owned(), config, source })
    }

    /// The shape of the decoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The header of a GGUF file, where also the tokenizer and the chat template are; none for a folder.
    pub fn gguf(&self) -> Option<&Content> {
        match &self.source {
            Source::Gguf(content) => Some(content),
            Source::Safetensors(_) => None,
        }
    }

    /// Reads a tensor by its Hugging Face name, such as `model.layers.0.self_attn.q_proj.weight`, and checks its
    /// shape: `[outputs, inputs]` or `[size]`.
    ///
    /// # Errors
    ///
    /// If it is missing, cut short, of another shape or of a type that we do not read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError> {
        self.find(name, shape)?.rows(0..shape.first().copied().unwrap_or(1))
    }

    /// Where a GGUF file has a weight of `n_rows` rows, by its Hugging Face name; where llama.cpp's converter would put it, if this is a folder.
    ///
    /// # Panics
    ///
    /// If the architecture has no weight of that name.
    pub(crate) fn stored(&self, name: &str, n_rows: usize) -> InGguf {
        let facts = self.config.facts();
        let own = gguf_name(facts, name).expect("a weight of the model");
        let fused = self.gguf().and_then(|content| fused(content, &self.config, &own));
        let (name, rows, all) = match fused {
            Some((fused, rows)) => (fused, rows, self.config.query_width() + 2 * self.config.key_value_width()),
            None => (own.clone(), 0..n_rows, n_rows),
        };
        let paired = facts.gguf_pairs && [".attn_q.", ".attn_k."].iter().any(|part| own.contains(part));
        InGguf { name, rows, all, head_dim: paired.then_some(self.config.head_dim) }
    }

    /// Reads a matrix `[outputs, inputs]` and packs it, a part at a time on all threads.
    ///
    /// # Errors
    ///
    /// As [`Weights::tensor`].
    pub(crate) fn packed(&self, name: &str, [n, k]: [usize; 2], precision: Precision) -> Result<Packed, LmError> {
        let found = self.find(name, &[n, k])?;
        // Whole panels, and whole heads, in which rows change places.
        let least = least_common_multiple(PANEL, found.head.max(1));
        let step = least * (PART / (least * k.max(1))).max(1);
        if let (Precision::Int8, Some(form)) = (precision, found.stored.levels())
            && let Some(packed) = Packed::from_levels((n, k), form, step, |rows| found.rows(rows))?
        {
            return Ok(packed);
        }
        Packed::from_parts(n, k, precision, step, |rows| found.rows(rows))
    }

    /// Reads a matrix `[outputs, inputs]` and keeps it as the file has it, to be packed each time it is used; none where that can't be.
    ///
    /// # Errors
    ///
    /// As [`Weights::tensor`].
    pub(crate) fn as_stored(
        &self,
        name: &str,
        shape: [usize; 2],
        precision: Precision,
    ) -> Result<Option<AsStored>, LmError> {
        AsStored::read(&self.find(name, &shape)?, shape, precision)
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Found, LmError> {
        let found = match &self.source {
            Source::Gguf(content) => self.in_gguf(content, name)?,
            Source::Safetensors(files) => {
                let stored = files.get(name).ok_or_else(|| self.unusable(format!("tensor `{name}` is missing")))?;
                Found {
                    first: 0,
                    n: stored.shape.first().copied().unwrap_or(1),
                    stored: stored.clone(),
                    head: 0,
                    less: 0.0,
                }
            }
        };
        let mut there = found.stored.shape.clone();
        if let Some(rows) = there.first_mut() {
            *rows = found.n;
        }
        if there != shape {
            return Err(self.unusable(format!("tensor `{name}` has shape {there:?}, not {shape:?}")));
        }
        Ok(found)
    }

    fn in_gguf(&self, content: &Content, name: &str) -> Result<Found, LmError> {
        let facts = self.config.facts();
        let stored = gguf_name(facts, name);
        let stored = stored.ok_or_else(|| self.unusable(format!("no tensor is called `{name}`")))?;
        let (stored, rows) = match fused(content, &self.config, &stored) {
            Some((fused, rows)) => (Stored::in_gguf(&self.path, content, &fused)?, rows),
            None => {
                let stored = Stored::in_gguf(&self.path, content, &stored)?;
                let rows = 0..stored.shape.first().copied().unwrap_or(1);
                (stored, rows)
            }
        };
        let paired = facts.gguf_pairs && (name.contains(".q_proj.") || name.contains(".k_proj."));
        // GGUF has the one added already.
        let less = if facts.norm == NormKind::RmsPlusOne && name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let head = if paired { self.config.head_dim } else { 0 };
        Ok(Found { stored, first: rows.start, n: rows.len(), head, less })
    }

    fn unusable(&self, reason: String) -> LmError {
        unusable(&self.path, reason)
    }
}

/// A tensor that was found, and what is to be undone of how it is stored.
struct Found {
    stored: Stored,
    /// Its rows among those that are stored.
    first: usize,
    n: usize,
    /// Rows of a head, where they lie in pairs; else 0.
    head: usize,
    /// What is taken off each value.
    less: f32,
}

impl Found {
    /// Some rows; where they lie in pairs, whole heads.
    fn rows(&self, rows: Range<usize>) -> Result<Vec<f32>, LmError> {
        let n = rows.len();
        let mut values = self.stored.rows(self.first + rows.start..self.first + rows.end)?;
        if self.head > 0 && n > 0 {
            values = unpair(&values, self.head, values.len() / n);
        }
        if self.less != 0.0 {
            values.iter_mut().for_each(|value| *value -= self.less);
        }
        Ok(values)
    }
}

/// Where a GGUF file has a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InGguf {
    /// The tensor that it is, or that it is part of.
    pub(crate) name: String,
    /// Its rows there.
    pub(crate) rows: Range<usize>,
    /// All rows of the tensor.
    pub(crate) all: usize,
    /// The rows of a head, where they stand in pairs.
    head_dim: Option<usize>,
}

impl InGguf {
    /// Rows in Hugging Face's order as the file has them.
    pub(crate) fn order(&self, values: &[f32], columns: usize) -> Vec<f32> {
        self.head_dim.map_or_else(|| values.to_vec(), |head_dim| pair(values, head_dim, columns))
    }
}

/// The opposite of [`unpair`].
fn pair(values: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * columns) {
        for pair in 0..head_dim / 2 {
            for half in 0..2 {
                out.extend_from_slice(&head[(pair + half * (head_dim / 2)) * columns..][..columns]);
            }
        }
    }
    out
}

/// The least number that both divide; neither is zero.
fn least_common_multiple(one: usize, other: usize) -> usize {
    let (mut a, mut b) = (one, other);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    one / a * other
}

/// Puts the rows of each head back into halves: GGUF has rows `(0, h/2), (1, h/2 + 1), …` next to each other, which
/// interleaved RoPE rotates as pairs; Hugging Face rotates row `i` with row `i + h/2`.
fn unpair(values: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * columns) {
        for half in 0..2 {
            for pair in 0..head_dim / 2 {
                out.extend_from_slice(&head[(2 * pair + half) * columns..][..columns]);
            }
        }
    }
    out
}

/// What llama.cpp calls a tensor.
fn gguf_name(facts: &Facts, name: &str) -> Option<String> {
    let (path, kind) = name.rsplit_once('.')?;
    if let Some((layer, part)) = path.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        let named = facts.parts().find(|named| named.hf == part)?;
        return Some(format!("blk.{layer}.{}.{kind}", named.gguf));
    }
    let stem = match path {
        "model.embed_tokens" => "token_embd",
        "lm_head" => "output",
        _ if path.strip_prefix("model.") == Some(facts.final_norm) => "output_norm",
        _ => return None,
    };
    Some(format!("{stem}.{kind}"))
}

/// Where queries, keys and values lie in one tensor: its name, and the rows of the one that is asked for.
fn fused(content: &Content, config: &Config, stored: &str) -> Option<(String, Range<usize>)> {
    if content.tensor_infos.contains_key(stored) {
        return None;
    }
    let (q, kv) = (config.query_width(), config.key_value_width());
    let parts = [("attn_q.", 0..q), ("attn_k.", q..q + kv), ("attn_v.", q + kv..q + 2 * kv)];
    let (part, rows) = parts.into_iter().find(|(part, _)| stored.contains(part))?;
    let fused = stored.replace(part, "attn_qkv.");
    content.tensor_infos.contains_key(&fused).then_some((fused, rows))
}

fn open_gguf(path: &Path) -> Result<(Config, Source), LmError> {
    let file = File::open(path).map_err(|e| io("open", path, e))?;
    let content = crate::gguf::header::read(file).map_err(|e| unusable(path, not_gguf(&e.to_string())))?;
    let factors =
        content.tensor_infos.contains_key(ROPE_FACTORS).then(|| Stored::in_gguf(path, &content, ROPE_FACTORS));
    let factors = factors.transpose()?.map(|factors| factors.rows(0..factors.shape.first().copied().unwrap_or(1)));
    let factors = factors.transpose()?;
    let config = Config::from_gguf(&content, factors.as_deref()).map_err(|reason| unusable(path, reason))?;
    Ok((config, Source::Gguf(Box::new(content))))
}

/// By what each frequency of RoPE is divided.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Types of GGUF tensors that candle does not read, by their numbers in `ggml.h`.
const UNREAD_TYPES: &[(&str, &str)] = &[
    ("16", "IQ2_XXS"),
    ("17", "IQ2_XS"),
    ("18", "IQ3_XXS"),
    ("19", "IQ1_S"),
    ("20", "IQ4_NL"),
    ("21", "IQ3_S"),
    ("22", "IQ2_S"),
    ("23", "IQ4_XS"),
    ("29", "IQ1_M"),
    ("34", "TQ1_0"),
    ("35", "TQ2_0"),
    ("39", "MXFP4"),
];

/// Why candle could not read a header.
fn not_gguf(error: &str) -> String {
    let Some((_, number)) = error.split_once("unknown dtype for tensor ") else {
        return format!("it is not a GGUF file: {error}");
    };
    let number: String = number.chars().take_while(char::is_ascii_digit).collect();
    let name =
        UNREAD_TYPES.iter().find(|(own, _)| *own == number).map_or("of a kind that is not known", |&(_, name)| name);
    format!(
        "it has tensors of type {number} ({name}), which is not supported (supported are F32, F16, BF16, Q4_0, Q4_1, \
         Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K)"
    )
}

fn open_folder(path: &Path) -> Result<(Config, Source), LmError> {
    let file = path.join("config.json");
    let text = std::fs::read_to_string(&file).map_err(|e| io("read", &file, e))?;
    let json = serde_json::from_str(&text).map_err(|e| unusable(&file, e.to_string()))?;
    let mut config = Config::from_json(&json).map_err(|reason| unusable(path, reason))?;
    let mut files = Files::new();
    for entry in std::fs::read_dir(path).map_err(|e| io("read", path, e))? {
        let file = entry.map_err(|e| io("read", path, e))?.path();
        if file.extension().is_some_and(|end| end == "safetensors") {
            let stored = Stored::in_safetensors(&file)?;
            files.extend(stored.into_iter().map(|(name, stored)| (plain_name(&name), stored)));
        }
    }
    if files.is_empty() {
        return Err(unusable(path, "it has no `*.safetensors`".to_owned()));
    }
    // Some checkpoints say that they are not tied, and are.
    config.tie_word_embeddings |= !files.contains_key("lm_head.weight");
    Ok((config, Source::Safetensors(files)))
}

/// A tensor's name without what models that read pictures too put around their text part.
fn plain_name(name: &str) -> String {
    if let Some(inner) = name.strip_prefix("model.language_model.") {
        return format!("model.{inner}");
    }
    name.strip_prefix("language_model.").unwrap_or(name).to_owned()
}

fn io(verb: &'static str, path: &Path, source: std::io::Error) -> LmError {
    LmError::Io { verb, path: path.display().to_string(), source }
}

fn unusable(path: &Path, reason: String) -> LmError {
    LmError::Model { path: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests;

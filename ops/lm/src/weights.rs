//! Where tensors come from: GGUF files and safetensors folders.
//!
//! Tensors are asked for by their Hugging Face names and come as `f32`, in Hugging Face's layout: GGUF's llama files
//! keep the rows of `q_proj` and `k_proj` in pairs for interleaved RoPE, which is undone here and nowhere else.
//! One tensor is read at a time, so opening a large file costs its header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device};
use half::{bf16, f16};

use crate::LmError;
use crate::config::Config;

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
    /// Which file of the folder holds each tensor.
    Safetensors(BTreeMap<String, PathBuf>),
}

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
        let (found, values) = match &self.source {
            Source::Gguf(content) => self.gguf_tensor(content, name)?,
            Source::Safetensors(files) => self.folder_tensor(files, name)?,
        };
        if found != shape {
            return Err(self.unusable(format!("tensor `{name}` has shape {found:?}, not {shape:?}")));
        }
        Ok(values)
    }

    fn gguf_tensor(&self, content: &Content, name: &str) -> Result<(Vec<usize>, Vec<f32>), LmError> {
        let stored = gguf_name(name).ok_or_else(|| self.unusable(format!("no tensor is called `{name}`")))?;
        if !content.tensor_infos.contains_key(&stored) {
            return Err(self.unusable(format!("tensor `{stored}` is missing")));
        }
        let mut reader = BufReader::new(File::open(&self.path).map_err(|e| io("open", &self.path, e))?);
        let mut read = || -> candle_core::Result<(Vec<usize>, Vec<f32>)> {
            let tensor = content.tensor(&mut reader, &stored, &Device::Cpu)?.dequantize(&Device::Cpu)?;
            Ok((tensor.dims().to_vec(), tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?))
        };
        let (shape, mut values) = read().map_err(|e| self.unusable(format!("tensor `{stored}`: {e}")))?;
        if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") {
            values = unpair(&values, self.config.head_dim, shape.last().copied().unwrap_or(1));
        }
        Ok((shape, values))
    }

    fn folder_tensor(&self, files: &BTreeMap<String, PathBuf>, name: &str) -> Result<(Vec<usize>, Vec<f32>), LmError> {
        let file = files.get(name).ok_or_else(|| self.unusable(format!("tensor `{name}` is missing")))?;
        let bytes = std::fs::read(file).map_err(|e| io("read", file, e))?;
        let broken = |e: &dyn std::fmt::Display| unusable(file, format!("tensor `{name}`: {e}"));
        let tensors = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| broken(&e))?;
        let view = tensors.tensor(name).map_err(|e| broken(&e))?;
        let values = widen(view.dtype(), view.data())
            .ok_or_else(|| broken(&format!("type {:?} is not read (F32, F16 and BF16 are)", view.dtype())))?;
        Ok((view.shape().to_vec(), values))
    }

    fn unusable(&self, reason: String) -> LmError {
        unusable(&self.path, reason)
    }
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
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let part = match part {
        "input_layernorm.weight" => "attn_norm",
        "self_attn.q_proj.weight" => "attn_q",
        "self_attn.k_proj.weight" => "attn_k",
        "self_attn.v_proj.weight" => "attn_v",
        "self_attn.o_proj.weight" => "attn_output",
        "post_attention_layernorm.weight" => "ffn_norm",
        "mlp.gate_proj.weight" => "ffn_gate",
        "mlp.up_proj.weight" => "ffn_up",
        "mlp.down_proj.weight" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.weight"))
}

fn open_gguf(path: &Path) -> Result<(Config, Source), LmError> {
    let mut reader = BufReader::new(File::open(path).map_err(|e| io("open", path, e))?);
    let content = Content::read(&mut reader).map_err(|e| unusable(path, format!("it is not a GGUF file: {e}")))?;
    let config = Config::from_gguf(&content).map_err(|reason| unusable(path, reason))?;
    if content.tensor_infos.contains_key("rope_freqs.weight") {
        return Err(unusable(path, "its RoPE is scaled by `rope_freqs.weight`, which is not supported".to_owned()));
    }
    Ok((config, Source::Gguf(Box::new(content))))
}

fn open_folder(path: &Path) -> Result<(Config, Source), LmError> {
    let file = path.join("config.json");
    let text = std::fs::read_to_string(&file).map_err(|e| io("read", &file, e))?;
    let json = serde_json::from_str(&text).map_err(|e| unusable(&file, e.to_string()))?;
    let mut config = Config::from_json(&json).map_err(|reason| unusable(path, reason))?;
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(path).map_err(|e| io("read", path, e))? {
        let file = entry.map_err(|e| io("read", path, e))?.path();
        if file.extension().is_some_and(|end| end == "safetensors") {
            for name in tensor_names(&file)? {
                files.insert(name, file.clone());
            }
        }
    }
    if files.is_empty() {
        return Err(unusable(path, "it has no `*.safetensors`".to_owned()));
    }
    // Some checkpoints say that they are not tied, and are.
    config.tie_word_embeddings |= !files.contains_key("lm_head.weight");
    Ok((config, Source::Safetensors(files)))
}

/// The tensors of a safetensors file, from its header alone.
fn tensor_names(file: &Path) -> Result<Vec<String>, LmError> {
    use std::io::Read as _;
    let mut reader = File::open(file).map_err(|e| io("open", file, e))?;
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(|e| io("read", file, e))?;
    let mut header = Vec::new();
    reader.take(u64::from_le_bytes(length)).read_to_end(&mut header).map_err(|e| io("read", file, e))?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| unusable(file, format!("it is not a safetensors file: {e}")))?;
    Ok(header.into_keys().filter(|name| name != "__metadata__").collect())
}

fn widen(dtype: safetensors::Dtype, data: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        safetensors::Dtype::F32 => Some(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        safetensors::Dtype::F16 => Some(data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
        safetensors::Dtype::BF16 => Some(data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}

fn io(verb: &'static str, path: &Path, source: std::io::Error) -> LmError {
    LmError::Io { verb, path: path.display().to_string(), source }
}

fn unusable(path: &Path, reason: String) -> LmError {
    LmError::Model { path: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpairing_gives_halves() {
        // One head of four rows, two columns: rows 0 and 2 were neighbours.
        let stored = [0.0, 0.1, 2.0, 2.1, 1.0, 1.1, 3.0, 3.1];
        assert_eq!(unpair(&stored, 4, 2), [0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.0, 3.1]);
    }

    #[test]
    fn files_that_are_no_models_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not.gguf");
        std::fs::write(&file, b"GGUX and more").unwrap();
        let error = Weights::open(&file).unwrap_err().to_string();
        assert!(error.contains("not.gguf` is not a usable model"), "{error}");
        let error = Weights::open(&folder.path().join("absent")).unwrap_err().to_string();
        assert!(error.starts_with("failed to open"), "{error}");
        let error = Weights::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}

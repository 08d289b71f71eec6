//! An encoder's files: a folder, or one file in which they stand one after the other.
//!
//! A model of a pipeline is one file of which the digest is pinned, and an encoder comes in several. Joined they can still be told apart: the
//! header of safetensors says where the tensors end, and what comes after them are JSON values, each known by its keys.

use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;

use super::{Encoder, Layer, Norm, Shape};
use crate::LmError;
use crate::kernels::{Packed, Precision};
use crate::linear::Linear;
use crate::weights::widen;

/// What an encoder is made of.
struct Parts {
    tensors: Vec<u8>,
    config: Value,
    tokenizer: Value,
    /// What sentence-transformers wants to know beside; null where it is not there.
    sentences: Value,
}

pub(super) fn read(path: &Path) -> Result<Encoder, LmError> {
    let unusable = |reason: String| LmError::Model { path: path.display().to_string(), reason };
    let parts = if path.is_dir() { Parts::of_folder(path)? } else { Parts::of_file(path)? };
    let shape = parts.shape().map_err(unusable)?;
    let text = parts.text(shape.most).map_err(unusable)?;
    let tensors = SafeTensors::deserialize(&parts.tensors).map_err(|error| unusable(error.to_string()))?;
    build(text, shape, &Tensors(tensors)).map_err(unusable)
}

impl Parts {
    fn of_folder(folder: &Path) -> Result<Self, LmError> {
        let json = |name: &str| {
            let file = folder.join(name);
            serde_json::from_slice(&read_file(&file)?)
                .map_err(|error| LmError::Model { path: file.display().to_string(), reason: error.to_string() })
        };
        let sentences = "sentence_bert_config.json";
        Ok(Self {
            tensors: read_file(&folder.join("model.safetensors"))?,
            config: json("config.json")?,
            tokenizer: json("tokenizer.json")?,
            sentences: if folder.join(sentences).is_file() { json(sentences)? } else { Value::Null },
        })
    }

    fn of_file(path: &Path) -> Result<Self, LmError> {
        let unusable = |reason: String| LmError::Model { path: path.display().to_string(), reason };
        let mut tensors = read_file(path)?;
        let end = end_of_tensors(&tensors).ok_or_else(|| {
            unusable("it is no encoder: it does not begin with the tensors of a `model.safetensors`".to_owned())
        })?;
        let [mut config, mut tokenizer, mut sentences] = [Value::Null, Value::Null, Value::Null];
        for value in serde_json::Deserializer::from_slice(&tensors[end..]).into_iter() {
            let value: Value = value.map_err(|error| unusable(format!("after the tensors: {error}")))?;
            if value.get("model_type").is_some() {
                config = value;
            } else if value.get("max_seq_length").is_some() {
                sentences = value;
            } else if value.get("model").is_some() {
                tokenizer = value;
            }
        }
        for (name, value) in [("config.json", &config), ("tokenizer.json", &tokenizer)] {
            if value.is_null() {
                let reason = format!(
                    "`{name}` is missing after the tensors: `weights` of an encoder are a list of all its files"
                );
                return Err(unusable(reason));
            }
        }
        tensors.truncate(end);
        Ok(Self { tensors, config, tokenizer, sentences })
    }

    fn shape(&self) -> Result<Shape, String> {
        let config = &self.config;
        let wanted = [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")];
        for (key, wanted) in wanted {
            if let Some(found) = config[key].as_str().filter(|found| *found != wanted) {
                return Err(format!("`{key}` is `{found}`, not `{wanted}`: encoders here are BERT"));
            }
        }
        let size = |key: &str| {
            let size = config[key].as_u64().filter(|size| (1..1 << 24).contains(size));
            size.map(|size| size as usize).ok_or_else(|| format!("its config has no `{key}`"))
        };
        let (width, heads, positions) =
            (size("hidden_size")?, size("num_attention_heads")?, size("max_position_embeddings")?);
        if width % heads != 0 {
            return Err(format!("{heads} heads do not part a width of {width}"));
        }
        let most = self.sentences["max_seq_length"].as_u64().map_or(positions, |most| most as usize);
        Ok(Shape {
            vocabulary: size("vocab_size")?,
            width,
            inner: size("intermediate_size")?,
            layers: size("num_hidden_layers")?,
            heads,
            positions,
            most: most.clamp(3, positions.max(3)),
            eps: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
        })
    }

    fn text(&self, most: usize) -> Result<tokenizers::Tokenizer, String> {
        let bytes = serde_json::to_vec(&self.tokenizer).map_err(|error| error.to_string())?;
        let mut text = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())?;
        text.with_padding(None);
        let truncation = tokenizers::TruncationParams { max_length: most, ..tokenizers::TruncationParams::default() };
        text.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
        text.set_encode_special_tokens(true);
        Ok(text)
    }
}

/// Where the tensors end, as their header says; nothing if it is no header.
fn end_of_tensors(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let begin = length.checked_add(8)?;
    let header: Value = serde_json::from_slice(bytes.get(8..begin)?).ok()?;
    let ends = header.as_object()?.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let end = begin.checked_add(usize::try_from(ends.max()?).ok()?)?;
    (end <= bytes.len()).then_some(end)
}

struct Tensors<'a>(SafeTensors<'a>);

impl Tensors<'_> {
    /// A tensor by name; checkpoints with a head on top have `bert.` before it.
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let view = self.0.tensor(name).or_else(|_| self.0.tensor(&format!("bert.{name}")));
        let view = view.map_err(|_| format!("tensor `{name}` is missing"))?;
        if view.shape() != shape {
            return Err(format!("tensor `{name}` has shape {:?}, not {shape:?}", view.shape()));
        }
        widen(view.dtype(), view.data())
            .ok_or_else(|| format!("tensor `{name}` has type {:?}, which is not read", view.dtype()))
    }

    fn linear(&self, name: &str, [outputs, inputs]: [usize; 2]) -> Result<Linear, String> {
        let weight = self.get(&format!("{name}.weight"), &[outputs, inputs])?;
        let weight = Packed::from_rows(&weight, outputs, inputs, Precision::F32);
        Ok(Linear::new(weight, false).with_bias(self.get(&format!("{name}.bias"), &[outputs])?))
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, String> {
        let part = |part: &str| self.get(&format!("{name}.LayerNorm.{part}"), &[width]);
        Ok(Norm { weight: part("weight")?, bias: part("bias")? })
    }

    fn layer(&self, number: usize, shape: &Shape) -> Result<Layer, String> {
        let (width, inner) = (shape.width, shape.inner);
        let name = |part: &str| format!("encoder.layer.{number}.{part}");
        Ok(Layer {
            query: self.linear(&name("attention.self.query"), [width, width])?,
            key: self.linear(&name("attention.self.key"), [width, width])?,
            value: self.linear(&name("attention.self.value"), [width, width])?,
            mixed: self.linear(&name("attention.output.dense"), [width, width])?,
            mixed_norm: self.norm(&name("attention.output"), width)?,
            up: self.linear(&name("intermediate.dense"), [inner, width])?,
            down: self.linear(&name("output.dense"), [width, inner])?,
            norm: self.norm(&name("output"), width)?,
        })
    }
}

fn build(text: tokenizers::Tokenizer, shape: Shape, tensors: &Tensors<'_>) -> Result<Encoder, String> {
    let width = shape.width;
    let kinds = tensors.get("embeddings.token_type_embeddings.weight", &[2, width])?;
    Ok(Encoder {
        text,
        words: tensors.get("embeddings.word_embeddings.weight", &[shape.vocabulary, width])?,
        positions: tensors.get("embeddings.position_embeddings.weight", &[shape.positions, width])?,
        kind: kinds[..width].to_vec(),
        norm: tensors.norm("embeddings", width)?,
        layers: (0..shape.layers).map(|number| tensors.layer(number, &shape)).collect::<Result<_, _>>()?,
        shape,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, LmError> {
    std::fs::read(path).map_err(|source| LmError::Io { verb: "read", path: path.display().to_string(), source })
}

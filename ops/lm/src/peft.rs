//! Adapters as folders in PEFT's format: what Python's `peft` writes and loads.
//!
//! A folder holds `adapter_config.json`, `adapter_model.safetensors` (keys `base_model.model.<our name>`, header
//! metadata `format: pt`) and `README.md`, the model card with the front matter that the Hugging Face hub reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::LmError;
use crate::config::Config;
use crate::lora::{Adapter, AdapterTensor, LoraConfig, Place};

/// What PEFT puts before the name of each tensor.
pub const PREFIX: &str = "base_model.model.";

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// What the model card says beside the adapter's own numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// The heading.
    pub title: String,
    /// The base model as Hugging Face or the pipeline names it; goes into `adapter_config.json` too.
    pub base_model: String,
    /// SHA-256 of the weights that the adapter was trained on, if known.
    pub base_sha256: Option<String>,
    /// An SPDX licence name, if known.
    pub license: Option<String>,
    /// Further sections: heading and Markdown.
    pub sections: Vec<(String, String)>,
}

/// Writes the three files into `folder`, which is made if it is not there.
///
/// # Errors
///
/// If a file cannot be written.
pub fn write(adapter: &Adapter, card: &Card, folder: &Path) -> Result<(), LmError> {
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(io("write", &path))
    };
    let config = serde_json::to_string_pretty(&config_json(adapter, card)).expect("plain data");
    put(CONFIG, format!("{config}\n").as_bytes())?;
    put("README.md", card_text(adapter, card).as_bytes())?;
    put(TENSORS, &tensors_file(adapter))
}

/// Reads a folder that [`write()`] or Python's `peft` wrote for a model of this shape.
///
/// # Errors
///
/// If a file cannot be read, or the adapter is of a kind that we do not run: not LoRA, biases, modules saved whole.
pub fn read(folder: &Path, model: &Config) -> Result<Adapter, LmError> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
    let json = serde_json::from_str(&text).map_err(|error| unusable(&path, error.to_string()))?;
    let path = folder.join(TENSORS);
    let bytes = std::fs::read(&path).map_err(io("read", &path))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| unusable(&path, error.to_string()))?;
    let config = lora_config(&json).map_err(|reason| unusable(&folder.join(CONFIG), reason))?;
    let tensors = tensors.iter().map(|(name, view)| adapter_tensor(name, &view)).collect::<Result<Vec<_>, _>>();
    let tensors = tensors.map_err(|reason| unusable(&path, reason))?;
    // Which layers, and with which ranks, the tensors say: `target_modules` may be a pattern.
    let mut places = Vec::new();
    let whole = LoraConfig { only: None, rank_pattern: BTreeMap::new(), ..config.clone() };
    for place in whole.places(model)? {
        let a = format!("{}.lora_A.weight", place.path);
        if let Some(tensor) = tensors.iter().find(|tensor| tensor.name == a) {
            places.push(Place { rank: tensor.shape[0], ..place });
        }
    }
    Adapter::from_tensors(model, &config, places, tensors)
}

fn config_json(adapter: &Adapter, card: &Card) -> Value {
    let config = adapter.config();
    json!({
        "alpha_pattern": pattern(adapter, |place| (place.alpha != config.alpha).then(|| json!(place.alpha))),
        "auto_mapping": null,
        "base_model_name_or_path": card.base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": pattern(adapter, |place| (place.rank != config.rank).then(|| json!(place.rank))),
        "revision": null,
        "target_modules": modules(adapter),
        "task_type": "CAUSAL_LM",
        "use_dora": config.dora,
        "use_rslora": config.rslora,
    })
}

/// The last part of a name.
fn last(path: &str) -> String {
    path.rsplit('.').next().unwrap_or(path).to_owned()
}

/// The adapted layers: by their names' ends where the adapter sits on that layer of every block, or else each by its whole name.
fn modules(adapter: &Adapter) -> Vec<String> {
    let places = adapter.places();
    let count = |target| places.iter().filter(|place| place.target == target).count();
    let everywhere = places.iter().all(|place| count(place.target) == adapter.blocks());
    let mut names: Vec<String> =
        places.iter().map(|place| if everywhere { last(&place.path) } else { place.path.clone() }).collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// What is other than in the whole, by whole name: PEFT reads keys as patterns of the names' ends, so the points are literal ones.
fn pattern(adapter: &Adapter, other: impl Fn(&Place) -> Option<Value>) -> Value {
    let named = adapter.places().iter().filter_map(|place| Some((place.path.replace('.', "\\."), other(place)?)));
    Value::Object(named.collect())
}

/// The config of a PEFT adapter.
fn lora_config(json: &Value) -> Result<LoraConfig, String> {
    if json["peft_type"] != "LORA" {
        return Err(format!("its `peft_type` is {}, not `LORA`", json["peft_type"]));
    }
    let plain = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other == "none",
    };
    if let Some(key) = ["bias", "modules_to_save"].into_iter().find(|key| !plain(&json[*key])) {
        return Err(format!("its `{key}` is {}, which is not supported", json[key]));
    }
    let alphas = json["alpha_pattern"].as_object().into_iter().flatten();
    let alpha =
        |(name, value): (&String, &Value)| Some((name.trim_start_matches('^').to_owned(), value.as_f64()? as f32));
    Ok(LoraConfig {
        rank: json["r"].as_u64().ok_or("it has no rank `r`")? as usize,
        alpha: json["lora_alpha"].as_f64().ok_or("it has no `lora_alpha`")? as f32,
        dropout: json["lora_dropout"].as_f64().unwrap_or(0.0) as f32,
        rslora: json["use_rslora"] == true,
        dora: json["use_dora"] == true,
        alpha_pattern: alphas.filter_map(alpha).collect(),
        ..LoraConfig::default()
    })
}

fn tensors_file(adapter: &Adapter) -> Vec<u8> {
    let bytes =
        |tensor: &AdapterTensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let tensors: Vec<_> = adapter.tensors().iter().map(|tensor| (tensor, bytes(tensor))).collect();
    let views = tensors.iter().map(|(tensor, bytes)| {
        let shape = if is_lengths(&tensor.name) { vec![tensor.shape[0]] } else { tensor.shape.to_vec() };
        let view = TensorView::new(Dtype::F32, shape, bytes).expect("as many bytes as the shape says");
        (format!("{PREFIX}{}", tensor.name), view)
    });
    let header = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(header)).expect("well-formed tensors")
}

/// Whether a tensor holds DoRA's lengths, which PEFT has as a vector.
fn is_lengths(name: &str) -> bool {
    name.ends_with(".lora_magnitude_vector")
}

/// A tensor of a PEFT file as ours, in `f32` from whichever float it was saved in.
fn adapter_tensor(name: &str, view: &TensorView<'_>) -> Result<AdapterTensor, String> {
    let own = name.strip_prefix(PREFIX).ok_or_else(|| format!("tensor `{name}` does not begin with `{PREFIX}`"))?;
    let (rows, columns) = match *view.shape() {
        [rows, columns] => (rows, columns),
        [rows] if is_lengths(own) => (rows, 1),
        ref other => return Err(format!("tensor `{name}` has shape {other:?}")),
    };
    let pairs = || view.data().as_chunks::<2>().0.iter();
    let values = match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => pairs().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect(),
        other => return Err(format!("tensor `{name}` is of type {other:?}")),
    };
    Ok(AdapterTensor { name: own.to_owned(), shape: [rows, columns], values })
}

fn card_text(adapter: &Adapter, card: &Card) -> String {
    let config = adapter.config();
    let layers: Vec<String> = modules(adapter).iter().map(|name| format!("`{name}`")).collect();
    let mut text = String::from("---\n");
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("base_model: {}", Value::from(card.base_model.as_str())));
    if let Some(license) = &card.license {
        line(format!("license: {license}"));
    }
    line("library_name: peft\npipeline_tag: text-generation\ntags:\n- lora\n- retort\n---\n".to_owned());
    line(format!("# {}\n", card.title));
    line(format!("A LoRA adapter of `{}`, made by Retort.\n", card.base_model));
    if let Some(sha256) = &card.base_sha256 {
        line(format!("- base weights: SHA-256 `{sha256}`"));
    }
    let scale = if config.rslora { "alpha / √rank" } else { "alpha / rank" };
    let dora = if config.dora { ", DoRA" } else { "" };
    line(format!(
        "- rank {}, alpha {} (scaled by {scale}), dropout {}{dora}",
        config.rank, config.alpha, config.dropout
    ));
    line(format!("- layers: {}", layers.join(", ")));
    line(format!("- {} trained numbers", adapter.parameters()));
    for (heading, body) in &card.sections {
        write!(text, "\n## {heading}\n\n{}\n", body.trim_end()).expect("writing to a string");
    }
    text
}

fn unusable(path: &Path, reason: String) -> LmError {
    LmError::Model { path: path.display().to_string(), reason }
}

fn io<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> LmError + 'a {
    move |source| LmError::Io { verb, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests;

//! Adapters as folders in PEFT's format: what Python's `peft` writes and loads.
//!
//! A folder holds `adapter_config.json`, `adapter_model.safetensors` (keys `base_model.model.<our name>`, header
//! metadata `format: pt`) and `README.md`, the model card with the front matter that the Hugging Face hub reads.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::LmError;
use crate::config::Config;
use crate::lora::{Adapter, AdapterTensor, LoraConfig, Target};

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
/// If a file cannot be read, or the adapter is of a kind that we do not run: not LoRA, `DoRA`, biases, ranks or scales
/// that differ by layer, only some of the layers, modules saved whole.
pub fn read(folder: &Path, model: &Config) -> Result<Adapter, LmError> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
    let json = serde_json::from_str(&text).map_err(|error| unusable(&path, error.to_string()))?;
    let path = folder.join(TENSORS);
    let bytes = std::fs::read(&path).map_err(io("read", &path))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| unusable(&path, error.to_string()))?;
    let config = lora_config(&json, tensors.names()).map_err(|reason| unusable(&folder.join(CONFIG), reason))?;
    let tensors = tensors.iter().map(|(name, view)| adapter_tensor(name, &view)).collect::<Result<Vec<_>, _>>();
    Adapter::from_tensors(model, &config, tensors.map_err(|reason| unusable(&path, reason))?)
}

fn config_json(adapter: &Adapter, card: &Card) -> Value {
    let config = adapter.config();
    json!({
        "alpha_pattern": {},
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
        "rank_pattern": {},
        "revision": null,
        "target_modules": modules(adapter),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.rslora,
    })
}

/// The adapted layers by the names that the model's checkpoints give them, in a block's order.
fn modules(adapter: &Adapter) -> Vec<&str> {
    let a_block = adapter.tensors().iter().step_by(2).take(adapter.config().targets.len());
    a_block.filter_map(|tensor| tensor.name.rsplit('.').nth(2)).collect()
}

/// The config of a PEFT adapter. Its `target_modules` may be a pattern, so the targets are those of the tensors' names.
fn lora_config<'a>(json: &Value, names: impl IntoIterator<Item = &'a str>) -> Result<LoraConfig, String> {
    if json["peft_type"] != "LORA" {
        return Err(format!("its `peft_type` is {}, not `LORA`", json["peft_type"]));
    }
    let plain = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other == "none",
    };
    let beyond = ["alpha_pattern", "bias", "layers_to_transform", "modules_to_save", "rank_pattern", "use_dora"];
    if let Some(key) = beyond.into_iter().find(|key| !plain(&json[*key])) {
        return Err(format!("its `{key}` is {}, which is not supported", json[key]));
    }
    let rank = json["r"].as_u64().ok_or("it has no rank `r`")? as usize;
    let mut targets: Vec<Target> =
        names.into_iter().filter_map(|name| Target::by_name(name.rsplit('.').nth(2)?)).collect();
    targets.sort_unstable();
    targets.dedup();
    Ok(LoraConfig {
        rank,
        alpha: json["lora_alpha"].as_f64().ok_or("it has no `lora_alpha`")? as f32,
        dropout: json["lora_dropout"].as_f64().unwrap_or(0.0) as f32,
        rslora: json["use_rslora"] == true,
        targets,
    })
}

fn tensors_file(adapter: &Adapter) -> Vec<u8> {
    let bytes =
        |tensor: &AdapterTensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let tensors: Vec<_> = adapter.tensors().iter().map(|tensor| (tensor, bytes(tensor))).collect();
    let views = tensors.iter().map(|(tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.to_vec(), bytes).expect("as many bytes as the shape says");
        (format!("{PREFIX}{}", tensor.name), view)
    });
    let header = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(header)).expect("well-formed tensors")
}

/// A tensor of a PEFT file as ours, in `f32` from whichever float it was saved in.
fn adapter_tensor(name: &str, view: &TensorView<'_>) -> Result<AdapterTensor, String> {
    let own = name.strip_prefix(PREFIX).ok_or_else(|| format!("tensor `{name}` does not begin with `{PREFIX}`"))?;
    let &[rows, columns] = view.shape() else {
        return Err(format!("tensor `{name}` has shape {:?}", view.shape()));
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
    let targets: Vec<String> = modules(adapter).into_iter().map(|name| format!("`{name}`")).collect();
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
    line(format!("- rank {}, alpha {} (scaled by {scale}), dropout {}", config.rank, config.alpha, config.dropout));
    line(format!("- layers: {}", targets.join(", ")));
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
mod tests {
    use super::*;
    use crate::testing::{tiny_adapter, tiny_config};

    fn card() -> Card {
        Card {
            title: "NeXTSTEP".into(),
            base_model: "org/tiny".into(),
            base_sha256: Some("ab".into()),
            license: Some("apache-2.0".into()),
            sections: vec![("Exam".into(), "| tuned | 1.0 |".into())],
        }
    }

    #[test]
    fn a_written_folder_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let adapter = tiny_adapter();
        write(&adapter, &card(), folder.path()).unwrap();
        let back = read(folder.path(), &tiny_config()).unwrap();
        assert_eq!(back.config(), adapter.config());
        assert_eq!(back.tensors(), adapter.tensors());
    }

    #[test]
    fn keys_and_header_are_pefts() {
        let folder = tempfile::tempdir().unwrap();
        write(&tiny_adapter(), &card(), folder.path()).unwrap();
        let bytes = std::fs::read(folder.path().join(TENSORS)).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| {
            tensors.tensor(&format!("base_model.model.model.layers.1.{name}.weight")).unwrap().shape().to_vec()
        };
        assert_eq!(shape("self_attn.q_proj.lora_A"), [3, 36]);
        assert_eq!(shape("self_attn.q_proj.lora_B"), [60, 3]);
        assert_eq!(shape("mlp.down_proj.lora_A"), [3, 50]);
        let again = tempfile::tempdir().unwrap();
        write(&tiny_adapter(), &card(), again.path()).unwrap();
        assert_eq!(std::fs::read(again.path().join(TENSORS)).unwrap(), bytes, "the same adapter, the same file");
    }

    #[test]
    fn the_card_has_front_matter_and_says_what_it_is() {
        let text = card_text(&tiny_adapter(), &card());
        assert!(text.starts_with("---\nbase_model: \"org/tiny\"\nlicense: apache-2.0\nlibrary_name: peft\n"), "{text}");
        assert!(text.contains("rank 3, alpha 6 (scaled by alpha / rank)"), "{text}");
        assert!(text.ends_with("\n## Exam\n\n| tuned | 1.0 |\n"), "{text}");
    }

    #[test]
    fn adapters_that_we_cannot_run_are_refused() {
        let config = config_json(&tiny_adapter(), &card());
        let refused = |key: &str, value: Value| {
            let mut config = config.clone();
            config[key] = value;
            lora_config(&config, []).unwrap_err()
        };
        assert!(refused("peft_type", json!("IA3")).contains("IA3"));
        assert!(refused("use_dora", json!(true)).contains("use_dora"));
        assert!(refused("bias", json!("all")).contains("bias"));
        assert!(refused("rank_pattern", json!({"q_proj": 4})).contains("rank_pattern"));
        assert!(refused("modules_to_save", json!(["lm_head"])).contains("modules_to_save"));
        assert!(lora_config(&config, []).is_ok());
    }
}

//! A decoder's shape from a Hugging Face `config.json`, and back.

use serde_json::{Map, Value as Json, json};

use super::rotary::{Rotary, Scaling, yarn_attention};
use super::{Architecture, Config, NormKind};
use crate::kernels::Activation;
use crate::lora::Target;

/// What Gemma 3's files may leave out, because it is `transformers`' default.
const GEMMA3_DEFAULTS: &[(&str, usize)] =
    &[("vocab_size", 262_208), ("num_attention_heads", 8), ("num_key_value_heads", 4), ("head_dim", 256)];

impl Config {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    ///
    /// The reason, if a key is missing or senseless or the architecture is not one that we run.
    pub fn from_json(json: &Json) -> Result<Self, String> {
        let name = json["model_type"].as_str().ok_or("its `config.json` has no `model_type`")?;
        if name == "gemma3" && json["text_config"].is_object() {
            // Reads pictures too: the text part is a decoder like the others.
            return Self::from_json(&text_part(json));
        }
        let architecture = Architecture::by_model_type(name)?;
        let keys = Keys { json, architecture };
        keys.refuse()?;
        let heads = keys.need("num_attention_heads")?;
        let hidden_size = keys.need("hidden_size")?;
        let num_hidden_layers = keys.need("num_hidden_layers")?;
        let head_dim = keys.number("head_dim").or_else(|| hidden_size.checked_div(heads)).unwrap_or(0);
        let (rotary, local_rotary) = keys.rotaries(head_dim)?;
        let layer_norm = architecture.facts().norm == NormKind::Layer;
        let (epsilon, usual) = if layer_norm { ("layer_norm_eps", 1e-5) } else { ("rms_norm_eps", 1e-6) };
        let scaled_by = keys.float("query_pre_attn_scalar").unwrap_or(head_dim as f32);
        // A list of end tokens begins with the main one.
        let token = |key: &str| json[key].as_u64().or_else(|| json[key][0].as_u64()).map(|n| n as u32);
        Self {
            architecture,
            vocab_size: keys.need("vocab_size")?,
            hidden_size,
            intermediate_size: keys.need("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: keys.number("num_key_value_heads").unwrap_or(heads),
            head_dim,
            norm_eps: keys.float(epsilon).unwrap_or(usual),
            rotary,
            local_rotary,
            windows: keys.windows(num_hidden_layers),
            attention_scale: 1.0 / scaled_by.sqrt(),
            biases: keys.biases(),
            max_position_embeddings: keys.number("max_position_embeddings").unwrap_or(2048),
            tie_word_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(architecture == Architecture::Gemma3),
            bos_token_id: token("bos_token_id"),
            eos_token_id: token("eos_token_id"),
        }
        .checked()
    }

    /// The same as a Hugging Face `config.json`.
    pub fn to_json(&self) -> Json {
        let facts = self.facts();
        let kinds = self.windows.iter().map(|window| if window.is_some() { SLIDING } else { FULL });
        let layer_norm = facts.norm == NormKind::Layer;
        let mut json = json!({
            "architectures": [facts.class],
            "model_type": facts.model_type,
            "attention_bias": self.biases.contains(&Target::OProj),
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": self.biases.contains(&Target::DownProj),
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rope_theta": self.rotary.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "vocab_size": self.vocab_size,
        });
        let window = self.windows.iter().flatten().next();
        json[if layer_norm { "layer_norm_eps" } else { "rms_norm_eps" }] = json!(self.norm_eps);
        match self.architecture {
            Architecture::Llama => {}
            Architecture::Mistral => json["sliding_window"] = json!(window),
            Architecture::Qwen2 | Architecture::Qwen3 => {
                json["use_sliding_window"] = json!(window.is_some());
                json["sliding_window"] = json!(window);
                json["layer_types"] = kinds.collect();
            }
            Architecture::Gemma3 => {
                json["sliding_window"] = json!(window);
                json["layer_types"] = kinds.collect();
                // A whole number in all published checkpoints, which the root has blurred.
                let scaled_by = 1.0 / (self.attention_scale * self.attention_scale);
                json["query_pre_attn_scalar"] = json!((scaled_by * 1000.0).round() / 1000.0);
                json["rope_local_base_freq"] = json!(self.local_rotary.as_ref().map(|rotary| rotary.theta));
            }
            Architecture::Phi => {
                json["partial_rotary_factor"] = json!(self.rotary.dim as f32 / self.head_dim as f32);
            }
        }
        let (key, name) = match (self.architecture, facts.activation) {
            (Architecture::Gemma3, _) => ("hidden_activation", "gelu_pytorch_tanh"),
            (_, Activation::GeluTanh) => ("hidden_act", "gelu_new"),
            (_, Activation::Silu) => ("hidden_act", "silu"),
        };
        json[key] = json!(name);
        if let Some(scaling) = scaling_json(&self.rotary.scaling) {
            json["rope_scaling"] = scaling;
        }
        json
    }
}

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

struct Keys<'a> {
    json: &'a Json,
    architecture: Architecture,
}

impl Keys<'_> {
    fn number(&self, key: &str) -> Option<usize> {
        let gemma = self.architecture == Architecture::Gemma3;
        let usual = GEMMA3_DEFAULTS.iter().find(|(name, _)| gemma && *name == key).map(|&(_, number)| number);
        self.json[key].as_u64().map(|n| n as usize).or(usual)
    }

    fn need(&self, key: &str) -> Result<usize, String> {
        self.number(key).ok_or_else(|| format!("its `config.json` has no `{key}`"))
    }

    fn float(&self, key: &str) -> Option<f32> {
        self.json[key].as_f64().map(|value| value as f32)
    }

    /// What the family knows and we do not run.
    fn refuse(&self) -> Result<(), String> {
        let off = |value: &Json| matches!(value, Json::Null | Json::Bool(false));
        let beyond =
            ["final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention", "qk_layernorm"];
        if let Some(key) = beyond.into_iter().find(|key| !off(&self.json[*key])) {
            return Err(format!("its `{key}` is {}, which is not supported", self.json[key]));
        }
        let known: &[&str] = match self.architecture.facts().activation {
            Activation::Silu => &["silu", "swish"],
            Activation::GeluTanh => &["gelu_new", "gelu_pytorch_tanh", "gelu_fast"],
        };
        for key in ["hidden_act", "hidden_activation"] {
            if let Some(name) = self.json[key].as_str()
                && !known.contains(&name)
            {
                return Err(format!("its activation `{name}` is not supported (supported are {})", known.join(", ")));
            }
        }
        Ok(())
    }

    fn biases(&self) -> Vec<Target> {
        let (attention, mlp) = Target::ALL.split_at(4);
        let facts = self.architecture.facts();
        let says = |key: &str, targets: &[Target], target: &Target| self.json[key] == true && targets.contains(target);
        let biased = |target: &Target| {
            facts.biases.contains(target) || says("attention_bias", attention, target) || says("mlp_bias", mlp, target)
        };
        Target::ALL.into_iter().filter(|target| facts.linears[*target as usize].is_some() && biased(target)).collect()
    }

    fn windows(&self, layers: usize) -> Vec<Option<usize>> {
        let json = self.json;
        let used = match self.architecture {
            Architecture::Mistral | Architecture::Gemma3 => true,
            Architecture::Qwen2 | Architecture::Qwen3 => json["use_sliding_window"] == true,
            Architecture::Llama | Architecture::Phi => false,
        };
        let window = self.number("sliding_window").filter(|_| used);
        let pattern = self.number("sliding_window_pattern").or_else(|| self.number("_sliding_window_pattern"));
        let first = self.number("max_window_layers").unwrap_or(28);
        let sliding = |layer: usize| match (json["layer_types"][layer].as_str(), self.architecture) {
            (Some(kind), _) => kind == SLIDING,
            (None, Architecture::Gemma3) => !(layer + 1).is_multiple_of(pattern.unwrap_or(6).max(1)),
            (None, Architecture::Qwen2 | Architecture::Qwen3) => layer >= first,
            (None, _) => true,
        };
        (0..layers).map(|layer| window.filter(|_| sliding(layer))).collect()
    }

    /// Positions of the blocks that see all, and of those with a window where they differ.
    ///
    /// `transformers` 5 moved everything into `rope_parameters`, by kind of block where they differ.
    fn rotaries(&self, head_dim: usize) -> Result<(Rotary, Option<Rotary>), String> {
        let gemma = self.architecture == Architecture::Gemma3;
        let all = &self.json["rope_parameters"];
        let global = if all[FULL].is_object() { &all[FULL] } else { all };
        let global = if global.is_object() { global } else { &self.json["rope_scaling"] };
        let usual = if gemma { 1_000_000.0 } else { 10_000.0 };
        let rotary = self.rotary(global, self.float("rope_theta").unwrap_or(usual), head_dim)?;
        let local = self.float("rope_local_base_freq").unwrap_or(10_000.0);
        let local = if gemma { Some(self.rotary(&all[SLIDING], local, head_dim)?) } else { None };
        Ok((rotary, local))
    }

    fn rotary(&self, json: &Json, theta: f32, head_dim: usize) -> Result<Rotary, String> {
        let float = |key: &str| json[key].as_f64().map(|value| value as f32);
        let need = |key: &str| float(key).ok_or_else(|| format!("its `rope_scaling` has no `{key}`"));
        let usual = if self.architecture == Architecture::Phi { 0.5 } else { 1.0 };
        let share = float("partial_rotary_factor").or_else(|| self.float("partial_rotary_factor")).unwrap_or(usual);
        let theta = float("rope_theta").unwrap_or(theta);
        let dim = (head_dim as f32 * share) as usize;
        let kind = json["rope_type"].as_str().or_else(|| json["type"].as_str()).unwrap_or("default");
        let original = "original_max_position_embeddings";
        let scaling = match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: need("factor")? },
            "llama3" => Scaling::Llama3 {
                factor: need("factor")?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: need(original)?,
            },
            "yarn" => {
                let factor = need("factor")?;
                let whole = self.float("max_position_embeddings");
                let usual = match (float("mscale"), float("mscale_all_dim")) {
                    (Some(one), Some(all)) => yarn_attention(factor, one) / yarn_attention(factor, all),
                    _ => yarn_attention(factor, 1.0),
                };
                Scaling::Yarn {
                    factor,
                    original: float(original)
                        .or(whole)
                        .ok_or_else(|| format!("its `rope_scaling` has no `{original}`"))?,
                    beta_fast: float("beta_fast").unwrap_or(32.0),
                    beta_slow: float("beta_slow").unwrap_or(1.0),
                    attention: float("attention_factor").unwrap_or(usual),
                }
            }
            other => {
                let known = "`linear`, `llama3` and `yarn`";
                return Err(format!("its RoPE is scaled by `{other}`, which is not supported (supported are {known})"));
            }
        };
        Ok(Rotary { theta, dim, scaling })
    }
}

/// The `text_config` of a model that reads pictures too, with what stands beside it.
fn text_part(json: &Json) -> Json {
    let mut text = json["text_config"].clone();
    text["model_type"] = json!(Architecture::Gemma3.facts().model_type);
    for key in ["bos_token_id", "eos_token_id", "tie_word_embeddings"] {
        if text[key].is_null() {
            text[key] = json[key].clone();
        }
    }
    text
}

fn scaling_json(scaling: &Scaling) -> Option<Json> {
    let (kind, numbers): (&str, Vec<(&str, f32)>) = match *scaling {
        Scaling::None => return None,
        Scaling::Linear { factor } => ("linear", vec![("factor", factor)]),
        Scaling::Llama3 { factor, low, high, original } => (
            "llama3",
            vec![
                ("factor", factor),
                ("low_freq_factor", low),
                ("high_freq_factor", high),
                ("original_max_position_embeddings", original),
            ],
        ),
        Scaling::Yarn { factor, original, beta_fast, beta_slow, attention } => (
            "yarn",
            vec![
                ("factor", factor),
                ("original_max_position_embeddings", original),
                ("beta_fast", beta_fast),
                ("beta_slow", beta_slow),
                ("attention_factor", attention),
            ],
        ),
    };
    let mut json: Map<String, Json> =
        numbers.into_iter().map(|(key, number)| (key.to_owned(), whole(number))).collect();
    json.insert("rope_type".to_owned(), json!(kind));
    Some(Json::Object(json))
}

/// A number without a fraction as an integer: `transformers` wants contexts to be integers.
fn whole(number: f32) -> Json {
    if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
}

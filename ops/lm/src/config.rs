//! What a checkpoint says of its architecture: sizes, heads, RoPE, norms.

use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::Value as Json;

/// A family of decoders. One is run today; the others are named in the errors that refuse them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// LLaMA, Mistral, Orca-2, SmolLM2: RMS norms before attention and MLP, rotary positions, gated SiLU, no biases.
    Llama,
}

impl Architecture {
    /// By `general.architecture` of a GGUF file or `model_type` of a `config.json`.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "llama" | "mistral" => Some(Self::Llama),
            _ => None,
        }
    }
}

/// The shape of a decoder. Field names are those of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, each shared by `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Added to the mean square in RMS norms.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// The token that begins a text, where there is one.
    pub bos_token_id: Option<u32>,
    /// The token that ends an answer, where there is one.
    pub eos_token_id: Option<u32>,
}

impl Config {
    /// Reads the `general.*`, `<architecture>.*` and `tokenizer.*` metadata of a GGUF file.
    ///
    /// # Errors
    ///
    /// The reason, if a key is missing or senseless or the architecture is not one that we run.
    pub fn from_gguf(content: &Content) -> Result<Self, String> {
        let metadata = |key: &str| content.metadata.get(key);
        let name = metadata("general.architecture").and_then(|v| v.to_string().ok());
        let name = name.ok_or("it has no `general.architecture`")?;
        let architecture = Architecture::by_name(name).ok_or_else(|| unknown_architecture(name))?;
        let number = |key: &str| metadata(&format!("{name}.{key}")).and_then(unsigned);
        let need = |key: &str| number(key).ok_or_else(|| format!("it has no `{name}.{key}`"));
        let float = |key: &str| metadata(&format!("{name}.{key}")).and_then(|v| v.to_f32().ok());
        if let Some(scaling) = metadata(&format!("{name}.rope.scaling.type"))
            && scaling.to_string().is_ok_and(|kind| kind != "none")
        {
            return Err("its RoPE is scaled, which is not supported".to_owned());
        }
        let embedding = content.tensor_infos.get("token_embd.weight").ok_or("it has no `token_embd.weight`")?;
        let vocab_size = *embedding.shape.dims().first().ok_or("its `token_embd.weight` has no shape")?;
        let heads = need("attention.head_count")?;
        let hidden_size = need("embedding_length")?;
        let head_dim = number("attention.key_length").or_else(|| hidden_size.checked_div(heads)).unwrap_or(0);
        if number("rope.dimension_count").is_some_and(|rotated| rotated != head_dim) {
            return Err("only a part of each head is rotated, which is not supported".to_owned());
        }
        let token = |key: &str| metadata(key).and_then(|v| v.to_u32().ok());
        Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: need("feed_forward_length")?,
            num_hidden_layers: need("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: number("attention.head_count_kv").unwrap_or(heads),
            head_dim,
            rms_norm_eps: float("attention.layer_norm_rms_epsilon")
                .ok_or_else(|| format!("it has no `{name}.attention.layer_norm_rms_epsilon`"))?,
            rope_theta: float("rope.freq_base").unwrap_or(10_000.0),
            max_position_embeddings: need("context_length")?,
            tie_word_embeddings: !content.tensor_infos.contains_key("output.weight"),
            bos_token_id: token("tokenizer.ggml.bos_token_id"),
            eos_token_id: token("tokenizer.ggml.eos_token_id"),
        }
        .checked()
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    ///
    /// The reason, if a key is missing or senseless or the architecture is not one that we run.
    pub fn from_json(json: &Json) -> Result<Self, String> {
        let name = json["model_type"].as_str().ok_or("its `config.json` has no `model_type`")?;
        let architecture = Architecture::by_name(name).ok_or_else(|| unknown_architecture(name))?;
        let number = |key: &str| json[key].as_u64().map(|n| n as usize);
        let need = |key: &str| number(key).ok_or_else(|| format!("its `config.json` has no `{key}`"));
        let scaling = json["rope_scaling"].get("rope_type").or_else(|| json["rope_scaling"].get("type"));
        if scaling.is_some_and(|kind| kind != "default") {
            return Err("its RoPE is scaled, which is not supported".to_owned());
        }
        if json["sliding_window"].is_u64() {
            return Err("it attends by a sliding window, which is not supported".to_owned());
        }
        if ["attention_bias", "mlp_bias"].iter().any(|key| json[*key] == true) {
            return Err("its linear layers have biases, which are not supported".to_owned());
        }
        // transformers 5 moved the base into `rope_parameters`.
        let theta = json["rope_theta"].as_f64().or_else(|| json["rope_parameters"]["rope_theta"].as_f64());
        let heads = need("num_attention_heads")?;
        let hidden_size = need("hidden_size")?;
        // A list of end tokens begins with the main one.
        let token = |key: &str| json[key].as_u64().or_else(|| json[key][0].as_u64()).map(|n| n as u32);
        Self {
            architecture,
            vocab_size: need("vocab_size")?,
            hidden_size,
            intermediate_size: need("intermediate_size")?,
            num_hidden_layers: need("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: number("num_key_value_heads").unwrap_or(heads),
            head_dim: number("head_dim").or_else(|| hidden_size.checked_div(heads)).unwrap_or(0),
            rms_norm_eps: json["rms_norm_eps"].as_f64().unwrap_or(1e-6) as f32,
            rope_theta: theta.unwrap_or(10_000.0) as f32,
            max_position_embeddings: number("max_position_embeddings").unwrap_or(2048),
            tie_word_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(false),
            bos_token_id: token("bos_token_id"),
            eos_token_id: token("eos_token_id"),
        }
        .checked()
    }

    /// The same as a Hugging Face `config.json`, for `LlamaForCausalLM`.
    pub fn to_json(&self) -> Json {
        let Architecture::Llama = self.architecture;
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": false,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "vocab_size": self.vocab_size,
        })
    }

    /// Width of all query heads.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Query heads that share a key and value head.
    pub fn group(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    fn checked(self) -> Result<Self, String> {
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
            self.max_position_embeddings,
        ];
        if sizes.contains(&0) {
            return Err("one of its sizes is zero".to_owned());
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) || !self.head_dim.is_multiple_of(2) {
            return Err(format!(
                "{} query heads of width {} over {} key heads make no sense",
                self.num_attention_heads, self.head_dim, self.num_key_value_heads
            ));
        }
        Ok(self)
    }
}

fn unknown_architecture(name: &str) -> String {
    format!("architecture `{name}` is not supported (`llama` is)")
}

/// A count, of whichever integer type the file's writer chose.
fn unsigned(value: &Value) -> Option<usize> {
    match value {
        Value::I32(n) => usize::try_from(*n).ok(),
        Value::I64(n) => usize::try_from(*n).ok(),
        other => other.to_u64().ok().map(|n| n as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_the_way_through_json() {
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": 100, "hidden_size": 48, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
            "rope_theta": 5000.0, "eos_token_id": [7, 9], "rope_scaling": null,
        });
        let config = Config::from_json(&json).unwrap();
        assert_eq!((config.head_dim, config.group(), config.key_value_width()), (8, 3, 16));
        assert_eq!((config.eos_token_id, config.bos_token_id), (Some(7), None));
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_its_reason() {
        let refused = |json: Json| Config::from_json(&json).unwrap_err();
        assert!(refused(serde_json::json!({"model_type": "mamba"})).contains("`mamba`"));
        assert!(refused(serde_json::json!({"model_type": "llama"})).contains("num_attention_heads"));
        let scaled = serde_json::json!({"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}});
        assert!(refused(scaled).contains("RoPE"));
    }
}

//! A decoder's shape from the metadata of a GGUF file. Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use candle_core::quantized::gguf_file::{Content, Value};

use super::rotary::{Rotary, Scaling, yarn_attention};
use super::{Architecture, Config};
use crate::lora::Target;

/// Of Gemma 3's blocks one in so many sees everything, unless the file says otherwise.
const GEMMA3_PATTERN: usize = 6;
/// Theta of Gemma 3's windows; files need not say it.
const GEMMA3_LOCAL_THETA: f32 = 10_000.0;
/// Gemma 3 27B, which alone scales scores by the width of the residual stream a head; files do not say it.
const GEMMA3_27B_BLOCKS: usize = 62;

impl Config {
    /// Reads the `general.*`, `<architecture>.*` and `tokenizer.*` metadata of a GGUF file. `factors` are the values of its
    /// `rope_freqs.weight`, if it has one.
    ///
    /// # Errors
    ///
    /// The reason, if a key is missing or senseless or the architecture is not one that we run.
    pub fn from_gguf(content: &Content, factors: Option<&[f32]>) -> Result<Self, String> {
        let name = content.metadata.get("general.architecture").and_then(|v| v.to_string().ok());
        let name = name.ok_or("it has no `general.architecture`")?;
        let architecture = Architecture::by_gguf(name)?;
        let keys = Keys { content, name };
        if keys.float("final_logit_softcapping").is_some_and(|cap| cap > 0.0) {
            return Err("its logits are capped (`final_logit_softcapping`), which is not supported".to_owned());
        }
        let embedding = content.tensor_infos.get("token_embd.weight").ok_or("it has no `token_embd.weight`")?;
        let vocab_size = *embedding.shape.dims().first().ok_or("its `token_embd.weight` has no shape")?;
        let heads = keys.need("attention.head_count")?;
        let hidden_size = keys.need("embedding_length")?;
        let num_hidden_layers = keys.need("block_count")?;
        let head_dim = keys.number("attention.key_length").or_else(|| hidden_size.checked_div(heads)).unwrap_or(0);
        let theta = keys.float("rope.freq_base").unwrap_or(10_000.0);
        let dim = keys.number("rope.dimension_count").unwrap_or(head_dim);
        let gemma = architecture == Architecture::Gemma3;
        let local = Rotary {
            theta: keys.float("rope.freq_base_swa").unwrap_or(GEMMA3_LOCAL_THETA),
            dim,
            scaling: Scaling::None,
        };
        let epsilon = if architecture.facts().norm == super::NormKind::Layer {
            "attention.layer_norm_epsilon"
        } else {
            "attention.layer_norm_rms_epsilon"
        };
        let scaled_by =
            if gemma && num_hidden_layers == GEMMA3_27B_BLOCKS { hidden_size / heads.max(1) } else { head_dim };
        let token = |key: &str| content.metadata.get(key).and_then(|v| v.to_u32().ok());
        Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: keys.need("feed_forward_length")?,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: keys.number("attention.head_count_kv").unwrap_or(heads),
            head_dim,
            norm_eps: keys.float(epsilon).ok_or_else(|| format!("it has no `{name}.{epsilon}`"))?,
            rotary: keys.rotary(theta, dim, factors)?,
            local_rotary: gemma.then_some(local),
            windows: keys.windows(num_hidden_layers, gemma),
            attention_scale: keys.float("attention.scale").unwrap_or(1.0 / (scaled_by as f32).sqrt()),
            biases: biases(content, architecture),
            max_position_embeddings: keys.need("context_length")?,
            tie_word_embeddings: !content.tensor_infos.contains_key("output.weight"),
            bos_token_id: token("tokenizer.ggml.bos_token_id"),
            eos_token_id: token("tokenizer.ggml.eos_token_id"),
        }
        .checked()
    }
}

/// The keys under the architecture's name.
struct Keys<'a> {
    content: &'a Content,
    name: &'a str,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(&format!("{}.{key}", self.name))
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.get(key).and_then(unsigned)
    }

    fn need(&self, key: &str) -> Result<usize, String> {
        self.number(key).ok_or_else(|| format!("it has no `{}.{key}`", self.name))
    }

    fn float(&self, key: &str) -> Option<f32> {
        self.get(key).and_then(|v| v.to_f32().ok())
    }

    fn windows(&self, layers: usize, gemma: bool) -> Vec<Option<usize>> {
        let window = self.number("attention.sliding_window").filter(|&window| window > 0);
        let pattern = self.get("attention.sliding_window_pattern");
        let sliding = |layer: usize| match pattern {
            _ if !gemma => true,
            Some(Value::Array(sliding)) => sliding.get(layer).is_some_and(|sliding| sliding.to_bool().unwrap_or(false)),
            one_in => !(layer + 1).is_multiple_of(one_in.and_then(unsigned).unwrap_or(GEMMA3_PATTERN).max(1)),
        };
        (0..layers).map(|layer| window.filter(|_| sliding(layer))).collect()
    }

    fn rotary(&self, theta: f32, dim: usize, factors: Option<&[f32]>) -> Result<Rotary, String> {
        let kind = self.get("rope.scaling.type").and_then(|kind| kind.to_string().ok()).map_or("none", |kind| kind);
        let factor = self.float("rope.scaling.factor").unwrap_or(1.0);
        let scaling = match (kind, factors) {
            (_, Some(factors)) => return of_factors(theta, dim, factors),
            ("none", None) => Scaling::None,
            ("linear", None) => Scaling::Linear { factor },
            ("yarn", None) => Scaling::Yarn {
                factor,
                original: self.need("rope.scaling.original_context_length")? as f32,
                beta_fast: self.float("rope.scaling.yarn_beta_fast").unwrap_or(32.0),
                beta_slow: self.float("rope.scaling.yarn_beta_slow").unwrap_or(1.0),
                attention: yarn_attention(factor, 1.0) * self.float("rope.scaling.attn_factor").unwrap_or(1.0),
            },
            (other, None) => {
                return Err(format!("its RoPE is scaled by `{other}` (supported are `linear`, `yarn` and Llama 3's)"));
            }
        };
        Ok(Rotary { theta, dim, scaling })
    }
}

/// Llama 3's scaling, which GGUF files keep as the number that each frequency is divided by. All published models blend
/// between one and four turns in 8,192 tokens and differ by the factor; others are refused.
fn of_factors(theta: f32, dim: usize, factors: &[f32]) -> Result<Rotary, String> {
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let scaling = Scaling::Llama3 { factor, low: 1.0, high: 4.0, original: 8192.0 };
    let rotary = Rotary { theta, dim, scaling };
    let plain = Rotary { scaling: Scaling::None, ..rotary.clone() };
    let expected: Vec<f32> = plain.frequencies().iter().zip(rotary.frequencies()).map(|(a, b)| a / b).collect();
    let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3 * b;
    if factors.len() != expected.len() || !factors.iter().zip(&expected).all(close) {
        return Err("its `rope_freqs.weight` is not Llama 3's scaling of RoPE".to_owned());
    }
    Ok(rotary)
}

fn biases(content: &Content, architecture: Architecture) -> Vec<Target> {
    let facts = architecture.facts();
    let there = |target: &Target| {
        let part = facts.linears[*target as usize];
        let stored = part.is_some_and(|part| content.tensor_infos.contains_key(&format!("blk.0.{}.bias", part.gguf)));
        stored || facts.biases.contains(target)
    };
    Target::ALL.into_iter().filter(there).collect()
}

/// A count, of whichever integer type the file's writer chose.
fn unsigned(value: &Value) -> Option<usize> {
    match value {
        Value::I32(n) => usize::try_from(*n).ok(),
        Value::I64(n) => usize::try_from(*n).ok(),
        other => other.to_u64().ok().map(|n| n as usize),
    }
}

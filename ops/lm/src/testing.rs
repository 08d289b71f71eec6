//! What several test modules need: a tiny random model, and where the real one lies.

use std::path::PathBuf;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::json;

use crate::config::{Architecture, Config};
use crate::gradient::Segment;
use crate::kernels::Precision;
use crate::lora::{Adapter, LoraConfig};
use crate::model::Model;

/// Two blocks, six query heads over two key heads, widths that fill no panel.
pub(crate) fn tiny_config() -> Config {
    Config { tie_word_embeddings: true, ..tiny_config_of(Architecture::Llama) }
}

/// The same sizes in any family, with everything on that it may have; the second block sees all.
pub(crate) fn tiny_config_of(architecture: Architecture) -> Config {
    let json = json!({
        "model_type": architecture.facts().model_type,
        "vocab_size": 101, "hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "rms_norm_eps": 1e-5,
        "rope_theta": 1000.0, "rope_local_base_freq": 100.0, "partial_rotary_factor": phi_share(architecture),
        "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2,
        "use_sliding_window": true, "sliding_window": 11, "layer_types": ["sliding_attention", "full_attention"],
    });
    Config::from_json(&json).expect("a good config")
}

fn phi_share(architecture: Architecture) -> f32 {
    if architecture == Architecture::Phi { 0.6 } else { 1.0 }
}

/// [`tiny_config`] with random weights in single floats.
pub(crate) fn tiny_model() -> Model {
    random_model(&tiny_config())
}

/// Random weights in single floats.
pub(crate) fn random_model(config: &Config) -> Model {
    random_model_in(Precision::F32, config)
}

/// Random weights.
pub(crate) fn random_model_in(precision: Precision, config: &Config) -> Model {
    let mut seed = 0;
    let model = Model::build(config, precision, |name, shape| {
        seed += 1;
        let size = shape.iter().product();
        Ok(match shape {
            [_, inputs] => random(size, seed).iter().map(|v| v * 1.7 / (*inputs as f32).sqrt()).collect(),
            _ if name.ends_with("bias") => random(size, seed),
            _ => random(size, seed).iter().map(|v| 1.0 + 0.3 * v).collect(),
        })
    });
    model.expect("every tensor is given")
}

/// An adapter on all layers of [`tiny_model`] whose tensors are all away from zero.
pub(crate) fn tiny_adapter() -> Adapter {
    random_adapter(&tiny_config())
}

/// An adapter on all layers of a model whose tensors are all away from zero.
pub(crate) fn random_adapter(model: &Config) -> Adapter {
    let config = LoraConfig { rank: 3, alpha: 6.0, dropout: 0.3, ..LoraConfig::default() };
    let mut adapter = Adapter::init(model, &config, 5).expect("a good config");
    for (at, values) in adapter.values_mut().enumerate() {
        let fresh = random(values.len(), 900 + at as u64);
        values.iter_mut().zip(fresh).for_each(|(value, fresh)| *value = 0.2 * fresh);
    }
    adapter
}

/// The same with DoRA, ranks that differ, and lengths away from the weights'.
pub(crate) fn random_dora(model: &Model) -> Adapter {
    let config = LoraConfig {
        dora: true,
        rank: 3,
        alpha: 6.0,
        dropout: 0.3,
        rank_pattern: [("q_proj".to_owned(), 5), (r"layers\.1\.mlp\..*".to_owned(), 2)].into(),
        ..LoraConfig::default()
    };
    let mut adapter = model.fresh_adapter(&config, 5).expect("a good config");
    let pairs = 2 * adapter.places().len();
    for (at, values) in adapter.values_mut().enumerate() {
        let fresh = random(values.len(), 900 + at as u64);
        values.iter_mut().zip(fresh).for_each(|(value, fresh)| {
            *value = if at >= pairs { *value * (1.0 + 0.3 * fresh) } else { 0.2 * fresh };
        });
    }
    adapter
}

/// `length` tokens below 101, each third one without a target.
pub(crate) fn segment(length: usize, seed: u64) -> Segment {
    let tokens = tokens(length, seed);
    let targets = tokens.iter().enumerate().map(|(i, &t)| (i % 3 != 1).then_some((t * 7 + 3) % 101)).collect();
    Segment { tokens, targets }
}

/// Random tokens below 101.
pub(crate) fn tokens(length: usize, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..length).map(|_| rng.next_u32() % 101).collect()
}

/// Random values in [-1, 1).
pub(crate) fn random(size: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..size).map(|_| (rng.next_u32() >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// SmolLM2-135M-Instruct in Q4_1: where `RETORT_TEST_MODEL` says, or in the workspace's `target/models`.
///
/// # Panics
///
/// If it is not there, with how to get it.
#[expect(clippy::disallowed_methods, reason = "tests may be told where the model is")]
pub(crate) fn smollm2() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("RETORT_TEST_MODEL").map_or_else(|| PathBuf::from(default), PathBuf::from);
    if !path.is_file() {
        // A bare clone has none yet.
        let fetch = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/fetch-model")).status();
        assert!(fetch.is_ok_and(|status| status.success()), "`.ci/fetch-model` could not fetch the test model");
    }
    path
}

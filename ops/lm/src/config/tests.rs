//! Tests of configs: families by name, positions, windows, and the way through JSON.

use serde_json::{Value as Json, json};

use super::*;

fn base(model_type: &str) -> Json {
    json!({
        "model_type": model_type, "vocab_size": 100, "hidden_size": 48, "intermediate_size": 64,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
        "rope_theta": 5000.0, "eos_token_id": [7, 9], "rope_scaling": null,
    })
}

fn with(model_type: &str, more: &[(&str, Json)]) -> Json {
    let mut json = base(model_type);
    for (key, value) in more {
        json[*key] = value.clone();
    }
    json
}

fn read(model_type: &str, more: &[(&str, Json)]) -> Config {
    Config::from_json(&with(model_type, more)).unwrap()
}

#[test]
fn every_family_survives_the_way_through_json() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
    for (name, more) in [
        ("llama", vec![("rope_scaling", llama3), ("attention_bias", json!(true))]),
        ("mistral", vec![("sliding_window", json!(32))]),
        ("qwen2", vec![("rope_scaling", yarn)]),
        (
            "qwen2",
            vec![("use_sliding_window", json!(true)), ("sliding_window", json!(9)), ("max_window_layers", json!(1))],
        ),
        ("qwen3", vec![("rope_scaling", json!({"type": "linear", "factor": 2.5}))]),
        ("gemma3_text", vec![("sliding_window", json!(16)), ("query_pre_attn_scalar", json!(64))]),
        ("phi", vec![("partial_rotary_factor", json!(0.25)), ("layer_norm_eps", json!(1e-4))]),
    ] {
        let config = read(name, &more);
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config, "{name}");
        assert_eq!((config.eos_token_id, config.bos_token_id), (Some(7), None));
        assert_eq!((config.head_dim, config.group(), config.key_value_width()), (8, 3, 16));
    }
}

#[test]
fn windows_are_those_of_the_family() {
    let sees = |name: &str, more: &[(&str, Json)]| read(name, more).windows;
    let window = ("sliding_window", json!(5));
    assert_eq!(sees("mistral", std::slice::from_ref(&window)), [Some(5); 3]);
    assert_eq!(sees("mistral", &[("sliding_window", Json::Null)]), [None; 3]);
    assert_eq!(sees("qwen2", std::slice::from_ref(&window)), [None; 3]);
    let used = [window.clone(), ("use_sliding_window", json!(true)), ("max_window_layers", json!(2))];
    assert_eq!(sees("qwen2", &used), [None, None, Some(5)]);
    let pattern = [window.clone(), ("sliding_window_pattern", json!(2))];
    assert_eq!(sees("gemma3_text", &pattern), [Some(5), None, Some(5)]);
    let kinds = [window, ("layer_types", json!(["full_attention", "sliding_attention", "full_attention"]))];
    assert_eq!(sees("gemma3_text", &kinds), [None, Some(5), None]);
}

#[test]
fn biases_and_positions_are_those_of_the_family() {
    let biases = |name: &str, more: &[(&str, Json)]| read(name, more).biases;
    assert_eq!(biases("llama", &[]), []);
    assert_eq!(biases("qwen2", &[]), Target::ALL[..3]);
    assert_eq!(biases("llama", &[("attention_bias", json!(true))]), Target::ALL[..4]);
    assert_eq!(biases("phi", &[]).len(), 6);
    assert_eq!(read("phi", &[]).rotary.dim, 4);
    let gemma = read("gemma3_text", &[("rope_local_base_freq", json!(99.0))]);
    assert_eq!((gemma.rotary.theta, gemma.local_rotary.unwrap().theta), (5000.0, 99.0));
    // As `transformers` 5 writes it.
    let both = json!({"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 7.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 3.0}});
    let gemma = read("gemma3_text", &[("rope_parameters", both)]);
    assert_eq!((gemma.rotary.theta, gemma.local_rotary.unwrap().theta), (7.0, 3.0));
    assert_eq!(gemma.rotary.scaling, Scaling::Linear { factor: 8.0 });
}

#[test]
fn the_text_part_of_a_model_that_reads_pictures_is_read() {
    let mut text = base("gemma3_text");
    for key in ["vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim", "eos_token_id"] {
        text.as_object_mut().unwrap().remove(key);
    }
    let config = Config::from_json(&json!({"model_type": "gemma3", "text_config": text, "eos_token_id": 3})).unwrap();
    assert_eq!((config.vocab_size, config.num_attention_heads, config.head_dim), (262_208, 8, 256));
    assert_eq!((config.eos_token_id, config.architecture), (Some(3), Architecture::Gemma3));
    assert!(config.tie_word_embeddings);
}

#[test]
fn stretched_frequencies_are_those_of_the_formulas() {
    let plain = Rotary { theta: 10_000.0, dim: 64, scaling: Scaling::None };
    let of = |scaling: Scaling| Rotary { scaling, ..plain.clone() }.frequencies();
    let frequencies = plain.frequencies();
    assert!(of(Scaling::Linear { factor: 4.0 }).iter().zip(&frequencies).all(|(a, b)| *a == b / 4.0));
    let llama3 = of(Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 });
    let yarn = of(Scaling::Yarn { factor: 8.0, original: 8192.0, beta_fast: 32.0, beta_slow: 1.0, attention: 1.2 });
    for stretched in [llama3, yarn] {
        let shares: Vec<f32> = stretched.iter().zip(&frequencies).map(|(a, b)| a / b).collect();
        assert_eq!(shares[0], 1.0, "fast turns are kept");
        assert!((shares[31] - 0.125).abs() < 1e-6, "slow turns are divided: {shares:?}");
        assert!(shares.windows(2).all(|pair| pair[1] <= pair[0]) && shares.iter().any(|s| (0.2..0.9).contains(s)));
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_its_reason() {
    let refused = |json: Json| Config::from_json(&json).unwrap_err();
    let unknown = refused(json!({"model_type": "mamba"}));
    assert_eq!(
        unknown,
        "architecture `mamba` is not supported (supported are `llama`, `mistral`, `qwen2`, `qwen3`, `gemma3_text`, `phi`)"
    );
    assert!(refused(json!({"model_type": "llama"})).contains("num_attention_heads"));
    let scaled = json!({"rope_type": "dynamic", "factor": 2.0});
    assert!(refused(with("llama", &[("rope_scaling", scaled)])).contains("scaled by `dynamic`"));
    assert!(refused(with("qwen2", &[("hidden_act", json!("relu"))])).contains("activation `relu`"));
    assert!(refused(with("gemma3_text", &[("final_logit_softcapping", json!(30.0))])).contains("softcapping"));
    assert!(refused(with("phi", &[("qk_layernorm", json!(true))])).contains("qk_layernorm"));
    assert!(refused(with("llama", &[("num_key_value_heads", json!(4))])).contains("6 query heads over 4"));
}

//! Against sentence-transformers' values, candle's BERT, and the law that neighbours change nothing.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

use super::*;

/// Bytes of its tensors; the other files come after them.
const TENSORS: usize = 90_868_376;

/// all-MiniLM-L6-v2, its files joined: in the workspace's `target/models`.
fn minilm() -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models/all-MiniLM-L6-v2.joined"));
    if !path.is_file() {
        // A bare clone has none yet.
        let fetch =
            std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/fetch-encoder")).status();
        assert!(fetch.is_ok_and(|status| status.success()), "`.ci/fetch-encoder` could not fetch the test encoder");
    }
    path
}

fn texts() -> Vec<String> {
    let texts = [
        "The printer queue is stopped.",
        "NetInfo keeps the users of a network.",
        "Café naïve – Überprüfung der Warteschlange, 42 %!",
        "",
    ];
    texts.iter().map(|text| (*text).to_owned()).chain(["word ".repeat(400)]).collect()
}

/// By sentence-transformers 6.2.0 (transformers 5.23.0, torch 2.15.0): `SentenceTransformer(folder).encode(texts,
/// normalize_embeddings=True)`, the first six numbers of each; the last text is cut at 256 tokens.
#[test]
fn vectors_are_those_of_sentence_transformers() {
    let expected: [[f32; 6]; 5] = [
        [-0.040_825, 0.021_433, -0.058_102, 0.019_734, 0.013_245, -0.015_548],
        [-0.023_848, -0.027_092, -0.046_551, -0.089_153, 0.003_980, 0.027_375],
        [0.049_861, 0.043_700, -0.002_082, 0.034_057, -0.025_685, 0.046_308],
        [-0.118_838, 0.048_299, -0.002_548, -0.011_011, 0.051_952, 0.010_292],
        [-0.008_124, -0.095_586, -0.038_673, 0.049_662, -0.043_794, 0.023_720],
    ];
    let likeness = [(0, 1, 0.100_723), (0, 2, 0.152_289), (1, 2, 0.037_335), (2, 4, 0.140_091), (3, 4, 0.101_199)];
    let encoder = Encoder::open(&minilm()).unwrap();
    let vectors = encoder.embed(&texts()).unwrap();
    for (vector, expected) in vectors.iter().zip(expected) {
        assert_eq!(vector.len(), 384);
        for (value, expected) in vector.iter().zip(expected) {
            assert!((value - expected).abs() < 5e-6, "{value} for {expected}");
        }
    }
    for (a, b, expected) in likeness {
        let found = similarity(&vectors[a], &vectors[b]);
        assert!((found - expected).abs() < 5e-6, "{found} for {expected}");
    }
}

#[test]
fn the_last_layer_is_that_of_candles_bert() {
    let encoder = Encoder::open(&minilm()).unwrap();
    let bytes = std::fs::read(minilm()).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes[..TENSORS]).unwrap();
    let floats: HashMap<String, Tensor> = tensors
        .tensors()
        .into_iter()
        .filter(|(_, view)| view.dtype() == safetensors::Dtype::F32)
        .map(|(name, view)| {
            let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            (name, Tensor::from_vec(values, view.shape(), &Device::Cpu).unwrap())
        })
        .collect();
    let config: Config = serde_json::from_value(serde_json::json!({
        "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "max_position_embeddings": 512,
        "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "position_embedding_type": "absolute", "use_cache": false,
    }))
    .unwrap();
    let theirs = BertModel::load(VarBuilder::from_tensors(floats, DType::F32, &Device::Cpu), &config).unwrap();
    for text in texts() {
        let tokens = encoder.tokens(&text).unwrap();
        let input = Tensor::new(&tokens[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let kinds = input.zeros_like().unwrap();
        let rows: Vec<f32> = theirs.forward(&input, &kinds, None).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let expected = mean(&rows, 384);
        let found = &encoder.embed(&[&text]).unwrap()[0];
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 5e-6, "{worst} with {} tokens", tokens.len());
    }
}

#[test]
fn a_vector_has_the_same_bits_beside_other_texts() {
    let encoder = Encoder::open(&minilm()).unwrap();
    let mut texts = texts();
    texts.extend((0..30).map(|at| "a longer sentence about nothing ".repeat(at)));
    let together = encoder.embed(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        assert_eq!(encoder.embed(&[text]).unwrap()[0], *vector);
    }
    texts.reverse();
    let backwards = encoder.embed(&texts).unwrap();
    assert!(backwards.iter().rev().eq(&together));
    assert_eq!(encoder.embed::<&str>(&[]).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn what_is_no_encoder_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = |bytes: &[u8]| {
        let path = folder.path().join("encoder");
        std::fs::write(&path, bytes).unwrap();
        Encoder::open(&path).err().unwrap().to_string()
    };
    assert!(said(b"").contains("it does not begin with the tensors"));
    assert!(said(&[255; 64]).contains("it does not begin with the tensors"));
    let whole = std::fs::read(minilm()).unwrap();
    assert!(said(&whole[..TENSORS]).contains("`config.json` is missing after the tensors"));
    assert!(said(&whole[..whole.len() - 9]).contains("after the tensors"));
    assert!(said(&whole[..1_000_000]).contains("it does not begin with the tensors"));
}

#[test]
fn the_error_function_is_near() {
    // Abramowitz and Stegun, table 7.1.
    for (x, expected) in [(0.0, 0.0), (0.1, 0.112_462_9), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3)] {
        assert!((erf(x) - expected).abs() < 1e-6, "erf({x}) = {}", erf(x));
        assert_eq!(erf(-x), -erf(x));
    }
    assert_eq!(erf(40.0), 1.0);
    assert_eq!(gelu(-40.0), 0.0);
}

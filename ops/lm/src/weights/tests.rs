//! Tests of reading tensors: layouts, every type that a GGUF file may have, and what is refused.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use super::*;
use crate::gradient::Segment;
use crate::model::{Keep, Model};
use crate::testing::random;

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

/// A GGUF file of one block with these metadata beside the usual ones, and these tensors.
fn gguf(path: &Path, architecture: &str, more: &[(&str, Value)], tensors: &[(&str, &QTensor)]) {
    let key = |name: &str| format!("{architecture}.{name}");
    let mut metadata = vec![
        ("general.architecture".to_owned(), Value::String(architecture.to_owned())),
        (key("context_length"), Value::U32(64)),
        (key("embedding_length"), Value::U32(256)),
        (key("block_count"), Value::U32(1)),
        (key("feed_forward_length"), Value::U32(256)),
        (key("attention.head_count"), Value::U32(4)),
        (key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5)),
        (key("attention.layer_norm_epsilon"), Value::F32(1e-5)),
    ];
    metadata.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (name.as_str(), value)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, tensors).unwrap();
}

fn quantized(rows: usize, columns: usize, dtype: GgmlDType) -> QTensor {
    let values = random(rows * columns, 3);
    QTensor::quantize(&Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap(), dtype).unwrap()
}

fn values(tensor: &QTensor) -> Vec<f32> {
    let tensor = tensor.dequantize(&Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

#[test]
fn every_type_is_read_as_candle_widens_it() {
    use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let folder = tempfile::tempdir().unwrap();
    let embedding = quantized(8, 256, F32);
    for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
        let path = folder.path().join("model.gguf");
        let weight = quantized(256, 256, dtype);
        gguf(&path, "llama", &[], &[("token_embd.weight", &embedding), ("blk.0.attn_output.weight", &weight)]);
        let weights = Weights::open(&path).unwrap();
        let read = weights.tensor("model.layers.0.self_attn.o_proj.weight", &[256, 256]).unwrap();
        assert_eq!(read, values(&weight), "{dtype:?}");
        let error: f32 = read.iter().zip(random(256 * 256, 3)).map(|(a, b)| (a - b).abs()).sum();
        assert!(error / 65_536.0 < 0.25, "{dtype:?}: {error}");
        let name = "model.layers.0.self_attn.o_proj.weight";
        let eight = weights.packed(name, [256, 256], Precision::Int8).unwrap();
        let bits_of_eight = match dtype {
            Q4_0 => 36,
            Q5_0 => 44,
            Q4_1 | Q4K => 40,
            Q5_1 | Q5K => 48,
            _ => 68,
        };
        assert_eq!(eight.bytes(), 65_536 / 64 * bits_of_eight, "{dtype:?}");
        let off = eight.unpack().iter().zip(&read).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.01, "{dtype:?}: {off}");
        let Some(kept) = weights.as_stored(name, [256, 256], Precision::F32).unwrap() else {
            assert_eq!(dtype, F32, "packed it takes as much");
            continue;
        };
        assert_eq!(kept.bytes(), 65_536 / dtype.block_size() * dtype.type_size());
        assert_eq!(kept.packed().unpack(), read, "{dtype:?}");
        assert_eq!(kept.transposed().unpack(), kept.packed().transposed().unpack(), "{dtype:?}");
    }
}

#[test]
fn phis_queries_keys_and_values_may_lie_in_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (embedding, fused) = (quantized(8, 256, GgmlDType::F32), quantized(512, 256, GgmlDType::Q8_0));
    let more = [("phi2.attention.head_count_kv", Value::U32(2)), ("phi2.rope.dimension_count", Value::U32(32))];
    gguf(&path, "phi2", &more, &[("token_embd.weight", &embedding), ("blk.0.attn_qkv.weight", &fused)]);
    let weights = Weights::open(&path).unwrap();
    let all = values(&fused);
    for (name, rows) in [("q_proj", 0..256), ("k_proj", 256..384), ("v_proj", 384..512)] {
        let name = format!("model.layers.0.self_attn.{name}.weight");
        let read = weights.tensor(&name, &[rows.len(), 256]).unwrap();
        assert_eq!(read, all[rows.start * 256..rows.end * 256], "{name}");
    }
}

#[test]
fn what_a_file_has_and_we_do_not_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let embedding = quantized(8, 256, GgmlDType::F32);
    let refused = |architecture: &str, more: &[(&str, Value)]| {
        gguf(&path, architecture, more, &[("token_embd.weight", &embedding)]);
        Weights::open(&path).unwrap_err().to_string()
    };
    let error = refused("mamba", &[]);
    assert!(error.contains("model.gguf` is not a usable model: architecture `mamba` is not supported"), "{error}");
    assert!(error.contains("`llama`, `qwen2`, `qwen3`, `gemma3`, `phi2`"), "{error}");
    let scaled = [("llama.rope.scaling.type", Value::String("longrope".into()))];
    assert!(refused("llama", &scaled).contains("scaled by `longrope`"));

    // The type of the one tensor stands four bytes before its offset, which ends the header.
    gguf(&path, "llama", &[], &[("token_embd.weight", &embedding)]);
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(bytes[at..at + 4], [0; 4]);
    bytes[at] = 20;
    std::fs::write(&path, bytes).unwrap();
    let error = Weights::open(&path).unwrap_err().to_string();
    assert!(error.contains("it has tensors of type 20 (IQ4_NL), which is not supported (supported are F32"), "{error}");
}

/// In parts as at once: heads whose rows change places, and rows of a tensor that holds several.
#[test]
fn a_model_that_is_read_in_parts_is_the_model_that_is_read_at_once() {
    let path = crate::testing::smollm2();
    let weights = Weights::open(&path).unwrap();
    for precision in [Precision::F16, Precision::Int8] {
        let parts = Model::load_in(precision, &path).unwrap();
        let tensor = |name: &str, shape: &[usize]| weights.tensor(name, shape);
        let whole = Model::build(weights.config(), precision, tensor).unwrap();
        let mut others = whole.tensors(None);
        for part in parts.tensors(None) {
            let whole = others.next().unwrap();
            assert_eq!((&part.name, &part.shape), (&whole.name, &whole.shape));
            if precision == Precision::F16 {
                assert_eq!(part.values, whole.values, "{}", part.name);
                continue;
            }
            // Read in parts, a tensor keeps the levels of its file; at once, what is left of them in eight bits.
            let width = part.shape[part.shape.len() - 1];
            for (part, whole) in part.values.chunks(width).zip(whole.values.chunks(width)) {
                for (part, whole) in part.chunks(32).zip(whole.chunks(32)) {
                    let most = whole.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                    assert!(part.iter().zip(whole).all(|(a, b)| (a - b).abs() <= 0.006 * most));
                }
            }
        }
        assert!(others.next().is_none());
    }
    let error = weights.tensor("model.embed_tokens.weight", &[49_152, 500]).unwrap_err().to_string();
    assert!(error.contains("has shape [49152, 576], not [49152, 500]"), "{error}");
}

/// Quantised layers that are widened where they are used give every bit that packed ones give, forward and back.
#[test]
fn layers_that_stay_as_stored_give_the_same_gradients() {
    let path = crate::testing::smollm2();
    let text: Vec<u32> = (0..40).map(|i| 1000 + i * 37 % 500).collect();
    let segments = [Segment::next_token(&text, &[true; 40]), Segment::next_token(&text[..7], &[true; 7])];
    for precision in [Precision::F16, Precision::Bf16] {
        let packed = Model::load_in(precision, &path).unwrap();
        let stored = Model::load_in(Keep { precision, as_stored: true }, &path).unwrap();
        for adapter in [crate::testing::random_dora(&packed), crate::testing::random_adapter(packed.config())] {
            let of = |model: &Model| model.gradients(&adapter, &segments, Some(1)).unwrap();
            let ((loss, grads), (stored_loss, stored_grads)) = (of(&packed), of(&stored));
            assert_eq!(stored_loss, loss, "{precision:?}");
            assert_eq!(stored_grads, grads, "{precision:?}");
        }
        let (file, head) = (std::fs::metadata(&path).unwrap().len() as usize, 2 * 49_152 * 576);
        assert!(stored.bytes() < file + head, "{} of {file}", stored.bytes());
        assert!(packed.bytes() > 3 * (stored.bytes() - head), "{}", packed.bytes());
        assert!(stored.tensors(None).eq(packed.tensors(None)), "{precision:?}");
    }
}

#[test]
fn a_file_that_is_cut_short_says_which_tensor_lacks_what() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (embedding, weight) = (quantized(8, 256, GgmlDType::F32), quantized(256, 256, GgmlDType::Q8_0));
    gguf(&path, "llama", &[], &[("token_embd.weight", &embedding), ("blk.0.attn_output.weight", &weight)]);
    let length = std::fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(length - 4096).unwrap();
    let weights = Weights::open(&path).unwrap();
    let error = weights.tensor("model.layers.0.self_attn.o_proj.weight", &[256, 256]).unwrap_err().to_string();
    assert!(error.contains("tensor `blk.0.attn_output.weight`: 69632 bytes from byte"), "{error}");
}

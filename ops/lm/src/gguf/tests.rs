//! What is written is read back by candle, and means the same to our own model. llama.cpp's opinion is asked by `tests/peers/exports.py`.

use std::collections::BTreeMap;

use candle_core::quantized::gguf_file::Content;

use super::*;
use crate::gradient::Segment;
use crate::lora::{Adapter, LoraConfig, Target};
use crate::model::Model;
use crate::testing::smollm2;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// An adapter on a real model that changes what it says.
fn adapter(model: &Model, config: &LoraConfig) -> Adapter {
    let mut adapter = model.fresh_adapter(config, 7).unwrap();
    for (at, values) in adapter.values_mut().enumerate() {
        let fresh = crate::testing::random(values.len(), at as u64);
        if !config.dora || at < 2 * 30 * config.targets.len() {
            values.iter_mut().zip(fresh).for_each(|(value, fresh)| *value = 0.05 * fresh);
        }
    }
    adapter
}

fn read(path: &Path) -> Content {
    Content::read(&mut std::io::BufReader::new(File::open(path).unwrap())).unwrap()
}

fn values(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let content = read(path);
    let tensor = content.tensor(&mut File::open(path).unwrap(), name, &Device::Cpu).unwrap();
    let tensor = tensor.dequantize(&Device::Cpu).unwrap();
    (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1().unwrap())
}

/// Of a text that the model knows.
fn nll(model: &Model, adapter: Option<&Adapter>) -> f64 {
    let text =
        "The capital of France is Paris, and the capital of Italy is Rome. Water freezes at zero degrees Celsius.";
    let tokens = Tokenizer::open(&smollm2()).unwrap().encode(text).unwrap();
    model.loss(adapter, &[Segment::next_token(&tokens, &vec![true; tokens.len()])]).unwrap()[0].nll
}

#[test]
fn an_adapter_scales_as_llama_cpp_does_and_has_its_rows() {
    let base = smollm2();
    let (model, weights) = (Model::load(&base).unwrap(), Weights::open(&base).unwrap());
    let config = LoraConfig {
        rslora: true,
        rank: 4,
        alpha: 6.0,
        rank_pattern: BTreeMap::from([("v_proj".to_owned(), 9)]),
        ..LoraConfig::default()
    };
    let adapter = adapter(&model, &config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    write_lora(&adapter, &weights, "a", &path).unwrap();
    let content = read(&path);
    assert_eq!(content.tensor_infos.len(), 30 * 7 * 2);
    let says = |key: &str| content.metadata[key].to_string().unwrap().clone();
    assert_eq!(
        [says("general.type"), says("adapter.type"), says("general.architecture")],
        ["adapter", "lora", "llama"]
    );
    let alpha = content.metadata["adapter.lora.alpha"].to_f32().unwrap();
    assert_eq!(alpha, 6.0 / 2.0 * 4.0, "rsLoRA divides by the root of the rank");

    // The update as llama.cpp makes it is what the merged weights have more than the base.
    for (target, part) in [(Target::QProj, "attn_q"), (Target::VProj, "attn_v"), (Target::DownProj, "ffn_down")] {
        let (shape_a, a) = values(&path, &format!("blk.3.{part}.weight.lora_a"));
        let (shape_b, b) = values(&path, &format!("blk.3.{part}.weight.lora_b"));
        let (rank, inputs) = (shape_a[0], shape_a[1]);
        assert_eq!(shape_b[1], rank);
        let [with, without] = [Some(&adapter), None].map(|adapter| model.weight(3, target, adapter).unwrap());
        let stored = weights.stored(&format!("{}.weight", target.path(weights.config(), 3).unwrap()), shape_b[0]);
        let [with, without] = [with, without].map(|values| stored.order(&values, inputs));
        for (row, column) in [(0, 0), (1, 5), (33, 100), (shape_b[0] - 1, inputs - 1)] {
            let product: f32 = (0..rank).map(|r| b[row * rank + r] * a[r * inputs + column]).sum();
            let (ours, theirs) =
                (with[row * inputs + column] - without[row * inputs + column], alpha / rank as f32 * product);
            assert!((ours - theirs).abs() < 1e-6, "{part} {row} {column}: {ours} {theirs}");
        }
    }
}

#[test]
fn dora_is_refused_where_llama_cpp_has_none() {
    let base = smollm2();
    let model = Model::load(&base).unwrap();
    let config = LoraConfig { dora: true, rank: 2, targets: vec![Target::QProj], ..LoraConfig::default() };
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(&model, &config);
    let refused = write_lora(&adapter, &Weights::open(&base).unwrap(), "a", &folder.path().join("a.gguf"));
    assert!(refused.unwrap_err().to_string().contains("export the merged model"));
}

#[test]
fn a_merged_file_is_the_base_but_for_what_was_adapted() {
    let base = smollm2();
    let model = Model::load(&base).unwrap();
    let targets = vec![Target::QProj, Target::VProj, Target::DownProj];
    for dora in [false, true] {
        let adapter = adapter(&model, &LoraConfig { dora, rank: 4, targets: targets.clone(), ..LoraConfig::default() });
        let wanted = nll(&model, Some(&adapter));
        assert!((wanted - nll(&model, None)).abs() > 0.01 * wanted, "the adapter does something");
        let folder = tempfile::tempdir().unwrap();
        for (stored, tolerance) in [(MergedType::F16, 1e-3), (MergedType::Q8_0, 1e-2)] {
            let path = folder.path().join("merged.gguf");
            write_merged(&base, &model, &adapter, stored, &path).unwrap();
            let found = nll(&Model::load(&path).unwrap(), None);
            assert!((found - wanted).abs() < tolerance * wanted, "{stored:?} {found} {wanted}");
            let (old, new) = (read(&base), read(&path));
            assert_eq!(new.metadata.len(), old.metadata.len());
            assert_eq!(new.metadata["general.file_type"].to_u32().unwrap(), stored.file_type());
            for name in ["token_embd.weight", "blk.3.attn_k.weight", "blk.29.ffn_norm.weight"] {
                assert_eq!(new.tensor_infos[name].ggml_dtype, old.tensor_infos[name].ggml_dtype);
                assert_eq!(values(&path, name), values(&base, name), "{name} is not adapted");
            }
            assert_eq!(new.tensor_infos["blk.3.attn_q.weight"].ggml_dtype, stored.of(576));
        }
    }
}

#[test]
fn a_folder_is_nothing_to_merge_into() {
    let (model, adapter) = (crate::testing::tiny_model(), crate::testing::tiny_adapter());
    let folder = tempfile::tempdir().unwrap();
    crate::hf::write_folder(&model, None, crate::hf::Dtype::F32, folder.path()).unwrap();
    let path = folder.path().join("x.gguf");
    let refused = write_merged(folder.path(), &model, &adapter, MergedType::F16, &path).unwrap_err();
    assert!(refused.to_string().contains("is no GGUF file"), "{refused}");
    // An adapter of its own it can have: named as llama.cpp's converter names the base.
    write_lora(&adapter, &Weights::open(folder.path()).unwrap(), "a", &path).unwrap();
    assert!(read(&path).tensor_infos.contains_key("blk.1.ffn_up.weight.lora_b"));
}

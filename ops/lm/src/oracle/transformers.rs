//! Logits against Python's `transformers`: tiny checkpoints of every family, made by `tests/peers/checkpoints.py`.

use std::path::PathBuf;

use crate::config::{Architecture, Config};
use crate::model::{Model, Span};
use crate::weights::Weights;

fn folders() -> Vec<PathBuf> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Token ids, and the logits after each.
fn expected(folder: &std::path::Path) -> (Vec<u32>, Vec<Vec<f32>>) {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    (serde_json::from_value(json["tokens"].clone()).unwrap(), serde_json::from_value(json["logits"].clone()).unwrap())
}

/// The logits after each token, in calls of `cut` tokens.
fn logits(model: &Model, tokens: &[u32], cut: usize) -> Vec<Vec<f32>> {
    let mut cache = model.cache();
    let mut rows = Vec::new();
    for tokens in tokens.chunks(cut) {
        let hidden = model.forward(None, &mut [Span { tokens, cache: &mut cache }]).unwrap();
        rows.extend((0..hidden.rows()).map(|row| model.logits(hidden.row(row)).to_vec()));
    }
    rows
}

#[test]
fn logits_of_every_family_are_those_of_transformers() {
    let mut families: Vec<Architecture> = Vec::new();
    for folder in folders() {
        let model = Model::load(&folder).unwrap();
        families.push(model.config().architecture);
        let (tokens, expected) = expected(&folder);
        let whole = logits(&model, &tokens, tokens.len());
        let worst = whole.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        // Of logits up to 15; only the order of sums differs.
        assert!(worst < 5e-5, "{}: logits differ by {worst}", folder.display());
        assert_eq!(whole.len(), expected.len());
        assert_eq!(logits(&model, &tokens, 3), whole, "{}: cut into calls", folder.display());
    }
    for architecture in Architecture::ALL {
        assert!(families.contains(&architecture), "{architecture:?} has a fixture");
    }
}

/// Names, layouts and keys of GGUF: the files are llama.cpp's, which reads them as the same models
/// (`tests/peers/gguf_checkpoints.py`).
#[test]
fn gguf_files_are_the_same_models() {
    let mut compared = 0;
    for folder in folders() {
        let (weights, gguf) = (Weights::open(&folder).unwrap(), Weights::open(&folder.join("model.gguf")).unwrap());
        for tensor in Model::from_weights(&weights).unwrap().tensors(None) {
            let (one, other) = (weights.tensor(&tensor.name, &tensor.shape), gguf.tensor(&tensor.name, &tensor.shape));
            assert_eq!(one.unwrap(), other.unwrap(), "{}: {}", folder.display(), tensor.name);
        }
        if gguf.config().windows != weights.config().windows {
            // llama.cpp knows no windows of mistral and qwen2.
            assert!(gguf.config().windows.iter().all(Option::is_none));
            continue;
        }
        let (tokens, expected) = expected(&folder);
        let got = logits(&Model::from_weights(&gguf).unwrap(), &tokens, 64);
        let worst = got.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 5e-5, "{}: logits differ by {worst}", folder.display());
        compared += 1;
    }
    assert!(compared > 5, "{compared}");
}

#[test]
fn a_config_and_its_tensors_survive_being_written() {
    for folder in folders() {
        let model = Model::load(&folder).unwrap();
        let copy = tempfile::tempdir().unwrap();
        crate::hf::write_folder(&model, None, crate::hf::Dtype::F32, copy.path()).unwrap();
        let weights = Weights::open(copy.path()).unwrap();
        assert_eq!(weights.config(), model.config(), "{}", folder.display());
        let (tokens, _) = expected(&folder);
        let again = Model::from_weights(&weights).unwrap();
        assert_eq!(logits(&again, &tokens, 64), logits(&model, &tokens, 64), "{}", folder.display());
    }
}

#[test]
fn what_every_part_does_shows_in_the_logits() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/gemma3"));
    let weights = Weights::open(&folder).unwrap();
    let (tokens, _) = expected(&folder);
    let run = |config: &Config| {
        let model = Model::build(config, crate::kernels::Precision::F32, |name, shape| weights.tensor(name, shape));
        logits(&model.unwrap(), &tokens, 64).pop().unwrap()
    };
    let config = weights.config();
    let plain = run(config);
    let changed = [
        Config { windows: vec![None; 2], ..config.clone() },
        Config { windows: vec![Some(8), None], ..config.clone() },
        Config { local_rotary: None, ..config.clone() },
        Config { attention_scale: 0.5, ..config.clone() },
        Config { norm_eps: 0.1, ..config.clone() },
    ];
    for changed in changed {
        let far = run(&changed).iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-3);
        assert!(far, "{changed:?} gives the same");
    }
}

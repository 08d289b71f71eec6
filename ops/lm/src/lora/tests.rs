//! Names, shapes, patterns and starts of adapters.

use super::*;
use crate::kernels::Precision;
use crate::testing::{random_dora, segment, tiny_adapter, tiny_config, tiny_model};

fn config() -> LoraConfig {
    let targets = vec![Target::DownProj, Target::QProj];
    LoraConfig { rank: 4, alpha: 8.0, targets, ..LoraConfig::default() }
}

#[test]
fn a_fresh_adapter_has_pefts_names_shapes_and_bounds() {
    let model = tiny_config();
    let adapter = Adapter::init(&model, &config(), 1).unwrap();
    assert_eq!(adapter.tensors().len(), 2 * 2 * model.num_hidden_layers);
    let [a, b, down, ..] = adapter.tensors() else { panic!("too few") };
    assert_eq!(a.name, "model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_eq!((a.shape, b.shape), ([4, model.hidden_size], [model.query_width(), 4]));
    assert_eq!(down.name, "model.layers.0.mlp.down_proj.lora_A.weight");
    let bound = (1.0 / model.hidden_size as f32).sqrt();
    assert!(a.values.iter().all(|v| v.abs() <= bound));
    assert!(a.values.iter().any(|v| v.abs() > bound * 0.9));
    assert!(b.values.iter().all(|&v| v == 0.0));
    assert!(adapter.fits(&model));
}

#[test]
fn numbers_depend_on_seed_and_name_only() {
    let model = tiny_config();
    let one = Adapter::init(&model, &config(), 1).unwrap();
    let only_q = LoraConfig { targets: vec![Target::QProj], ..config() };
    let q = Adapter::init(&model, &only_q, 1).unwrap();
    assert_eq!(one.tensors()[0], q.tensors()[0]);
    assert_ne!(one.tensors()[0], Adapter::init(&model, &config(), 2).unwrap().tensors()[0]);
    assert_ne!(one.tensors()[0].values[..8], one.tensors()[4].values[..8]);
}

#[test]
fn tensors_come_back_in_any_order_and_mistakes_are_named() {
    let model = tiny_config();
    let adapter = Adapter::init(&model, &config(), 1).unwrap();
    let back = adapter.tensors().iter().rev().cloned();
    let of = |tensors: Vec<AdapterTensor>| Adapter::from_tensors(&model, &config(), adapter.places().to_vec(), tensors);
    assert_eq!(of(back.collect()).unwrap().tensors(), adapter.tensors());
    let short = of(adapter.tensors()[1..].to_vec()).unwrap_err();
    assert!(short.to_string().contains("q_proj.lora_A.weight` is missing"), "{short}");
    let twice = LoraConfig { targets: vec![Target::QProj, Target::QProj], ..config() };
    assert!(Adapter::init(&model, &twice, 1).unwrap_err().to_string().contains("`q_proj` is given twice"));
    assert!(Adapter::init(&model, &LoraConfig { rank: 0, ..config() }, 1).is_err());
}

#[test]
fn rslora_scales_by_the_root() {
    let place = Place { layer: 0, target: Target::QProj, path: String::new(), rank: 4, alpha: 8.0 };
    assert_eq!((place.scaling(false), place.scaling(true)), (2.0, 4.0));
}

#[test]
fn patterns_choose_layers_ranks_and_alphas() {
    let model = tiny_config();
    let pick = |only: &str| {
        let config = LoraConfig { only: Some(only.into()), ..LoraConfig::default() };
        config.places(&model).map(|places| places.into_iter().map(|place| place.path).collect::<Vec<_>>())
    };
    assert_eq!(pick(r".*\.1\.self_attn\.(q|k)_proj").unwrap().len(), 2);
    assert!(pick("q_proj").unwrap_err().to_string().contains("no adapted layer matches `q_proj`"), "the whole name");
    assert!(pick("(").unwrap_err().to_string().contains("`(` is no pattern"), "{:?}", pick("("));
    let config = LoraConfig {
        rank_pattern: [("q_proj".to_owned(), 2), (r"layers\.1\.self_attn\.q_proj".to_owned(), 3)].into(),
        alpha_pattern: [("mlp.*".to_owned(), 5.0)].into(),
        ..LoraConfig::default()
    };
    let adapter = Adapter::init(&model, &config, 1).unwrap();
    let of = |layer, target| {
        let place = &adapter.places()[adapter.index(layer, target).unwrap()];
        (place.rank, place.alpha)
    };
    assert_eq!(of(0, Target::QProj), (2, 32.0));
    assert_eq!(of(1, Target::QProj), (3, 32.0), "the longer pattern");
    assert_eq!(of(1, Target::UpProj), (16, 5.0));
    assert_eq!(adapter.tensors()[0].shape[0], 2);
    let unused = LoraConfig { rank_pattern: [("o_prj".to_owned(), 2)].into(), ..LoraConfig::default() };
    assert!(unused.places(&model).unwrap_err().to_string().contains("`o_prj`"));
}

#[test]
fn a_fresh_dora_changes_nothing_and_a_merged_one_is_the_adapted_model() {
    let model = tiny_model();
    let segments = [segment(20, 3)];
    let fresh = model.fresh_adapter(&LoraConfig { dora: true, ..LoraConfig::default() }, 1).unwrap();
    let nll = |model: &Model, adapter: Option<&Adapter>| model.loss(adapter, &segments).unwrap()[0].nll;
    let base = nll(&model, None);
    assert!((nll(&model, Some(&fresh)) - base).abs() < 1e-4 * base);
    for adapter in [random_dora(&model), tiny_adapter()] {
        let tuned = nll(&model, Some(&adapter));
        assert!((tuned - base).abs() > 1e-3 * base, "{tuned} {base}");
        let mut tensors: std::collections::BTreeMap<String, Vec<f32>> =
            model.tensors(Some(&adapter)).map(|tensor| (tensor.name, tensor.values)).collect();
        let merged = Model::build(&tiny_config(), Precision::F32, |name, _| Ok(tensors.remove(name).unwrap())).unwrap();
        assert!((nll(&merged, None) - tuned).abs() < 1e-4 * tuned);
    }
}

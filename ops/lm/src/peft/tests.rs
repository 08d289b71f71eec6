//! PEFT folders, written and read back.

use super::*;
use crate::config::Architecture;
use crate::lora::Target;
use crate::testing::{random_adapter, random_dora, tiny_adapter, tiny_config, tiny_config_of, tiny_model};

fn card() -> Card {
    Card {
        title: "NeXTSTEP".into(),
        base_model: "org/tiny".into(),
        base_sha256: Some("ab".into()),
        license: Some("apache-2.0".into()),
        sections: vec![("Exam".into(), "| tuned | 1.0 |".into())],
    }
}

#[test]
fn a_written_folder_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = tiny_adapter();
    write(&adapter, &card(), folder.path()).unwrap();
    let back = read(folder.path(), &tiny_config()).unwrap();
    assert_eq!(back.config(), adapter.config());
    assert_eq!(back.tensors(), adapter.tensors());
}

#[test]
fn a_written_dora_of_several_ranks_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = random_dora(&tiny_model());
    write(&adapter, &card(), folder.path()).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(folder.path().join(CONFIG)).unwrap()).unwrap();
    assert_eq!(config["use_dora"], true);
    assert_eq!(config["rank_pattern"][r"model\.layers\.0\.self_attn\.q_proj"], 5);
    let bytes = std::fs::read(folder.path().join(TENSORS)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let lengths = tensors.tensor("base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector").unwrap();
    assert_eq!(lengths.shape(), [60], "a vector");
    let back = read(folder.path(), &tiny_config()).unwrap();
    assert_eq!(back.places(), adapter.places());
    assert_eq!(back.tensors(), adapter.tensors());
    assert!(back.config().dora);
}

#[test]
fn a_part_of_the_layers_is_named_layer_by_layer_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = LoraConfig {
        only: Some(r"model\.layers\.1\..*(q|up)_proj".into()),
        alpha_pattern: [("up_proj".to_owned(), 3.0)].into(),
        ..LoraConfig::default()
    };
    let adapter = Adapter::init(&tiny_config(), &config, 1).unwrap();
    write(&adapter, &card(), folder.path()).unwrap();
    let json: Value = serde_json::from_slice(&std::fs::read(folder.path().join(CONFIG)).unwrap()).unwrap();
    assert_eq!(json["target_modules"], json!(["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"]));
    let back = read(folder.path(), &tiny_config()).unwrap();
    assert_eq!(back.places(), adapter.places(), "layers, ranks and alphas");
    assert_eq!((back.places()[1].target, back.places()[1].alpha), (Target::UpProj, 3.0));
}

#[test]
fn keys_and_header_are_pefts() {
    let folder = tempfile::tempdir().unwrap();
    write(&tiny_adapter(), &card(), folder.path()).unwrap();
    let bytes = std::fs::read(folder.path().join(TENSORS)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| {
        tensors.tensor(&format!("base_model.model.model.layers.1.{name}.weight")).unwrap().shape().to_vec()
    };
    assert_eq!(shape("self_attn.q_proj.lora_A"), [3, 36]);
    assert_eq!(shape("self_attn.q_proj.lora_B"), [60, 3]);
    assert_eq!(shape("mlp.down_proj.lora_A"), [3, 50]);
    let again = tempfile::tempdir().unwrap();
    write(&tiny_adapter(), &card(), again.path()).unwrap();
    assert_eq!(std::fs::read(again.path().join(TENSORS)).unwrap(), bytes, "the same adapter, the same file");
}

#[test]
fn the_card_has_front_matter_and_says_what_it_is() {
    let text = card_text(&tiny_adapter(), &card());
    assert!(text.starts_with("---\nbase_model: \"org/tiny\"\nlicense: apache-2.0\nlibrary_name: peft\n"), "{text}");
    assert!(text.contains("rank 3, alpha 6 (scaled by alpha / rank)"), "{text}");
    assert!(text.ends_with("\n## Exam\n\n| tuned | 1.0 |\n"), "{text}");
}

#[test]
fn adapters_that_we_cannot_run_are_refused() {
    let config = config_json(&tiny_adapter(), &card());
    let refused = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        lora_config(&config).unwrap_err()
    };
    assert!(refused("peft_type", json!("IA3")).contains("IA3"));
    assert!(refused("bias", json!("all")).contains("bias"));
    assert!(refused("modules_to_save", json!(["lm_head"])).contains("modules_to_save"));
    assert!(lora_config(&config).is_ok());
}

#[test]
fn phis_layers_have_its_own_names_and_no_gate() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny_config_of(Architecture::Phi);
    let adapter = random_adapter(&config);
    write(&adapter, &card(), folder.path()).unwrap();
    let json: Value = serde_json::from_slice(&std::fs::read(folder.path().join(CONFIG)).unwrap()).unwrap();
    assert_eq!(json["target_modules"], json!(["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]));
    let back = read(folder.path(), &config).unwrap();
    assert_eq!((back.config(), back.tensors()), (adapter.config(), adapter.tensors()));
}

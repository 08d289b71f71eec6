//! Manual pages: every operator has one, every key of its config is described, and the example checks as it is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use retort::load::{LoadOptions, load};
use retort_engine::OpInfo;
use serde_json::{Value, json};

use crate::nodes::{node, ops, run};

/// The text of an operator's manual page.
fn page(info: &OpInfo) -> String {
    let schema = (info.schema)().to_value();
    schema["description"].as_str().unwrap_or_default().to_owned()
}

/// The nodes of the example on an operator's manual page.
fn example(info: &OpInfo) -> Option<serde_yaml::Mapping> {
    let page = page(info);
    let (_, rest) = page.split_once("```yaml\n")?;
    let (example, _) = rest.split_once("```")?;
    let parsed: serde_yaml::Mapping = serde_yaml::from_str(example)
        .unwrap_or_else(|error| panic!("`{}`: the example is no YAML: {error}", info.name));
    Some(match parsed.get("nodes") {
        Some(nodes) => nodes.as_mapping().expect("`nodes` is a map").clone(),
        None => parsed,
    })
}

/// The `with` of the example's node.
pub(crate) fn config_of_example(info: &OpInfo) -> Option<Value> {
    let nodes = example(info)?;
    let node = nodes.values().find(|node| node["op"].as_str() == Some(info.name))?;
    serde_json::to_value(node.get("with")?).ok()
}

#[test]
fn every_operator_has_a_page_and_describes_its_keys() {
    for info in retort_ops::REGISTRY {
        let page = page(info);
        assert!(page.len() > 200, "`{}` has hardly a manual page: {page:?}", info.name);
        let schema = (info.schema)().to_value();
        let keys = schema["properties"].as_object().cloned().unwrap_or_default();
        for (key, description) in keys {
            assert!(described(&description), "`{}` does not describe its key `{key}`: {description}", info.name);
        }
    }
}

fn described(key: &Value) -> bool {
    key["description"].as_str().is_some_and(|text| text.len() > 10)
}

#[test]
fn every_example_checks() {
    let mut wrong = Vec::new();
    for info in retort_ops::REGISTRY {
        let nodes = example(info).unwrap_or_else(|| panic!("`{}` has no example", info.name));
        assert!(
            nodes.values().any(|node| node["op"].as_str() == Some(info.name)),
            "`{}` is not in its example",
            info.name
        );
        let folder = tempfile::tempdir().unwrap();
        for place in ["docs", "manuals", "nextstep/docs"] {
            fs::create_dir_all(folder.path().join(place)).unwrap();
            fs::write(folder.path().join(place).join("a.md"), "# A\n\nText.\n").unwrap();
        }
        let path = folder.path().join("example.yaml");
        fs::write(&path, serde_json::to_string(&around(nodes)).unwrap()).unwrap();
        if let Err(problems) = load(&path, &LoadOptions::default(), &ops()) {
            wrong.push(format!("`{}`:\n{}", info.name, problems.render(false)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The examples that need no model, run one after the other: what is fed by a model gets text that one could have written.
#[test]
fn examples_without_a_model_run() {
    let config = |name: &str| {
        let info = retort_ops::REGISTRY.iter().find(|info| info.name == name).unwrap();
        config_of_example(info).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("docs/more")).unwrap();
    fs::write(folder.path().join("docs/more/a.md"), "# Printing\n\nThe spooler keeps one queue per printer.\n")
        .unwrap();
    fs::write(folder.path().join("docs/b.txt"), "USERS\n\nA user has a home folder.\n").unwrap();
    let said = |question: &str| format!("Question: What is {question}?\nAnswer: It is {question}.");
    let documents: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| json!([name, said(name)])).collect();
    let mut specs = vec![
        node("documents", "extract", "", config("extract")),
        node("resolved", "resolve", "documents", json!({})),
        node("chunks", "chunk", "resolved", config("chunk")),
        node("exam_chunks", "sample", "chunks", config("sample")),
        node("answers", "literal", "", json!({"columns": ["doc_id", "output"], "rows": documents})),
        node("pairs", "parse", "answers", config("parse")),
        node("sets", "split-eval", "pairs", config("split-eval")),
    ];
    specs[0].base = folder.path().to_path_buf();
    let tables = run(&specs, &[("chunks", "out"), ("exam_chunks", "out"), ("sets", "train"), ("sets", "eval")]);
    let rows: Vec<_> = tables.iter().map(arrow::array::RecordBatch::num_rows).collect();
    assert_eq!((rows[0], rows[1], rows[2] + rows[3]), (2, 1, 4), "{rows:?}");
    assert!(rows[2] > 0 && rows[3] > 0, "{rows:?}");
}

/// A whole pipeline around an example: the params and models that the manual pages name, and what feeds it, from the examples of the
/// other operators. So the examples fit together.
fn around(nodes: serde_yaml::Mapping) -> Value {
    let json = |nodes: serde_yaml::Mapping| -> BTreeMap<String, Value> {
        serde_yaml::from_value(serde_yaml::Value::Mapping(nodes)).unwrap()
    };
    let others: BTreeMap<String, Value> = retort_ops::REGISTRY.iter().filter_map(example).flat_map(json).collect();
    let mut nodes = json(nodes);
    loop {
        let sources = nodes.values().flat_map(|node| sources(&node["from"]));
        let names: BTreeSet<String> = sources.map(|source| source.split('.').next().unwrap().to_owned()).collect();
        let missing: Vec<_> = names.into_iter().filter(|name| !nodes.contains_key(name)).collect();
        let found: Vec<_> = missing.into_iter().filter_map(|name| others.get_key_value(&name)).collect();
        if found.is_empty() {
            break;
        }
        nodes.extend(found.into_iter().map(|(name, node)| (name.clone(), node.clone())));
    }
    json!({
        "retort": 1,
        "name": "example",
        "params": {"generator": "smollm2-135m", "chunk_tokens": 384},
        "models": {
            "smollm2-135m": {"weights": "file:model.gguf", "sha256": "0".repeat(64)},
            "minilm": {"weights": "file:encoder.joined", "sha256": "0".repeat(64)},
        },
        "nodes": nodes,
    })
}

fn sources(from: &Value) -> Vec<String> {
    match from {
        Value::String(source) => vec![source.clone()],
        Value::Array(sources) => sources.iter().flat_map(self::sources).collect(),
        Value::Object(slots) => slots.values().flat_map(self::sources).collect(),
        _ => Vec::new(),
    }
}

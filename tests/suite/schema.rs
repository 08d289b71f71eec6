//! The JSON Schema of a pipeline file: what ships is valid, what is broken in shape is not, by a validator that knows nothing of us.
//!
//! `SCHEMA_UPDATE=1 cargo test --workspace --test suite schema` writes `pipelines/pipeline.schema.json` anew.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::nodes::root;

fn schema() -> Value {
    retort::schema::pipeline(retort_ops::REGISTRY)
}

struct Validator {
    schemas: boon::Schemas,
    index: boon::SchemaIndex,
}

impl Validator {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("http://localhost/pipeline.json", schema()).unwrap();
        let index = compiler.compile("http://localhost/pipeline.json", &mut schemas).unwrap();
        Validator { schemas, index }
    }

    /// What is wrong with a file, by the schema.
    fn mistakes(&self, text: &str) -> Result<(), String> {
        let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        value.apply_merge().map_err(|error| error.to_string())?;
        let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
        self.schemas.validate(&value, self.index).map_err(|error| format!("{error:#}"))
    }
}

fn shipped() -> Vec<PathBuf> {
    let files = |folder: &str| fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = files("pipelines").chain(files("pipelines/src/cli/new")).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    assert!(paths.len() >= 4, "{paths:?}");
    paths
}

#[test]
fn every_pipeline_that_ships_is_valid() {
    let validator = Validator::new();
    for path in shipped() {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(validator.mistakes(&text), Ok(()), "{}", path.display());
    }
}

#[test]
fn every_pipeline_that_ships_names_the_schema_beside_it() {
    for path in shipped() {
        let text = fs::read_to_string(&path).unwrap();
        let name = text.lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=");
        assert_eq!(name, Some("./pipeline.schema.json"), "{}", path.display());
    }
    let path = root().join("pipelines/pipeline.schema.json");
    let now = format!("{:#}\n", schema());
    if std::env::var_os("SCHEMA_UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap_or_default() == now, "the schema is old: see the top of this file");
}

/// Pipelines of the gallery whose mistake is one of columns, names, tables or text, which no schema can see.
const UNSEEN: [&str; 19] = [
    "column-",
    "foreach-",
    "from-",
    "param-",
    "matrix-",
    "profile-",
    "include-",
    "model-",
    "yaml-",
    "config-template",
    "config-budgets",
    "config-pattern",
    "context-",
    "node-unknown",
    "exec-column",
    "exec-files",
    "exec-reads",
    "filter-",
    "query-",
];

#[test]
fn what_is_broken_in_shape_is_invalid() {
    let validator = Validator::new();
    let (mut refused, mut passed) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(root().join("pipelines/tests/gallery")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".yaml").map(str::to_owned) else { continue };
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        match validator.mistakes(&text) {
            Err(_) => refused.push(name),
            Ok(()) if UNSEEN.iter().any(|prefix| name.starts_with(prefix)) => {}
            Ok(()) => passed.push(name),
        }
    }
    // What only the operators know: a message's place, what a glob may be. And nodes may all be included.
    passed.sort();
    assert_eq!(
        passed,
        ["config-glob", "config-messages", "config-no-messages", "top-no-nodes"],
        "these are not seen by the schema"
    );
    assert!(refused.len() >= 30, "{refused:?}");
}

#[test]
fn values_are_checked_and_references_stand_for_any() {
    let validator = Validator::new();
    let chunk = |with: Value| {
        let nodes = json!({"c": {"op": "chunk", "from": "d", "with": with}});
        validator.mistakes(&json!({"retort": 1, "nodes": nodes}).to_string())
    };
    assert_eq!(chunk(json!({"max_words": 5, "by": "sentences"})), Ok(()));
    assert_eq!(chunk(json!({"max_words": "${params.n}", "by": "${params.by}", "overlap": "${n}"})), Ok(()));
    for with in
        [json!({"max_words": "5"}), json!({"max_words": 0}), json!({"by": "page"}), json!({"max_word": 5}), json!([])]
    {
        assert!(chunk(with.clone()).is_err(), "{with}");
    }
    let model = |model: Value| validator.mistakes(&json!({"retort": 1, "models": {"m": model}}).to_string());
    assert_eq!(model(json!({"weights": "file:a.gguf"})), Ok(()));
    assert_eq!(model(json!({"server": "http://127.0.0.1/v1", "name": "x", "api_key": "${env.KEY}"})), Ok(()));
    assert!(model(json!({"weights": "hf://a/b@main/c.gguf"})).is_err(), "what is fetched is pinned");
    assert!(model(json!({"weights": "file:a.gguf", "server": "http://127.0.0.1/v1", "name": "x"})).is_err());
    assert!(model(json!({})).is_err());
}

#[test]
fn every_key_is_described() {
    fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{key}");
            if property.get("description").is_none() && property.is_object() {
                found.push(path.clone());
            }
            undescribed(property, &path, found);
        }
        for (name, inner) in schema["$defs"].as_object().into_iter().flatten() {
            undescribed(inner, name, found);
        }
    }
    let mut found = Vec::new();
    undescribed(&schema(), "", &mut found);
    found.retain(|path| !path.starts_with(".profiles"));
    assert!(found.is_empty(), "{found:?}");
}

//! The JSON Schema of a pipeline file, made of the operators' config types, for editors and validators.
//!
//! The operators' part comes from their types as `retort ops` shows it. What a file has around it (sections, nodes) is read by
//! hand in `document` and `lower`, so it is written by hand here; tests hold the two lists of keys together.
//!
//! A value may be a reference wherever a value stands: what is not text anyway is "this, or `${…}`".

use retort_engine::OpInfo;
use serde_json::{Map, Value, json};

use crate::foreach::GROUP_KEYS;

/// The names of params, nodes, matrix keys.
const NAME: &str = "^[A-Za-z0-9_-]{1,100}$";

/// The schema of a pipeline file, JSON Schema draft 2020-12.
pub fn pipeline(ops: &[OpInfo]) -> Value {
    let mut defs = Map::new();
    defs.insert("reference".into(), reference());
    let model = definition(&schemars::schema_for!(retort_ops::models::ModelEntry).to_value(), &mut defs);
    defs.insert("model".into(), pinned(model));
    for info in ops {
        let with = definition(&(info.schema)().to_value(), &mut defs);
        defs.insert(info.name.into(), with);
    }
    defs.insert("matrix".into(), matrix());
    defs.insert("sources".into(), sources());
    defs.insert("foreach".into(), foreach());
    defs.insert("node".into(), node(ops));
    defs.insert("group".into(), group());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Retort pipeline",
        "description": "A graph of nodes: each has an operator, what feeds it, and its config.",
        "type": "object",
        "additionalProperties": false,
        "required": ["retort"],
        "properties": sections(),
        "$defs": defs,
    })
}

fn sections() -> Value {
    json!({
        "retort": {"const": 1, "description": "The version of the file's format."},
        "name": {
            "type": "string",
            "pattern": NAME,
            "description": "Names the pipeline in the store. Default: the file's name.",
        },
        "include": texts("Other pipeline files, relative to this one: their env, params, models, matrix, nodes and profiles are added. This file's own params win, and its overrides in a profile that both have; what else stands in two files is a mistake."),
        "env": texts("The environment variables that may be used, as `${env.NAME}`, and only as a model's `api_key`: a secret never gets into a recipe or a table."),
        "params": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": NAME},
            "description": "Named values. `${params.x}` alone in a value keeps its type; inside text it is written out. `--set x=5` overrides one.",
        },
        "models": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": "^\\S+$"},
            "additionalProperties": {"$ref": "#/$defs/model"},
            "description": "Named models. An operator's `model` is one of these names.",
        },
        "matrix": {
            "$ref": "#/$defs/matrix",
            "description": "`{seed: [1, 2, 3]}`: the nodes that use `${matrix.seed}`, and all that depend on them, once for each value. The copies are called `adapter@seed=1`.",
        },
        "nodes": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": NAME},
            "additionalProperties": {
                "if": {"required": ["nodes"]},
                "then": {"$ref": "#/$defs/group"},
                "else": {"$ref": "#/$defs/node"},
            },
            "description": "The steps by name. Their order does not matter.",
        },
        "profiles": {
            "type": ["object", "null"],
            "additionalProperties": profile(),
            "description": "Named sets of overrides: `--profile quick` lays one over the file.",
        },
    })
}

/// A text, or a list of texts.
fn texts(description: &str) -> Value {
    json!({"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}}], "description": description})
}

/// Sections with parts of what stands in the file's own.
fn profile() -> Value {
    let part = || json!({"type": ["object", "null"]});
    json!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {"params": part(), "models": part(), "matrix": part(), "nodes": part()},
    })
}

fn reference() -> Value {
    json!({
        "type": "string",
        "pattern": "\\$\\{[^}]*\\}",
        "description": "A param, `${params.NAME}`, a matrix key, `${matrix.NAME}`, or what a node is repeated for, `${item}` or `${item.NAME}`.",
    })
}

fn matrix() -> Value {
    let value = json!({"type": ["string", "number", "boolean"]});
    json!({
        "type": ["object", "null"],
        "propertyNames": {"pattern": NAME},
        "additionalProperties": {
            "anyOf": [{"type": "array", "items": value, "minItems": 1}, {"$ref": "#/$defs/reference"}],
        },
    })
}

/// The items of a `foreach`.
fn foreach() -> Value {
    let name = json!({"type": ["string", "number", "boolean"], "description": "What the copies are called by."});
    let item = json!({"anyOf": [
        {"type": ["string", "number", "boolean"]},
        {"type": "object", "required": ["name"], "properties": {"name": name}},
    ]});
    json!({"anyOf": [{"type": "array", "items": item, "minItems": 1}, {"$ref": "#/$defs/reference"}]})
}

/// Nodes that are repeated together.
fn group() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": GROUP_KEYS,
        "properties": {
            "foreach": {
                "$ref": "#/$defs/foreach",
                "description": "What the nodes are repeated for: each copy reads those of its own item. `${item}` stands for it.",
            },
            "nodes": {
                "type": ["object", "null"],
                "propertyNames": {"pattern": NAME},
                "additionalProperties": {"$ref": "#/$defs/node", "properties": {"foreach": false}},
                "description": "The nodes that are repeated together. They are named as if they stood outside.",
            },
        },
    })
}

/// What feeds an input.
fn sources() -> Value {
    json!({
        "anyOf": [
            {"type": "string", "description": "`NODE` or `NODE.OUTPUT`"},
            {"type": "array", "items": {"type": "string"}, "description": "Tables that are appended; their columns must be equal."},
        ],
    })
}

fn node(ops: &[OpInfo]) -> Value {
    let name = |info: &OpInfo| {
        let page = (info.schema)().to_value();
        let page = page.get("description").and_then(Value::as_str).unwrap_or_default();
        json!({"const": info.name, "description": first_sentence(page).replace('\n', " ")})
    };
    let mut names: Vec<Value> = ops.iter().map(name).collect();
    names.push(json!({"$ref": "#/$defs/reference"}));
    let with = |info: &OpInfo| {
        let schema = (info.schema)().to_value();
        let needs = schema.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
        let with = json!({"anyOf": [{"$ref": format!("#/$defs/{}", info.name)}, {"$ref": "#/$defs/reference"}]});
        json!({
            "if": {"properties": {"op": {"const": info.name}}, "required": ["op"]},
            "then": {"properties": {"with": with}, "required": if needs { vec!["with"] } else { vec![] }},
        })
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["op"],
        "properties": {
            "op": {"anyOf": names, "description": "The operator. `retort ops` lists them."},
            "from": {
                "description": "What feeds it: `node`, `node.output`, a list (tables are appended), or a map where the operator names its inputs.",
                "anyOf": [
                    {"$ref": "#/$defs/sources"},
                    {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/sources"}},
                ],
            },
            "with": {"description": "The operator's config. `retort ops NAME` describes every key."},
            "matrix": {
                "$ref": "#/$defs/matrix",
                "description": "As at the top, for this node, which is multiplied whether it uses the values or not.",
            },
            "foreach": {
                "$ref": "#/$defs/foreach",
                "description": "The node once for each item, which `${item}` stands for: `chunks@manuals`. Who names the node reads all copies, one after the other.",
            },
        },
        "allOf": ops.iter().map(with).collect::<Vec<_>>(),
    })
}

/// A model is weights or a server, and what is fetched is pinned.
fn pinned(mut model: Value) -> Value {
    model["oneOf"] = json!([
        {"required": ["weights"], "properties": {"server": false, "name": false, "api_key": false}},
        {"required": ["server", "name"], "properties": {"weights": false, "sha256": false}},
    ]);
    model["if"] =
        json!({"required": ["weights"], "properties": {"weights": {"type": "string", "pattern": "^(pypi|hf|https):"}}});
    model["then"] = json!({"required": ["sha256"]});
    model["properties"]["sha256"]["anyOf"] = json!([
        {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}, {"type": "integer"}, {"$ref": "#/$defs/reference"},
    ]);
    if let Some(fields) = model["properties"]["sha256"].as_object_mut() {
        fields.shift_remove("type");
        fields.shift_remove("default");
    }
    model
}

/// A schema that schemars wrote, to stand among `$defs`; its own definitions go there too.
fn definition(schema: &Value, defs: &mut Map<String, Value>) -> Value {
    let mut schema = schema.clone();
    let fields = schema.as_object_mut().expect("a schema of a type is an object");
    fields.shift_remove("$schema");
    fields.shift_remove("title");
    let own = fields.shift_remove("$defs");
    for (name, inner) in own.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let mut inner = inner.clone();
        opened(&mut inner);
        // Types of one name are one type: a second one would need another name.
        debug_assert!(defs.get(name).is_none_or(|known| *known == inner), "two types are called `{name}`");
        defs.insert(name.clone(), inner);
    }
    opened(&mut schema);
    schema
}

/// Lets a reference stand wherever a value stands.
fn opened(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.shift_remove("format");
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(or_reference);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key).filter(|inner| inner.is_object()) {
            or_reference(inner);
        }
    }
    for key in ["anyOf", "oneOf", "allOf", "prefixItems"] {
        fields.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(opened);
    }
}

fn or_reference(schema: &mut Value) {
    opened(schema);
    let Some(fields) = schema.as_object_mut() else { return };
    let is_text =
        |kind: &Value| kind == "string" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("string")));
    if fields.get("const").is_some() || (fields.get("type").is_some_and(is_text) && !fields.contains_key("enum")) {
        return;
    }
    let reference = json!({"$ref": "#/$defs/reference"});
    if let Some(variants) = fields.get_mut("anyOf").and_then(Value::as_array_mut) {
        variants.push(reference);
        return;
    }
    let (mut outer, mut inner) = (Map::new(), Map::new());
    for (key, value) in std::mem::take(fields) {
        let target = if matches!(key.as_str(), "description" | "default") { &mut outer } else { &mut inner };
        target.insert(key, value);
    }
    outer.insert("anyOf".into(), json!([inner, reference]));
    *fields = outer;
}

fn first_sentence(text: &str) -> &str {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    let end = paragraph.find(". ").or_else(|| paragraph.find(".\n"));
    end.map_or(paragraph, |end| &paragraph[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(schema: &Value) -> Vec<String> {
        let mut keys: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    }

    fn sorted(keys: &[&str]) -> Vec<String> {
        let mut keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        keys.sort();
        keys
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema = pipeline(retort_ops::REGISTRY);
        assert_eq!(keys(&schema), sorted(&crate::document::KEYS));
        assert_eq!(
            keys(&schema["properties"]["profiles"]["additionalProperties"]),
            sorted(&crate::document::PROFILE_KEYS)
        );
        assert_eq!(keys(&schema["$defs"]["node"]), sorted(&crate::lower::KEYS));
        assert_eq!(keys(&schema["$defs"]["group"]), sorted(&GROUP_KEYS));
        assert_eq!(keys(&schema["$defs"]["model"]), sorted(crate::models::KEYS));
    }

    #[test]
    fn what_is_no_text_may_be_a_reference() {
        let mut schema = json!({"properties": {"n": {"type": "integer", "default": 3}, "text": {"type": "string"}}});
        opened(&mut schema);
        let n = json!({"default": 3, "anyOf": [{"type": "integer"}, {"$ref": "#/$defs/reference"}]});
        assert_eq!(schema, json!({"properties": {"n": n, "text": {"type": "string"}}}));
    }
}

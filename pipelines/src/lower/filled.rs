//! Models in a node's config: an entry of `models:` comes to stand in the place of its name.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::config;
use crate::diagnostics::{Diagnostic, Files};
use crate::models;
use crate::yaml::{Data, Yaml};

/// Puts models in the place of their names, however deep in the config a model stands.
pub(super) fn fill_models(
    with: &mut Yaml,
    schema: Option<&Value>,
    models: &BTreeMap<String, Yaml>,
    problems: &mut Vec<Diagnostic>,
) {
    let Some(root) = schema else {
        // An operator that is not known tells nothing of its fields.
        let Data::Map(fields) = &mut with.data else { return };
        for field in fields.iter_mut().filter(|field| field.key == "model") {
            field.value = models::named(&field.value, field.key_span, models, problems);
        }
        return;
    };
    fill_within(with, root, root, models, problems);
}

fn fill_within(
    value: &mut Yaml,
    schema: &Value,
    root: &Value,
    models: &BTreeMap<String, Yaml>,
    problems: &mut Vec<Diagnostic>,
) {
    match &mut value.data {
        Data::Map(fields) => {
            for field in fields {
                // A key that the operator does not have will be said by who examines the config.
                let Some(property) = property(schema, &field.key, root) else { continue };
                if config::is_model(&field.key, property) {
                    field.value = models::named(&field.value, field.key_span, models, problems);
                } else {
                    fill_within(&mut field.value, property, root, models, problems);
                }
            }
        }
        Data::List(items) => {
            let each = shapes(schema, root).into_iter().find_map(|schema| schema.get("items"));
            for item in items {
                each.iter().for_each(|each| fill_within(item, each, root, models, problems));
            }
        }
        _ => {}
    }
}

/// The schema of a key, in whichever of the shapes that a value may have it stands.
fn property<'a>(schema: &'a Value, key: &str, root: &'a Value) -> Option<&'a Value> {
    shapes(schema, root).into_iter().find_map(|schema| schema.get("properties")?.get(key))
}

/// What a value may look like, references followed.
fn shapes<'a>(schema: &'a Value, root: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![schema];
    let mut at = 0;
    // Types that hold themselves have no end.
    while at < found.len() && found.len() < 64 {
        let schema = found[at];
        let referred = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        found.extend(referred.and_then(|path| root.pointer(path)));
        let variants = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
        found.extend(variants.flatten());
        at += 1;
    }
    found
}

/// A config as data; a `file:` of a model that another file names is made relative to the node's folder.
pub(super) fn rebased(with: &Yaml, files: &Files, base: &Path) -> Value {
    let mut value = with.to_json();
    rebase_within(with, &mut value, files, base);
    value
}

fn rebase_within(with: &Yaml, value: &mut Value, files: &Files, base: &Path) {
    if let (Data::List(items), Value::Array(values)) = (&with.data, &mut *value) {
        items.iter().zip(values).for_each(|(item, value)| rebase_within(item, value, files, base));
    }
    for field in with.entries() {
        let Some(weights) = field.value.get("weights") else {
            if let Some(value) = value.get_mut(&field.key) {
                rebase_within(&field.value, value, files, base);
            }
            continue;
        };
        let folder = files.base(weights.span);
        if folder == base {
            continue;
        }
        let rebase = |source: &mut Value| {
            let path = source.as_str().and_then(|text| text.strip_prefix("file:")).map(PathBuf::from);
            if let Some(path) = path.filter(|path| path.is_relative()) {
                *source = Value::String(format!("file:{}", relative(&folder.join(path), base).display()));
            }
        };
        match &mut value[&field.key]["weights"] {
            Value::Array(parts) => parts.iter_mut().for_each(rebase),
            source => rebase(source),
        }
    }
}

/// A path as seen from a folder, both seen from the same folder.
fn relative(path: &Path, base: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<PathBuf> {
        let kept = path.components().filter(|part| *part != Component::CurDir);
        kept.map(|part| PathBuf::from(part.as_os_str())).collect()
    };
    let (path, base) = (parts(path), parts(base));
    let shared = path.iter().zip(&base).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(PathBuf::from(".."), base.len() - shared);
    up.chain(path[shared..].iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_seen_from_another_folder() {
        let seen = |path: &str, base: &str| relative(Path::new(path), Path::new(base)).display().to_string();
        assert_eq!(seen("./shared/../shared/a.gguf", "."), "shared/../shared/a.gguf");
        assert_eq!(seen("models/a.gguf", "pipelines/b"), "../../models/a.gguf");
        assert_eq!(seen("/x/models/a.gguf", "/x/y"), "../models/a.gguf");
    }
}

//! A manual page as Markdown, for the guide: the description, then a table of the keys of `with`.

use std::fmt::Write;

use serde_json::Value;

use super::page::{DEEPEST, Page, describe, list, properties};

/// The page of an operator.
pub(super) fn page(name: &str, schema: &Value) -> String {
    let mut text = format!("### `{name}`\n\n{}\n", describe(schema).trim_end());
    if properties(schema).next().is_some() {
        text.push_str("\n| key | type | default | what it says |\n|---|---|---|---|\n");
        rows(&mut text, &Page { schema, width: usize::MAX }, schema, "", 1);
    }
    text
}

fn rows(text: &mut String, page: &Page<'_>, object: &Value, path: &str, level: usize) {
    let required: Vec<_> = list(object, "required").iter().filter_map(Value::as_str).collect();
    for (key, schema) in properties(object) {
        let resolved = page.resolve(schema);
        let (is_model, path) = (is_model(schema), format!("{path}{key}"));
        let kind = if is_model { "a model of `models:`".into() } else { page.kind(schema) };
        let inner = page.inner(resolved);
        let has_keys =
            !is_model && level < DEEPEST && (properties(inner).next().is_some() || !tags(page, inner).is_empty());
        let default = match schema.get("default").filter(|default| !default.is_null()) {
            _ if required.contains(&key.as_str()) => "required".into(),
            Some(default) if !has_keys => format!("`{default}`"),
            _ => String::new(),
        };
        let own = describe(schema);
        let mut about = if own.is_empty() { describe(resolved).to_owned() } else { own.to_owned() };
        for choice in list(resolved, "oneOf") {
            if let (Some(value), what) = (choice.get("const").and_then(Value::as_str), describe(choice))
                && !what.is_empty()
            {
                let _ = write!(about, " `{value}`: {what}");
            }
        }
        let _ = writeln!(text, "| `{path}` | {} | {} | {} |", cell(&kind), cell(&default), cell(&about));
        if has_keys {
            let path = if resolved.get("items").is_some() { format!("{path}[].") } else { format!("{path}.") };
            rows(text, page, inner, &path, level + 1);
            tags(page, inner).into_iter().for_each(|tag| variant(text, page, tag, &path));
        }
    }
}

/// One of several maps that a value may be: which it is, its description says.
fn variant(text: &mut String, page: &Page<'_>, object: &Value, path: &str) {
    for (key, schema) in properties(object) {
        let about = if describe(schema).is_empty() { describe(object) } else { describe(schema) };
        let _ = writeln!(text, "| `{path}{key}` | {} |  | {} |", cell(&page.kind(schema)), cell(about));
    }
}

/// The variants with keys of what may be one of several maps.
fn tags<'a>(page: &'a Page<'_>, schema: &'a Value) -> Vec<&'a Value> {
    let variants = list(schema, "oneOf").iter().map(|variant| page.resolve(variant));
    variants.filter(|variant| properties(variant).next().is_some()).collect()
}

fn is_model(schema: &Value) -> bool {
    let refers =
        |schema: &Value| schema.get("$ref").and_then(Value::as_str).is_some_and(|path| path.ends_with("/Model"));
    refers(schema) || list(schema, "anyOf").iter().any(refers)
}

/// Text within a table: one line, no bars.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

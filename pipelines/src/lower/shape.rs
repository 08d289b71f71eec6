//! The keys of a node: which are unknown, misspelt or misplaced, and which are meant.

use retort_engine::OpInfo;

use super::KEYS;
use crate::diagnostics::Diagnostic;
use crate::document::unknown_key;
use crate::yaml::{Data, Entry, Yaml};

/// Finds what is wrong with a node's keys. One that is misspelt is taken for the one that is meant.
pub(super) fn check(node: &mut Entry, ops: &[OpInfo], problems: &mut Vec<Diagnostic>) {
    let op = node.value.get("op").and_then(Yaml::scalar).unwrap_or_default().into_owned();
    let Data::Map(fields) = &mut node.value.data else {
        if !matches!(node.value.data, Data::Null | Data::Broken) {
            let message = format!("expected a node, which is a map, found {}", node.value.describe());
            problems.push(Diagnostic::at(node.value.span, "type", message).hint("a node has `op`, `from` and `with`"));
            node.value.data = Data::Broken;
        } else if matches!(node.value.data, Data::Null) {
            problems.push(without_operator(node));
        }
        return;
    };
    let strays = take_strays(fields, &op, ops, problems);
    for i in 0..fields.len() {
        if !KEYS.contains(&fields[i].key.as_str()) {
            problems.push(unknown_key(&fields[i], &KEYS));
            let free = KEYS.into_iter().filter(|key| fields.iter().all(|field| field.key != *key));
            if let Some(meant) = retort_engine::nearest(&fields[i].key, free) {
                fields[i].key = meant.into();
            }
        }
    }
    for field in fields.iter_mut() {
        let expected = match (field.key.as_str(), &field.value.data) {
            ("op", Data::Bool(_) | Data::Number(..) | Data::List(_) | Data::Map(_)) => "the name of an operator",
            ("with", Data::Bool(_) | Data::Number(..) | Data::List(_) | Data::Text(_)) => {
                "a map of the operator's keys"
            }
            _ => continue,
        };
        let message = format!("expected {expected}, found {}", field.value.describe());
        problems.push(Diagnostic::at(field.value.span, "type", message));
        field.value.data = Data::Broken;
    }
    put_strays(fields, strays);
    if node.value.get("op").is_none_or(|op| matches!(op.data, Data::Null)) {
        problems.push(without_operator(node));
    }
}

/// Takes out the keys of the operator that stand beside `op` and not in `with`, and says so.
fn take_strays(fields: &mut Vec<Entry>, op: &str, ops: &[OpInfo], problems: &mut Vec<Diagnostic>) -> Vec<Entry> {
    let is_unknown = |field: &Entry| !KEYS.contains(&field.key.as_str());
    if !fields.iter().any(is_unknown) {
        return Vec::new();
    }
    let Some(info) = ops.iter().find(|info| info.name == op) else { return Vec::new() };
    let schema = (info.schema)().to_value();
    let is_stray = |field: &mut Entry| is_unknown(field) && schema["properties"].get(&field.key).is_some();
    let strays: Vec<Entry> = fields.extract_if(.., is_stray).collect();
    for stray in &strays {
        let message = format!("`{}` is a key of `{op}` and stands under `with`", stray.key);
        problems
            .push(Diagnostic::at(stray.key_span, "unknown-key", message).hint(format!("`with: {{{}: …}}`", stray.key)));
    }
    strays
}

/// Puts such keys where they are meant, so that they are not missed and are checked too.
fn put_strays(fields: &mut Vec<Entry>, strays: Vec<Entry>) {
    let Some(first) = strays.first() else { return };
    let (key_span, span) = (first.key_span, first.value.span);
    if !fields.iter().any(|field| field.key == "with") {
        let value = Yaml::new(span, Data::Map(Vec::new()));
        fields.push(Entry { key: "with".into(), key_span, value });
    }
    let with = fields.iter_mut().find(|field| field.key == "with").expect("it was just added");
    if matches!(with.value.data, Data::Null) {
        with.value.data = Data::Map(Vec::new());
    }
    if let Data::Map(entries) = &mut with.value.data {
        entries.extend(strays);
    }
}

fn without_operator(node: &Entry) -> Diagnostic {
    let problem = Diagnostic::at(node.key_span, "missing-key", format!("the node `{}` has no `op`", node.key));
    problem.hint("`op:` names its operator; `retort ops` lists them")
}

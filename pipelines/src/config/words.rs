//! What a schema expects, in words.

use serde_json::Value;

use super::{Examiner, required, types};

impl Examiner<'_> {
    /// What a schema expects, in words: `a whole number`.
    pub(super) fn expected(&self, schema: &Value) -> String {
        let choices = self.choices(schema);
        let schema = self.deref_owned(schema);
        let variants = schema.get("oneOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let tag = |variant: &Value| Some(format!("`{}: …`", required(variant).next()?));
        if let Some(tags) = variants.iter().map(tag).collect::<Option<Vec<_>>>()
            && let Some((last, rest)) = tags.split_last()
            && !rest.is_empty()
        {
            return format!("{} or {last}", rest.join(", "));
        }
        let schema = &schema;
        let variants = self.variants(schema);
        let mut words: Vec<String> = Vec::new();
        if choices.len() > 6 {
            words.push("one of the names that the manual lists".into());
        } else {
            words.extend(choices.iter().map(|name| format!("`{name}`")));
        }
        for schema in &variants {
            let word = type_word(schema);
            if !word.is_empty() && !words.contains(&word) {
                words.push(word);
            }
        }
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            Some((last, _)) => last.clone(),
            None => "something else".into(),
        }
    }

    /// The texts that a schema allows.
    pub(super) fn choices(&self, schema: &Value) -> Vec<String> {
        let mut choices = Vec::new();
        let mut waiting = vec![schema.clone()];
        while let Some(schema) = waiting.pop() {
            let schema = self.deref_owned(&schema);
            for value in schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const")) {
                choices.extend(value.as_str().map(String::from));
            }
            for key in ["anyOf", "oneOf"] {
                waiting.extend(schema.get(key).and_then(Value::as_array).into_iter().flatten().rev().cloned());
            }
        }
        choices
    }

    /// The schemas that are no choice of texts and not `null`, within `anyOf` and `oneOf`.
    fn variants(&self, schema: &Value) -> Vec<Value> {
        let schema = self.deref_owned(schema);
        let parts = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key).and_then(Value::as_array));
        match parts {
            Some(parts) => parts.iter().flat_map(|schema| self.variants(schema)).collect(),
            None if schema.get("enum").is_some() || schema.get("const").is_some() => Vec::new(),
            None => vec![schema],
        }
    }

    pub(super) fn deref_owned(&self, schema: &Value) -> Value {
        let path = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        path.and_then(|path| self.root.pointer(path)).unwrap_or(schema).clone()
    }
}

fn type_word(schema: &Value) -> String {
    let words = types(schema).into_iter().filter(|name| *name != "null").map(|name| match name {
        "integer" => "a whole number".to_string() + &range(schema),
        "number" => "a number".to_string() + &range(schema),
        "string" => "text".into(),
        "boolean" => "`true` or `false`".into(),
        "array" => "a list".to_string() + &lengths(schema),
        "object" => match schema.get("required").and_then(Value::as_array).map(Vec::as_slice) {
            Some([Value::String(only)]) => format!("a map with `{only}`"),
            _ => "a map".into(),
        },
        other => other.to_string(),
    });
    words.collect::<Vec<_>>().join(" or ")
}

fn range(schema: &Value) -> String {
    let is_float_bound = |value: &&Value| value.as_f64().is_some_and(|bound| bound.abs() < 1e15);
    let bound = |key: &str| {
        let text = schema.get(key).filter(is_float_bound).map(Value::to_string);
        text.map(|text| text.trim_end_matches(".0").to_string())
    };
    match (bound("minimum"), bound("maximum"), bound("exclusiveMinimum")) {
        (Some(least), Some(most), _) => format!(" from {least} to {most}"),
        (Some(least), None, _) if least != "0" => format!(" from {least}"),
        (Some(_), None, _) => String::new(),
        (None, Some(most), _) => format!(" up to {most}"),
        (None, None, Some(least)) => format!(" above {least}"),
        (None, None, None) => String::new(),
    }
}

fn lengths(schema: &Value) -> String {
    let count = |key: &str| schema.get(key).and_then(Value::as_u64);
    match (count("minItems"), count("maxItems")) {
        (Some(least), Some(most)) if least == most => format!(" of {least}"),
        (Some(least), Some(most)) => format!(" of {least} to {most}"),
        (Some(least), None) => format!(" of {least} or more"),
        (None, Some(most)) => format!(" of at most {most}"),
        (None, None) => String::new(),
    }
}

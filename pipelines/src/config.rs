//! A node's `with` against its operator's JSON Schema: every misspelt key and every value of a wrong type, each at its place.
//!
//! serde is the judge of a config and stops at the first mistake; this finds the others, and says them in plain words. It
//! knows the part of JSON Schema that `schemars` writes for configs, and lets pass what it does not know.

mod words;

use serde_json::Value;

use crate::diagnostics::{Diagnostic, Files, Span};
use crate::document::{listed, unknown_key};
use crate::yaml::{Data, Entry, Yaml};

/// What was found in a config.
pub(crate) struct Examined {
    pub(crate) problems: Vec<Diagnostic>,
    /// The config with what is wrong in it mended, so that what depends on it can be checked too.
    pub(crate) mended: Yaml,
    /// Whether more was mended than the spelling of keys: then the values are guesses, and so are the columns that come out.
    pub(crate) guessed: bool,
}

/// Examines the config of an operator; `at` is the place to show for a key that is missing.
pub(crate) fn examine(with: &Yaml, at: Span, schema: &Value, op: &str, files: &Files) -> Examined {
    let mut examiner = Examiner { root: schema, op, files, problems: Vec::new(), guessed: false };
    let mended = examiner.value(with, schema, at);
    Examined { problems: examiner.problems, mended, guessed: examiner.guessed }
}

/// Whether a field of a config holds a model: `model` by convention, or whatever has the type `Model`.
pub(crate) fn is_model(key: &str, schema: &Value) -> bool {
    let refers =
        |schema: &Value| schema.get("$ref").and_then(Value::as_str).is_some_and(|path| path.ends_with("/Model"));
    let variants = schema.get("anyOf").and_then(Value::as_array);
    key == "model" || refers(schema) || variants.is_some_and(|variants| variants.iter().any(refers))
}

/// The place to show for a value: its own, or its key's where it fills several lines.
pub(crate) fn place(entry: &Entry, files: &Files) -> Span {
    if files.text(entry.value.span).contains('\n') { entry.key_span } else { entry.value.span }
}

struct Examiner<'a> {
    root: &'a Value,
    op: &'a str,
    files: &'a Files,
    problems: Vec<Diagnostic>,
    guessed: bool,
}

impl<'a> Examiner<'a> {
    /// The value with what is wrong in it mended.
    fn value(&mut self, value: &Yaml, schema: &'a Value, at: Span) -> Yaml {
        let schema = self.deref(schema);
        if matches!(value.data, Data::Broken) {
            return self.guess(schema, value.span);
        }
        if self.allows(value, schema, 0) {
            return value.clone();
        }
        if let (Data::Map(entries), Some(tags)) = (&value.data, self.tags(schema)) {
            return self.tagged(value, entries, &tags);
        }
        let variant = self.variant(value, schema);
        let is = |name: &str| types(variant).contains(&name);
        match &value.data {
            Data::Map(entries) if is("object") => self.map(value, entries, variant, at),
            Data::Null if is("object") => self.map(value, &[], variant, at),
            Data::List(items) if is("array") => self.list(value, items, variant),
            _ => {
                self.wrong(value, variant, at);
                self.guess(schema, value.span)
            }
        }
    }

    /// The variants of an enum whose values are maps of one key, the variant's name: with the schema of what it holds.
    fn tags(&self, schema: &'a Value) -> Option<Vec<(&'a str, &'a Value)>> {
        let variants = schema.get("oneOf").and_then(Value::as_array)?;
        let tag = |variant: &'a Value| {
            let properties = self.deref(variant).get("properties").and_then(Value::as_object)?;
            let (name, schema) = properties.iter().next().filter(|_| properties.len() == 1)?;
            schema.get("const").is_none().then_some((name.as_str(), schema))
        };
        variants.iter().map(tag).collect()
    }

    fn tagged(&mut self, value: &Yaml, entries: &[Entry], tags: &[(&'a str, &'a Value)]) -> Yaml {
        let names: Vec<&str> = tags.iter().map(|(name, _)| *name).collect();
        let [entry] = entries else {
            let message = format!("expected one of {}, found {} keys", listed(&names), entries.len());
            let problem = Diagnostic::at(value.span, "type", message);
            self.problems.push(problem.hint(format!("one a list item: `- {}: …`", names[0])));
            self.guessed = true;
            return self.guessed_tag(value, tags[0]);
        };
        let found = tags.iter().find(|(name, _)| *name == entry.key).copied();
        let tag = found.unwrap_or_else(|| {
            let near = retort_engine::nearest(&entry.key, names.iter().copied());
            self.problems.push(unknown_key(entry, &names));
            self.guessed |= near.is_none();
            tags.iter().find(|(name, _)| Some(*name) == near).copied().unwrap_or(tags[0])
        });
        let inner = self.value(&entry.value, tag.1, place(entry, self.files));
        Yaml { data: Data::Map(vec![Entry { key: tag.0.into(), value: inner, ..entry.clone() }]), ..value.clone() }
    }

    fn guessed_tag(&self, value: &Yaml, (name, schema): (&str, &Value)) -> Yaml {
        let inner = self.guessed_data(schema, value.span, 0);
        let entry = Entry { key: name.into(), key_span: value.span, value: inner };
        Yaml { data: Data::Map(vec![entry]), ..value.clone() }
    }

    /// A value that the schema allows, in the place of one that is wrong.
    fn guess(&mut self, schema: &Value, span: Span) -> Yaml {
        self.guessed = true;
        self.guessed_data(schema, span, 0)
    }

    fn guessed_data(&self, schema: &Value, span: Span, depth: usize) -> Yaml {
        let schema = self.deref_owned(schema);
        let parts = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key).and_then(Value::as_array));
        if let Some(first) = parts.and_then(|parts| parts.first()).filter(|_| depth < 16) {
            return self.guessed_data(first, span, depth + 1);
        }
        if let Some(text) = self.choices(&schema).into_iter().next() {
            return Yaml::new(span, Data::Text(text));
        }
        let least = schema.get("minimum").and_then(Value::as_u64).unwrap_or(0).max(1);
        Yaml::new(
            span,
            match types(&schema).first().copied() {
                Some("integer" | "number") => Data::Number(least.into(), least.to_string()),
                Some("string") => Data::Text(String::new()),
                Some("boolean") => Data::Bool(false),
                Some("array") => Data::List(Vec::new()),
                Some("object") if depth < 16 => Data::Map(self.guessed_fields(&schema, span, depth)),
                _ => Data::Null,
            },
        )
    }

    fn guessed_fields(&self, schema: &Value, span: Span, depth: usize) -> Vec<Entry> {
        let property = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
        let entry = |name: &str| {
            let value = self.guessed_data(property(name)?, span, depth + 1);
            Some(Entry { key: name.into(), key_span: span, value })
        };
        required(schema).filter_map(entry).collect()
    }

    fn map(&mut self, value: &Yaml, entries: &[Entry], schema: &'a Value, at: Span) -> Yaml {
        let properties = schema.get("properties").and_then(Value::as_object);
        let names: Vec<&str> = properties.into_iter().flat_map(serde_json::Map::keys).map(String::as_str).collect();
        let given = |name: &str| entries.iter().any(|entry| entry.key == name);
        let mut kept = Vec::new();
        let mut meant = Vec::new();
        for entry in entries {
            let others = schema.get("additionalProperties");
            let property = properties.and_then(|properties| properties.get(&entry.key));
            match property.or_else(|| others.filter(|others| others.is_object())) {
                Some(schema) => {
                    let value = self.value(&entry.value, schema, place(entry, self.files));
                    kept.push(Entry { value, ..entry.clone() });
                }
                None if others == Some(&Value::Bool(false)) => {
                    let near = self.unknown(
                        entry,
                        &names.iter().copied().filter(|name| !given(name)).collect::<Vec<_>>(),
                        schema,
                    );
                    let near = near.filter(|name| !meant.contains(name));
                    meant.extend(near);
                    let schema = near.and_then(|name| properties.and_then(|properties| properties.get(name)));
                    if let (Some(name), Some(schema)) = (near, schema) {
                        let value = self.value(&entry.value, schema, place(entry, self.files));
                        kept.push(Entry { key: name.to_string(), value, ..entry.clone() });
                    } else {
                        self.guessed = true;
                    }
                }
                None => kept.push(entry.clone()),
            }
        }
        for name in required(schema).filter(|name| !given(name) && !meant.contains(name)) {
            let problem = Diagnostic::at(at, "missing-key", format!("the key `{name}` is missing"));
            let Some(schema) = properties.and_then(|properties| properties.get(name)) else { continue };
            self.problems.push(problem.hint(format!("`{name}` is {}", self.expected(schema))));
            let value = self.guess(schema, value.span);
            kept.push(Entry { key: name.to_string(), key_span: at, value });
        }
        Yaml { data: Data::Map(kept), ..value.clone() }
    }

    fn list(&mut self, value: &Yaml, items: &[Yaml], schema: &'a Value) -> Yaml {
        let before = self.problems.len();
        let kept: Vec<Yaml> = match (schema.get("items"), schema.get("prefixItems").and_then(Value::as_array)) {
            (_, Some(schemas)) => {
                let pairs = items.iter().zip(schemas);
                pairs.map(|(item, schema)| self.value(item, schema, item.span)).collect()
            }
            (Some(schema), _) => items.iter().map(|item| self.value(item, schema, item.span)).collect(),
            _ => items.to_vec(),
        };
        if self.problems.len() == before && !kept.iter().zip(items).any(|(kept, item)| kept != item) {
            self.wrong(value, schema, value.span);
            return self.guess(schema, value.span);
        }
        Yaml { data: Data::List(kept), ..value.clone() }
    }

    /// Reports a key that is not known, and gives the one that is meant.
    fn unknown(&mut self, entry: &Entry, names: &[&'a str], schema: &'a Value) -> Option<&'a str> {
        let near = retort_engine::nearest(&entry.key, names.iter().copied());
        let unknown = || Diagnostic::at(entry.key_span, "unknown-key", format!("unknown key `{}`", entry.key));
        let problem = match (near, self.deeper(&entry.key, schema)) {
            (Some(_), _) => unknown_key(entry, names),
            (None, Some(place)) => unknown().hint(format!("it is a key of `{place}`")),
            (None, None) => unknown().hint(format!("`retort ops {}` describes its keys", self.op)),
        };
        self.problems.push(problem);
        near
    }

    /// The key beside it, of a map or of a list of maps, in which a key of this name belongs.
    fn deeper(&self, key: &str, schema: &'a Value) -> Option<String> {
        let has = |schema: &'a Value| {
            let schema = self.deref(schema);
            let variants = ["anyOf", "oneOf", "allOf"].iter().filter_map(|kind| schema[*kind].as_array()).flatten();
            let mut kinds = variants.map(|variant| self.deref(variant)).chain([schema]);
            kinds.any(|kind| kind["properties"].get(key).is_some())
        };
        schema["properties"].as_object()?.iter().find_map(|(name, property)| {
            let in_items = || self.deref(property).get("items").is_some_and(has).then(|| format!("{name}[…]"));
            if has(property) { Some(name.clone()) } else { in_items() }
        })
    }

    fn wrong(&mut self, value: &Yaml, schema: &Value, at: Span) {
        let message = format!("expected {}, found {}", self.expected(schema), value.describe());
        let mut problem = Diagnostic::at(at, "type", message);
        problem = match (&value.data, types(schema).first().copied()) {
            (Data::Text(text), Some("array")) if value.origin.is_none() && !text.contains('\n') => {
                problem.hint(format!("a list of one is `[{}]`", self.files.text(value.span)))
            }
            (Data::Number(_, text), Some("string")) if value.origin.is_none() => {
                problem.hint(format!("text is written in quotes: `\"{text}\"`"))
            }
            (Data::Text(text), Some("integer" | "number"))
                if self.files.text(value.span).contains(text) && text.parse::<f64>().is_ok() =>
            {
                problem.hint(format!("a number is written without quotes: `{text}`"))
            }
            (Data::Text(text), _) => {
                let names = self.choices(schema);
                problem.did_you_mean(text, names.iter().map(String::as_str))
            }
            _ => problem,
        };
        if let Some(origin) = &value.origin {
            problem = origin.explain(problem);
        }
        self.problems.push(problem);
    }

    /// Whether a value is right, as far as the schema tells.
    fn allows(&self, value: &Yaml, schema: &Value, depth: usize) -> bool {
        let schema = self.deref(schema);
        if depth > 64 {
            return true;
        }
        if matches!(value.data, Data::Broken) {
            return false;
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(variants) = schema.get(key).and_then(Value::as_array)
                && !variants.iter().any(|schema| self.allows(value, schema, depth + 1))
            {
                return false;
            }
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array)
            && !all.iter().all(|schema| self.allows(value, schema, depth + 1))
        {
            return false;
        }
        if let Some(only) = schema.get("const")
            && *only != value.to_json()
        {
            return false;
        }
        if let Some(choices) = schema.get("enum").and_then(Value::as_array)
            && !choices.contains(&value.to_json())
        {
            return false;
        }
        if !is_of_type(value, schema) || !within(value, schema) {
            return false;
        }
        match &value.data {
            Data::Map(entries) => self.allows_map(entries, schema, depth),
            Data::List(items) => self.allows_list(items, schema, depth),
            _ => true,
        }
    }

    fn allows_map(&self, entries: &[Entry], schema: &Value, depth: usize) -> bool {
        let others = schema.get("additionalProperties");
        let known = entries.iter().all(|entry| {
            match (schema.get("properties").and_then(|properties| properties.get(&entry.key)), others) {
                (Some(schema), _) => self.allows(&entry.value, schema, depth + 1),
                (None, Some(Value::Bool(false))) => false,
                (None, Some(schema)) => self.allows(&entry.value, schema, depth + 1),
                (None, None) => true,
            }
        });
        known && required(schema).all(|name| entries.iter().any(|entry| entry.key == name))
    }

    fn allows_list(&self, items: &[Yaml], schema: &Value, depth: usize) -> bool {
        let count = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
        if count("minItems").is_some_and(|n| items.len() < n) || count("maxItems").is_some_and(|n| items.len() > n) {
            return false;
        }
        if let Some(schemas) = schema.get("prefixItems").and_then(Value::as_array) {
            return items.iter().zip(schemas).all(|(item, schema)| self.allows(item, schema, depth + 1));
        }
        let each = schema.get("items");
        each.is_none_or(|schema| items.iter().all(|item| self.allows(item, schema, depth + 1)))
    }

    /// Of several schemas, the one that a wrong value is nearest to.
    fn variant(&self, value: &Yaml, schema: &'a Value) -> &'a Value {
        let variants = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key).and_then(Value::as_array));
        let Some(variants) = variants else { return schema };
        let of_type = |schema: &Value| schema.get("type").is_some() && is_of_type(value, schema);
        let shares = |schema: &Value| {
            let properties = schema.get("properties").and_then(Value::as_object);
            let has = |entry: &Entry| {
                let property = properties.and_then(|properties| properties.get(&entry.key));
                // A tag that says another variant speaks against this one.
                property.map_or(0, |property| {
                    if self.allows(&entry.value, property, 0) {
                        3
                    } else if property.get("const").is_some() {
                        -5
                    } else {
                        1
                    }
                })
            };
            value.entries().iter().map(has).sum::<i32>()
        };
        let matching = variants.iter().map(|schema| self.deref(schema)).filter(|schema| of_type(schema));
        match matching.max_by_key(|schema| shares(schema)) {
            Some(found) if found.get("enum").is_none() && found.get("const").is_none() => self.variant(value, found),
            _ => schema,
        }
    }

    fn deref(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        for _ in 0..16 {
            let Some(path) = schema.get("$ref").and_then(Value::as_str) else { break };
            let Some(found) = path.strip_prefix('#').and_then(|path| self.root.pointer(path)) else { break };
            schema = found;
        }
        schema
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of_type(value: &Yaml, schema: &Value) -> bool {
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| match (&value.data, *name) {
            (Data::Null, "null")
            | (Data::Bool(_), "boolean")
            | (Data::Number(..), "number")
            | (Data::Text(_), "string")
            | (Data::List(_), "array")
            | (Data::Map(_), "object") => true,
            (Data::Number(number, _), "integer") => number.is_i64() || number.is_u64(),
            _ => false,
        })
}

fn within(value: &Yaml, schema: &Value) -> bool {
    let Data::Number(number, _) = &value.data else { return true };
    let number = number.as_f64().unwrap_or(0.0);
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    bound("minimum").is_none_or(|least| number >= least)
        && bound("maximum").is_none_or(|most| number <= most)
        && bound("exclusiveMinimum").is_none_or(|least| number > least)
        && bound("exclusiveMaximum").is_none_or(|most| number < most)
}

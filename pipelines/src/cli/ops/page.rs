//! A manual page from an operator's JSON Schema: its description, then every key with type, default and description.

use std::fmt::Write;

use serde_json::Value;

/// Each level of keys stands so much further in.
const STEP: usize = 4;
/// Keys within keys within keys are shown so deep; a type that holds itself would have no end.
pub(super) const DEEPEST: usize = 4;

/// The page of an operator, `width` characters wide.
pub(super) fn page(name: &str, schema: &Value, width: usize) -> String {
    let mut text = format!("{name}\n\n");
    flow(&mut text, describe(schema), 0, width);
    let page = Page { schema, width };
    if properties(schema).next().is_some() {
        text.push_str("\nKeys of `with`\n\n");
        page.keys(&mut text, schema, 1);
    } else {
        text.push_str("\nIt has no keys: leave `with` out.\n");
    }
    text
}

/// A page that is being written.
pub(super) struct Page<'a> {
    pub(super) schema: &'a Value,
    pub(super) width: usize,
}

impl Page<'_> {
    fn keys(&self, text: &mut String, object: &Value, level: usize) {
        let required: Vec<_> = list(object, "required").iter().filter_map(Value::as_str).collect();
        for (i, (key, schema)) in properties(object).enumerate() {
            if i > 0 {
                text.push('\n');
            }
            let mut head = format!("{key}: {}", self.kind(schema));
            if required.contains(&key.as_str()) {
                head.push_str(", required");
            } else if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
                let _ = write!(head, ", default {default}");
            }
            flow(text, &head, level * STEP - 2, self.width);
            let resolved = self.resolve(schema);
            let own = describe(schema);
            flow(text, if own.is_empty() { describe(resolved) } else { own }, level * STEP + 2, self.width);
            self.choices(text, resolved, level);
            let inner = self.inner(resolved);
            if level < DEEPEST && properties(inner).next().is_some() {
                text.push('\n');
                self.keys(text, inner, level + 1);
            } else {
                self.variants(text, inner, level);
            }
        }
    }

    /// Named values with a description of their own, a line each.
    fn choices(&self, text: &mut String, schema: &Value, level: usize) {
        for choice in list(schema, "oneOf") {
            if let (Some(value), about) = (choice.get("const").and_then(Value::as_str), describe(choice))
                && !about.is_empty()
            {
                flow(text, &format!("`{value}`: {about}"), level * STEP + 4, self.width);
            }
        }
    }

    /// What a value may look like, where it may look like several things that have keys.
    fn variants(&self, text: &mut String, schema: &Value, level: usize) {
        for choice in list(schema, "oneOf").iter().chain(list(schema, "anyOf")) {
            let choice = self.resolve(choice);
            if level < DEEPEST && properties(choice).next().is_some() {
                text.push('\n');
                flow(text, describe(choice), level * STEP + 2, self.width);
                self.keys(text, choice, level + 1);
            }
        }
    }

    /// Follows references, and looks through "this or nothing".
    pub(super) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.rsplit('/').next().unwrap_or(name);
            return self.schema.get("$defs").and_then(|defs| defs.get(name)).map_or(schema, |def| self.resolve(def));
        }
        let mut some = list(schema, "anyOf").iter().chain(list(schema, "allOf")).filter(|one| !is_null(one));
        match (some.next(), some.next()) {
            (Some(only), None) => self.resolve(only),
            _ => schema,
        }
    }

    /// What has the keys: the items of a list, or the value itself.
    pub(super) fn inner<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let items = schema.get("items").or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()));
        items.map_or(schema, |items| self.inner(self.resolve(items)))
    }

    /// A type in words: `integer`, `list of text`, `` `a` or `b` ``.
    pub(super) fn kind(&self, schema: &Value) -> String {
        let schema = self.resolve(schema);
        let values = list(schema, "enum").iter().chain(list(schema, "oneOf").iter().filter_map(|one| one.get("const")));
        let mut values: Vec<_> = values.filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        let others = list(schema, "oneOf").iter().chain(list(schema, "anyOf"));
        values.extend(others.filter(|one| one.get("const").is_none() && !is_null(one)).flat_map(|one| {
            match list(one, "enum") {
                [] => vec![self.kind(one)],
                some => some.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect(),
            }
        }));
        values.dedup();
        if !values.is_empty() {
            return values.join(" or ");
        }
        match type_of(schema) {
            "array" => format!("list of {}", schema.get("items").map_or("anything".into(), |items| self.kind(items))),
            "object" => "map".into(),
            "string" => "text".into(),
            "boolean" => "true or false".into(),
            "" => "anything".into(),
            other => other.into(),
        }
    }
}

pub(super) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

pub(super) fn describe(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "null")
}

/// The first type that is not `null`.
fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or(""),
        _ => "",
    }
}

/// Writes paragraphs at an indent, wrapped to a width; listings, lists and tables keep their lines.
fn flow(text: &mut String, source: &str, indent: usize, width: usize) {
    let pad = " ".repeat(indent);
    let mut paragraph: Vec<&str> = Vec::new();
    let mut code = false;
    for line in source.lines() {
        let fence = line.trim_start().starts_with("```");
        let kept = code || fence || line.is_empty() || line.starts_with(['|', '-', '*', ' ']);
        if !kept {
            paragraph.push(line);
            continue;
        }
        wrap(text, &std::mem::take(&mut paragraph).join(" "), &pad, width);
        if code && !fence && !line.is_empty() {
            let _ = writeln!(text, "{pad}    {line}");
        } else if !fence {
            let _ = writeln!(text, "{}", format!("{pad}{line}").trim_end());
        }
        code ^= fence;
    }
    wrap(text, &paragraph.join(" "), &pad, width);
}

fn wrap(text: &mut String, paragraph: &str, pad: &str, width: usize) {
    let mut line = String::new();
    for word in paragraph.split_whitespace() {
        let long = pad.len() + console::measure_text_width(&line) + 1 + console::measure_text_width(word) > width;
        if long && !line.is_empty() {
            let _ = writeln!(text, "{pad}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(text, "{pad}{line}");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// Cuts text into pieces that fit a budget, at places where a reader would cut it too.
    ///
    /// ```yaml
    /// op: cut
    /// with: {size: 3}
    /// ```
    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Cut {
        /// Pieces are no longer, in words.
        #[serde(default = "three")]
        size: u32,
        /// Where to cut.
        by: By,
        /// How to begin.
        start: Option<Start>,
        names: Vec<String>,
    }

    #[derive(JsonSchema, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum By {
        /// At headings first.
        Headings,
        /// Anywhere.
        Words,
    }

    #[derive(JsonSchema, Serialize, Deserialize)]
    struct Start {
        /// In bytes.
        at: u64,
    }

    fn three() -> u32 {
        3
    }

    #[test]
    fn a_page_has_every_key() {
        let schema = schemars::schema_for!(Cut).to_value();
        expect![[r"
            cut

            Cuts text into pieces that fit a budget, at places where a
            reader would cut it too.

                op: cut
                with: {size: 3}

            Keys of `with`

              size: integer, default 3
                  Pieces are no longer, in words.

              by: `headings` or `words`, required
                  Where to cut.
                    `headings`: At headings first.
                    `words`: Anywhere.

              start: map
                  How to begin.

                  at: integer, required
                      In bytes.

              names: list of text, required
        "]]
        .assert_eq(&page("cut", &schema, 60));
    }
}

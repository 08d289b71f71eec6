//! `${…}`: params, matrix keys, items and environment variables, filled into the values of a pipeline.
//!
//! A scalar that is one reference takes the value with its type; within other text the value is written into it. `$${` is the
//! text `${`. What is filled in is not looked at again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::diagnostics::{Diagnostic, Files, Span};
use crate::document::check_name;
use crate::yaml::{self, Data, Entry, Origin, Yaml};

/// A text with its references filled in is at most so many bytes.
const MAX_TEXT: usize = 1 << 20;
/// What the item of a `foreach` is called.
pub(crate) const ITEM: &str = "item";

/// What references are filled in with.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) files: &'a Files,
    /// The params, filled in.
    pub(crate) params: &'a BTreeMap<String, Yaml>,
    /// The matrix keys of this copy of a node with their values, and the item of its `foreach`.
    pub(crate) axes: &'a [(&'a str, &'a Yaml)],
    /// All matrix keys.
    pub(crate) matrix: &'a [&'a str],
    /// The environment variables that may be used, where a secret may stand.
    pub(crate) env: Option<&'a [String]>,
}

impl Scope<'_> {
    /// A value with its references filled in.
    pub(crate) fn filled(&self, value: &Yaml, problems: &mut Vec<Diagnostic>) -> Yaml {
        let mut value = value.clone();
        self.fill(&mut value, problems);
        value
    }

    /// Fills in the references of a value.
    pub(crate) fn fill(&self, value: &mut Yaml, problems: &mut Vec<Diagnostic>) {
        match &mut value.data {
            Data::Text(text) if text.contains("${") => *value = self.text(value.span, text, problems),
            Data::List(items) => items.iter_mut().for_each(|item| self.fill(item, problems)),
            Data::Map(entries) => entries.iter_mut().for_each(|entry| self.fill(&mut entry.value, problems)),
            _ => {}
        }
    }

    fn text(&self, span: Span, text: &str, problems: &mut Vec<Diagnostic>) -> Yaml {
        let mut filled = String::new();
        let mut broken = false;
        for piece in pieces(text) {
            let (name, raw) = match piece {
                Piece::Text(text) => {
                    filled.push_str(text);
                    continue;
                }
                Piece::Reference { name, raw } => (name, raw),
                Piece::Open(raw) => {
                    let place = self.files.within(span, raw);
                    let problem = Diagnostic::at(place, "reference", "`${` is not closed by `}`");
                    problems.push(problem.hint("for the text `${` itself write `$${`"));
                    broken = true;
                    continue;
                }
            };
            let place = self.files.within(span, raw);
            match self.find(name, raw, place) {
                Ok(found) if raw == text => return Yaml { span: place, ..found },
                Ok(found) if matches!(found.data, Data::Broken) => broken = true,
                Ok(found) => match found.scalar() {
                    Some(scalar) => filled.push_str(&scalar),
                    None => {
                        let message = format!("`{name}` is {}: it can't be written into a text", found.describe());
                        problems.push(Diagnostic::at(place, "type", message));
                        broken = true;
                    }
                },
                Err(problem) => {
                    problems.push(*problem);
                    broken = true;
                }
            }
        }
        if filled.len() > MAX_TEXT {
            let message = format!("a text of more than {} MiB, references filled in", MAX_TEXT >> 20);
            problems.push(Diagnostic::at(span, "too-large", message));
            broken = true;
        }
        Yaml::new(span, if broken { Data::Broken } else { Data::Text(filled) })
    }

    fn find(&self, name: &str, raw: &str, place: Span) -> Result<Yaml, Box<Diagnostic>> {
        let (kind, key) = name.split_once('.').map_or(("", name), |(kind, key)| (kind, key));
        if kind == "env" {
            return self.variable(key, place);
        }
        if name == ITEM || kind == ITEM {
            if let Some((_, item)) = self.axes.iter().find(|(axis, _)| *axis == ITEM) {
                return item_value(item, name, place);
            }
            if !self.params.contains_key(ITEM) || kind == ITEM {
                let message = format!("`${{{name}}}` stands for an item of a `foreach`, and there is none here");
                let problem = Diagnostic::at(place, "reference", message);
                return Err(Box::new(
                    problem.hint("it can be used in nodes with `foreach: [a, b]`, or in a group of them"),
                ));
            }
        }
        if matches!(kind, "" | "matrix")
            && let Some((_, value)) = self.axes.iter().find(|(axis, _)| *axis == key)
        {
            let origin = Origin { name: key.into(), span: Some(value.span), what: "the matrix key" };
            return Ok(Yaml { origin: Some(Box::new(origin)), ..(*value).clone() });
        }
        if matches!(kind, "" | "params")
            && let Some(value) = self.param(key)
        {
            let given = || Box::new(Origin { name: key.into(), span: Some(value.span), what: "the param" });
            let origin = value.origin.clone().unwrap_or_else(given);
            return Ok(Yaml { origin: Some(origin), ..value.clone() });
        }
        if matches!(kind, "" | "matrix") && self.matrix.contains(&key) {
            let message = format!("the matrix key `{key}` can be used in nodes only");
            return Err(Box::new(Diagnostic::at(place, "reference", message)));
        }
        Err(Box::new(self.unknown(kind, key, raw, place)))
    }

    /// A param, or a value within one: `sample.top_p`.
    fn param(&self, path: &str) -> Option<&Yaml> {
        let mut keys = path.split('.');
        let first = self.params.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    fn unknown(&self, kind: &str, key: &str, raw: &str, place: Span) -> Diagnostic {
        let params = self.params.keys().map(String::as_str);
        let (what, names): (_, Vec<&str>) = match kind {
            "params" => ("param", params.collect()),
            "matrix" => ("matrix key", self.matrix.to_vec()),
            "" => ("param", params.chain(self.matrix.iter().copied()).collect()),
            _ => ("", Vec::new()),
        };
        if what.is_empty() || key.is_empty() {
            let problem = Diagnostic::at(place, "reference", format!("`{raw}` refers to nothing"));
            return match retort_engine::nearest(kind, ["params", "matrix", "item", "env"]) {
                Some(near) if !kind.is_empty() => problem.hint(format!("did you mean `${{{near}.{key}}}`?")),
                _ => problem.hint("a reference is `${params.NAME}`, `${matrix.NAME}`, `${item.NAME}` or `${env.NAME}`"),
            };
        }
        let problem = Diagnostic::at(place, "unknown-param", format!("unknown {what} `{key}`"));
        match retort_engine::nearest(key, names.iter().copied()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None if (1..=8).contains(&names.len()) => {
                let names = crate::document::listed(&names);
                problem.hint(format!("there is {names}; for the text itself write `${raw}`"))
            }
            None => problem.hint(format!("for the text itself write `${raw}`")),
        }
    }

    fn variable(&self, key: &str, place: Span) -> Result<Yaml, Box<Diagnostic>> {
        let Some(allowed) = self.env else {
            let problem = Diagnostic::at(place, "reference", "an environment variable can be used as `api_key` only");
            return Err(Box::new(problem.hint("everything else is part of the recipe: use a param and `--set`")));
        };
        if !allowed.iter().any(|name| name == key) {
            let problem = Diagnostic::at(place, "unknown-env", format!("`{key}` is not declared under `env:`"));
            return Err(Box::new(match retort_engine::nearest(key, allowed.iter().map(String::as_str)) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("add `env: [{key}]`")),
            }));
        }
        match std::env::var(key) {
            Ok(value) => Ok(Yaml::new(place, Data::Text(value))),
            Err(_) => {
                let message = format!("the environment variable `{key}` is not set");
                Err(Box::new(Diagnostic::at(place, "unset-env", message)))
            }
        }
    }
}

/// The item of a `foreach`, or a value within it: `item.sample.top_p`.
fn item_value(item: &Yaml, path: &str, place: Span) -> Result<Yaml, Box<Diagnostic>> {
    let mut value = item;
    for key in path.split('.').skip(1) {
        value = match (&value.data, value.get(key)) {
            (Data::Broken, _) => break,
            (_, Some(inner)) => inner,
            (_, None) => {
                let is = if matches!(value.data, Data::Map(_)) {
                    String::new()
                } else {
                    format!(": it is {}", value.describe())
                };
                let message = format!("this item has no `{key}`{is}");
                let problem = Diagnostic::at(place, "unknown-param", message).also(item.span, "the item");
                let names: Vec<&str> = value.entries().iter().map(|entry| entry.key.as_str()).collect();
                return Err(Box::new(match retort_engine::nearest(key, names.iter().copied()) {
                    Some(near) => problem.hint(format!("did you mean `{near}`?")),
                    None if names.is_empty() => problem.hint("`${item}` is all of it"),
                    None => problem.hint(format!("it has {}", crate::document::listed(&names))),
                }));
            }
        };
    }
    let origin = Origin { name: path.into(), span: Some(value.span), what: "the item, as" };
    Ok(Yaml { origin: Some(Box::new(origin)), ..value.clone() })
}

/// The params with their references to each other filled in, and `--set` laid over them.
pub(crate) fn resolve(
    raw: &[Entry],
    set: &[(String, String)],
    files: &Files,
    matrix: &[&str],
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<String, Yaml> {
    let mut waiting: BTreeMap<String, Yaml> = BTreeMap::new();
    for entry in raw {
        if let Err(message) = check_name(&entry.key) {
            problems.push(Diagnostic::at(entry.key_span, "name", message));
        }
        waiting.insert(entry.key.clone(), entry.value.clone());
    }
    let mut params: BTreeMap<String, Yaml> = BTreeMap::new();
    for (name, text) in set {
        let key = name.strip_prefix("params.").unwrap_or(name);
        match raw.iter().find(|entry| entry.key == key) {
            Some(entry) => {
                waiting.remove(key);
                params.insert(key.to_string(), given(key, text, entry.value.span));
            }
            None => problems.push(unknown_setting(key, raw)),
        }
    }
    let mut order = Order::of(&waiting);
    while let Some(name) = order.ready.pop_first() {
        let Some(mut value) = waiting.remove(&name) else { continue };
        let scope = Scope { files, params: &params, axes: &[], matrix, env: None };
        scope.fill(&mut value, problems);
        value.origin = None;
        if value.count() > yaml::MAX_VALUES {
            let message = format!("more than {} values, references filled in", yaml::MAX_VALUES);
            problems.push(Diagnostic::at(value.span, "too-large", message));
            value.data = Data::Broken;
        }
        order.done(&name);
        params.insert(name, value);
    }
    if let Some(value) = waiting.values().next() {
        let names: Vec<_> = waiting.keys().map(|name| format!("`{name}`")).collect();
        let message = format!("params refer to each other in a circle: {}", names.join(", "));
        problems.push(Diagnostic::at(value.span, "cycle", message));
    }
    params.extend(waiting.into_iter().map(|(name, value)| (name, Yaml::new(value.span, Data::Broken))));
    params
}

/// Which params can be filled in: those whose own references are.
struct Order {
    ready: BTreeSet<String>,
    needs: HashMap<String, BTreeSet<String>>,
    needed_by: HashMap<String, Vec<String>>,
}

impl Order {
    fn of(waiting: &BTreeMap<String, Yaml>) -> Self {
        let mut order = Order { ready: BTreeSet::new(), needs: HashMap::new(), needed_by: HashMap::new() };
        for (name, value) in waiting {
            // Of `sample.top_p` the param is `sample`.
            let params = references(value).into_iter().filter_map(|path| path.split('.').next().map(String::from));
            let needs: BTreeSet<String> = params.filter(|param| waiting.contains_key(param)).collect();
            for need in &needs {
                order.needed_by.entry(need.clone()).or_default().push(name.clone());
            }
            if needs.is_empty() {
                order.ready.insert(name.clone());
            }
            order.needs.insert(name.clone(), needs);
        }
        order
    }

    fn done(&mut self, name: &str) {
        for other in self.needed_by.remove(name).unwrap_or_default() {
            let needs = self.needs.get_mut(&other).expect("what needs something was counted");
            needs.remove(name);
            if needs.is_empty() {
                self.ready.insert(other);
            }
        }
    }
}

/// The names that a value refers to, without `params.` and `matrix.`.
pub(crate) fn references(value: &Yaml) -> Vec<String> {
    match &value.data {
        Data::Text(text) => pieces(text)
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Reference { name, .. } => {
                    let name = name.strip_prefix("params.").or_else(|| name.strip_prefix("matrix.")).unwrap_or(name);
                    Some(name.to_string())
                }
                Piece::Text(_) | Piece::Open(_) => None,
            })
            .collect(),
        Data::List(items) => items.iter().flat_map(references).collect(),
        Data::Map(entries) => entries.iter().flat_map(|entry| references(&entry.value)).collect(),
        _ => Vec::new(),
    }
}

/// A value of the command line: YAML, or else the text as it is.
fn given(name: &str, text: &str, definition: Span) -> Yaml {
    let mut problems = Vec::new();
    let value = yaml::parse(text, 0, &mut problems).filter(|_| problems.is_empty());
    let value = value.unwrap_or_else(|| {
        let data = if text.trim().is_empty() { Data::Null } else { Data::Text(text.to_string()) };
        Yaml::new(definition, data)
    });
    let origin = Origin { name: name.into(), span: None, what: "the param" };
    Yaml { origin: Some(Box::new(origin)), ..value.moved(definition) }
}

fn unknown_setting(key: &str, raw: &[Entry]) -> Diagnostic {
    let problem = Diagnostic::nowhere("unknown-param", format!("`--set {key}=…` names no param of the pipeline"));
    let names: Vec<&str> = raw.iter().map(|entry| entry.key.as_str()).collect();
    match retort_engine::nearest(key, names.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if names.is_empty() => problem.hint("the pipeline has no `params:`"),
        None => problem.hint(format!("its params are {}", crate::document::listed(&names))),
    }
}

/// A piece of a text.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    /// `${name}`, and how it is written.
    Reference {
        name: &'a str,
        raw: &'a str,
    },
    /// `${` without its end.
    Open(&'a str),
}

fn pieces(mut text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while let Some(at) = text.find("${") {
        if text[..at].ends_with('$') {
            pieces.push(Piece::Text(&text[..at - 1]));
            pieces.push(Piece::Text(&text[at..at + 2]));
            text = &text[at + 2..];
            continue;
        }
        pieces.push(Piece::Text(&text[..at]));
        let rest = &text[at..];
        let line = rest.split('\n').next().unwrap_or(rest);
        let Some(end) = line.find('}') else {
            pieces.push(Piece::Open(line));
            text = &rest[2..];
            continue;
        };
        pieces.push(Piece::Reference { name: rest[2..end].trim(), raw: &rest[..=end] });
        text = &rest[end + 1..];
    }
    pieces.push(Piece::Text(text));
    pieces.retain(|piece| *piece != Piece::Text(""));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_parted_from_text() {
        let reference = |name, raw| Piece::Reference { name, raw };
        assert_eq!(pieces("a ${ x } b"), [Piece::Text("a "), reference("x", "${ x }"), Piece::Text(" b")]);
        assert_eq!(
            pieces("{{ text }} $5 $${x}"),
            [Piece::Text("{{ text }} $5 "), Piece::Text("${"), Piece::Text("x}")]
        );
        assert_eq!(pieces("${a}${b}"), [reference("a", "${a}"), reference("b", "${b}")]);
        assert_eq!(pieces("${a\n}"), [Piece::Open("${a"), Piece::Text("a\n}")]);
    }
}

//! The `models:` table: what an entry may say, and how a name in a node's config becomes its entry.

use std::collections::BTreeMap;

use crate::diagnostics::{Diagnostic, Span};
use crate::document::{map, unknown_key};
use crate::params::Scope;
use crate::source::Source;
use crate::yaml::{Data, Entry, Yaml};

/// The keys of a model that is a file.
const FILE_KEYS: [&str; 2] = ["weights", "sha256"];
/// The keys of a model that a server runs.
const SERVER_KEYS: &[&str] = KEYS.split_at(2).1;
/// The keys of a server's model that are whole numbers.
const COUNTS: [&str; 5] = ["parallel", "timeout", "requests_per_minute", "tokens_per_minute", "max_tokens_total"];
pub(crate) const KEYS: &[&str] = &[
    "weights",
    "sha256",
    "server",
    "name",
    "api_key",
    "parallel",
    "timeout",
    "stream",
    "requests_per_minute",
    "tokens_per_minute",
    "price",
    "max_cost",
    "max_tokens_total",
];

/// The models by name, references filled in.
pub(crate) fn resolve(
    raw: &[Entry],
    scope: Scope<'_>,
    env: &[String],
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<String, Yaml> {
    let mut models = BTreeMap::new();
    for entry in raw {
        if entry.key.is_empty() || entry.key.contains(char::is_whitespace) {
            let message = format!("`{}` can't be a model's name: it has white space", entry.key);
            problems.push(Diagnostic::at(entry.key_span, "name", message));
        }
        let fill = |field: &Entry, problems: &mut Vec<Diagnostic>| {
            let env = (field.key == "api_key").then_some(env);
            Entry { value: Scope { env, ..scope }.filled(&field.value, problems), ..field.clone() }
        };
        let model = match &entry.value.data {
            Data::Map(fields) => {
                let fields = fields.iter().map(|field| fill(field, problems)).collect();
                Yaml { data: Data::Map(fields), ..entry.value.clone() }
            }
            _ => scope.filled(&entry.value, problems),
        };
        let model = check(&model, entry.key_span, problems);
        models.insert(entry.key.clone(), model);
    }
    models
}

/// Finds what is wrong with a model, and gives it as operators read it; `Broken` if there is anything.
pub(crate) fn check(model: &Yaml, at: Span, problems: &mut Vec<Diagnostic>) -> Yaml {
    let before = problems.len();
    let fields = map(model, "a model", problems);
    for field in fields.iter().filter(|field| !KEYS.contains(&field.key.as_str())) {
        problems.push(unknown_key(field, KEYS));
    }
    match (model.entry("weights"), model.entry("server")) {
        (Some(weights), None) => {
            not_with(fields, "weights", SERVER_KEYS, problems);
            check_file(model, weights, at, problems);
        }
        (None, Some(server)) => {
            not_with(fields, "server", &FILE_KEYS, problems);
            check_server(model, server, at, problems);
        }
        (Some(_), Some(server)) => {
            let message = "a model has `weights` or a `server`, not both";
            problems.push(Diagnostic::at(server.key_span, "model", message));
        }
        (None, None) if problems.len() == before && !matches!(model.data, Data::Broken) => {
            let problem = Diagnostic::at(at, "model", "a model has `weights` or a `server`");
            problems.push(problem.hint("`weights: file:PATH`, or `server: URL` and `name: MODEL`"));
        }
        (None, None) => {}
    }
    if problems.len() > before {
        return Yaml { data: Data::Broken, ..model.clone() };
    }
    let mut model = model.clone();
    if let Data::Map(fields) = &mut model.data {
        for field in fields.iter_mut().filter(|field| field.key == "sha256") {
            // A digest of decimal digits only would be read as a number.
            let digest = field.value.scalar().map(|text| text.to_lowercase());
            field.value.data = digest.map_or(Data::Null, Data::Text);
        }
    }
    model
}

/// The model that a node's config names, or that it describes in its place.
pub(crate) fn named(value: &Yaml, key: Span, models: &BTreeMap<String, Yaml>, problems: &mut Vec<Diagnostic>) -> Yaml {
    let found = match &value.data {
        Data::Null => return value.clone(),
        Data::Map(_) => check(value, key, problems),
        Data::Broken => value.clone(),
        _ => match value.scalar().and_then(|name| models.get(name.as_ref())) {
            // The place is that of the name: what is wrong with the model itself was said already.
            Some(model) => Yaml { span: value.span, origin: value.origin.clone(), ..model.clone() },
            None => {
                problems.push(unknown(value, models));
                Yaml { data: Data::Broken, ..value.clone() }
            }
        },
    };
    if matches!(found.data, Data::Broken) { stand_in(found.span) } else { found }
}

/// A model in the place of one that is wrong, so that the rest of the node can be checked.
fn stand_in(span: Span) -> Yaml {
    let weights = Yaml::new(span, Data::Text("file:unknown".into()));
    Yaml::new(span, Data::Map(vec![Entry { key: "weights".into(), key_span: span, value: weights }]))
}

fn unknown(value: &Yaml, models: &BTreeMap<String, Yaml>) -> Diagnostic {
    let Some(name) = value.scalar() else {
        let message = format!("expected the name of a model, found {}", value.describe());
        return Diagnostic::at(value.span, "type", message);
    };
    let problem = Diagnostic::at(value.span, "unknown-model", format!("unknown model `{name}`"));
    let problem = match &value.origin {
        Some(origin) => origin.explain(problem),
        None => problem,
    };
    let names: Vec<&str> = models.keys().map(String::as_str).collect();
    match retort_engine::nearest(&name, names.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if names.is_empty() => problem.hint(format!("`models: {{{name}: {{weights: …}}}}` says what it is")),
        None => problem.hint(format!("`models:` has {}", crate::document::listed(&names))),
    }
}

fn not_with(fields: &[Entry], kind: &str, others: &[&str], problems: &mut Vec<Diagnostic>) {
    for field in fields.iter().filter(|field| others.contains(&field.key.as_str())) {
        let message = format!("`{}` does not go with `{kind}`", field.key);
        problems.push(Diagnostic::at(field.key_span, "model", message));
    }
}

fn check_file(model: &Yaml, weights: &Entry, at: Span, problems: &mut Vec<Diagnostic>) {
    let sources = match &weights.value.data {
        Data::List(parts) if !parts.is_empty() => parts.as_slice(),
        _ => std::slice::from_ref(&weights.value),
    };
    let mut remote = false;
    for source in sources {
        match &source.data {
            Data::Text(text) => match Source::parse(text) {
                Ok(source) => remote |= source.is_remote(),
                Err(message) => {
                    let problem = Diagnostic::at(source.span, "source", message);
                    problems.push(problem.hint("a source is `file:`, `pypi://`, `hf://` or `https://`"));
                }
            },
            Data::Broken => {}
            _ => {
                let message = format!("expected a source or a list of them, found {}", source.describe());
                problems.push(Diagnostic::at(source.span, "type", message));
            }
        }
    }
    match model.get("sha256") {
        Some(digest) => {
            let text = digest.scalar().unwrap_or_default();
            let hexadecimal = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
            if !hexadecimal && !matches!(digest.data, Data::Broken) {
                let message = format!("expected a SHA-256, 64 hexadecimal digits, found {}", digest.describe());
                problems.push(Diagnostic::at(digest.span, "type", message));
            }
        }
        None if remote => {
            let problem = Diagnostic::at(at, "unpinned", "a model that is fetched must be pinned by its digest");
            problems.push(problem.hint("add `sha256:` with what `sha256sum` prints for the file"));
        }
        None => {}
    }
}

fn check_server(model: &Yaml, server: &Entry, at: Span, problems: &mut Vec<Diagnostic>) {
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    match &server.value.data {
        Data::Text(url) if is_url(url) => {}
        Data::Broken => {}
        _ => {
            let message = format!("expected the URL of a server, found {}", server.value.describe());
            let problem = Diagnostic::at(server.value.span, "type", message);
            problems.push(problem.hint("such as `http://127.0.0.1:8080/v1`"));
        }
    }
    check_money(model, problems);
    for key in COUNTS {
        if let Some(value) = model.get(key) {
            let is_whole = matches!(&value.data, Data::Number(number, _) if number.as_u64().is_some_and(|n| n > 0));
            if !is_whole && !matches!(value.data, Data::Broken) {
                let message = format!("expected a whole number from 1, found {}", value.describe());
                problems.push(Diagnostic::at(value.span, "type", message));
            }
        }
    }
    if let Some(value) = model.get("stream")
        && !matches!(value.data, Data::Bool(_) | Data::Broken)
    {
        let message = format!("expected true or false, found {}", value.describe());
        problems.push(Diagnostic::at(value.span, "type", message));
    }
    for key in ["name", "api_key"] {
        match model.get(key) {
            Some(value) if !matches!(value.data, Data::Text(_) | Data::Broken) => {
                let message = format!("expected text, found {}", value.describe());
                problems.push(Diagnostic::at(value.span, "type", message));
            }
            None if key == "name" => {
                let problem = Diagnostic::at(at, "model", "a server's model needs a `name`");
                problems.push(problem.hint("the name by which the server knows it"));
            }
            _ => {}
        }
    }
}

fn check_money(model: &Yaml, problems: &mut Vec<Diagnostic>) {
    let mut amount = |value: &Yaml| {
        let is_amount = matches!(&value.data, Data::Number(number, _) if number.as_f64().is_some_and(|n| n >= 0.0));
        if !is_amount && !matches!(value.data, Data::Broken) {
            let message = format!("expected an amount of money, found {}", value.describe());
            problems.push(Diagnostic::at(value.span, "type", message));
        }
    };
    if let Some(most) = model.get("max_cost") {
        amount(most);
    }
    let Some(price) = model.entry("price") else {
        if let Some(most) = model.entry("max_cost") {
            let problem = Diagnostic::at(most.key_span, "model", "`max_cost` needs the `price` of tokens");
            problems.push(problem.hint("`price: {prompt: 0.15, output: 0.60}`, of a million tokens each"));
        }
        return;
    };
    let parts = ["prompt", "output"];
    parts.iter().filter_map(|part| price.value.get(part)).for_each(&mut amount);
    if matches!(price.value.data, Data::Broken) {
        return;
    }
    let before = problems.len();
    for field in map(&price.value, "a price", problems).iter().filter(|field| !parts.contains(&field.key.as_str())) {
        problems.push(unknown_key(field, &parts));
    }
    let missing = parts.iter().find(|part| price.value.get(part).is_none());
    if let Some(missing) = missing.filter(|_| problems.len() == before) {
        let message = format!("a price needs `{missing}`: what a million tokens cost");
        problems.push(Diagnostic::at(price.key_span, "model", message));
    }
}

//! The shape of a pipeline file: its sections, the files that it includes, the profile that is laid over it.
//!
//! What stands in the sections is left to `params`, `models`, `matrix` and `lower`.

mod profiles;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::diagnostics::{Diagnostic, Files, SourceFile, Span, folder};
use crate::yaml::{self, Data, Entry, Yaml};

/// The version of the format that is read.
const VERSION: &str = "1";
/// What a file that is no pipeline is told.
const BEGINS: &str = "a pipeline begins with `retort: 1` and has `nodes:`";
/// A pipeline file is at most so many bytes.
pub const MAX_BYTES: usize = 64 << 20;
/// The keys of a pipeline.
pub(crate) const KEYS: [&str; 9] =
    ["retort", "name", "include", "env", "params", "models", "matrix", "nodes", "profiles"];
/// The keys of a profile.
pub(crate) const PROFILE_KEYS: [&str; 4] = ["params", "models", "matrix", "nodes"];

/// A pipeline file with all that it includes, nothing filled in.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Where `name` says so.
    pub(crate) name: Option<(String, Span)>,
    /// The environment variables that may be used.
    pub(crate) env: Vec<String>,
    pub(crate) params: Vec<Entry>,
    pub(crate) models: Vec<Entry>,
    pub(crate) matrix: Vec<Entry>,
    pub(crate) nodes: Vec<Entry>,
    pub(crate) profiles: Vec<Entry>,
}

/// Reads a pipeline file and those that it includes. `None` where the file itself can't be read as a map.
pub(crate) fn read(path: &Path, files: &mut Files, problems: &mut Vec<Diagnostic>) -> Option<Document> {
    let mut reader = Reader { files, problems, open: Vec::new() };
    let document = reader.read(path, None)?;
    if document.nodes.is_empty() && reader.problems.is_empty() {
        let whole = Span { file: 0, start: 0, end: reader.files.0[0].text.len() };
        let problem = Diagnostic::at(whole, "no-nodes", "the pipeline has no nodes");
        reader.problems.push(problem.hint("`nodes:` names them: `nodes: {documents: {op: extract, …}}`"));
    }
    Some(document)
}

/// A key that is not among those that are known.
pub(crate) fn unknown_key(entry: &Entry, known: &[&str]) -> Diagnostic {
    let problem = Diagnostic::at(entry.key_span, "unknown-key", format!("unknown key {}", in_backticks(&entry.key)));
    match retort_engine::nearest(&entry.key, known.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint(format!("it takes {}", listed(known))),
    }
}

/// A key of the file that is no section; a node at the top is told where nodes stand.
fn unknown_section(entry: &Entry) -> Diagnostic {
    let problem = unknown_key(entry, &KEYS);
    if entry.value.get("op").is_some() {
        return problem.hint(format!("a node stands under `nodes:`: `nodes: {{{}: {{op: …}}}}`", entry.key));
    }
    problem
}

/// Names in backticks, parted by commas.
pub(crate) fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A text of the file as it is named in a message: cut, where it is long or has several lines.
pub(crate) fn in_backticks(text: &str) -> String {
    let line = text.split('\n').next().unwrap_or(text);
    let short: String = line.chars().take(60).collect();
    if short.len() == text.len() { format!("`{text}`") } else { format!("`{short}…`") }
}

/// The entries of a value that must be a map; `what` says which in a mistake.
pub(crate) fn map<'a>(value: &'a Yaml, what: &str, problems: &mut Vec<Diagnostic>) -> &'a [Entry] {
    if !matches!(value.data, Data::Map(_) | Data::Null | Data::Broken) {
        let message = format!("expected {what} to be a map, found {}", value.describe());
        let problem = Diagnostic::at(value.span, "type", message);
        problems.push(if matches!(value.data, Data::List(_)) {
            problem.hint("an entry of a map is `name: value`, without a dash")
        } else {
            problem
        });
    }
    value.entries()
}

struct Reader<'a> {
    files: &'a mut Files,
    problems: &'a mut Vec<Diagnostic>,
    /// The files that are being read, each included by the one before.
    open: Vec<PathBuf>,
}

impl Reader<'_> {
    fn read(&mut self, path: &Path, included: Option<Span>) -> Option<Document> {
        let mut root = self.parse(path, included)?;
        let file = root.span.file;
        if !matches!(root.data, Data::Map(_)) {
            self.problems.push(not_a_pipeline(&root, &self.files.0[file].text));
            return None;
        }
        for entry in root.entries() {
            if !KEYS.contains(&entry.key.as_str()) {
                self.problems.push(unknown_section(entry));
            }
        }
        self.version(&root);
        let mut document = Document { name: self.name(&root), env: self.names(&root, "env"), ..Document::default() };
        for (key, section) in [
            ("params", &mut document.params),
            ("models", &mut document.models),
            ("matrix", &mut document.matrix),
            ("nodes", &mut document.nodes),
            ("profiles", &mut document.profiles),
        ] {
            if let Some(value) = root.get_mut(key) {
                map(value, &format!("`{key}`"), self.problems);
                // Moved, not copied: this is nearly the whole file.
                if let Data::Map(entries) = &mut value.data {
                    *section = std::mem::take(entries);
                }
            }
        }
        self.include(path, &root, &mut document);
        Some(document)
    }

    fn parse(&mut self, path: &Path, included: Option<Span>) -> Option<Yaml> {
        let bytes = match bytes(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("failed to read `{}`: {}", path.display(), lowercase(&error.to_string()));
                self.problems.push(match included {
                    Some(span) => Diagnostic::at(span, "unreadable", message),
                    None => Diagnostic::nowhere("unreadable", message),
                });
                return None;
            }
        };
        let file = self.files.0.len();
        let (text, problem) = decode(bytes, file);
        self.files.0.push(SourceFile { path: path.to_path_buf(), text });
        if let Some(problem) = problem {
            self.problems.push(problem);
            return None;
        }
        let text = self.files.0[file].text.clone();
        let before = self.problems.len();
        let root = yaml::parse(&text, file, self.problems);
        if root.is_none() && self.problems.len() == before {
            let problem = Diagnostic::at(Span { file, start: 0, end: 0 }, "empty", "the file is empty");
            self.problems.push(problem.hint(BEGINS));
        }
        root
    }

    fn version(&mut self, root: &Yaml) {
        let hint = format!("the file begins with `retort: {VERSION}`, the version of its format");
        let problem = match root.entry("retort") {
            None => {
                let start = Span { end: root.span.start, ..root.span };
                Diagnostic::at(start, "version", "the key `retort` is missing").hint(hint)
            }
            Some(entry) if entry.value.scalar().as_deref() == Some(VERSION) => return,
            Some(entry) => {
                let message = format!("expected the format version `{VERSION}`, found {}", entry.value.describe());
                Diagnostic::at(entry.value.span, "version", message).hint(hint)
            }
        };
        self.problems.push(problem);
    }

    fn name(&mut self, root: &Yaml) -> Option<(String, Span)> {
        let value = root.get("name")?;
        let Some(name) = value.scalar() else {
            let message = format!("expected a name, found {}", value.describe());
            self.problems.push(Diagnostic::at(value.span, "type", message));
            return None;
        };
        if let Err(message) = check_name(&name) {
            self.problems.push(Diagnostic::at(value.span, "name", message));
            return None;
        }
        Some((name.into_owned(), value.span))
    }

    /// A name, or a list of names.
    fn names(&mut self, root: &Yaml, key: &str) -> Vec<String> {
        self.texts(root, key).into_iter().map(|(name, _)| name).collect()
    }

    fn texts(&mut self, root: &Yaml, key: &str) -> Vec<(String, Span)> {
        let Some(value) = root.get(key) else { return Vec::new() };
        let items = if let Data::List(items) = &value.data { items.as_slice() } else { std::slice::from_ref(value) };
        let mut texts = Vec::new();
        for item in items {
            match &item.data {
                Data::Text(text) => texts.push((text.clone(), item.span)),
                Data::Null => {}
                _ => {
                    let message = format!("expected text or a list of texts, found {}", item.describe());
                    self.problems.push(Diagnostic::at(item.span, "type", message));
                }
            }
        }
        texts
    }

    /// Adds the env, params, models, matrix, nodes and profiles of the files that are included. The file's own params win.
    fn include(&mut self, path: &Path, root: &Yaml, document: &mut Document) {
        let own: BTreeSet<String> = document.params.iter().map(|param| param.key.clone()).collect();
        self.open.push(resolved(path));
        for (name, span) in self.texts(root, "include") {
            let path = folder(path).join(&name);
            let path = path.strip_prefix(".").map_or_else(|_| path.clone(), Path::to_path_buf);
            if self.open.contains(&resolved(&path)) {
                self.problems.push(Diagnostic::at(span, "include", format!("`{name}` includes itself")));
                continue;
            }
            let Some(other) = self.read(&path, Some(span)) else { continue };
            document.env.extend(other.env);
            profiles::add(&mut document.profiles, other.profiles);
            let params = other.params.into_iter().filter(|param| !own.contains(&param.key)).collect();
            self.add("param", &mut document.params, params);
            self.add("model", &mut document.models, other.models);
            self.add("matrix key", &mut document.matrix, other.matrix);
            self.add("node", &mut document.nodes, other.nodes);
        }
        self.open.pop();
    }

    fn add(&mut self, kind: &str, own: &mut Vec<Entry>, included: Vec<Entry>) {
        let mut places: HashMap<String, Span> = own.iter().map(|own| (own.key.clone(), own.key_span)).collect();
        for entry in included {
            match places.get(&entry.key) {
                Some(first) => {
                    let message = format!("the {kind} `{}` is defined in two files", entry.key);
                    let mut problem = Diagnostic::at(*first, "duplicate-key", message);
                    if kind == "param" {
                        problem = problem.hint("the file that includes both can say which it is: its own params win");
                    }
                    self.problems.push(problem.also(entry.key_span, "and here"));
                }
                None => {
                    places.insert(entry.key.clone(), entry.key_span);
                    own.push(entry);
                }
            }
        }
    }
}

/// Whether a name can be that of a node, a pipeline, a param: it becomes part of file names, and of `node.port`.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 100 {
        return Err("a name has 1 to 100 characters".into());
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))) {
        Some(c) => Err(format!("a name has letters, digits, `_` and `-` only, not `{c}`")),
        None => Ok(()),
    }
}

fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn lowercase(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or(text);
    text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect()
}

/// The bytes of a file, of one that is too large no more than show that.
pub(crate) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file, and what is wrong with its bytes.
pub(crate) fn decode(bytes: Vec<u8>, file: usize) -> (String, Option<Diagnostic>) {
    let problem = |start: usize, end: usize, message: &str| {
        let problem = Diagnostic::at(Span { file, start, end }, "encoding", message);
        Some(problem.hint("save it as UTF-8"))
    };
    if bytes.len() > MAX_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_BYTES >> 20);
        return (String::new(), Some(Diagnostic::at(Span { file, start: 0, end: 0 }, "too-large", message)));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return (String::new(), problem(0, 0, "the file is UTF-16"));
    }
    let bytes = if bytes.starts_with(b"\xef\xbb\xbf") { bytes[3..].to_vec() } else { bytes };
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            (text, problem(at, at + '\u{fffd}'.len_utf8(), "the file is not UTF-8 text"))
        }
    }
}

fn not_a_pipeline(root: &Yaml, text: &str) -> Diagnostic {
    if matches!(root.data, Data::Null)
        && text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'))
    {
        let start = Span { file: root.span.file, start: 0, end: 0 };
        return Diagnostic::at(start, "empty", "the file is empty").hint(BEGINS);
    }
    let message = format!("expected a pipeline, which is a map, found {}", root.describe());
    Diagnostic::at(root.span, "type", message).hint(BEGINS)
}

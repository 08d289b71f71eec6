//! Mistakes with their places, as text for people and as JSON for tools. It finds none itself.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use retort_engine::nearest;
use serde_json::{Value, json};

/// A piece of a file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The file: an index into `Files`.
    pub file: usize,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// A file that was read, as text.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its path, as the user or the file that includes it wrote it.
    pub path: PathBuf,
    /// Its text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// The files that spans point into; the pipeline itself is the first.
#[derive(Clone, Debug, Default)]
pub struct Files(pub Vec<SourceFile>);

impl Files {
    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        &self.0[span.file].text[span.start..span.end]
    }

    /// The folder of the file that a span is in.
    pub fn base(&self, span: Span) -> PathBuf {
        folder(&self.0[span.file].path)
    }

    /// The first place of `needle` within a span; the span itself where it is not found.
    pub fn within(&self, span: Span, needle: &str) -> Span {
        match self.text(span).find(needle) {
            Some(at) => Span { start: span.start + at, end: span.start + at + needle.len(), ..span },
            None => span,
        }
    }

    /// A line, from 1, of a text that is written as a block below `|`.
    pub(crate) fn block_line(&self, span: Span, line: usize) -> Option<Span> {
        let text = self.text(span);
        let skipped = if text.starts_with('|') { line } else { line - 1 };
        if line == 0 || !text.contains('\n') || text.starts_with(['>', '"', '\'']) {
            return None;
        }
        let start: usize = text.split_inclusive('\n').take(skipped).map(str::len).sum();
        let found = text[start..].split('\n').next()?;
        let indent = found.len() - found.trim_start().len();
        let start = span.start + start + indent;
        Some(Span { start, end: start + found.trim().len(), ..span })
    }

    /// The word at a line and character, both from 1, of a text that is written in one line or as a block. `None` where that can't be told:
    /// with escapes, filled in, folded.
    pub(crate) fn word(&self, span: Span, line: usize, column: usize) -> Option<Span> {
        let (file, text) = (&self.0[span.file].text, self.text(span));
        if text.contains("${") {
            return None;
        }
        let begin = file[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let is_block = file[begin..span.start].trim().is_empty();
        let start = match line {
            1 if text.starts_with('"') && text.contains('\\') => return None,
            1 => usize::from(text.starts_with(['"', '\''])),
            _ if is_block => {
                text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>() + (span.start - begin)
            }
            _ => return None,
        };
        let rest = text.get(start..)?.split('\n').next()?;
        let start = start + rest.char_indices().nth(column - 1)?.0;
        let rest = &text[start..];
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
        Some(Span { start: span.start + start, end: span.start + start + length, ..span })
    }

    /// The part of a span on its first line, so that a block is not underlined whole.
    fn first_line(&self, span: Span) -> Span {
        let text = self.text(span);
        let line = text.split('\n').next().unwrap_or(text).trim_end();
        Span { end: span.start + line.len(), ..span }
    }

    /// Line and column of a byte, both from 1; columns count characters.
    fn position(&self, file: usize, byte: usize) -> (usize, usize) {
        let before = &self.0[file].text[..byte];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }
}

/// The folder of a file; `.` where the path is a bare name.
pub(crate) fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// A short name of the kind of mistake: `unknown-operator`.
    pub code: &'static str,
    /// What is wrong: a lowercase fragment without a full stop, names in backticks.
    pub message: String,
    /// A way out.
    pub hint: Option<String>,
    /// Where; `None` where no file says it (`--set`).
    pub span: Option<Span>,
    /// A second place that explains the first.
    pub also: Option<(Span, String)>,
    /// The node it is about.
    pub node: Option<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn at(span: Span, code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic { span: Some(span), ..Diagnostic::nowhere(code, message) }
    }

    /// A mistake that no file shows.
    pub fn nowhere(code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic { code, message: message.into(), hint: None, span: None, also: None, node: None }
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds `did you mean …`, if a name is near enough.
    #[must_use]
    pub fn did_you_mean<'a>(self, wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, names) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// Adds a second place.
    #[must_use]
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }
}

/// Every mistake of a pipeline, in the order of their places.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    files: Files,
    list: Vec<Diagnostic>,
    /// How many more there are than are kept.
    n_more: usize,
}

/// Mistakes that are shown, at most: a file that is wrong in every line is shown in bounded time.
const MOST: usize = 100;

impl Diagnostics {
    /// Mistakes in `files`. The same mistake at the same place is kept once.
    pub fn new(files: Files, mut list: Vec<Diagnostic>) -> Self {
        let mut seen = HashSet::new();
        let also = |diagnostic: &Diagnostic| diagnostic.also.as_ref().map(|(span, _)| *span);
        // Of several copies of a node, one that was shown with its item speaks for those that were not.
        list.sort_by_key(|diagnostic| (diagnostic.span, also(diagnostic).is_none()));
        list.retain(|diagnostic| {
            let key = (diagnostic.span, diagnostic.code, diagnostic.message.clone());
            match also(diagnostic) {
                Some(also) => seen.insert((key.clone(), None)) | seen.insert((key, Some(also))),
                None => seen.insert((key, None)),
            }
        });
        let n_more = list.len().saturating_sub(MOST);
        list.truncate(MOST);
        Diagnostics { files, list, n_more }
    }

    /// How many there are, shown or not.
    pub fn count(&self) -> usize {
        self.list.len() + self.n_more
    }

    /// The mistakes, at most a hundred.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// All mistakes as a compiler shows them, parted by empty lines, with ANSI colours if `color`.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let reports: Vec<_> = self.list.iter().map(|diagnostic| self.one(diagnostic, &renderer)).collect();
        let more = if self.n_more > 0 { format!("\n\n… and {} more", self.n_more) } else { String::new() };
        reports.join("\n\n") + &more + "\n"
    }

    /// An object a mistake, for editors: `severity`, `code`, `message`; where known `hint` and `node`; `file`, `line`, `column`,
    /// `end_line` and `end_column` (from 1, columns in characters, the end excluded); `also` with a second place and its `label`.
    pub fn to_json(&self) -> Vec<Value> {
        self.list.iter().map(|diagnostic| self.object(diagnostic)).collect()
    }

    fn one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(&diagnostic.message);
        let mut group = Group::with_title(title);
        if let Some(span) = diagnostic.span {
            let mut snippet = self.snippet(span.file);
            snippet = snippet.annotation(AnnotationKind::Primary.span(self.range(span)));
            match &diagnostic.also {
                Some((also, label)) if also.file == span.file => {
                    let annotation = AnnotationKind::Context.span(self.range(*also)).label(label);
                    group = group.element(snippet.annotation(annotation));
                }
                Some((also, label)) => {
                    let annotation = AnnotationKind::Context.span(self.range(*also)).label(label);
                    group = group.element(snippet).element(self.snippet(also.file).annotation(annotation));
                }
                None => group = group.element(snippet),
            }
        }
        if let Some(hint) = &diagnostic.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint));
        }
        renderer.render(&[group])
    }

    fn snippet(&self, file: usize) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
        let file = &self.files.0[file];
        Snippet::source(file.text.as_str()).path(file.path.to_string_lossy().into_owned())
    }

    fn range(&self, span: Span) -> std::ops::Range<usize> {
        let span = self.files.first_line(span);
        span.start..span.end
    }

    fn object(&self, diagnostic: &Diagnostic) -> Value {
        let mut object = json!({"severity": "error", "code": diagnostic.code, "message": diagnostic.message});
        if let Some(hint) = &diagnostic.hint {
            object["hint"] = json!(hint);
        }
        if let Some(node) = &diagnostic.node {
            object["node"] = json!(node);
        }
        if let Some(span) = diagnostic.span {
            self.place(span, &mut object);
        }
        if let Some((span, label)) = &diagnostic.also {
            object["also"] = json!({"label": label});
            self.place(*span, &mut object["also"]);
        }
        object
    }

    fn place(&self, span: Span, object: &mut Value) {
        let (line, column) = self.files.position(span.file, span.start);
        let (end_line, end_column) = self.files.position(span.file, self.range(span).end);
        object["file"] = json!(self.files.0[span.file].path.to_string_lossy());
        object["line"] = json!(line);
        object["column"] = json!(column);
        object["end_line"] = json!(end_line);
        object["end_column"] = json!(end_column);
    }
}

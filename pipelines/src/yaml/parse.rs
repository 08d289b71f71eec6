//! YAML text to a tree, within bounds, so that no small file grows large.
//!
//! Anchors, aliases and merge keys (`<<`) are resolved here.

use std::collections::{BTreeMap, HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::syntax::{Known, braces_hint, syntax};
use super::{Data, Entry, Yaml, scalar};
use crate::diagnostics::{Diagnostic, Span};

/// Lists and maps within each other, at most.
pub(super) const MAX_DEPTH: usize = 64;
/// Values of a small file, aliases counted as often as they are used, at most.
pub(crate) const MAX_VALUES: usize = 200_000;
/// Bytes that a large file must have for each of its values.
const BYTES_A_VALUE: usize = 4;
/// Keys that are compared one by one; more are looked up.
const FEW_KEYS: usize = 12;

/// Reads one YAML document. A mistake of syntax ends it; the rest (keys given twice, tags) are collected in `problems`.
pub(crate) fn parse(text: &str, file: usize, problems: &mut Vec<Diagnostic>) -> Option<Yaml> {
    let mut builder = Builder {
        places: Places::new(text, file),
        open: Vec::new(),
        items: Vec::new(),
        entries: Vec::new(),
        anchors: BTreeMap::new(),
        values: 0,
        most: MAX_VALUES.max(text.len() / BYTES_A_VALUE),
        root: None,
        problems,
    };
    for event in Parser::new_from_str(text) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(Box::new(syntax(&builder.places, *error.marker(), error.info(), &builder.known()))),
        };
        if let Err(problem) = taken {
            builder.problems.push(*problem);
            return None;
        }
    }
    builder.root
}

/// Turns the parser's marks, which count characters, into bytes.
pub(super) struct Places<'a> {
    pub(super) text: &'a str,
    pub(super) file: usize,
    /// The byte of each character; `None` where all are single bytes.
    bytes: Option<Vec<usize>>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str, file: usize) -> Self {
        let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Places { text, file, bytes }
    }

    pub(super) fn byte(&self, mark: Marker) -> usize {
        match &self.bytes {
            Some(bytes) => bytes.get(mark.index()).copied().unwrap_or(self.text.len()),
            None => mark.index().min(self.text.len()),
        }
    }

    /// A span without the white space and line ends that the parser counts in.
    fn span(&self, start: Marker, end: Marker) -> Span {
        let (start, end) = (self.byte(start), self.byte(end));
        let end = start + self.text[start..end.max(start)].trim_end().len();
        Span { file: self.file, start, end }
    }
}

/// A list or map that is not closed yet.
struct Open {
    start: Marker,
    anchor: usize,
    /// Lists and maps within, this one included.
    depth: usize,
    holds: Holds,
}

/// What it holds so far: all after these.
enum Holds {
    List(usize),
    Map(usize, Option<(String, Span)>),
}

struct Builder<'a> {
    places: Places<'a>,
    open: Vec<Open>,
    /// Of the lists that are open. In one place, so that each gets its memory once, when its length is known.
    items: Vec<Yaml>,
    /// Of the maps that are open.
    entries: Vec<Entry>,
    anchors: BTreeMap<usize, (Yaml, usize)>,
    values: usize,
    /// So many values may there be.
    most: usize,
    root: Option<Yaml>,
    problems: &'a mut Vec<Diagnostic>,
}

impl Builder<'_> {
    fn known(&self) -> Known<'_> {
        let open = self.open.iter().map(|open| self.places.byte(open.start)).collect();
        let words = self.places.text.split([' ', '\n', '\t']);
        Known { open, anchors: words.filter_map(|word| word.strip_prefix('&')).collect() }
    }

    fn take(&mut self, event: Event<'_>, span: saphyr_parser::Span) -> Result<(), Box<Diagnostic>> {
        let place = self.places.span(span.start, span.end);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                let message = "a second YAML document: a pipeline is one";
                return Err(Box::new(Diagnostic::at(place, "yaml", message).hint("remove the line `---`")));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let data = self.scalar(&text, style, tag.as_deref(), place);
                self.value(Yaml::new(place, data), 0, anchor)?;
            }
            Event::Alias(anchor) => {
                let Some((value, depth)) = self.anchors.get(&anchor).cloned() else {
                    return Err(Box::new(Diagnostic::at(place, "yaml", "an anchor that holds itself")));
                };
                self.values += value.count();
                self.value(value, depth, 0)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), place);
                self.begin(span.start, anchor, Holds::List(self.items.len()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.as_deref(), place);
                self.begin(span.start, anchor, Holds::Map(self.entries.len(), None))?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span.end)?,
            Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn begin(&mut self, start: Marker, anchor: usize, holds: Holds) -> Result<(), Box<Diagnostic>> {
        self.open.push(Open { start, anchor, depth: 1, holds });
        self.bounded(self.open.len())
    }

    fn end(&mut self, end: Marker) -> Result<(), Box<Diagnostic>> {
        let open = self.open.pop().expect("the parser closes what it opened");
        let span = self.places.span(open.start, end);
        let data = match open.holds {
            Holds::List(from) => Data::List(self.items.drain(from..).collect()),
            Holds::Map(from, _) => {
                let entries = self.entries.drain(from..).collect();
                Data::Map(self.merged(entries))
            }
        };
        self.value(Yaml::new(span, data), open.depth, open.anchor)
    }

    /// Puts a value into the list or map that is open.
    fn value(&mut self, value: Yaml, depth: usize, anchor: usize) -> Result<(), Box<Diagnostic>> {
        self.values += 1;
        self.bounded(self.open.len() + depth)?;
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), depth));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        open.depth = open.depth.max(depth + 1);
        match &mut open.holds {
            Holds::List(_) => self.items.push(value),
            Holds::Map(_, key) => match key.take() {
                Some((key, key_span)) => self.entries.push(Entry { key, key_span, value }),
                None => *key = Some(self::key(value, self.places.text)?),
            },
        }
        Ok(())
    }

    fn bounded(&self, depth: usize) -> Result<(), Box<Diagnostic>> {
        let here = self.open.last().map_or(0, |open| self.places.byte(open.start));
        let here = Span { file: self.places.file, start: here, end: here };
        if depth > MAX_DEPTH {
            let message = format!("lists and maps more than {MAX_DEPTH} deep");
            return Err(Box::new(Diagnostic::at(here, "yaml", message)));
        }
        if self.values > self.most {
            let message = format!("more than {} values, aliases included", self.most);
            return Err(Box::new(Diagnostic::at(here, "yaml", message)));
        }
        Ok(())
    }

    /// Resolves `<<`, and names keys that are given twice.
    fn merged(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        if is_plain(&entries) {
            return entries;
        }
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        let mut places: HashMap<String, Span> = HashMap::new();
        let mut bases = Vec::new();
        for entry in entries {
            if entry.key == "<<" {
                bases.push(entry);
            } else if let Some(first) = places.get(&entry.key) {
                let message = format!("the key `{}` is given twice", entry.key);
                let problem = Diagnostic::at(entry.key_span, "duplicate-key", message);
                self.problems.push(problem.also(*first, "first here"));
            } else {
                places.insert(entry.key.clone(), entry.key_span);
                kept.push(entry);
            }
        }
        for base in bases {
            let maps = if let Data::List(items) = base.value.data { items } else { vec![base.value] };
            for map in maps {
                let Data::Map(entries) = map.data else {
                    let problem = Diagnostic::at(map.span, "yaml", "`<<` takes a map, or a list of maps");
                    self.problems.push(problem.hint("such as `<<: *NAME`, where a map above is called `&NAME`"));
                    continue;
                };
                for entry in entries {
                    if places.insert(entry.key.clone(), entry.key_span).is_none() {
                        kept.push(entry);
                    }
                }
            }
        }
        kept
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Data {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if !is_text {
            self.no_tag(tag, span);
        }
        if style == ScalarStyle::Plain && !is_text { scalar::plain(text) } else { Data::Text(text.to_string()) }
    }

    fn no_tag(&mut self, tag: Option<&Tag>, span: Span) {
        if let Some(tag) = tag {
            let name = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
            let problem = Diagnostic::at(span, "yaml", format!("the tag `{name}` has no meaning here"));
            self.problems.push(problem.hint("remove it: a pipeline is plain data"));
        }
    }
}

/// Whether no key is given twice, and none is `<<`.
fn is_plain(entries: &[Entry]) -> bool {
    if entries.len() <= FEW_KEYS {
        let again = |i: usize| entries[..i].iter().any(|other| other.key == entries[i].key);
        return (0..entries.len()).all(|i| entries[i].key != "<<" && !again(i));
    }
    let mut keys = HashSet::with_capacity(entries.len());
    entries.iter().all(|entry| entry.key != "<<" && keys.insert(entry.key.as_str()))
}

fn key(value: Yaml, text: &str) -> Result<(String, Span), Box<Diagnostic>> {
    if let Data::Text(text) = value.data {
        return Ok((text, value.span));
    }
    if let Some(text) = value.scalar() {
        return Ok((text.into_owned(), value.span));
    }
    let outer = value.span.start.saturating_sub(1);
    if matches!(value.data, Data::Map(_)) && text[outer..].starts_with("{{") {
        let line = text[outer..].split('\n').next().unwrap_or_default().trim_end();
        let span = Span { start: outer, end: outer + line.len(), ..value.span };
        let problem = Diagnostic::at(span, "yaml", "a text that begins with `{{` is read as a map");
        return Err(Box::new(problem.hint(braces_hint(line))));
    }
    let message = format!("expected a name before the colon, found {}", value.describe());
    Err(Box::new(Diagnostic::at(value.span, "yaml", message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(text: &str) -> Value {
        let mut problems = Vec::new();
        let value = parse(text, 0, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        value.map_or(Value::Null, |value| value.to_json())
    }

    fn mistakes(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        parse(text, 0, &mut problems);
        problems
            .iter()
            .map(|problem| format!("{}: {}", problem.span.map_or(0, |span| span.start), problem.message))
            .collect()
    }

    #[test]
    fn scalars_are_read_by_the_core_schema() {
        let text = "[1, -2, 0x10, 0o17, 1.5, 3.0e-4, .5, 007, 1_000, yes, true, ~, '1', 18446744073709551615, 1e999, .inf, a.b, -, 1-2]";
        assert_eq!(
            read(&text.replace("-, ", "")),
            json!([
                1,
                -2,
                16,
                15,
                1.5,
                3.0e-4,
                0.5,
                "007",
                "1_000",
                "yes",
                true,
                null,
                "1",
                u64::MAX,
                "1e999",
                ".inf",
                "a.b",
                "1-2"
            ])
        );
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved() {
        let text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n";
        assert_eq!(read(text), json!({"a": {"x": 1, "y": 2}, "b": {"y": 3, "x": 1}, "c": {"x": 1, "y": 2}}));
    }

    #[test]
    fn spans_are_bytes() {
        let text = "größe: {ß: 1}\nlast:\n  - ein Wort # a comment\n";
        let root = parse(text, 0, &mut Vec::new()).unwrap();
        let slice = |span: Span| &text[span.start..span.end];
        assert_eq!(slice(root.entries()[0].key_span), "größe");
        assert_eq!(slice(root.get("größe").unwrap().span), "{ß: 1}");
        let Data::List(items) = &root.get("last").unwrap().data else { panic!("a list") };
        assert_eq!(slice(items[0].span), "ein Wort");
    }

    #[test]
    fn what_would_grow_without_bound_is_refused() {
        let bomb: String = (1..9).fold("a0: &a0 [1,1,1,1,1,1,1,1,1]\n".into(), |text, i| {
            let alias = format!("*a{}", i - 1);
            text + &format!("a{i}: &a{i} [{}]\n", vec![alias; 9].join(", "))
        });
        assert!(mistakes(&bomb)[0].ends_with("more than 200000 values, aliases included"));
        assert!(mistakes(&"[".repeat(100_000))[0].contains("deep"));
        let nested: String = (0..200).fold(String::new(), |text, i| text + &" ".repeat(i) + "a:\n");
        assert!(mistakes(&nested)[0].ends_with("lists and maps more than 64 deep"));
        assert_eq!(mistakes("a: &a [*a]"), ["7: an anchor that holds itself"]);
    }

    #[test]
    fn mistakes_of_syntax_have_a_place() {
        assert_eq!(
            mistakes("a: 1\na: 2\nb: !x 1"),
            ["13: the tag `!x` has no meaning here", "5: the key `a` is given twice"]
        );
        assert_eq!(mistakes("a:\n\tb: 1\n"), ["3: a tab can't indent a line of YAML"]);
        assert_eq!(
            mistakes("with: {model: ${params.x}, y: 1}"),
            ["14: within `{…}` and `[…]` a `${…}` stands in quotes"]
        );
        assert_eq!(mistakes("a: 1\n---\nb: 2"), ["5: a second YAML document: a pipeline is one"]);
        assert_eq!(mistakes("[a]: 1"), ["0: expected a name before the colon, found a list"]);
    }
}

//! Marks inside lines of reStructuredText: emphasis, literals, roles, links, substitutions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::{heading, is_adornment};
use crate::document::links::Marks;
use crate::extract::tidy;

/// Names that a file gives: to places, to URLs, to pieces of text.
pub(super) struct Names {
    /// Targets outside the file.
    urls: BTreeMap<String, String>,
    /// The titles that labels stand before.
    titles: BTreeMap<String, String>,
    substitutions: BTreeMap<String, String>,
}

static MARK: LazyLock<Regex> = LazyLock::new(|| {
    let literal = r"``(?P<literal>.+?)``";
    let role = r":(?P<role>[a-zA-Z][a-zA-Z0-9:+._-]*):`(?P<roled>[^`]+)`";
    let phrase = r"`(?P<phrase>[^`]+)`(?P<under>__?)?";
    let strong = r"\*\*(?P<strong>[^*\s](?:[^*]*[^*\s])?)\*\*";
    let emphasis = r"\*(?P<emphasis>[^*\s](?:[^*]*[^*\s])?)\*";
    let note = r"\[(?P<note>[#*\w.-]+)\]_";
    let substitution = r"\|(?P<substitution>[^|\s](?:[^|]*[^|\s])?)\|_{0,2}";
    let word = r"\b(?P<word>[A-Za-z0-9][A-Za-z0-9.-]*)_\b";
    let escape = r"\\(?P<escape>.)";
    let all = [literal, role, phrase, strong, emphasis, note, substitution, word, escape].join("|");
    Regex::new(&all.replace(r")_\b", r")_(?:\s|[.,;:)]|$)")).expect("a pattern of ours")
});

impl Names {
    /// Looks through a file for what it names.
    pub(super) fn of(lines: &[&str]) -> Self {
        let mut names = Self { urls: BTreeMap::new(), titles: BTreeMap::new(), substitutions: BTreeMap::new() };
        let mut waiting: Vec<String> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            if let Some((name, url)) = trimmed.strip_prefix(".. _").and_then(target) {
                if url.is_empty() {
                    waiting.push(normal(&name));
                } else {
                    names.urls.insert(normal(&name), url.to_owned());
                }
            } else if let Some((name, text)) =
                trimmed.strip_prefix(".. |").and_then(|rest| rest.split_once("| replace::"))
            {
                names.substitutions.insert(name.to_owned(), text.trim().to_owned());
            } else if !line.is_empty() && !is_adornment(line) {
                if let Some((_, title, _)) = heading(&lines[at..]) {
                    waiting.iter().for_each(|name| drop(names.titles.insert(name.clone(), title.to_owned())));
                    names.titles.insert(normal(title), title.to_owned());
                }
                waiting.clear();
            }
        }
        names
    }

    /// Text without its marks, and the links in it.
    pub(super) fn inline(&self, text: &str) -> (String, Marks) {
        let (text, marks) = self.inline_lines(text);
        (tidy::inline(&text, false), marks)
    }

    /// The same with line ends kept.
    pub(super) fn inline_lines(&self, text: &str) -> (String, Marks) {
        let mut marks = Marks::default();
        let plain = MARK.replace_all(text, |mark: &Captures<'_>| self.plain(mark, &mut marks));
        (tidy::inline(&plain, true), marks)
    }

    fn plain(&self, mark: &Captures<'_>, marks: &mut Marks) -> String {
        let part = |name: &str| mark.name(name).map(|part| part.as_str());
        if let Some(text) = part("literal").or(part("strong")).or(part("emphasis")) {
            return text.to_owned();
        }
        if let (Some(role), Some(text)) = (part("role"), part("roled")) {
            return self.role(role, text, marks);
        }
        if let Some(text) = part("phrase") {
            return if part("under").is_some() { self.reference(text, marks) } else { text.to_owned() };
        }
        if let Some(name) = part("note") {
            marks.links.push((name.to_owned(), format!("#fn:{name}")));
            return format!("[{name}]");
        }
        if let Some(name) = part("substitution") {
            return self.substitutions.get(name).cloned().unwrap_or_else(|| name.to_owned());
        }
        if let Some(word) = part("word") {
            let rest = &mark[0][word.len() + 1..];
            let known = self.urls.contains_key(&normal(word)) || self.titles.contains_key(&normal(word));
            return if known { self.reference(word, marks) + rest } else { mark[0].to_owned() };
        }
        let escaped = part("escape").unwrap_or("");
        if escaped.trim().is_empty() { String::new() } else { escaped.to_owned() }
    }

    /// `text <target>` or a name, with a role before it.
    fn role(&self, role: &str, text: &str, marks: &mut Marks) -> String {
        let (label, target) = labelled(text).unwrap_or((text, text));
        let short = label.trim_start_matches('!');
        let target = target.trim_start_matches(['!', '~']);
        match role.rsplit(':').next().unwrap_or(role) {
            "ref" | "numref" => {
                let title = self.titles.get(&normal(target)).map_or(target, String::as_str);
                let label = if label == target { title } else { label };
                marks.links.push((label.to_owned(), format!("#{}", normal(target))));
                label.to_owned()
            }
            "doc" => {
                marks.links.push((label.to_owned(), format!("{}.rst", target.trim_start_matches('/'))));
                label.to_owned()
            }
            "rfc" => format!("RFC {label}"),
            "pep" => format!("PEP {label}"),
            "kbd" | "menuselection" => label.replace("-->", ">"),
            // `~a.b.c` shows its last part only.
            _ => short.strip_prefix('~').map_or(short, |name| name.rsplit('.').next().unwrap_or(name)).to_owned(),
        }
    }

    fn reference(&self, text: &str, marks: &mut Marks) -> String {
        let (label, target) = labelled(text).unwrap_or((text, text));
        let target = match target.strip_suffix('_').filter(|_| label != target) {
            Some(name) => normal(name),
            None if label == target => normal(target),
            None => return Self::linked(label, target.to_owned(), marks),
        };
        let target = self.urls.get(&target).cloned().unwrap_or_else(|| format!("#{target}"));
        Self::linked(label, target, marks)
    }

    fn linked(label: &str, target: String, marks: &mut Marks) -> String {
        marks.links.push((label.to_owned(), target));
        label.to_owned()
    }
}

/// `label <target>` in its parts.
fn labelled(text: &str) -> Option<(&str, &str)> {
    let (label, target) = text.strip_suffix('>')?.rsplit_once('<')?;
    let label = label.trim();
    Some((if label.is_empty() { target } else { label }, target.trim()))
}

/// The name and URL of a target, from what stands after `.. _`.
pub(super) fn target(rest: &str) -> Option<(String, &str)> {
    if let Some(quoted) = rest.strip_prefix('`') {
        let (name, url) = quoted.split_once("`:")?;
        return Some((name.to_owned(), url.trim()));
    }
    let end = rest
        .char_indices()
        .find(|(at, char)| {
            *char == ':' && !rest[..*at].ends_with('\\') && rest[at + 1..].chars().next().is_none_or(|next| next == ' ')
        })?
        .0;
    Some((rest[..end].replace('\\', ""), rest[end + 1..].trim()))
}

/// A name as names are compared: small letters, single blanks.
pub(super) fn normal(name: &str) -> String {
    name.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

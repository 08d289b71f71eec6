//! Where the words `Question` and `Answer` are labels in a model's output, and where they are text.
//!
//! At the beginning of a line nearly every dress is taken for a label: `Q:`, `Question 1:`, `**Question:**`, `1. Question -`,
//! `### Answer 2`, `> - *A:*`. In the middle of a line only `Question:` and `Answer:` are, and `Q:` and `A:` after the end of a
//! sentence: "copy it to drive A: and" holds no answer. What lies in code is never looked at.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What a label announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Question,
    Answer,
}

/// A label in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) kind: Kind,
    /// `Question 2`.
    pub(super) number: Option<u32>,
    /// The byte at which the text before it ends.
    pub(super) start: usize,
    /// The byte at which the text after it begins.
    pub(super) end: usize,
}

/// What may stand before a label or a question: quote signs, heading signs, bullets, numbers, emphasis.
const MARKS: &str = r"[\s>]*(?:#{1,6}\s*|[-+•–*]\s+|\(?\d{1,3}[.):]\s*|[*_]{1,3}\s*)*";
const WORDS: &str = r"(?<question>(?i:question|ques)|Q)|(?<answer>(?i:answer|ans)|A)";
const NUMBER: &str = r"\s*(?:(?i:no\.?|number)\s*)?[#(]?\s*(?<number>\d{1,3})?\)?";

static AT_START: LazyLock<Regex> = LazyLock::new(|| {
    // A colon, or a full stop or dash after a number, or nothing: `### Question 1`.
    regex(&format!(
        r"^{MARKS}(?:{WORDS}){NUMBER}\s*[*_]{{0,3}}\s*(?:(?<colon>[:：])|(?<stop>[.)]|\s[-–—])(?:\s|$)|(?<alone>$))[*_]{{0,3}}[ \t]*"
    ))
});
static WITHIN: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"[*_]{0,3}\b(?:(?<question>Question|QUESTION)|(?<answer>Answer|ANSWER)|(?<q>Q)|(?<a>A))\s?#?(?<number>\d{1,3})?[*_]{0,3}[:：](?<after>[*_]{0,3}(?:\s+|$)|[*_]{0,3})",
    )
});
static SECTION: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(r"^{MARKS}(?i:(?<question>questions)|(?<answer>answers))[*_]{{0,3}}\s*:?\s*[*_]{{0,3}}\s*$"))
});
static ITEM: LazyLock<Regex> = LazyLock::new(|| regex(r"^\s*[*_]{0,3}\(?(?<number>\d{1,3})[.):][*_]{0,3}\s+"));
static BREAK: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"^{MARKS}(?i:(?:(?:question|q)\s*(?:and|&|/|-)?\s*(?:answer|a)(?:\s+pairs?)?\s*#?\d*|pair\s*#?\d+))\s*[*_]{{0,3}}\s*[:.]?\s*[*_]{{0,3}}\s*$"
    ))
});
static MARKED: LazyLock<Regex> = LazyLock::new(|| regex(&format!("^{MARKS}")));
static BEFORE_NUMBER: LazyLock<Regex> = LazyLock::new(|| regex(r"(?:^|[.?!:*_])\s*(?<number>\(?\d{1,3}[.)])\s*$"));

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns of this file are fixed")
}

/// The label with which a line begins.
pub(super) fn at_start(line: &str) -> Option<Label> {
    let found = AT_START.captures(line)?;
    let word = found.name("question").or(found.name("answer"))?;
    let number = number(&found);
    let end = found.get(0).map_or(0, |whole| whole.end());
    let letter = word.len() == 1;
    let rest = &line[end..];
    let is_label = if found.name("colon").is_some() {
        // `A:\>dir` is a drive.
        !letter || rest.is_empty() || line[..end].ends_with(|last: char| last.is_whitespace() || "*_".contains(last))
    } else if found.name("stop").is_some() {
        number.is_some()
    } else {
        // A word alone on its line; a letter needs its number.
        !letter || number.is_some()
    };
    is_label.then(|| Label { kind: kind(&found), number, start: 0, end })
}

/// The labels in the middle of a line from `from` on. `line` has its code blanked.
pub(super) fn within(line: &str, from: usize) -> Vec<Label> {
    let mut labels = Vec::new();
    for found in WITHIN.captures_iter(line) {
        let whole = found.get(0).expect("a match has a place");
        if whole.start() < from {
            continue;
        }
        let mut before = line[..whole.start()].trim_end();
        let quoted = line[..whole.start()].ends_with(['"', '\'', '“', '‘', '-', '/']);
        let letter = found.name("q").or(found.name("a")).is_some();
        let spaced = found.name("after").is_some_and(|after| !after.is_empty() || after.end() == line.len());
        if quoted || (letter && !(spaced && ends_sentence(before))) {
            continue;
        }
        // "…of the job. 2. Question: …": the number belongs to the label.
        if let Some(number) = BEFORE_NUMBER.captures(before).and_then(|found| found.name("number")) {
            before = before[..number.start()].trim_end();
        }
        labels.push(Label {
            kind: kind(&found),
            number: number(&found),
            start: before.len().max(from),
            end: whole.end(),
        });
    }
    labels
}

/// A heading over a list of questions or of answers: `Questions:`.
pub(super) fn section(line: &str) -> Option<Kind> {
    SECTION.captures(line).map(|found| kind(&found))
}

/// The number of a list's item, and where its text begins.
pub(super) fn item(line: &str) -> Option<(u32, usize)> {
    let found = ITEM.captures(line)?;
    Some((number(&found)?, found.get(0)?.end()))
}

/// A line that only parts pairs: `**Pair 2**`, `Question and answer 3:`, `---`.
pub(super) fn parts_pairs(line: &str) -> bool {
    let rule = line.trim();
    let is_rule = rule.len() >= 3 && ["-", "*", "_", "="].iter().any(|sign| rule.replace(*sign, "").trim().is_empty());
    is_rule || BREAK.is_match(line)
}

/// The line without what stands before its text, and whether anything did beside blanks.
pub(super) fn unmarked(line: &str) -> (&str, bool) {
    let marks = MARKED.find(line).map_or("", |marks| marks.as_str());
    (&line[marks.len()..], !marks.trim().is_empty())
}

/// Whether a sentence ends here, emphasis and closing brackets aside.
pub(super) fn ends_sentence(text: &str) -> bool {
    text.trim_end_matches(['*', '_', ')', '"', '”', '`']).ends_with(['.', '?', '!', '。', '？', '！'])
}

/// The text with what lies between backticks blanked, byte for byte.
pub(super) fn blank_code(line: &str) -> String {
    let mut parts = line.split('`').peekable();
    let mut blanked = String::with_capacity(line.len());
    let mut code = false;
    while let Some(part) = parts.next() {
        // A backtick without a partner opens nothing.
        if code && parts.peek().is_some() {
            part.bytes().for_each(|_| blanked.push('x'));
        } else {
            blanked.push_str(part);
        }
        if parts.peek().is_some() {
            blanked.push('`');
        }
        code = !code;
    }
    blanked
}

fn kind(found: &Captures<'_>) -> Kind {
    if found.name("question").or(found.name("q")).is_some() { Kind::Question } else { Kind::Answer }
}

fn number(found: &Captures<'_>) -> Option<u32> {
    found.name("number").and_then(|number| number.as_str().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_wears_many_dresses() {
        let lines = [
            "Q: What?",
            "Question: What?",
            "question 1: What?",
            "Question 1. What?",
            "**Question:** What?",
            "**Question**: What?",
            "**Question 1: What?**",
            "1. Question: What?",
            "2) **Q2:** What?",
            "### Question 1",
            "- Question 3: What?",
            "> *Q:* What?",
            "Question #4: What?",
            "Question (5): What?",
            "Question：What?",
            "**Question 6**",
            "QUESTION 7 - What?",
            "Question:What?",
        ];
        for line in lines {
            let label = at_start(line);
            assert_eq!(label.as_ref().map(|label| label.kind), Some(Kind::Question), "{line}");
            let text = label.map(|label| line[label.end..].trim_matches('*')).unwrap_or_default();
            assert!(text.is_empty() || text == "What?", "{line}: {text}");
        }
        assert_eq!(at_start("Answer 2: That.").and_then(|label| label.number), Some(2));
    }

    #[test]
    fn text_is_not_a_label() {
        let lines = [
            "A: drive",
            "A:\\>dir",
            "A disk is mounted.",
            "Answers vary.",
            "Questionable: yes",
            "The answer: 42",
            "Q",
            "A. first choice",
            "Answer the call.",
            "Question everything.",
            "Ask: why",
        ];
        for line in &lines[1..] {
            assert_eq!(at_start(line), None, "{line}");
        }
        for line in ["copy it to A: and B: today", "the \"Answer:\" button", "a Q: b", "see the FAQ: it", "Q/A: x"] {
            assert_eq!(within(line, 0), [], "{line}");
        }
    }

    #[test]
    fn code_is_blanked_byte_for_byte() {
        assert_eq!(blank_code("ü `é: A` b ` c"), "ü `xxxxx` b ` c");
    }
}

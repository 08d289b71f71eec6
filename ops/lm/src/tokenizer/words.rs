//! Text to words, as known pre-tokenizers cut it, without their regular expressions.
//!
//! The patterns look at classes of characters only, never back, and one character ahead; so a few branches do the same
//! as the reference's backtracking engine. `words/tests.rs` holds the two together on every short string over the
//! classes and on every character.

use super::classes::{CLASSES, Class, Classes};
use super::gguf::{GPT2, LLAMA3, QWEN2};
use serde_json::Value;
use std::sync::LazyLock;
use tokenizers::utils::SysRegex;

/// A pre-tokenizer that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Words {
    digits: Digits,
    rule: Rule,
}

/// Whether digits become words of their own before the rule is applied to what lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    /// They do not.
    Stay,
    /// Every `\p{N}` does.
    Pattern,
    /// Everything that `char::is_numeric` says does.
    Numeric,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// [`GPT2`].
    Gpt2,
    /// [`LLAMA3`] and [`QWEN2`], which take so many digits at most.
    Llama3 { digits: usize },
}

impl Words {
    /// What a pre-tokenizer does, told by its description in a `tokenizer.json`: an optional step for digits, one of
    /// the known patterns, and bytes to characters. Nothing for all others.
    pub(super) fn of(description: &Value) -> Option<Self> {
        let steps = match description["type"].as_str()? {
            "Sequence" => description["pretokenizers"].as_array()?.as_slice(),
            _ => std::slice::from_ref(description),
        };
        let (digits, steps) = match steps.split_first()? {
            (first, rest) if first["type"] == "Digits" && first["individual_digits"] == true => (Digits::Numeric, rest),
            (first, rest) if isolated(first) == Some(r"\p{N}") => (Digits::Pattern, rest),
            _ => (Digits::Stay, steps),
        };
        let (bytes, steps) = steps.split_last()?;
        if bytes["type"] != "ByteLevel" || bytes["add_prefix_space"] != false {
            return None;
        }
        let by_bytes = bytes["use_regex"].as_bool().unwrap_or(true);
        let rule = match (steps, by_bytes) {
            ([], true) => Rule::Gpt2,
            ([step], false) => match isolated(step)? {
                GPT2 => Rule::Gpt2,
                LLAMA3 => Rule::Llama3 { digits: 3 },
                QWEN2 => Rule::Llama3 { digits: 1 },
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { digits, rule })
    }

    /// Hands the words of `text` to `take`, in order, without gaps.
    pub(super) fn each<E>(self, text: &str, take: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let classes = &*CLASSES;
        match self.digits {
            Digits::Stay => self.rule.each(classes, text, take),
            Digits::Pattern => self.rule.between(classes, text, |digit| classes.of(digit) == Class::Number, take),
            Digits::Numeric => self.rule.between(classes, text, char::is_numeric, take),
        }
    }
}

/// The first digit from a byte on, and where it ends.
fn next_digit(text: &str, mut at: usize, is_digit: impl Fn(char) -> bool) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    while let Some(&byte) = bytes.get(at) {
        let length = if byte < 128 { 1 } else { text[at..].chars().next()?.len_utf8() };
        if byte.is_ascii_digit() || byte >= 128 && text[at..].starts_with(&is_digit) {
            return Some((at, at + length));
        }
        at += length;
    }
    None
}

/// The pattern of a step that parts what it matches from what lies between.
fn isolated(step: &Value) -> Option<&str> {
    let splits = step["type"] == "Split" && step["behavior"] == "Isolated" && step["invert"] == false;
    step["pattern"]["Regex"].as_str().filter(|_| splits)
}

impl Rule {
    /// Each digit, and the words of what lies between them.
    fn between<E>(
        self,
        classes: &Classes,
        text: &str,
        is_digit: impl Fn(char) -> bool,
        take: &mut impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut begun = 0;
        while let Some((at, end)) = next_digit(text, begun, &is_digit) {
            self.each(classes, &text[begun..at], take)?;
            self.each(classes, &text[at..end], take)?;
            begun = end;
        }
        self.each(classes, &text[begun..], take)
    }

    fn each<E>(self, classes: &Classes, text: &str, take: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut at = 0;
        while at < text.len() {
            let end = match self {
                Self::Gpt2 => gpt2(classes, text, at),
                Self::Llama3 { digits } => llama3(classes, text, at, digits),
            };
            take(&text[at..end])?;
            at = end;
        }
        Ok(())
    }
}

/// Where the match of [`GPT2`] that begins at `at` ends.
fn gpt2(classes: &Classes, text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[at] == b'\'' {
        let length = match bytes.get(at + 1..).unwrap_or_default() {
            [b's' | b't' | b'm' | b'd', ..] => 2,
            [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => 3,
            _ => 0,
        };
        if length > 0 {
            return at + length;
        }
    }
    let begun = if bytes[at] == b' ' { at + 1 } else { at };
    match classes.at(text, begun) {
        Some((class, _)) if !class.is_space() => run(classes, text, begun, class),
        _ => blanks(classes, text, at),
    }
}

/// Where the match of [`LLAMA3`] that begins at `at` ends.
fn llama3(classes: &Classes, text: &str, at: usize, digits: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[at] == b'\''
        && let Some(length) = contraction(text, at)
    {
        return at + length;
    }
    let (class, length) = classes.at(text, at).expect("there is more text");
    match class {
        Class::Letter => return run(classes, text, at, class),
        Class::Number => return some(classes, text, at, class, digits),
        Class::Blank | Class::Other => {
            if let Some((Class::Letter, _)) = classes.at(text, at + length) {
                return run(classes, text, at + length, Class::Letter);
            }
        }
        Class::LineEnd => {}
    }
    let begun = if bytes[at] == b' ' { at + 1 } else { at };
    if let Some((Class::Other, _)) = classes.at(text, begun) {
        return run(classes, text, run(classes, text, begun, Class::Other), Class::LineEnd);
    }
    let end = spaces(classes, text, at);
    match bytes[at..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(last) => at + last + 1,
        None => blanks(classes, text, at),
    }
}

/// The length of `'s`, `'re` and their like in either case. Beyond ASCII the reference's own folding decides.
fn contraction(text: &str, at: usize) -> Option<usize> {
    static ANY_CASE: LazyLock<SysRegex> =
        LazyLock::new(|| SysRegex::new("^(?i:'s|'t|'re|'ve|'m|'ll|'d)").expect("it is a pattern"));
    let rest = &text.as_bytes()[at + 1..];
    let near = &rest[..rest.len().min(2)];
    if near.is_ascii() {
        return match near {
            [b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => Some(2),
            [b'r' | b'R' | b'v' | b'V', b'e' | b'E'] | [b'l' | b'L', b'l' | b'L'] => Some(3),
            _ => None,
        };
    }
    let end = text[at..].char_indices().nth(3).map_or(text.len(), |(length, _)| at + length);
    ANY_CASE.find_iter(&text[at..end]).next().map(|(_, end)| end)
}

/// The end of the characters of a class from `at` on.
#[inline]
fn run(classes: &Classes, text: &str, at: usize, class: Class) -> usize {
    some(classes, text, at, class, usize::MAX)
}

#[inline]
fn some(classes: &Classes, text: &str, mut at: usize, class: Class, most: usize) -> usize {
    let mut count = 0;
    while count < most
        && let Some((here, length)) = classes.at(text, at)
        && here == class
    {
        at += length;
        count += 1;
    }
    at
}

fn spaces(classes: &Classes, text: &str, mut at: usize) -> usize {
    while let Some((class, length)) = classes.at(text, at)
        && class.is_space()
    {
        at += length;
    }
    at
}

/// `\s+(?!\S)|\s+`: white space, but for its last character if something follows.
fn blanks(classes: &Classes, text: &str, at: usize) -> usize {
    let end = spaces(classes, text, at);
    let last = text[at..end].char_indices().next_back().map_or(at, |(last, _)| at + last);
    if end == text.len() || last == at { end } else { last }
}

#[cfg(test)]
#[path = "words/tests.rs"]
mod tests;

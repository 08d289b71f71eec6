//! Text to words, as known pre-tokenizers cut it, without their regular expressions.
//!
//! The patterns look at classes of characters only, never back, and one character ahead; so a few branches do the same
//! as the reference's backtracking engine. `words/tests.rs` holds the two together on every short string over the
//! classes and on every character.

use super::classes::{CLASSES, Class};
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
        let is_digit: fn(char) -> bool = match self.digits {
            Digits::Stay => return self.rule.each(text, take),
            Digits::Pattern => |character| class_of(character) == Class::Number,
            Digits::Numeric => char::is_numeric,
        };
        let mut begun = 0;
        for (at, digit) in text.match_indices(is_digit) {
            self.rule.each(&text[begun..at], take)?;
            self.rule.each(digit, take)?;
            begun = at + digit.len();
        }
        self.rule.each(&text[begun..], take)
    }
}

fn class_of(character: char) -> Class {
    CLASSES.at(character.encode_utf8(&mut [0; 4]), 0).map_or(Class::Other, |(class, _)| class)
}

/// The pattern of a step that parts what it matches from what lies between.
fn isolated(step: &Value) -> Option<&str> {
    let splits = step["type"] == "Split" && step["behavior"] == "Isolated" && step["invert"] == false;
    step["pattern"]["Regex"].as_str().filter(|_| splits)
}

impl Rule {
    fn each<E>(self, text: &str, take: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut at = 0;
        while at < text.len() {
            let end = match self {
                Self::Gpt2 => gpt2(text, at),
                Self::Llama3 { digits } => llama3(text, at, digits),
            };
            take(&text[at..end])?;
            at = end;
        }
        Ok(())
    }
}

/// Where the match of [`GPT2`] that begins at `at` ends.
fn gpt2(text: &str, at: usize) -> usize {
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
    match CLASSES.at(text, begun) {
        Some((class, _)) if !class.is_space() => run(text, begun, class),
        _ => blanks(text, at),
    }
}

/// Where the match of [`LLAMA3`] that begins at `at` ends.
fn llama3(text: &str, at: usize, digits: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[at] == b'\''
        && let Some(length) = contraction(text, at)
    {
        return at + length;
    }
    let (class, length) = CLASSES.at(text, at).expect("there is more text");
    match class {
        Class::Letter => return run(text, at, class),
        Class::Number => return some(text, at, class, digits),
        Class::Blank | Class::Other => {
            if let Some((Class::Letter, _)) = CLASSES.at(text, at + length) {
                return run(text, at + length, Class::Letter);
            }
        }
        Class::LineEnd => {}
    }
    let begun = if bytes[at] == b' ' { at + 1 } else { at };
    if let Some((Class::Other, _)) = CLASSES.at(text, begun) {
        return run(text, run(text, begun, Class::Other), Class::LineEnd);
    }
    let end = spaces(text, at);
    match bytes[at..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(last) => at + last + 1,
        None => blanks(text, at),
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
fn run(text: &str, at: usize, class: Class) -> usize {
    some(text, at, class, usize::MAX)
}

#[inline]
fn some(text: &str, mut at: usize, class: Class, most: usize) -> usize {
    let mut count = 0;
    while count < most
        && let Some((here, length)) = CLASSES.at(text, at)
        && here == class
    {
        at += length;
        count += 1;
    }
    at
}

fn spaces(text: &str, mut at: usize) -> usize {
    while let Some((class, length)) = CLASSES.at(text, at)
        && class.is_space()
    {
        at += length;
    }
    at
}

/// `\s+(?!\S)|\s+`: white space, but for its last character if something follows.
fn blanks(text: &str, at: usize) -> usize {
    let end = spaces(text, at);
    let last = text[at..end].char_indices().next_back().map_or(at, |(last, _)| at + last);
    if end == text.len() || last == at { end } else { last }
}

#[cfg(test)]
#[path = "words/tests.rs"]
mod tests;

//! What kind of character each is, as the regular expressions of pre-tokenizers see it.
//!
//! The reference's own engine is asked, a page of 256 characters when the first of them is met: so the classes are its
//! classes, of whatever version of Unicode it has.

use std::sync::{LazyLock, OnceLock};
use tokenizers::utils::SysRegex;

/// The classes that the known patterns tell apart; every character has just one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`, but for line ends.
    Blank,
    /// `[\r\n]`
    LineEnd,
    /// `[^\s\p{L}\p{N}]`
    Other,
}

impl Class {
    /// `\s`
    pub(super) fn is_space(self) -> bool {
        matches!(self, Self::Blank | Self::LineEnd)
    }
}

const PAGE: usize = 256;

/// Classes of all characters, in pages.
pub(super) struct Classes {
    ascii: [Class; 128],
    pages: Vec<OnceLock<Box<[Class; PAGE]>>>,
    engine: Engine,
}

/// The engine knows one Unicode, so one table serves every tokenizer.
pub(super) static CLASSES: LazyLock<Classes> = LazyLock::new(|| {
    let engine = Engine::new();
    let ascii = std::array::from_fn(|code| engine.class(char::from(code as u8)));
    let pages = (0..=char::MAX as usize / PAGE).map(|_| OnceLock::new()).collect();
    Classes { ascii, pages, engine }
});

impl Classes {
    /// The class of the character that begins at a byte of `text`, and its length in bytes; nothing at the end.
    #[inline]
    pub(super) fn at(&self, text: &str, at: usize) -> Option<(Class, usize)> {
        let byte = *text.as_bytes().get(at)?;
        if byte < 128 {
            return Some((self.ascii[usize::from(byte)], 1));
        }
        let character = text[at..].chars().next()?;
        Some((self.of(character), character.len_utf8()))
    }

    /// The class of a character.
    pub(super) fn of(&self, character: char) -> Class {
        let code = character as usize;
        let page = self.pages[code / PAGE].get_or_init(|| {
            let of = |offset| char::from_u32((code / PAGE * PAGE + offset) as u32);
            Box::new(std::array::from_fn(|offset| of(offset).map_or(Class::Other, |of| self.engine.class(of))))
        });
        page[code % PAGE]
    }
}

struct Engine {
    letter: SysRegex,
    number: SysRegex,
    space: SysRegex,
}

impl Engine {
    fn new() -> Self {
        let regex = |pattern| SysRegex::new(pattern).expect("a class is a pattern");
        Self { letter: regex(r"\p{L}"), number: regex(r"\p{N}"), space: regex(r"\s") }
    }

    fn class(&self, character: char) -> Class {
        let text = String::from(character);
        let is = |regex: &SysRegex| regex.find_iter(&text).next().is_some();
        if matches!(character, '\r' | '\n') {
            Class::LineEnd
        } else if is(&self.letter) {
            Class::Letter
        } else if is(&self.number) {
            Class::Number
        } else if is(&self.space) {
            Class::Blank
        } else {
            Class::Other
        }
    }
}

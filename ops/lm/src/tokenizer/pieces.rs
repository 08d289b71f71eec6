//! What bytes each token stands for, and text from tokens as they come.

use std::collections::BTreeMap;

/// The bytes of every token by id; control tokens have none.
pub(super) struct Pieces {
    bytes: Vec<Box<[u8]>>,
    /// `SentencePiece` vocabularies put a space before a text, which is not part of it.
    leading_space: bool,
}

/// How a vocabulary spells bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's: each byte one printable character.
    ByteLevel,
    /// `SentencePiece`'s: text with `▁` for a space, and `<0xAB>` for a byte.
    SentencePiece,
}

impl Pieces {
    pub(super) fn new(bytes: Vec<Box<[u8]>>, leading_space: bool) -> Self {
        Self { bytes, leading_space }
    }

    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Turns the spelling of a vocabulary into bytes.
pub(super) struct Speller {
    spelling: Spelling,
    bytes: BTreeMap<char, u8>,
}

impl Speller {
    pub(super) fn new(spelling: Spelling) -> Self {
        Self { spelling, bytes: byte_alphabet() }
    }

    pub(super) fn bytes(&self, token: &str) -> Box<[u8]> {
        match self.spelling {
            Spelling::ByteLevel => self.byte_level(token),
            Spelling::SentencePiece => sentence_piece(token),
        }
    }

    /// A token with a character outside the alphabet was added as plain text and stands for itself.
    fn byte_level(&self, token: &str) -> Box<[u8]> {
        let bytes: Option<Vec<u8>> = token.chars().map(|character| self.bytes.get(&character).copied()).collect();
        bytes.unwrap_or_else(|| token.as_bytes().to_vec()).into()
    }
}

fn sentence_piece(token: &str) -> Box<[u8]> {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
    if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        return Box::new([byte]);
    }
    token.replace('▁', " ").into_bytes().into()
}

/// How a byte-level vocabulary spells each byte.
pub(super) fn byte_spelling() -> [char; 256] {
    let mut spelling = ['\0'; 256];
    for (character, byte) in byte_alphabet() {
        spelling[usize::from(byte)] = character;
    }
    spelling
}

/// GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the other bytes for U+0100 and on, in order.
fn byte_alphabet() -> BTreeMap<char, u8> {
    let mut next = 0x100;
    let mut alphabet = BTreeMap::new();
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let character = if printable {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).expect("below the surrogates")
        };
        alphabet.insert(character, byte);
    }
    alphabet
}

/// Text from tokens as they come: a character whose bytes are not all there yet waits.
pub struct TextStream<'a> {
    pieces: &'a Pieces,
    waiting: Vec<u8>,
    at_start: bool,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(pieces: &'a Pieces) -> Self {
        Self { pieces, waiting: Vec::new(), at_start: true }
    }

    /// The text that `id` completes; empty for control tokens and in the middle of a character.
    pub fn push(&mut self, id: u32) -> String {
        let mut bytes = self.pieces.bytes(id);
        if bytes.is_empty() {
            return String::new();
        }
        if self.at_start && self.pieces.leading_space {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.at_start = false;
        self.waiting.extend_from_slice(bytes);
        self.take_whole()
    }

    /// What is left when no token follows: an unfinished character becomes U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.waiting).into_owned()
    }

    fn take_whole(&mut self) -> String {
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.waiting.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let rest = chunk.invalid();
            let unfinished = done + rest.len() == self.waiting.len()
                && std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
            if rest.is_empty() || unfinished {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            done += rest.len();
        }
        self.waiting.drain(..done);
        text
    }
}

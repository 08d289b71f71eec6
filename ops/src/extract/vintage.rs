//! Single-byte text that says nothing of its encoding: Windows-1252, MacRoman or NeXTSTEP, told by where its characters stand.
//!
//! In the right encoding a byte above 0x7f inside a word is a letter, before a word an opening quote, at the start of a line a
//! bullet; in a wrong one it is `©` between two letters, or a control character. Each such place counts for or against.

use encoding_rs::{Encoding, MACINTOSH, WINDOWS_1252};

use super::encoding::nextstep;

/// No more high bytes than this are looked at.
const ENOUGH: usize = 4000;

/// An encoding of one byte a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SingleByte {
    Web(&'static Encoding),
    NextStep,
}

/// The likeliest of these three and of what was guessed by the bytes' frequencies; the guess where they are equally likely.
pub(super) fn likeliest(bytes: &[u8], guess: &'static Encoding) -> SingleByte {
    let [guess, web, mac] = [guess, WINDOWS_1252, MACINTOSH].map(SingleByte::Web);
    let candidates = [guess, web, SingleByte::NextStep, mac];
    let places = || (0..bytes.len()).filter(|at| bytes[*at] >= 0x80).take(ENOUGH);
    let score = |candidate: &SingleByte| -> i32 {
        let table = table(*candidate);
        places().map(|at| points(bytes, at, &table)).sum()
    };
    let mut best = (candidates[0], score(&candidates[0]));
    for candidate in &candidates[1..] {
        let points = score(candidate);
        if points > best.1 {
            best = (*candidate, points);
        }
    }
    best.0
}

/// Decodes all of it.
pub(super) fn decode(bytes: &[u8], encoding: SingleByte) -> String {
    match encoding {
        SingleByte::Web(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
        SingleByte::NextStep => bytes.iter().map(|byte| nextstep(*byte)).collect(),
    }
}

/// The characters of the bytes from 0x80.
fn table(encoding: SingleByte) -> Vec<char> {
    (0x80..=0xff_u8).map(|byte| decode(&[byte], encoding).chars().next().unwrap_or('\u{fffd}')).collect()
}

/// How well the character at a place fits its neighbours.
fn points(bytes: &[u8], at: usize, table: &[char]) -> i32 {
    let char_at = |at: usize| match bytes.get(at) {
        Some(byte) if *byte < 0x80 => char::from(*byte),
        Some(byte) => table[usize::from(byte - 0x80)],
        None => '\n',
    };
    let before = at.checked_sub(1).map_or('\n', char_at);
    let (char, after) = (char_at(at), char_at(at + 1));
    let (word_before, word_after) = (before.is_alphabetic(), after.is_alphabetic());
    match char {
        '\u{fffd}' => -4,
        '\u{a0}' => 0,
        'ﬁ' | 'ﬂ' => {
            if word_before || word_after {
                3
            } else {
                -3
            }
        }
        '’' => {
            if word_before {
                3
            } else if before == ' ' {
                -1
            } else {
                1
            }
        }
        '“' | '‘' | '«' | '‹' | '„' | '‚' => {
            if !word_before && !after.is_whitespace() {
                3
            } else {
                -2
            }
        }
        '”' | '»' | '›' => {
            if !before.is_whitespace() && !word_after {
                3
            } else {
                -2
            }
        }
        '•' | '·' => {
            if before == '\n' || before == ' ' || before == '\t' {
                3
            } else {
                -3
            }
        }
        '—' | '–' | '…' => {
            if word_before && word_after && char == '…' {
                -1
            } else {
                2
            }
        }
        '©' | '®' | '™' | '°' | '§' | '£' | '¶' | '†' => {
            if word_before && word_after {
                -3
            } else {
                1
            }
        }
        _ if char.is_control() => -4,
        _ if char.is_alphabetic() => letter(char, before, after),
        _ => {
            if word_before || word_after {
                -2
            } else {
                0
            }
        }
    }
}

/// A letter stands among letters, and a capital not behind a small one.
fn letter(char: char, before: char, after: char) -> i32 {
    if char.is_uppercase() && before.is_lowercase()
        || char.is_lowercase() && before.is_uppercase() && after.is_uppercase()
    {
        return -3;
    }
    let common =
        "éèàùâêîôûëïüçöäßñáíóúåøæãõìòœąćęłńśźżčďěňřšťůžőű".contains(char.to_lowercase().next().unwrap_or(char));
    let joined = before.is_alphabetic() || after.is_alphabetic();
    match (joined, common) {
        (true, true) => 3,
        (true, false) => -1,
        (false, true) => 1,
        (false, false) => -2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_by_where_characters_stand() {
        let mac = SingleByte::Web(MACINTOSH);
        let web = SingleByte::Web(WINDOWS_1252);
        let cases: [(&[u8], SingleByte, &str); 6] = [
            (
                b"Don\xa9t type \xaa\xaeles\xba here.\n\xb7 one\n",
                SingleByte::NextStep,
                "Don’t type “ﬁles” here.\n• one\n",
            ),
            (b"pr\xddparer les p\xd7tes, d\xddj\xd5", SingleByte::NextStep, "préparer les pâtes, déjà"),
            (b"Don\xd5t type \xd2files\xd3 here.\r\xa5 one", mac, "Don’t type “files” here.\r• one"),
            (b"un caf\x8e d\x8ej\x88 pr\x90t", mac, "un café déjà prêt"),
            (b"Don\x92t type \x93files\x94 \x96 \xa9 1995", web, "Don’t type “files” – © 1995"),
            (b"un caf\xe9 d\xe9j\xe0 pr\xeat, Stra\xdfe", web, "un café déjà prêt, Straße"),
        ];
        for (bytes, encoding, text) in cases {
            assert_eq!(likeliest(bytes, WINDOWS_1252), encoding, "{text}");
            assert_eq!(decode(bytes, encoding), text);
        }
    }
}

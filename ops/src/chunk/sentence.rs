//! Where sentences begin: Unicode's rules (UAX #29), mended where they cut after an abbreviation.
//!
//! A boundary lies only behind a sign that ends a sentence or a line. So in text of the usual characters only those
//! signs are looked at; all other text is left to `unicode-segmentation`, and a test holds the two together.

use unicode_segmentation::UnicodeSegmentation;

/// The bytes at which the sentences of a paragraph begin; the first is 0. Empty for an empty text.
pub fn starts(paragraph: &str) -> Vec<usize> {
    let mut bounds = usual_bounds(paragraph).unwrap_or_else(|| unicode_bounds(paragraph));
    bounds.push(paragraph.len());
    let mut starts = Vec::new();
    let (mut begun, mut goes_on) = (0, false);
    for end in bounds {
        let piece = paragraph[begun..end].trim_end();
        let blank = piece.is_empty();
        if !goes_on && !blank {
            starts.push(begun);
        }
        goes_on = blank && goes_on || ends_in_abbreviation(piece);
        begun = end;
    }
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
    starts
}

/// The boundaries inside a text.
fn unicode_bounds(text: &str) -> Vec<usize> {
    text.split_sentence_bound_indices().map(|(at, _)| at).skip(1).collect()
}

/// What the rules tell apart (UAX #29, table 4), of the characters known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// `ParaSep`: the end of a line.
    Line,
    /// `ATerm`: the full stop.
    Stop,
    /// `STerm`: `!` and `?`.
    Term,
    Close,
    Space,
    Lower,
    Upper,
    Digit,
    /// `SContinue`: what goes on with a sentence.
    Comma,
    Other,
}

/// The class of the character at a byte and its length; `None` for one that is not known here.
fn class(text: &str, at: usize) -> Option<(Class, usize)> {
    let byte = text.as_bytes()[at];
    let class = match byte {
        b'\n' | b'\r' => Class::Line,
        b'.' => Class::Stop,
        b'!' | b'?' => Class::Term,
        b'"' | b'\'' | b'(' | b')' | b'[' | b']' | b'{' | b'}' => Class::Close,
        b' ' | b'\t' | b'\x0B' | b'\x0C' => Class::Space,
        b'a'..=b'z' => Class::Lower,
        b'A'..=b'Z' => Class::Upper,
        b'0'..=b'9' => Class::Digit,
        b',' | b'-' | b':' | b';' => Class::Comma,
        0..=0x7F => Class::Other,
        _ => {
            let character = text[at..].chars().next()?;
            let class = match character {
                '‘' | '’' | '“' | '”' => Class::Close,
                '\u{A0}' => Class::Space,
                '–' | '—' => Class::Comma,
                '…' | '•' | '©' | '→' | '¶' => Class::Other,
                'à'..='ö' | 'ß' => Class::Lower,
                _ => return None,
            };
            return Some((class, character.len_utf8()));
        }
    };
    Some((class, 1))
}

/// Which bytes are characters that no sentence ends at.
const ENDS_NOTHING: [bool; 256] = {
    let mut ends_nothing = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        ends_nothing[byte] = !matches!(byte as u8, b'\n' | b'\r' | b'.' | b'!' | b'?');
        byte += 1;
    }
    ends_nothing
};

/// The boundaries inside a text of characters that are known here; `None` for any other.
fn usual_bounds(text: &str) -> Option<Vec<usize>> {
    let mut bounds = Vec::new();
    let (mut at, mut before) = (0, Class::Other);
    while at < text.len() {
        // What ends nothing is passed by at once; of it the last counts, which an abbreviation may end with.
        let passed = text.as_bytes()[at..].iter().take_while(|byte| ENDS_NOTHING[usize::from(**byte)]).count();
        if passed > 0 {
            at += passed;
            before = class(text, at - 1)?.0;
            continue;
        }
        let (here, length) = class(text, at)?;
        at += length;
        match here {
            Class::Line => {
                at += usize::from(text[at - 1..].starts_with("\r\n"));
                bounds.push(at);
            }
            Class::Stop | Class::Term => {
                let in_name = here == Class::Stop && matches!(before, Class::Lower | Class::Upper);
                at = end_of_sentence(text, at, here, in_name, &mut bounds)?;
            }
            _ => {}
        }
        before = here;
    }
    bounds.pop_if(|last| *last == text.len());
    Some(bounds)
}

/// Rules SB6 to SB11, for what follows a sign that may end a sentence: where it is followed by something else than closing
/// signs and spaces, and whether there is a boundary.
fn end_of_sentence(text: &str, begun: usize, sign: Class, in_name: bool, bounds: &mut Vec<usize>) -> Option<usize> {
    let skip = |mut at: usize, wanted: Class| {
        while at < text.len() {
            let (here, length) = class(text, at)?;
            if here != wanted {
                break;
            }
            at += length;
        }
        Some(at)
    };
    let end = skip(skip(begun, Class::Close)?, Class::Space)?;
    if end == text.len() {
        return Some(end);
    }
    let next = class(text, end)?.0;
    let inside = match next {
        Class::Digit => sign == Class::Stop && end == begun,
        Class::Upper => in_name && end == begun,
        Class::Line | Class::Comma | Class::Stop | Class::Term => true,
        _ => false,
    };
    let goes_on = inside || sign == Class::Stop && goes_on_small(text, end)?;
    if !goes_on {
        bounds.push(end);
    }
    Some(end)
}

/// SB8: whether the next letter, before any line ends or sentence may end, is a small one.
fn goes_on_small(text: &str, mut at: usize) -> Option<bool> {
    while at < text.len() {
        let (here, length) = class(text, at)?;
        match here {
            Class::Lower => return Some(true),
            Class::Upper | Class::Line | Class::Stop | Class::Term => break,
            _ => at += length,
        }
    }
    Some(false)
}

/// `e.g.`, `Mr.`, `J.`, `fig.`: a full stop that ends no sentence.
fn ends_in_abbreviation(sentence: &str) -> bool {
    let Some(rest) = sentence.strip_suffix('.') else { return false };
    let word = rest.rsplit(|char: char| char.is_whitespace() || "([{\"'“‘".contains(char)).next().unwrap_or(rest);
    let mut chars = word.chars();
    let single = chars.next().is_some_and(char::is_uppercase) && chars.next().is_none();
    let inner = word.contains('.') && word.split('.').all(|part| part.chars().count() == 1);
    single
        || inner
        || matches!(
            word.to_lowercase().as_str(),
            "mr" | "mrs"
                | "ms"
                | "dr"
                | "prof"
                | "st"
                | "fig"
                | "figs"
                | "no"
                | "nos"
                | "vol"
                | "ch"
                | "sec"
                | "sect"
                | "cf"
                | "vs"
                | "approx"
                | "e.g"
                | "i.e"
                | "eq"
                | "pp"
                | "ed"
                | "eds"
                | "al"
                | "viz"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        let starts = starts(text);
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        starts.iter().zip(ends).map(|(start, end)| text[*start..end].trim_end()).collect()
    }

    #[test]
    fn sentences() {
        assert_eq!(split("Boot it. Then log in! Done?"), ["Boot it.", "Then log in!", "Done?"]);
        assert_eq!(
            split("Use a tool, e.g. NetInfoManager. See fig. 3 by J. Smith."),
            ["Use a tool, e.g. NetInfoManager.", "See fig. 3 by J. Smith."]
        );
        assert_eq!(
            split("Edit /etc/hosts.equiv now. Version 3.3 works."),
            ["Edit /etc/hosts.equiv now.", "Version 3.3 works."]
        );
        assert_eq!(split(""), Vec::<&str>::new());
    }

    /// One character of every class, and every character that is known.
    #[test]
    fn usual_text_has_the_bounds_of_unicode() {
        let hold = |text: &str| {
            assert_eq!(usual_bounds(text).as_deref(), Some(&unicode_bounds(text)[..]), "{text:?}");
        };
        let letters = ['\n', '\r', '.', '!', ')', ' ', 'a', 'B', '1', ',', '*'];
        for number in 0..letters.len().pow(5) {
            let at = |place: u32| letters[number / letters.len().pow(place) % letters.len()];
            let text: String = (0..5).map(at).collect();
            hold(&text);
            hold(&format!("a.{text}"));
        }
        for character in (0..=0xFFFF).filter_map(char::from_u32) {
            if class(&character.to_string(), 0).is_none() {
                continue;
            }
            for around in
                ["a.{} b", "a. {}", "a{} B", "A.{}B", "1{}2", "a.{}", "!{})x", "! {}", "a. {}b", "{}.C", "x.\n{}"]
            {
                hold(&around.replace("{}", &character.to_string()));
            }
        }
        assert_eq!(usual_bounds("日本語。"), None);
    }
}

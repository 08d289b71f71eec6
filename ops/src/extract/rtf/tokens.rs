//! The words of an RTF file: groups, control words with their numbers, and bytes of text.

/// A word of RTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `\name` or `\name12`, without the blank that ends it.
    Word(&'a str, Option<i32>),
    /// A backslash and one other character.
    Symbol(u8),
    /// A byte of text, plain or as `\'e9`.
    Byte(u8),
}

/// Iterates over the tokens of a file. Line ends are no text; `\bin` data is passed over.
pub(super) struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn control(&mut self) -> Option<Token<'a>> {
        let first = *self.bytes.get(self.at)?;
        if first == b'\'' {
            let hex = self.bytes.get(self.at + 1..self.at + 3)?;
            let byte = std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
            self.at += 3;
            return Some(byte.map_or(Token::Symbol(b'\''), Token::Byte));
        }
        if !first.is_ascii_alphabetic() {
            self.at += 1;
            return Some(Token::Symbol(first));
        }
        let name = self.take_while(u8::is_ascii_alphabetic);
        let sign =
            self.bytes.get(self.at) == Some(&b'-') && self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit);
        self.at += usize::from(sign);
        let digits = self.take_while(u8::is_ascii_digit);
        let number =
            (!digits.is_empty()).then(|| digits.parse::<i32>().unwrap_or(i32::MAX) * if sign { -1 } else { 1 });
        if self.bytes.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        if name == "bin" {
            self.at = self.at.saturating_add(usize::try_from(number.unwrap_or(0)).unwrap_or(0));
        }
        Some(Token::Word(name, number))
    }

    fn take_while(&mut self, is_part: impl Fn(&u8) -> bool) -> &'a str {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        self.at += length;
        std::str::from_utf8(&rest[..length]).expect("letters or digits of ASCII")
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            return match byte {
                b'\r' | b'\n' | 0 => continue,
                b'{' => Some(Token::Open),
                b'}' => Some(Token::Close),
                b'\\' => self.control(),
                b'\t' => Some(Token::Word("tab", None)),
                _ => Some(Token::Byte(byte)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let seen: Vec<_> = Tokens::new(b"{\\b0 a\\'e9\r\n\\u-4 ?\\~\\bin3 }}}x}").collect();
        assert_eq!(
            seen,
            [
                Token::Open,
                Token::Word("b", Some(0)),
                Token::Byte(b'a'),
                Token::Byte(0xe9),
                Token::Word("u", Some(-4)),
                Token::Byte(b'?'),
                Token::Symbol(b'~'),
                Token::Word("bin", Some(3)),
                Token::Byte(b'x'),
                Token::Close,
            ]
        );
    }

    #[test]
    fn cut_short() {
        for text in ["{\\", "{\\'e", "{\\u-", "{\\bin99 x"] {
            assert!(Tokens::new(text.as_bytes()).count() >= 1);
        }
    }
}

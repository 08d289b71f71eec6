//! The fonts of an RTF file: which are of fixed pitch, and what their bytes mean.

use std::collections::BTreeMap;

use encoding_rs::Encoding;

use crate::extract::encoding;

/// The encoding of bytes where the font says none.
#[derive(Clone, Copy)]
pub(super) enum Charset {
    /// One of the encodings of the web.
    Web(&'static Encoding),
    /// NeXT's own.
    NextStep,
}

impl Charset {
    /// The charset of a Windows code page, as `\ansicpg` names it.
    pub(super) fn of_code_page(page: i32) -> Option<Self> {
        let label = match page {
            10000 => "macintosh".to_owned(),
            932 => "shift_jis".to_owned(),
            936 => "gbk".to_owned(),
            949 => "euc-kr".to_owned(),
            950 => "big5".to_owned(),
            65001 => "utf-8".to_owned(),
            866 => "ibm866".to_owned(),
            page => format!("windows-{page}"),
        };
        Encoding::for_label(label.as_bytes()).map(Self::Web)
    }
}

#[derive(Default)]
struct Font {
    name: String,
    mono: bool,
    encoding: Option<&'static Encoding>,
}

/// The font table, by number.
#[derive(Default)]
pub(super) struct Fonts(BTreeMap<i32, Font>);

impl Fonts {
    /// Takes the next character of a font's name; `;` ends it.
    pub(super) fn name(&mut self, font: i32, char: char) {
        let font = self.0.entry(font).or_default();
        if char != ';' {
            font.name.push(char);
            return;
        }
        let name = font.name.to_ascii_lowercase();
        font.mono |=
            ["courier", "ohlfs", "mono", "consolas", "menlo", "typewriter"].iter().any(|part| name.contains(part));
    }

    /// Notes that a font belongs to a family of fixed pitch.
    pub(super) fn mono(&mut self, font: i32) {
        self.0.entry(font).or_default().mono = true;
    }

    /// Notes a font's `\fcharset`.
    pub(super) fn charset(&mut self, font: i32, charset: i32) {
        let label: &[u8] = match charset {
            77 => b"macintosh",
            128 => b"shift_jis",
            129 => b"euc-kr",
            134 => b"gbk",
            136 => b"big5",
            161 => b"windows-1253",
            162 => b"windows-1254",
            177 => b"windows-1255",
            178 => b"windows-1256",
            186 => b"windows-1257",
            204 => b"windows-1251",
            222 => b"windows-874",
            238 => b"windows-1250",
            _ => return,
        };
        self.0.entry(font).or_default().encoding = Encoding::for_label(label);
    }

    pub(super) fn is_mono(&self, font: i32) -> bool {
        self.0.get(&font).is_some_and(|font| font.mono)
    }

    /// Bytes set in a font, as text.
    pub(super) fn decode(&self, font: i32, charset: Charset, bytes: &[u8]) -> String {
        match (self.0.get(&font).and_then(|font| font.encoding), charset) {
            (Some(encoding), _) | (None, Charset::Web(encoding)) => {
                encoding.decode_without_bom_handling(bytes).0.into_owned()
            }
            (None, Charset::NextStep) => bytes.iter().map(|byte| encoding::nextstep(*byte)).collect(),
        }
    }
}

//! Bytes to text: byte order marks, what the file says of itself, then what its bytes look like.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::vintage;

/// Decodes a file. `declared` is the name that the file gives its encoding, as in HTML's `charset`.
///
/// A byte order mark wins, then valid UTF-8, then the declaration (unless it is UTF-8, which it is not),
/// then detection: of many bytes a character by their
/// patterns, of one byte a character by where they stand. Bytes that mean nothing become U+FFFD.
pub(super) fn decode(bytes: &[u8], declared: Option<&str>) -> String {
    let declared = declared.and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    let encoding = match Encoding::for_bom(bytes) {
        Some((encoding, _)) => encoding,
        None => match utf16(bytes) {
            Some(encoding) => encoding,
            None if std::str::from_utf8(bytes).is_ok() => UTF_8,
            None => match declared {
                Some(encoding) if encoding != UTF_8 => encoding,
                _ => match detect(bytes) {
                    // What looks western may come from a Mac or a NeXT.
                    encoding if encoding.is_single_byte() && (encoding == WINDOWS_1252 || is_mostly_ascii(bytes)) => {
                        return vintage::decode(bytes, vintage::likeliest(bytes, encoding));
                    }
                    encoding => encoding,
                },
            },
        },
    };
    let (text, _, _) = encoding.decode(bytes);
    text.into_owned()
}

/// Fewer than one byte in twenty is above 0x7f: no Greek, no Cyrillic.
fn is_mostly_ascii(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte >= 0x80).count() * 20 < bytes.len()
}

fn detect(bytes: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    detector.guess(None, Utf8Detection::Allow)
}

/// UTF-16 by its mark, or by the zero bytes that Latin text has in every other place.
pub(super) fn utf16(bytes: &[u8]) -> Option<&'static Encoding> {
    match Encoding::for_bom(bytes) {
        Some((encoding, _)) if encoding != UTF_8 => return Some(encoding),
        Some(_) => return None,
        None => {}
    }
    let early = &bytes[..bytes.len().min(4096) & !1];
    let pairs = early.len() / 2;
    let zeros = |odd: usize| early.chunks_exact(2).filter(|pair| pair[odd] == 0).count();
    if pairs < 2 {
        return None;
    }
    match (zeros(0), zeros(1)) {
        (0, low) if low * 10 > pairs * 7 => Some(UTF_16LE),
        (high, 0) if high * 10 > pairs * 7 => Some(UTF_16BE),
        _ => None,
    }
}

/// The upper half of the NeXTSTEP character set (0x80 to 0xFD), as old NeXT RTF and text files have it.
/// From the table that NeXT gave to Unicode (`VENDORS/NEXT/NEXTSTEP.TXT`); the two ligatures are spelt out by `tidy`.
const NEXTSTEP: &str = "\u{a0}ÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖÙÚÛÜÝÞµ×÷©¡¢£⁄¥ƒ§¤’“«‹›ﬁﬂ®–†‡·¦¶•‚„”»…‰¬¿¹ˋ´ˆ˜¯˘˙¨²˚¸³˝˛ˇ—±¼½¾àáâãäåçèéêëìÆíªîïðñŁØŒºòóôõöæùúûıüýłøœßþÿ";

/// The character of a byte in the NeXTSTEP set.
pub(super) fn nextstep(byte: u8) -> char {
    if byte < 0x80 {
        return char::from(byte);
    }
    NEXTSTEP.chars().nth(usize::from(byte - 0x80)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded() {
        assert_eq!(decode(b"\xef\xbb\xbfcaf\xc3\xa9", None), "café");
        assert_eq!(decode(b"\xff\xfec\0a\0f\0\xe9\0", None), "café");
        assert_eq!(decode(b"c\0a\0f\0\xe9\0", None), "café");
        assert_eq!(decode(b"\0c\0a\0f\0\xe9", None), "café");
        assert_eq!(decode("café".as_bytes(), Some("iso-8859-1")), "café", "valid UTF-8 goes before a wrong label");
        assert_eq!(decode(b"caf\x8e", Some("macintosh")), "café");
        assert_eq!(
            decode(b"Un caf\xe9 tr\xe8s cors\xe9, \xe0 c\xf4t\xe9 de la fen\xeatre.", Some("utf-8")),
            "Un café très corsé, à côté de la fenêtre."
        );
    }

    #[test]
    fn nextstep_table() {
        assert_eq!(NEXTSTEP.chars().count(), 126);
        assert_eq!(
            [0x41, 0x80, 0xaa, 0xba, 0xb7, 0xd0, 0xdd, 0xfb, 0xfd, 0xff].map(nextstep),
            ['A', '\u{a0}', '“', '”', '•', '—', 'é', 'ß', 'ÿ', '\u{fffd}']
        );
    }
}

//! Which format a file has: by its first bytes, and by its name only where they leave it open.

use std::fmt;

use super::reader::Unreadable;

/// A format that there is a reader for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the formats' own names")]
pub enum Format {
    Html,
    Markdown,
    Text,
    Pdf,
    Rtf,
    Docx,
    Info,
    Man,
    Source,
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Html => "html",
            Self::Markdown => "markdown",
            Self::Text => "text",
            Self::Pdf => "pdf",
            Self::Rtf => "rtf",
            Self::Docx => "docx",
            Self::Info => "info",
            Self::Man => "man",
            Self::Source => "source",
        })
    }
}

impl Format {
    /// The format of a file, or what it is instead.
    pub fn of(path: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        if let Some(format) = by_magic(bytes)? {
            return Ok(format);
        }
        if is_binary(bytes) {
            return Err(Unreadable::Unknown("binary data"));
        }
        let head = head(bytes);
        if is_html(&head) {
            return Ok(Self::Html);
        }
        if head.starts_with("This is ") && head.contains("produced by makeinfo") {
            return Ok(Self::Info);
        }
        if is_roff(&head) {
            return Ok(Self::Man);
        }
        Ok(match extension(path).as_str() {
            "html" | "htm" | "xhtml" | "xht" | "shtml" => Self::Html,
            "md" | "markdown" | "mkd" | "mdown" => Self::Markdown,
            "c" | "h" | "m" | "mm" | "cc" | "cpp" | "hpp" | "cs" | "java" | "py" | "pl" | "pm" | "rb" | "rs" | "go"
            | "sh" | "csh" | "js" | "ts" | "el" | "sql" | "mk" | "make" | "tcl" | "psw" | "yaml" | "yml" | "toml"
            | "json" => Self::Source,
            "css" => return Err(Unreadable::Unknown("a style sheet")),
            "xml" | "svg" | "plist" | "gsdoc" | "igsdoc" => return Err(Unreadable::Unknown("xml")),
            _ => Self::Text,
        })
    }
}

/// The part of a name after its last dot, in lower case.
pub(super) fn extension(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or_else(String::new, |(_, extension)| extension.to_ascii_lowercase())
}

fn by_magic(bytes: &[u8]) -> Result<Option<Format>, Unreadable> {
    const OTHERS: &[(&[u8], &str)] = &[
        (b"\xff\xd8\xff", "a picture"),
        (b"\x89PNG", "a picture"),
        (b"GIF8", "a picture"),
        (b"II*\0", "a picture"),
        (b"MM\0*", "a picture"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a legacy Office file (save it as docx)"),
        (b"\x1f\x8b", "a gzip file (unpack it)"),
        (b"BZh", "a bzip2 file (unpack it)"),
        (b"\xfd7zXZ\0", "an xz file (unpack it)"),
        (b"\x28\xb5\x2f\xfd", "a zstd file (unpack it)"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file (unpack it)"),
        (b"\x7fELF", "a program"),
        (b"%!PS", "PostScript (convert it with ps2pdf)"),
    ];
    // A pdf's header may have up to 1024 bytes before it.
    let early = &bytes[..bytes.len().min(1024)];
    if bytes.starts_with(b"%PDF-") || early.windows(5).any(|window| window == b"%PDF-") && is_binary(bytes) {
        return Ok(Some(Format::Pdf));
    }
    if bytes.starts_with(b"{\\rtf") {
        return Ok(Some(Format::Rtf));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Ok(Some(Format::Docx));
    }
    match OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, what)) => Err(Unreadable::Unknown(what)),
        None => Ok(None),
    }
}

/// NUL bytes outside UTF-16, or more than a tenth control characters.
fn is_binary(bytes: &[u8]) -> bool {
    let early = &bytes[..bytes.len().min(8192)];
    if super::encoding::utf16(early).is_some() {
        return false;
    }
    let control = early.iter().filter(|byte| matches!(byte, 0x01..=0x06 | 0x0e..=0x1a | 0x1c..=0x1f)).count();
    early.contains(&0) || control * 10 > early.len()
}

/// The first kilobytes as text, without what may stand before the content: BOM, white space, comments.
fn head(bytes: &[u8]) -> String {
    let early = &bytes[..bytes.len().min(4096)];
    let text = match super::encoding::utf16(early) {
        Some(encoding) => encoding.decode(early).0.into_owned(),
        None => String::from_utf8_lossy(early).into_owned(),
    };
    text.trim_start_matches('\u{feff}').trim_start().to_owned()
}

fn is_html(head: &str) -> bool {
    let mut rest = head;
    while let Some(comment) = rest.strip_prefix("<!--") {
        let Some(end) = comment.find("-->") else { return false };
        rest = comment[end + 3..].trim_start();
    }
    let lower = rest.chars().take(2048).collect::<String>().to_ascii_lowercase();
    if let Some(xml) = lower.strip_prefix("<?xml") {
        return xml.contains("<html") || xml.contains("<!doctype html");
    }
    ["<!doctype html", "<html", "<head", "<body", "<title", "<h1"].iter().any(|start| lower.starts_with(start))
}

/// The first request that is not a comment is a title or a macro of the man and mdoc packages.
fn is_roff(head: &str) -> bool {
    let request = head.lines().find(|line| {
        let comment = line.starts_with(".\\\"") || line.starts_with("'\\\"") || line.starts_with("./\"");
        !comment && !line.trim().is_empty() && line.trim() != "."
    });
    request.is_some_and(|line| {
        [".TH ", ".Dd ", ".so ", ".Dt ", ".de ", ".ds ", ".nr ", ".if ", ".ie ", ".tr ", ".SH "]
            .iter()
            .any(|start| line.starts_with(start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sniffed() {
        let of = |path: &str, text: &str| Format::of(path, text.as_bytes());
        assert_eq!(of("x", "\u{feff}\n<!-- hi -->\n<!DOCTYPE HTML PUBLIC>"), Ok(Format::Html));
        assert_eq!(of("x", "<?xml version=\"1.0\"?>\n<html xmlns=''>"), Ok(Format::Html));
        assert_eq!(of("x.md", "# A\n<p>"), Ok(Format::Markdown));
        assert_eq!(of("x.1", ".\\\" comment\n.TH LS 1\n"), Ok(Format::Man));
        assert_eq!(of("x.info", "This is a.info, produced by makeinfo version 6.8 from a.texi."), Ok(Format::Info));
        assert_eq!(of("README", "hello"), Ok(Format::Text));
        assert_eq!(of("a.m", "#import <x.h>"), Ok(Format::Source));
        assert_eq!(of("a.txt", "{\\rtf1\\ansi}"), Ok(Format::Rtf));
        assert_eq!(Format::of("a.txt", b"\xff\xfeh\0i\0\n\0"), Ok(Format::Text));
    }
}

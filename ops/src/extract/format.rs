//! Which format a file has: by its first bytes, and by its name only where they leave it open.

use std::fmt;
use std::io::{Cursor, Read};

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
    Epub,
    Odt,
    Rst,
    Texinfo,
    Gzip,
    Zip,
    Tar,
    Mail,
    Records,
    DocBook,
    PostScript,
    Word,
}

/// A file that holds other files, or several documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// One file, packed.
    Gzip,
    /// An archive of files, and no Office file or book.
    Zip,
    /// An archive of files.
    Tar,
    /// Messages, one after the other (mbox).
    Mailbox,
    /// A message, with what hangs on it.
    Mail,
    /// CSV, TSV, JSON Lines, Parquet.
    Records,
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
            Self::Epub => "epub",
            Self::Odt => "odt",
            Self::Rst => "reStructuredText",
            Self::Texinfo => "texinfo",
            Self::Gzip => "gzip",
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::Mail => "mail",
            Self::Records => "table",
            Self::DocBook => "DocBook",
            Self::PostScript => "PostScript",
            Self::Word => "Word (before 2007)",
        })
    }
}

impl Format {
    /// The format of a file, or what it is instead.
    pub fn of(path: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        if is_zip(bytes) {
            return of_zip(path, bytes);
        }
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
        let is_part = matches!(extension(path).as_str(), "docbook" | "dbk");
        if is_part || head.contains("//DTD DocBook") || head.contains("docbook.org/ns/docbook") {
            return Ok(Self::DocBook);
        }
        if head.trim_start().starts_with("<?xml") {
            return Err(Unreadable::Unknown("xml"));
        }
        if head.starts_with("This is ") && head.contains("produced by makeinfo") || head.contains("\u{1f}\nFile: ") {
            return Ok(Self::Info);
        }
        if is_roff(&head) {
            return Ok(Self::Man);
        }
        if is_texinfo(&head) {
            return Ok(Self::Texinfo);
        }
        if is_rst(path, &head) {
            return Ok(Self::Rst);
        }
        Ok(match extension(path).as_str() {
            "html" | "htm" | "xhtml" | "xht" | "shtml" => Self::Html,
            "md" | "markdown" | "mkd" | "mdown" => Self::Markdown,
            "c" | "h" | "m" | "mm" | "cc" | "cpp" | "hpp" | "cs" | "java" | "py" | "pl" | "pm" | "rb" | "rs" | "go"
            | "sh" | "csh" | "js" | "ts" | "el" | "sql" | "mk" | "make" | "tcl" | "psw" | "yaml" | "yml" | "toml"
            | "json" => {
                if is_lineless(bytes) {
                    return Err(Unreadable::Unknown("a program or data without lines (minified)"));
                }
                Self::Source
            }
            "texi" | "texinfo" | "txi" => Self::Texinfo,

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
        (COMPOUND, "an Office file of before 2007 that is no text (save it as pdf, or as csv)"),
        (b"BZh", "a bzip2 file (unpack it)"),
        (b"\xfd7zXZ\0", "an xz file (unpack it)"),
        (b"\x28\xb5\x2f\xfd", "a zstd file (unpack it)"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file (unpack it)"),
        (b"\x7fELF", "a program"),
    ];
    // A pdf's header may have up to 1024 bytes before it.
    let early = &bytes[..bytes.len().min(1024)];
    if bytes.starts_with(b"%PDF-") || early.windows(5).any(|window| window == b"%PDF-") && is_binary(bytes) {
        return Ok(Some(Format::Pdf));
    }
    if bytes.starts_with(b"{\\rtf") {
        return Ok(Some(Format::Rtf));
    }
    // What a printer is told in its own language may stand before it.
    if early.windows(4).any(|window| window == b"%!PS") && (bytes.starts_with(b"%!PS") || bytes.starts_with(b"\x1b%-"))
    {
        return Ok(Some(Format::PostScript));
    }
    if is_word(bytes) {
        return Ok(Some(Format::Word));
    }
    match OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, what)) => Err(Unreadable::Unknown(what)),
        None => Ok(None),
    }
}

/// A compound file, in which the Office programs of before 2007 keep their documents.
const COMPOUND: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// Word 6 to 2003 keep the text in a stream of this name, in UTF-16; Word 2 has a mark of its own.
fn is_word(bytes: &[u8]) -> bool {
    const STREAM: &[u8] = b"W\0o\0r\0d\0D\0o\0c\0u\0m\0e\0n\0t\0";
    bytes.starts_with(b"\xdb\xa5\x2d\0")
        || bytes.starts_with(COMPOUND) && bytes.windows(STREAM.len()).any(|window| window == STREAM)
}

fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// What a zip archive is: an Office file or a book by what is in it, else an archive.
fn of_zip(path: &str, bytes: &[u8]) -> Result<Format, Unreadable> {
    let by_name = match extension(path).as_str() {
        "docx" | "docm" | "dotx" => Format::Docx,
        "odt" | "ott" => Format::Odt,
        "epub" => Format::Epub,
        _ => Format::Zip,
    };
    let mut archive =
        zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| Unreadable::malformed(by_name, error))?;
    let mut mimetype = String::new();
    if let Ok(part) = archive.by_name("mimetype") {
        // Both formats say that it is stored first, and nothing but a short name.
        let _ = part.take(256).read_to_string(&mut mimetype);
    }
    let has = |name: &str| archive.index_for_name(name).is_some();
    match mimetype.trim() {
        "application/epub+zip" => return Ok(Format::Epub),
        "application/vnd.oasis.opendocument.text" | "application/vnd.oasis.opendocument.text-template" => {
            return Ok(Format::Odt);
        }
        other if other.starts_with("application/vnd.oasis.opendocument.spreadsheet") => {
            return Err(Unreadable::Unknown("a spreadsheet (save it as csv)"));
        }
        other if other.starts_with("application/vnd.oasis.opendocument") => {
            return Err(Unreadable::Unknown("an OpenDocument file that is no text (save it as pdf)"));
        }
        _ => {}
    }
    if has("word/document.xml") {
        Ok(Format::Docx)
    } else if has("META-INF/container.xml") {
        Ok(Format::Epub)
    } else if has("xl/workbook.xml") {
        Err(Unreadable::Unknown("a spreadsheet (save it as csv)"))
    } else if has("ppt/presentation.xml") {
        Err(Unreadable::Unknown("a presentation (save it as pdf)"))
    } else if by_name == Format::Zip {
        Ok(Format::Zip)
    } else {
        Err(Unreadable::malformed(by_name, "an archive without the document's part"))
    }
}

/// Whether a file holds others, or several documents.
pub(super) fn container(name: &str, bytes: &[u8]) -> Option<Container> {
    if bytes.starts_with(b"\x1f\x8b") {
        return Some(Container::Gzip);
    }
    if is_zip(bytes) {
        return (of_zip(name, bytes) == Ok(Format::Zip)).then_some(Container::Zip);
    }
    if is_tar(bytes) {
        return Some(Container::Tar);
    }
    if bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1") {
        return Some(Container::Records);
    }
    if is_binary(bytes) {
        return None;
    }
    match extension(name).as_str() {
        "csv" | "tsv" | "tab" | "jsonl" | "ndjson" => return Some(Container::Records),
        _ => {}
    }
    let head = head(bytes);
    let is_envelope =
        |line: &str| line.starts_with("From ") && line.contains(':') && line.contains("19") | line.contains("20");
    if bytes.starts_with(b"From ") && head.lines().next().is_some_and(is_envelope) {
        return Some(Container::Mailbox);
    }
    if is_mail(&head) {
        return Some(Container::Mail);
    }
    is_json_lines(name, &head).then_some(Container::Records)
}

/// A header whose check sum holds: old archives have no other mark.
fn is_tar(bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(..512).filter(|header| header[0] != 0) else { return false };
    let said = std::str::from_utf8(&header[148..156]).ok();
    let said = said.and_then(|said| u32::from_str_radix(said.trim_matches([' ', '\0']), 8).ok());
    let sum: u32 =
        header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    said == Some(sum)
}

/// Begins with header fields, two of which every message or posting has.
fn is_mail(head: &str) -> bool {
    let known = [
        "from",
        "to",
        "date",
        "subject",
        "message-id",
        "received",
        "return-path",
        "mime-version",
        "newsgroups",
        "path",
    ];
    let mut found = 0;
    for line in head.lines().take(40) {
        if line.starts_with([' ', '\t']) {
            continue;
        }
        let Some((name, _)) =
            line.split_once(':').filter(|(name, _)| !name.is_empty() && !name.contains([' ', '\t', '<', '*']))
        else {
            return found >= 3 && line.is_empty();
        };
        found += usize::from(known.contains(&name.to_ascii_lowercase().as_str()));
    }
    found >= 3
}

/// An object a line, in a file that does not call itself JSON.
fn is_json_lines(name: &str, head: &str) -> bool {
    let mut lines = head.lines();
    let whole = |line: Option<&str>| {
        line.is_some_and(|line| line.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok())
    };
    extension(name) != "json" && whole(lines.next()) && whole(lines.next())
}

fn is_texinfo(head: &str) -> bool {
    head.lines().take(20).any(|line| line.starts_with("\\input texinfo") || line.starts_with("@setfilename"))
}

/// By name, or a text with two of reStructuredText's directives, targets or roles.
fn is_rst(path: &str, head: &str) -> bool {
    let name = path.to_ascii_lowercase();
    if [".rst", ".rest", ".rst.txt"].iter().any(|end| name.ends_with(end)) {
        return true;
    }
    let marked = |line: &&str| {
        let directive = line.starts_with(".. ") && (line.contains("::") || line.starts_with(".. _"));
        directive || line.contains(":ref:`") || line.contains(":doc:`")
    };
    matches!(extension(path).as_str(), "txt" | "") && head.lines().filter(marked).count() >= 2
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

/// Longer than a page, and of so long lines that no person wrote them.
fn is_lineless(bytes: &[u8]) -> bool {
    bytes.len() > 4096 && bytes.split(|byte| *byte == b'\n').count() <= bytes.len() / 2048
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
        assert_eq!(of("x.devhelp", "<?xml version=\"1.0\"?>\n<book>"), Err(Unreadable::Unknown("xml")));
        assert_eq!(of("x.md", "# A\n<p>"), Ok(Format::Markdown));
        assert_eq!(of("x.1", ".\\\" comment\n.TH LS 1\n"), Ok(Format::Man));
        assert_eq!(of("x.info", "This is a.info, produced by makeinfo version 6.8 from a.texi."), Ok(Format::Info));
        assert_eq!(of("README", "hello"), Ok(Format::Text));
        assert_eq!(of("a.m", "#import <x.h>"), Ok(Format::Source));
        let lineless = Err(Unreadable::Unknown("a program or data without lines (minified)"));
        assert_eq!(of("a.js", &"var a=1;".repeat(1000)), lineless);
        assert_eq!(of("a.js", &"var a=1;\n".repeat(1000)), Ok(Format::Source));
        assert_eq!(of("a.txt", &"A long line. ".repeat(1000)), Ok(Format::Text));
        assert_eq!(of("a.txt", "{\\rtf1\\ansi}"), Ok(Format::Rtf));
        assert_eq!(Format::of("a.txt", b"\xff\xfeh\0i\0\n\0"), Ok(Format::Text));
    }
}

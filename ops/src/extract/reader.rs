//! From a file's name and bytes to a document: which reader, under what limits, and why it cannot be.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::format::Format;
use super::tool::Tools;
use super::{apart, docbook, docx, epub, html, info, man, markdown, odt, pdf, rst, rtf, texinfo, text};
use crate::document::{Document, Kind};

/// No file larger than this is read, nor any document made that is longer: 256 MiB.
pub const MAX_BYTES: u64 = 256 << 20;
/// Elements inside elements; a page that nests deeper is taken for an attack or a mistake.
pub const MAX_DEPTH: usize = 256;

/// Why a file is no document: the reason of its reject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No reader for such content.
    #[error("{0} is not a format that `extract` reads")]
    Unknown(&'static str),
    /// A format that programs of the machine make readable, and the pipeline names none.
    #[error("{0} is read with another program's help: {1}")]
    NeedsTool(Format, &'static str),
    /// Such a program said no.
    #[error("`{0}` failed on it: {1}")]
    ToolFailed(&'static str, String),
    /// Such a program could not be run: no word about the file.
    #[error("{0}")]
    NotRun(String),
    /// The person asked to stop: no word about the file.
    #[error("stopped")]
    Stopped,
    /// The file is locked by a password.
    #[error("the {0} file is encrypted: save it without a password")]
    Encrypted(Format),
    /// Pages, but pictures of text only.
    #[error("the pdf file has no text layer: its {0} pages are pictures; run it through OCR first")]
    NoTextLayer(usize),
    /// Nothing to read in it.
    #[error("the file is empty")]
    Empty,
    /// Text, but only headings or navigation.
    #[error("no text in the {0} file but headings, links or navigation")]
    NoText(Format),
    /// An HTML page that only sends the reader elsewhere.
    #[error("the page only redirects to another")]
    Redirect,
    /// Not what it claims to be.
    #[error("not a readable {0} file: {1}")]
    Malformed(Format, String),
    /// Past [`MAX_DEPTH`].
    #[error("the {0} file nests deeper than {MAX_DEPTH} levels")]
    TooDeep(Format),
    /// Archives in archives, past [`super::MAX_NESTING`].
    #[error("archives inside archives, more than {max} deep", max = super::MAX_NESTING)]
    NestedArchives,
    /// More files in one than [`super::MAX_MEMBERS`].
    #[error("the archive holds more than {max} files", max = super::MAX_MEMBERS)]
    TooMany,
    /// The name of a file in an archive leads out of it.
    #[error("its name leads out of the archive")]
    ClimbsOut,
    /// Nothing in an archive could be read; each thing with its reason.
    #[error("nothing in it could be read: {0}")]
    AllRefused(String),
    /// Past [`MAX_BYTES`], packed or unpacked.
    #[error("the {0} holds more than {size} MiB", size = MAX_BYTES >> 20)]
    TooLarge(&'static str),
    /// A reader that is kept apart used up the time of the processor that it is given.
    #[error("reading the {0} file took more than {1} s of processor time")]
    TooSlow(Format, u64),
    /// A reader that is kept apart died of the file.
    #[error("the reader of {0} files died of it: {1}; print it to another file, or convert it")]
    Died(Format, String),
    /// A reader that is kept apart was ended by somebody else: no word about the file.
    #[error("the process that read it was ended from outside: {0}")]
    Ended(String),
    /// A parser gave up in the rudest way.
    #[error("the reader of {0} files failed on it: {1}")]
    Panicked(Format, String),
}

impl Unreadable {
    /// A file that is not what it claims to be.
    pub fn malformed(format: Format, detail: impl fmt::Display) -> Self {
        Self::Malformed(format, detail.to_string())
    }
}

/// Reads a file that is one document: the format by its content, then by its name; the reader's panics are caught.
///
/// `path` is only a name (with `/`), nothing is opened.
pub fn read(path: &str, bytes: &[u8]) -> Result<Document, Unreadable> {
    read_named(path, path, bytes, &Tools::NONE)
}

/// The same for a file whose format is told by another name than its path, as that inside `a.html.gz`.
pub(super) fn read_named(path: &str, name: &str, bytes: &[u8], tools: &Tools<'_>) -> Result<Document, Unreadable> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unreadable::TooLarge("file"));
    }
    if bytes.is_empty() {
        return Err(Unreadable::Empty);
    }
    let (format, bytes) = tools.readable(Format::of(name, bytes)?, bytes)?;
    let bytes = &*bytes;
    let mut document = quietly(format, || match format {
        Format::Html => html::read(bytes),
        Format::Markdown => markdown::read(bytes),
        Format::Text => text::read(bytes),
        Format::Pdf => apart::read(bytes).unwrap_or_else(|| pdf::read(bytes)),
        Format::Rtf => rtf::read(bytes),
        Format::Docx => docx::read(bytes),
        Format::Info => info::read(bytes),
        Format::Man => man::read(bytes),
        Format::Source => text::read_source(bytes),
        Format::Epub => epub::read(bytes),
        Format::Odt => odt::read(bytes),
        Format::Rst => rst::read(bytes),
        Format::Texinfo => texinfo::read(bytes),
        Format::DocBook => docbook::read(bytes),
        // What turned it into another was asked above.
        Format::PostScript | Format::Word => Err(Unreadable::Unknown("what no program made readable")),
        Format::Gzip | Format::Zip | Format::Tar | Format::Mail | Format::Records => {
            Err(Unreadable::Unknown("a file of several documents"))
        }
    })?;
    if document.text.len() as u64 > MAX_BYTES {
        return Err(Unreadable::TooLarge("document"));
    }
    document.locate_links(path);
    if document.blocks.iter().all(|block| block.kind == Kind::Heading) {
        return Err(Unreadable::NoText(format));
    }
    Ok(document)
}

thread_local! {
    /// Whether a panic on this thread is expected, and so not worth a line on standard error.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a reader; a panic in it becomes a reason, without the default hook's noise.
pub(super) fn quietly<T>(format: Format, reader: impl FnOnce() -> Result<T, Unreadable>) -> Result<T, Unreadable> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if !READING.get() {
                before(info);
            }
        }));
    });
    let outer = READING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(reader));
    READING.set(outer);
    outcome.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(ToString::to_string);
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Unreadable::Panicked(format, said.unwrap_or_else(|| "it panicked".to_owned())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_reader_is_a_reason() {
        let refused = quietly(Format::Pdf, || -> Result<(), _> { panic!("index out of bounds") }).unwrap_err();
        assert_eq!(refused.to_string(), "the reader of pdf files failed on it: index out of bounds");
    }

    #[test]
    fn broken_files_are_refused_with_a_reason() {
        let reason = |path: &str, bytes: &[u8]| read(path, bytes).unwrap_err().to_string();
        assert_eq!(reason("a.txt", b""), "the file is empty");
        assert_eq!(
            reason("a.html", b"<nav><a href=x>Next</a></nav>"),
            "no text in the html file but headings, links or navigation"
        );
        assert_eq!(reason("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF"), "a picture is not a format that `extract` reads");
        assert!(reason("a.pdf", b"%PDF-1.4\nnothing more").starts_with("not a readable pdf file"));
        assert!(reason("a.docx", b"PK\x03\x04 and then nothing").starts_with("not a readable docx file"));
        assert!(reason("a.rtf", b"{\\rtf1 no end").starts_with("not a readable rtf file"));
        assert_eq!(reason("core", &[7, 0, 1, 2, 0, 0, 3, 4]), "binary data is not a format that `extract` reads");
        let deep = format!("{}x", "<div>".repeat(5000));
        assert_eq!(reason("a.html", deep.as_bytes()), "the html file nests deeper than 256 levels");
    }

    #[test]
    fn content_goes_before_the_name() {
        let document = read("notes.txt", b"<!doctype html><title>T</title><h1>A</h1><p>b &amp; c").unwrap();
        assert_eq!(document.text, "A\n\nb & c");
        assert_eq!(document.title.as_deref(), Some("T"));
    }
}

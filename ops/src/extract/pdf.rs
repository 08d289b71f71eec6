//! PDF to blocks: lines from what is drawn (`pdf/lines.rs`), running heads out (`pdf/running.rs`), lines to rows and
//! paragraphs (`pdf/rows.rs`, `pdf/paragraphs.rs`), and headings by their look (`styled`).

mod lines;
mod paragraphs;
mod rows;
mod running;

use pdf_oxide::PdfDocument;

use super::format::Format;
use super::reader::Unreadable;
use super::{styled, tidy};
use crate::document::{Document, Kind};

/// Reads a PDF file. One that only its owner's password restricts is read; one that needs a password to open is not.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let malformed = |error: pdf_oxide::Error| Unreadable::malformed(Format::Pdf, error);
    let pdf = PdfDocument::from_bytes(bytes.to_vec()).map_err(malformed)?;
    if pdf.is_encrypted() && !pdf.authenticate(b"").unwrap_or(false) {
        return Err(Unreadable::Encrypted(Format::Pdf));
    }
    let count = pdf.page_count().map_err(malformed)?;
    if count == 0 {
        return Err(Unreadable::malformed(Format::Pdf, "it has no pages"));
    }
    let mut pages = Vec::with_capacity(count);
    for page in 0..count {
        pages.push(lines::of_page(&pdf, page).map_err(malformed)?);
    }
    if pages.iter().all(Vec::is_empty) {
        return Err(Unreadable::NoTextLayer(count));
    }
    running::remove(&mut pages);
    let blocks = styled::blocks(paragraphs::of(pages));
    let title = info_title(&pdf).or_else(|| {
        let heading = blocks.iter().find(|block| block.kind == Kind::Heading);
        heading.map(|heading| heading.text.clone())
    });
    Ok(Document::assemble(title, blocks))
}

/// `/Title` of the information dictionary, unless it is the name of the file that the PDF was made from.
fn info_title(pdf: &PdfDocument) -> Option<String> {
    let info = pdf.trailer().as_dict()?.get("Info")?.clone();
    let info = pdf.resolve_object(&info).ok()?;
    let title = pdf.resolve_object(info.as_dict()?.get("Title")?).ok()?;
    let bytes = title.as_string()?;
    // Text strings are UTF-16 with a mark, UTF-8 with a mark, or PDFDocEncoding, near enough to Windows-1252.
    let text = match bytes {
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0xef, 0xbb, 0xbf, ..] => super::encoding::decode(bytes, None),
        _ => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    };
    let text = tidy::inline(&text, false);
    let lower = text.to_lowercase();
    let is_file = [".doc", ".docx", ".tex", ".dvi", ".txt", ".ps", ".texi", ".qxd", ".indd"]
        .iter()
        .any(|end| lower.ends_with(end));
    (!text.is_empty() && !is_file && !lower.starts_with("microsoft word")).then_some(text)
}

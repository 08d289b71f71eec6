//! Documents that are zip archives of XML (DOCX, ODT, EPUB): their parts, unpacked within limits, and what all readers of XML need.
//!
//! No entity of a document type is ever looked up, in or outside the file: only XML's own five and characters by number.

use std::io::{Cursor, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use zip::ZipArchive;
use zip::result::ZipError;

use super::format::Format;
use super::reader::{MAX_BYTES, Unreadable};

/// An archive in memory, and how much may yet be unpacked of it.
pub(super) struct Package<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    format: Format,
    left: u64,
}

impl<'a> Package<'a> {
    pub(super) fn open(format: Format, bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| Unreadable::malformed(format, error))?;
        Ok(Self { archive, format, left: MAX_BYTES })
    }

    /// A part's bytes; nothing if the archive has no such part. More than [`MAX_BYTES`] of all parts is refused.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Unreadable> {
        let part = match self.archive.by_name(name) {
            Ok(part) => part,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED)) => {
                return Err(Unreadable::Encrypted(self.format));
            }
            Err(error) => return Err(Unreadable::malformed(self.format, error)),
        };
        let mut bytes = Vec::new();
        let read = part.take(self.left + 1).read_to_end(&mut bytes);
        read.map_err(|error| Unreadable::malformed(self.format, format!("{name}: {error}")))?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(Unreadable::TooLarge("archive"))?;
        Ok(Some(bytes))
    }

    /// A part's text; empty if the archive has no such part.
    pub(super) fn text(&mut self, name: &str) -> Result<String, Unreadable> {
        Ok(self.bytes(name)?.map(|bytes| super::encoding::decode(&bytes, None)).unwrap_or_default())
    }
}

/// An attribute's value by its local name, without prefix; empty if it is not there.
pub(super) fn attribute(element: &BytesStart<'_>, wanted: &str) -> String {
    let mut attributes = element.attributes().flatten();
    let found = attributes.find(|attribute| attribute.key.local_name().as_ref() == wanted);
    found
        .and_then(|attribute| {
            attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok().map(std::borrow::Cow::into_owned)
        })
        .unwrap_or_default()
}

/// The text of a reference: one of XML's five, or a character by number. Nothing else is looked up.
pub(super) fn entity(reference: &BytesRef<'_>) -> String {
    if let Ok(Some(char)) = reference.resolve_char_ref() {
        return char.to_string();
    }
    quick_xml::escape::resolve_xml_entity(&reference.xml10_content()).unwrap_or("").to_owned()
}

/// The text of the first element of a name in a small part.
pub(super) fn element_text(xml: &str, wanted: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    let mut text: Option<String> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) if element.local_name().as_ref() == wanted => text = Some(String::new()),
            Event::Text(piece) => {
                if let Some(text) = &mut text {
                    text.push_str(&piece.xml10_content());
                }
            }
            Event::GeneralRef(reference) => {
                if let Some(text) = &mut text {
                    text.push_str(&entity(&reference));
                }
            }
            Event::End(element) if element.local_name().as_ref() == wanted => {
                return text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

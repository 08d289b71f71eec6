//! EPUB books to blocks: the pages of the spine, in its order, read as HTML, and the links between them.
//!
//! Formats: EPUB 3.3 (W3C) and OPF 2.0; `META-INF/container.xml` names the package document, whose manifest and spine are read.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::format::Format;
use super::html;
use super::package::{Package, attribute, element_text};
use super::reader::Unreadable;
use crate::document::links::{joined, percent_decoded};
use crate::document::{Document, Raw};

/// Reads an EPUB book.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let mut package = Package::open(Format::Epub, bytes)?;
    let container = package.text("META-INF/container.xml")?;
    let root = first_attribute(&container, "rootfile", "full-path")
        .ok_or_else(|| Unreadable::malformed(Format::Epub, "its container names no package document"))?;
    let opf = package.text(&root)?;
    let pages = spine(&opf, &root)?;
    let encrypted = package.text("META-INF/encryption.xml")?;
    if pages.iter().any(|page| encrypted.contains(&format!("\"{page}\""))) {
        return Err(Unreadable::Encrypted(Format::Epub));
    }
    let mut blocks = Vec::new();
    for page in pages {
        let Some(bytes) = package.bytes(&page)? else { continue };
        match html::blocks(&bytes) {
            Ok((_, inner)) => blocks.extend(inside_the_book(&page, inner)),
            // A page that only sends the reader on is no page.
            Err(Unreadable::Redirect) => {}
            Err(Unreadable::TooDeep(_)) => return Err(Unreadable::TooDeep(Format::Epub)),
            Err(other) => return Err(other),
        }
    }
    Ok(Document::assemble(element_text(&opf, "title"), blocks))
}

/// Anchors and links of a page as those of the whole book: a name is `page#name`, the page's beginning `page`.
fn inside_the_book(page: &str, mut blocks: Vec<Raw>) -> Vec<Raw> {
    for block in &mut blocks {
        for name in &mut block.marks.anchors {
            *name = format!("{page}#{name}");
        }
        for (_, target) in &mut block.marks.links {
            if let Some(name) = target.strip_prefix('#') {
                *target = format!("#{page}#{name}");
            } else if !target.contains(':') {
                *target = format!("#{}", joined(page, target));
            }
        }
    }
    if let Some(first) = blocks.first_mut() {
        first.marks.anchors.push(page.to_owned());
    }
    blocks
}

fn first_attribute(xml: &str, element: &str, name: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) | Event::Empty(start) if start.local_name().as_ref() == element => {
                return Some(attribute(&start, name)).filter(|value| !value.is_empty());
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// The names of the book's pages, in reading order. The table of contents is none of them.
fn spine(opf: &str, root: &str) -> Result<Vec<String>, Unreadable> {
    let mut manifest = BTreeMap::new();
    let mut pages: Vec<String> = Vec::new();
    let mut reader = Reader::from_str(opf);
    loop {
        match reader.read_event().map_err(|error| Unreadable::malformed(Format::Epub, error))? {
            Event::Start(element) | Event::Empty(element) => match element.local_name().as_ref() {
                "item" => {
                    let is_page =
                        matches!(attribute(&element, "media-type").as_str(), "application/xhtml+xml" | "text/html");
                    let is_contents = attribute(&element, "properties").split(' ').any(|property| property == "nav");
                    if is_page && !is_contents {
                        let name = joined(root, &percent_decoded(&attribute(&element, "href")));
                        manifest.insert(attribute(&element, "id"), name);
                    }
                }
                // A page that the spine names twice is read once.
                "itemref" => pages.extend(manifest.remove(&attribute(&element, "idref"))),
                _ => {}
            },
            Event::Eof => return Ok(pages),
            _ => {}
        }
    }
}

//! Where a Word document's hyperlinks and fields lead.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::document::links::percent_decoded;
use crate::extract::format::Format;
use crate::extract::package::attribute;
use crate::extract::reader::Unreadable;

/// The links of a paragraph, those that are open last.
#[derive(Default)]
pub(super) struct Links {
    open: Vec<(usize, String)>,
    done: Vec<(String, String)>,
}

impl Links {
    /// A link begins at a byte of the paragraph's text; an empty target is a field that leads nowhere.
    pub(super) fn open(&mut self, start: usize, target: String) {
        self.open.push((start, target));
    }

    pub(super) fn close(&mut self, text: &str) {
        let Some((start, target)) = self.open.pop() else { return };
        if !target.is_empty() {
            self.done.push((text.get(start..).unwrap_or("").to_owned(), target));
        }
    }

    /// All of them, once the paragraph ends.
    pub(super) fn ended(mut self, text: &str) -> Vec<(String, String)> {
        while !self.open.is_empty() {
            self.close(text);
        }
        self.done
    }
}

/// The targets in `document.xml.rels`, by id.
pub(super) fn relations(xml: &str) -> Result<BTreeMap<String, String>, Unreadable> {
    let mut relations = BTreeMap::new();
    let mut reader = Reader::from_str(xml);
    loop {
        match reader.read_event().map_err(|error| Unreadable::malformed(Format::Docx, error))? {
            Event::Start(element) | Event::Empty(element) if element.local_name().as_ref() == "Relationship" => {
                relations.insert(attribute(&element, "Id"), percent_decoded(&attribute(&element, "Target")));
            }
            Event::Eof => return Ok(relations),
            _ => {}
        }
    }
}

/// What `w:hyperlink` or `w:fldSimple` leads to.
pub(super) fn target(element: &BytesStart<'_>, relations: &BTreeMap<String, String>) -> String {
    let file = relations.get(&attribute(element, "id")).cloned().unwrap_or_default();
    match attribute(element, "anchor") {
        anchor if anchor.is_empty() && file.is_empty() => of_field(&attribute(element, "instr")),
        anchor if anchor.is_empty() => file,
        anchor => format!("{file}#{anchor}"),
    }
}

/// What a field such as `REF _Ref12 \\h` or `HYPERLINK "https://x.org"` leads to; nothing for others.
pub(super) fn of_field(field: &str) -> String {
    let mut words = field.split_whitespace();
    let (name, target) = (words.next().unwrap_or(""), words.next().unwrap_or("").trim_matches('"'));
    match name {
        "REF" | "PAGEREF" => format!("#{target}"),
        "HYPERLINK" if target == "\\l" => format!("#{}", words.next().unwrap_or("").trim_matches('"')),
        "HYPERLINK" => target.to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lead_somewhere() {
        assert_eq!(of_field(" REF _Ref12 \\h "), "#_Ref12");
        assert_eq!(of_field("HYPERLINK \"https://x.org\""), "https://x.org");
        assert_eq!(of_field("HYPERLINK \\l \"a\""), "#a");
        assert_eq!(of_field("PAGE"), "");
    }
}

//! What the styles of an OpenDocument text say of paragraphs and lists.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::extract::format::Format;
use crate::extract::package::attribute;
use crate::extract::reader::Unreadable;

/// The look of a paragraph.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Style {
    pub(super) title: bool,
    pub(super) mono: bool,
    pub(super) bold: Option<bool>,
    /// Points.
    pub(super) size: Option<f32>,
    above: String,
}

/// The styles by name, with what they inherit.
pub(super) struct Styles {
    paragraphs: BTreeMap<String, Style>,
    /// (style of a list, level from 1) to whether it is numbered.
    lists: BTreeMap<(String, usize), bool>,
    plain: Style,
}

impl Styles {
    pub(super) fn read(parts: &[&str]) -> Result<Self, Unreadable> {
        let mut read = Self { paragraphs: BTreeMap::new(), lists: BTreeMap::new(), plain: Style::default() };
        for part in parts {
            read.read_part(part)?;
        }
        let full: BTreeMap<String, Style> =
            read.paragraphs.keys().map(|name| (name.clone(), inherited(name, &read.paragraphs))).collect();
        read.paragraphs = full;
        Ok(read)
    }

    pub(super) fn get(&self, name: &str) -> &Style {
        self.paragraphs.get(name).unwrap_or(&self.plain)
    }

    /// Whether the items of a list are numbered; nothing if its style does not say.
    pub(super) fn is_numbered(&self, name: &str, level: usize) -> Option<bool> {
        self.lists.get(&(name.to_owned(), level)).copied()
    }

    fn read_part(&mut self, xml: &str) -> Result<(), Unreadable> {
        let mut reader = Reader::from_str(xml);
        let (mut style, mut list) = (String::new(), String::new());
        loop {
            match reader.read_event().map_err(|error| Unreadable::malformed(Format::Odt, error))? {
                Event::Start(element) | Event::Empty(element) => match element.local_name().as_ref() {
                    "style" => {
                        style = attribute(&element, "name");
                        let above = attribute(&element, "parent-style-name");
                        self.paragraphs.insert(style.clone(), Style { above, ..named(&style) });
                    }
                    "list-style" => list = attribute(&element, "name"),
                    kind @ ("list-level-style-number" | "list-level-style-bullet") => {
                        let level = attribute(&element, "level").parse().unwrap_or(1);
                        let numbered = kind.ends_with("number") && !attribute(&element, "num-format").is_empty();
                        self.lists.insert((list.clone(), level), numbered);
                    }
                    "text-properties" => {
                        let Some(style) = self.paragraphs.get_mut(&style) else { continue };
                        let weight = attribute(&element, "font-weight");
                        style.bold =
                            if weight.is_empty() { style.bold } else { Some(weight == "bold" || weight == "700") };
                        let size = attribute(&element, "font-size");
                        style.size = size.strip_suffix("pt").and_then(|size| size.parse().ok()).or(style.size);
                    }
                    // The body follows.
                    "body" => return Ok(()),
                    _ => {}
                },
                Event::Eof => return Ok(()),
                _ => {}
            }
        }
    }
}

/// What a style's name alone says. Blanks in names are `_20_`.
fn named(name: &str) -> Style {
    let name = name.replace("_20_", " ").to_lowercase();
    let listing = ["preformatted", "code", "listing", "source", "console", "terminal"];
    Style { title: name == "title", mono: listing.iter().any(|word| name.contains(word)), ..Style::default() }
}

fn inherited(name: &str, styles: &BTreeMap<String, Style>) -> Style {
    let mut full = styles.get(name).cloned().unwrap_or_default();
    let mut above = full.above.clone();
    // A circle of styles is left after sixteen steps.
    for _ in 0..16 {
        let Some(style) = styles.get(&above) else { break };
        full.title |= style.title;
        full.mono |= style.mono;
        full.bold = full.bold.or(style.bold);
        full.size = full.size.or(style.size);
        above.clone_from(&style.above);
    }
    full
}

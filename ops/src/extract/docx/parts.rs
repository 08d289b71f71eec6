//! The parts of a DOCX archive beside its body: styles and numbering.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::extract::format::Format;
use crate::extract::package::attribute;
use crate::extract::reader::Unreadable;

/// The `w:val` of an element.
pub(super) fn value(element: &BytesStart<'_>) -> String {
    attribute(element, "val")
}

/// Whether a font's name is one of fixed pitch.
pub(super) fn is_mono(font: &str) -> bool {
    let font = font.to_ascii_lowercase();
    ["courier", "consolas", "mono", "menlo", "monaco", "typewriter", "ohlfs"].iter().any(|part| font.contains(part))
}

/// What a paragraph's style says.
#[derive(Clone, Debug, Default)]
pub(super) struct Style {
    pub(super) heading: Option<u8>,
    pub(super) is_title: bool,
    /// Its name says that it is for listings.
    pub(super) is_listing: bool,
    pub(super) mono: bool,
    pub(super) bold: bool,
    pub(super) size: f32,
    pub(super) list: Option<(String, u8)>,
    /// `List Bullet` is true, `List Number` false.
    pub(super) bullet: Option<bool>,
    pub(super) list_depth: u8,
    based_on: String,
}

/// The styles by id.
pub(super) struct Styles {
    styles: BTreeMap<String, Style>,
    normal: Style,
}

impl Styles {
    pub(super) fn read(xml: &str) -> Result<Self, Unreadable> {
        let mut styles: BTreeMap<String, Style> = BTreeMap::new();
        let mut id = String::new();
        let mut reader = Reader::from_str(xml);
        loop {
            match reader.read_event().map_err(|error| Unreadable::malformed(Format::Docx, error))? {
                Event::Start(element) | Event::Empty(element) => {
                    let local = element.local_name();
                    let name = local.as_ref();
                    if name == "style" {
                        id = attribute(&element, "styleId");
                        styles.insert(id.clone(), Style { list_depth: 1, ..Style::default() });
                    }
                    if let Some(style) = styles.get_mut(&id) {
                        style.learn(name, &element);
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let inherited: BTreeMap<String, Style> =
            styles.iter().map(|(id, style)| (id.clone(), inherit(style, &styles, 0))).collect();
        let normal = inherited.get("Normal").cloned().unwrap_or_default();
        Ok(Self { styles: inherited, normal })
    }

    pub(super) fn get(&self, id: &str) -> &Style {
        self.styles.get(id).unwrap_or(&self.normal)
    }
}

impl Style {
    fn learn(&mut self, element_name: &str, element: &BytesStart<'_>) {
        match element_name {
            "name" => self.named(&value(element).to_ascii_lowercase()),
            "basedOn" => self.based_on = value(element),
            "outlineLvl" => {
                let level = value(element).parse::<u8>().ok().filter(|level| *level < 9);
                self.heading = self.heading.or(level.map(|level| (level + 1).min(6)));
            }
            "rFonts" => self.mono |= is_mono(&attribute(element, "ascii")),
            "b" => self.bold = !matches!(value(element).as_str(), "0" | "false"),
            "sz" => self.size = value(element).parse::<f32>().map_or(0.0, |halves| halves / 2.0),
            "numId" => self.list.get_or_insert_default().0 = value(element),
            "ilvl" => self.list.get_or_insert_default().1 = value(element).parse().unwrap_or(0),
            _ => {}
        }
    }

    fn named(&mut self, name: &str) {
        self.is_title = name == "title";
        if let Some(level) = name.strip_prefix("heading ").and_then(|level| level.parse::<u8>().ok()) {
            self.heading = Some(level.clamp(1, 6));
        }
        let words = ["code", "listing", "source", "preformatted", "macro text", "plain text", "console", "terminal"];
        self.is_listing = words.iter().any(|word| name.contains(word)) && !name.contains("char");
        self.mono |= self.is_listing;
        if let Some(rest) = name.strip_prefix("list bullet").or_else(|| name.strip_prefix("list number")) {
            self.bullet = Some(name.contains("bullet"));
            self.list_depth = rest.trim().parse().unwrap_or(1);
        }
    }
}

/// What a style leaves open comes from the one it is based on. A circle of styles is left after eight steps.
fn inherit(style: &Style, styles: &BTreeMap<String, Style>, steps: usize) -> Style {
    let mut full = style.clone();
    if let Some(base) = styles.get(&style.based_on).filter(|_| steps < 8) {
        let base = inherit(base, styles, steps + 1);
        full.heading = full.heading.or(base.heading);
        full.mono |= base.mono;
        full.is_listing |= base.is_listing;
        full.bold |= base.bold;
        full.list = full.list.or(base.list);
        full.bullet = full.bullet.or(base.bullet);
        if full.size == 0.0 {
            full.size = base.size;
        }
    }
    full
}

/// Which lists are numbered, and how far each has counted.
#[derive(Default)]
pub(super) struct Numbering {
    /// Number id to its abstract definition.
    numbers: BTreeMap<String, String>,
    /// (abstract definition, level) to whether it has bullets.
    bullets: BTreeMap<(String, u8), bool>,
    counts: BTreeMap<(String, u8), u32>,
}

impl Numbering {
    pub(super) fn read(xml: &str) -> Result<Self, Unreadable> {
        let mut numbering = Self::default();
        let (mut definition, mut level, mut number) = (String::new(), 0_u8, String::new());
        let mut reader = Reader::from_str(xml);
        loop {
            match reader.read_event().map_err(|error| Unreadable::malformed(Format::Docx, error))? {
                Event::Start(element) | Event::Empty(element) => match element.local_name().as_ref() {
                    "abstractNum" => definition = attribute(&element, "abstractNumId"),
                    "lvl" => level = attribute(&element, "ilvl").parse().unwrap_or(0),
                    "numFmt" => {
                        let bullet = matches!(value(&element).as_str(), "bullet" | "none");
                        numbering.bullets.insert((definition.clone(), level), bullet);
                    }
                    "num" => number = attribute(&element, "numId"),
                    "abstractNumId" => {
                        numbering.numbers.insert(number.clone(), value(&element));
                    }
                    _ => {}
                },
                Event::Eof => return Ok(numbering),
                _ => {}
            }
        }
    }

    /// The marker of the next item of a list; the levels below it begin again.
    pub(super) fn next(&mut self, id: &str, level: u8) -> String {
        let bullet = match self.numbers.get(id) {
            Some(definition) => self.bullets.get(&(definition.clone(), level)).copied().unwrap_or(true),
            None => !id.starts_with("style "),
        };
        if bullet {
            return "- ".to_owned();
        }
        self.counts.retain(|(other, deeper), _| other != id || *deeper <= level);
        let count = self.counts.entry((id.to_owned(), level)).or_default();
        *count += 1;
        format!("{count}. ")
    }
}

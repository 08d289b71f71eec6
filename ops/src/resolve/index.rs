//! Where links and references lead among many documents.
//!
//! | a link | leads to |
//! |---|---|
//! | to a file, with an anchor | the block with that anchor; the file's beginning where there is none |
//! | to a file, its words a number (`section 4.1`) | the heading or caption with that number in that file |
//! | to a file | its first heading |
//! | words with a number (`chapter 27`) | the one document of the same work that has it |
//! | `the next chapter` | the document of the same work whose chapter has the next number |
//!
//! Documents are parts of one work if no chapter is in both. Of those, the nearest by folder count, then those of the
//! same format. A reference that leads nowhere is better than a wrong one, so what is left must be a single one.

use std::collections::{BTreeMap, BTreeSet};

use super::Links;
use crate::document::links::{Link, LinkKind};
use crate::document::references::{self, ANOTHER_WORK};
use crate::document::{Document, Kind};

/// A number that more documents have names nothing, and no more documents are asked whether a place is theirs.
const MOST_CANDIDATES: usize = 256;

/// A block of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    /// The document, by its row.
    pub(super) document: usize,
    pub(super) block: u32,
}

impl Spot {
    /// Before every other of the document.
    pub(super) fn first_of(document: usize) -> Self {
        Self { document, block: 0 }
    }
}

/// What documents offer to each other, and what they ask for.
#[derive(Default)]
pub(super) struct Index {
    documents: Vec<Entry>,
    paths: BTreeMap<String, usize>,
    numbers: BTreeMap<(&'static str, String), Vec<Spot>>,
    chapters: BTreeMap<String, Vec<usize>>,
}

struct Entry {
    path: String,
    /// Its first heading, or its first block.
    start: u32,
    anchors: BTreeMap<String, u32>,
    chapters: BTreeSet<String>,
    /// Links that should lead to other documents, by their place in `links`.
    links: Vec<(u32, Link)>,
}

impl Index {
    /// Adds the next document.
    pub(super) fn add(&mut self, path: &str, document: &Document) {
        let row = self.documents.len();
        for (noun, number, block) in references::numbers(document) {
            self.numbers.entry((noun, number)).or_default().push(Spot { document: row, block });
        }
        let chapters = references::chapters(document);
        for chapter in &chapters {
            self.chapters.entry(chapter.clone()).or_default().push(row);
        }
        let start = document.blocks.iter().position(|block| block.kind == Kind::Heading).unwrap_or(0) as u32;
        let anchors = document.anchors.iter().map(|anchor| (anchor.name.clone(), anchor.block)).collect();
        let links = (0..).zip(&document.links).filter(|(_, link)| leads_out(link));
        let links = links.map(|(at, link)| (at, link.clone())).collect();
        self.paths.entry(path.to_owned()).or_insert(row);
        self.documents.push(Entry { path: path.to_owned(), start, anchors, chapters, links });
    }

    /// The path of a document.
    pub(super) fn path(&self, document: usize) -> &str {
        &self.documents[document].path
    }

    /// Of every document, where its links lead, or why nowhere. All documents must have been added.
    pub(super) fn resolve(&self) -> Vec<Links> {
        let links = |(row, entry): (usize, &Entry)| -> Links {
            entry.links.iter().map(|(at, link)| (*at, self.find(row, link))).collect()
        };
        self.documents.iter().enumerate().map(links).collect()
    }

    fn find(&self, from: usize, link: &Link) -> Result<Spot, String> {
        match link.kind {
            LinkKind::Document => self.file(link),
            LinkKind::Anchor => Err(format!("the document has no anchor `{}`", link.target.trim_start_matches('#'))),
            LinkKind::Reference | LinkKind::Url => self.reference(from, &link.target),
        }
    }

    fn file(&self, link: &Link) -> Result<Spot, String> {
        let (file, anchor) =
            link.target.split_once('#').map_or((&*link.target, None), |(file, name)| (file, Some(name)));
        let index = || self.paths.get(&format!("{}/index.html", file.trim_end_matches('/')));
        let row = *self.paths.get(file).or_else(index).ok_or_else(|| format!("`{file}` is not among the documents"))?;
        let entry = &self.documents[row];
        let at_anchor = anchor.and_then(|name| entry.anchors.get(name)).copied();
        let numbered = || {
            let spots = self.numbers.get(&references::named(&link.label)?)?;
            spots.iter().find(|spot| spot.document == row).map(|spot| spot.block)
        };
        Ok(Spot { document: row, block: at_anchor.or_else(numbered).unwrap_or(entry.start) })
    }

    fn reference(&self, from: usize, target: &str) -> Result<Spot, String> {
        if let Some(named) = target.strip_suffix(ANOTHER_WORK) {
            return Err(format!("{named} is of another work"));
        }
        let own = &self.documents[from].chapters;
        let (noun, number) = match target.split_once(' ') {
            Some((which @ ("next" | "previous"), noun)) => {
                let number = own.first().filter(|_| noun == "chapter" && own.len() == 1);
                let number = number.and_then(|number| number.parse::<u32>().ok());
                let step = |number: u32| if which == "next" { number.checked_add(1) } else { number.checked_sub(1) };
                let number = number.and_then(step).ok_or_else(|| format!("there is no {target}"))?;
                (noun, number.to_string())
            }
            Some((noun, number)) => (noun, number.to_owned()),
            None => return Err("it names no place".into()),
        };
        self.numbered(from, noun, &number)
    }

    /// The place of the work of `from` that has a number.
    fn numbered(&self, from: usize, noun: &str, number: &str) -> Result<Spot, String> {
        let noun = references::noun(noun);
        let named = format!("{noun} {number}");
        let spots = self.numbers.get(&(noun, number.to_owned())).map_or(&[][..], Vec::as_slice);
        let own = &self.documents[from];
        let of_the_work =
            |spot: &&Spot| spot.document != from && self.documents[spot.document].chapters.is_disjoint(&own.chapters);
        if spots.len() > MOST_CANDIDATES {
            return Err(format!("{} documents have a {named}", spots.len()));
        }
        let mut left: Vec<&Spot> = spots.iter().filter(of_the_work).collect();
        let nearest = left.iter().map(|spot| self.shared(from, spot.document)).max();
        left.retain(|spot| Some(self.shared(from, spot.document)) == nearest);
        if left.len() > 1 {
            let format = |row: usize| self.documents[row].path.rsplit_once('.').map(|(_, format)| format);
            let same: Vec<&Spot> = left.iter().copied().filter(|spot| format(spot.document) == format(from)).collect();
            left = if same.len() == 1 { same } else { left };
        }
        match left[..] {
            [] => Err(format!("no other part of the work has a {named}")),
            [spot] if self.belongs_elsewhere(from, spot.document) => {
                Err(format!("the {named} of `{}` is another work's", self.path(spot.document)))
            }
            [spot] => Ok(*spot),
            [first, second, ..] => {
                let (count, first, second) = (left.len(), self.path(first.document), self.path(second.document));
                Err(format!("{count} documents have a {named}: `{first}`, `{second}`"))
            }
        }
    }

    /// Whether a document nearer to `other` than `from` has a chapter of `from`: then `other` is a part of that one's work.
    fn belongs_elsewhere(&self, from: usize, other: usize) -> bool {
        let near = self.shared(from, other);
        let rivals = self.documents[from].chapters.iter().filter_map(|chapter| self.chapters.get(chapter)).flatten();
        rivals.take(MOST_CANDIDATES).any(|rival| *rival != from && self.shared(*rival, other) > near)
    }

    /// How many folders two documents share, from the outermost.
    fn shared(&self, one: usize, other: usize) -> usize {
        let folders =
            |row: usize| self.documents[row].path.rsplit_once('/').map_or("", |(folders, _)| folders).split('/');
        folders(one).zip(folders(other)).take_while(|(one, other)| one == other).count()
    }
}

/// Whether a link should lead to a place that the documents may have, and does not lead to one in its own.
fn leads_out(link: &Link) -> bool {
    match link.kind {
        LinkKind::Document => true,
        LinkKind::Anchor | LinkKind::Reference => link.to.is_none(),
        LinkKind::Url => false,
    }
}

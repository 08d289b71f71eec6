//! References in running text: "see chapter 5", "section 3.2", "figure 4", "the next chapter", a heading in quotes. What
//! they name is looked for among the document's headings and captions.
//!
//! Of several places with the number, the one under the same headings is meant; where that leaves more than one, none is
//! taken: a reference that leads nowhere is better than a wrong one. Numbers of another work ("section 3 of RFC 1034")
//! lead nowhere either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use super::links::{Link, LinkKind};
use super::{Document, Kind};

/// A noun and a number: `Chapter 5`, `Fig. 4-2`, `sections 3.1`, `appendix B`.
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| {
    let nouns = "chapters?|sections?|sect\\.|appendix|appendices|parts?|figures?|figs?\\.|tables?|examples?|listings?";
    regex(&format!(r"(?i)((?-u:\b)(?:{nouns})|§§?)[\s~]*({NUMBER})"))
});
/// What goes on with more numbers of the same noun: `Chapters 3, 4 and 5`.
static MORE: LazyLock<Regex> =
    LazyLock::new(|| regex(&format!(r"^(?:,|,? and|,? or|,? to|–|-|,? through)\s+({NUMBER})")));
// The ends of words are those of ASCII here and below: with Unicode's, the fast searches of `regex` give up at the first other letter.
const NUMBER: &str = r"(?:[0-9]{1,3}|[A-Z]|[IVX]{1,5})(?:[.-][0-9]{1,3})*(?-u:\b)";
static NEIGHBOUR: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)(?-u:\b)(next|following|previous|preceding|last)\s+(chapter|section|appendix|part)(?-u:\b)")
});
/// What comes before a title: `see "`, `in the section “`.
static OPENING: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)(?-u:\b)(?:see|in|under|section|chapter|also|and|titled|called|entitled)(?:\s+the)?(?:\s+(?:section|chapter|appendix))?,?\s+["“‘'`]{1,2}"#,
    )
});
/// The fewest and the most characters that a title in quotes has.
const TITLE: std::ops::RangeInclusive<usize> = 3..=80;
/// The number that a heading or a caption begins with.
static HEADED: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"^(?i:(chapter|section|appendix|part|figure|fig\.|table|example|listing|§)\s*)?({NUMBER})(?:[.):\s—–-]|$)"
    ))
});
/// A word of these after a number says that another work is meant.
static ELSEWHERE: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^,?\s+(?:of|in|from)\s+(?:RFC|the\s+[A-Z]|[A-Z“‘]|POSIX|ISO|your(?-u:\b)|that(?-u:\b))"));

/// What the target of a reference ends with that names another work.
pub(crate) const ANOTHER_WORK: &str = " of another work";

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of ours")
}

/// Adds the references of a document to its links, and sorts these by block.
pub(super) fn find(document: &mut Document) {
    let places = Places::of(document);
    let mut found = Vec::new();
    for (at, block) in document.blocks.iter().enumerate() {
        if matches!(block.kind, Kind::Heading | Kind::Code) {
            continue;
        }
        let text = document.text_of(block);
        if !may_refer(text) {
            continue;
        }
        numbered(&places, at, text, &mut found);
        neighbours(&places, at, text, &mut found);
        quoted(&places, at, text, &mut found);
    }
    // A hyperlink whose words are the reference says more than the words.
    let linked = |reference: &Link| {
        let held = document.links.partition_point(|link| link.block < reference.block);
        let mut held = document.links[held..].iter().take_while(|link| link.block == reference.block);
        held.any(|link| !link.label.is_empty() && link.label.to_lowercase().contains(&reference.label.to_lowercase()))
    };
    found.retain(|reference| !linked(reference));
    document.links.extend(found);
    document.links.sort_by_key(|link| link.block);
}

/// What a document calls its headings and captions: noun, number and block. Of several with a number the highest heading has it; where
/// that leaves more than one, none.
pub(crate) fn numbers(document: &Document) -> Vec<(&'static str, String, u32)> {
    let mut found = BTreeMap::<(&'static str, String), Vec<usize>>::new();
    for (at, block) in document.blocks.iter().enumerate().filter(|(_, block)| block.kind != Kind::Code) {
        for name in numbers_of(document.text_of(block), block.kind == Kind::Heading) {
            found.entry(name).or_default().push(at);
        }
    }
    let rank = |at: &usize| match document.blocks[*at].kind {
        Kind::Heading => document.blocks[*at].level,
        _ => u8::MAX,
    };
    let unique = found.into_iter().filter_map(|((noun, number), blocks)| {
        let highest = blocks.iter().map(rank).min()?;
        let mut of_rank = blocks.iter().filter(|at| rank(at) == highest);
        let first = of_rank.next()?;
        of_rank.next().is_none().then_some((noun, number, *first as u32))
    });
    unique.collect()
}

/// The chapters that a document has: the numbers of those called chapter, appendix or part, else what its headings' numbers begin with.
pub(crate) fn chapters(document: &Document) -> BTreeSet<String> {
    let (mut called, mut counted) = (BTreeSet::new(), BTreeSet::new());
    for block in document.blocks.iter().filter(|block| block.kind == Kind::Heading) {
        let Some(parts) = HEADED.captures(document.text_of(block)) else { continue };
        let number = parts[2].to_lowercase();
        let chapter = number.split(['.', '-']).next().unwrap_or(&number).to_owned();
        match parts.get(1).map(|word| noun(word.as_str())) {
            Some("chapter" | "appendix" | "part") => called.insert(chapter),
            _ => counted.insert(chapter),
        };
    }
    if called.is_empty() { counted } else { called }
}

/// What words name that are a reference and nothing else: `Section 4.1`, `chapter 5`.
pub(crate) fn named(words: &str) -> Option<(&'static str, String)> {
    let parts = NUMBERED.captures(words.trim())?;
    let noun = noun(&parts[1]);
    (parts[0] == *words.trim() && is_number(&parts[2], noun)).then(|| (noun, parts[2].to_lowercase().replace('-', ".")))
}

/// A cheap look before the patterns: most blocks have none of these letters together.
fn may_refer(text: &str) -> bool {
    text.contains("hapter")
        || text.contains("ection")
        || text.contains("ppendi")
        || text.contains("igure")
        || text.contains("ig.")
        || text.contains("able ")
        || text.contains("xample")
        || text.contains("isting")
        || text.contains('§')
        || text.contains("art ")
        || text.contains("ee ")
        || text.contains("HAPTER")
}

fn numbered(places: &Places, at: usize, text: &str, found: &mut Vec<Link>) {
    for part in NUMBERED.captures_iter(text) {
        let whole = part.get(0).expect("a match has itself");
        let noun = noun(&part[1]);
        let caption = whole.start() == 0 && matches!(noun, "figure" | "table" | "example" | "listing");
        // A noun in small letters is followed by a digit, or by a capital: `part I` is meant, `part a` is not.
        // After a sign the number has digits: `§ A` is somebody's own sign.
        let signed = part[1].starts_with('§') && !part[2].starts_with(|char: char| char.is_ascii_digit());
        if caption || signed || !is_number(&part[2], noun) || !stands_alone(text, whole.range()) {
            continue;
        }
        let mut end = whole.end();
        let mut numbers = vec![(whole.as_str(), part[2].to_owned())];
        while let Some(more) = MORE.captures(&text[end..]).filter(|more| is_number(&more[1], noun)) {
            let number = more.get(1).expect("it has a number");
            numbers.push((&text[end + number.start()..end + number.end()], number.as_str().to_owned()));
            end += number.end();
        }
        let elsewhere = ELSEWHERE.is_match(&text[end..]) && !names_itself(&text[end..]);
        for (label, number) in numbers {
            let number = number.to_lowercase().replace('-', ".");
            let (to, whose) = if elsewhere { (None, ANOTHER_WORK) } else { (places.numbered(noun, &number, at), "") };
            found.push(reference(at, label, format!("{noun} {number}{whose}"), to));
        }
    }
}

/// Whether it is no part of a longer word.
fn stands_alone(text: &str, range: std::ops::Range<usize>) -> bool {
    !text[..range.start].ends_with(char::is_alphanumeric) && !text[range.end..].starts_with(char::is_alphanumeric)
}

/// `of this chapter`, `of the manual`: the document itself is meant.
fn names_itself(rest: &str) -> bool {
    let rest = rest.trim_start_matches([',', ' ']);
    ["of this ", "in this "].iter().any(|start| rest.starts_with(start))
}

fn is_number(number: &str, noun: &str) -> bool {
    let digit = number.starts_with(|char: char| char.is_ascii_digit());
    let capital = number.starts_with(|char: char| char.is_ascii_uppercase());
    digit
        || capital
            && matches!(noun, "appendix" | "part" | "section" | "chapter")
            && (number != "I" || noun == "part" || noun == "chapter")
}

/// The noun in full, and in the singular.
pub(crate) fn noun(word: &str) -> &'static str {
    match word.chars().next().map(|char| char.to_ascii_lowercase()) {
        Some('c') => "chapter",
        Some('s' | '§') => "section",
        Some('a') => "appendix",
        Some('p') => "part",
        Some('f') => "figure",
        Some('t') => "table",
        Some('e') => "example",
        _ => "listing",
    }
}

fn neighbours(places: &Places, at: usize, text: &str, found: &mut Vec<Link>) {
    for part in NEIGHBOUR.captures_iter(text) {
        let next = matches!(part[1].to_ascii_lowercase().as_str(), "next" | "following");
        let noun = noun(&part[2]);
        if part[1].eq_ignore_ascii_case("last") && !matches!(noun, "chapter" | "section") {
            continue;
        }
        let to = places.neighbour(noun, next, at);
        let target = format!("{} {noun}", if next { "next" } else { "previous" });
        found.push(reference(at, &part[0], target, to));
    }
}

fn quoted(places: &Places, at: usize, text: &str, found: &mut Vec<Link>) {
    let mut from = 0;
    while let Some(opening) = OPENING.find_at(text, from) {
        let rest = &text[opening.end()..];
        let Some(title) = title(rest) else {
            from = opening.end();
            continue;
        };
        from = opening.end() + title.len();
        // Words in quotes are a reference only if there is such a heading.
        if let Some(to) = places.titled(title, at) {
            found.push(reference(at, title, plain(title), Some(to)));
        }
    }
}

/// What stands before the quotation marks that end it, and before a comma or a point inside of them.
fn title(rest: &str) -> Option<&str> {
    let closes = |char: char| matches!(char, '"' | '”' | '’' | '\'');
    for (n, (at, char)) in rest.char_indices().enumerate().take(TITLE.end() + 2) {
        let after = || rest[at + char.len_utf8()..].chars().next();
        let ends = closes(char) || matches!(char, ',' | '.') && after().is_some_and(closes);
        if ends && TITLE.contains(&n) {
            return Some(&rest[..at]);
        }
        if matches!(char, '"' | '“' | '”' | '‘' | '’' | '`' | '\n') {
            return None;
        }
    }
    None
}

fn reference(at: usize, label: &str, target: String, to: Option<usize>) -> Link {
    let label = label.split_whitespace().collect::<Vec<_>>().join(" ");
    Link { block: at as u32, kind: LinkKind::Reference, label, target, to: to.map(|to| to as u32) }
}

/// A title in lower case, letters and digits only, without its number.
fn plain(title: &str) -> String {
    let title = HEADED.find(title).map_or(title, |number| &title[number.end()..]);
    let words = title.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// Where headings and captions are, by what they are called.
struct Places<'a> {
    document: &'a Document,
    numbers: BTreeMap<(&'static str, String), Vec<usize>>,
    titles: BTreeMap<String, Vec<usize>>,
    headings: Vec<usize>,
    /// The level at which the document's chapters stand.
    chapter_level: u8,
}

impl<'a> Places<'a> {
    fn of(document: &'a Document) -> Self {
        let blocks = &document.blocks;
        let headings: Vec<usize> = (0..blocks.len()).filter(|at| blocks[*at].kind == Kind::Heading).collect();
        let mut places =
            Self { document, numbers: BTreeMap::new(), titles: BTreeMap::new(), chapter_level: 1, headings };
        for (at, block) in blocks.iter().enumerate() {
            let text = document.text_of(block);
            if block.kind == Kind::Heading {
                places.titles.entry(plain(text)).or_default().push(at);
            }
            if block.kind == Kind::Code {
                continue;
            }
            for (noun, number) in numbers_of(text, block.kind == Kind::Heading) {
                places.numbers.entry((noun, number)).or_default().push(at);
            }
        }
        places.chapter_level = places.level_of_chapters();
        places
    }

    /// That of the headings called chapters, else the highest that more than one heading has.
    fn level_of_chapters(&self) -> u8 {
        let mut called = self.numbers.iter().filter(|((noun, _), _)| *noun == "chapter").flat_map(|(_, at)| at);
        let level = |at: &usize| self.document.blocks[*at].level;
        if let Some(at) =
            called.find(|at| self.document.text_of(&self.document.blocks[**at]).to_lowercase().starts_with("chapter"))
        {
            return level(at);
        }
        let count = |wanted: u8| self.headings.iter().filter(|at| level(at) == wanted).count();
        (1..=6).find(|wanted| count(*wanted) > 1).unwrap_or(1)
    }

    fn numbered(&self, noun: &'static str, number: &str, from: usize) -> Option<usize> {
        let candidates = self.numbers.get(&(noun, number.to_owned()))?;
        self.nearest(candidates, from)
    }

    fn titled(&self, title: &str, from: usize) -> Option<usize> {
        let title = plain(title);
        let candidates = self.titles.get(&title).filter(|_| !title.is_empty())?;
        self.nearest(candidates, from)
    }

    /// The one that shares most headings with the block that refers; nothing if several do.
    fn nearest(&self, candidates: &[usize], from: usize) -> Option<usize> {
        let blocks = &self.document.blocks;
        let shared = |at: usize| {
            let pairs = blocks[at].heading_path.iter().zip(blocks[from].heading_path.iter());
            pairs.take_while(|(one, other)| one == other).count()
        };
        let most = candidates.iter().map(|at| shared(*at)).max()?;
        let mut best = candidates.iter().filter(|at| shared(**at) == most);
        let found = best.next()?;
        best.next().is_none().then_some(*found)
    }

    /// The heading after or before the one that the block lies under, at the same level.
    fn neighbour(&self, noun: &str, next: bool, from: usize) -> Option<usize> {
        let blocks = &self.document.blocks;
        let above = self.headings.partition_point(|at| *at <= from);
        let level = |index: usize| blocks[self.headings[index]].level;
        let own = (0..above).rev().find(|index| noun == "section" || level(*index) <= self.chapter_level)?;
        let wanted = level(own);
        let mut others: Box<dyn Iterator<Item = usize>> =
            if next { Box::new(own + 1..self.headings.len()) } else { Box::new((0..own).rev()) };
        let found = others.find(|index| level(*index) <= wanted).filter(|index| level(*index) == wanted)?;
        Some(self.headings[found])
    }
}

/// What the first words of a heading or caption say it is called: `Chapter 5`, `3.2 Title`, `Figure 4:`.
fn numbers_of(text: &str, heading: bool) -> Vec<(&'static str, String)> {
    let Some(parts) = HEADED.captures(text) else { return Vec::new() };
    let number = parts[2].to_lowercase().replace('-', ".");
    if let Some(word) = parts.get(1) {
        let noun = noun(word.as_str());
        // Running text that begins so is a caption only if the number ends in a point or a colon, or stands alone.
        let rest = text[parts.get(2).map_or(0, |number| number.end())..].trim_start_matches(' ');
        let caption =
            rest.is_empty() || rest.starts_with(['.', ':', ')', '—', '–', '-']) || rest.starts_with(char::is_uppercase);
        let named = matches!(noun, "figure" | "table" | "example" | "listing");
        return if heading || named && caption { vec![(noun, number)] } else { Vec::new() };
    }
    if !heading {
        return Vec::new();
    }
    let digit = number.starts_with(|char: char| char.is_ascii_digit());
    let parted = number.contains('.');
    match (digit, parted) {
        (true, true) => vec![("section", number)],
        (true, false) => vec![("chapter", number.clone()), ("section", number)],
        (false, true) => vec![("appendix", number.clone()), ("section", number)],
        // `A Title` may be an article; `A. Title` is not.
        (false, false) if text[parts[2].len()..].starts_with(['.', ':']) => vec![("appendix", number)],
        (false, false) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;

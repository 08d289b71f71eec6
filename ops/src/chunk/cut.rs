//! Where to cut: the cheapest way through a document, as a paragraph is broken into lines by TeX.
//!
//! Every cut has a price by what it parts, every chunk one for being small and for running over into another section.
//! A chunk over the budget has no price at all. Working backwards, the cheapest way from each atom to the end is known
//! from those after it. Prices are sums over chunks, so an edit moves cuts near it and no others: at the next heading
//! the old way is the cheapest again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::atoms::Joint;

/// Where a document is cut by preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A section a chunk; small neighbours of one chapter together, long ones cut between paragraphs.
    #[default]
    Headings,
    /// As many whole paragraphs, lists, tables and listings as fit.
    Paragraphs,
    /// As many whole sentences as fit.
    Sentences,
    /// As `headings`, and inside a section where the text turns to something else.
    Semantic,
}

/// What the cutter knows of a document.
pub struct Layout {
    /// Of every atom: what lies before it.
    pub joints: Vec<Joint>,
    /// Of every atom: the token that its first byte lies in.
    pub first_token: Vec<usize>,
    /// Of every atom: one past the token that its last byte lies in.
    pub end_token: Vec<usize>,
    /// Of every atom: the level of the section it lies in; 0 before the first heading.
    pub level: Vec<u8>,
    /// Of every atom: whether it begins with what the line before leads in to (`:`).
    pub led_in: Vec<bool>,
    /// Of every atom: whether the block it lies in fits a chunk by itself.
    pub whole: Vec<bool>,
    /// Of every atom: where a chunk that is cut here begins, with its overlap.
    pub from: Vec<usize>,
    /// Of every atom: how far the text turns to something else before it, from 0 to 1.
    pub fall: Vec<f64>,
    /// Of every atom: what a chunk that begins here carries before its own text, in tokens.
    pub prefix: Vec<usize>,
}

/// What is known of the cheapest way through a document.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// Of every atom, and of the end: what the way from there to the end costs.
    cost: Vec<f64>,
    /// Of every atom: where the chunk that begins there ends.
    next: Vec<usize>,
}

/// The limits of a chunk, in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most.
    pub max: usize,
    /// A smaller one is made only where nothing else is better.
    pub min: usize,
    /// Where to cut by preference.
    pub by: By,
}

/// What it costs to cut where the text turns to something else altogether.
const TURN: f64 = 0.2;
/// What it costs that a chunk goes on over such a place.
const TURN_CROSSED: f64 = 1.5;

impl Layout {
    /// The tokens of a chunk of the atoms `start..end` with its prefix and overlap, as counted in the whole document.
    pub fn tokens(&self, start: usize, end: usize) -> usize {
        let from = self.from[start];
        self.prefix[start] + self.end_token[end - 1].saturating_sub(self.first_token[from])
    }

    /// The atoms at which chunks begin, ascending; the first is 0. A chunk of a single atom may be over the budget.
    /// Of `ways` those from the atom `changed` on hold still, all others are found anew.
    pub fn cheapest(&self, limits: Limits, changed: usize, ways: &mut Ways) -> Vec<usize> {
        let atoms = self.joints.len();
        if ways.next.len() != atoms {
            *ways = Ways { cost: vec![f64::INFINITY; atoms + 1], next: vec![atoms; atoms] };
            ways.cost[atoms] = 0.0;
        }
        let Ways { cost, next } = ways;
        // What every pair of atoms asks again is looked up.
        let sizes: Vec<f64> = (0..=limits.max.min(1 << 14)).map(|tokens| chunk_price(tokens, limits)).collect();
        let size = |tokens: usize| sizes.get(tokens).copied().unwrap_or_else(|| chunk_price(tokens, limits));
        let cuts: Vec<f64> = (0..=atoms).map(|atom| self.cut_price(atom, limits.by)).collect();
        // Where going on costs something: a section begins, or the text turns to something else. From the last on.
        let turns = (1..atoms).rev().filter(|atom| self.starts_section(*atom) || self.fall[*atom] > 0.0);
        let turns: Vec<usize> = turns.collect();
        let (mut passed, mut last) = (0, atoms);
        for start in (0..changed.min(atoms)).rev() {
            passed += turns[passed..].iter().take_while(|turn| **turn > start).count();
            let mut ahead = turns[..passed].iter().rev().copied();
            let (mut crossed, mut level) = (0.0, self.level[start]);
            let (prefix, first_token) = (self.prefix[start], self.first_token[self.from[start]]);
            let fits = |end: usize| prefix + self.end_token[end - 1].saturating_sub(first_token) <= limits.max;
            while last > start + 1 && !fits(last) {
                last -= 1;
            }
            while last < atoms && fits(last + 1) {
                last += 1;
            }
            let (mut best, mut best_end) = (f64::INFINITY, atoms);
            let mut end = start + 1;
            while end <= last {
                let turn = ahead.next().unwrap_or(last);
                let until = turn.min(last);
                let ends = self.end_token[end - 1..until].iter().zip(&cuts[end..=until]).zip(&cost[end..=until]);
                for (end, ((end_token, cut), after)) in (end..).zip(ends) {
                    let tokens = prefix + end_token.saturating_sub(first_token);
                    let total = size(tokens) + crossed + cut + after;
                    if total < best {
                        (best, best_end) = (total, end);
                    }
                }
                end = until + 1;
                if end <= last {
                    crossed += TURN_CROSSED * self.fall[turn] * self.fall[turn];
                    if self.starts_section(turn) {
                        crossed += crossing_price(level, self.level[turn], limits.by);
                        level = level.min(self.level[turn]);
                    }
                }
            }
            (cost[start], next[start]) = (best, best_end);
        }
        let mut starts = Vec::new();
        let mut at = 0;
        while at < atoms {
            starts.push(at);
            at = next[at];
        }
        starts
    }

    fn starts_section(&self, atom: usize) -> bool {
        self.joints[atom] == Joint::Section
            || (self.joints[atom] == Joint::Heading && self.level[atom] != self.level[atom - 1])
    }

    /// What it costs to cut before an atom.
    fn cut_price(&self, atom: usize, by: By) -> f64 {
        let Some(joint) = self.joints.get(atom) else { return 0.0 };
        let price = match (joint, by) {
            (Joint::Section, By::Headings | By::Semantic) => 0.0,
            (Joint::Section, _) => 0.2,
            (Joint::Block, _) => 0.8,
            (Joint::Sentence, By::Sentences) => 0.9,
            (Joint::Item, _) => 1.5,
            (Joint::Sentence | Joint::Gap, _) => 2.0,
            (Joint::Nested, _) => 2.2,
            (Joint::Row, _) => 2.5,
            (Joint::Line, _) => 3.5,
            (Joint::Word, _) => 8.0,
            (Joint::Inside, _) => 20.0,
            (Joint::Heading, _) => 50.0,
        };
        // Inside a block: dearer if it would have fitted whole.
        let parts_block = !matches!(joint, Joint::Section | Joint::Block | Joint::Heading);
        let by_sentences = *joint == Joint::Sentence && by == By::Sentences;
        let whole = if parts_block && !by_sentences && self.whole[atom] { 3.0 } else { 0.0 };
        let fall = self.fall[atom];
        (price + whole) * (1.0 - fall) + TURN * fall + if self.led_in[atom] { 1.5 } else { 0.0 }
    }
}

/// What it costs that a chunk goes on into the section that begins with a heading of level `to`.
fn crossing_price(from: u8, to: u8, by: By) -> f64 {
    match (by, to.cmp(&from)) {
        (By::Headings | By::Semantic, std::cmp::Ordering::Greater) => 0.15,
        (By::Headings | By::Semantic, std::cmp::Ordering::Equal) => 0.6,
        (By::Headings | By::Semantic, std::cmp::Ordering::Less) => 2.5,
        _ => 0.0,
    }
}

/// What a chunk costs by its size. The last term only parts two ways that cost the same: the more even one wins.
fn chunk_price(tokens: usize, limits: Limits) -> f64 {
    let each = if matches!(limits.by, By::Headings | By::Semantic) { 0.5 } else { 3.0 };
    let missing = limits.min.saturating_sub(tokens) as f64 / limits.min.max(1) as f64;
    let empty = limits.max.saturating_sub(tokens) as f64 / limits.max as f64;
    each + 4.0 * missing * missing + 0.05 * empty * empty
}

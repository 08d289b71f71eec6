//! Where a text turns to something else: valleys in the likeness of what lies before and after a place, as TextTiling finds
//! them (Hearst, 1997), with a sentence encoder's vectors in the place of counted words.
//!
//! Units are the sentences of paragraphs, and lists, tables and listings as a whole. The likeness at the joint of two units is the cosine between the means
//! of the `SIDE` units before and after it. How deep a valley is, is told from the hills to its left and right: up to where the likeness
//! stops rising. Only the lowest place of a valley is a turn, and one of `DEEP` or more a whole one. Only what lies near a place moves it, so an edit moves cuts near it and no others.

use std::collections::BTreeMap;

use retort_lm::LmError;
use retort_lm::embed::Encoder;

use super::sentence;
use crate::document::{Document, Kind};

/// Units on each side of a joint.
const SIDE: usize = 2;
/// How deep a valley is that is a whole turn.
const DEEP: f32 = 0.3;

/// What gives texts vectors of length one.
pub trait Meaning: Send + Sync {
    /// The vectors of texts, each by itself.
    fn vectors(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, LmError>;
}

impl Meaning for Encoder {
    fn vectors(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, LmError> {
        self.embed(texts)
    }
}

/// How far a text turns to something else, by the byte before which it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Falls(BTreeMap<usize, f64>);

impl Falls {
    /// From 0, the same goes on, to 1.
    pub fn before(&self, byte: usize) -> f64 {
        self.0.get(&byte).copied().unwrap_or(0.0)
    }
}

/// Finds where a document turns to something else.
///
/// # Errors
/// The encoder refuses a text.
pub fn falls(document: &Document, meaning: &dyn Meaning) -> Result<Falls, LmError> {
    let units = units(document);
    let texts: Vec<&str> = units.iter().map(|&(start, end)| &document.text[start..end]).collect();
    let vectors = meaning.vectors(&texts)?;
    let likeness: Vec<f32> = (1..vectors.len())
        .map(|at| {
            let before = mean(&vectors[at.saturating_sub(SIDE)..at]);
            let after = mean(&vectors[at..vectors.len().min(at + SIDE)]);
            cosine(&before, &after)
        })
        .collect();
    let turns = units.iter().skip(1).zip(depths(&likeness));
    Ok(Falls(turns.map(|(&(start, _), depth)| (start, f64::from((depth / DEEP).min(1.0)))).collect()))
}

/// The bytes of every unit, in order.
fn units(document: &Document) -> Vec<(usize, usize)> {
    let mut units = Vec::new();
    for block in &document.blocks {
        match block.kind {
            Kind::Heading => {}
            Kind::List | Kind::Table | Kind::Code => units.push((block.start, block.end)),
            Kind::Paragraph => {
                let starts: Vec<usize> =
                    sentence::starts(document.text_of(block)).into_iter().map(|at| block.start + at).collect();
                let ends = starts.iter().skip(1).copied().chain([block.end]);
                units.extend(starts.iter().copied().zip(ends));
            }
        }
    }
    units
}

/// How deep each place lies below the hills beside it; none but the lowest place of a valley does.
fn depths(likeness: &[f32]) -> Vec<f32> {
    let hill = |from: usize, step: isize| {
        let (mut at, mut top) = (from, likeness[from]);
        while let Some(next) = at.checked_add_signed(step)
            && let Some(&value) = likeness.get(next)
            && value >= top
        {
            (at, top) = (next, value);
        }
        top
    };
    let lowest = |at: usize| {
        let higher =
            |other: Option<usize>| other.and_then(|other| likeness.get(other)).copied().unwrap_or(f32::INFINITY);
        likeness[at] < higher(at.checked_sub(1)) && likeness[at] <= higher(Some(at + 1))
    };
    let depth = |at: usize| if lowest(at) { f32::midpoint(hill(at, -1), hill(at, 1)) - likeness[at] } else { 0.0 };
    (0..likeness.len()).map(depth).collect()
}

fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vectors[0].clone();
    for vector in &vectors[1..] {
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
    }
    sum
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests;

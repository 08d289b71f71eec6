//! Valleys in rows of numbers, in documents whose meaning is plain, and by a real encoder.

use std::path::PathBuf;

use super::super::cut::By;
use super::super::measure::{Measure, Words};
use super::super::pack::{Budget, chunks_with};
use super::super::see::References;
use super::*;
use crate::document::Raw;

/// A text is about its first letter.
struct Letters;

impl Meaning for Letters {
    fn vectors(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, LmError> {
        let vector = |text: &&str| {
            let mut vector = vec![0.0; 27];
            let letter = text.bytes().next().filter(u8::is_ascii_alphabetic);
            vector[letter.map_or(26, |letter| usize::from(letter.to_ascii_lowercase() - b'a'))] = 1.0;
            vector
        };
        Ok(texts.iter().map(vector).collect())
    }
}

fn cuts(document: &Document, max: usize, falls: &Falls) -> Vec<String> {
    let budget = Budget { max, min: max / 4, overlap: 0, by: By::Semantic };
    let found = chunks_with(document, &Words, budget, References::Off, falls).unwrap();
    assert!(found.iter().all(|chunk| Words.count(&chunk.text).unwrap() <= max));
    found.into_iter().map(|chunk| chunk.text).collect()
}

#[test]
fn a_valley_is_as_deep_as_the_hills_beside_it() {
    let near = |found: Vec<f32>, expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} for {expected:?}");
    };
    near(depths(&[0.8, 0.9, 0.2, 0.6, 0.7, 0.65]), &[0.05, 0.0, 0.6, 0.0, 0.0, 0.025]);
    near(depths(&[0.5]), &[0.0]);
    near(depths(&[]), &[]);
}

#[test]
fn a_paragraph_is_cut_where_it_turns_to_something_else() {
    let about =
        |letter: &str| (0..6).map(|n| format!("{letter} is said here {n} times.")).collect::<Vec<_>>().join(" ");
    let text = [about("Alpha"), about("Beta"), about("Gamma")].join(" ");
    let document =
        Document::assemble(None, vec![Raw::new(Kind::Heading, 1, "All"), Raw::new(Kind::Paragraph, 0, text)]);
    let falls = falls(&document, &Letters).unwrap();
    let found = cuts(&document, 120, &falls);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[1].contains("Beta") && !found[1].contains("Alpha") && !found[1].contains("Gamma"));
    // Without an encoder's word the paragraph is whole.
    assert_eq!(cuts(&document, 120, &Falls::default()).len(), 1);
    // The budget holds all the same.
    assert!(cuts(&document, 20, &falls).len() >= 6);
}

#[test]
fn nothing_is_torn_for_a_turn() {
    let raws = vec![
        Raw::new(Kind::Heading, 1, "Queues"),
        Raw::new(Kind::Paragraph, 0, "A first. A second. A third. A fourth word. Type this:"),
        Raw::new(Kind::Code, 0, "x\ny\nz"),
        Raw::new(Kind::List, 1, "- b\n- c\n- d"),
        Raw::new(Kind::Table, 0, "| h |\n| --- |\n| q |\n| r |\n| s |"),
    ];
    let document = Document::assemble(None, raws);
    let falls = falls(&document, &Letters).unwrap();
    for chunk in cuts(&document, 60, &falls) {
        let parts = ["x\ny\nz", "- b\n- c\n- d", "| q |\n| r |\n| s |"];
        assert!(parts.iter().all(|part| chunk.contains(part) || !chunk.contains(&part[..3])), "{chunk}");
        assert!(!chunk.ends_with("Type this:") && chunk != "Queues", "{chunk}");
    }
}

#[test]
fn an_edit_moves_no_cut_far_away() {
    let text = |first: &str| {
        let topics = ["Alpha", "Beta", "Gamma", "Delta", "Omega"].iter();
        let said = topics.flat_map(|topic| (0..6).map(move |n| format!("{topic} is said here {n} times.")));
        let said = std::iter::once(first.to_owned()).chain(said).collect::<Vec<_>>().join(" ");
        let document = Document::assemble(None, vec![Raw::new(Kind::Paragraph, 0, said)]);
        cuts(&document, 60, &falls(&document, &Letters).unwrap())
    };
    let (before, after) = (text("Alpha begins."), text("Something else altogether begins."));
    assert_eq!(before[1..], after[1..]);
}

/// all-MiniLM-L6-v2, its files joined, by `.ci/fetch-encoder`.
pub(crate) fn minilm() -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models/all-MiniLM-L6-v2.joined"));
    if !path.is_file() {
        // A bare clone has none yet.
        let fetch = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/fetch-encoder")).status();
        assert!(fetch.is_ok_and(|status| status.success()), "`.ci/fetch-encoder` could not fetch the test encoder");
    }
    path
}

#[test]
fn a_real_encoder_tells_printing_from_cooking() {
    let text = "The printer daemon keeps one queue for each printer. A job waits in the queue until the printer is free. \
                The command lpq shows the jobs of a queue. Bread dough has to rest for an hour before it is baked. \
                Knead the flour with water, salt and yeast. A hot oven gives the loaf a crisp crust. \
                The moons of Jupiter were first seen by Galileo. Io circles the planet in less than two days. \
                Europa is covered by a shell of ice.";
    let document =
        Document::assemble(None, vec![Raw::new(Kind::Heading, 1, "Notes"), Raw::new(Kind::Paragraph, 0, text)]);
    let encoder = Encoder::open(&minilm()).unwrap();
    let found = cuts(&document, 90, &falls(&document, &encoder).unwrap());
    let begins: Vec<&str> = found.iter().filter_map(|chunk| chunk.strip_prefix("Notes > ").or(Some(chunk))).collect();
    assert_eq!(found.len(), 3, "{begins:#?}");
    assert!(found[1].contains("Bread") && found[1].ends_with("crust."), "{found:#?}");
    assert!(found[2].contains("Jupiter"), "{found:#?}");
}

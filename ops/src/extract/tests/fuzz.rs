//! Small whole files, bent in ways drawn from a seed: whatever comes of one is a document that holds together, or a reject.
//!
//! `RETORT_EXTRACT_CASES=20000 cargo test --workspace --lib extract::fuzz` looks longer; `RETORT_EXTRACT_SEED` begins elsewhere. A
//! failure names the file, the seed and the case.

use std::path::Path;

use crate::extract::format::extension;
use crate::extract::{Outcome, Tools, Unreadable, documents};

/// The golden files, one a format and its containers.
const FILES: &[&str] = &[
    "columns.pdf",
    "manual.8",
    "manual.csv",
    "manual.docbook",
    "manual.docx",
    "manual.eml",
    "manual.epub",
    "manual.html",
    "manual.info",
    "manual.jsonl",
    "manual.mbox",
    "manual.md",
    "manual.odt",
    "manual.pdf",
    "manual.rst",
    "manual.rtf",
    "manual.tar.gz",
    "manual.texi",
    "manual.txt",
    "no-text.pdf",
];

/// Pieces that readers give a meaning to.
const PIECES: &[&[u8]] = &[
    b"<",
    b">",
    b"</",
    b"&",
    b"&#x110000;",
    b"{",
    b"}",
    b"\\",
    b"\\u-1",
    b"@",
    b"@end ",
    b"\n",
    b"\n\n",
    b"\n.. ",
    b"::",
    b"\0",
    b"\xff",
    b"\xc3",
    b"|",
    b"+--",
    b"===",
    b"(",
    b")",
    b"]",
    b"%",
    b"obj",
    b"stream\n",
    b"/Length 99999999999",
    b"From ",
    b"\x1f",
    b"PK\x03\x04",
    b"<table><tr><td rowspan=99999 colspan=99999>",
    b"<ol start=-9223372036854775808><li>",
    b"99999999999999999999",
    b"\\bin99999999 ",
    b"<!DOCTYPE a [<!ENTITY b \"c\">]>",
    b"\xe2\x80\xa8",
    b"\t",
    b"\"",
];

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(in crate::extract) struct Draw(pub(in crate::extract) u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(in crate::extract) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A file after one to six changes.
fn bent(whole: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=draw.below(6) {
        let at = draw.below(bytes.len() + 1);
        let end = (at + 1 + draw.below(40)).min(bytes.len());
        match draw.below(7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << draw.below(8),
            2 if at < bytes.len() => bytes[at] = draw.next() as u8,
            3 => drop(bytes.drain(at.min(end)..end)),
            4 => {
                let again = bytes[at.min(end)..end].to_vec();
                let times = 1 + draw.below(30);
                bytes.splice(at..at, again.repeat(times));
            }
            _ => {
                let piece = PIECES[draw.below(PIECES.len())];
                let times = if draw.below(8) == 0 { 300 } else { 1 };
                bytes.splice(at..at, piece.repeat(times));
            }
        }
    }
    bytes
}

fn holds_together(outcome: &Outcome, what: &str) {
    for (_, document) in &outcome.documents {
        let mut last = 0;
        for block in &document.blocks {
            assert!(block.start >= last && block.start < block.end, "{what}: blocks overlap or are empty");
            assert!(document.text.get(block.start..block.end).is_some(), "{what}: a block lies outside the text");
            last = block.end;
        }
        let n_blocks = document.blocks.len() as u32;
        let inside = |block: u32| block < n_blocks;
        assert!(document.links.iter().all(|link| inside(link.block) && link.to.is_none_or(inside)), "{what}: a link");
        assert!(document.anchors.iter().all(|anchor| inside(anchor.block)), "{what}: an anchor");
    }
}

#[expect(clippy::disallowed_methods, reason = "how long to look is no part of an answer")]
pub(in crate::extract) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// What came of a file. Of a broken PDF one of several reasons is told: its reader looks for objects in no fixed order.
fn said(name: &str, outcome: &Result<Outcome, Unreadable>) -> String {
    match outcome {
        Err(_) if extension(name) == "pdf" => "refused".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn bent_files_are_documents_or_rejects() {
    let (cases, seed) = (setting("RETORT_EXTRACT_CASES", 200), setting("RETORT_EXTRACT_SEED", 1));
    for (index, name) in FILES.iter().enumerate() {
        let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)).unwrap();
        for case in 0..cases {
            let mut draw = Draw(seed ^ (index as u64) << 32 ^ case << 40);
            let bytes = bent(&whole, &mut draw);
            let what = format!("{name}, seed {seed}, case {case}");
            let first = documents(name, &bytes, &Tools::NONE);
            let panicked = first.as_ref().is_err_and(|reason| reason.to_string().contains("failed on it"));
            assert!(!panicked || extension(name) == "pdf", "{what}: {}", first.as_ref().unwrap_err());
            if let Ok(outcome) = &first {
                holds_together(outcome, &what);
            }
            if case % 8 == 0 {
                let again = documents(name, &bytes, &Tools::NONE);
                assert_eq!(said(name, &first), said(name, &again), "{what}: read twice, it differs");
            }
        }
    }
}

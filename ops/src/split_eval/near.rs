//! Texts that are equal or nearly so, by their normal form and the Jaccard similarity of its shingles.
//!
//! | step | |
//! |---|---|
//! | normal form | NFKC, lower case, runs of letters and digits joined by single spaces |
//! | shingles | every five characters in a row (a shorter text is one shingle), hashed to 64 bits |
//! | signature | MinHash, 128 values (Broder, "On the resemblance and containment of documents", 1997) |
//! | candidates | equal in one of 32 bands of four values (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4) |
//! | decision | the Jaccard similarity of the shingle sets themselves, no estimate |
//!
//! Two texts of similarity `s` become candidates with probability `1 - (1 - s^4)^32`: at 0.8 one pair in 20 million is missed, at
//! 0.6 one in a hundred. The hash functions are fixed, so it is always the same pair.

use std::collections::BTreeMap;

use rayon::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::groups::Groups;

const SHINGLE: usize = 5;
const BANDS: usize = 32;
const BAND: usize = 4;

/// The normal form in which texts are compared.
pub(super) fn normal(text: &str) -> String {
    let text: String = text.nfkc().flat_map(char::to_lowercase).collect();
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Joins the owners of texts whose similarity is `threshold` or more. `texts` are in normal form, no two alike; `owner` is an element of
/// `groups`.
pub(super) fn link(texts: &[(&str, usize)], threshold: f64, groups: &mut Groups) {
    let shingled: Vec<Vec<u64>> = texts.par_iter().map(|(text, _)| shingles(text)).collect();
    let signatures: Vec<Signature> = shingled.par_iter().map(|shingles| signature(shingles)).collect();
    for band in 0..BANDS {
        let mut buckets: BTreeMap<&[u64], Vec<usize>> = BTreeMap::new();
        for (text, signature) in signatures.iter().enumerate() {
            buckets.entry(&signature[band * BAND..][..BAND]).or_default().push(text);
        }
        for bucket in buckets.values().filter(|bucket| bucket.len() > 1) {
            link_bucket(bucket, texts, &shingled, threshold, groups);
        }
    }
}

fn link_bucket(bucket: &[usize], texts: &[(&str, usize)], shingled: &[Vec<u64>], threshold: f64, groups: &mut Groups) {
    for (at, one) in bucket.iter().enumerate() {
        for other in &bucket[at + 1..] {
            let (a, b) = (texts[*one].1, texts[*other].1);
            if groups.root(a) != groups.root(b) && is_near(&shingled[*one], &shingled[*other], threshold) {
                groups.join(a, b);
            }
        }
    }
}

/// Whether two sorted sets have a Jaccard similarity of at least `threshold`.
fn is_near(a: &[u64], b: &[u64], threshold: f64) -> bool {
    let (small, large) = (a.len().min(b.len()) as f64, a.len().max(b.len()) as f64);
    if small < threshold * large {
        return false;
    }
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    common as f64 >= threshold * (a.len() + b.len() - common) as f64
}

/// The hashes of a text's shingles, sorted, each once.
fn shingles(text: &str) -> Vec<u64> {
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let pieces = starts.windows(SHINGLE + 1).map(|window| &text[window[0]..window[SHINGLE]]);
    let mut hashes: Vec<u64> = pieces.map(|piece| fnv(piece.as_bytes())).collect();
    if hashes.is_empty() {
        hashes.push(fnv(text.as_bytes()));
    }
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

type Signature = [u64; BANDS * BAND];

fn signature(shingles: &[u64]) -> Signature {
    std::array::from_fn(|function| {
        let salt = mix(function as u64);
        shingles.iter().map(|shingle| mix(shingle ^ salt)).min().unwrap_or(u64::MAX)
    })
}

/// FNV-1a, 64 bits (draft-eastlake-fnv).
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One step of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_marks_and_blanks_do_not_show() {
        assert_eq!(normal("  What's **NetInfo**?\n"), "what s netinfo");
        assert_eq!(normal("ＡＢＣ ﬁ Ü"), "abc fi ü");
        assert_eq!(normal("…?"), "");
    }

    fn linked(texts: &[&str], threshold: f64) -> Vec<usize> {
        let mut groups = Groups::new(texts.len());
        let owned: Vec<_> = texts.iter().enumerate().map(|(owner, text)| (*text, owner)).collect();
        link(&owned, threshold, &mut groups);
        (0..texts.len()).map(|n| groups.root(n)).collect()
    }

    #[test]
    fn near_is_near_and_far_is_far() {
        let texts = [
            "which command lists the jobs that wait in the queue of a printer on nextstep",
            "which command lists the jobs that wait in a queue of a printer on nextstep",
            "which command removes a job from the queue of a printer on nextstep",
            "how is a disk formatted",
        ];
        assert_eq!(linked(&texts, 0.8), [0, 0, 2, 3]);
        assert_eq!(linked(&texts, 1.0), [0, 1, 2, 3]);
    }

    #[test]
    fn candidates_are_all_that_a_full_comparison_finds() {
        // Sentences of common words, many of them near each other.
        let word =
            |n: u64| ["disk", "printer", "netinfo", "domain", "user", "swap", "mount", "boot"][(mix(n) % 8) as usize];
        let texts: Vec<String> = (0..300u64)
            .map(|n| {
                (0..12)
                    .map(|at| word(if at == n % 12 { n * 31 } else { n % 40 * 100 + at }))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        texts.sort_unstable();
        texts.dedup();
        let mut full = Groups::new(texts.len());
        for a in 0..texts.len() {
            for b in 0..a {
                if is_near(&shingles(texts[a]), &shingles(texts[b]), 0.8) {
                    full.join(a, b);
                }
            }
        }
        let full: Vec<_> = (0..texts.len()).map(|n| full.root(n)).collect();
        let joined = full.iter().enumerate().filter(|(n, root)| n != *root).count();
        assert!(joined > 20 && joined < texts.len() - 20, "{joined} of {}", texts.len());
        assert_eq!(linked(&texts, 0.8), full);
    }
}

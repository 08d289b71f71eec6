//! Texts that are equal or nearly so, by their normal form and the Jaccard similarity of its shingles.
//!
//! | step | |
//! |---|---|
//! | normal form | NFKC, lower case, runs of letters and digits joined by single spaces |
//! | shingles | every five characters in a row (a shorter text is one shingle), numbered from the rarest to the most frequent |
//! | candidates | two sets of similarity `t` have one of their first `n - ⌈t n⌉ + 1` shingles in common (prefix filter: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins", 2006), and enough left behind it (positional filter: Xiao et al., "Efficient similarity joins for near duplicate detection", 2008) |
//! | decision | the Jaccard similarity itself |
//!
//! Nothing is estimated, so no pair is missed. Rare shingles first makes candidates few: that two questions begin with "What is the purpose of" makes no pair
//! of them.

use std::collections::HashMap;

use rayon::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::groups::Groups;

const SHINGLE: usize = 5;

/// The normal form in which texts are compared.
pub(super) fn normal(text: &str) -> String {
    let text: String = text.nfkc().flat_map(char::to_lowercase).collect();
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Joins the owners of texts whose similarity is `threshold` or more. `texts` are in normal form, no two alike, each with its owner, an element
/// of `groups`.
pub(super) fn link(texts: &[(&str, usize)], threshold: f64, groups: &mut Groups) {
    let sets = shingle_sets(texts);
    let mut order: Vec<usize> = (0..sets.len()).collect();
    order.sort_by_key(|text| sets[*text].len());
    // By shingle: the texts so far that have it among their first, and where.
    let mut index: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
    let mut seen = vec![usize::MAX; sets.len()];
    for text in order {
        let set = &sets[text];
        let first = &set[..=set.len() - least(threshold * set.len() as f64)];
        for (at, shingle) in first.iter().enumerate() {
            for (other, other_at) in index.get(shingle).into_iter().flatten() {
                // The first shingle that two sets share bounds what they can share.
                let is_new = std::mem::replace(&mut seen[*other], text) != text;
                let other_set = &sets[*other];
                let most = (set.len() - at).min(other_set.len() - other_at);
                let enough = most >= least_common(set.len(), other_set.len(), threshold);
                let (a, b) = (texts[text].1, texts[*other].1);
                if is_new && enough && groups.root(a) != groups.root(b) && is_near(set, other_set, threshold) {
                    groups.join(a, b);
                }
            }
        }
        for (at, shingle) in first.iter().enumerate() {
            index.entry(*shingle).or_default().push((text, at));
        }
    }
}

/// Whether two sorted sets have a Jaccard similarity of at least `threshold`.
fn is_near(a: &[u32], b: &[u32], threshold: f64) -> bool {
    let wanted = least_common(a.len(), b.len(), threshold);
    let (mut i, mut j, mut common) = (0, 0, 0);
    while common + (a.len() - i).min(b.len() - j) >= wanted && i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    common >= wanted
}

/// How much sets of these sizes have in common at least, if they are near: `c / (a + b - c) >= t`.
fn least_common(a: usize, b: usize, threshold: f64) -> usize {
    least(threshold / (1.0 + threshold) * (a + b) as f64)
}

/// The least whole number that is not below `x`, rounding errors aside.
fn least(x: f64) -> usize {
    (x - 1e-9).ceil() as usize
}

/// Each text's shingles by number, ascending, each once.
fn shingle_sets(texts: &[(&str, usize)]) -> Vec<Vec<u32>> {
    let hashed: Vec<Vec<u64>> = texts.par_iter().map(|(text, _)| shingles(text)).collect();
    let mut counts: HashMap<u64, u32> = HashMap::new();
    hashed.iter().flatten().for_each(|shingle| *counts.entry(*shingle).or_default() += 1);
    let mut ranked: Vec<(u32, u64)> = counts.into_iter().map(|(shingle, count)| (count, shingle)).collect();
    ranked.par_sort_unstable();
    let numbers: HashMap<u64, u32> =
        ranked.into_iter().zip(0..).map(|((_, shingle), number)| (shingle, number)).collect();
    let numbered = |shingles: &Vec<u64>| {
        let mut set: Vec<u32> = shingles.iter().map(|shingle| numbers[shingle]).collect();
        set.sort_unstable();
        set
    };
    hashed.par_iter().map(numbered).collect()
}

/// The hashes of a text's shingles, each once.
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

/// FNV-1a, 64 bits (draft-eastlake-fnv).
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
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
    fn no_pair_is_missed() {
        let vocabulary = ["disk", "printer", "netinfo", "domain", "user", "swap", "mount", "boot"];
        let word = |n: u64| vocabulary[(fnv(&n.to_le_bytes()) % 8) as usize];
        // Forty sentences, each with some variants of a word or two.
        let sentence = |n: u64| {
            let words =
                (0..12).map(|at| word(if at == n % 12 || at == n % 5 { n * 31 + at } else { n % 40 * 100 + at }));
            words.collect::<Vec<_>>().join(" ")
        };
        let texts: std::collections::BTreeSet<String> = (0..300).map(sentence).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for threshold in [0.7, 0.8, 0.9, 1.0] {
            let owned: Vec<_> = texts.iter().map(|text| (*text, 0)).collect();
            let sets = shingle_sets(&owned);
            let mut all = Groups::new(texts.len());
            for (a, b) in (0..texts.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                let common = sets[a].iter().filter(|shingle| sets[b].contains(shingle)).count();
                if common as f64 / (sets[a].len() + sets[b].len() - common) as f64 >= threshold {
                    all.join(a, b);
                }
            }
            let all: Vec<_> = (0..texts.len()).map(|n| all.root(n)).collect();
            let joined = all.iter().enumerate().filter(|(n, root)| n != *root).count();
            assert!(joined > 10 && joined < texts.len(), "{threshold}: {joined} of {}", texts.len());
            assert_eq!(linked(&texts, threshold), all, "{threshold}");
        }
    }
}

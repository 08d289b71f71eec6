//! How near an answer is to the one wanted: token F1, exact match, ROUGE-L. All from 0 to 1.

use std::collections::BTreeMap;

/// Whether two answers are the same after [`normal`].
pub fn exact_match(answer: &str, wanted: &str) -> bool {
    normal(answer) == normal(wanted)
}

/// The harmonic mean of precision and recall of words, as bags, after [`normal`]: SQuAD's F1 (Rajpurkar and others,
/// arXiv 1606.05250). Where either side has no words it is 1 if both have none, else 0.
pub fn token_f1(answer: &str, wanted: &str) -> f64 {
    let (answer, wanted) = (normal(answer), normal(wanted));
    let (answer, wanted): (Vec<&str>, Vec<&str>) = (answer.split(' ').collect(), wanted.split(' ').collect());
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for word in &wanted {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in &answer {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    harmonic(common, answer.len(), wanted.len())
}

/// The F-measure of the longest common subsequence of words (Lin, 2004), as `rouge-score` computes it without a stemmer,
/// except that a letter is one of any script. 0 where either side has no words.
pub fn rouge_l(answer: &str, wanted: &str) -> f64 {
    let (answer, wanted) = (words(answer), words(wanted));
    harmonic(longest_common(&answer, &wanted), answer.len(), wanted.len())
}

/// Lower case, without ASCII punctuation, without `a`, `an` and `the`, words parted by one blank: as SQuAD compares
/// answers.
pub fn normal(text: &str) -> String {
    let plain: String = text.to_lowercase().chars().filter(|character| !character.is_ascii_punctuation()).collect();
    plain.split_whitespace().filter(|word| !["a", "an", "the"].contains(word)).collect::<Vec<_>>().join(" ")
}

/// Runs of letters and digits, in lower case.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The length of the longest sequence of words that both have in this order, with gaps.
fn longest_common(one: &[String], other: &[String]) -> usize {
    // `best[j]` is the length for the words of `one` so far and the first `j` of `other`.
    let mut best = vec![0; other.len() + 1];
    for word in one {
        let mut diagonal = 0;
        for (j, candidate) in other.iter().enumerate() {
            let above = best[j + 1];
            best[j + 1] = if word == candidate { diagonal + 1 } else { above.max(best[j]) };
            diagonal = above;
        }
    }
    best[other.len()]
}

fn harmonic(common: usize, answer: usize, wanted: usize) -> f64 {
    if common == 0 { 0.0 } else { 2.0 * common as f64 / (answer + wanted) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answer, answer wanted; F1 and exact match by SQuAD's script, ROUGE-L by `rouge-score` 0.1.2.
    const CASES: &[(&str, &str, f64, f64, bool)] = &[
        ("Run niload as root.", "Run `niload` as the root user.", 0.888_889, 0.8, false),
        ("The cat sat on the mat", "the mat, the cat sat on it!", 0.888_889, 0.615_385, false),
        ("", "x", 0.0, 0.0, false),
        ("the", "a", 1.0, 0.0, true),
        ("NetInfo", "netinfo.", 1.0, 1.0, true),
        ("one two three four", "four three two one", 1.0, 0.25, false),
        ("a-b c_d", "ab cd a b c d", 0.571_429, 0.8, false),
    ];

    #[test]
    fn scores_are_those_of_the_published_scripts() {
        for &(answer, wanted, f1, rouge, exact) in CASES {
            assert!((token_f1(answer, wanted) - f1).abs() < 1e-6, "{answer:?} {wanted:?} {}", token_f1(answer, wanted));
            assert!(
                (rouge_l(answer, wanted) - rouge).abs() < 1e-6,
                "{answer:?} {wanted:?} {}",
                rouge_l(answer, wanted)
            );
            assert_eq!(exact_match(answer, wanted), exact, "{answer:?} {wanted:?}");
        }
    }

    #[test]
    fn letters_of_any_script_are_words() {
        assert_eq!(rouge_l("größe des netzes", "Größe des Netzes!"), 1.0);
        assert_eq!(token_f1("größe", "Größe"), 1.0);
    }
}

//! The words of every known pre-tokenizer are the reference's own.

use super::super::gguf::{WORD_PATTERNS, words};
use super::*;
use rand::{RngExt, SeedableRng};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

/// The known rules, each with the reference that it is held to.
fn known() -> Vec<(Words, PreTokenizerWrapper)> {
    let of = |reference: PreTokenizerWrapper| {
        Words::of(&serde_json::to_value(&reference).unwrap()).map(|rule| (rule, reference))
    };
    let mut known: Vec<_> =
        WORD_PATTERNS.iter().filter_map(|(_, patterns)| of(words(patterns).unwrap().into())).collect();
    let digits = tokenizers::pre_tokenizers::digits::Digits::new(true);
    let bytes = tokenizers::pre_tokenizers::byte_level::ByteLevel::new(false, true, true);
    known.extend(of(tokenizers::pre_tokenizers::sequence::Sequence::new(vec![digits.into(), bytes.into()]).into()));
    known.extend(of(bytes.into()));
    known
}

fn of_reference(reference: &PreTokenizerWrapper, text: &str) -> Vec<usize> {
    let mut cut = PreTokenizedString::from(text);
    reference.pre_tokenize(&mut cut).unwrap();
    let ends = cut.get_splits(OffsetReferential::Original, OffsetType::Byte).into_iter().map(|(_, (_, end), _)| end);
    ends.filter(|end| *end > 0).collect()
}

fn of_rule(rule: Words, text: &str) -> Vec<usize> {
    let (mut ends, mut end) = (Vec::new(), 0);
    let cut: Result<(), ()> = rule.each(text, &mut |word| {
        end += word.len();
        ends.push(end);
        Ok(())
    });
    cut.unwrap();
    ends
}

fn hold(known: &[(Words, PreTokenizerWrapper)], text: &str) {
    for (rule, reference) in known {
        assert_eq!(of_rule(*rule, text), of_reference(reference, text), "{rule:?} of {text:?}");
    }
}

#[test]
fn five_rules_are_known() {
    let rules: Vec<_> = known().into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(rules.len(), 6);
    assert_eq!(rules[0], Words { digits: Digits::Pattern, rule: Rule::Gpt2 });
    assert_eq!(rules[2], Words { digits: Digits::Stay, rule: Rule::Llama3 { digits: 3 } });
    let other = words(&["[a-z]+"]).unwrap();
    assert_eq!(Words::of(&serde_json::to_value(&other).unwrap()), None);
}

/// The rules see classes, spaces, apostrophes and the letters of contractions, and look no further than three
/// characters ahead.
#[test]
fn every_short_text_is_cut_as_by_the_reference() {
    let letters = [' ', '\t', '\n', '\'', 's', 'L', '7', '!', 'ſ'];
    let known = known();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    for _ in 0..20_000 {
        hold(&known, &(0..6).map(|_| letters[random.random_range(0..letters.len())]).collect::<String>());
    }
    for length in 0..=4_u32 {
        for number in 0..letters.len().pow(length) {
            let at = |place: u32| letters[number / letters.len().pow(place) % letters.len()];
            hold(&known, &(0..length).map(at).collect::<String>());
        }
    }
}

#[test]
fn characters_of_every_script_are_cut_as_by_the_reference() {
    let known = known();
    for page in (0..=char::MAX as u32).step_by(256) {
        let characters: Vec<char> = (page..page + 256).filter_map(char::from_u32).collect();
        // The classes are the engine's own; of the pages beyond the scripts in daily use some will do.
        if page < 0x3000 || page % 0x1000 == 0 {
            hold(
                &known,
                &characters.iter().flat_map(|&c| [c, 'a', ' ', c, '7', '\'', c, '!', c, c, '\n']).collect::<String>(),
            );
        }
    }
}

#[test]
fn random_texts_are_cut_as_by_the_reference() {
    let known = known();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let parts = [
        "'re",
        "'LL",
        "'ve",
        "'d",
        "’s",
        "  ",
        "   ",
        "\r\n",
        "\n\n",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "42",
        "½",
        "Ⅷ",
        "٣",
        "été",
        "日本",
        "e\u{301}",
        "👩‍👩‍👧",
        "_",
        "//",
        "\0",
        "x",
        "ﬆ",
        "K",
    ];
    for _ in 0..3000 {
        let length = random.random_range(1..40);
        hold(&known, &(0..length).map(|_| parts[random.random_range(0..parts.len())]).collect::<String>());
    }
}

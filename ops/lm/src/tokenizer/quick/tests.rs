//! Tokens are the reference's own, whichever way they were found.

use super::super::Tokenizer;
use crate::testing::smollm2;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Asked twice: what is remembered must be what was learnt.
fn hold(tokenizer: &Tokenizer, text: &str) {
    let reference = tokenizer.encode_by_reference(text).unwrap();
    for _ in 0..2 {
        assert_eq!(tokenizer.encode(text).unwrap(), reference, "{text:?}");
        assert_eq!(tokenizer.count(text).unwrap(), reference.len());
    }
    let spans = tokenizer.encode_with_offsets(text).unwrap();
    assert!(spans.iter().map(|span| span.start).eq(tokenizer.marks(text).unwrap().starts), "{text:?}");
    hold_parts(tokenizer, text);
    assert!(spans.iter().map(|span| span.id).eq(reference));
    assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(spans.last().map_or(0, |span| span.end), text.len(), "{text:?}");
}

/// Pieces of a text, with something before and after, have the tokens that they have without what is known of the whole.
fn hold_parts(tokenizer: &Tokenizer, text: &str) {
    let known = tokenizer.marks(text).unwrap();
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let step = (places.len() / 7).max(1);
    for (number, start) in places.iter().step_by(step).enumerate() {
        for end in places.iter().skip(number).step_by(step + 1).filter(|end| *end >= start) {
            let (before, after) = [("", ""), ("A > b\n\n", ""), ("| a |  ", "\n\nSee:\n- b")][number % 3];
            let whole = format!("{before}{}{after}", &text[*start..*end]);
            let part = before.len()..before.len() + end - start;
            let count = tokenizer.count_part(&whole, part, &known, *start).unwrap();
            assert_eq!(count, tokenizer.count(&whole).unwrap(), "{whole:?} of {text:?}");
        }
    }
}

fn hold_random(tokenizer: &Tokenizer, parts: &[&str], seed: u64) {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..1500 {
        let length = random.random_range(0..60);
        hold(tokenizer, &(0..length).map(|_| parts[random.random_range(0..parts.len())]).collect::<String>());
    }
}

#[test]
fn documents_have_the_tokens_of_the_reference() {
    let tokenizer = Tokenizer::from_gguf(&smollm2()).unwrap();
    assert!(tokenizer.quick.is_some());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/nextstep/docs");
    let mut bytes = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
                bytes += text.len();
                hold(&tokenizer, &text);
            }
        }
    }
    assert!(bytes > 50_000, "{bytes}");
}

#[test]
fn random_unicode_has_the_tokens_of_the_reference() {
    let tokenizer = Tokenizer::from_gguf(&smollm2()).unwrap();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    for _ in 0..3000 {
        let text = |_| match random.random_range(0..4) {
            0 => char::from(random.random_range(32..127_u8)),
            1 => char::from_u32(random.random_range(0..0x3000)).unwrap_or('x'),
            2 => [' ', '\n', '\'', '7', '\t'][random.random_range(0..5)],
            _ => char::from_u32(random.random_range(0..=char::MAX as u32)).unwrap_or('y'),
        };
        hold(&tokenizer, &(0..40).map(text).collect::<String>());
    }
    hold(&tokenizer, &"x".repeat(5000));
    hold(&tokenizer, &" ".repeat(5000));
}

/// A byte-level vocabulary of a few merges, with what is given beside.
fn byte_level(normalizer: &Value, added: &[(&str, bool, bool)]) -> Tokenizer {
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    byte_level_cut(&bytes, normalizer, added)
}

/// As [`byte_level`], with another pre-tokenizer.
fn byte_level_cut(cut: &Value, normalizer: &Value, added: &[(&str, bool, bool)]) -> Tokenizer {
    let spelling = super::super::pieces::byte_spelling();
    let mut vocabulary: serde_json::Map<String, Value> =
        spelling.iter().enumerate().map(|(id, spelled)| (spelled.to_string(), json!(id))).collect();
    for (id, token) in ["ab", "Ġa", "Ġab", "ĠĠ", "ĊĠ"].into_iter().enumerate() {
        vocabulary.insert(token.into(), json!(256 + id));
    }
    let added: Vec<Value> = added
        .iter()
        .enumerate()
        .map(|(at, (content, special, normalized))| {
            json!({"id": 261 + at, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": special})
        })
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let folder = tempfile::tempdir().unwrap();
    let description = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "post_processor": null,
        "added_tokens": added, "pre_tokenizer": cut, "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["Ċ Ġ", "a b", "Ġ a", "Ġa b", "Ġ Ġ"]},
    });
    fs::write(folder.path().join("tokenizer.json"), description.to_string()).unwrap();
    Tokenizer::open(folder.path()).unwrap()
}

#[test]
fn added_tokens_are_found_as_the_reference_finds_them() {
    let added = [
        ("<|end|>", true, false),
        ("<think>", false, false),
        ("<th", false, false),
        ("end|", false, false),
        ("  ", false, false),
    ];
    let tokenizer = byte_level(&Value::Null, &added);
    assert!(tokenizer.quick.is_some());
    assert_eq!(tokenizer.encode("ab<think>").unwrap(), [256, tokenizer.text.token_to_id("<think>").unwrap()]);
    hold_random(&tokenizer, &["<|end|>", "<think>", "<th", "ink>", "end|", " ", "   ", "ab", "b", "é", "\n"], 4);
    let two_passes = byte_level(&Value::Null, &[("<a>", false, false), ("b>", false, true)]);
    assert!(two_passes.quick.is_none(), "which pass comes first is the reference's to know");
    hold_random(&two_passes, &["<a>", "b>", "<a", "a", " "], 5);
}

#[test]
fn words_that_hold_line_ends_have_the_tokens_of_the_reference() {
    let split = json!({"type": "Split", "pattern": {"Regex": super::super::gguf::LLAMA3}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let cut = json!({"type": "Sequence", "pretokenizers": [split, bytes]});
    let tokenizer = byte_level_cut(&cut, &Value::Null, &[]);
    assert!(tokenizer.quick.is_some());
    hold_random(
        &tokenizer,
        &[" ", "  ", "\n", "\r\n", "ab", "a long run of words", "'ll", "'l", "7", "1234567", "!", "é"],
        9,
    );
    // What is cut off in white space would be one word with the line ends that follow.
    let text = format!("{}\n   ab", "a long run of words".repeat(5));
    let piece = format!("{}\n\nSee:", &text[..text.len() - 2]);
    let count = tokenizer.count_part(&piece, 0..text.len() - 2, &tokenizer.marks(&text).unwrap(), 0).unwrap();
    assert_eq!(count, tokenizer.count(&piece).unwrap());
}

#[test]
fn text_that_a_normaliser_changes_is_left_to_the_reference() {
    let tokenizer = byte_level(&json!({"type": "NFC"}), &[]);
    assert!(tokenizer.quick.is_some());
    assert_eq!(tokenizer.encode("e\u{301}").unwrap(), tokenizer.encode("é").unwrap());
    let parts = [
        "e\u{301}", "e", "\u{301}", "é", "\n", " ab", "“a”", "\u{1100}", "\u{1161}", "\u{212b}", "\u{37e}", "日",
        "\u{2000}", "…",
    ];
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(6);
    for _ in 0..2000 {
        let text: String = (0..12).map(|_| parts[random.random_range(0..parts.len())]).collect();
        assert_eq!(tokenizer.encode(&text).unwrap(), tokenizer.encode_by_reference(&text).unwrap(), "{text:?}");
    }
    assert!(byte_level(&json!({"type": "NFKC"}), &[]).quick.is_none());
}

#[test]
fn sentence_pieces_part_at_spaces_where_none_reaches_across() {
    let vocabulary = |more: &[&str]| {
        let mut names: Vec<String> = (0..=u8::MAX).map(|byte| format!("<{byte:#04X}>")).collect();
        names.extend(["▁", "a", "b", "ab", "▁a", "▁ab", "▁▁"].iter().chain(more).map(|&name| name.to_owned()));
        names.into_iter().enumerate().map(|(id, name)| (name, json!(id))).collect::<serde_json::Map<_, _>>()
    };
    let open = |more: &[&str], merges: &[&str]| {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let normalizer = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]});
        let description = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "post_processor": null,
            "added_tokens": [], "pre_tokenizer": null,
            "decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            "model": {"type": "BPE", "vocab": vocabulary(more), "merges": merges, "byte_fallback": true, "fuse_unk": true},
        });
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenizer.json"), description.to_string()).unwrap();
        Tokenizer::open(folder.path()).unwrap()
    };
    let merges = ["a b", "▁ a", "▁a b", "▁ ▁"];
    let tokenizer = open(&[], &merges);
    assert!(tokenizer.quick.is_some());
    hold_random(&tokenizer, &["a", "b", " ", "  ", "é", "\n", "日", "▁"], 7);
    let across = open(&["b▁"], &["b ▁", "a b", "▁ a"]);
    assert!(across.quick.is_none());
    hold_random(&across, &["a", "b", " ", "  "], 8);
}

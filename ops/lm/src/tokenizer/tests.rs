//! Tests of the tokenizer against the default model's own vocabulary, and small ones written here.

use super::*;
use crate::testing::smollm2;
use candle_core::quantized::gguf_file::{self, Value};
use serde_json::json;
use std::{fs::File, sync::LazyLock};

static SMOL: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_gguf(&smollm2()).unwrap());

/// Ids that the Python package `tokenizers` gives for the same vocabulary, digits one by one, then GPT-2's words.
const KNOWN: &[(&str, &[u32])] = &[
    ("", &[]),
    ("Hello, world!", &[19556, 28, 905, 17]),
    (
        "NeXTSTEP 3.3 runs on 68040s.",
        &[9042, 72, 68, 43212, 216, 35, 30, 35, 7313, 335, 216, 38, 40, 32, 36, 32, 99, 30],
    ),
    (
        "  niutil -create . /machines/next\n\n\tdone",
        &[216, 39112, 13695, 731, 5957, 1673, 2272, 44043, 884, 31, 11282, 1116, 197, 22744],
    ),
    ("It's the user's /etc/hosts; don't.", &[1589, 506, 260, 2914, 506, 2272, 23980, 31, 36341, 43, 1326, 982, 30]),
    ("naïve café – 東京 🚀", &[3546, 46494, 37366, 816, 17097, 247, 126, 16736, 122, 15107, 244, 218]),
    ("<|im_start|>system", &[44, 108, 306, 79, 3738, 108, 46, 9690]),
    ("a  b   c\r\n", &[81, 216, 278, 256, 265, 2738]),
];

#[test]
fn ids_are_those_of_the_reference() {
    for (text, ids) in [("ab ab", &[10, 10][..]), ("aba", &[10, 6]), ("bab", &[5, 7, 8]), ("é", &[5, 3, 4])] {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text}");
        assert_eq!(tokenizer.decode(ids), text);
        assert_eq!(tokenizer.encode_with_offsets(text).unwrap().last().unwrap().end, text.len());
    }
    assert!(!tokenizer.encode("a</s>").unwrap().contains(&2), "text is never a control token");
    assert_eq!(tokenizer.encode_document("ab").unwrap(), [1, 10]);
    assert_eq!(tokenizer.context_length(), Some(64));
}

#[test]
fn a_hugging_face_folder_is_read_with_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: serde_json::Value| {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    };
    let added = |id: u32, content: &str, special: bool| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special});
    write(
        "tokenizer.json",
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": [added(0, "<|end|>", true), added(12, "<think>", false)],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"<|end|>": 0, "a": 1, "b": 2, "ab": 3, "Ġ": 4, "Ġab": 5, "<": 6, "|": 7, "e": 8, "n": 9, "d": 10, ">": 11}, "merges": ["a b", "Ġ ab"]},
        }),
    );
    write(
        "tokenizer_config.json",
        json!({"eos_token": {"content": "<|end|>"}, "chat_template": "{{ messages[0].content }}<|end|>"}),
    );
    write("generation_config.json", json!({"eos_token_id": [0, 12]}));
    write("config.json", json!({"max_position_embeddings": 77}));
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("ab ab<think>a").unwrap(), [3, 5, 12, 1]);
    assert_eq!(tokenizer.decode(&[3, 5, 12, 1, 0]), "ab ab<think>a");
    assert_eq!(tokenizer.encode("<|end|>").unwrap(), [6, 7, 8, 9, 10, 7, 11], "special names in text are text");
    assert!(tokenizer.ends().iter().eq(&[0, 12]));
    assert_eq!((tokenizer.eos(), tokenizer.bos(), tokenizer.context_length()), (Some(0), None, Some(77)));
    let template = ChatTemplate::of(&tokenizer).unwrap();
    assert_eq!(
        tokenizer.encode_prompt(&template, &[Message::new("user", "<|end|>")], false).unwrap(),
        [6, 7, 8, 9, 10, 7, 11, 0]
    );
}

#[test]
fn what_is_no_tokenizer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no.gguf");
    assert!(Tokenizer::open(&path).err().unwrap().to_string().starts_with("failed to open `"));
    std::fs::write(&path, "GGUF, or so it says").unwrap();
    assert!(Tokenizer::open(&path).err().unwrap().to_string().contains("is not a usable model"));
}

//! A tokenizer from a Hugging Face folder: `tokenizer.json` and the small files beside it.

use super::{
    Parts,
    pieces::{Pieces, Speller, Spelling},
};
use crate::LmError;
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

pub(super) fn read(path: &Path) -> Result<Parts, LmError> {
    let bytes = read_file(path)?;
    let unusable = |reason: String| LmError::Model { path: path.display().to_string(), reason };
    let mut text = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| unusable(error.to_string()))?;
    text.with_padding(None);
    text.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
    text.set_encode_special_tokens(true);
    let spelling = spelling(&text).map_err(unusable)?;
    let folder = Folder::beside(path)?;
    let bos = folder.token(&text, "bos_token");
    let probe = text.encode("a", true).map_err(|error| unusable(error.to_string()))?;
    let controls = text.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special);
    Ok(Parts {
        pieces: pieces(&text, spelling),
        controls: controls.map(|(id, token)| (token.content, id)).collect(),
        bos,
        eos: folder.token(&text, "eos_token"),
        ends: folder.ends(),
        adds_bos: bos.is_some() && probe.get_ids().first().copied() == bos,
        exact_bytes: spelling == Spelling::ByteLevel && text.get_normalizer().is_none(),
        chat_template: folder.chat_template.clone(),
        context_length: folder.config["max_position_embeddings"].as_u64().map(|length| length as usize),
        text,
    })
}

/// How the vocabulary spells bytes, told by its decoder.
fn spelling(text: &tokenizers::Tokenizer) -> Result<Spelling, String> {
    let decoder = serde_json::to_string(&text.get_decoder()).map_err(|error| error.to_string())?;
    if decoder.contains("\"ByteLevel\"") {
        Ok(Spelling::ByteLevel)
    } else if decoder.contains('▁') {
        Ok(Spelling::SentencePiece)
    } else {
        Err(format!("its decoder is neither byte-level nor SentencePiece: {decoder}"))
    }
}

fn pieces(text: &tokenizers::Tokenizer, spelling: Spelling) -> Pieces {
    let speller = Speller::new(spelling);
    let added = text.get_added_tokens_decoder();
    let n_tokens = text.get_vocab(true).into_values().max().map_or(0, |id| id + 1);
    let bytes = (0..n_tokens).map(|id| match added.get(&id) {
        Some(token) if token.special => Box::default(),
        Some(token) => token.content.as_bytes().into(),
        None => text.id_to_token(id).map(|token| speller.bytes(&token)).unwrap_or_default(),
    });
    let bytes = bytes.collect();
    let decoder = serde_json::to_string(&text.get_decoder()).unwrap_or_default();
    let strips = decoder.contains("\"Strip\"") || decoder.contains("\"Metaspace\"");
    Pieces::new(bytes, spelling == Spelling::SentencePiece && strips)
}

/// The small files beside a `tokenizer.json`; a missing one is an empty object.
struct Folder {
    tokenizer: Value,
    generation: Value,
    config: Value,
    chat_template: Option<String>,
}

impl Folder {
    fn beside(path: &Path) -> Result<Self, LmError> {
        let tokenizer = object(&path.with_file_name("tokenizer_config.json"))?;
        let jinja = path.with_file_name("chat_template.jinja");
        let chat_template = if jinja.is_file() {
            Some(String::from_utf8_lossy(&read_file(&jinja)?).into_owned())
        } else {
            template_of(&tokenizer["chat_template"])
        };
        Ok(Self {
            tokenizer,
            generation: object(&path.with_file_name("generation_config.json"))?,
            config: object(&path.with_file_name("config.json"))?,
            chat_template,
        })
    }

    /// A token named by its text, or by an object with its `content`.
    fn token(&self, text: &tokenizers::Tokenizer, key: &str) -> Option<u32> {
        let named = &self.tokenizer[key];
        let named = named.as_str().or_else(|| named["content"].as_str());
        named.and_then(|name| text.token_to_id(name)).or_else(|| {
            let id = &self.config[format!("{key}_id")];
            id.as_u64().or_else(|| id[0].as_u64()).map(|id| id as u32)
        })
    }

    /// `eos_token_id` of the generation config: one id or a list.
    fn ends(&self) -> BTreeSet<u32> {
        let mut ends = BTreeSet::new();
        for config in [&self.generation, &self.config] {
            let ids = &config["eos_token_id"];
            ends.extend(ids.as_u64().map(|id| id as u32));
            ends.extend(ids.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|id| id as u32));
        }
        ends
    }
}

/// The template itself, or the one named `default` in a list of them.
fn template_of(value: &Value) -> Option<String> {
    let list = value.as_array().into_iter().flatten();
    let named = list.into_iter().find(|entry| entry["name"] == "default");
    value.as_str().or_else(|| named.and_then(|entry| entry["template"].as_str())).map(str::to_owned)
}

fn object(path: &Path) -> Result<Value, LmError> {
    if !path.is_file() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(&read_file(path)?)
        .map_err(|error| LmError::Model { path: path.display().to_string(), reason: error.to_string() })
}

fn read_file(path: &Path) -> Result<Vec<u8>, LmError> {
    fs::read(path).map_err(|source| LmError::Io { verb: "read", path: path.display().to_string(), source })
}

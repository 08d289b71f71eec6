//! A tokenizer as the files that a Hugging Face folder has: what `transformers` opens, and `tokenizer/json.rs` reads back.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::Tokenizer;
use crate::LmError;

impl Tokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json` with the chat template, and `generation_config.json` with the tokens that end a turn, into
    /// `folder`, which is there.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), LmError> {
        let files = [
            ("tokenizer.json", self.whole()?),
            ("tokenizer_config.json", self.about()),
            ("generation_config.json", json!({"bos_token_id": self.bos, "eos_token_id": self.ends})),
        ];
        for (name, value) in files {
            let path = folder.join(name);
            let text = serde_json::to_string_pretty(&value).expect("plain data") + "\n";
            std::fs::write(&path, text).map_err(|source| LmError::Io {
                verb: "write",
                path: path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }

    /// The tokenizer with the control tokens, which text never becomes here, put back into it, and what a decoder and the begin token need.
    fn whole(&self) -> Result<Value, LmError> {
        let text = serde_json::to_value(&self.text).map_err(|error| LmError::Tokenizer(error.to_string()))?;
        let mut whole = text;
        let mut added = BTreeMap::new();
        for token in whole["added_tokens"].as_array().into_iter().flatten() {
            added.insert(token["id"].as_u64().unwrap_or_default(), token.clone());
        }
        for (name, id) in &self.controls.0 {
            whole["model"]["vocab"][name] = json!(id);
            let token = json!({
                "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true,
            });
            added.insert(u64::from(*id), token);
        }
        whole["added_tokens"] = added.into_values().collect();
        if whole["decoder"].is_null() {
            whole["decoder"] = self.decoder(whole["normalizer"].to_string().contains("Prepend"));
        }
        if whole["post_processor"].is_null()
            && let Some(bos) = self.bos.filter(|_| self.adds_bos)
            && let Some(name) = self.control_name(bos)
        {
            whole["post_processor"] = begins_with(name, bos);
        }
        Ok(whole)
    }

    /// Bytes as byte-level vocabularies spell them, or SentencePiece's blanks and bytes.
    fn decoder(&self, strips: bool) -> Value {
        if self.exact_bytes {
            return json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        }
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if strips {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({"type": "Sequence", "decoders": steps})
    }

    fn about(&self) -> Value {
        let name = |id: Option<u32>| id.and_then(|id| self.control_name(id));
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": name(self.bos),
            "eos_token": name(self.eos),
            "pad_token": name(self.eos),
            "model_max_length": self.context_length,
            "clean_up_tokenization_spaces": false,
            "chat_template": self.chat_template,
        })
    }
}

/// One text, or two, after a begin token.
fn begins_with(name: &str, id: u32) -> Value {
    let begin = json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
        "type": "TemplateProcessing",
        "single": [begin, text("A")],
        "pair": [begin, text("A"), text("B")],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{ChatTemplate, Message};
    use crate::testing::smollm2;

    #[test]
    fn what_is_saved_is_read_back_as_the_same() {
        let tokenizer = Tokenizer::open(&smollm2()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let read = Tokenizer::open(folder.path()).unwrap();
        assert_eq!((read.n_vocab(), read.bos(), read.eos()), (tokenizer.n_vocab(), tokenizer.bos(), tokenizer.eos()));
        assert_eq!(read.ends(), tokenizer.ends());
        assert_eq!(read.controls().count(), tokenizer.controls().count());
        let messages = [Message::new("system", "Be short."), Message::new("user", "Größe 12?  <|im_end|> é\n\tx")];
        let prompt = |tokenizer: &Tokenizer| {
            tokenizer.encode_prompt(&ChatTemplate::of(tokenizer).unwrap(), &messages, true).unwrap()
        };
        let ids = prompt(&tokenizer);
        assert_eq!(prompt(&read), ids);
        assert_eq!(read.decode(&ids), tokenizer.decode(&ids));
    }
}

//! What requests say and replies look like: OpenAI's chat completions and completions, as far as a model here can follow.
//!
//! Keys that say how tokens are drawn have the names of OpenAI, or those that llama.cpp and vLLM add. What would change an answer and cannot be done is a mistake; other unknown
//! keys are let pass, since clients send many. Where OpenAI takes a text or a list, so do we: those types are `untagged`, as no file of ours would be.

use std::sync::Arc;

use retort_lm::generate::{FinishReason, Request};
use retort_lm::guide::{Grammar, Guide};
use retort_lm::sample::Sampling;
use retort_lm::template::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Served;

/// A mistake in a request.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) status: u16,
    pub(super) message: String,
}

/// Which of the two interfaces is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Completion,
}

/// The body of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    model: Option<String>,
    #[serde(default)]
    messages: Vec<BodyMessage>,
    prompt: Option<Prompts>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    seed: Option<i64>,
    n: Option<usize>,
    stop: Option<Texts>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    tools: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct BodyMessage {
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: NamedSchema },
}

#[derive(Debug, Deserialize)]
struct NamedSchema {
    schema: Value,
}

/// Choices that one request may ask for.
const MOST_CHOICES: usize = 64;

/// What is to be done for a request.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// A request a choice; choices of a prompt stand side by side.
    pub(super) requests: Vec<Request>,
    /// Tokens of all prompts, each once.
    pub(super) prompt_tokens: usize,
}

impl Body {
    /// What is to be written, or why it cannot be; where the body has no seed, `seed` is taken.
    pub(super) fn order(self, kind: Kind, served: &Served, seed: u64) -> Result<Order, Mistake> {
        if let Some(model) = self.model.as_ref().filter(|model| **model != served.name) {
            return Err(Mistake {
                status: 404,
                message: format!("no model is called `{model}`: here is `{}`", served.name),
            });
        }
        self.check()?;
        let prompts = self.prompts(kind, served)?;
        let guide = self.guide(served)?;
        let n = self.n.unwrap_or(1);
        if n == 0 || prompts.len() * n > MOST_CHOICES {
            return wrong(format!("between 1 and {MOST_CHOICES} choices can be asked for"));
        }
        let seed = self.seed.map_or(seed, |seed| seed as u64);
        let prompt_tokens = prompts.iter().map(Vec::len).sum();
        let mut requests = Vec::new();
        for prompt in prompts {
            let max_tokens = self.room(&prompt, served)?;
            for choice in 0..n as u64 {
                let (prompt, guide, stop) = (prompt.clone(), guide.clone(), self.stops());
                let seed = seed.wrapping_add(choice);
                requests.push(Request {
                    prompt,
                    sampling: self.sampling(),
                    seed,
                    max_tokens,
                    stop,
                    guide,
                    repetition: 0,
                });
            }
        }
        let include_usage = self.stream_options.is_some_and(|options| options.include_usage);
        Ok(Order { stream: self.stream, include_usage, requests, prompt_tokens })
    }

    fn check(&self) -> Result<(), Mistake> {
        let positive = [("repeat_penalty", self.repeat_penalty), ("repetition_penalty", self.repetition_penalty)];
        let idle = [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)];
        let refused = idle.iter().find(|(_, value)| value.is_some_and(|value| value != 0.0));
        if !self.tools.is_empty() {
            wrong("`tools` are not supported".to_owned())
        } else if let Some((name, _)) = refused {
            wrong(format!("`{name}` is not supported: `repeat_penalty` is"))
        } else if let Some((name, _)) = positive.iter().find(|(_, value)| value.is_some_and(|value| value <= 0.0)) {
            wrong(format!("`{name}` is above 0"))
        } else if self.temperature.is_some_and(|value| value < 0.0 || !value.is_finite()) {
            wrong("`temperature` is 0 or more".to_owned())
        } else if self.top_p.is_some_and(|value| value <= 0.0 || value > 1.0) {
            wrong("`top_p` lies above 0 and up to 1".to_owned())
        } else if self.min_p.is_some_and(|value| !(0.0..=1.0).contains(&value)) {
            wrong("`min_p` lies between 0 and 1".to_owned())
        } else {
            Ok(())
        }
    }

    fn prompts(&self, kind: Kind, served: &Served) -> Result<Vec<Vec<u32>>, Mistake> {
        let tokenizer = &served.loaded.tokenizer;
        let unreadable = |error: retort_lm::LmError| Mistake { status: 400, message: error.to_string() };
        if kind == Kind::Chat {
            let messages = self.messages.iter().map(BodyMessage::read).collect::<Result<Vec<_>, _>>()?;
            if messages.is_empty() {
                return wrong("`messages` has at least one message".to_owned());
            }
            return Ok(vec![tokenizer.encode_prompt(&served.loaded.template, &messages, true).map_err(unreadable)?]);
        }
        let prompts = match &self.prompt {
            None => return wrong("`prompt` is missing".to_owned()),
            Some(Prompts::Text(text)) => vec![tokenizer.encode_document(text).map_err(unreadable)?],
            Some(Prompts::Texts(texts)) => texts
                .iter()
                .map(|text| tokenizer.encode_document(text))
                .collect::<Result<_, _>>()
                .map_err(unreadable)?,
            Some(Prompts::Tokens(tokens)) => vec![tokens.clone()],
        };
        let known = served.loaded.model.config().vocab_size as u32;
        if prompts.iter().any(Vec::is_empty) || prompts.iter().flatten().any(|&token| token >= known) {
            return wrong(format!("a prompt has at least one token, and tokens are below {known}"));
        }
        Ok(prompts)
    }

    /// Tokens that an answer may have: what is asked for, or what the context leaves.
    fn room(&self, prompt: &[u32], served: &Served) -> Result<usize, Mistake> {
        let context = served.loaded.model.config().max_position_embeddings;
        let left = context.saturating_sub(prompt.len());
        let room = self.max_completion_tokens.or(self.max_tokens).unwrap_or(left);
        if room == 0 || room > left {
            let (room, n) = (room.max(1), prompt.len());
            return wrong(format!(
                "the maximum context length is {context} tokens: the prompt has {n}, and {room} are asked for"
            ));
        }
        Ok(room)
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            repeat_penalty: self.repeat_penalty.or(self.repetition_penalty).unwrap_or(1.0),
            ..Sampling::default()
        }
    }

    fn stops(&self) -> Vec<String> {
        let stops = match &self.stop {
            None => Vec::new(),
            Some(Texts::One(text)) => vec![text.clone()],
            Some(Texts::Many(texts)) => texts.clone(),
        };
        stops.into_iter().filter(|text| !text.is_empty()).collect()
    }

    fn guide(&self, served: &Served) -> Result<Option<Arc<Guide>>, Mistake> {
        let schema = match &self.response_format {
            None | Some(ResponseFormat::Text) => return Ok(None),
            Some(ResponseFormat::JsonObject) => json!({"type": "object"}),
            Some(ResponseFormat::JsonSchema { json_schema }) => json_schema.schema.clone(),
        };
        let guide = Guide::new(&Grammar::Json(schema), &served.loaded.tokenizer);
        let guide = guide.map_err(|error| Mistake { status: 400, message: format!("`response_format`: {error}") })?;
        Ok(Some(Arc::new(guide)))
    }
}

impl BodyMessage {
    fn read(&self) -> Result<Message, Mistake> {
        let role = match self.role.as_str() {
            "developer" => "system",
            role @ ("system" | "user" | "assistant") => role,
            other => return wrong(format!("a message of `{other}` is not supported")),
        };
        let content = match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                if let Some(part) = parts.iter().find(|part| part.r#type != "text") {
                    return wrong(format!("content of type `{}` is not supported", part.r#type));
                }
                parts.iter().filter_map(|part| part.text.as_deref()).collect::<Vec<_>>().join("\n")
            }
        };
        Ok(Message::new(role, content))
    }
}

fn wrong<T>(message: String) -> Result<T, Mistake> {
    Err(Mistake { status: 400, message })
}

impl Mistake {
    /// As OpenAI tells it.
    pub(super) fn body(&self) -> Value {
        let kind = if self.status < 500 { "invalid_request_error" } else { "server_error" };
        let code = (self.status == 404).then_some("model_not_found");
        json!({"error": {"message": self.message, "type": kind, "param": null, "code": code}})
    }
}

/// What all parts of a reply begin with.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
}

impl Head {
    /// A whole reply: texts by choice, with why each ended.
    pub(super) fn whole(&self, choices: &[(String, FinishReason)], usage: &Value) -> Value {
        let choice = |(index, (text, reason)): (usize, &(String, FinishReason))| {
            let (index, reason) = (json!(index), json!(reason.as_str()));
            match self.kind {
                Kind::Chat => {
                    let message = json!({"role": "assistant", "content": text});
                    json!({"index": index, "message": message, "finish_reason": reason, "logprobs": null})
                }
                Kind::Completion => json!({"index": index, "text": text, "finish_reason": reason, "logprobs": null}),
            }
        };
        let choices: Vec<Value> = choices.iter().enumerate().map(choice).collect();
        let mut reply = self.object("");
        reply["choices"] = choices.into();
        reply["usage"] = usage.clone();
        reply
    }

    /// A part of a stream: a choice's next text, or why it ended; a chat's choice begins with its role.
    pub(super) fn part(&self, index: usize, text: Option<&str>, reason: Option<FinishReason>, is_first: bool) -> Value {
        let reason = reason.map(FinishReason::as_str);
        let choice = match self.kind {
            Kind::Chat => {
                let mut delta = json!({});
                if is_first {
                    delta["role"] = "assistant".into();
                }
                if let Some(text) = text {
                    delta["content"] = text.into();
                }
                json!({"index": index, "delta": delta, "finish_reason": reason, "logprobs": null})
            }
            Kind::Completion => {
                json!({"index": index, "text": text.unwrap_or_default(), "finish_reason": reason, "logprobs": null})
            }
        };
        let mut part = self.object(".chunk");
        part["choices"] = json!([choice]);
        part
    }

    /// The last part of a stream that is to say what it took.
    pub(super) fn usage_part(&self, usage: &Value) -> Value {
        let mut part = self.object(".chunk");
        part["choices"] = json!([]);
        part["usage"] = usage.clone();
        part
    }

    fn object(&self, chunk: &str) -> Value {
        let object = match self.kind {
            Kind::Chat => format!("chat.completion{chunk}"),
            Kind::Completion => "text_completion".to_owned(),
        };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }
}

/// What a request took.
pub(super) fn usage(prompt: usize, output: usize, shared: usize) -> Value {
    json!({
        "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": shared},
    })
}

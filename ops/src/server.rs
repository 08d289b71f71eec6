//! A client of servers that speak OpenAI's chat completions: vLLM, llama.cpp, hosted ones.
//!
//! Knows requests, retries and replies; which rows are asked, and side by side, is the operator's.

use std::time::Duration;

use retort_lm::template::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::models::ServerModel;

/// How often a request is made before it is given up.
const ATTEMPTS: u32 = 6;
/// The longest that `Retry-After` is heeded.
const LONGEST_WAIT: Duration = Duration::from_mins(2);
/// Slices of a wait, between which a wish to stop is heard.
const SLICE: Duration = Duration::from_millis(100);
/// Characters of a reply that go into a message.
const SHOWN: usize = 300;
/// Bytes of a reply that are read.
const LONGEST_REPLY: u64 = 64 << 20;

/// A connection to one model of one server.
pub struct Client {
    agent: Agent,
    model: ServerModel,
    /// The wait after the first attempt; doubled each time.
    backoff: Duration,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// Sampling, under OpenAI's names and those that vLLM and llama.cpp add; without `null`s.
    pub options: &'a serde_json::Map<String, Value>,
    /// The seed of the draws. Servers take 31 bits of it.
    pub seed: u64,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// `stop`, `length`, or what else the server says.
    pub finish_reason: String,
    /// Tokens of the prompt, where the server counts them.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the output, where the server counts them.
    pub output_tokens: Option<u64>,
}

/// Why there is no completion.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The prompt does not fit the model's context: the row's fault, not the server's.
    #[error("the prompt does not fit the context of the server's model: {0}")]
    TooLong(String),
    /// The server refuses, is not there, or does not speak the language.
    #[error("the server `{url}` {what}")]
    Failed {
        /// Its address.
        url: String,
        /// What it did.
        what: String,
    },
    /// The person asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// One attempt.
enum Attempt {
    Done(Completion),
    /// Worth another try, after this long if the server says.
    Again(String, Option<Duration>),
    Lost(ServerError),
}

impl Client {
    /// A client; nothing is asked yet.
    pub fn new(model: ServerModel) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(model.timeout)))
            .max_idle_connections_per_host(model.parallel)
            .tls_config(tls)
            .build();
        Self { agent: config.into(), model, backoff: Duration::from_secs(1) }
    }

    /// Requests that may run side by side.
    pub fn parallel(&self) -> usize {
        self.model.parallel
    }

    /// Asks for one completion. Busy and broken servers (429, 5xx, no connection) are asked again, at growing intervals or
    /// when `Retry-After` says.
    ///
    /// # Errors
    /// The prompt is too long, the server refuses or cannot be reached, its reply is malformed, or `cancelled` says so.
    pub fn complete(&self, ask: &Ask<'_>, cancelled: &dyn Fn() -> bool) -> Result<Completion, ServerError> {
        let body = self.body(ask);
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if cancelled() {
                return Err(ServerError::Cancelled);
            }
            match self.attempt(&body) {
                Attempt::Done(completion) => return Ok(completion),
                Attempt::Lost(error) => return Err(error),
                Attempt::Again(what, _) if attempt + 1 == ATTEMPTS => last = what,
                Attempt::Again(_, after) => wait(after.unwrap_or(self.backoff * 2_u32.pow(attempt)), cancelled)?,
            }
        }
        Err(self.failed(format!("{last}; it was asked {ATTEMPTS} times")))
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let messages = ask.messages.iter().map(|message| json!({"role": message.role, "content": message.content}));
        let mut body = ask.options.clone();
        body.insert("model".into(), self.model.name.clone().into());
        body.insert("messages".into(), messages.collect());
        body.insert("seed".into(), (ask.seed & 0x7fff_ffff).into());
        body.insert("stream".into(), false.into());
        Value::Object(body)
    }

    fn attempt(&self, body: &Value) -> Attempt {
        let mut request = self.agent.post(format!("{}/chat/completions", self.model.url));
        if let Some(key) = &self.model.api_key {
            request = request.header("Authorization", format!("Bearer {}", key.reveal()));
        }
        let response = match request.send_json(body) {
            Ok(response) => response,
            Err(error) => return Attempt::Again(format!("cannot be reached: {error}"), None),
        };
        let status = response.status().as_u16();
        let after = retry_after(&response);
        let reply = response.into_body().with_config().limit(LONGEST_REPLY).lossy_utf8(true).read_to_string();
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Attempt::Again(format!("broke off: {error}"), None),
        };
        match status {
            200..=299 => match completion(&reply) {
                Ok(completion) => Attempt::Done(completion),
                Err(what) => Attempt::Lost(
                    self.failed(format!("gave a reply that is no completion ({what}): {}", self.shown(&reply))),
                ),
            },
            408 | 429 | 500..=599 => Attempt::Again(format!("answered {status}: {}", self.shown(&reply)), after),
            400 | 413 | 422 if is_about_length(&reply) => Attempt::Lost(ServerError::TooLong(self.shown(&reply))),
            _ => Attempt::Lost(self.failed(format!("answered {status}: {}", self.shown(&reply)))),
        }
    }

    fn failed(&self, what: String) -> ServerError {
        ServerError::Failed { url: self.model.url.clone(), what }
    }

    /// The beginning of a reply, on one line, without the key should the server repeat it.
    fn shown(&self, reply: &str) -> String {
        let key = self.model.api_key.as_ref().map(super::models::Secret::reveal).filter(|key| !key.is_empty());
        let reply = key.map_or_else(|| reply.to_owned(), |key| reply.replace(key, "…"));
        let line = reply.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(SHOWN) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None if line.is_empty() => "(nothing)".to_owned(),
            None => line,
        }
    }
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds: f64 = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds).ok()?.min(LONGEST_WAIT))
}

/// vLLM: "maximum context length"; llama.cpp: `exceed_context_size_error`; OpenAI: `context_length_exceeded`.
fn is_about_length(reply: &str) -> bool {
    let reply = reply.to_lowercase();
    reply.contains("context") && ["length", "exceed", "too long"].iter().any(|word| reply.contains(word))
}

fn wait(mut left: Duration, cancelled: &dyn Fn() -> bool) -> Result<(), ServerError> {
    while !left.is_zero() {
        if cancelled() {
            return Err(ServerError::Cancelled);
        }
        let slice = left.min(SLICE);
        std::thread::sleep(slice);
        left -= slice;
    }
    Ok(())
}

fn completion(reply: &str) -> Result<Completion, String> {
    let reply: Reply = serde_json::from_str(reply).map_err(|error| error.to_string())?;
    let choice = reply.choices.into_iter().next().ok_or("`choices` is empty")?;
    Ok(Completion {
        text: choice.message.content.unwrap_or_default(),
        finish_reason: choice.finish_reason.unwrap_or_else(|| "stop".into()),
        prompt_tokens: reply.usage.as_ref().and_then(|usage| usage.prompt_tokens),
        output_tokens: reply.usage.as_ref().and_then(|usage| usage.completion_tokens),
    })
}

/// What we read of <https://platform.openai.com/docs/api-reference/chat/object>; servers add keys of their own.
#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: ReplyMessage,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct ReplyMessage {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

#[cfg(test)]
pub(crate) mod tests;

//! A client of servers that speak OpenAI's chat completions: vLLM, llama.cpp, hosted ones.
//!
//! Knows requests, retries and replies; how fast it may ask is in `pace`, what it may spend in `budget`. Which rows are asked, and side by side, is the
//! operator's.

mod budget;
mod pace;
mod stream;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use retort_lm::template::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::models::{Price, Secret, ServerModel};
use budget::{Budget, Tokens};
use pace::Pace;
use stream::Stream;

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

/// Slices that a reply is still waited for when the person asked to stop: what it says is paid for.
const PATIENCE: u32 = 12;

/// A connection to one model of one server.
pub struct Client {
    agent: Agent,
    model: ServerModel,
    meter: Arc<Meter>,
    /// The wait after the first attempt; doubled each time.
    backoff: Duration,
}

/// What all nodes that ask one server share: its pace, and what is left of the budget.
#[derive(Debug)]
pub struct Meter {
    pace: Arc<Pace>,
    budget: Budget,
}

impl Meter {
    /// The meter of a server; the same as long as somebody has it.
    pub fn of(model: &ServerModel) -> Arc<Self> {
        static METERS: Mutex<BTreeMap<String, Weak<Meter>>> = Mutex::new(BTreeMap::new());
        let name = format!("{} {} {:?}", model.url, model.name, model.terms);
        let mut meters = METERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get(&name).and_then(Weak::upgrade) {
            return meter;
        }
        meters.retain(|_, meter| meter.strong_count() > 0);
        let meter = Arc::new(Self { pace: Arc::new(Pace::new(&model.terms)), budget: Budget::new(model.terms) });
        meters.insert(name, Arc::downgrade(&meter));
        meter
    }
}

/// When to give up.
#[derive(Clone, Copy)]
pub struct Stops<'a> {
    /// Nothing new is begun; a reply that is under way is waited for.
    pub soon: &'a dyn Fn() -> bool,
    /// The person asked to stop: no reply is waited for much longer.
    pub now: &'a dyn Fn() -> bool,
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
    /// What is left of the budget may not do for another request.
    #[error("the budget is spent: {0}; what was paid for is kept")]
    Spent(String),
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

/// What a server sent: a status, how long to wait if it says, what it said. Or why nothing came.
type Sent = Result<(u16, Option<Duration>, Said), String>;

/// The body of a response.
enum Said {
    Reply(String),
    Stream(Stream),
}

impl Client {
    /// A client; nothing is asked yet.
    pub fn new(model: ServerModel, meter: Arc<Meter>) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let timeout = Some(Duration::from_secs(model.timeout));
        // As long as a stream goes on, nobody waits in vain.
        let (whole, silence) = if model.stream { (None, timeout) } else { (timeout, None) };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(whole)
            .timeout_per_read(silence)
            .timeout_connect(timeout)
            .max_idle_connections_per_host(model.parallel)
            .tls_config(tls)
            .build();
        Self { agent: config.into(), model, meter, backoff: Duration::from_secs(1) }
    }

    /// Requests that may run side by side.
    pub fn parallel(&self) -> usize {
        self.model.parallel
    }

    /// What its tokens cost.
    pub fn price(&self) -> Option<Price> {
        self.model.terms.price
    }

    /// Asks for one completion. Busy and broken servers (429, 5xx, no connection, half a reply) are asked again, at growing intervals that are never quite the
    /// same, or when `Retry-After` says; until then nobody else asks either.
    ///
    /// # Errors
    /// The prompt is too long, the server refuses or cannot be reached, its reply is malformed, the budget is spent, or `stops` says so.
    pub fn complete(&self, ask: &Ask<'_>, stops: Stops<'_>) -> Result<Completion, ServerError> {
        let most = ask.most();
        let thought = most.prompt + most.output;
        let reserved = self.meter.budget.reserve(most, stops.soon)?;
        let body = Arc::new(self.body(ask));
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            self.meter.pace.enter(thought, stops.soon)?;
            match self.attempt(&body, stops) {
                Attempt::Done(completion) => {
                    let used = completion.used(most.prompt);
                    self.meter.pace.settle(thought, used.prompt + used.output);
                    reserved.spend(used);
                    return Ok(completion);
                }
                Attempt::Lost(error) => return Err(error),
                Attempt::Again(what, _) if attempt + 1 == ATTEMPTS => last = what,
                Attempt::Again(_, after) => {
                    self.meter.pace.settle(thought, 0);
                    let _hold = after.map(|_| self.meter.pace.hold());
                    let least = after.unwrap_or(self.backoff * 2_u32.pow(attempt) / 2);
                    wait(least + least.mul_f64(ask.jitter(attempt)), stops.soon)?;
                }
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
        body.insert("stream".into(), self.model.stream.into());
        if self.model.stream {
            body.insert("stream_options".into(), json!({"include_usage": true}));
        }
        Value::Object(body)
    }

    /// Asks once, on a thread that can be left behind.
    fn attempt(&self, body: &Arc<Value>, stops: Stops<'_>) -> Attempt {
        let (sender, sent) = mpsc::channel();
        let (agent, model, body) = (self.agent.clone(), self.model.clone(), Arc::clone(body));
        // Nobody may be there any more to hear it.
        std::thread::spawn(move || _ = sender.send(send(&agent, &model, &body)));
        let mut patience = PATIENCE;
        loop {
            match sent.recv_timeout(SLICE) {
                Ok(sent) => return self.judge(sent),
                Err(RecvTimeoutError::Disconnected) => return Attempt::Again("cannot be asked".to_owned(), None),
                Err(RecvTimeoutError::Timeout) if (stops.now)() => {
                    let Some(left) = patience.checked_sub(1) else { return Attempt::Lost(ServerError::Cancelled) };
                    patience = left;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn judge(&self, sent: Sent) -> Attempt {
        let (status, after, said) = match sent {
            Ok(sent) => sent,
            Err(what) => return Attempt::Again(what, None),
        };
        let lost = |what: String| Attempt::Lost(self.failed(what));
        let (reply, completion) = match said {
            Said::Stream(stream) => (stream.text.clone(), stream.completion()),
            Said::Reply(reply) => {
                let completion = completion(&reply);
                (reply, completion)
            }
        };
        match status {
            200..=299 => match completion {
                Ok(completion) => Attempt::Done(completion),
                Err(NoCompletion::CutOff(why)) => {
                    let why = why.map(|why| format!(": {}", self.shown(&why))).unwrap_or_default();
                    Attempt::Again(format!("broke off after {}{why}", self.shown(&reply)), None)
                }
                Err(NoCompletion::Other(what)) => {
                    lost(format!("gave a reply that is no completion ({}): {}", self.shown(&what), self.shown(&reply)))
                }
            },
            429 if reply.contains("insufficient_quota") => lost(format!("answered 429: {}", self.shown(&reply))),
            408 | 429 | 500..=599 => Attempt::Again(format!("answered {status}: {}", self.shown(&reply)), after),
            400 | 413 | 422 if is_about_length(&reply) => Attempt::Lost(ServerError::TooLong(self.shown(&reply))),
            _ => lost(format!("answered {status}: {}", self.shown(&reply))),
        }
    }

    fn failed(&self, what: String) -> ServerError {
        ServerError::Failed { url: self.model.url.clone(), what }
    }

    /// The beginning of a reply, on one line, without the key should the server repeat it.
    fn shown(&self, reply: &str) -> String {
        let key = self.model.api_key.as_ref().map(Secret::reveal).filter(|key| !key.is_empty());
        let reply = key.map_or_else(|| reply.to_owned(), |key| reply.replace(key, "…"));
        let line = reply.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(SHOWN) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None if line.is_empty() => "(nothing)".to_owned(),
            None => line,
        }
    }
}

impl Ask<'_> {
    /// What this may come to: a token has three bytes of a prompt, or more; an answer has all that it may.
    fn most(&self) -> Tokens {
        let prompt: usize = self.messages.iter().map(|message| message.content.len() / 3 + 8).sum();
        let output = self.options.get("max_tokens").and_then(Value::as_u64).unwrap_or(0);
        Tokens { prompt: prompt as u64, output }
    }

    /// A number in [0, 1) that differs from row to row and from attempt to attempt, so that not all ask again at once.
    fn jitter(&self, attempt: u32) -> f64 {
        let mixed = (self.seed ^ u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        f64::from((mixed >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Completion {
    /// What a server said.
    fn of(text: String, finish_reason: Option<String>, usage: Option<&Usage>) -> Self {
        Self {
            text,
            finish_reason: finish_reason.unwrap_or_else(|| "stop".into()),
            prompt_tokens: usage.and_then(|usage| usage.prompt_tokens),
            output_tokens: usage.and_then(|usage| usage.completion_tokens),
        }
    }

    /// What it took; where the server does not count, what the prompt was thought to be, and a token for three bytes of the text.
    fn used(&self, prompt: u64) -> Tokens {
        let output = self.text.len().div_ceil(3) as u64;
        Tokens { prompt: self.prompt_tokens.unwrap_or(prompt), output: self.output_tokens.unwrap_or(output) }
    }
}

fn send(agent: &Agent, model: &ServerModel, body: &Value) -> Sent {
    let mut request = agent.post(format!("{}/chat/completions", model.url));
    if let Some(key) = &model.api_key {
        request = request.header("Authorization", format!("Bearer {}", key.reveal()));
    }
    let response = request.send_json(body).map_err(|error| format!("cannot be reached: {error}"))?;
    let (status, after) = (response.status().as_u16(), retry_after(&response));
    // A server that knows no streams says all at once, and one that refuses says why.
    let streams = response.body().mime_type() == Some("text/event-stream") && (200..300).contains(&status);
    let mut body = response.into_body();
    let body = body.with_config().limit(LONGEST_REPLY);
    if streams {
        return Ok((status, after, Said::Stream(Stream::read(BufReader::new(body.reader())))));
    }
    let reply = body.lossy_utf8(true).read_to_string();
    Ok((status, after, Said::Reply(reply.map_err(|error| format!("broke off: {error}"))?)))
}

/// How long the server wants to be left alone: seconds, or a date, which is read by the server's own clock.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::trim);
    let after = header("retry-after")?;
    let wait = match after.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let date = |text: &str| httpdate::parse_http_date(text).ok();
            date(after)?.duration_since(date(header("date")?)?).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
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

/// Why a reply is no completion.
enum NoCompletion {
    /// It does not end; perhaps it says why.
    CutOff(Option<String>),
    Other(String),
}

fn completion(reply: &str) -> Result<Completion, NoCompletion> {
    let reply: Reply = serde_json::from_str(reply).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof if !reply.trim().is_empty() => NoCompletion::CutOff(None),
        _ => NoCompletion::Other(error.to_string()),
    })?;
    let choice = reply.choices.into_iter().next();
    let choice = choice.ok_or_else(|| NoCompletion::Other("`choices` is empty".to_owned()))?;
    Ok(Completion::of(choice.message.content.unwrap_or_default(), choice.finish_reason, reply.usage.as_ref()))
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

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

#[cfg(test)]
pub(crate) mod tests;

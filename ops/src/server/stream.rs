//! A completion that comes in pieces: server-sent events, whose `data:` lines hold chunks and at last `[DONE]`
//! (<https://platform.openai.com/docs/api-reference/chat-streaming>).

use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;

use super::{Completion, NoCompletion, Usage};

/// What came of a stream, whole or not.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) text: String,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    /// Whether the server said that this is all.
    done: bool,
    /// Why it broke off.
    broken: Option<String>,
    /// A line that is no chunk.
    strange: Option<String>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    /// A server that fails on the way says it in place of a chunk.
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

impl Stream {
    /// Reads until the server says that it is done, or breaks off.
    pub(super) fn read(mut from: impl BufRead) -> Self {
        let (mut stream, mut line) = (Self::default(), Vec::new());
        while !stream.is_over() {
            line.clear();
            match from.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => stream.take(String::from_utf8_lossy(&line).trim_end()),
                Err(error) => stream.broken = Some(error.to_string()),
            }
        }
        stream
    }

    fn is_over(&self) -> bool {
        self.done || self.broken.is_some() || self.strange.is_some()
    }

    /// A line; those that hold no data are names of events, comments that keep a connection open, and ends.
    fn take(&mut self, line: &str) {
        let Some(data) = line.strip_prefix("data:") else { return };
        let data = data.trim_start();
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        let Ok(chunk) = serde_json::from_str::<Chunk>(data) else {
            self.strange = Some(data.to_owned());
            return;
        };
        self.broken = chunk.error.map(|error| error.to_string());
        self.usage = chunk.usage.or(self.usage.take());
        if let Some(choice) = chunk.choices.into_iter().next() {
            self.text.push_str(&choice.delta.content.unwrap_or_default());
            self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        }
    }

    /// The whole answer, if this is one: with a reason why it ended, or the server's word that it did.
    pub(super) fn completion(self) -> Result<Completion, NoCompletion> {
        if let Some(line) = self.strange {
            return Err(NoCompletion::Other(format!("`{line}` is no chunk")));
        }
        let whole = self.finish_reason.is_some() || self.done;
        match self.broken {
            Some(why) if self.finish_reason.is_none() => Err(NoCompletion::CutOff(Some(why))),
            None if !whole => Err(NoCompletion::CutOff(None)),
            _ => Ok(Completion::of(self.text, self.finish_reason, self.usage.as_ref())),
        }
    }
}

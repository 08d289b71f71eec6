//! Rows asked of a server, several requests side by side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use retort_engine::{Cx, Failure};
use retort_lm::template::Message;
use serde_json::{Map, Value, json};

use super::guide::Guide;
use super::{Asked, PromptLlm, Said, Turn};
use crate::models::ServerModel;
use crate::server::{Ask, Client, Meter, ServerError, Stops};

/// Asks for `sample.n` answers to each prompt. The first failure stops the rest; what was answered by then is kept.
pub(super) fn answer(
    server: &ServerModel,
    meter: &Arc<Meter>,
    prompts: &[(usize, Vec<Message>)],
    asked: &Asked<'_>,
    cx: &Cx<'_>,
) -> Result<(), Failure> {
    let client = Client::new(server.clone(), Arc::clone(meter));
    let options = options(asked.config);
    let n_jobs = prompts.len() * asked.config.sample.n;
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let first = || failure.lock().expect("no thread panics while it holds the failure");
    let stopped = || cx.cancelled() || first().is_some();
    let left = || cx.cancelled();
    let work = || {
        let stops = Stops { soon: &stopped, now: &left };
        while !stopped() {
            let job = next.fetch_add(1, Ordering::Relaxed);
            if job >= n_jobs {
                return;
            }
            let (row, messages) = &prompts[job / asked.config.sample.n];
            let mut turn = Some(Turn { row: *row, index: job % asked.config.sample.n, retries: 0 });
            while let Some(this) = turn {
                let ask = Ask { messages, options: &options, seed: asked.seed(this, cx) };
                turn = one(&client, &ask, stops, asked, this, cx).unwrap_or_else(|error| {
                    first().get_or_insert(error);
                    None
                });
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..client.parallel().min(n_jobs) {
            scope.spawn(work);
        }
    });
    cx.check()?;
    failure.into_inner().expect("no thread panicked").map_or(Ok(()), Err)
}

fn one(
    client: &Client,
    ask: &Ask<'_>,
    stops: Stops<'_>,
    asked: &Asked<'_>,
    turn: Turn,
    cx: &Cx<'_>,
) -> Result<Option<Turn>, Failure> {
    match client.complete(ask, stops) {
        Ok(completion) => {
            cx.tokens(completion.prompt_tokens.unwrap_or(0), completion.output_tokens.unwrap_or(0));
            let tokens = completion.prompt_tokens.zip(completion.output_tokens);
            let said = Said {
                cost: client.price().zip(tokens).map(|(price, (prompt, output))| price.of(prompt, output)),
                output: completion.text,
                finish_reason: completion.finish_reason,
                n_prompt_tokens: completion.prompt_tokens,
                n_output_tokens: completion.output_tokens,
                shared: 0,
            };
            asked.take(turn, said)
        }
        // The same prompt is too long for each of the row's answers: the last reject is like the first.
        Err(error @ ServerError::TooLong(_)) => asked.answers.reject(turn.row, error.to_string()).map(|()| None),
        Err(ServerError::Cancelled) => Err(Failure::Cancelled),
        Err(error) => Err(Failure::op(error)),
    }
}

/// Sampling as the interface names it. What vLLM and llama.cpp add is sent only where it is asked for: others refuse it.
fn options(config: &PromptLlm) -> Map<String, Value> {
    let sample = &config.sample;
    let mut options = Map::new();
    options.insert("temperature".into(), sample.temperature.into());
    options.insert("top_p".into(), sample.top_p.into());
    options.insert("max_tokens".into(), sample.max_tokens.into());
    if !sample.stop.is_empty() {
        options.insert("stop".into(), sample.stop.clone().into());
    }
    if sample.top_k > 0 {
        options.insert("top_k".into(), sample.top_k.into());
    }
    if sample.min_p > 0.0 {
        options.insert("min_p".into(), sample.min_p.into());
    }
    if sample.repeat_penalty != 1.0 {
        options.insert("repeat_penalty".into(), sample.repeat_penalty.into());
        options.insert("repetition_penalty".into(), sample.repeat_penalty.into());
    }
    if let Some(schema) = config.guide.as_ref().and_then(Guide::schema) {
        let named = json!({"name": "answer", "schema": schema, "strict": true});
        options.insert("response_format".into(), json!({"type": "json_schema", "json_schema": named}));
    }
    options
}

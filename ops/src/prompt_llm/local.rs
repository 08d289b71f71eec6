//! Rows asked of a model that runs here.

use rayon::prelude::*;
use retort_engine::{Asset, Cx, Failure};
use retort_lm::LmError;
use retort_lm::generate::{Event, Flow, Limits, Request, generate};
use retort_lm::sample::Sampling;
use retort_lm::template::Message;

use super::{Asked, Said, SampleOptions};
use crate::models::{self, LoadedModel};

/// Asks for `sample.n` answers to each prompt, many side by side.
pub(super) fn answer(
    asset: &Asset,
    prompts: &[(usize, Vec<Message>)],
    asked: &Asked<'_>,
    cx: &Cx<'_>,
) -> Result<(), Failure> {
    let loaded = models::load(asset, cx)?;
    let prompts = fitting(&loaded, prompts, asked)?;
    let mut requests = Vec::new();
    let mut owners = Vec::new();
    for (row, prompt) in &prompts {
        for index in 0..asked.sample.n {
            owners.push((*row, index, prompt.len() as u64));
            requests.push(request(prompt.clone(), asked.sample, asked.seed(*row, index, cx)));
        }
    }
    let mut failure = None;
    let mut on_event = |event| {
        match event {
            Event::Step { prompt, output } => cx.tokens(prompt, output),
            Event::Text { .. } => {}
            Event::Finished(text) => {
                let (row, index, n_prompt) = owners[text.index];
                let said = Said {
                    output: text.text,
                    finish_reason: text.reason.as_str().to_owned(),
                    n_prompt_tokens: Some(n_prompt),
                    n_output_tokens: Some(text.tokens.len() as u64),
                };
                if let Err(error) = asked.answers.put(row, index, said) {
                    failure = Some(error);
                    return Flow::Stop;
                }
            }
        }
        // What is under way is paid for: it is finished and kept.
        if cx.cancelled() { Flow::Drain } else { Flow::Continue }
    };
    let done = generate(&loaded.model, &loaded.tokenizer, None, &requests, Limits::default(), &mut on_event);
    match (failure, done) {
        (Some(failure), _) => Err(failure),
        (None, Err(LmError::Cancelled)) => Err(Failure::Cancelled),
        (None, done) => done.map_err(Failure::op),
    }
}

/// The prompts as tokens; those that leave no room for the answer are rejected.
fn fitting(
    loaded: &LoadedModel,
    prompts: &[(usize, Vec<Message>)],
    asked: &Asked<'_>,
) -> Result<Vec<(usize, Vec<u32>)>, Failure> {
    let encode = |(row, messages): &(usize, Vec<Message>)| {
        loaded.tokenizer.encode_prompt(&loaded.template, messages, true).map(|prompt| (*row, prompt))
    };
    let encoded: Vec<(usize, Vec<u32>)> =
        prompts.par_iter().map(encode).collect::<Result<_, _>>().map_err(Failure::op)?;
    let (context, output) = (loaded.model.config().max_position_embeddings, asked.sample.max_tokens);
    let mut fitting = Vec::with_capacity(encoded.len());
    for (row, prompt) in encoded {
        if prompt.len() + output <= context {
            fitting.push((row, prompt));
            continue;
        }
        let n_prompt = prompt.len();
        let reason = format!(
            "the prompt has {n_prompt} tokens; with `max_tokens` {output} that is more than the model's context of {context}"
        );
        asked.answers.reject(row, reason)?;
    }
    Ok(fitting)
}

fn request(prompt: Vec<u32>, sample: &SampleOptions, seed: u64) -> Request {
    let sampling = Sampling {
        temperature: sample.temperature as f32,
        top_k: sample.top_k,
        top_p: sample.top_p as f32,
        min_p: sample.min_p as f32,
        repeat_penalty: sample.repeat_penalty as f32,
        repeat_window: sample.repeat_window,
    };
    Request { prompt, sampling, seed, max_tokens: sample.max_tokens, stop: sample.stop.clone() }
}

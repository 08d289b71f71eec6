//! Rows asked of a model that runs here.

use std::sync::Arc;

use rayon::prelude::*;
use retort_engine::{Asset, Cx, Failure};
use retort_lm::LmError;
use retort_lm::generate::{Event, Finished, Flow, Limits, Request, generate};
use retort_lm::guide::Guide;
use retort_lm::sample::Sampling;
use retort_lm::template::Message;

use super::finish::Action;
use super::{Asked, PromptLlm, Said, Turn};
use crate::models::{self, LoadedModel};

/// Asks for `sample.n` answers to each prompt, many side by side.
pub(super) fn answer(
    asset: &Asset,
    prompts: &[(usize, Vec<Message>)],
    asked: &Asked<'_>,
    cx: &Cx<'_>,
) -> Result<(), Failure> {
    let loaded = models::load(asset, asked.config.precision, cx)?;
    let guide = asked.config.guide.as_ref().map(|guide| Guide::new(&guide.grammar(), &loaded.tokenizer));
    let guide = guide.transpose().map_err(Failure::op)?.map(Arc::new);
    let (mut requests, mut turns) = (Vec::new(), Vec::new());
    for (row, prompt, room) in fitting(&loaded, prompts, asked)? {
        for index in 0..asked.config.sample.n {
            let turn = Turn { row, index, retries: 0 };
            turns.push(turn);
            requests.push(request(prompt.clone(), room, asked.config, guide.clone(), asked.seed(turn, cx)));
        }
    }
    let mut failure = None;
    let mut on_event = |event| {
        let flow = match event {
            Event::Step { prompt, output } => {
                cx.tokens(prompt, output);
                Flow::Continue
            }
            Event::Text { .. } => Flow::Continue,
            Event::Finished(text) => {
                let at = text.index;
                match asked.take(turns[at], said(text, &requests[at], asked.config)) {
                    Ok(None) => Flow::Continue,
                    Ok(Some(turn)) => {
                        turns[at] = turn;
                        Flow::Again(asked.seed(turn, cx))
                    }
                    Err(error) => {
                        failure = Some(error);
                        Flow::Stop
                    }
                }
            }
        };
        // What has ended is kept; what is under way would take longer than anybody waits.
        if cx.cancelled() { Flow::Stop } else { flow }
    };
    let done = generate(&loaded.model, &loaded.tokenizer, None, &requests, Limits::of(&loaded.model), &mut on_event);
    match (failure, done) {
        (Some(failure), _) => Err(failure),
        (None, Err(LmError::Cancelled)) => Err(Failure::Cancelled),
        (None, done) => done.map_err(Failure::op),
    }
}

fn said(text: Finished, request: &Request, config: &PromptLlm) -> Said {
    let n_output = text.tokens.len();
    let cut_by_context = n_output == request.max_tokens && request.max_tokens < config.sample.max_tokens;
    let reason = text.reason.as_str();
    Said {
        output: text.text,
        finish_reason: if reason == "length" && cut_by_context { "context" } else { reason }.to_owned(),
        n_prompt_tokens: Some(request.prompt.len() as u64),
        n_output_tokens: Some(n_output as u64),
        shared: text.shared as u64,
        cost: None,
    }
}

/// The prompts as tokens, with the room for their answers; those that leave none are rejected.
fn fitting(
    loaded: &LoadedModel,
    prompts: &[(usize, Vec<Message>)],
    asked: &Asked<'_>,
) -> Result<Vec<(usize, Vec<u32>, usize)>, Failure> {
    let encode = |(row, messages): &(usize, Vec<Message>)| {
        loaded.tokenizer.encode_prompt(&loaded.template, messages, true).map(|prompt| (*row, prompt))
    };
    let encoded: Vec<(usize, Vec<u32>)> =
        prompts.par_iter().map(encode).collect::<Result<_, _>>().map_err(Failure::op)?;
    let (context, output) = (loaded.model.config().max_position_embeddings, asked.config.sample.max_tokens);
    let mut fitting = Vec::with_capacity(encoded.len());
    for (row, prompt) in encoded {
        let n_prompt = prompt.len();
        let room = output.min(context.saturating_sub(n_prompt));
        if room == output || (room > 0 && asked.config.finish.context == Action::Keep) {
            fitting.push((row, prompt, room));
            continue;
        }
        let reason = format!(
            "the prompt has {n_prompt} tokens; with `max_tokens` {output} that is more than the model's context of {context}"
        );
        asked.answers.reject(row, reason)?;
    }
    Ok(fitting)
}

fn request(prompt: Vec<u32>, max_tokens: usize, config: &PromptLlm, guide: Option<Arc<Guide>>, seed: u64) -> Request {
    let sample = &config.sample;
    let sampling = Sampling {
        temperature: sample.temperature as f32,
        top_k: sample.top_k,
        top_p: sample.top_p as f32,
        min_p: sample.min_p as f32,
        repeat_penalty: sample.repeat_penalty as f32,
        repeat_window: sample.repeat_window,
    };
    let repetition = config.finish.repetition_tokens;
    Request { prompt, sampling, seed, max_tokens, stop: sample.stop.clone(), guide, repetition }
}

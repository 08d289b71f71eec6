//! One model sits the exam: what it is asked, what it says, and its losses on the answers wanted and on general texts.

use std::sync::Arc;

use retort_cache::Digest;
use retort_engine::{Cx, Failure};
use retort_lm::data::{self, Pair};
use retort_lm::generate::{Event, Flow, Limits, Request, generate};
use retort_lm::gradient::{LossSum, Segment};
use retort_lm::lora::Adapter;
use retort_lm::sample::Sampling;
use retort_lm::template::Message;
use retort_lm::train::losses;

use super::Evaluate;
use super::report::Mark;
use crate::lora_train::failure;
use crate::models::LoadedModel;

/// Tokens that go through the model at a time when losses are computed.
const PASS_TOKENS: usize = 2048;
/// General texts are cut into pieces of so many tokens, or the model's context.
const GENERAL_TOKENS: usize = 1024;

/// How far the exam is: answers of all models, and the judge's verdicts.
pub(super) struct Progress {
    pub(super) done: u64,
    pub(super) of: u64,
}

impl Progress {
    pub(super) fn add(&mut self, done: u64, cx: &Cx<'_>) -> Result<(), Failure> {
        self.done += done;
        cx.progress(self.done, self.of)
    }
}

/// A question that can be asked: what the model reads, and what it should say.
struct Question {
    prompt: Vec<u32>,
    wanted: Segment,
}

/// The questions as one model reads them; none where the question or the answer is empty, or one of them does not fit.
pub(super) struct Paper(Vec<Option<Question>>);

impl Paper {
    pub(super) fn new(loaded: &LoadedModel, asked: &[Pair], max_tokens: usize) -> Result<Self, Failure> {
        asked.iter().map(|pair| question(loaded, pair, max_tokens)).collect::<Result<_, _>>().map(Self)
    }

    /// How many questions cannot be asked.
    pub(super) fn skipped(&self) -> usize {
        self.0.iter().filter(|question| question.is_none()).count()
    }
}

fn question(loaded: &LoadedModel, pair: &Pair, max_tokens: usize) -> Result<Option<Question>, Failure> {
    let (tokenizer, template) = (&loaded.tokenizer, &loaded.template);
    let context = loaded.model.config().max_position_embeddings;
    let Some(wanted) = data::pair(tokenizer, template, pair).map_err(failure)? else { return Ok(None) };
    let messages = [Message::new("user", &*pair.question)];
    let prompt = tokenizer.encode_prompt(template, &messages, true).map_err(failure)?;
    let fits = prompt.len() + max_tokens <= context && wanted.tokens.len() <= context;
    Ok(fits.then_some(Question { prompt, wanted }))
}

/// A model with its adapter.
pub(super) struct Sitting<'a> {
    pub(super) config: &'a Evaluate,
    pub(super) loaded: Arc<LoadedModel>,
    pub(super) adapter: Option<Adapter>,
}

impl Sitting<'_> {
    /// Its answers and losses, a place a question.
    pub(super) fn marks(
        &self,
        paper: &Paper,
        progress: &mut Progress,
        cx: &Cx<'_>,
    ) -> Result<Vec<Option<Mark>>, Failure> {
        let asked: Vec<&Question> = paper.0.iter().flatten().collect();
        let segments: Vec<Segment> = asked.iter().map(|question| question.wanted.clone()).collect();
        let requests: Vec<Request> = asked.iter().map(|question| self.request(question)).collect();
        let outputs = write(&self.loaded, self.adapter.as_ref(), &requests, progress, cx)?;
        let losses = self.losses(&segments)?;
        progress.add(paper.skipped() as u64, cx)?;
        let mut marks = outputs.into_iter().zip(losses).map(|(output, loss)| Mark { output, loss });
        Ok(paper.0.iter().map(|question| question.as_ref().and_then(|_| marks.next())).collect())
    }

    /// Its loss on each general text; none of an empty one.
    pub(super) fn general(&self, texts: &[String], cx: &Cx<'_>) -> Result<Vec<LossSum>, Failure> {
        let length = GENERAL_TOKENS.min(self.loaded.model.config().max_position_embeddings);
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            cx.check()?;
            let pieces = data::texts(&self.loaded.tokenizer, [text.as_str()], length).map_err(failure)?;
            let mut sum = LossSum::default();
            self.losses(&pieces.segments)?.into_iter().for_each(|loss| sum.add(loss));
            cx.tokens(sum.tokens, 0);
            all.push(sum);
        }
        Ok(all)
    }

    fn losses(&self, segments: &[Segment]) -> Result<Vec<LossSum>, Failure> {
        losses(&self.loaded.model, self.adapter.as_ref(), segments, PASS_TOKENS).map_err(failure)
    }

    fn request(&self, question: &Question) -> Request {
        // Seeded by the question itself, so that it is answered alike in any exam.
        let digest = Digest::of("retort exam draws 1", |hasher| {
            hasher.update(&self.config.seed.to_le_bytes());
            question.prompt.iter().for_each(|token| _ = hasher.update(&token.to_le_bytes()));
        });
        Request {
            prompt: question.prompt.clone(),
            sampling: Sampling { temperature: self.config.temperature as f32, ..Sampling::default() },
            seed: u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest is longer")),
            max_tokens: self.config.max_tokens,
            stop: Vec::new(),
            guide: None,
            repetition: 0,
        }
    }
}

/// The texts that a model writes, a place a request.
pub(super) fn write(
    loaded: &LoadedModel,
    adapter: Option<&Adapter>,
    requests: &[Request],
    progress: &mut Progress,
    cx: &Cx<'_>,
) -> Result<Vec<String>, Failure> {
    let mut outputs = vec![String::new(); requests.len()];
    let mut on_event = |event| {
        let told = match event {
            Event::Step { prompt, output } => {
                cx.tokens(prompt, output);
                cx.check()
            }
            Event::Text { .. } => Ok(()),
            Event::Finished(text) => {
                outputs[text.index] = text.text;
                progress.add(1, cx)
            }
        };
        if told.is_ok() { Flow::Continue } else { Flow::Stop }
    };
    generate(&loaded.model, &loaded.tokenizer, adapter, requests, Limits::default(), &mut on_event).map_err(failure)?;
    Ok(outputs)
}

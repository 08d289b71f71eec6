//! `evaluate`: the exam. The base model and the tuned one answer the same questions, closed book.
//!
//! The tables that come out are put together in `evaluate/report.rs`; how answers are scored is in `score`.

mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;
use retort_cache::{Digest, TableWriter};
use retort_engine::{
    Asset, Cx, Define, Env, Failure, Input, Inputs, Lane, Lineage, Operator, Problem, SlotSpec, TableOp, TokenBudget,
};
use retort_lm::data::{self, Pair};
use retort_lm::generate::{Event, Flow, Limits, Request, generate};
use retort_lm::gradient::{LossSum, Segment};
use retort_lm::lora::Adapter;
use retort_lm::sample::Sampling;
use retort_lm::template::Message;
use retort_lm::train::losses;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora_train::{adapter, failure, pairs, text_column};
use crate::models::{self, LoadedModel, ModelRef, Precision};
use crate::stable::{self, Place};
use report::{Exam, Mark};

/// Tokens that go through the model at a time when losses are computed.
const PASS_TOKENS: usize = 2048;

/// Examines a model without and with its adapter on the same questions, closed book: no text is given along.
///
/// Both answer every question, greedily unless told otherwise, under the model's chat template. An answer is scored against the one in the table by token F1 and exact match
/// (as SQuAD does: case, punctuation and articles aside) and ROUGE-L; the loss is that of the table's answer and its end of turn, in nats a token.
///
/// `out` has a row a question, with both answers side by side; `summary` a row a model: the mean of each score, the loss over all answer tokens, and the perplexity (e
/// to the loss). A question that leaves no room for an answer in the model's context has no scores and is not counted.
///
/// ```yaml
/// exam:
///   op: evaluate
///   from: {eval: sets.eval, adapter: adapter.adapter}
///   with: {model: smollm2-135m, max_tokens: 64}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The base model: the one that the adapter was trained on.
    pub model: ModelRef,
    /// What both models compute in: `int8` examines them as llama.cpp would run them.
    #[serde(default)]
    #[schemars(extend("default" = "f16"))]
    pub precision: Precision,
    /// The longest answer, in tokens. Longer ones cost time, and are cut in the middle where the model does not end them.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
    /// At most so many questions, chosen by a stable hash of question and answer: a larger number asks these and more. Default all.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// 0 always takes the likeliest token; above it answers are drawn, which blurs the comparison.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Another seed chooses other questions, and draws other answers.
    #[serde(default)]
    pub seed: u64,
    /// The column that holds the question.
    #[serde(default = "question")]
    pub question: String,
    /// The column that holds the answer wanted.
    #[serde(default = "answer")]
    pub answer: String,
}

fn max_tokens() -> usize {
    128
}

fn question() -> String {
    "question".into()
}

fn answer() -> String {
    "answer".into()
}

impl Define for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 1;

    fn lane(&self) -> Lane {
        Lane::Model
    }

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        self.model.assets(env)
    }

    fn budget(&self) -> Option<TokenBudget> {
        Some(TokenBudget { field: "max_tokens", tokens: self.max_tokens, column: "tuned_answer" })
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        self.model.check_local("model")?;
        if self.max_tokens == 0 {
            return Err(Problem::at_field("max_tokens", "an answer has at least one token"));
        }
        if self.max_rows == Some(0) {
            return Err(Problem::at_field("max_rows", "an exam has at least one question"));
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Problem::at_field("temperature", "a temperature is 0 or more"));
        }
        let asset = self.model.asset(env).expect("a local model has weights");
        Ok(Operator::Table(Box::new(Examiner { asset, config: self })))
    }
}

struct Examiner {
    asset: Asset,
    config: Evaluate,
}

impl TableOp for Examiner {
    fn slots(&self) -> Vec<SlotSpec> {
        vec![SlotSpec::required("eval"), SlotSpec::required("adapter")]
    }

    fn outputs(&self) -> Vec<String> {
        vec!["out".into(), "summary".into()]
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        stable::none_of(self.mistakes(inputs))?;
        Ok(vec![report::rows_schema(), report::summary_schema()])
    }

    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(schema) = inputs.get("eval") {
            problems.extend(text_column("question", &self.config.question, schema).err());
            problems.extend(text_column("answer", &self.config.answer, schema).err());
        }
        if inputs.get("adapter").is_some_and(|schema| !adapter::is_adapter(schema)) {
            let problem = Problem::new("type", "from.adapter", "the input is no adapter");
            problems.push(problem.hint("`lora-train` writes one on its port `adapter`"));
        }
        problems
    }

    fn lineage(&self, output: &str, slot: &str) -> Lineage {
        if (output, slot) != ("out", "eval") {
            return Lineage::Whole;
        }
        let columns = [("question", &self.config.question), ("answer", &self.config.answer)];
        Lineage::Columns(columns.map(|(out, input)| (out.to_string(), input.clone())).into())
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let (Some(eval), Some(table)) = (inputs.get("eval"), inputs.get("adapter")) else {
            return Err(Failure::op("`eval` and `adapter` feed it"));
        };
        let loaded = models::load(&self.asset, self.config.precision, cx)?;
        let tuned = self.adapter(&loaded, table, cx)?;
        let asked = self.chosen(pairs(eval, &self.config.question, &self.config.answer)?);
        let questions = asked.iter().map(|pair| self.question(&loaded, pair)).collect::<Result<Vec<_>, _>>()?;
        let skipped = questions.iter().filter(|question| question.is_none()).count();
        if skipped > 0 {
            cx.note(format!("{skipped} of {} questions are empty or leave no room for an answer", questions.len()));
        }
        let mut progress = Answered { done: 0, of: 2 * (questions.len() - skipped) as u64 };
        let base = self.sit(&loaded, None, &questions, &mut progress, cx)?;
        let tuned = self.sit(&loaded, Some(&tuned), &questions, &mut progress, cx)?;
        let exam = Exam { asked: &asked, base: &base, tuned: &tuned };
        out[0].write(&exam.rows()?)?;
        out[1].write(&exam.summary()?)?;
        Ok(())
    }
}

/// A question that can be asked: what the model reads, and what it should say.
struct Question {
    prompt: Vec<u32>,
    wanted: Segment,
}

/// How many answers there are, of both models.
struct Answered {
    done: u64,
    of: u64,
}

impl Examiner {
    fn adapter(&self, loaded: &LoadedModel, table: &Input, cx: &Cx<'_>) -> Result<Adapter, Failure> {
        let stored = adapter::read(table.batches()?, loaded.model.config())?;
        let base = cx.asset_digest(&self.asset)?;
        if stored.base_sha256 != base {
            let message =
                format!("the adapter was trained on other weights ({}) than `model` names", stored.base_sha256);
            return Err(Failure::op(format!("{message} ({base})")));
        }
        Ok(stored.adapter)
    }

    /// The questions that are asked, in the order of the table.
    fn chosen(&self, pairs: Vec<Pair>) -> Vec<Pair> {
        let Some(most) = self.config.max_rows.filter(|most| *most < pairs.len()) else { return pairs };
        let mut places: Vec<_> =
            pairs.iter().map(|pair| Place::of("retort exam 1", self.config.seed, key(pair))).zip(0..).collect();
        places.sort_unstable();
        let kept: BTreeSet<usize> = places.into_iter().take(most).map(|(_, row)| row).collect();
        pairs.into_iter().enumerate().filter(|(row, _)| kept.contains(row)).map(|(_, pair)| pair).collect()
    }

    /// What is asked of the model; none where the question or the answer is empty, or one of them does not fit.
    fn question(&self, loaded: &LoadedModel, pair: &Pair) -> Result<Option<Question>, Failure> {
        let (tokenizer, template) = (&loaded.tokenizer, &loaded.template);
        let context = loaded.model.config().max_position_embeddings;
        let Some(wanted) = data::pair(tokenizer, template, pair).map_err(failure)? else { return Ok(None) };
        let messages = [Message::new("user", &*pair.question)];
        let prompt = tokenizer.encode_prompt(template, &messages, true).map_err(failure)?;
        let fits = prompt.len() + self.config.max_tokens <= context && wanted.tokens.len() <= context;
        Ok(fits.then_some(Question { prompt, wanted }))
    }

    /// One model's answers and losses; none where there was no question.
    fn sit(
        &self,
        loaded: &LoadedModel,
        adapter: Option<&Adapter>,
        questions: &[Option<Question>],
        progress: &mut Answered,
        cx: &Cx<'_>,
    ) -> Result<Vec<Option<Mark>>, Failure> {
        let asked: Vec<&Question> = questions.iter().flatten().collect();
        let segments: Vec<Segment> = asked.iter().map(|question| question.wanted.clone()).collect();
        let outputs = self.answers(loaded, adapter, &asked, progress, cx)?;
        let losses: Vec<LossSum> = losses(&loaded.model, adapter, &segments, PASS_TOKENS).map_err(failure)?;
        let mut marks = outputs.into_iter().zip(losses).map(|(output, loss)| Mark { output, loss });
        Ok(questions.iter().map(|question| question.as_ref().and_then(|_| marks.next())).collect())
    }

    fn answers(
        &self,
        loaded: &LoadedModel,
        adapter: Option<&Adapter>,
        asked: &[&Question],
        progress: &mut Answered,
        cx: &Cx<'_>,
    ) -> Result<Vec<String>, Failure> {
        let requests: Vec<Request> = asked.iter().map(|question| self.request(question)).collect();
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
                    progress.done += 1;
                    cx.progress(progress.done, progress.of)
                }
            };
            if told.is_ok() { Flow::Continue } else { Flow::Stop }
        };
        let limits = Limits::default();
        generate(&loaded.model, &loaded.tokenizer, adapter, &requests, limits, &mut on_event).map_err(failure)?;
        Ok(outputs)
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

fn key(pair: &Pair) -> Digest {
    Digest::of("retort exam question 1", |hasher| {
        hasher.update(&(pair.question.len() as u64).to_le_bytes());
        hasher.update(pair.question.as_bytes()).update(pair.answer.as_bytes());
    })
}

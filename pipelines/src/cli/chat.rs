//! `retort chat`: talk to a model that was trained. A line is a turn; the answer comes token by token.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use retort_engine::{Failure, OpInfo};
use retort_lm::LmError;
use retort_lm::generate::{Event, Flow, Limits, Request, generate};
use retort_lm::lora::Adapter;
use retort_lm::sample::Sampling;
use retort_lm::template::Message;
use retort_ops::models::{LoadedModel, Precision, load_file};

use super::pipeline::{PipelineArgs, answer, node};
use super::stop::{Ended, Result, Stop, say};
use crate::observe::words;
use crate::tuned;

/// Arguments of `chat`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node that trained the adapter
    #[arg(value_name = "NODE")]
    node: String,
    /// Talks to the base model, without the adapter
    #[arg(long)]
    base: bool,
    /// What the model is told before the first turn
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Divides the logits; at 0 the same question has the same answer
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    temperature: f32,
    /// What the model computes in: `int8` is several times as fast
    #[arg(long, value_parser = precision(), default_value = "f16", value_name = "PRECISION")]
    precision: Precision,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_tokens: usize,
    /// Seeds the draws
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// Names of precisions, as `precision:` of an operator has them.
pub(super) fn precision() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(["f16", "int8"]).map(|name| if name == "int8" { Precision::Int8 } else { Precision::F16 })
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let place = args.pipeline.look()?;
    let id = node(&loaded.graph, &args.node)?;
    let answer = answer(&args.pipeline, &loaded.graph, id, &place)?;
    let events = |_: &retort_engine::Event| ();
    let mut told = false;
    let mut progress = |_: u64, of: u64| {
        if !std::mem::replace(&mut told, true) {
            say(&format!("fetching the base model ({})", words::bytes(of)));
        }
        Ok::<(), Failure>(())
    };
    let tuned = tuned::open(loaded.graph.node(id), &answer, place.world(&events), &mut progress);
    place.save();
    let tuned = tuned.map_err(|error| Stop::failed(&error))?;
    let model = load_file(&tuned.weights, args.precision).map_err(|error| Stop::failed(&error))?;
    let adapter = (!args.base).then_some(&tuned.adapter);
    let interrupt = Interrupt::watch();
    let system = args.system.iter().map(|text| Message::new("system", text.clone()));
    Chat { args, model: &model, adapter, interrupt, messages: system.collect() }.talk()
}

/// Ctrl-C stops the answer that is being written, or leaves where none is.
struct Interrupt {
    writing: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

impl Interrupt {
    fn watch() -> Self {
        let this = Interrupt { writing: Arc::default(), stopped: Arc::default() };
        let (writing, stopped) = (this.writing.clone(), this.stopped.clone());
        let set = ctrlc::set_handler(move || {
            if !writing.load(Ordering::Relaxed) || stopped.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(Ended::INTERRUPTED.0));
            }
        });
        // Without a handler Ctrl-C leaves at once.
        let _ = set;
        this
    }
}

struct Chat<'a> {
    args: &'a Args,
    model: &'a LoadedModel,
    adapter: Option<&'a Adapter>,
    interrupt: Interrupt,
    messages: Vec<Message>,
}

impl Chat<'_> {
    fn talk(mut self) -> Result<Ended> {
        let attended = io::stdin().is_terminal();
        if attended {
            say("a line is a turn; /new forgets the conversation, /quit leaves, Ctrl-C stops an answer");
        }
        let mut line = String::new();
        loop {
            if attended {
                eprint_prompt();
            }
            line.clear();
            if io::stdin().lock().read_line(&mut line)? == 0 {
                return Ok(Ended::DONE);
            }
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(Ended::DONE),
                "/new" => self.messages.retain(|message| message.role == "system"),
                text => self.turn(text)?,
            }
        }
    }

    /// Asks, and writes the answer as it comes.
    fn turn(&mut self, text: &str) -> Result<()> {
        self.messages.push(Message::new("user", text));
        let request = self.request()?;
        let mut out = io::stdout().lock();
        let (mut answer, mut broken) = (String::new(), None);
        self.interrupt.writing.store(true, Ordering::Relaxed);
        let stopped = self.interrupt.stopped.clone();
        let mut on_event = |event: Event| {
            if let Event::Text { text, .. } = event {
                let text = if answer.is_empty() { text.trim_start() } else { text.as_str() };
                answer.push_str(text);
                if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                    broken = Some(error);
                    return Flow::Stop;
                }
            }
            if stopped.load(Ordering::Relaxed) { Flow::Stop } else { Flow::Continue }
        };
        let model = self.model;
        let written =
            generate(&model.model, &model.tokenizer, self.adapter, &[request], Limits::default(), &mut on_event);
        self.interrupt.writing.store(false, Ordering::Relaxed);
        self.interrupt.stopped.store(false, Ordering::Relaxed);
        if let Some(error) = broken {
            return Err(error.into());
        }
        match written {
            Ok(()) | Err(LmError::Cancelled) => writeln!(out)?,
            Err(error) => return Err(Stop::failed(&error)),
        }
        self.messages.push(Message::new("assistant", answer));
        Ok(())
    }

    /// The conversation as a prompt; its oldest turns are forgotten where it grew too long.
    fn request(&mut self) -> Result<Request> {
        let context = self.model.model.config().max_position_embeddings;
        loop {
            let prompt = self.model.tokenizer.encode_prompt(&self.model.template, &self.messages, true);
            let prompt = prompt.map_err(|error| Stop::failed(&error))?;
            if prompt.len() + self.args.max_tokens <= context {
                let repeat_penalty = 1.1;
                let sampling = Sampling { temperature: self.args.temperature, repeat_penalty, ..Sampling::default() };
                let (seed, max_tokens) = (self.args.seed, self.args.max_tokens);
                return Ok(Request {
                    prompt,
                    sampling,
                    seed,
                    max_tokens,
                    stop: Vec::new(),
                    guide: None,
                    repetition: 0,
                });
            }
            let first = self.messages.iter().position(|message| message.role != "system").unwrap_or_default();
            if first + 1 >= self.messages.len() {
                let message = format!("the turn has {} tokens, the model's context {context}", prompt.len());
                return Err(Stop::wrong(message).hint("`--max-tokens` leaves more room for it"));
            }
            let next = self.messages[first + 1..].iter().position(|message| message.role == "user");
            self.messages.drain(first..first + 1 + next.unwrap_or_default());
        }
    }
}

/// The mark that a turn is awaited; on standard error, so that the answers stand alone.
fn eprint_prompt() {
    let mut err = io::stderr().lock();
    // Nobody sees it.
    let _ = write!(err, "> ").and_then(|()| err.flush());
}

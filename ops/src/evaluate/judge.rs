//! A model that judges answers: does it say what the answer wanted says? A model that runs here can say nothing but yes or no; of what a server says the
//! first of these words counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use minijinja::{Environment, UndefinedBehavior, context};
use retort_engine::{Asset, Cx, Env, Failure, Problem};
use retort_lm::data::Pair;
use retort_lm::generate::Request;
use retort_lm::guide::{Grammar, Guide};
use retort_lm::sample::Sampling;
use retort_lm::template::Message;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::kept::Kept;
use super::report::Side;
use super::sitting::{Progress, write};
use crate::lora_train::failure;
use crate::models::{self, ModelRef, Precision, ServerModel};
use crate::server::{Ask, Client, Meter, ServerError, Stops};

/// What is asked where the pipeline says nothing else.
const PROMPT: &str = "\
You grade an exam. Does the student's answer say the same as the right answer? Other words are fine; facts that are wrong or missing are not.

Question: {{ question }}
Right answer: {{ answer }}
Student's answer: {{ output }}

Reply with one word, yes or no.";
/// The columns that a prompt may name.
const COLUMNS: [&str; 3] = ["question", "answer", "output"];
/// What a judge that runs here may say.
const VERDICTS: &str = "[Yy]es|[Nn]o";

/// A model that says of each answer whether it says what the table's does.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The model that judges, with weights or behind a server. One that answers well judges better than the one examined.
    pub model: ModelRef,
    /// What it is asked, as a template over `question`, `answer` (the table's) and `output` (the one to judge), such that `yes` or `no` answers it.
    #[serde(default = "prompt")]
    pub prompt: String,
    /// The longest verdict of a server, in tokens: one that thinks aloud needs more. The first `yes` or `no` in it counts.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
}

fn prompt() -> String {
    PROMPT.into()
}

fn max_tokens() -> usize {
    16
}

impl Judge {
    pub(super) fn asset(&self, env: &Env<'_>) -> Option<Asset> {
        Some(Asset { name: "judge".into(), ..self.model.asset(env)? })
    }

    /// Ready to judge.
    pub(super) fn build(&self, env: &Env<'_>) -> Result<Examining, Problem> {
        self.model.check("judge.model")?;
        if self.max_tokens == 0 {
            return Err(Problem::at_field("judge.max_tokens", "a verdict has at least one token"));
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_template_owned("prompt", self.prompt.clone()).map_err(|error| {
            let message = format!("not a template: {}", error.detail().unwrap_or("syntax error"));
            Problem::at_field("judge.prompt", message).in_line(error.line())
        })?;
        let template = environment.get_template("prompt").expect("added above");
        let named = template.undeclared_variables(false);
        if let Some(other) = named.iter().filter(|name| !COLUMNS.contains(&name.as_str())).min() {
            let problem = Problem::at_field("judge.prompt", format!("there is no `{other}`"));
            return Err(problem.hint("a judge is told `question`, `answer` and `output`"));
        }
        if !named.contains("output") {
            let problem = Problem::at_field("judge.prompt", "the answer to judge does not stand in it");
            return Err(problem.hint("`{{ output }}` stands for it"));
        }
        let source = match (self.model.server(), self.asset(env)) {
            (Some(server), _) => Source::Server(Meter::of(&server), server),
            (None, Some(asset)) => Source::Local(asset),
            (None, None) => return Err(Problem::at_field("judge.model", "a model needs `weights` or a `server`")),
        };
        Ok(Examining { environment, source, max_tokens: self.max_tokens })
    }
}

/// A judge that is ready.
pub(super) struct Examining {
    environment: Environment<'static>,
    source: Source,
    max_tokens: usize,
}

enum Source {
    Local(Asset),
    Server(Arc<Meter>, ServerModel),
}

impl Examining {
    /// Judges all answers of all models; the same answer to the same question is judged once.
    pub(super) fn judge(
        &self,
        asked: &[Pair],
        sides: &mut [Side],
        precision: Precision,
        progress: &mut Progress,
        cx: &Cx<'_>,
    ) -> Result<(), Failure> {
        let (mut numbers, mut prompts, mut places) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (at, side) in sides.iter().enumerate() {
            for (row, (pair, mark)) in asked.iter().zip(&side.marks).enumerate() {
                let Some(mark) = mark else { continue };
                let prompt = self.render(pair, &mark.output)?;
                let number = *numbers.entry(prompt).or_insert_with_key(|prompt: &String| {
                    prompts.push(prompt.clone());
                    prompts.len() - 1
                });
                places.push((at, row, number));
            }
        }
        progress.of = progress.done + prompts.len() as u64;
        let verdicts = match &self.source {
            Source::Local(asset) => local(asset, precision, &prompts, progress, cx)?,
            Source::Server(meter, server) => remote(server, meter, self.max_tokens, &prompts, progress, cx)?,
        };
        let none = verdicts.iter().filter(|verdict| verdict.is_none()).count();
        if none > 0 {
            cx.note(format!("of {none} of {} answers the judge said neither yes nor no", verdicts.len()));
        }
        for (at, row, number) in places {
            if let Some(judged) = &mut sides[at].judged {
                judged[row] = verdicts[number];
            }
        }
        Ok(())
    }

    fn render(&self, pair: &Pair, output: &str) -> Result<String, Failure> {
        let template = self.environment.get_template("prompt").expect("it was added");
        let values = context! { question => &*pair.question, answer => &*pair.answer, output => output.trim() };
        template.render(values).map_err(|error| Failure::op(format!("the judge's prompt cannot be rendered: {error}")))
    }
}

/// Verdicts of a model that runs here; none where the prompt does not fit.
fn local(
    asset: &Asset,
    precision: Precision,
    prompts: &[String],
    progress: &mut Progress,
    cx: &Cx<'_>,
) -> Result<Vec<Option<bool>>, Failure> {
    let loaded = models::load(asset, precision, cx)?;
    let guide = Guide::new(&Grammar::Regex(VERDICTS.into()), &loaded.tokenizer).map_err(failure)?;
    let (guide, context) = (Arc::new(guide), loaded.model.config().max_position_embeddings);
    let (mut requests, mut numbers) = (Vec::new(), Vec::new());
    for (number, prompt) in prompts.iter().enumerate() {
        let messages = [Message::new("user", prompt.as_str())];
        let prompt = loaded.tokenizer.encode_prompt(&loaded.template, &messages, true).map_err(failure)?;
        // As many letters as a verdict has: a token has at least one.
        let max_tokens = 3;
        if prompt.len() + max_tokens > context {
            progress.add(1, cx)?;
            continue;
        }
        numbers.push(number);
        requests.push(Request {
            prompt,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            seed: 0,
            max_tokens,
            stop: Vec::new(),
            guide: Some(Arc::clone(&guide)),
            repetition: 0,
        });
    }
    let said = write(&loaded, None, &requests, progress, cx)?;
    let mut verdicts = vec![None; prompts.len()];
    for (number, said) in numbers.into_iter().zip(said) {
        verdicts[number] = verdict(&said);
    }
    Ok(verdicts)
}

/// Verdicts of a server, asked several at a time; none where it says neither, or the prompt is too long for it.
fn remote(
    server: &ServerModel,
    meter: &Arc<Meter>,
    max_tokens: usize,
    prompts: &[String],
    progress: &mut Progress,
    cx: &Cx<'_>,
) -> Result<Vec<Option<bool>>, Failure> {
    let client = Client::new(server.clone(), Arc::clone(meter));
    let options = json!({"temperature": 0.0, "max_tokens": max_tokens});
    let options = options.as_object().expect("it is one");
    let kept = Kept::open(&cx.workspace()?);
    let asked: Vec<&String> = prompts.iter().filter(|prompt| kept.get(prompt).is_none()).collect();
    progress.add((prompts.len() - asked.len()) as u64, cx)?;
    let next = AtomicUsize::new(0);
    let state = Mutex::new(Judging { kept, progress, failure: None });
    let lock = || state.lock().expect("no thread panics while it holds the verdicts");
    let (stopped, left) = (|| cx.cancelled() || lock().failure.is_some(), || cx.cancelled());
    let work = || {
        while !stopped() {
            let Some(prompt) = asked.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let messages = [Message::new("user", prompt.as_str())];
            let ask = Ask { messages: &messages, options, seed: 0 };
            let said = client.complete(&ask, Stops { soon: &stopped, now: &left });
            let mut state = lock();
            let told = match said {
                Ok(completion) => {
                    cx.tokens(completion.prompt_tokens.unwrap_or(0), completion.output_tokens.unwrap_or(0));
                    state.take(prompt, verdict(&completion.text), cx)
                }
                Err(ServerError::TooLong(_)) => state.take(prompt, None, cx),
                Err(ServerError::Cancelled) => Err(Failure::Cancelled),
                Err(error) => Err(Failure::op(error)),
            };
            if let Err(failure) = told {
                state.failure.get_or_insert(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..client.parallel().min(asked.len()) {
            scope.spawn(work);
        }
    });
    let Judging { mut kept, failure, .. } = state.into_inner().expect("no thread panicked");
    kept.save()?;
    cx.check()?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(prompts.iter().map(|prompt| kept.get(prompt).flatten()).collect()),
    }
}

/// What the threads that ask a server share.
struct Judging<'a> {
    kept: Kept,
    progress: &'a mut Progress,
    failure: Option<Failure>,
}

impl Judging<'_> {
    /// Takes a verdict. It is kept whatever becomes of the rest.
    fn take(&mut self, prompt: &str, verdict: Option<bool>, cx: &Cx<'_>) -> Result<(), Failure> {
        self.kept.put(prompt, verdict)?;
        self.progress.add(1, cx)
    }
}

/// The first `yes` or `no` of a text, after what a model thought aloud.
fn verdict(said: &str) -> Option<bool> {
    let said = said.rsplit("</think>").next().unwrap_or(said).to_lowercase();
    said.split(|character: char| !character.is_alphanumeric()).find_map(|word| match word {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_verdict_counts_after_all_thoughts() {
        for (said, wanted) in [
            ("Yes", Some(true)),
            ("**No.** The answer says yes to all.", Some(false)),
            ("<think>No, wait: yes or no?</think>\nyes", Some(true)),
            ("I do not know, nobody does", None),
            ("", None),
        ] {
            assert_eq!(verdict(said), wanted, "{said}");
        }
    }
}

//! The inputs of `lora-train`, and the examples that phases and evaluations make of them.

use retort_engine::{Cx, Failure, Input, Inputs};
use retort_lm::data::{self, Amount, Counts, Examples, Pair};
use retort_lm::template::ChatTemplate;
use retort_lm::train::{EVAL, EvalSet, Form, Phase, Source, TrainConfig};

use super::{Held, LoraTrain, failure, pairs, texts};
use crate::models::LoadedModel;

/// The rows of the inputs.
pub(super) struct Tables {
    train: Vec<Pair>,
    text: Vec<[String; 1]>,
    replay: Vec<[String; 1]>,
    /// What evaluations ask, by the set's name.
    evals: Vec<(String, Asked)>,
}

/// What an evaluation asks.
enum Asked {
    Pairs(Vec<Pair>),
    Text(Vec<[String; 1]>),
}

impl Tables {
    pub(super) fn read(columns: &LoraTrain, inputs: &Inputs<Input>) -> Result<Self, Failure> {
        let pairs = |slot| match inputs.get(slot) {
            Some(input) => pairs(input, &columns.question, &columns.answer),
            None => Ok(Vec::new()),
        };
        let texts = |slot| match inputs.get(slot) {
            Some(input) => texts(input, [("text", &columns.text)]),
            None => Ok(Vec::new()),
        };
        let mut evals = vec![(EVAL.to_owned(), Asked::Pairs(pairs(EVAL)?))];
        for (name, held) in &columns.evals {
            let asked = match held {
                Held::Pairs => Asked::Pairs(pairs(name)?),
                Held::Text => Asked::Text(texts(name)?),
            };
            evals.push((name.clone(), asked));
        }
        Ok(Self { train: pairs("train")?, text: texts("text")?, replay: texts("replay")?, evals })
    }

    /// What each phase learns from.
    pub(super) fn examples(
        &self,
        loaded: &LoadedModel,
        config: &TrainConfig,
        cx: &Cx<'_>,
    ) -> Result<Vec<Examples>, Failure> {
        let context = loaded.model.config().max_position_embeddings;
        let mut all = Vec::with_capacity(config.phases.len());
        for phase in &config.phases {
            cx.check()?;
            if phase.max_length > context {
                let message = format!("`max_length` {} of phase `{}` is over", phase.max_length, phase.name);
                return Err(Failure::op(format!("{message} the model's context of {context} tokens")));
            }
            all.push(self.of_phase(loaded, phase)?);
        }
        Ok(all)
    }

    fn of_phase(&self, loaded: &LoadedModel, phase: &Phase) -> Result<Examples, Failure> {
        let own = self.of_source(loaded, phase, phase.data)?;
        if phase.mix.is_empty() || own.segments.is_empty() {
            return Ok(own);
        }
        let mut kinds = vec![(own, Amount::Passes(1.0))];
        for &(source, share) in &phase.mix {
            let kind = self.of_source(loaded, phase, source)?;
            if kind.segments.is_empty() {
                let (name, source, dropped) = (&phase.name, source.name(), kind.dropped);
                let message = format!("phase `{name}` mixes `{source}` in, which has no examples");
                return Err(Failure::op(format!("{message} ({dropped} were empty or too long)")));
            }
            kinds.push((kind, Amount::Share(share)));
        }
        Examples::mix(kinds).map_err(failure)
    }

    fn of_source(&self, loaded: &LoadedModel, phase: &Phase, source: Source) -> Result<Examples, Failure> {
        let tokenizer = &loaded.tokenizer;
        let texts =
            |texts: &[[String; 1]]| data::texts(tokenizer, texts.iter().map(|[text]| text.as_str()), phase.max_length);
        let examples = match source {
            Source::Text => texts(&self.text),
            Source::Replay => texts(&self.replay),
            Source::Pairs => in_form(loaded, phase.form, |template| {
                data::pairs(tokenizer, template, &self.train, phase.counts, phase.max_length)
            }),
        };
        examples.map_err(failure)
    }

    /// What each evaluation asks.
    pub(super) fn exams(
        &self,
        loaded: &LoadedModel,
        config: &TrainConfig,
        form: Form,
        cx: &Cx<'_>,
    ) -> Result<Vec<EvalSet>, Failure> {
        let longest = config.phases.iter().map(|phase| phase.max_length).max().unwrap_or(0);
        let mut sets = Vec::new();
        for (name, asked) in &self.evals {
            let examples = match asked {
                Asked::Pairs(pairs) => in_form(loaded, form, |template| {
                    data::pairs(&loaded.tokenizer, template, pairs, Counts::Answer, longest)
                }),
                Asked::Text(texts) => data::texts(&loaded.tokenizer, texts.iter().map(|[text]| text.as_str()), longest),
            };
            let Examples { segments, dropped, .. } = examples.map_err(failure)?;
            if dropped > 0 {
                let (of, kind) = asked.count();
                cx.note(format!("{name}: {dropped} of {of} {kind} dropped: empty, or over {longest} tokens"));
            }
            sets.push(EvalSet { name: name.clone(), segments });
        }
        let empty = |name: &String| sets.iter().all(|set| set.name != *name || set.segments.is_empty());
        let mut stopless: Vec<&String> =
            config.phases.iter().map(|phase| &phase.stop_on).filter(|name| empty(name)).collect();
        stopless.dedup();
        for name in stopless {
            cx.note(format!("nothing in `{name}`: no phase stops early on it, each keeps its last adapter"));
        }
        Ok(sets)
    }
}

impl Asked {
    /// How many, and of what.
    fn count(&self) -> (usize, &'static str) {
        match self {
            Self::Pairs(pairs) => (pairs.len(), "pairs"),
            Self::Text(texts) => (texts.len(), "texts"),
        }
    }
}

/// What `make` makes with the template of a form.
fn in_form<T>(
    loaded: &LoadedModel,
    form: Form,
    make: impl FnOnce(&ChatTemplate) -> Result<T, retort_lm::LmError>,
) -> Result<T, retort_lm::LmError> {
    match form {
        Form::Chat => make(&loaded.template),
        Form::Plain => make(&ChatTemplate::plain(&loaded.tokenizer)?),
    }
}

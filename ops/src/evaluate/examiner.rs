//! The operator: who sits the exam on which questions, one after the other, and what is written of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use retort_cache::{Digest, TableWriter};
use retort_engine::{Asset, Cx, Failure, Input, Inputs, Lineage, Problem, SlotSpec, TableOp};
use retort_lm::data::Pair;
use retort_lm::lora::Adapter;

use super::interval::Bootstrap;
use super::judge::Examining;
use super::report::{Exam, Shape, Side};
use super::sitting::{Paper, Progress, Sitting};
use super::{BASE, Candidate, Evaluate};
use crate::lora_train::{adapter, pairs, text_column, texts};
use crate::models::{self, LoadedModel};
use crate::stable::{self, Place};

pub(super) struct Examiner {
    /// The base's weights.
    pub(super) asset: Asset,
    pub(super) candidates: Vec<Candidate>,
    /// The weights of each candidate that has its own.
    pub(super) assets: Vec<Option<Asset>>,
    pub(super) judge: Option<Examining>,
    pub(super) config: Evaluate,
}

impl TableOp for Examiner {
    fn slots(&self) -> Vec<SlotSpec> {
        let mut slots = vec![SlotSpec::required("eval")];
        slots.extend(self.adapters().map(SlotSpec::required));
        slots.push(SlotSpec::optional("general"));
        slots
    }

    fn outputs(&self) -> Vec<String> {
        vec!["out".into(), "summary".into()]
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        stable::none_of(self.mistakes(inputs))?;
        let shape = self.shape(inputs.get("general").is_some());
        Ok(vec![shape.rows_schema(), shape.summary_schema()])
    }

    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(schema) = inputs.get("eval") {
            problems.extend(text_column("question", &self.config.question, schema).err());
            problems.extend(text_column("answer", &self.config.answer, schema).err());
        }
        if let Some(schema) = inputs.get("general") {
            problems.extend(text_column("text", &self.config.text, schema).err());
        }
        for slot in self.adapters() {
            if inputs.get(slot).is_some_and(|schema| !adapter::is_adapter(schema)) {
                let problem = Problem::new("type", format!("from.{slot}"), "the input is no adapter");
                problems.push(problem.hint("`lora-train` writes one on its port `adapter`"));
            }
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
        let eval = inputs.get("eval").ok_or_else(|| Failure::op("`eval` feeds it"))?;
        let asked = self.chosen(pairs(eval, &self.config.question, &self.config.answer)?);
        let general = inputs.get("general").map(|input| texts(input, [("text", &self.config.text)])).transpose()?;
        let general = general.map(|rows| rows.into_iter().map(|[text]| text).collect::<Vec<_>>());
        let sides = self.sides(inputs, &asked, general.as_deref(), cx)?;
        let config = &self.config;
        let bootstrap = Bootstrap { resamples: config.resamples, confidence: config.confidence, seed: config.seed };
        let exam = Exam { asked: &asked, sides: &sides, shape: &self.shape(general.is_some()), bootstrap };
        out[0].write(&exam.rows()?)?;
        out[1].write(&exam.summary()?)?;
        Ok(())
    }
}

impl Examiner {
    /// The inputs that hold adapters, each once.
    fn adapters(&self) -> impl Iterator<Item = &str> {
        let mut seen = BTreeSet::new();
        self.candidates.iter().filter_map(|one| one.adapter.as_deref()).filter(move |slot| seen.insert(*slot))
    }

    fn shape(&self, general: bool) -> Shape {
        let names = self.candidates.iter().map(|candidate| candidate.name.clone());
        Shape { models: [BASE.to_owned()].into_iter().chain(names).collect(), judged: self.judge.is_some(), general }
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

    /// All models' results: the base's first.
    fn sides(
        &self,
        inputs: &Inputs<Input>,
        asked: &[Pair],
        general: Option<&[String]>,
        cx: &Cx<'_>,
    ) -> Result<Vec<Side>, Failure> {
        let base = models::load(&self.asset, self.config.precision, cx)?;
        let paper = self.paper(BASE, &base, asked, cx)?;
        // A mistake in the last adapter must not come to light after hours.
        let mut entries = vec![(None, None)];
        for (candidate, own) in self.candidates.iter().zip(&self.assets) {
            let slot = candidate.adapter.as_deref();
            let table = slot.map(|slot| inputs.get(slot).ok_or_else(|| Failure::op(format!("`{slot}` feeds it"))));
            let loaded = match own {
                Some(asset) => &models::load(asset, self.config.precision, cx)?,
                None => &base,
            };
            let adapter = table.transpose()?.map(|table| self.adapter(own.as_ref(), loaded, table, cx)).transpose()?;
            entries.push((own.as_ref(), adapter));
        }
        let rounds = entries.len() + if self.judge.is_some() { entries.len() } else { 0 };
        let mut progress = Progress { done: 0, of: (rounds * asked.len()) as u64 };
        let mut sides = Vec::with_capacity(entries.len());
        for ((own, adapter), name) in entries.into_iter().zip(self.shape(false).models) {
            let other;
            let (loaded, paper) = match own {
                Some(asset) => {
                    let loaded = models::load(asset, self.config.precision, cx)?;
                    other = self.paper(&name, &loaded, asked, cx)?;
                    (loaded, &other)
                }
                None => (Arc::clone(&base), &paper),
            };
            let sitting = Sitting { config: &self.config, loaded, adapter };
            let marks = sitting.marks(paper, &mut progress, cx)?;
            let general = general.map(|texts| sitting.general(texts, cx)).transpose()?;
            let judged = self.judge.as_ref().map(|_| vec![None; asked.len()]);
            sides.push(Side { marks, general, judged, comparable: own.is_none() });
        }
        if let Some(judge) = &self.judge {
            judge.judge(asked, &mut sides, self.config.precision, &mut progress, cx)?;
        }
        Ok(sides)
    }

    fn paper(&self, name: &str, loaded: &LoadedModel, asked: &[Pair], cx: &Cx<'_>) -> Result<Paper, Failure> {
        let paper = Paper::new(loaded, asked, self.config.max_tokens)?;
        if paper.skipped() > 0 {
            let of = if name == BASE { String::new() } else { format!("{name}: ") };
            let (skipped, all) = (paper.skipped(), asked.len());
            cx.note(format!("{of}{skipped} of {all} questions are empty or leave no room for an answer"));
        }
        Ok(paper)
    }

    fn adapter(
        &self,
        own: Option<&Asset>,
        loaded: &LoadedModel,
        table: &Input,
        cx: &Cx<'_>,
    ) -> Result<Adapter, Failure> {
        let stored = adapter::read(table.batches()?, loaded.model.config())?;
        let base = cx.asset_digest(own.unwrap_or(&self.asset))?;
        if stored.base_sha256 != base {
            let message =
                format!("the adapter was trained on other weights ({}) than `model` names", stored.base_sha256);
            return Err(Failure::op(format!("{message} ({base})")));
        }
        Ok(stored.adapter)
    }
}

fn key(pair: &Pair) -> Digest {
    Digest::of("retort exam question 1", |hasher| {
        hasher.update(&(pair.question.len() as u64).to_le_bytes());
        hasher.update(pair.question.as_bytes()).update(pair.answer.as_bytes());
    })
}

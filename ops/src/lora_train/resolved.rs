//! The config of `lora-train` when every phase has inherited what it leaves out.

use std::collections::BTreeMap;

use retort_lm::data::{Batch, Counts};
use retort_lm::lora::{LoraConfig, Target};
use retort_lm::schedule::{Decay, Schedule, Warmup};
use retort_lm::train::{EVAL, Form, Phase, Source, Start, TrainConfig};
use schemars::JsonSchema;
use serde::Serialize;

use super::config::{LoraTrain, TrainPrecision};
use super::phase::{Beginning, Curve, Held, Loss, Material, Mix, PhaseConfig, Template};
use super::targets::Targets;
use crate::models::ModelRef;

/// The config with nothing left out: what becomes facts, so that a default spelled out changes none.
#[derive(Serialize, JsonSchema)]
pub(super) struct Resolved {
    model: ModelRef,
    rank: usize,
    alpha: f64,
    dropout: f64,
    rslora: bool,
    dora: bool,
    lora_plus: f64,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
    targets: Targets,
    precision: TrainPrecision,
    seed: u64,
    pub(super) phases: Vec<ResolvedPhase>,
    evals: BTreeMap<String, Held>,
    /// How evaluations ask.
    exam: Template,
    weight_decay: f64,
    max_grad_norm: f64,
    max_tokens_per_pass: usize,
    question: String,
    answer: String,
    text: String,
}

/// A phase with nothing left out.
#[derive(Serialize, JsonSchema)]
pub(super) struct ResolvedPhase {
    pub(super) name: String,
    data: Material,
    mix: Mix,
    start: Beginning,
    /// None where there are no pairs.
    loss: Option<Loss>,
    /// None where there are no pairs.
    template: Option<Template>,
    epochs: u64,
    max_steps: Option<u64>,
    max_tokens: Option<u64>,
    learning_rate: f64,
    schedule: Curve,
    warmup_steps: Option<u64>,
    /// None where `warmup_steps` is said.
    warmup_ratio: Option<f64>,
    min_ratio: f64,
    /// None where `batch_tokens` is said.
    batch: Option<usize>,
    batch_tokens: Option<usize>,
    max_length: usize,
    eval_every: u64,
    patience: u64,
    min_gain: f64,
    pub(super) stop_on: String,
}

impl From<LoraTrain> for Resolved {
    fn from(config: LoraTrain) -> Self {
        let top = config.top();
        let phases = config.phases.clone().unwrap_or_else(|| vec![PhaseConfig::default()]);
        let phases: Vec<ResolvedPhase> = phases.iter().map(|phase| phase.resolve(&top)).collect();
        let last = phases.iter().rev().find_map(|phase| phase.template);
        Self {
            exam: last.or(top.template).unwrap_or_default(),
            alpha: config.alpha.unwrap_or(2.0 * config.rank as f64),
            model: config.model,
            rank: config.rank,
            dropout: config.dropout,
            rslora: config.rslora,
            dora: config.dora,
            lora_plus: config.lora_plus,
            rank_pattern: config.rank_pattern,
            alpha_pattern: config.alpha_pattern,
            targets: config.targets,
            precision: config.precision,
            seed: config.seed,
            phases,
            evals: config.evals,
            weight_decay: config.weight_decay,
            max_grad_norm: config.max_grad_norm,
            max_tokens_per_pass: config.max_tokens_per_pass,
            question: config.question,
            answer: config.answer,
            text: config.text,
        }
    }
}

impl PhaseConfig {
    /// What it comes to under what the top level says.
    fn resolve(&self, top: &Self) -> ResolvedPhase {
        // Either of two keys in the phase puts both of the top level out.
        let warm = if self.warmup_steps.or(self.warmup_ratio.map(|_| 0)).is_some() { self } else { top };
        let batch = if self.batch.or(self.batch_tokens).is_some() { self } else { top };
        let named = match self.data {
            Material::Text => "text",
            Material::Pairs => "pairs",
            Material::Replay => "replay",
        };
        let schedule = self.schedule.or(top.schedule).unwrap_or_default();
        let mut max_steps = self.max_steps.or(top.max_steps);
        let mut epochs = self.epochs.or(top.epochs).unwrap_or(3);
        let mut learning_rate = self.learning_rate.or(top.learning_rate).unwrap_or(2e-4);
        if schedule == Curve::Find {
            // As many passes as the steps need; and up to a rate that is too high, not to the one to train with.
            let steps = *max_steps.get_or_insert(100);
            epochs = self.epochs.unwrap_or(steps);
            learning_rate = self.learning_rate.or(top.learning_rate.filter(|_| self.schedule.is_none())).unwrap_or(0.1);
        }
        ResolvedPhase {
            name: self.name.clone().unwrap_or_else(|| named.to_owned()),
            data: self.data,
            mix: self.mix,
            start: self.start,
            loss: self.has_pairs().then(|| self.loss.or(top.loss).unwrap_or_default()),
            template: self.has_pairs().then(|| self.template.or(top.template).unwrap_or_default()),
            epochs,
            max_steps,
            max_tokens: self.max_tokens.or(top.max_tokens),
            learning_rate,
            schedule,
            warmup_steps: warm.warmup_steps,
            warmup_ratio: if warm.warmup_steps.is_some() { None } else { Some(warm.warmup_ratio.unwrap_or(0.05)) },
            min_ratio: self.min_ratio.or(top.min_ratio).unwrap_or(0.0),
            batch: if batch.batch_tokens.is_some() { None } else { Some(batch.batch.unwrap_or(8)) },
            batch_tokens: batch.batch_tokens,
            max_length: self.max_length.or(top.max_length).unwrap_or(1024),
            eval_every: self.eval_every.or(top.eval_every).unwrap_or(0),
            patience: self.patience.or(top.patience).unwrap_or(2),
            min_gain: self.min_gain.or(top.min_gain).unwrap_or(0.0),
            stop_on: self.stop_on.as_ref().or(top.stop_on.as_ref()).map_or_else(|| EVAL.to_owned(), Clone::clone),
        }
    }
}

impl Material {
    fn source(self) -> Source {
        match self {
            Self::Text => Source::Text,
            Self::Pairs => Source::Pairs,
            Self::Replay => Source::Replay,
        }
    }
}

impl Template {
    fn form(self) -> Form {
        match self {
            Self::Chat => Form::Chat,
            Self::Plain => Form::Plain,
        }
    }
}

impl Resolved {
    /// How evaluations ask.
    pub(super) fn exam(&self) -> Form {
        self.exam.form()
    }

    /// What training is told.
    pub(super) fn train_config(self) -> TrainConfig {
        let (targets, only) = match self.targets {
            Targets::Named(targets) => (targets, None),
            Targets::Pattern(regex) => (Target::ALL.to_vec(), Some(regex)),
        };
        TrainConfig {
            lora: LoraConfig {
                rank: self.rank,
                alpha: self.alpha as f32,
                dropout: self.dropout as f32,
                rslora: self.rslora,
                dora: self.dora,
                targets,
                only,
                rank_pattern: self.rank_pattern,
                alpha_pattern: self.alpha_pattern.into_iter().map(|(name, alpha)| (name, alpha as f32)).collect(),
            },
            lora_plus: self.lora_plus as f32,
            phases: self.phases.into_iter().map(ResolvedPhase::phase).collect(),
            weight_decay: self.weight_decay as f32,
            max_grad_norm: self.max_grad_norm as f32,
            seed: self.seed,
            max_tokens_per_pass: self.max_tokens_per_pass,
        }
    }
}

impl ResolvedPhase {
    fn phase(self) -> Phase {
        let decay = match self.schedule {
            Curve::Cosine => Decay::Cosine,
            Curve::Linear => Decay::Linear,
            Curve::Constant => Decay::Constant,
            Curve::Find => Decay::Find,
        };
        let warmup = match (self.warmup_steps, self.warmup_ratio) {
            (Some(steps), _) => Warmup::Steps(steps),
            (None, ratio) => Warmup::Ratio(ratio.unwrap_or(0.0)),
        };
        Phase {
            name: self.name,
            data: self.data.source(),
            mix: self
                .mix
                .shares()
                .into_iter()
                .filter(|(.., share)| *share > 0.0)
                .map(|(_, data, share)| (data.source(), share))
                .collect(),
            start: match self.start {
                Beginning::Continue => Start::Continue,
                Beginning::Merge => Start::Merge,
            },
            counts: match self.loss.unwrap_or_default() {
                Loss::Answer => Counts::Answer,
                Loss::All => Counts::All,
            },
            form: self.template.unwrap_or_default().form(),
            epochs: self.epochs,
            max_steps: self.max_steps,
            max_tokens: self.max_tokens,
            schedule: Schedule { peak: self.learning_rate, warmup, decay, min_ratio: self.min_ratio },
            batch: match (self.batch_tokens, self.batch) {
                (Some(tokens), _) => Batch::Tokens(tokens),
                (None, sequences) => Batch::Sequences(sequences.unwrap_or(1)),
            },
            max_length: self.max_length,
            eval_every: self.eval_every,
            patience: self.patience,
            min_gain: self.min_gain,
            stop_on: self.stop_on,
        }
    }
}

//! The training loop, read from top to bottom: phases, evaluation, early stopping, the best checkpoint.
//!
//! A phase goes over its examples with its own schedule and a fresh optimizer. It begins with the adapter that the phase
//! before it ended with (or freezes that and begins another, see `joined.rs`), and ends with its own best: the one with
//! the lowest loss on the evaluation set that it stops on, not the last.
//! Where the phase learns from pairs, the adapter it began with may win too; plain text is not what the evaluation set
//! asks about, so there the first evaluation is the mark to beat.
//!
//! Losses are sums over target tokens, divided once a step by the step's targets: a batch that goes through the model in
//! several passes gives what it would give in one. Every number is a function of the model, the config, the examples and
//! the evaluation set; a run that was cut and goes on from its checkpoint ends with the same bits.

mod checkpoint;
mod config;
mod course;
mod find;
mod guard;
mod joined;
mod judge;
mod kept;
mod recipe;
mod replicas;
mod state;

pub use checkpoint::Checkpoint;
pub use config::{EVAL, EvalSet, Form, Phase, Source, Start, TrainConfig};
pub use judge::{evaluate, losses};
pub use recipe::kept_keys;
pub use replicas::{Pass, Passed, Replicas};
pub use state::Metric;

use std::path::PathBuf;

use crate::LmError;
use crate::data::{Examples, Step};
use crate::gradient::{LossSum, Segment};
use crate::kernels::MorePages;
use crate::lora::{Adapter, Grads};
use crate::model::Model;
use crate::optim::{clip, scale};
use checkpoint::Place;
use course::Course;
use find::Search;
use joined::of_the_new;
use replicas::stretches;
use state::{Best, State};

/// What training gives.
#[derive(Debug)]
pub struct Trained {
    /// The best adapter of the last phase.
    pub adapter: Adapter,
    /// A row a step, and one at the start of each phase.
    pub metrics: Vec<Metric>,
}

/// How far training is, told after each step.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Steps done; those that a stopped phase spared count as done.
    pub done: u64,
    /// Steps of all phases, if none stops early.
    pub of: u64,
    /// The newest row.
    pub metric: &'a Metric,
    /// Tokens that went through the model for it, evaluations aside.
    pub read: u64,
    /// Tokens that are still to go through it, if no phase stops early.
    pub left: u64,
    /// Whether the row is of an earlier run that this one goes on from.
    pub replayed: bool,
}

/// Is told of each row. Its error (such as [`LmError::Cancelled`]) ends training, after the state was saved.
pub type Watch<'a> = dyn FnMut(Progress<'_>) -> Result<(), LmError> + 'a;

/// Trains an adapter of `model` through the phases of `config`, each with its own of `data`. Where the set that a
/// phase stops on is empty or not there, it does not stop early and ends with its last adapter. With a checkpoint, a run that was cut goes on.
///
/// # Errors
///
/// If the config makes no sense, a phase has no examples, the loss stops being a number, the checkpoint cannot be
/// written, or `watch` says so.
pub fn train(
    model: &Model,
    config: &TrainConfig,
    data: &[Examples],
    evals: &[EvalSet],
    checkpoint: Option<&Checkpoint>,
    watch: &mut Watch<'_>,
) -> Result<Trained, LmError> {
    train_across(model, model, config, data, evals, checkpoint, watch)
}

/// As [`train`], with `replicas` of the model to take the passes: the same bits, whoever they are.
///
/// # Errors
///
/// As [`train`], and as [`Replicas::take`]; what was done by then is in the checkpoint.
pub fn train_across(
    replicas: &dyn Replicas,
    model: &Model,
    config: &TrainConfig,
    data: &[Examples],
    evals: &[EvalSet],
    checkpoint: Option<&Checkpoint>,
    watch: &mut Watch<'_>,
) -> Result<Trained, LmError> {
    config.check(data, evals)?;
    let _pages = (!model.is_lean()).then(MorePages::keep);
    let run = Run { replicas, ..Run::new(model, config, data, evals, checkpoint) };
    let mut state = match run.found()? {
        Some(state) => run.replay(state, watch)?,
        None => State::start(model, config)?,
    };
    while state.phase < config.phases.len() {
        run.phase(&mut state, watch)?;
    }
    let metrics = std::mem::take(&mut state.metrics);
    Ok(Trained { adapter: state.into_whole(model)?, metrics })
}

/// What does not change while training runs.
struct Run<'a> {
    replicas: &'a dyn Replicas,
    model: &'a Model,
    config: &'a TrainConfig,
    data: &'a [Examples],
    evals: &'a [EvalSet],
    /// What each phase does.
    courses: Vec<Course>,
    checkpoint: Option<&'a Checkpoint>,
    /// Where its own state lies.
    own: Option<Place>,
    /// For each phase, where its end is kept for others.
    kept: Vec<Option<Place>>,
}

impl<'a> Run<'a> {
    fn new(
        model: &'a Model,
        config: &'a TrainConfig,
        data: &'a [Examples],
        evals: &'a [EvalSet],
        checkpoint: Option<&'a Checkpoint>,
    ) -> Self {
        let phases = config.phases.iter().zip(data).zip(0..);
        let courses = phases.map(|((phase, data), at)| Course::of(phase, data, config.seed, at)).collect();
        let (mut own, mut kept) = (None, Vec::new());
        if let Some(checkpoint) = checkpoint {
            let recipe = recipe::whole(model, config, data, evals);
            let place = |folder: &PathBuf, of: String| Place {
                folder: folder.clone(),
                recipe: of,
                writer: recipe.chars().take(16).collect(),
            };
            let keys = if checkpoint.kept.is_empty() { Vec::new() } else { kept_keys(model, config, data, evals) };
            kept = checkpoint.kept.iter().zip(keys).map(|(folder, key)| Some(place(folder.as_ref()?, key?))).collect();
            own = Some(place(&checkpoint.folder, recipe.clone()));
        }
        Self { replicas: model, model, config, data, evals, courses, checkpoint, own, kept }
    }

    /// One phase, from where `state` stands to the beginning of the next.
    fn phase(&self, state: &mut State, watch: &mut Watch<'_>) -> Result<(), LmError> {
        if state.phase_step == 0 {
            self.begin(state, watch)?;
        }
        let mut read = 0;
        while !self.is_over(state) {
            read = self.step(state, watch)?;
        }
        if !state.finished {
            self.finish(state, read, watch)?;
        }
        state.next_phase(self.model, self.config)
    }

    /// Whether the phase has no more steps to do.
    fn is_over(&self, state: &State) -> bool {
        state.stopped || state.phase_step >= self.courses[state.phase].steps.len()
    }

    /// One step; gives how many tokens it read. The row of a phase's last is told by what finishes the phase.
    fn step(&self, state: &mut State, watch: &mut Watch<'_>) -> Result<u64, LmError> {
        let (phase, course) = (&self.config.phases[state.phase], &self.courses[state.phase]);
        let (step, read) = (&course.steps[state.phase_step], course.reads[state.phase_step]);
        let rate = phase.schedule.rate(state.phase_step as u64, course.steps.len() as u64);
        let (loss, mut grads) = match self.gradients(state, step) {
            Ok(both) => both,
            // Another process went away, say.
            Err(error) => {
                self.save(state)?;
                return Err(error);
            }
        };
        scale(&mut grads, 1.0 / loss.tokens.max(1) as f32);
        let norm = clip(&mut grads, self.config.max_grad_norm);
        let mut row = state.row(&phase.name, step.epoch, rate);
        row.step += 1;
        row.tokens += loss.tokens;
        (row.loss, row.grad_norm) = (loss.mean(), Some(norm));
        match guard::check(&row, phase) {
            Ok(()) => state.optimizer.step(&mut state.adapter, &grads, rate),
            // A search goes on until the rate is too high.
            Err(_) if phase.is_search() && state.phase_step > 0 => {
                (row.loss, row.grad_norm) = (None, None);
                state.stopped = true;
            }
            Err(error) => {
                self.save(state)?;
                return Err(error);
            }
        }
        state.phase_step += 1;
        (state.step, state.tokens) = (row.step, row.tokens);

        let due = phase.is_due(state.phase_step as u64, step.ends_epoch);
        if due {
            self.judge(state, phase, &mut row)?;
        }
        state.metrics.push(row);
        if phase.is_search() {
            state.stopped |= Search::of(&state.metrics, &phase.name).is_over();
        }
        if self.is_over(state) {
            self.keep(state)?;
        } else {
            self.report(state, read, due, watch)?;
        }
        Ok(read)
    }

    /// The evaluation that ends a phase, where the last step had none, and why it ended.
    fn finish(&self, state: &mut State, read: u64, watch: &mut Watch<'_>) -> Result<(), LmError> {
        let (phase, course) = (&self.config.phases[state.phase], &self.courses[state.phase]);
        let mut row = state.metrics.pop().expect("a phase has a step");
        if !phase.is_search() && !phase.is_due(state.phase_step as u64, course.steps[state.phase_step - 1].ends_epoch) {
            self.judge(state, phase, &mut row)?;
        }
        if !state.stopped {
            row.add_note(course.ended());
        }
        state.metrics.push(row);
        let found = phase.is_search().then(|| Search::of(&state.metrics, &phase.name).told(state.stopped));
        let kept = found.unwrap_or_else(|| state.kept(phase));
        state.metrics.iter_mut().last().expect("just pushed").add_note(kept);
        state.finished = true;
        self.report(state, read, true, watch)
    }

    /// The row before a phase's first step: what there is to learn from, and the loss to improve on.
    fn begin(&self, state: &mut State, watch: &mut Watch<'_>) -> Result<(), LmError> {
        let (phase, data) = (&self.config.phases[state.phase], &self.data[state.phase]);
        let rate = phase.schedule.rate(0, self.courses[state.phase].steps.len() as u64);
        let mut row = state.row(&phase.name, 0.0, rate);
        row.add_note(data.told());
        if data.dropped > 0 {
            row.add_note(format!("{} dropped: empty, or over {} tokens", data.dropped, phase.max_length));
        }
        if phase.is_search() {
            // What it gives back.
            state.best = Some(Best { loss: 0.0, step: state.step, adapter: state.adapter.clone() });
        } else {
            self.examine(state, phase, &mut row)?;
        }
        if let (Source::Pairs, Some(loss)) = (phase.data, row.loss_on(&phase.stop_on)) {
            state.best = Some(Best { loss, step: state.step, adapter: state.adapter.clone() });
            state.mark = Some(loss);
        }
        state.metrics.push(row);
        self.report(state, 0, false, watch)
    }

    /// The summed loss of a step and the gradients of that sum, pass by pass.
    fn gradients(&self, state: &State, step: &Step) -> Result<(LossSum, Grads), LmError> {
        let data = &self.data[state.phase].segments;
        let whole = state.whole(self.model)?;
        let segments: Vec<Segment> = step.segments.iter().map(|&at| data[at].clone()).collect();
        let stretches = (0..).zip(stretches(&segments, self.config.max_tokens_per_pass));
        let passes: Vec<Pass<'_>> = stretches
            .map(|(pass, stretch)| {
                let dropout = (self.config.lora.dropout > 0.0)
                    .then(|| self.config.seed.wrapping_add(state.step << 24).wrapping_add(pass));
                Pass { segments: &segments[stretch], dropout }
            })
            .collect();
        let (mut sum, mut grads) = (LossSum::default(), None::<Grads>);
        self.replicas.take(&whole, &passes, true, &mut |passed| {
            passed.losses.into_iter().for_each(|loss| sum.add(loss));
            match (&mut grads, passed.grads) {
                (Some(grads), Some(more)) => grads.add(&more),
                (grads, more) => *grads = more,
            }
        })?;
        let grads = grads.unwrap_or_else(|| whole.zero_grads());
        Ok((sum, if state.merged.is_some() { of_the_new(&whole, &state.adapter, grads) } else { grads }))
    }

    /// Tells the watcher of the newest row, and saves the state where it is time or the watcher ends the run.
    fn report(&self, state: &State, read: u64, save: bool, watch: &mut Watch<'_>) -> Result<(), LmError> {
        let told = watch(Progress { read, ..self.progress(state, state.metrics.len() - 1, false) });
        if save || told.is_err() || self.checkpoint.is_some_and(|checkpoint| checkpoint.due(state.step)) {
            self.save(state)?;
        }
        told
    }

    /// Saves the state, if there is a place for it. A phase that has done no step begins again.
    fn save(&self, state: &State) -> Result<(), LmError> {
        match &self.own {
            Some(own) if state.phase_step > 0 => own.save(state, self.courses[state.phase].steps.len()),
            _ => Ok(()),
        }
    }

    /// Tells the watcher again what was told before the run was cut; not the last row of a phase that is still to be finished.
    fn replay(&self, state: State, watch: &mut Watch<'_>) -> Result<State, LmError> {
        let open = usize::from(self.is_over(&state) && !state.finished);
        for row in 0..state.metrics.len() - open {
            watch(self.progress(&state, row, true))?;
        }
        Ok(state)
    }

    fn progress<'s>(&self, state: &'s State, row: usize, replayed: bool) -> Progress<'s> {
        let steps = |course: &Course| course.steps.len();
        let before: usize = self.courses[..state.phase].iter().map(steps).sum();
        let spared = if state.stopped { steps(&self.courses[state.phase]) } else { state.phase_step };
        let of = self.courses.iter().map(steps).sum::<usize>() as u64;
        let own = &self.courses[state.phase].reads[spared..];
        let left = self.courses[state.phase + 1..].iter().flat_map(|course| &course.reads).chain(own).sum();
        Progress { done: (before + spared) as u64, of, metric: &state.metrics[row], read: 0, left, replayed }
    }
}

#[cfg(test)]
mod tests;

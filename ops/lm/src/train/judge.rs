//! What an adapter is held to while it learns: losses on held-out examples, the best so far, patience.

use crate::LmError;
use crate::gradient::{LossSum, Segment};
use crate::lora::Adapter;
use crate::model::Model;
use crate::train::replicas::{Pass, stretches};
use crate::train::state::{Best, State};
use crate::train::{EVAL, Metric, Phase, Run, guard};

/// The loss of each segment, at most `max_tokens` tokens (or one segment) at a time. It has the same bits whatever
/// `max_tokens` is.
///
/// # Errors
///
/// As [`Model::loss`].
pub fn losses(
    model: &Model,
    adapter: Option<&Adapter>,
    segments: &[Segment],
    max_tokens: usize,
) -> Result<Vec<LossSum>, LmError> {
    let mut losses = Vec::with_capacity(segments.len());
    for stretch in stretches(segments, max_tokens) {
        losses.extend(model.loss(adapter, &segments[stretch])?);
    }
    Ok(losses)
}

/// The mean loss a target token over all segments; none without targets.
///
/// # Errors
///
/// As [`Model::loss`].
pub fn evaluate(
    model: &Model,
    adapter: Option<&Adapter>,
    segments: &[Segment],
    max_tokens: usize,
) -> Result<Option<f64>, LmError> {
    let mut sum = LossSum::default();
    losses(model, adapter, segments, max_tokens)?.into_iter().for_each(|loss| sum.add(loss));
    Ok(sum.mean())
}

impl Run<'_> {
    /// Asks the adapter as it stands, and refuses losses that are no numbers.
    pub(super) fn examine(&self, state: &State, phase: &Phase, row: &mut Metric) -> Result<(), LmError> {
        let whole = state.whole(self.model)?;
        for set in self.evals {
            let stretches = stretches(&set.segments, self.config.max_tokens_per_pass);
            let passes: Vec<Pass<'_>> =
                stretches.map(|stretch| Pass { segments: &set.segments[stretch], dropout: None }).collect();
            let mut sum = LossSum::default();
            self.replicas.take(&whole, &passes, false, &mut |passed| {
                passed.losses.into_iter().for_each(|loss| sum.add(loss));
            })?;
            let loss = sum.mean();
            match loss {
                _ if set.name == EVAL => row.eval_loss = loss,
                Some(loss) => _ = row.other_losses.insert(set.name.clone(), loss),
                None => {}
            }
        }
        guard::check(row, phase)
    }

    /// Evaluates, keeps the adapter if it is the best, and stops the phase when its patience is over.
    pub(super) fn judge(&self, state: &mut State, phase: &Phase, row: &mut Metric) -> Result<(), LmError> {
        self.examine(state, phase, row)?;
        let Some(loss) = row.loss_on(&phase.stop_on) else { return Ok(()) };
        if state.best.as_ref().is_none_or(|best| loss < best.loss) {
            state.best = Some(Best { loss, step: state.step, adapter: state.adapter.clone() });
        }
        if state.mark.is_none_or(|mark| loss < mark - phase.min_gain) {
            state.mark = Some(loss);
            state.waited = 0;
        } else {
            state.waited += 1;
            if phase.patience > 0 && state.waited >= phase.patience {
                state.stopped = true;
                row.add_note(format!("stopped: no gain in {} evaluations", state.waited));
            }
        }
        Ok(())
    }
}

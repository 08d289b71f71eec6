//! What an adapter is held to while it learns: losses on held-out examples, the best so far, patience.

use crate::LmError;
use crate::data::passes;
use crate::gradient::{LossSum, Segment};
use crate::lora::Adapter;
use crate::model::Model;
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
    let mut rest = segments;
    for count in passes(segments.iter().map(|segment| segment.tokens.len()), max_tokens) {
        let (pass, after) = rest.split_at(count);
        losses.extend(model.loss(adapter, pass)?);
        rest = after;
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
        let max_tokens = self.config.max_tokens_per_pass;
        let whole = state.whole(self.model)?;
        for set in self.evals {
            let loss = evaluate(self.model, Some(&whole), &set.segments, max_tokens)?;
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

//! Training goes on from no number that is not finite: it says which, of which step, and what to do.

use crate::LmError;
use crate::train::{Metric, Phase};

/// Refuses a row of the log in which something is not finite.
pub(crate) fn check(row: &Metric, phase: &Phase) -> Result<(), LmError> {
    let named = [("loss", row.loss), ("norm of the gradients", row.grad_norm), ("loss on `eval`", row.eval_loss)];
    let bad = |value: &Option<f64>| value.is_some_and(|value| !value.is_finite());
    let Some((name, value)) = named.into_iter().find(|(_, value)| bad(value)) else {
        return Ok(());
    };
    let value = value.unwrap_or(f64::NAN);
    let step = row.step;
    let phase = &phase.name;
    Err(LmError::Argument(match (row.loss, row.eval_loss) {
        (None, _) if step == 0 => format!(
            "train: before the first step of phase `{phase}` the {name} is {value}: the base model's weights are at fault, \
             or `eval` is"
        ),
        (None, _) => format!(
            "train: at the beginning of phase `{phase}` (after step {step}) the {name} is {value}; a smaller `learning_rate` \
             in the phase before may help"
        ),
        (Some(_), None) => format!(
            "train: in step {step} (phase `{phase}`) the {name} is {value}, so the step was not made; a smaller \
             `learning_rate` or `max_grad_norm`, or a longer warm-up, may help"
        ),
        (Some(_), Some(_)) => format!(
            "train: after step {step} (phase `{phase}`) the {name} is {value}, so the state before it is kept; a smaller \
             `learning_rate` or `max_grad_norm`, or a longer warm-up, may help"
        ),
    }))
}

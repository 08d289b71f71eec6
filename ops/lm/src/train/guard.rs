//! Training goes on from no number that is not finite: it says which, of which step, and what to do.

use crate::LmError;
use crate::train::{EVAL, Metric, Phase};

/// Refuses a row of the log in which something is not finite.
pub(crate) fn check(row: &Metric, phase: &Phase) -> Result<(), LmError> {
    let of_step = [("loss".to_owned(), row.loss), ("norm of the gradients".to_owned(), row.grad_norm)];
    let of_sets =
        [(EVAL, row.eval_loss)].into_iter().chain(row.other_losses.iter().map(|(set, &loss)| (&**set, Some(loss))));
    let of_sets = of_sets.map(|(set, loss)| (format!("loss on `{set}`"), loss));
    let mut named = of_step.into_iter().chain(of_sets).filter_map(|(name, value)| Some((name, value?)));
    let Some((name, value)) = named.find(|(_, value)| !value.is_finite()) else { return Ok(()) };
    let (step, phase) = (row.step, &phase.name);
    let smaller = "a smaller `learning_rate` or `max_grad_norm`, or a longer warm-up, may help";
    Err(LmError::Argument(match row.loss {
        None if step == 0 => format!(
            "train: before the first step of phase `{phase}` the {name} is {value}: the base model's weights are at fault, or \
             the set is"
        ),
        None => format!(
            "train: at the beginning of phase `{phase}` (after step {step}) the {name} is {value}; a smaller `learning_rate` \
             in the phase before may help"
        ),
        Some(loss) if loss.is_finite() && row.grad_norm.is_none_or(f64::is_finite) => {
            format!(
                "train: after step {step} (phase `{phase}`) the {name} is {value}, so what was saved before it is kept; {smaller}"
            )
        }
        Some(_) => format!(
            "train: in step {step} (phase `{phase}`) the {name} is {value}, so the step was not made; {smaller}"
        ),
    }))
}

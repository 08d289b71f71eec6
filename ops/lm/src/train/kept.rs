//! What a training leaves to others that begin as it does: its state at the end of each phase.
//!
//! The digest in such a file covers all that decides how the phase goes but for how long, see `recipe.rs`; so whoever has the same does the same steps, as
//! long as the learning rate of each step is the same too. That is compared here, rate by rate: on a constant schedule it is, however many steps
//! follow. The state is that before the evaluation that ends a phase, which a longer one does not have there.

use crate::LmError;
use crate::train::Run;
use crate::train::state::State;

impl Run<'_> {
    /// The state to go on from: this training's own, or that of one which began alike and is not ahead.
    pub(super) fn found(&self) -> Result<Option<State>, LmError> {
        if let Some(own) = &self.own
            && let Some((state, _)) = own.load(self.model, self.config)?
        {
            return Ok(Some(state));
        }
        for (at, place) in self.kept.iter().enumerate().rev() {
            let Some(place) = place else { continue };
            let Some((state, steps)) = place.load(self.model, self.config)? else { continue };
            let done = state.phase_step;
            let ahead = done > self.courses[at].steps.len();
            if state.phase == at && done > 0 && !ahead && self.same_rates(at, done, steps) {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Keeps the state at the end of a phase for others, unless one that is as good is there.
    pub(super) fn keep(&self, state: &State) -> Result<(), LmError> {
        let Some(Some(place)) = self.kept.get(state.phase) else { return Ok(()) };
        let there = place.reached()?;
        if there
            .is_some_and(|(done, of)| done >= state.phase_step && self.same_rates(state.phase, state.phase_step, of))
        {
            return Ok(());
        }
        place.save(state, self.courses[state.phase].steps.len())
    }

    /// Whether the first `done` steps of phase `at` have the learning rates that they have where there are `of` steps in all.
    fn same_rates(&self, at: usize, done: usize, of: usize) -> bool {
        let (schedule, steps) = (&self.config.phases[at].schedule, self.courses[at].steps.len() as u64);
        (0..done as u64).all(|step| schedule.rate(step, steps) == schedule.rate(step, of as u64))
    }
}

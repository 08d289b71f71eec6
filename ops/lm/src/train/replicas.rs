//! Who takes the passes of a step through the model: this process, or several that hold the same weights.
//!
//! Sums are made here, in the order of the passes, so who took which makes no difference to the last bit.

use std::ops::Range;

use crate::LmError;
use crate::data::passes;
use crate::gradient::{LossSum, Segment};
use crate::lora::{Adapter, Grads};
use crate::model::Model;

/// Segments that go through the model at once.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// At least one.
    pub segments: &'a [Segment],
    /// What the adapter's dropout is a function of; none for none.
    pub dropout: Option<u64>,
}

/// What comes of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// The loss of each segment.
    pub losses: Vec<LossSum>,
    /// Gradients of their sum, where they were asked for.
    pub grads: Option<Grads>,
}

/// Copies of one base model, in this process and perhaps in others.
pub trait Replicas {
    /// Takes all passes through the base with `adapter` on it and tells of each, in their order; with gradients if `learns`.
    ///
    /// # Errors
    ///
    /// As [`Model::gradients`] and [`Model::loss`]; or if another process cannot be reached, or the person asked to stop.
    fn take(
        &self,
        adapter: &Adapter,
        passes: &[Pass<'_>],
        learns: bool,
        each: &mut dyn FnMut(Passed),
    ) -> Result<(), LmError>;
}

impl Replicas for Model {
    fn take(
        &self,
        adapter: &Adapter,
        passes: &[Pass<'_>],
        learns: bool,
        each: &mut dyn FnMut(Passed),
    ) -> Result<(), LmError> {
        for &pass in passes {
            each(self.pass(adapter, pass, learns)?);
        }
        Ok(())
    }
}

impl Model {
    /// Takes one pass; with gradients if `learns`.
    ///
    /// # Errors
    ///
    /// As [`Model::gradients`] and [`Model::loss`].
    pub fn pass(&self, adapter: &Adapter, pass: Pass<'_>, learns: bool) -> Result<Passed, LmError> {
        if learns {
            let (losses, grads) = self.gradients(adapter, pass.segments, pass.dropout)?;
            return Ok(Passed { losses, grads: Some(grads) });
        }
        Ok(Passed { losses: self.loss(Some(adapter), pass.segments)?, grads: None })
    }
}

/// The stretches of `segments` that go through at once: at most `max_tokens` tokens, or one segment.
pub(crate) fn stretches(segments: &[Segment], max_tokens: usize) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    passes(segments.iter().map(|segment| segment.tokens.len()), max_tokens).into_iter().map(move |count| {
        end += count;
        end - count..end
    })
}

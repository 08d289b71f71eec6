//! Two adapters as one: what was learnt before, frozen, and what is learnt now.
//!
//! Folding an adapter into the base and beginning a new one gives weights `W + s₁·B₁A₁ + s₂·B₂A₂`. One adapter holds both updates: the
//! rows of `A₁` above those of `A₂`, the columns of `B₁` beside those of `B₂`, at the scale of the new one. So nothing is rounded into the
//! base's weights, and what comes out is still one adapter of the base that everybody has. With DoRA the weights are no such sum.

use crate::LmError;
use crate::config::Config;
use crate::kernels::Buffer;
use crate::lora::{Adapter, AdapterTensor, Grads, LoraConfig, Place};

/// `before` and `now` as one adapter.
pub(crate) fn join(model: &Config, before: &Adapter, now: &Adapter) -> Result<Adapter, LmError> {
    let (mut places, mut tensors) = (Vec::new(), Vec::new());
    let pairs = |adapter: &'_ Adapter| adapter.tensors().as_chunks::<2>().0.to_vec();
    let both = before.places().iter().zip(pairs(before)).zip(now.places().iter().zip(pairs(now)));
    for ((old, [old_a, old_b]), (new, [new_a, new_b])) in both {
        let place = Place {
            rank: old.rank + new.rank,
            alpha: alpha(now.config(), new.alpha, new.rank, old.rank),
            ..new.clone()
        };
        let rslora = now.config().rslora;
        let scaling = place.scaling(rslora);
        let (by_old, by_new) = (old.scaling(rslora) / scaling, new.scaling(rslora) / scaling);
        let mut a = old_a.values;
        a.extend(new_a.values);
        let mut b = Vec::with_capacity(new_b.shape[0] * place.rank);
        for (old_row, new_row) in old_b.values.chunks_exact(old.rank).zip(new_b.values.chunks_exact(new.rank)) {
            b.extend(old_row.iter().map(|value| value * by_old));
            b.extend(new_row.iter().map(|value| value * by_new));
        }
        tensors.push(AdapterTensor { name: new_a.name, shape: [place.rank, new_a.shape[1]], values: a });
        tensors.push(AdapterTensor { name: new_b.name, shape: [new_b.shape[0], place.rank], values: b });
        places.push(place);
    }
    let (old, new) = (before.config(), now.config());
    let config = LoraConfig {
        rank: old.rank + new.rank,
        alpha: alpha(new, new.alpha, new.rank, old.rank),
        // The places say it.
        rank_pattern: [].into(),
        alpha_pattern: [].into(),
        ..new.clone()
    };
    Adapter::from_tensors(model, &config, places, tensors)
}

/// What of the gradients of `whole`, joined of something and `now`, is of `now`.
pub(crate) fn of_the_new(whole: &Adapter, now: &Adapter, grads: Grads) -> Grads {
    let rslora = now.config().rslora;
    let mut own = Vec::with_capacity(grads.tensors.len());
    let mut tensors = grads.tensors.into_iter();
    for (place, new) in whole.places().iter().zip(now.places()) {
        let (Some(a), Some(b)) = (tensors.next(), tensors.next()) else { break };
        let old_rank = place.rank - new.rank;
        let by_new = new.scaling(rslora) / place.scaling(rslora);
        let inputs = a.len() / place.rank;
        own.push(Buffer::from_slice(&a[old_rank * inputs..]));
        let b: Vec<f32> =
            b.chunks_exact(place.rank).flat_map(|row| &row[old_rank..]).map(|value| value * by_new).collect();
        own.push(Buffer::from_slice(&b));
    }
    Grads { tensors: own }
}

/// The alpha by which an update of a larger rank has the scale of one of `rank`.
fn alpha(config: &LoraConfig, alpha: f32, rank: usize, more: usize) -> f32 {
    let times = (rank + more) as f64 / rank as f64;
    (f64::from(alpha) * if config.rslora { times.sqrt() } else { times }) as f32
}

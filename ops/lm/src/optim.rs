//! AdamW and gradient clipping, with moments that can be saved: a cut run goes on to the same bits.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::kernels::Buffer;
use crate::lora::{Adapter, Grads};

/// The optimizer's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Memory of the first moment.
    pub beta1: f32,
    /// Memory of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Share of each weight, times the learning rate, that a step takes away.
    pub weight_decay: f32,
    /// What the learning rate of all tensors but `A` is multiplied with: LoRA+ (Hayou et al., arXiv 2402.12354).
    pub plus: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, plus: 1.0 }
    }
}

/// Adam with decoupled weight decay and bias correction (Loshchilov and Hutter, arXiv 1711.05101), as PyTorch has it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    /// What a checkpoint keeps.
    pub(crate) state: AdamState,
}

/// What the optimizer remembers between steps.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamState {
    /// Steps taken.
    pub steps: u64,
    /// Running means of the gradients, laid out as the adapter's tensors.
    pub first: Vec<Vec<f32>>,
    /// Running means of their squares.
    pub second: Vec<Vec<f32>>,
}

impl AdamW {
    /// A fresh optimizer of an adapter: moments are zero.
    pub fn new(config: AdamWConfig, adapter: &Adapter) -> Self {
        let zeros = || adapter.tensors().iter().map(|tensor| vec![0.0; tensor.values.len()]).collect();
        Self { config, state: AdamState { steps: 0, first: zeros(), second: zeros() } }
    }

    /// Begins anew, in the memory that it has.
    pub(crate) fn restart(&mut self) {
        let AdamState { steps, first, second } = &mut self.state;
        *steps = 0;
        first.par_iter_mut().chain(second).for_each(|moments| moments.fill(0.0));
    }

    /// Goes on from what was remembered.
    pub fn resume(config: AdamWConfig, state: AdamState) -> Self {
        Self { config, state }
    }

    /// One step against `grads` at learning rate `rate`. Each number's way depends on its own gradients only.
    ///
    /// # Panics
    ///
    /// If the gradients are of another adapter.
    pub fn step(&mut self, adapter: &mut Adapter, grads: &Grads, rate: f64) {
        let state = &mut self.state;
        state.steps += 1;
        let corrected = |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(state.steps).unwrap_or(i32::MAX));
        let update = |rate: f64| Update {
            config: self.config,
            size: (rate / corrected(self.config.beta1)) as f32,
            root: corrected(self.config.beta2).sqrt() as f32,
            keep: (1.0 - rate * f64::from(self.config.weight_decay)) as f32,
        };
        let (slow, fast) = (update(rate), update(rate * f64::from(self.config.plus)));
        let updates: Vec<&Update> =
            adapter.tensors().iter().map(|tensor| if tensor.is_a() { &slow } else { &fast }).collect();
        let values: Vec<&mut [f32]> = adapter.values_mut().collect();
        assert!(values.len() == grads.tensors.len() && values.len() == state.first.len(), "gradients of this adapter");
        let moments = state.first.par_iter_mut().zip(&mut state.second);
        let tensors = values.into_par_iter().zip(updates).zip(&grads.tensors).zip(moments);
        tensors.for_each(|(((values, update), grads), (first, second))| {
            update.apply(values, grads, first, second);
        });
    }
}

/// What one step does to each number.
struct Update {
    config: AdamWConfig,
    size: f32,
    root: f32,
    keep: f32,
}

impl Update {
    fn apply(&self, values: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32]) {
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.config;
        assert!(values.len() == grads.len() && values.len() == first.len(), "gradients of this adapter");
        let moments = first.iter_mut().zip(second);
        for ((value, &grad), (first, second)) in values.iter_mut().zip(grads).zip(moments) {
            *first += (1.0 - beta1) * (grad - *first);
            *second = beta2 * *second + (1.0 - beta2) * grad * grad;
            let root = second.sqrt() / self.root + epsilon;
            *value = *value * self.keep - self.size * *first / root;
        }
    }
}

/// Multiplies all gradients with `by`.
pub fn scale(grads: &mut Grads, by: f32) {
    grads.tensors.par_iter_mut().for_each(|tensor| tensor.iter_mut().for_each(|value| *value *= by));
}

/// Scales the gradients down to a norm of `max_norm`, if it is above 0 and they are longer; gives their norm before:
/// the root of the sum of all squares, summed in `f64`, tensor by tensor.
pub fn clip(grads: &mut Grads, max_norm: f32) -> f64 {
    let squares = |tensor: &Buffer<f32>| tensor.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    let sums: Vec<f64> = grads.tensors.par_iter().map(squares).collect();
    let norm = sums.iter().sum::<f64>().sqrt();
    if max_norm > 0.0 && norm > f64::from(max_norm) {
        scale(grads, (f64::from(max_norm) / norm) as f32);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::{LoraConfig, Target};
    use crate::testing::tiny_config;

    fn adapter() -> Adapter {
        let lora = LoraConfig { rank: 2, alpha: 4.0, targets: vec![Target::QProj], ..LoraConfig::default() };
        Adapter::init(&tiny_config(), &lora, 1).unwrap()
    }

    /// Sets every number of the adapter.
    fn filled(value: f32) -> Adapter {
        let mut adapter = adapter();
        adapter.values_mut().for_each(|values| values.fill(value));
        adapter
    }

    fn grads_of(adapter: &Adapter, value: f32) -> Grads {
        let mut grads = adapter.zero_grads();
        grads.tensors.iter_mut().for_each(|tensor| tensor.fill(value));
        grads
    }

    #[test]
    fn three_steps_are_pytorchs() {
        // torch.optim.AdamW([torch.tensor([0.5])], lr=0.01, weight_decay=0.1), gradients 0.3, -0.2, 0.05.
        let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let mut adapter = filled(0.5);
        let mut optimizer = AdamW::new(config, &adapter);
        for (grad, expected) in EXPECTED {
            let grads = grads_of(&adapter, grad);
            optimizer.step(&mut adapter, &grads, 0.01);
            for value in adapter.values_mut().flatten() {
                assert!((*value - expected).abs() < 1e-7, "{value} {expected}");
            }
        }
    }

    /// Gradient, and the value after it.
    const EXPECTED: [(f32, f32); 3] = [(0.3, 0.489_500_02), (-0.2, 0.487_565_3), (0.05, 0.485_093)];

    #[test]
    fn lora_plus_moves_b_so_many_times_as_far_as_a() {
        let mut adapter = filled(0.0);
        let mut optimizer = AdamW::new(AdamWConfig { plus: 16.0, ..AdamWConfig::default() }, &adapter);
        let grads = grads_of(&adapter, 0.3);
        optimizer.step(&mut adapter, &grads, 0.01);
        for tensor in adapter.tensors() {
            let expected = if tensor.name.contains("lora_A") { -0.01 } else { -0.16 };
            assert!(tensor.values.iter().all(|value| (value - expected).abs() < 1e-6), "{}", tensor.name);
        }
    }

    #[test]
    fn a_resumed_optimizer_goes_on_to_the_same_bits() {
        let mut straight = adapter();
        let mut optimizer = AdamW::new(AdamWConfig::default(), &straight);
        let grads = grads_of(&straight, 0.1);
        optimizer.step(&mut straight, &grads, 0.01);
        let mut resumed = straight.clone();
        let mut again = AdamW::resume(AdamWConfig::default(), optimizer.state.clone());
        optimizer.step(&mut straight, &grads, 0.01);
        again.step(&mut resumed, &grads, 0.01);
        assert_eq!(straight.tensors(), resumed.tensors());
    }

    #[test]
    fn long_gradients_are_cut_and_short_ones_are_not() {
        let adapter = adapter();
        let n = adapter.parameters() as f64;
        let mut grads = grads_of(&adapter, 0.5);
        assert!((clip(&mut grads, 0.0) - 0.5 * n.sqrt()).abs() < 1e-9);
        assert_eq!(grads, grads_of(&adapter, 0.5), "0 is no limit");
        assert!((clip(&mut grads, 2.0) - 0.5 * n.sqrt()).abs() < 1e-9);
        assert!((clip(&mut grads, 3.0) - 2.0).abs() < 1e-6, "cut to 2");
        assert!((clip(&mut grads, 3.0) - 2.0).abs() < 1e-6, "and not lengthened to 3");
    }
}

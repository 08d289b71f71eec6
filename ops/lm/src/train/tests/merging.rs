//! Phases that merge what was learnt before and begin anew.

use super::*;
use crate::config::Config;
use crate::kernels::Precision;
use crate::lora::Adapter;
use crate::testing::{random, tiny_config};
use crate::train::joined::{join, of_the_new};

/// Patterns and rsLoRA, so that nothing is the same everywhere.
fn lora(rslora: bool) -> LoraConfig {
    let rank_pattern = [("q_proj".to_owned(), 5), (r"layers\.1\.mlp\..*".to_owned(), 2)].into();
    LoraConfig { rank: 3, alpha: 7.0, rslora, rank_pattern, ..LoraConfig::default() }
}

fn somewhere(model: &Config, lora: &LoraConfig, seed: u64) -> Adapter {
    let mut adapter = Adapter::init(model, lora, seed).unwrap();
    for (at, values) in adapter.values_mut().enumerate() {
        let fresh = random(values.len(), seed + at as u64);
        values.iter_mut().zip(fresh).for_each(|(value, fresh)| *value = 0.2 * fresh);
    }
    adapter
}

/// The tiny model, `adapter` folded into its weights in single floats.
fn folded(adapter: &Adapter) -> Model {
    let mut seed = 0;
    let model = Model::build(&tiny_config(), Precision::F32, |name, shape| {
        seed += 1;
        let size = shape.iter().product();
        let mut values: Vec<f32> = match shape {
            [_, inputs] => random(size, seed).iter().map(|v| v * 1.7 / (*inputs as f32).sqrt()).collect(),
            _ => random(size, seed).iter().map(|v| 1.0 + 0.3 * v).collect(),
        };
        let pairs = adapter.places().iter().zip(adapter.tensors().as_chunks::<2>().0);
        for (place, [a, b]) in pairs.filter(|(place, _)| name == format!("{}.weight", place.path)) {
            let scaling = place.scaling(adapter.config().rslora);
            for (at, value) in values.iter_mut().enumerate() {
                let (row, column) = (at / a.shape[1], at % a.shape[1]);
                let products =
                    (0..place.rank).map(|r| b.values[row * place.rank + r] * a.values[r * a.shape[1] + column]);
                *value += scaling * products.sum::<f32>();
            }
        }
        Ok(values)
    });
    model.unwrap()
}

#[test]
fn joined_is_what_folding_into_the_base_gives() {
    let (model, config) = (tiny_model(), tiny_config());
    for rslora in [false, true] {
        let (one, two, three) = (
            somewhere(&config, &lora(rslora), 10),
            somewhere(&config, &lora(rslora), 500),
            somewhere(&config, &lora(rslora), 900),
        );
        let before = join(&config, &one, &two).unwrap();
        let whole = join(&config, &before, &three).unwrap();
        assert_eq!((before.places()[0].rank, whole.places()[0].rank, whole.config().rank), (10, 15, 9));
        let folded = folded(&before);
        let segments = counting(5, 1, 4);
        let (expected, by_three) = folded.gradients(&three, &segments, None).unwrap();
        let (losses, by_all) = model.gradients(&whole, &segments, None).unwrap();
        for (loss, expected) in losses.iter().zip(&expected) {
            assert!((loss.nll / expected.nll - 1.0).abs() < 1e-4, "{} {}", loss.nll, expected.nll);
        }
        let own = of_the_new(&whole, &three, by_all);
        for (own, (expected, tensor)) in own.tensors.iter().zip(by_three.tensors.iter().zip(three.tensors())) {
            let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            assert_eq!(own.len(), expected.len());
            for (own, expected) in own.iter().zip(expected) {
                assert!((own - expected).abs() < 1e-3 * largest, "{}: {own} {expected}", tensor.name);
            }
        }
    }
}

fn merging() -> TrainConfig {
    let second = Phase { start: Start::Merge, eval_every: 2, patience: 9, ..phase("second", 2) };
    let third = Phase { start: Start::Merge, data: Source::Text, ..phase("third", 1) };
    TrainConfig { lora: lora(false), weight_decay: 0.1, ..config(vec![phase("first", 1), second, third]) }
}

fn data() -> [Examples; 3] {
    [examples(counting(24, 1, 1)), examples(counting(24, 1, 2)), examples(counting(16, 1, 3))]
}

#[test]
fn what_is_merged_stays_to_the_bit_while_a_new_adapter_learns() {
    let model = tiny_model();
    let mut config = merging();
    let whole = train(&model, &config, &data(), &held_out(), None, &mut quiet).unwrap();
    let kept = evaluate(&model, Some(&whole.adapter), &held_out()[0].segments, 1000).unwrap();
    assert_eq!(kept, whole.metrics.last().unwrap().eval_loss, "what comes out is what was evaluated");
    let losses = evals(&whole.metrics);
    assert!(kept.unwrap() < losses[0] - 0.5, "{losses:?}");
    config.phases.truncate(1);
    let first = train(&model, &config, &data()[..1], &held_out(), None, &mut quiet).unwrap();
    assert_eq!(first.metrics[..], whole.metrics[..first.metrics.len()]);
    let pairs = |adapter: &Adapter| adapter.tensors().as_chunks::<2>().0.to_vec();
    let mut differ = 0;
    for ([a, b], ([old_a, old_b], place)) in
        pairs(&whole.adapter).iter().zip(pairs(&first.adapter).iter().zip(first.adapter.places()))
    {
        assert_eq!(a.shape[0], 3 * place.rank);
        assert_eq!(a.values[..old_a.values.len()], old_a.values[..], "{}", a.name);
        let columns: Vec<f32> = b.values.chunks(3 * place.rank).flat_map(|row| &row[..place.rank]).copied().collect();
        assert_eq!(columns, old_b.values, "{}", b.name);
        differ += usize::from(a.values[old_a.values.len()..2 * old_a.values.len()] != old_a.values[..]);
    }
    assert_eq!(differ, first.adapter.places().len(), "a new adapter begins elsewhere");
}

#[test]
fn a_merging_run_that_was_cut_goes_on_to_the_same_bits() {
    let config = merging();
    let whole = train(&tiny_model(), &config, &data(), &held_out(), None, &mut quiet).unwrap();
    for cut in [3, 6, 7, 12, 18, 19, 22] {
        assert_same(&stopped_after(cut, 1, &config, &data(), &held_out()).0, &whole, &format!("cut after {cut}"));
    }
}

#[test]
fn what_no_adapter_can_hold_is_refused() {
    let refused =
        |config: TrainConfig| train(&tiny_model(), &config, &data(), &[], None, &mut quiet).unwrap_err().to_string();
    let mut config = merging();
    config.lora.dora = true;
    assert!(refused(config.clone()).starts_with("phase `second` cannot merge: with DoRA"));
    (config.lora.dora, config.lora.dropout) = (false, 0.1);
    assert!(refused(config.clone()).contains("`dropout`"));
    config.lora.dropout = 0.0;
    config.phases[0].start = Start::Merge;
    assert_eq!(refused(config), "phase `first` cannot merge: there is no adapter before the first phase");
}

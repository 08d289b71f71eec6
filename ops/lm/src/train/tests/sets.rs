//! Several evaluation sets.

use super::*;

/// Counting by one as `eval`, by two as `other`.
fn sets() -> Vec<EvalSet> {
    let mut sets = held_out();
    sets.push(EvalSet { name: "other".into(), segments: counting(8, 2, 98) });
    sets
}

/// A phase that learns to count by two, so that `eval` gets worse and `other` better.
fn by_two(stop_on: &str) -> Phase {
    Phase { eval_every: 2, patience: 3, stop_on: stop_on.into(), ..phase("two", 6) }
}

#[test]
fn a_phase_stops_on_the_set_that_it_names() {
    let model = tiny_model();
    let data = [examples(counting(40, 2, 2))];
    let of = |phase: Phase| train(&model, &config(vec![phase]), &data, &sets(), None, &mut quiet).unwrap();
    let (by_eval, by_other) = (of(by_two(EVAL)), of(by_two("other")));
    let losses = |trained: &Trained| -> Vec<f64> {
        trained.metrics.iter().filter_map(|row| row.other_losses.get("other").copied()).collect()
    };
    let note = |trained: &Trained| trained.metrics.last().unwrap().note.clone().unwrap();
    assert!(note(&by_eval).contains("stopped: no gain in 3 evaluations; kept step "), "{}", note(&by_eval));
    assert!(by_eval.metrics.len() < by_other.metrics.len());
    assert_eq!(losses(&by_other).len(), 1 + 60 / 2, "each set at each evaluation");
    let best = losses(&by_other).into_iter().fold(f64::INFINITY, f64::min);
    assert!(note(&by_other).contains(&format!("(loss on `other` {best:.4})")), "{}", note(&by_other));
    let kept = evaluate(&model, Some(&by_other.adapter), &sets()[1].segments, 1000).unwrap().unwrap();
    assert_eq!(kept, best, "the best on `other` is kept");
    for (one, two) in by_eval.metrics.iter().zip(&by_other.metrics) {
        assert_eq!((one.eval_loss, &one.other_losses), (two.eval_loss, &two.other_losses));
    }
}

#[test]
fn other_sets_change_nothing_but_what_is_told() {
    let (model, data) = (tiny_model(), [examples(counting(24, 1, 1))]);
    let config = config(vec![phase("count", 2)]);
    let of = |sets: &[EvalSet]| train(&model, &config, &data, sets, None, &mut quiet).unwrap();
    let (one, two) = (of(&held_out()), of(&sets()));
    assert_eq!(one.adapter.tensors(), two.adapter.tensors());
    for (one, mut two) in one.metrics.into_iter().zip(two.metrics) {
        assert_eq!(two.other_losses.len(), usize::from(two.eval_loss.is_some()));
        two.other_losses.clear();
        assert_eq!(one, two);
    }
}

#[test]
fn several_sets_go_on_to_the_same_bits_and_unknown_ones_are_named() {
    let data = [examples(counting(40, 2, 2))];
    let config = config(vec![Phase { max_steps: Some(9), ..by_two("other") }]);
    let whole = train(&tiny_model(), &config, &data, &sets(), None, &mut quiet).unwrap();
    assert_same(&stopped_after(5, 0, &config, &data, &sets()).0, &whole, "cut after 5");
    let error = train(&tiny_model(), &config, &data, &held_out(), None, &mut quiet).unwrap_err().to_string();
    assert_eq!(error, "phase `two` stops on `other`, and no evaluation set is called so");
}

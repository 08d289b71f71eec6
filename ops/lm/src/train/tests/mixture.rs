//! Phases of several kinds of examples.

use super::*;
use crate::data::Amount;

/// Pairs and, as a quarter of all tokens, something else.
fn mixed(share: f64) -> Examples {
    let (own, other) = (examples(counting(20, 1, 1)), examples(counting(30, 2, 2)));
    Examples::mix(vec![(own, Amount::Passes(1.0)), (other, Amount::Share(share))]).unwrap()
}

fn in_mixture() -> TrainConfig {
    config(vec![Phase { mix: vec![(Source::Text, 0.25)], eval_every: 3, patience: 9, ..phase("both", 4) }])
}

#[test]
fn a_mixture_learns_both_and_says_what_it_takes() {
    let model = tiny_model();
    let (one, two) = (counting(8, 1, 99), counting(8, 2, 98));
    let mut config = in_mixture();
    config.phases[0].epochs = 8;
    let learnt = |data: Examples, exam: &[Segment]| {
        let trained = train(&model, &config, &[data], &[], None, &mut quiet).unwrap();
        let note = trained.metrics[0].note.clone().unwrap();
        (evaluate(&model, Some(&trained.adapter), exam, 1000).unwrap().unwrap(), note)
    };
    let (alone, note) = learnt(examples(counting(20, 1, 1)), &two);
    assert!(note.starts_with("20 sequences, "), "{note}");
    let (replayed, note) = learnt(mixed(0.25), &two);
    assert!(note.starts_with("an epoch takes 20.0 of 20 and 6.") && note.ends_with(" of 30 sequences"), "{note}");
    assert!(replayed < alone - 0.2, "{replayed} {alone}");
    let start = evaluate(&model, None, &one, 1000).unwrap().unwrap();
    assert!(learnt(mixed(0.25), &one).0 < start - 0.5);
}

#[test]
fn a_mixture_that_was_cut_goes_on_to_the_same_bits() {
    let (model, config, data, eval) = (tiny_model(), in_mixture(), [mixed(0.25)], held_out());
    let whole = train(&model, &config, &data, &eval, None, &mut quiet).unwrap();
    let steps = whole.metrics.last().unwrap().step;
    for (cut, every) in [(1, 0), (7, 3), (13, 0), (steps, 0)] {
        let (resumed, replayed) = stopped_after(cut, every, &config, &data, &eval);
        assert_same(&resumed, &whole, &format!("cut after {cut}"));
        assert!(replayed > cut, "it did go on");
    }
}

#[test]
fn a_checkpoint_of_another_mixture_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::new(folder.path(), 1);
    let (model, config) = (tiny_model(), in_mixture());
    train(&model, &config, &[mixed(0.25)], &[], Some(&checkpoint), &mut quiet).unwrap();
    let replays = |share: f64| {
        let mut replayed = false;
        let mut watch = |progress: Progress<'_>| {
            replayed |= progress.replayed;
            Err(LmError::Cancelled)
        };
        train(&model, &config, &[mixed(share)], &[], Some(&checkpoint), &mut watch).unwrap_err();
        replayed
    };
    assert!(!replays(0.2), "the same segments, otherwise mixed");
    assert!(replays(0.25));
}

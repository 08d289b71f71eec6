//! Trainings that go on from the end of others.

use std::path::Path;

use super::*;

fn steady(name: &str, epochs: u64) -> Phase {
    let schedule = Schedule { peak: 0.01, warmup: Warmup::Steps(3), decay: Decay::Constant, min_ratio: 0.0 };
    Phase { schedule, ..phase(name, epochs) }
}

fn data() -> Vec<Examples> {
    vec![examples(counting(24, 1, 1)), examples(counting(28, 1, 2))]
}

/// Trains with the ends of phases kept in `heritage`; gives the number of the step after which it went on, too.
fn trained(heritage: &Path, config: &TrainConfig) -> (Trained, u64) {
    let (model, data) = (tiny_model(), data());
    let data = &data[..config.phases.len()];
    let own = tempfile::tempdir().unwrap();
    let folder = |key: Option<String>| key.map(|key| heritage.join(key));
    let kept = kept_keys(&model, config, data, &held_out()).into_iter().map(folder).collect();
    let checkpoint = Checkpoint { kept, ..Checkpoint::new(own.path(), 0) };
    let (mut after, mut told) = (0, Vec::new());
    let mut watch = |progress: Progress<'_>| {
        after = if progress.replayed { progress.metric.step } else { after };
        told.push(progress.metric.clone());
        Ok(())
    };
    let trained = train(&model, config, data, &held_out(), Some(&checkpoint), &mut watch).unwrap();
    assert_eq!(told, trained.metrics, "each row is told once, as it is");
    (trained, after)
}

fn from_scratch(config: &TrainConfig) -> Trained {
    let data = data();
    train(&tiny_model(), config, &data[..config.phases.len()], &held_out(), None, &mut quiet).unwrap()
}

#[test]
fn more_epochs_go_on_from_the_last_to_the_same_bits() {
    // Evaluations at the ends of epochs, and in between, where the end of the shorter one is none of the longer one's.
    for (eval_every, patience) in [(0, 0), (5, 0), (5, 9)] {
        let folder = tempfile::tempdir().unwrap();
        let of = |epochs| config(vec![Phase { eval_every, patience, ..steady("count", epochs) }]);
        let (first, after) = trained(folder.path(), &of(2));
        assert_same(&first, &from_scratch(&of(2)), "two epochs");
        assert_eq!(after, 0);
        for (epochs, expected) in [(3, 12), (3, 17), (5, 18), (4, 0), (6, 30)] {
            let (longer, after) = trained(folder.path(), &of(epochs));
            assert_same(&longer, &from_scratch(&of(epochs)), &format!("{epochs} epochs, evaluated every {eval_every}"));
            assert_eq!(after, expected, "{epochs} epochs");
        }
    }
}

#[test]
fn more_steps_and_tokens_go_on_too() {
    let folder = tempfile::tempdir().unwrap();
    let of = |max_steps, max_tokens| config(vec![Phase { max_steps, max_tokens, ..steady("count", 9) }]);
    trained(folder.path(), &of(Some(4), None));
    for config in [of(Some(9), None), of(None, Some(900)), of(None, None)] {
        let (longer, after) = trained(folder.path(), &config);
        assert!(after > 2, "{after}");
        assert_same(&longer, &from_scratch(&config), "longer");
    }
}

#[test]
fn a_schedule_that_knows_its_end_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut cosine = config(vec![phase("count", 2), phase("again", 1)]);
    trained(folder.path(), &cosine);
    cosine.phases[0].epochs = 3;
    assert_eq!(trained(folder.path(), &cosine).1, 0);
    let mut risen = config(vec![steady("count", 2)]);
    risen.phases[0].schedule.warmup = Warmup::Ratio(0.2);
    trained(folder.path(), &risen);
    risen.phases[0].epochs = 4;
    let (longer, after) = trained(folder.path(), &risen);
    assert_eq!(after, 0, "the warm-up is longer");
    assert_same(&longer, &from_scratch(&risen), "anew");
}

#[test]
fn another_second_phase_does_not_cost_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(vec![phase("first", 2), phase("second", 1)]);
    trained(folder.path(), &config);
    config.phases[1].schedule.peak = 0.02;
    let (other, after) = trained(folder.path(), &config);
    assert_eq!(after, 11, "the first phase but its last row");
    assert_same(&other, &from_scratch(&config), "another second phase");
    config.phases[1].start = Start::Merge;
    config.lora.dropout = 0.0;
    assert_eq!(trained(folder.path(), &config).1, 0, "another adapter altogether");
    config.phases[1].epochs = 2;
    let (other, after) = trained(folder.path(), &config);
    assert_eq!(after, 11);
    assert_same(&other, &from_scratch(&config), "merged");
}

#[test]
fn a_phase_that_patience_ended_stays_ended() {
    let folder = tempfile::tempdir().unwrap();
    // Learning to count by 2 makes the loss of counting by 1 worse.
    let of = |epochs| config(vec![Phase { eval_every: 2, patience: 3, ..steady("wrong", epochs) }]);
    let wrong = [examples(counting(40, 2, 2))];
    let run = |config: &TrainConfig| {
        let model = tiny_model();
        let own = tempfile::tempdir().unwrap();
        let keys = kept_keys(&model, config, &wrong, &held_out());
        let kept = keys.into_iter().map(|key| key.map(|key| folder.path().join(key))).collect();
        let checkpoint = Checkpoint { kept, ..Checkpoint::new(own.path(), 0) };
        let mut steps = 0;
        let mut watch = |progress: Progress<'_>| {
            steps += u64::from(!progress.replayed && progress.metric.loss.is_some());
            Ok(())
        };
        (train(&model, config, &wrong, &held_out(), Some(&checkpoint), &mut watch).unwrap(), steps)
    };
    let (short, _) = run(&of(20));
    assert!(short.metrics.last().unwrap().note.as_deref().unwrap().starts_with("stopped: no gain in 3"));
    let (long, steps) = run(&of(50));
    assert_same(&long, &short, "more epochs change nothing");
    assert_eq!(steps, 1, "only the last row is told anew");
}

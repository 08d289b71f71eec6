//! What ends a phase: numbers that are none, and limits by steps and tokens.

use super::*;

fn wild() -> Phase {
    let schedule = Schedule { peak: 1e30, warmup: Warmup::Steps(0), decay: Decay::Constant, min_ratio: 0.0 };
    Phase { schedule, ..phase("wild", 5) }
}

fn failed(phase: Phase, evals: &[EvalSet], checkpoint: Option<&Checkpoint>) -> (String, Vec<u64>) {
    let mut replayed = Vec::new();
    let mut watch = |progress: Progress<'_>| {
        replayed.extend(progress.replayed.then_some(progress.metric.step));
        Ok(())
    };
    let data = [examples(counting(24, 1, 1))];
    let error = train(&tiny_model(), &config(vec![phase]), &data, evals, checkpoint, &mut watch).unwrap_err();
    (error.to_string(), replayed)
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_names_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::new(folder.path(), 0);
    let (error, _) = failed(wild(), &[], Some(&checkpoint));
    assert!(error.contains("in step 2 (phase `wild`) the ") && error.contains("learning_rate"), "{error}");
    let (again, replayed) = failed(wild(), &[], Some(&checkpoint));
    assert_eq!(replayed, [0, 1], "the state of the step before is kept");
    assert_eq!(again, error, "and goes the same way");
}

#[test]
fn an_evaluation_that_is_no_number_ends_the_run_too() {
    let (error, _) = failed(Phase { eval_every: 1, ..wild() }, &held_out(), None);
    assert!(error.contains("after step 1 (phase `wild`) the loss on `eval` is "), "{error}");
    let mut weights = 0;
    let model = Model::build(&crate::testing::tiny_config(), crate::kernels::Precision::F32, |_, shape| {
        weights += 1;
        Ok(vec![if weights == 3 { f32::NAN } else { 0.1 }; shape.iter().product()])
    });
    let (data, config) = ([examples(counting(24, 1, 1))], config(vec![phase("count", 1)]));
    let error = train(&model.unwrap(), &config, &data, &held_out(), None, &mut quiet).unwrap_err().to_string();
    assert!(error.contains("before the first step of phase `count` the loss on `eval` is NaN"), "{error}");
    assert!(error.contains("weights"), "{error}");
}

/// Steps done, tokens read, and what the last row says.
fn done(phase: Phase) -> (u64, u64, String) {
    let mut read = 0;
    let mut watch = |progress: Progress<'_>| {
        read += progress.read;
        Ok(())
    };
    let data = [examples(counting(24, 1, 1))];
    let trained = train(&tiny_model(), &config(vec![phase]), &data, &[], None, &mut watch).unwrap();
    let last = trained.metrics.last().unwrap();
    (last.step, read, last.note.clone().unwrap())
}

#[test]
fn a_phase_ends_by_the_first_of_its_limits_and_says_so() {
    let whole: u64 = counting(24, 1, 1).iter().map(|segment| segment.tokens.len() as u64).sum();
    let (steps, read, note) = done(phase("count", 2));
    assert_eq!((steps, read), (12, 2 * whole));
    assert_eq!(note, format!("ended: 2 epochs done, {read} tokens read; kept step 12"));
    assert_eq!(done(phase("count", 1)).2, format!("ended: 1 epoch done, {whole} tokens read; kept step 6"));

    let (steps, read, note) = done(Phase { max_steps: Some(4), ..phase("count", 2) });
    assert_eq!((steps, note), (4, format!("ended: `max_steps` is 4, {read} tokens read; kept step 4")));
    let (steps, exact, _) = done(Phase { max_tokens: Some(read), ..phase("count", 2) });
    assert_eq!((steps, exact), (4, read), "as many tokens as that fit");
    let (steps, fewer, note) = done(Phase { max_tokens: Some(read - 1), max_steps: Some(5), ..phase("count", 2) });
    assert_eq!(steps, 3);
    assert_eq!(note, format!("ended: `max_tokens` is {}, {fewer} tokens read; kept step 3", read - 1));
    assert_eq!(done(Phase { max_tokens: Some(1), ..phase("count", 2) }).0, 1, "one step is done in any case");
    assert_eq!(done(Phase { max_steps: Some(12), ..phase("count", 2) }).2, done(phase("count", 2)).2);
}

#[test]
fn a_limit_far_off_costs_nothing() {
    let (steps, ..) = done(Phase { max_steps: Some(3), ..phase("count", u64::MAX) });
    assert_eq!(steps, 3, "no plan of all epochs is made");
}

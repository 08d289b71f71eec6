//! The loop on a tiny random model.

mod find;
mod limits;
mod longer;
mod merging;
mod mixture;
mod sets;
mod traps;

use super::*;
use crate::data::Batch;
use crate::lora::LoraConfig;
use crate::schedule::{Decay, Schedule, Warmup};
use crate::testing::{tiny_model, tokens};

/// Counting up by `by`, from a random token: something that a tiny model can learn.
fn counting(n: usize, by: u32, seed: u64) -> Vec<Segment> {
    let starts = tokens(n, seed);
    let sequence =
        |(at, start): (usize, &u32)| -> Vec<u32> { (0..6 + at as u32 % 5).map(|i| (start + by * i) % 101).collect() };
    let text = |sequence: Vec<u32>| {
        let counts = vec![true; sequence.len()];
        Segment::next_token(&sequence, &counts)
    };
    starts.iter().enumerate().map(sequence).map(text).collect()
}

/// What most tests are evaluated on: other counting by one.
fn held_out() -> Vec<EvalSet> {
    vec![EvalSet { name: EVAL.into(), segments: counting(8, 1, 99) }]
}

fn examples(segments: Vec<Segment>) -> Examples {
    Examples { segments, ..Examples::default() }
}

fn phase(name: &str, epochs: u64) -> Phase {
    let schedule = Schedule { peak: 0.01, warmup: Warmup::Ratio(0.1), decay: Decay::Cosine, min_ratio: 0.1 };
    Phase {
        name: name.into(),
        data: Source::Pairs,
        epochs,
        schedule,
        batch: Batch::Sequences(4),
        max_length: 64,
        patience: 0,
        ..Phase::default()
    }
}

fn config(phases: Vec<Phase>) -> TrainConfig {
    let lora = LoraConfig { rank: 4, alpha: 8.0, dropout: 0.1, ..LoraConfig::default() };
    TrainConfig {
        lora,
        phases,
        lora_plus: 1.0,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        seed: 7,
        max_tokens_per_pass: 24,
    }
}

fn quiet(_: Progress<'_>) -> Result<(), LmError> {
    Ok(())
}

/// The last `n` evaluations' losses.
fn evals(metrics: &[Metric]) -> Vec<f64> {
    metrics.iter().filter_map(|row| row.eval_loss).collect()
}

/// What comes of a run that is stopped after step `cut` and goes on; and how many rows it told again.
fn stopped_after(cut: u64, every: u64, config: &TrainConfig, data: &[Examples], evals: &[EvalSet]) -> (Trained, u64) {
    let (model, folder) = (tiny_model(), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoint::new(folder.path(), every);
    let mut stop = |progress: Progress<'_>| {
        if progress.metric.step == cut { Err(LmError::Cancelled) } else { Ok(()) }
    };
    let stopped = train(&model, config, data, evals, Some(&checkpoint), &mut stop);
    assert!(matches!(stopped, Err(LmError::Cancelled)), "step {cut} is there");
    let mut replayed = 0;
    let mut watch = |progress: Progress<'_>| {
        replayed += u64::from(progress.replayed);
        Ok(())
    };
    (train(&model, config, data, evals, Some(&checkpoint), &mut watch).unwrap(), replayed)
}

fn assert_same(one: &Trained, other: &Trained, about: &str) {
    assert_eq!(one.metrics, other.metrics, "{about}");
    assert_eq!(one.adapter.tensors(), other.adapter.tensors(), "{about}");
}

#[test]
fn what_is_learnt_carries_over_to_held_out_examples() {
    let model = tiny_model();
    let config = config(vec![phase("count", 6)]);
    let eval = held_out();
    let trained = train(&model, &config, &[examples(counting(40, 1, 1))], &eval, None, &mut quiet).unwrap();
    let evals = evals(&trained.metrics);
    assert_eq!(evals.len(), 7, "at the start and after each epoch");
    assert!(evals[6] < evals[0] - 0.5, "{evals:?}");
    let kept = evaluate(&model, Some(&trained.adapter), &eval[0].segments, 1000).unwrap().unwrap();
    assert_eq!(kept, evals.iter().copied().fold(f64::INFINITY, f64::min), "the best adapter, to the bit");
    let start = evaluate(&model, None, &eval[0].segments, 5).unwrap().unwrap();
    assert!((start - evals[0]).abs() < 1e-9, "a fresh adapter changes nothing");
    assert_eq!(trained.metrics.len(), 61);
    assert!(trained.metrics[1].learning_rate < trained.metrics[6].learning_rate);
    assert_eq!(trained.metrics[60].epoch, 6.0);
    assert_eq!(trained.metrics[60].tokens, 6 * examples(counting(40, 1, 1)).targets());
}

#[test]
fn several_passes_are_one_big_batch() {
    let model = tiny_model();
    let mut big = config(vec![Phase { max_steps: Some(3), batch: Batch::Tokens(100), ..phase("count", 1) }]);
    big.lora.dropout = 0.0;
    big.max_tokens_per_pass = 10_000;
    let small = TrainConfig { max_tokens_per_pass: 1, ..big.clone() };
    let data = [examples(counting(40, 1, 1))];
    let of = |config| train(&model, config, &data, &[], None, &mut quiet).unwrap();
    let (big, small) = (of(&big), of(&small));
    for (one, other) in big.metrics.iter().zip(&small.metrics).skip(1) {
        assert!((one.loss.unwrap() - other.loss.unwrap()).abs() < 1e-5, "{one:?} {other:?}");
        assert!((one.grad_norm.unwrap() / other.grad_norm.unwrap() - 1.0).abs() < 1e-3, "{one:?} {other:?}");
        assert_eq!(one.tokens, other.tokens);
    }
}

#[test]
fn patience_ends_a_phase_and_the_best_goes_on_to_the_next() {
    let model = tiny_model();
    // Learning to count by 2 makes the loss of counting by 1 worse.
    let wrong = Phase { eval_every: 2, patience: 3, ..phase("wrong", 50) };
    let config = config(vec![phase("right", 3), wrong]);
    let data = [examples(counting(40, 1, 1)), examples(counting(40, 2, 2))];
    let eval = held_out();
    let (mut seen, mut left) = (Vec::new(), Vec::new());
    let mut watch = |progress: Progress<'_>| {
        seen.push((progress.done, progress.of));
        left.push((progress.left, progress.read));
        Ok(())
    };
    let trained = train(&model, &config, &data, &eval, None, &mut watch).unwrap();
    let last_left = left.pop().unwrap();
    assert_eq!(last_left.0, 0, "nothing is left of what stopping spared");
    assert!(left.windows(2).all(|pair| pair[0].0 == pair[1].0 + pair[1].1), "what is read is left no more: {left:?}");
    let last = trained.metrics.last().unwrap();
    let note = last.note.as_deref().unwrap();
    assert!(note.contains("stopped: no gain in 3 evaluations; kept step "), "{note}");
    assert!(last.step < 60, "{}", last.step);
    assert_eq!(*seen.last().unwrap(), (30 + 500, 30 + 500), "what stopping spared is done");
    let kept = evaluate(&model, Some(&trained.adapter), &eval[0].segments, 1000).unwrap().unwrap();
    assert_eq!(kept, evals(&trained.metrics).into_iter().fold(f64::INFINITY, f64::min));
    assert!(last.eval_loss.unwrap() > kept);
}

#[test]
fn plain_text_is_not_judged_against_the_start() {
    let model = tiny_model();
    let text = Phase { data: Source::Text, ..phase("text", 1) };
    let data = [examples(counting(40, 2, 2))];
    let eval = held_out();
    let trained = train(&model, &config(vec![text]), &data, &eval, None, &mut quiet).unwrap();
    let kept = evaluate(&model, Some(&trained.adapter), &eval[0].segments, 1000).unwrap().unwrap();
    assert_eq!(Some(kept), trained.metrics.last().unwrap().eval_loss);
}

#[test]
fn a_run_that_was_cut_goes_on_to_the_same_bits() {
    let model = tiny_model();
    let eval = held_out();
    let second = Phase { eval_every: 4, patience: 9, batch: Batch::Tokens(30), ..phase("second", 1) };
    let config = config(vec![phase("first", 1), second]);
    let data = [examples(counting(24, 1, 1)), examples(counting(30, 1, 2))];
    let whole = train(&model, &config, &data, &eval, None, &mut quiet).unwrap();
    let steps = whole.metrics.last().unwrap().step;
    assert!(steps > 12);
    for (cut, every) in [(1, 0), (5, 2), (7, 0), (9, 3), (steps, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let (live, crashed) = (folder.path().join("live"), folder.path().join("crashed"));
        std::fs::create_dir_all(&crashed).unwrap();
        // The person stops it after step `cut`; before that, the machine "crashes": what is on disk then is put aside.
        let mut watch = |progress: Progress<'_>| {
            if progress.metric.step == cut {
                _ = std::fs::copy(live.join("checkpoint.safetensors"), crashed.join("checkpoint.safetensors"));
                return Err(LmError::Cancelled);
            }
            Ok(())
        };
        let checkpoint = Checkpoint::new(&live, every);
        let stopped = train(&model, &config, &data, &eval, Some(&checkpoint), &mut watch);
        assert!(matches!(stopped, Err(LmError::Cancelled)));
        for folder in [&live, &crashed] {
            let mut replayed = 0;
            let mut watch = |progress: Progress<'_>| {
                replayed += u64::from(progress.replayed);
                Ok(())
            };
            let checkpoint = Checkpoint::new(folder, every);
            let resumed = train(&model, &config, &data, &eval, Some(&checkpoint), &mut watch).unwrap();
            assert_eq!(resumed.adapter.tensors(), whole.adapter.tensors(), "cut after {cut}");
            assert_eq!(resumed.metrics, whole.metrics, "cut after {cut}");
            assert!(folder != &live || replayed > cut, "it did go on from the checkpoint");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let model = tiny_model();
    let config = config(vec![phase("count", 2)]);
    let data = [examples(counting(24, 1, 1))];
    let eval = held_out();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&model, &config, &data, &eval, None, &mut quiet).unwrap())
    };
    let (one, three) = (on(1), on(3));
    assert_eq!(one.adapter.tensors(), three.adapter.tensors());
    assert_eq!(one.metrics, three.metrics);
}

#[test]
fn a_checkpoint_of_another_training_is_not_used() {
    let model = tiny_model();
    let config = config(vec![phase("count", 1)]);
    let data = [examples(counting(24, 1, 1))];
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::new(folder.path(), 1);
    train(&model, &config, &data, &[], Some(&checkpoint), &mut quiet).unwrap();
    let replays = |config: &TrainConfig, data: &[Examples]| {
        let mut replayed = false;
        let mut watch = |progress: Progress<'_>| {
            replayed |= progress.replayed;
            Err(LmError::Cancelled)
        };
        train(&model, config, data, &[], Some(&checkpoint), &mut watch).unwrap_err();
        replayed
    };
    assert!(replays(&config, &data));
    assert!(!replays(&TrainConfig { seed: 8, ..config.clone() }, &data));
    assert!(!replays(&config, &[examples(counting(24, 1, 3))]));
    let path = folder.path().join("checkpoint.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40).chain(whole.len() - 48..whole.len()) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, bytes).unwrap();
        assert!(!replays(&config, &data), "byte {at}");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(!replays(&config, &data), "a torn file is no checkpoint");
    std::fs::write(&path, &whole).unwrap();
    assert!(replays(&config, &data));
}

#[test]
fn a_phase_without_examples_says_what_became_of_them() {
    let none = Examples { dropped: 3, ..Examples::default() };
    let error = train(&tiny_model(), &config(vec![phase("pairs", 1)]), &[none], &[], None, &mut quiet).unwrap_err();
    assert_eq!(error.to_string(), "phase `pairs` has no examples (3 were empty or over 64 tokens)");
}

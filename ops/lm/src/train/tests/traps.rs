//! What users of other trainers complain of, and must not happen here.
//!
//! Beside these: `data/tests.rs` holds that end tokens count and prompts do not, `tests.rs` that passes make no difference and the best is kept,
//! `lm/src/laws.rs` and `oracle/` that forward and backward passes are right.

use super::*;

/// What a batch of segments gives one of them: its loss and, by the difference that it makes, its gradients.
fn gradients(segments: &[Segment]) -> (Vec<LossSum>, Grads) {
    tiny_model().gradients(&crate::testing::tiny_adapter(), segments, None).unwrap()
}

#[test]
fn packed_sequences_do_not_see_each_other() {
    // trl 805, unsloth 126: another text before or after one in the same batch changes neither its loss nor its gradients.
    let [own, before, after] = &counting(3, 1, 5)[..] else { panic!("three") };
    let strange = Segment { targets: vec![None; before.targets.len()], ..before.clone() };
    let (alone, by_own) = gradients(std::slice::from_ref(own));
    for company in [vec![strange.clone(), own.clone()], vec![own.clone(), strange.clone()]] {
        let at = company.iter().position(|segment| segment == own).unwrap();
        let (losses, grads) = gradients(&company);
        assert_eq!(losses[at], alone[0], "to the bit");
        assert_eq!(losses[1 - at], LossSum::default(), "what has no targets is only read");
        assert_close(&grads, &by_own);
    }
    let (together, mut sum) = (gradients(&[before.clone(), own.clone(), after.clone()]), by_own);
    assert_eq!(together.0[1], alone[0]);
    for other in [before, after] {
        let (loss, grads) = gradients(std::slice::from_ref(other));
        assert!(together.0.contains(&loss[0]));
        sum.add(&grads);
    }
    assert_close(&together.1, &sum);
}

fn assert_close(one: &Grads, other: &Grads) {
    for (one, other) in one.tensors.iter().zip(&other.tensors) {
        let largest = other.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(one.iter().zip(other).all(|(one, other)| (one - other).abs() <= 1e-4 * largest.max(1e-3)));
    }
}

#[test]
fn a_token_without_a_target_has_no_say() {
    // What a prompt's tokens would have to be changes nothing, and neither does their number in what is divided by.
    let segment = &counting(1, 1, 5)[0];
    let answer = |keep: usize| {
        let targets = segment.targets.iter().enumerate().map(|(at, target)| target.filter(|_| at >= keep)).collect();
        Segment { targets, ..segment.clone() }
    };
    let (all, of_all) = gradients(&[answer(0)]);
    let (last, of_last) = gradients(&[answer(segment.tokens.len() - 1)]);
    assert_eq!((all[0].tokens, last[0].tokens), (segment.tokens.len() as u64, 1));
    let none = answer(segment.tokens.len());
    let (nothing, of_nothing) = gradients(std::slice::from_ref(&none));
    assert_eq!(nothing[0], LossSum::default());
    assert!(of_nothing.tensors.iter().flatten().all(|&value| value == 0.0));
    assert_ne!(of_all, of_last);
    let config = TrainConfig { max_tokens_per_pass: 1000, ..config(vec![phase("count", 1)]) };
    let of =
        |segments: Vec<Segment>| train(&tiny_model(), &config, &[examples(segments)], &[], None, &mut quiet).unwrap();
    let mut with_prompts = counting(3, 1, 5);
    with_prompts.push(none);
    let (with, without) = (of(with_prompts).metrics[1].clone(), of(counting(3, 1, 5)).metrics[1].clone());
    assert!(
        (with.loss.unwrap() - without.loss.unwrap()).abs() < 1e-6,
        "the mean is over targets, not over sequences or tokens"
    );
    assert_eq!(with.tokens, without.tokens);
}

#[test]
fn long_and_short_sequences_count_by_their_tokens() {
    // transformers 24725, torchtune 1875: the mean of means weighs a token of a short sequence more. Passes of one sequence and of all give one loss.
    let mut segments = counting(1, 1, 5);
    segments.extend(
        counting(1, 2, 6)
            .iter()
            .map(|segment| Segment { tokens: segment.tokens.repeat(6), targets: segment.targets.repeat(6) }),
    );
    let sums = gradients(&segments).0;
    let mean = sums.iter().map(|sum| sum.nll).sum::<f64>() / sums.iter().map(|sum| sum.tokens as f64).sum::<f64>();
    for max_tokens_per_pass in [1, 1000] {
        let mut config = TrainConfig { max_tokens_per_pass, ..config(vec![phase("count", 1)]) };
        config.lora.dropout = 0.0;
        let trained = train(&tiny_model(), &config, &[examples(segments.clone())], &[], None, &mut quiet).unwrap();
        let fresh = tiny_model().loss(None, &segments).unwrap();
        let expected =
            fresh.iter().map(|sum| sum.nll).sum::<f64>() / fresh.iter().map(|sum| sum.tokens as f64).sum::<f64>();
        assert!((trained.metrics[1].loss.unwrap() - expected).abs() < 1e-6);
        assert_ne!(expected, mean, "an adapter away from zero is another model");
    }
}

#[test]
fn patience_survives_a_cut_at_every_step() {
    // axolotl 28, mlx-lm 331: a run that was cut while it waited for a gain must not wait all over again.
    let wrong = Phase { eval_every: 1, patience: 4, ..phase("wrong", 50) };
    let (config, data) =
        (config(vec![phase("right", 1), wrong]), [examples(counting(40, 1, 1)), examples(counting(40, 2, 2))]);
    let whole = train(&tiny_model(), &config, &data, &held_out(), None, &mut quiet).unwrap();
    let last = whole.metrics.last().unwrap();
    assert!(last.note.as_deref().unwrap().starts_with("stopped: no gain in 4 evaluations; kept step "), "{last:?}");
    for cut in 9..=last.step {
        let (resumed, replayed) = stopped_after(cut, 0, &config, &data, &held_out());
        assert_same(&resumed, &whole, &format!("cut after {cut}"));
        assert!(replayed >= cut, "{replayed} {cut}");
    }
}

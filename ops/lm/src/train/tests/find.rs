//! Phases that look for a learning rate.

use super::*;

fn search(peak: f64, steps: u64) -> Phase {
    let schedule = Schedule { peak, warmup: Warmup::Ratio(0.1), decay: Decay::Find, min_ratio: 0.0 };
    Phase { schedule, epochs: steps, max_steps: Some(steps), ..phase("search", 1) }
}

fn searched(phase: Phase) -> Trained {
    train(&tiny_model(), &config(vec![phase]), &[examples(counting(40, 1, 1))], &held_out(), None, &mut quiet).unwrap()
}

fn note(trained: &Trained) -> &str {
    trained.metrics.last().unwrap().note.as_deref().unwrap()
}

#[test]
fn a_search_suggests_a_rate_and_gives_the_adapter_back() {
    let trained = searched(search(10.0, 60));
    let fresh = tiny_model().fresh_adapter(&config(Vec::new()).lora, 7).unwrap();
    assert_eq!(trained.adapter.tensors(), fresh.tensors());
    let rates: Vec<f64> = trained.metrics.iter().skip(1).map(|row| row.learning_rate).collect();
    assert!((rates[0] - 0.01).abs() < 1e-12 && rates.is_sorted(), "{rates:?}");
    assert!(rates.windows(2).all(|pair| (pair[1] / pair[0] - 1000f64.powf(1.0 / 59.0)).abs() < 1e-9));
    assert!(evals(&trained.metrics).is_empty(), "nothing is evaluated");
    let (_, said) = note(&trained).split_once("`learning_rate: ").unwrap();
    let rate: f64 = said.split('`').next().unwrap().parse().unwrap();
    assert!((1e-3..0.3).contains(&rate), "{}", note(&trained));
}

#[test]
fn a_search_says_when_it_saw_too_little() {
    let low = searched(search(1e-5, 20));
    assert!(note(&low).contains("ended: ") && note(&low).contains("a larger `learning_rate`"), "{}", note(&low));
}

#[test]
fn a_search_ends_where_the_loss_explodes_or_is_no_number() {
    let high = searched(search(1e9, 60));
    assert!(high.metrics.len() < 61, "{}", high.metrics.len());
    assert!(high.metrics.iter().all(|row| row.loss.is_none_or(f64::is_finite)));
    assert!(!note(&high).contains("ended"), "{}", note(&high));
}

#[test]
fn a_search_between_phases_leaves_no_trace_in_the_adapter_and_resumes() {
    let data = [examples(counting(24, 1, 1)), examples(counting(24, 1, 1))];
    let alone = config(vec![phase("count", 1)]);
    let alone = train(&tiny_model(), &alone, &data[..1], &held_out(), None, &mut quiet).unwrap();
    let config = config(vec![phase("count", 1), search(0.1, 10)]);
    let whole = train(&tiny_model(), &config, &data, &held_out(), None, &mut quiet).unwrap();
    assert_eq!(alone.adapter.tensors(), whole.adapter.tensors());
    assert_eq!(alone.metrics[..], whole.metrics[..alone.metrics.len()]);
    for cut in [7, 12] {
        assert_same(&stopped_after(cut, 1, &config, &data, &held_out()).0, &whole, &format!("cut after {cut}"));
    }
}

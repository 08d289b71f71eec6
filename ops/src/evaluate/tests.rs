//! The operator in the engine, after real training.

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{Float64Type, Int64Type};
use retort_cache::Store as _;
use serde_json::json;

use crate::lora_train::tests::{Space, facts, model, node, trained};

#[test]
fn the_exam_tells_the_tuned_model_from_the_base() {
    let mut specs = facts();
    specs.push(trained());
    let from = [("eval", "eval"), ("adapter", "adapter.adapter")];
    specs.push(node("exam", "evaluate", &from, json!({"model": model(), "max_tokens": 12})));
    specs.push(node("one", "evaluate", &from, json!({"model": model(), "max_tokens": 12, "max_rows": 1})));
    let space = Space::default();
    assert_eq!(space.run(&specs).failed, 0, "{:?}", space.events.lock().unwrap());

    let summary = space.table("exam", 1);
    let column = |name: &str| summary[name].as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(summary["questions"].as_primitive::<Int64Type>().values(), &[2, 2]);
    let (loss, perplexity) = (column("loss"), column("perplexity"));
    assert!(loss[1] < loss[0] - 0.5, "{loss:?}");
    assert!((perplexity[0] - loss[0].exp()).abs() < 1e-9);

    // What training measured at its best is what the exam measures.
    let metrics = space.table("adapter", 1);
    let eval: Vec<f64> = metrics["eval_loss"].as_primitive::<Float64Type>().iter().flatten().collect();
    assert_eq!((loss[0], loss[1]), (eval[0], eval[4]));

    let rows = space.table("exam", 0);
    assert_eq!(rows["question"].as_string::<i32>().value(0), "Where is printer Wren?");
    let said = rows["tuned_output"].as_string::<i32>();
    assert!(said.iter().flatten().all(|text| !text.is_empty() && !text.contains("<|")), "{said:?}");

    // A question is answered alike in a smaller exam.
    let one = space.table("one", 0);
    assert_eq!(one.num_rows(), 1);
    let at = (0..2).find(|row| rows["question"].slice(*row, 1).to_data() == one["question"].to_data()).unwrap();
    assert_eq!(rows.slice(at, 1), one);

    // The adapter is refused by other weights.
    let other = json!({"weights": "file:model.gguf", "sha256": "cd".repeat(32)});
    specs.push(node("other", "evaluate", &from, json!({"model": other})));
    assert_eq!(space.run(&specs).failed, 1);
    assert!(space.store.last("test/other").unwrap().is_none());
    let events = format!("{:?}", space.events.lock().unwrap());
    assert!(events.contains("trained on other weights"), "{events}");
}

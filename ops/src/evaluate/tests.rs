//! The operator in the engine, after real training.

use std::path::Path;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use retort_cache::Store as _;
use retort_engine::{Define as _, Env};
use serde_json::{Value, json};

use super::Evaluate;
use crate::lora_train::tests::{Space, facts, model, node, trained};
use crate::server::tests::{said, serve};

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

    // How sure that is stands beside it; two questions can't tell much, but both gained.
    assert!(column("loss_low")[1] <= loss[1] && loss[1] <= column("loss_high")[1]);
    let gain = ["loss_change", "loss_change_low", "loss_change_high"].map(|name| column(name)[1]);
    assert_eq!(gain[0], loss[1] - loss[0]);
    assert!(gain[1] <= gain[0] && gain[0] <= gain[2] && gain[2] < 0.0, "{gain:?}");
    assert!(summary["loss_change"].is_null(0), "the base is not compared with itself");

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

/// Values of a column of numbers, by model.
fn of(summary: &RecordBatch, column: &str, model: &str) -> Option<f64> {
    let at = summary["model"].as_string::<i32>().iter().position(|name| name == Some(model)).unwrap();
    let values = summary[column].as_primitive::<Float64Type>();
    values.is_valid(at).then(|| values.value(at))
}

#[test]
fn several_models_sit_one_exam_and_are_judged() {
    let (url, requests) = serve(|_, body| {
        let asked = body["messages"][0]["content"].as_str().unwrap();
        let right = asked.split("said: ").nth(1).unwrap().to_lowercase().contains("cellar");
        (200, "", said(if right { "Yes, it does." } else { "No." }))
    });
    let mut specs = facts();
    specs.push(trained());
    let from = [("eval", "eval"), ("adapter", "adapter.adapter")];
    specs.push(node("exam", "evaluate", &from, json!({"model": model(), "max_tokens": 12})));
    let from = [("eval", "eval"), ("own", "adapter.adapter"), ("general", "text")];
    let models = json!([{"name": "tuned", "adapter": "own"}, {"name": "plain", "model": model()}]);
    let judge =
        json!({"model": {"server": url, "name": "j"}, "prompt": "{{ question }} {{ answer }} said: {{ output }}"});
    let with = json!({"model": model(), "max_tokens": 12, "models": models, "judge": judge});
    specs.push(node("all", "evaluate", &from, with));
    let space = Space::default();
    assert_eq!(space.run(&specs).failed, 0, "{:?}", space.events.lock().unwrap());

    let (all, exam) = (space.table("all", 1), space.table("exam", 1));
    assert_eq!(all["model"].as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["base", "tuned", "plain"]);
    for score in ["loss", "token_f1", "loss_low", "loss_change_high", "token_f1_change_low"] {
        for model in ["base", "tuned"] {
            assert_eq!(of(&all, score, model), of(&exam, score, model), "{score} of {model}: company changes nothing");
        }
        if !score.contains("change") {
            assert_eq!(of(&all, score, "plain"), of(&all, score, "base"), "{score}: these are the same weights");
        }
    }
    assert_eq!(of(&all, "loss_change", "plain"), None, "nobody knows that its tokens are the same");
    assert_eq!(of(&all, "token_f1_change", "plain"), Some(0.0));

    // The general texts here are those that were learnt.
    let perplexity = ["base", "tuned", "plain"].map(|model| of(&all, "general_perplexity", model).unwrap());
    assert!(perplexity[1] < 0.9 * perplexity[0] && perplexity[2] == perplexity[0], "{perplexity:?}");
    let change = of(&all, "general_perplexity_change", "tuned").unwrap();
    assert!((change - 100.0 * (perplexity[1] / perplexity[0] - 1.0)).abs() < 1e-6, "{change} {perplexity:?}");

    // Each answer was judged, equal ones once.
    let rows = space.table("all", 0);
    let outputs = |model: &str| rows[format!("{model}_output").as_str()].as_string::<i32>().clone();
    for model in ["base", "tuned", "plain"] {
        let judged = rows[format!("{model}_judge").as_str()].as_boolean().clone();
        let said = outputs(model);
        let right = said.iter().map(|text| text.map(|text| text.to_lowercase().contains("cellar")));
        assert!(judged.iter().eq(right), "{model}: {judged:?}");
    }
    assert!(requests.lock().unwrap().len() <= 4, "two questions, two adapters");
}

#[test]
fn a_judge_that_runs_here_says_yes_or_no() {
    let mut specs = facts();
    specs.push(trained());
    let from = [("eval", "eval"), ("adapter", "adapter.adapter")];
    let with = json!({"model": model(), "max_tokens": 12, "judge": {"model": model()}});
    specs.push(node("exam", "evaluate", &from, with));
    let space = Space::default();
    assert_eq!(space.run(&specs).failed, 0, "{:?}", space.events.lock().unwrap());
    let rows = space.table("exam", 0);
    assert_eq!(rows["base_judge"].null_count() + rows["tuned_judge"].null_count(), 0);
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let problem = |with: Value| {
        let mut with = with;
        with["model"] = model();
        let config: Evaluate = serde_json::from_value(with).unwrap();
        let problem = config.build(&Env { base: Path::new("") }).err().unwrap();
        (problem.at.field, problem.message)
    };
    let models = |models: Value| problem(json!({"models": models}));
    assert_eq!(models(json!([{"name": "base"}])).0, "with.models[0].name");
    assert_eq!(models(json!([{"name": "a"}, {"name": "a"}])).1, "two models are called `a`");
    assert_eq!(models(json!([{"name": "a b"}])).1, "`a b` cannot be part of a column's name");
    assert_eq!(models(json!([{"name": "a", "adapter": "eval"}])).0, "with.models[0].adapter");
    assert_eq!(models(json!([{"name": "a", "model": {"server": "http://h", "name": "m"}}])).0, "with.models[0].model");
    assert_eq!(problem(json!({"confidence": 1.0})).0, "with.confidence");
    assert_eq!(problem(json!({"resamples": 0})).0, "with.resamples");
    let judge = |prompt: &str| problem(json!({"judge": {"model": model(), "prompt": prompt}})).1;
    assert_eq!(judge("{{ output }} {{ text }}"), "there is no `text`");
    assert_eq!(judge("{{ question }}"), "the answer to judge does not stand in it");
    assert!(judge("{{ output").starts_with("not a template"));
}

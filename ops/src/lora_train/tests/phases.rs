//! What phases are told: mixtures, forms, sets, beginnings, searches, and what later ones inherit.

use super::*;
use retort_lm::lora::Adapter;

#[test]
fn what_has_no_pairs_has_no_loss_of_pairs_in_its_facts() {
    let of = |top: Value| {
        let mut with = json!({"model": model(), "phases": [{"data": "text"}, {"mix": {"text": 0.2}}]});
        top.as_object().unwrap().iter().for_each(|(key, value)| with[key] = value.clone());
        facts_of(with)
    };
    let (plain, all) = (of(json!({})), of(json!({"loss": "all", "template": "plain"})));
    assert_eq!(plain["phases"][0], all["phases"][0], "of texts all counts anyway");
    assert_eq!(plain, of(json!({"loss": "answer", "template": "chat"})));
    assert_eq!((&all["phases"][1]["loss"], &all["phases"][1]["template"]), (&json!("all"), &json!("plain")));
    assert_eq!((&plain["exam"], &all["exam"]), (&json!("chat"), &json!("plain")), "evaluations ask as the last pairs");
}

#[test]
fn a_phase_may_mix_replay_in_and_write_pairs_in_its_own_way() {
    let space = Space::default();
    let with = json!({
        "model": model(), "rank": 2, "batch": 3, "seed": 3, "epochs": 1,
        "phases": [{"name": "plain", "mix": {"text": 0.3, "replay": 0.2}, "loss": "all", "template": "plain"}],
    });
    let inputs = [("train", "train"), ("eval", "eval"), ("text", "text"), ("replay", "text")];
    assert_eq!(space.run(&with_adapter(node("adapter", "lora-train", &inputs, with))).failed, 0);
    let note = space.table("adapter", 1)["note"].as_string::<i32>().value(0).to_owned();
    assert!(note.starts_with("an epoch takes 4.0 of 4 and ") && note.matches(" of 6").count() == 2, "{note}");
}

#[test]
fn further_sets_have_columns_of_their_own_and_may_stop_a_phase() {
    let space = Space::default();
    let with = json!({
        "model": model(), "rank": 2, "batch": 2, "seed": 3, "epochs": 1,
        "evals": {"general": "text", "again": "pairs"}, "phases": [{"eval_every": 1, "stop_on": "again"}],
    });
    let inputs = [("train", "train"), ("eval", "eval"), ("again", "eval"), ("general", "text")];
    assert_eq!(space.run(&with_adapter(node("adapter", "lora-train", &inputs, with))).failed, 0);
    let metrics = space.table("adapter", 1);
    let column = |name: &str| metrics[name].as_primitive::<Float64Type>().iter().collect::<Vec<_>>();
    assert_eq!(column("eval_loss"), column("eval_loss_again"), "the same questions");
    assert!(column("eval_loss_general").iter().all(|loss| loss.is_some_and(|loss| loss > 1.0)));
    assert_ne!(column("eval_loss_general"), column("eval_loss"));
    let note = metrics["note"].as_string::<i32>().value(2).to_owned();
    assert!(note.contains("(loss on `again` "), "{note}");
    let told = |event: &EventKind| matches!(event, EventKind::Metrics { values, .. } if values.iter().any(|(name, _)| name == "eval_loss_general"));
    assert_eq!(space.events.lock().unwrap().iter().filter(|event| told(event)).count(), 3);
}

#[test]
fn a_merged_adapter_is_one_adapter_of_the_base() {
    let space = Space::default();
    let with = json!({
        "model": model(), "rank": 2, "batch": 2, "seed": 3, "epochs": 1, "rank_pattern": {"q_proj": 3}, "rslora": true,
        "phases": [{"data": "text"}, {"start": "merge"}],
    });
    let inputs = [("train", "train"), ("eval", "eval"), ("text", "text")];
    assert_eq!(space.run(&with_adapter(node("adapter", "lora-train", &inputs, with))).failed, 0);
    let path = ModelFile.path(&asset(), &mut |_, _| Ok(())).unwrap();
    let loaded = crate::models::load_file(&path, crate::models::Precision::F16).unwrap();
    let stored = adapter::read([Ok(space.table("adapter", 0))], loaded.model.config()).unwrap().adapter;
    assert_eq!((stored.places()[0].rank, stored.places()[1].rank), (6, 4), "ranks add up");
    let pair = Pair { question: "Where is printer Wren?".into(), answer: "Printer Wren is in the cellar.".into() };
    let segment = data::pair(&loaded.tokenizer, &loaded.template, &pair).unwrap().unwrap();
    let loss = |adapter: Option<&Adapter>| loaded.model.loss(adapter, std::slice::from_ref(&segment)).unwrap()[0].nll;
    let folder = tempfile::tempdir().unwrap();
    let card = retort_lm::peft::Card::default();
    retort_lm::peft::write(&stored, &card, folder.path()).unwrap();
    let read = retort_lm::peft::read(folder.path(), loaded.model.config()).unwrap();
    assert_eq!(loss(Some(&stored)), loss(Some(&read)), "PEFT's folder holds it");
    assert_ne!(loss(Some(&stored)), loss(None));
}

#[test]
fn more_epochs_of_a_constant_rate_cost_only_what_is_new() {
    let of = |epochs: u64, rate: f64| {
        let with = json!({
            "model": model(), "rank": 2, "batch": 2, "seed": 3, "warmup_steps": 1, "learning_rate": 1e-3, "eval_every": 3,
            "phases": [{"data": "text", "epochs": 1}, {"epochs": epochs, "schedule": "constant", "learning_rate": rate}],
        });
        with_adapter(node("adapter", "lora-train", &[("train", "train"), ("eval", "eval"), ("text", "text")], with))
    };
    let space = Space::default();
    assert_eq!(space.run(&of(1, 1e-3)).failed, 0);
    for (epochs, rate, after) in [(3, 1e-3, "goes on after step 5"), (1, 2e-3, "goes on after step 2")] {
        space.events.lock().unwrap().clear();
        assert_eq!(space.run(&of(epochs, rate)).failed, 0);
        assert!(space.notes().contains(&after.to_owned()), "{:?}", space.notes());
        let scratch = Space::default();
        assert_eq!(scratch.run(&of(epochs, rate)).failed, 0);
        for port in [0, 1] {
            assert_eq!(space.table("adapter", port), scratch.table("adapter", port));
        }
    }
    space.events.lock().unwrap().clear();
    assert_eq!(space.run_forced(&of(3, 1e-3), &["adapter"]).failed, 0);
    assert!(!space.notes().iter().any(|note| note.starts_with("goes on")), "who asks again wants a second answer");
    let told = |event: &EventKind| matches!(event, EventKind::Differs { .. });
    assert!(!space.events.lock().unwrap().iter().any(told), "and it is the same");
}

#[test]
fn what_one_precision_kept_is_nothing_to_another() {
    let of = |precision: &str| {
        let with = json!({
            "model": model(), "rank": 2, "batch": 2, "seed": 3, "precision": precision,
            "phases": [{"epochs": 1, "schedule": "constant"}],
        });
        with_adapter(node("adapter", "lora-train", &[("train", "train"), ("eval", "eval")], with))
    };
    let (space, scratch) = (Space::default(), Space::default());
    assert_eq!(space.run(&of("f32")).failed, 0);
    let wide = space.table("adapter", 0);
    assert_eq!((space.run(&of("bf16")).failed, scratch.run(&of("bf16")).failed), (0, 0));
    assert!(!space.notes().iter().any(|note| note.starts_with("goes on")), "{:?}", space.notes());
    assert_eq!(space.table("adapter", 0), scratch.table("adapter", 0));
    assert_ne!(space.table("adapter", 0), wide);
}

#[test]
fn a_phase_may_look_for_a_rate() {
    let with = json!({
        "model": model(), "learning_rate": 1e-4, "epochs": 2,
        "phases": [{"name": "search", "schedule": "find"}, {"name": "other", "schedule": "find", "learning_rate": 1.0, "max_steps": 30}, {}],
    });
    let config = serde_json::from_value::<LoraTrain>(with).unwrap().train_config().unwrap();
    let said = |at: usize| {
        let phase = &config.phases[at];
        (phase.schedule.peak, phase.max_steps, phase.epochs)
    };
    assert_eq!(said(0), (0.1, Some(100), 100), "what phases inherit is the rate to train with");
    assert_eq!(said(1), (1.0, Some(30), 30));
    assert_eq!(said(2), (1e-4, None, 2));
}

//! After training: what was made is examined, told on a page, exported and published, on the real model.

use std::fs;
use std::path::Path;

use retort_tests::Space;
use serde_json::Value;

use crate::model::model;

const PIPELINE: &str = "\
retort: 1
name: printers
models:
  smol: {weights: 'file:MODEL', sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53}
nodes:
  documents: {op: extract, with: {paths: ['docs/*.txt']}}
  pairs: {op: parse, from: documents, with: {format: question-answer, column: text}}
  sets: {op: split-eval, from: pairs, with: {eval: 2, near: 1, seed: 1}}
  adapter:
    op: lora-train
    from: {train: sets.train, eval: sets.eval, text: documents}
    with:
      model: smol
      rank: 4
      seed: 3
      phases:
        - {data: text, epochs: 1, learning_rate: 1.0e-3, batch: 2}
        - {data: pairs, epochs: 2, learning_rate: 1.0e-3, batch: 2, eval_every: 1}
  exam:
    op: evaluate
    from: {eval: sets.eval, adapter: adapter.adapter, general: documents}
    with: {model: smol, max_tokens: 12, resamples: 200}
";

fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("printers.yaml", &PIPELINE.replace("MODEL", &model()));
    for name in ["Quill", "Heron", "Ibis", "Stork", "Wren", "Finch"] {
        let text = format!("Question: Where is printer <{name}>?\nAnswer: Printer <{name}> is in the cellar.\n");
        space.write(&format!("docs/{name}.txt"), &text);
    }
    space
}

fn exists(folder: &Path, files: &[&str]) {
    for file in files {
        let size = folder.join(file).metadata().map(|data| data.len()).unwrap_or_default();
        assert!(
            size > 0,
            "`{}` of {:?}",
            file,
            walkdir::WalkDir::new(folder).into_iter().flatten().collect::<Vec<_>>()
        );
    }
}

#[test]
fn what_was_trained_is_handed_on() {
    #[cfg_attr(not(feature = "hub"), expect(unused_mut, reason = "its environment is set for the Hub"))]
    let mut space = space();
    let (_, told) = space.ends(0, &["run", "printers.yaml", "--html", "run.html"]);
    let line = told.lines().find(|line| line.trim_start().starts_with("token_f1")).expect(&told);
    assert!(line.contains(" to ") && told.contains("against base"), "scores stand with their intervals:\n{told}");
    let summary = space.rows("printers.yaml", "exam.summary");
    assert_eq!((&summary[0]["model"], &summary[1]["model"]), (&Value::from("base"), &Value::from("tuned")));
    assert!(summary[1]["general_perplexity_change"].as_f64().unwrap() < 0.0, "these texts were learned: {summary:?}");

    a_page(&space);
    exported(&space);
    published(&space);
    #[cfg(feature = "hub")]
    crate::hub::sent(&mut space);
    let (out, _) = space.ends(0, &["show", "printers.yaml", "adapter.metrics"]);
    assert!(out.contains("pairs, eval_loss") && out.contains('█'), "{out}");
}

/// The page of the run says what came of it, and nothing on it is a tag of the documents'.
fn a_page(space: &Space) {
    let page = fs::read_to_string(space.path().join("run.html")).unwrap();
    for text in ["<svg", "Exam <code>exam</code>", "Where is printer &lt;", "token f1", "Training <code>adapter</code>"]
    {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("printer <") && !page.contains("src="), "{page}");
    let (_, told) = space.ends(0, &["report", "printers.yaml"]);
    let path = told.trim().strip_prefix("wrote ").and_then(|rest| rest.split(" (").next()).unwrap();
    assert_eq!(fs::read_to_string(space.path().join(path)).unwrap(), page, "the newest run's");
    let (_, told) = space.ends(2, &["report", "printers.yaml", "1999"]);
    assert!(told.contains("no run `1999`"), "{told}");
}

fn exported(space: &Space) {
    let export = |status, args: &[&str]| {
        let all: Vec<&str> =
            ["export", "printers.yaml", "adapter", "out", "--format"].iter().chain(args).copied().collect();
        space.ends(status, &all).1
    };
    let out = space.path().join("out");
    export(0, &["merged", "--dtype", "bf16"]);
    exists(
        &out,
        &["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"],
    );
    let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
    export(0, &["gguf-lora"]);
    export(0, &["gguf", "--dtype", "q8_0"]);
    exists(&out, &["adapter-lora.gguf", "adapter-q8_0.gguf"]);
    assert!(fs::read(out.join("adapter-lora.gguf")).unwrap().starts_with(b"GGUF"));
    assert!(export(1, &["gguf", "--dtype", "bf16"]).contains("it takes f16 and q8_0"));
    assert!(export(1, &["merged", "--dtype", "q8_0"]).contains("it takes f16, bf16 and f32"));
    // What was merged is a model like any other: the pipeline takes it in the place of its own, and the exam says what the tuned one said.
    let text = fs::read_to_string(space.path().join("printers.yaml")).unwrap();
    let merged = "  merged: {weights: 'file:out/adapter-q8_0.gguf'}\nnodes:\n";
    let exam = "  again:\n    op: evaluate\n    from: {eval: sets.eval}\n    with: {model: smol, max_tokens: 12, models: [{name: merged, model: merged}]}\n";
    space.write("again.yaml", &(text.replacen("nodes:\n", merged, 1) + exam));
    space.ends(0, &["run", "again.yaml", "again"]);
    let loss = |pipeline: &str, node: &str| space.rows(pipeline, node)[1]["loss"].as_f64().unwrap();
    let (tuned, merged) = (loss("printers.yaml", "exam.summary"), loss("again.yaml", "again.summary"));
    assert!((tuned - merged).abs() < 0.02 * tuned, "{tuned} {merged}");
}

fn published(space: &Space) {
    let (_, told) = space.ends(0, &["publish", "printers.yaml", "adapter", "--to", "hub", "--name", "me/printers"]);
    assert!(told.contains("hf upload me/printers hub/model") && told.contains("--license"), "{told}");
    let hub = space.path().join("hub");
    exists(&hub.join("model"), &["adapter_config.json", "adapter_model.safetensors", "loss.svg"]);
    exists(
        &hub.join("dataset"),
        &["data/train-00.parquet", "data/eval-00.parquet", "data/text-00.parquet", "README.md"],
    );
    let card = fs::read_to_string(hub.join("model/README.md")).unwrap();
    let (front, text) = card.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
    assert!(
        front.contains("library_name: \"peft\"\n") && front.contains("datasets: [\"me/printers-data\"]\n"),
        "{front}"
    );
    assert!(!front.contains("license") && !front.contains("base_model"), "{front}");
    assert!(told.contains("--base OWNER/NAME") && !card.contains("file:"), "{card}");
    for line in [
        "![losses by step](loss.svg)",
        "| token_f1 |",
        "| train | 4 | `data/train-00.parquet` |",
        "| `with.rank` | 4 |",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let data = fs::read_to_string(hub.join("dataset/README.md")).unwrap();
    assert!(data.contains("{\"split\":\"test\",\"path\":[\"data/eval-00.parquet\"]}"), "{data}");
    let merged = ["--weights", "merged", "--license", "apache-2.0", "--base", "a/b"];
    let all: Vec<&str> =
        ["publish", "printers.yaml", "adapter", "--to", "whole"].iter().chain(&merged).copied().collect();
    space.ends(0, &all);
    let card = fs::read_to_string(space.path().join("whole/model/README.md")).unwrap();
    assert!(card.contains("license: \"apache-2.0\"\n") && card.contains("base_model: \"a/b\"\n"), "{card}");
    exists(&space.path().join("whole/model"), &["model.safetensors", "tokenizer.json"]);
    #[cfg(not(feature = "hub"))]
    {
        let args = ["publish", "printers.yaml", "adapter", "--to", "sent", "--name", "me/printers", "--upload", "both"];
        let (_, told) = space.ends(2, &args);
        assert!(told.contains("--features hub") && !space.path().join("sent").exists(), "{told}");
    }
}

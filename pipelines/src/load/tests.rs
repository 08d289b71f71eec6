//! Pipelines that are read, and in `nodes` and `files` a gallery of broken ones and what is said of each.

mod files;
mod foreach;
mod fuzz;
mod nodes;

use std::fs;

use expect_test::Expect;
use serde_json::json;

use super::operators::OPS;
use super::*;

/// Files in a folder of their own; the first is the pipeline.
fn load_files(files: &[(&str, &[u8])], options: &LoadOptions) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let path = folder.path().join(files[0].0);
    let prefix = format!("{}/", folder.path().display());
    load(&path, options, OPS).map_err(|mistakes| mistakes.render(false).replace(&prefix, ""))
}

fn read(text: &str) -> Loaded {
    load_files(&[("p.yaml", text.as_bytes())], &LoadOptions::default()).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn options(set: &[(&str, &str)], profile: Option<&str>) -> LoadOptions {
    let set = set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    LoadOptions { set, profile: profile.map(String::from), fetched: None }
}

fn broken(text: &str, expected: &Expect) {
    broken_with(text, &LoadOptions::default(), expected);
}

fn broken_with(text: &str, options: &LoadOptions, expected: &Expect) {
    broken_files(&[("p.yaml", text.as_bytes())], options, expected);
}

fn broken_files(files: &[(&str, &[u8])], options: &LoadOptions, expected: &Expect) {
    match load_files(files, options) {
        Ok(_) => panic!("nothing was found"),
        Err(mistakes) => expected.assert_eq(&mistakes),
    }
}

fn with(loaded: &Loaded, node: &str) -> Value {
    loaded.nodes.iter().find(|spec| spec.name == node).unwrap().with.clone()
}

const GOOD: &str = "\
retort: 1
params: {chunk_tokens: 384, generator: tiny, name: World}
models:
  tiny: {weights: 'file:tiny.gguf'}
  large: {weights: 'https://example.org/large.gguf', sha256: B179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53}
nodes:
  documents: {op: extract, with: {paths: ['docs/**/*']}}
  chunks:
    op: chunk
    from: documents
    with: {model: '${params.generator}', max_tokens: '${chunk_tokens}', by: headings}
  answers:
    op: prompt-llm
    from: chunks
    with:
      model: large
      messages:
        - user: |
            Hello ${name}, about {{ text }}: it costs $${5}.
";

#[test]
fn a_good_pipeline_is_filled_in() {
    let loaded = read(GOOD);
    assert_eq!(loaded.name, "p");
    assert_eq!(
        with(&loaded, "chunks"),
        json!({"model": {"weights": "file:tiny.gguf"}, "max_tokens": 384, "by": "headings"})
    );
    let answers = with(&loaded, "answers");
    assert_eq!(answers["messages"][0]["user"], "Hello World, about {{ text }}: it costs ${5}.\n");
    assert_eq!(answers["model"]["sha256"], "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
}

#[test]
fn settings_and_profiles_are_laid_over_it() {
    let text = format!(
        "{GOOD}profiles:\n  quick:\n    params: {{generator: large}}\n    nodes: {{chunks: {{with: {{by: sentences}}}}}}\n"
    );
    let options = options(&[("chunk_tokens", "64"), ("params.name", "a: b: c")], Some("quick"));
    let loaded = load_files(&[("p.yaml", text.as_bytes())], &options).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let chunks = with(&loaded, "chunks");
    assert_eq!((&chunks["max_tokens"], &chunks["by"]), (&json!(64), &json!("sentences")));
    assert_eq!(chunks["model"]["weights"], "https://example.org/large.gguf");
    assert!(with(&loaded, "answers")["messages"][0]["user"].as_str().unwrap().starts_with("Hello a: b: c, about"));
    assert_eq!(loaded.params["chunk_tokens"], json!(64));
}

#[test]
fn places_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    fs::write(&path, "retort: 1\nnodes:\n  ä: {op: chunck}\n").unwrap();
    let mistakes = load(&path, &LoadOptions::default(), OPS).err().unwrap();
    let mut object = mistakes.to_json()[1].clone();
    object["file"] = json!(path.file_name().unwrap().to_str());
    let expected = json!({
        "severity": "error", "code": "unknown-operator", "message": "unknown operator `chunck`",
        "hint": "did you mean `chunk`?", "node": "ä",
        "file": "p.yaml", "line": 3, "column": 11, "end_line": 3, "end_column": 17,
    });
    assert_eq!(object, expected);
}

#[test]
fn a_matrix_multiplies_what_depends_on_it() {
    let text = "\
retort: 1
models: {a: {weights: 'file:a.gguf'}, b: {weights: 'file:b.gguf'}}
matrix: {model: [a, b]}
nodes:
  documents: {op: extract, with: {paths: [docs]}}
  chunks: {op: chunk, from: documents, with: {max_tokens: 99}}
  answers: {op: prompt-llm, from: chunks, with: {model: '${matrix.model}', messages: [user: 'for ${model}']}}
  sets: {op: split-eval, from: answers, with: {eval: 0.1, seed: 1}}
  adapter:
    op: lora-train
    matrix: {rank: [8, 16]}
    from: {train: sets.train, eval: 'sets@model=a.eval'}
    with: {model: '${matrix.model}', rank: '${rank}'}
";
    let loaded = read(text);
    let names: Vec<_> = loaded.nodes.iter().map(|node| node.name.as_str()).collect();
    let adapters =
        ["adapter@model=a,rank=8", "adapter@model=a,rank=16", "adapter@model=b,rank=8", "adapter@model=b,rank=16"];
    let others = ["documents", "chunks", "answers@model=a", "answers@model=b", "sets@model=a", "sets@model=b"];
    assert_eq!(names, [others.as_slice(), adapters.as_slice()].concat());
    let last = loaded.nodes.last().unwrap();
    assert_eq!(
        (&last.from[0].sources, &last.from[1].sources),
        (&vec!["sets@model=b.train".into()], &vec!["sets@model=a.eval".into()])
    );
    assert_eq!(last.with, json!({"model": {"weights": "file:b.gguf"}, "rank": 16}));
}

#[test]
fn files_are_included() {
    let main = b"retort: 1\ninclude: shared/base.yaml\nparams: {size: 64}\nnodes:\n  chunks: {op: chunk, from: documents, with: {model: tiny, max_tokens: '${size}'}}\n";
    let base = b"retort: 1\nparams: {size: 9, kept: 1}\nmodels: {tiny: {weights: 'file:tiny.gguf'}}\nnodes:\n  documents: {op: extract, with: {paths: [docs]}}\n";
    let loaded = load_files(&[("p.yaml", main), ("shared/base.yaml", base)], &LoadOptions::default())
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(with(&loaded, "chunks"), json!({"model": {"weights": "file:shared/tiny.gguf"}, "max_tokens": 64}));
    let documents = loaded.nodes.iter().find(|node| node.name == "documents").unwrap();
    assert!(documents.base.ends_with("shared"));
    assert_eq!(loaded.params["kept"], json!(1));
}

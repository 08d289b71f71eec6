//! The operator in the engine, with the real model and with a server on a socket.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::UInt64Type;
use retort_cache::digests::FileDigests;
use retort_cache::{Memory, Store, TableWriter};
use retort_engine::{
    Assets, Event, EventKind, Feed, Input, Inputs, Limits, NodeSpec, OpInfo, SlotSpec, Summary, TableOp, World,
};
use serde_json::{Value, json};

use super::*;
use crate::server::tests::{said, serve};

/// A source of rows that stand in its config.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Literal {
    rows: Vec<(String, String)>,
}

impl Define for Literal {
    const NAME: &'static str = "literal";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

impl TableOp for Literal {
    fn slots(&self) -> Vec<SlotSpec> {
        Vec::new()
    }

    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![self.batch().schema()])
    }

    fn run(&self, _inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        Ok(out[0].write(&self.batch())?)
    }
}

impl Literal {
    fn batch(&self) -> RecordBatch {
        let column = |of: fn(&(String, String)) -> &String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.rows.iter().map(of)))
        };
        RecordBatch::try_from_iter([("id", column(|row| &row.0)), ("text", column(|row| &row.1))]).unwrap()
    }
}

struct ModelFile;

impl Assets for ModelFile {
    fn digest(&self, asset: &Asset) -> Result<String, Failure> {
        Ok(asset.sha256.clone().unwrap_or_default())
    }

    #[expect(clippy::disallowed_methods, reason = "tests may be told where the model is")]
    fn path(&self, _: &Asset, _: &mut dyn FnMut(u64, u64) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
        let path = std::env::var_os("RETORT_TEST_MODEL").map_or(fetched, PathBuf::from);
        if !path.is_file() {
            // A bare clone has none yet.
            let fetch = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/fetch-model")).status();
            assert!(fetch.is_ok_and(|status| status.success()), "`.ci/fetch-model` could not fetch the test model");
        }
        Ok(path)
    }
}

fn specs(rows: &[(&str, &str)], with: Value) -> [NodeSpec; 2] {
    let node = |name: &str, op: &str, from: &[&str], with: Value| NodeSpec {
        name: name.into(),
        op: op.into(),
        from: from.iter().map(|from| Feed { slot: None, sources: vec![(*from).into()] }).collect(),
        with,
        base: PathBuf::new(),
    };
    [node("rows", "literal", &[], json!({"rows": rows})), node("answers", "prompt-llm", &["rows"], with)]
}

/// A store that lives through several runs.
#[derive(Default)]
struct Space {
    store: Memory,
    cancelled: AtomicBool,
    events: Mutex<Vec<EventKind>>,
}

impl Space {
    fn run(&self, rows: &[(&str, &str)], with: Value) -> Summary {
        let registry = [OpInfo::of::<Literal>(), OpInfo::of::<PromptLlm>()];
        let graph = retort_engine::check("test", &specs(rows, with), &registry);
        let graph = graph.map_err(|problems| format!("{problems:?}")).unwrap();
        let events = |event: &Event| self.events.lock().unwrap().push(event.kind.clone());
        let digests = FileDigests::in_memory();
        let world = World {
            store: &self.store,
            assets: &ModelFile,
            digests: &digests,
            events: &events,
            cancelled: &self.cancelled,
        };
        retort_engine::run(&graph, &[], world, &Limits { jobs: 1, keep_going: false, force: Vec::new() })
    }

    fn table(&self, port: usize) -> RecordBatch {
        let answer = self.store.last("test/answers").unwrap().unwrap();
        self.store.open(answer.outputs[port].content).unwrap().unwrap().read().unwrap()
    }

    /// Rows that the last run asked.
    fn asked(&self) -> u64 {
        let events = self.events.lock().unwrap();
        let asked = events
            .iter()
            .rev()
            .find_map(|event| if let EventKind::Finished { asked, .. } = event { *asked } else { None });
        asked.unwrap()
    }

    fn notes(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let note = |event: &EventKind| if let EventKind::Note { text } = event { Some(text.clone()) } else { None };
        events.iter().filter_map(note).collect()
    }

    fn failure(&self) -> String {
        let events = self.events.lock().unwrap();
        let failed = events
            .iter()
            .find_map(|event| if let EventKind::Failed { error } = event { Some(error.clone()) } else { None });
        failed.unwrap()
    }
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    batch.column_by_name(column).unwrap().as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

fn counts(batch: &RecordBatch, column: &str) -> Vec<u64> {
    batch.column_by_name(column).unwrap().as_primitive::<UInt64Type>().values().to_vec()
}

fn local(sample: &Value) -> Value {
    json!({
        "model": {"weights": "file:SmolLM2.gguf", "sha256": "b1".repeat(32)},
        "messages": [
            {"system": "You answer in one short sentence."},
            {"user": "What is Unix?"}, {"assistant": "An operating system."},
            {"user": "{{ text }}"},
        ],
        "sample": sample,
    })
}

#[test]
fn rows_are_answered_by_the_model_and_remembered() {
    let space = Space::default();
    let sample = json!({"temperature": 0.8, "max_tokens": 12, "seed": 3});
    let rows = [("a", "What is a file?"), ("b", "What is a printer?"), ("c", "What is a file?")];
    assert_eq!(space.run(&rows, local(&sample)).failed, 0);
    let (first, asked) = (space.table(0), space.asked());
    let outputs = texts(&first, "output");
    assert_eq!(asked, 2, "`id` is not part of the question");
    assert!(outputs.iter().all(|output| !output.trim().is_empty()) && outputs[0] == outputs[2], "{outputs:?}");
    assert!(counts(&first, "n_output_tokens").iter().all(|n| (1..=12).contains(n)));
    assert!(counts(&first, "n_prompt_tokens").iter().all(|n| (30..60).contains(n)));
    assert!(texts(&first, "finish_reason").iter().all(|reason| reason == "stop" || reason == "length"));
    let more = [("b", "What is a printer?"), ("d", "What is a host?"), ("a", "What is a file?")];
    space.run(&more, local(&sample));
    assert_eq!(space.asked(), 1);
    assert_eq!(texts(&space.table(0), "output")[0], outputs[1]);
    let alone = Space::default();
    alone.run(&[("x", "What is a printer?")], local(&sample));
    assert_eq!(texts(&alone.table(0), "output"), [outputs[1].clone()], "neighbours do not matter");
    let tokens: u64 = space
        .events
        .lock()
        .unwrap()
        .iter()
        .map(|event| if let EventKind::Tokens { output, .. } = event { *output } else { 0 })
        .sum();
    assert!(tokens >= 3);
}

#[test]
fn a_prompt_that_does_not_fit_is_a_reject_with_the_numbers() {
    let space = Space::default();
    let long = "word ".repeat(9_000);
    space.run(&[("a", "Hi"), ("b", &long)], local(&json!({"max_tokens": 4})));
    assert_eq!(texts(&space.table(0), "id"), ["a"]);
    let reasons = texts(&space.table(1), "reason");
    assert!(
        reasons[0].starts_with("the prompt has 90")
            && reasons[0].ends_with("with `max_tokens` 4 that is more than the model's context of 8192"),
        "{reasons:?}"
    );
}

#[test]
fn several_answers_differ_and_are_numbered() {
    let space = Space::default();
    space.run(&[("a", "Tell me a fact.")], local(&json!({"temperature": 1.2, "max_tokens": 8, "n": 3})));
    let table = space.table(0);
    assert_eq!(counts(&table, "sample_index"), [0, 1, 2]);
    let outputs = texts(&table, "output");
    assert!(outputs[0] != outputs[1] || outputs[1] != outputs[2], "{outputs:?}");
}

#[test]
fn guided_answers_always_parse() {
    let space = Space::default();
    // Without an example to follow the model writes no such form by itself.
    let rows: Vec<(String, String)> =
        (0..4).map(|n| (n.to_string(), format!("Ask about the number {n}: Question: what? Answer: that."))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let sample = json!({"temperature": 0.8, "max_tokens": 200, "seed": 5});
    for guide in [json!({"pairs": 2}), json!("question-answer")] {
        let mut with = local(&sample);
        with["guide"] = guide.clone();
        with["finish"] = json!({"length": "retry", "repetition": "retry", "retries": 5});
        assert_eq!(space.run(&rows, with).failed, 0);
        let answers = space.table(0);
        assert!(
            answers.num_rows() >= 2,
            "{guide}: {} rows; {:?}",
            answers.num_rows(),
            texts(&space.table(1), "reason")
        );
        for output in texts(&answers, "output") {
            let labels = output.matches("Question: ").count();
            let (pairs, left_out) = crate::parse::pairs_of(&output);
            assert_eq!((pairs, left_out), (labels, 0), "{guide}: {output:?}");
            assert!(guide == json!("question-answer") || pairs == 2, "{output:?}");
        }
    }
}

#[test]
fn how_an_answer_ends_decides_what_becomes_of_it() {
    let space = Space::default();
    let rows = [("a", "Tell me about ships."), ("b", "Tell me about trees.")];
    let run = |finish: Value| {
        let mut with = local(&json!({"temperature": 1.0, "max_tokens": 2, "seed": 3}));
        with["finish"] = finish;
        space.run(&rows, with);
        let rejects = texts(&space.table(1), "reason");
        (texts(&space.table(0), "finish_reason"), rejects)
    };
    assert_eq!(run(json!({})), (vec!["length".to_owned(); 2], vec![]));
    let (kept, rejects) = run(json!({"length": "reject"}));
    assert_eq!((kept.len(), rejects), (0, vec!["the answer was cut at `max_tokens` 2".to_owned(); 2]));
    let (kept, rejects) = run(json!({"length": "retry", "retries": 1}));
    assert_eq!(
        (kept.len(), rejects),
        (0, vec!["the answer was cut at `max_tokens` 2, and so were 1 more tries".to_owned(); 2])
    );
    let notes: Vec<String> = space.notes();
    assert!(notes[0].starts_with("2 answers: 2 length; 2 to 2 tokens, median 2; "), "{notes:?}");
    assert!(notes[2].ends_with("2 tried again"), "{notes:?}");
}

#[test]
fn the_context_may_be_used_up() {
    let space = Space::default();
    let long = "word ".repeat(8_120);
    let mut with = local(&json!({"max_tokens": 300, "temperature": 0.9}));
    with["finish"] = json!({"context": "keep", "repetition_tokens": 0});
    with["guide"] = json!({"regex": "[a-z ]{2000,}"});
    space.run(&[("a", &long)], with);
    let table = space.table(0);
    assert_eq!(texts(&table, "finish_reason"), ["context"]);
    assert_eq!(counts(&table, "n_prompt_tokens")[0] + counts(&table, "n_output_tokens")[0], 8192);
}

fn remote(url: &str, sample: &Value) -> Value {
    let model = json!({"server": url, "name": "m", "parallel": 3});
    json!({"model": model, "messages": [{"user": "Say {{ text }}, {{ id | upper }}"}], "sample": sample})
}

#[test]
fn a_server_answers_the_same_operator() {
    let (url, requests) = serve(|number, body| match number {
        1 => (429, "Retry-After: 0.01\r\n", String::new()),
        _ => (200, "", said(body["messages"][0]["content"].as_str().unwrap())),
    });
    let space = Space::default();
    let sample = json!({"top_k": 5, "stop": ["\n"], "max_tokens": 3});
    assert_eq!(space.run(&[("a", "one"), ("b", "two"), ("c", "three")], remote(&url, &sample)).failed, 0);
    let table = space.table(0);
    assert_eq!(texts(&table, "output"), ["Say one, A", "Say two, B", "Say three, C"]);
    assert_eq!(counts(&table, "n_prompt_tokens"), [11, 11, 11]);
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 4);
    let body = &requests[0].1;
    assert_eq!((&body["top_k"], &body["stop"], &body["min_p"]), (&json!(5), &json!(["\n"]), &Value::Null));
    let seeds: std::collections::BTreeSet<u64> =
        requests.iter().map(|(_, body)| body["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds.len(), 3, "each row has its own, again when it is asked again");
}

#[test]
fn an_empty_answer_of_a_server_is_asked_for_again() {
    let (url, requests) = serve(|number, _| (200, "", said(if number < 2 { " " } else { "{\"a\": 1}" })));
    let space = Space::default();
    let mut with = remote(&url, &json!({}));
    with["model"]["parallel"] = json!(1);
    with["finish"] = json!({"empty": "retry"});
    with["guide"] = json!({"json": {"type": "object"}});
    assert_eq!(space.run(&[("a", "one")], with.clone()).failed, 0);
    assert_eq!(texts(&space.table(0), "output"), ["{\"a\": 1}"]);
    let sent = requests.lock().unwrap();
    let seeds: std::collections::BTreeSet<u64> = sent.iter().map(|(_, body)| body["seed"].as_u64().unwrap()).collect();
    assert_eq!((sent.len(), seeds.len()), (3, 3), "each try has its seed");
    assert_eq!(sent[0].1["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
    drop(sent);
    let (url, _) = serve(|_, _| (200, "", said("")));
    with["model"]["server"] = json!(url);
    space.run(&[("a", "one")], with);
    assert_eq!(texts(&space.table(1), "reason"), ["the answer is empty, and so were 2 more tries"]);
}

#[test]
fn a_server_that_fails_fails_the_node_and_one_that_refuses_rejects_the_row() {
    let (url, _) = serve(|_, body| match body["messages"][0]["content"].as_str().unwrap() {
        "Say long, B" => (400, "", "{\"error\": \"exceeds the available context size\"}".into()),
        "Say bad, C" => (200, "", "no JSON".into()),
        other => (200, "", said(other)),
    });
    let space = Space::default();
    space.run(&[("a", "one"), ("b", "long")], remote(&url, &json!({})));
    assert_eq!((texts(&space.table(0), "id"), texts(&space.table(1), "id")), (vec!["a".into()], vec!["b".into()]));
    assert_eq!(space.run(&[("a", "one"), ("c", "bad")], remote(&url, &json!({}))).failed, 1);
    assert!(space.failure().contains("gave a reply that is no completion"), "{}", space.failure());
}

#[test]
fn what_makes_no_sense_is_a_problem() {
    let problem = |with: Value| {
        let registry = [OpInfo::of::<Literal>(), OpInfo::of::<PromptLlm>()];
        let problems = retort_engine::check("test", &specs(&[("a", "b")], with), &registry).err().unwrap();
        (problems[0].at.field.clone(), problems[0].message.clone())
    };
    let with = |messages: Value| json!({"model": {"weights": "file:a"}, "messages": messages});
    assert_eq!(problem(with(json!([{"user": "Hello"}]))).0, "with.messages");
    assert_eq!(problem(with(json!([{"user": "{{ text "}]))).0, "with.messages[0].user");
    assert!(problem(with(json!([{"user": "{{ txt }}"}]))).1.contains("no column `txt`"));
    assert!(problem(with(json!([{"user": "{{ text }}"}, {"assistant": "a"}]))).1.contains("last message"));
    assert_eq!(problem(with(json!([{"user": "{{ text }}"}, {"system": "a"}]))).0, "with.messages[1].system");
    let guided = |guide: Value, finish: Value| {
        let mut with = local(&json!({"temperature": 0}));
        (with["guide"], with["finish"]) = (guide, finish);
        problem(with)
    };
    assert_eq!(guided(json!({"pairs": 0}), json!({})).0, "with.guide.pairs");
    assert_eq!(guided(json!({"regex": "(a"}), json!({})).0, "with.guide.regex");
    assert_eq!(guided(json!({"json": {"type": "strin"}}), json!({})).0, "with.guide.json");
    assert_eq!(guided(json!({"lark": "start: a"}), json!({})).0, "with.guide.lark");
    assert_eq!(guided(json!(null), json!({"length": "retry"})).0, "with.finish.length");
    assert_eq!(guided(json!(null), json!({"context": "retry"})).0, "with.finish.context");
    let mut server = remote("http://h", &json!({}));
    server["guide"] = json!("question-answer");
    assert!(problem(server).1.contains("`json` schema only"));
    let mut bad = local(&json!({"top_p": 1.5}));
    assert_eq!(problem(bad.clone()).0, "with.sample.top_p");
    bad["sample"] = json!({"tempreature": 1});
    assert_eq!(problem(bad).0, "with.sample.tempreature");
    assert_eq!(problem(json!({"model": {"server": "http://h"}, "messages": [{"user": "{{ text }}"}]})).0, "with.model");
}

#[test]
fn a_row_that_cannot_be_rendered_is_a_reject() {
    let (url, _) = serve(|_, body| (200, "", said(body["messages"][0]["content"].as_str().unwrap())));
    let space = Space::default();
    let mut with = remote(&url, &json!({}));
    with["messages"] = json!([{"user": "{{ text | int + 1 }}"}]);
    space.run(&[("a", "41"), ("b", "abc")], with);
    assert_eq!(texts(&space.table(0), "output"), ["42"]);
    let reasons = texts(&space.table(1), "reason");
    assert!(reasons[0].starts_with("message 1 (user) cannot be rendered"), "{reasons:?}");
}

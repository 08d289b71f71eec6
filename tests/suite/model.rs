//! The dear steps, on the real model: prompts are paid for once, training is a function of its question.

use std::io::{BufRead as _, BufReader};
use std::thread::sleep;
use std::time::{Duration, Instant};

use retort_tests::Space;
use serde_json::Value;

const PIPELINE: &str = "\
retort: 1
name: small
models:
  smol: {weights: 'file:MODEL', sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53}
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*.txt']}
  chunks:
    op: chunk
    from: documents
    with: {model: smol, max_tokens: 64}
  answers:
    op: prompt-llm
    from: chunks
    with:
      model: smol
      messages:
        - user: 'Write a question and an answer about this: {{ text }}'
      sample: {temperature: 0.5, max_tokens: 24, seed: 1}
";

pub(crate) fn model() -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let fetched = std::process::Command::new(format!("{root}/.ci/fetch-model")).status().unwrap();
    assert!(fetched.success(), "`.ci/fetch-model` could not fetch the model that this test runs on");
    format!("{root}/target/models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

fn space(documents: usize) -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("small.yaml", &PIPELINE.replace("MODEL", &model()));
    for n in 0..documents {
        let text =
            format!("The machine number {n} has {} megabytes of memory and a disk that is called sd{n}a.", 8 * (n + 1));
        space.write(&format!("docs/{n}.txt"), &text);
    }
    space
}

#[test]
fn a_killed_run_keeps_what_it_finished() {
    let space = space(48);
    let mut run = space.start(&["run", "small.yaml", "--json"]);
    let log = space.path().join(".retort/rows");
    let begun = Instant::now();
    let size = || -> u64 {
        let files = walkdir::WalkDir::new(&log).into_iter().flatten();
        files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|data| data.len()).sum()
    };
    // The documents' and chunks' rows are small; kill once answers have come.
    let answers = || walkdir::WalkDir::new(&log).max_depth(1).into_iter().flatten().count() > 2;
    while !(answers() && size() > 0) && begun.elapsed() < Duration::from_mins(5) {
        assert!(run.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(300));
    run.kill().unwrap();
    run.wait().unwrap();

    let story = space.run("small.yaml");
    let (recalled, of) = story.recalled("answers").unwrap();
    assert!(recalled > 0 && of == 48, "{recalled} of {of}");
    assert!(story.ran().contains(&format!("answers: {}", of - recalled)), "{:?}", story.ran());

    // The same answers as a run that nobody disturbed.
    let undisturbed = self::space(48);
    undisturbed.run("small.yaml");
    assert_eq!(space.rows("small.yaml", "answers"), undisturbed.rows("small.yaml", "answers"));
}

#[test]
fn one_changed_document_costs_one_prompt_and_no_answer_but_its_own_changes() {
    let space = space(6);
    space.run("small.yaml");
    let before = space.rows("small.yaml", "answers");
    space.edit("docs/4.txt", "a disk", "a fast disk");
    let story = space.run("small.yaml");
    // Cutting is cheaper than a look-up, so it is done again for all; what is dear is asked for the one.
    assert_eq!(story.ran(), ["answers: 1", "chunks: 6", "documents: 1"]);
    let after = space.rows("small.yaml", "answers");
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!((before.len(), after.len(), changed), (6, 6, 1));
}

#[test]
fn a_row_answers_alike_alone_and_in_company() {
    let company = space(5);
    company.run("small.yaml");
    let alone = space(5);
    for n in [0, 1, 3, 4] {
        std::fs::remove_file(alone.path().join(format!("docs/{n}.txt"))).unwrap();
    }
    alone.run("small.yaml");
    assert_eq!(alone.rows("small.yaml", "answers")[0], company.rows("small.yaml", "answers")[2]);
}

/// Starts a run, and reads its events until it has ended or `done` answers have come, with the time of each count.
fn watch(run: &mut std::process::Child, done: u64) -> Vec<(Instant, u64)> {
    let mut counts = Vec::new();
    for line in BufReader::new(run.stdout.as_mut().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "progress" && event["node"] == "answers" {
            counts.push((Instant::now(), event["done"].as_u64().unwrap()));
            if counts.last().is_some_and(|&(_, n)| n >= done) {
                break;
            }
        }
    }
    counts
}

#[test]
fn what_was_answered_two_seconds_before_a_kill_is_durable() {
    let space = space(120);
    let mut run = space.start(&["run", "small.yaml", "--json"]);
    let counts = watch(&mut run, 60);
    assert!(run.try_wait().unwrap().is_none(), "the run ended before it could be killed");
    run.kill().unwrap();
    let killed = Instant::now();
    run.wait().unwrap();
    let before =
        |age: Duration| counts.iter().filter(|(at, _)| killed - *at >= age).map(|&(_, n)| n).max().unwrap_or(0);
    let (recalled, _) = space.run("small.yaml").recalled("answers").unwrap();
    assert!(before(Duration::ZERO) > 0 && recalled >= before(Duration::from_secs(2)), "{recalled} of {counts:?}");
}

#[test]
fn an_interrupted_run_keeps_what_it_finished_and_ends_within_two_seconds() {
    let space = space(120);
    space.edit("small.yaml", "max_tokens: 24", "max_tokens: 400");
    let mut run = space.start(&["run", "small.yaml", "--json"]);
    let counts = watch(&mut run, 1);
    let begun = Instant::now();
    let sent = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    assert!(sent.success());
    // Somebody must read what it still says.
    let output = run.wait_with_output().unwrap();
    let took = begun.elapsed();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let plan = space.plan("small.yaml");
    let answers = plan["nodes"].as_array().unwrap().iter().find(|node| node["node"] == "answers").unwrap();
    let left = answers["rows"].as_u64().unwrap();
    assert!(left <= 120 - counts.last().unwrap().1, "{answers}");
}

//! Many at once: eight runs on one store, one of them killed. The others finish with the right answers, each question is
//! answered once, a wait is seen and can be broken off.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use retort_cache::{Digest, Disk, Recipe, RowAnswer, RowKey, Store};
use retort_tests::{Space, Story};
use serde_json::Value;

use crate::server::Server;

const DOCUMENTS: usize = 24;
const PARALLEL: usize = 4;
const ENOUGH: usize = 1_000_000;

const PIPELINE: &str = "\
retort: 1
name: NAME
models:
  m: MODEL
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*.txt']}
  answers:
    op: prompt-llm
    from: documents
    with:
      model: m
      messages:
        - user: 'PROMPT about: {{ text }}'
      sample: {seed: 1}
  pairs:
    op: parse
    from: answers
    with: {format: question-answer}
  sets:
    op: split-eval
    from: pairs
    with: {eval: 0.25, group_by: doc_id, seed: 1}
";

/// A folder with documents and pipelines `p0.yaml`, `p1.yaml` …, each with a prompt of its own.
fn space(server: &Server, pipelines: usize) -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    for n in 0..DOCUMENTS {
        space.write(&format!("docs/{n}.txt"), &format!("The machine number {n} has {} megabytes.", 8 * (n + 1)));
    }
    for n in 0..pipelines {
        let prompt = format!("Write a question of kind {n}");
        let text = PIPELINE.replace("MODEL", &server.model(PARALLEL)).replace("PROMPT", &prompt);
        space.write(&format!("p{n}.yaml"), &text.replace("NAME", &format!("p{n}")));
    }
    space
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what}: it never came to that");
        sleep(Duration::from_millis(10));
    }
}

/// Who holds a claim at the moment: process and node.
fn holders(space: &Space) -> Vec<(u32, String)> {
    let claims = fs::read_dir(space.path().join(".retort/claims")).into_iter().flatten().flatten();
    let holder = |path: PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines().skip(1);
        Some((lines.next()?.parse().ok()?, lines.next()?.to_string()))
    };
    claims.filter_map(|entry| holder(entry.path())).collect()
}

/// How many runs have said that they wait for a node.
fn waiting(space: &Space, node: &str) -> usize {
    let runs = fs::read_dir(space.path().join(".retort/runs")).into_iter().flatten().flatten();
    let texts = runs.filter_map(|run| fs::read_to_string(run.path().join("events.jsonl")).ok());
    texts.filter(|text| text.contains(&format!("\"event\":\"waiting\",\"node\":\"{node}\""))).count()
}

/// The tables of a run by node and port.
fn ids(story: &Story) -> BTreeMap<String, String> {
    let summary = story.events.last().unwrap();
    let mut ids = BTreeMap::new();
    for node in summary["nodes"].as_array().unwrap() {
        for output in node["outputs"].as_array().unwrap() {
            let name = format!("{}.{}", node["node"].as_str().unwrap(), output["port"].as_str().unwrap());
            ids.insert(name, output["content"].as_str().unwrap().to_string());
        }
    }
    assert!(ids.contains_key("sets.train"), "{summary}");
    ids
}

/// The ids of a run that nobody disturbs, in a place of its own.
fn alone(server: &Server, n: usize) -> BTreeMap<String, String> {
    ids(&space(server, n + 1).run(&format!("p{n}.yaml")))
}

fn ended(child: Child) -> Story {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Story::of(&output.stdout)
}

/// Rows that a node was asked in these runs.
fn asked(stories: &[Story], node: &str) -> u64 {
    let events = stories.iter().flat_map(|story| &story.events);
    let finished = events.filter(|event| event["event"] == "finished" && event["node"] == node);
    finished.filter_map(|event| event["asked"].as_u64()).sum()
}

#[test]
fn eight_runs_of_one_pipeline_answer_once_though_one_is_killed() {
    let server = Server::start(2 * PARALLEL);
    let space = space(&server, 1);
    let mut runs: Vec<_> = (0..8).map(|_| space.start(&["run", "p0.yaml", "--json"])).collect();
    wait_until("seven wait for the eighth", || waiting(&space, "answers") == 7);
    wait_until("the eighth has asked what the server does not answer", || server.asked() == 3 * PARALLEL);

    // Answers that come within 25 ms are made durable together: those that it has are soon.
    sleep(Duration::from_millis(500));
    let (process, _) = holders(&space).into_iter().find(|(_, node)| node == "p0/answers").unwrap();
    let at = runs.iter().position(|run| run.id() == process).unwrap();
    let mut killed = runs.remove(at);
    killed.kill().unwrap();
    killed.wait().unwrap();
    server.allow(ENOUGH);

    let stories: Vec<_> = runs.into_iter().map(ended).collect();
    let again = asked(&stories, "answers") as usize;
    assert!(again < DOCUMENTS, "what the killed run had finished was not lost: {again}");
    let ran = |story: &&Story| story.ran().iter().any(|node| node.starts_with("answers"));
    assert_eq!(stories.iter().filter(ran).count(), 1, "one answers, the others recall");
    // What was in flight when the run was killed is asked twice, and what was not yet on disk.
    assert!(server.asked() <= DOCUMENTS + 2 * PARALLEL, "{}", server.asked());
    assert_eq!(holders(&space), [], "no lock to remove");
    assert_eq!(space.run("p0.yaml").ran(), Vec::<String>::new());
    let expected = alone(&server, 0);
    for story in &stories {
        assert_eq!(ids(story), expected);
    }
}

#[test]
fn eight_runs_of_four_pipelines_share_what_is_the_same() {
    let server = Server::start(2 * PARALLEL);
    let space = space(&server, 4);
    let mut runs: Vec<_> =
        (0..8).map(|n| (n % 4, space.start(&["run", &format!("p{}.yaml", n % 4), "--json"]))).collect();
    wait_until("four answer and four wait", || waiting(&space, "answers") == 4);
    let (process, node) = holders(&space).into_iter().find(|(_, node)| node.ends_with("/answers")).unwrap();
    let at = runs.iter().position(|(_, run)| run.id() == process).unwrap();
    let (n, mut killed) = runs.remove(at);
    assert_eq!(node, format!("p{n}/answers"));
    killed.kill().unwrap();
    killed.wait().unwrap();
    server.allow(ENOUGH);

    let (numbers, runs): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    let stories: Vec<_> = runs.into_iter().map(ended).collect();
    assert!(asked(&stories, "documents") as usize <= DOCUMENTS, "all read the same documents: once");
    assert!(asked(&stories, "answers") as usize <= 4 * DOCUMENTS);
    assert!(server.asked() <= 4 * DOCUMENTS + 2 * PARALLEL, "{}", server.asked());
    let expected: Vec<_> = (0..4).map(|n| alone(&server, n)).collect();
    for (n, story) in numbers.into_iter().zip(&stories) {
        assert_eq!(ids(story), expected[n], "p{n}");
    }
}

#[test]
fn a_wait_is_seen_and_can_be_broken_off() {
    let server = Server::start(0);
    let space = space(&server, 1);
    let first = space.start(&["run", "p0.yaml", "--json"]);
    wait_until("the first asks", || server.asked() == PARALLEL);
    let mut second = space.start(&["run", "p0.yaml"]);
    let mut errors = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended without a word of waiting");
    }
    assert_eq!(line.trim(), format!("answers: waiting for another run of `answers` (process {})", first.id()));

    let begun = Instant::now();
    let sent = Command::new("kill").args(["-INT", &second.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(130), "{rest}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    server.allow(ENOUGH);
    assert_eq!(ended(first).ran().len(), 4);
    assert_eq!(server.asked(), DOCUMENTS);
}

#[test]
fn two_nodes_that_ask_the_same_ask_once() {
    let server = Server::start(0);
    let space = space(&server, 1);
    let twin = "  pairs:\n    op: parse\n    from: [answers, twin]";
    space.edit("p0.yaml", "  pairs:\n    op: parse\n    from: answers", twin);
    let text = fs::read_to_string(space.path().join("p0.yaml")).unwrap();
    let from = text.find("  answers:").unwrap();
    let node = text[from..text.find("  pairs:").unwrap()].replace("answers:", "twin:");
    space.write("p0.yaml", &format!("{text}{node}"));

    let run = space.start(&["run", "p0.yaml", "--json", "-j", "4"]);
    wait_until("one asks and the other waits", || waiting(&space, "answers") + waiting(&space, "twin") == 1);
    server.allow(ENOUGH);
    let story = ended(run);
    let happened = |event: &str, node: &str| {
        let mut events = story.events.iter();
        events.any(|seen: &Value| seen["event"] == event && seen["node"] == node)
    };
    assert_eq!(server.asked(), DOCUMENTS);
    assert!(happened("finished", "answers") != happened("finished", "twin"));
    assert!(happened("fresh", "answers") != happened("fresh", "twin"));
}

#[test]
fn runs_that_are_forced_take_turns() {
    let server = Server::start(DOCUMENTS);
    let space = space(&server, 1);
    let before = ids(&space.run("p0.yaml"));
    let runs: Vec<_> = (0..3).map(|_| space.start(&["run", "p0.yaml", "--json", "--force", "answers"])).collect();
    wait_until("one answers and two wait", || waiting(&space, "answers") == 2);
    server.allow(ENOUGH);
    for run in runs {
        let story = ended(run);
        assert_eq!(story.ran(), [format!("answers: {DOCUMENTS}")]);
        assert_eq!(ids(&story), before);
    }
    assert_eq!(server.asked(), 4 * DOCUMENTS);
    assert!(server.most() <= PARALLEL, "{} at the same time", server.most());
}

#[test]
fn rows_are_remembered_while_segments_are_merged_beside() {
    const WRITERS: u32 = 6;
    const ROUNDS: u32 = 25;
    let folder = tempfile::tempdir().unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("output", DataType::Utf8, false)]));
    let key = |writer: u32, round: u32| {
        RowKey(Digest::of("test 1", |hasher| {
            hasher.update(&(writer << 16 | round).to_le_bytes());
        }))
    };
    let answer = |writer: u32, round: u32| {
        let text: ArrayRef = Arc::new(StringArray::from(vec![format!("{writer} {round}")]));
        RowAnswer::Kept(RecordBatch::try_new(schema.clone(), vec![text]).unwrap().into())
    };
    // A store of its own for each, as processes have: a log is opened, written to and closed again and again.
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (schema, folder) = (schema.clone(), folder.path());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let log = Disk::open(folder).unwrap().rows(Recipe::default().id(), schema.clone()).unwrap();
                    log.commit(&[(key(writer, round), answer(writer, round))]).unwrap();
                    let keys: Vec<_> = (0..=round).map(|round| key(writer, round)).collect();
                    for (at, found) in log.recall(&keys).unwrap().into_iter().enumerate() {
                        assert_eq!(found, Some(answer(writer, at as u32)), "{writer} lost {at} in round {round}");
                    }
                }
            });
        }
    });
    let log = Disk::open(folder.path()).unwrap().rows(Recipe::default().id(), schema.clone()).unwrap();
    let all: Vec<_> = (0..WRITERS).flat_map(|writer| (0..ROUNDS).map(move |round| key(writer, round))).collect();
    assert!(log.knows(&all).unwrap().into_iter().all(|known| known));
}

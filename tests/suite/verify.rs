//! `retort run --verify`: the shipped operators give the same answers again, on any number of threads; what does not is told.

use retort_cache::{Disk, Store};
use retort_tests::{Space, Story};
use serde_json::Value;

const PIPELINE: &str = "\
retort: 1
name: same
nodes:
  documents:
    op: extract
    with: {paths: ['docs/**/*']}
  chunks:
    op: chunk
    from: documents
    with: {max_words: 30}
  texts:
    op: chunk
    from: documents
    with: {max_words: 400}
  pairs:
    op: parse
    from: texts
    with: {format: question-answer, column: text}
  sets:
    op: split-eval
    from: chunks
    with: {eval: 0.3, group_by: doc_id, seed: 1}
  some:
    op: sample
    from: chunks
    with: {share: 0.5, seed: 1}
";

fn space(threads: &str) -> Space {
    let mut space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.set_env("RAYON_NUM_THREADS", threads);
    space.write("same.yaml", PIPELINE);
    for n in 0..12 {
        let body = format!("The swap file number {n} grows while programs ask for memory.\n\n");
        space.write(&format!("docs/{n}.md"), &format!("# Chapter {n}\n\n{}", body.repeat(8)));
        space.write(
            &format!("docs/{n}.txt"),
            &format!("Question: What is {n}?\nAnswer: A number.\n\nQ: Why?\nA: So.\n"),
        );
    }
    space.write("docs/page.html", "<h1>A page</h1><p>Text of a page.</p><ul><li>one</li><li>two</li></ul>");
    space.write("docs/broken.pdf", "%PDF-1.4\nnothing that follows is a PDF\n");
    space
}

/// Name and tables of every node, as the summary has them.
fn nodes(story: &Story) -> Vec<(Value, Value)> {
    let summary = story.events.last().unwrap();
    summary["nodes"].as_array().unwrap().iter().map(|node| (node["node"].clone(), node["outputs"].clone())).collect()
}

#[test]
fn threads_and_jobs_do_not_show_and_every_shipped_operator_is_verified() {
    let (one, many) = (space("1"), space("8"));
    let first = one.run_with("same.yaml", &["-j", "1"]);
    let other = many.run_with("same.yaml", &["-j", "8"]);
    assert_eq!(nodes(&first), nodes(&other));
    assert_eq!(nodes(&first).len(), 6);
    for space in [one, many] {
        let story = space.run_with("same.yaml", &["--verify"]);
        let verified = story.events.iter().filter(|event| event["event"] == "verified").count();
        assert_eq!(verified, 6, "{:?}", story.events);
        assert_eq!(story.events.last().unwrap()["ran"], 6);
    }
}

#[test]
fn a_second_answer_is_told_and_the_first_one_stays() {
    let space = space("2");
    space.run("same.yaml");
    // A record that says something else than the operator does: all the chunks are no half of them.
    let store = Disk::open(space.path().join(".retort")).unwrap();
    let last = |node: &str| store.last(&format!("same/{node}")).unwrap().unwrap();
    let (half, mut changed) = (last("some"), last("some"));
    let all = last("chunks").outputs.remove(0);
    assert_ne!(half.outputs[0].content, all.content);
    changed.outputs[0] = all;
    store.commit("same/some", &changed).unwrap();

    let output = space.retort(&["run", "same.yaml", "--verify", "some"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("some: DIFFERS: `out` row "), "{told}");
    assert!(told.contains("error: `some` has two answers"), "{told}");
    assert_eq!(last("some"), changed, "what is recorded stays");
    let output = space.retort(&["run", "same.yaml", "--verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let differs: Vec<_> =
        Story::of(&output.stdout).events.into_iter().filter(|event| event["event"] == "differs").collect();
    assert_eq!(differs.len(), 1, "{differs:?}");
    assert_eq!(
        (&differs[0]["node"], &differs[0]["now"]),
        (&Value::from("some"), &Value::from(half.outputs[0].content.to_string()))
    );
}

#[test]
fn what_was_never_asked_is_not_verified() {
    let space = space("2");
    let story = space.run_with("same.yaml", &["--verify"]);
    let unverified = story.events.iter().filter(|event| event["event"] == "unverified").count();
    assert_eq!(unverified, 6, "{:?}", story.events);
    assert!(story.ran().is_empty());
}

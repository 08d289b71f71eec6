//! Edit and rerun costs what the edit costs: the pipeline is run from outside, and the story is the assertion.

use expect_test::expect;
use retort_tests::Space;

const PIPELINE: &str = "\
retort: 1
name: words
nodes:
  documents:
    op: extract
    with: {paths: ['docs/**/*.md']}
  chunks:
    op: chunk
    from: documents
    with: {max_words: 40}
  some:
    op: sample
    from: chunks
    with: {share: 1.0, seed: 1}
";

fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("words.yaml", PIPELINE);
    for n in 0..5 {
        let body = "The swap file grows while programs ask for memory. It never shrinks before the next start.\n\n";
        space.write(&format!("docs/{n}.md"), &format!("# Chapter {n}\n\n{}", body.repeat(4)));
    }
    space
}

#[test]
fn the_second_run_does_nothing() {
    let space = space();
    expect![[r#"
        [
            "chunks: 5",
            "documents: 5",
            "some",
        ]
    "#]]
    .assert_debug_eq(&space.run("words.yaml").ran());
    assert!(space.run("words.yaml").ran().is_empty());
    let plan = space.plan("words.yaml");
    assert!(plan["nodes"].as_array().unwrap().iter().all(|node| node["verdict"] == "fresh"), "{plan}");
}

#[test]
fn one_changed_document_costs_one_document() {
    let space = space();
    space.run("words.yaml");
    space.edit("docs/3.md", "never shrinks", "does not shrink");
    let plan = space.plan("words.yaml");
    assert_eq!(plan["nodes"][0]["verdict"], "stale");
    assert_eq!(plan["nodes"][0]["reasons"][0]["fact"], "file docs/3.md");
    assert_eq!(plan["nodes"][1]["verdict"], "waiting");
    let story = space.run("words.yaml");
    assert_eq!(story.why("documents"), ["file docs/3.md"]);
    assert_eq!(story.recalled("documents"), Some((4, 5)));
    assert!(story.ran().contains(&"documents: 1".to_string()), "{:?}", story.ran());
}

#[test]
fn a_plan_says_what_it_is_expected_to_take() {
    let space = space();
    let expected = || -> Vec<_> {
        let plan = space.plan("words.yaml");
        plan["nodes"].as_array().unwrap().iter().map(|node| node["expected"].clone()).collect()
    };
    assert!(expected().iter().all(|expected| expected["seconds"].is_null()), "nothing is known yet");
    space.run("words.yaml");
    assert!(expected().iter().all(serde_json::Value::is_null), "nothing is to run");
    space.edit("docs/3.md", "never shrinks", "does not shrink");
    let expected = expected();
    let rows: Vec<_> = expected.iter().map(|expected| expected["rows"].as_u64()).collect();
    assert_eq!(rows, [Some(1), Some(5), None], "a document is read, all are cut: that is not remembered");
    assert!(expected.iter().all(|expected| expected["seconds"].is_f64()), "{expected:?}");
    // A run that took long.
    let run = std::fs::read_dir(space.path().join(".retort/runs")).unwrap().next().unwrap().unwrap();
    let path = run.path().join("events.jsonl");
    let events = std::fs::read_to_string(&path).unwrap();
    let longer = |line: &str| {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        if event["event"] == "finished" && event["node"] == "documents" {
            event["at"] = 500.0.into();
        }
        event.to_string()
    };
    std::fs::write(&path, events.lines().map(longer).collect::<Vec<_>>().join("\n")).unwrap();
    let (plan, _) = space.ends(0, &["plan", "words.yaml"]);
    let first = |line: &str| line.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = plan.lines().map(first).collect();
    let wanted = [
        "node verdict rows time why",
        "documents stale 1 of 5 ~1",
        "chunks waiting ~5 <1 s if",
        "some waiting <1 s if `chunks`",
        "1 node to run, 2 that",
    ];
    assert_eq!(lines, wanted, "{plan}");
    assert!(plan.ends_with("~1 min 40 s by what the runs before took\n"), "{plan}");
}

#[test]
fn what_changes_no_meaning_runs_nothing() {
    let space = space();
    space.run("words.yaml");
    space.edit("words.yaml", "nodes:", "# a comment\nnodes:");
    space.edit("words.yaml", "    op: chunk\n    from: documents\n", "    from: documents\n    op: chunk\n");
    space.edit("words.yaml", "{max_words: 40}", "{overlap: 0, max_words: 40}");
    assert!(space.run("words.yaml").ran().is_empty());
}

#[test]
fn a_changed_value_names_itself() {
    let space = space();
    space.run("words.yaml");
    space.edit("words.yaml", "max_words: 40", "max_words: 30");
    let story = space.run("words.yaml");
    assert_eq!(story.why("chunks"), ["with.max_words"]);
    assert!(!story.ran().iter().any(|node| node.starts_with("documents")));
}

#[test]
fn an_edit_without_consequence_stops_there() {
    let space = space();
    space.run("words.yaml");
    // Another file, the same text: the document is read again, and nothing after it runs.
    space.edit("docs/2.md", "# Chapter 2\n", "Chapter 2\n=========\n");
    assert_eq!(space.run("words.yaml").ran(), ["documents: 1"]);
}

#[test]
fn a_broken_file_is_a_reject_and_not_a_failed_run() {
    let space = space();
    space.write("words.yaml", &PIPELINE.replace("*.md", "*"));
    std::fs::write(space.path().join("docs/broken.pdf"), b"%PDF-1.4\nnothing that follows is a PDF\n").unwrap();
    space.run("words.yaml");
    let rejects = space.rows("words.yaml", "documents.rejects");
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(rejects[0]["path"], "docs/broken.pdf");
    assert!(!rejects[0]["reason"].as_str().unwrap().is_empty());
    assert_eq!(space.rows("words.yaml", "documents").len(), 5);
}

#[test]
fn mistakes_end_with_status_two_and_nothing_runs() {
    let space = space();
    space.edit("words.yaml", "op: chunk", "op: chunck");
    let output = space.retort(&["run", "words.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("did you mean `chunk`?") && text.contains("words.yaml:8:"), "{text}");
}

/// A handbook of three chapters in files of their own, chunked with what they point to.
const HANDBOOK: &str = "\
retort: 1
name: handbook
nodes:
  documents: {op: extract, with: {paths: ['docs/*.md']}}
  resolved: {op: resolve, from: documents}
  chunks: {op: chunk, from: resolved, with: {max_words: 80, references: text}}
";

#[test]
fn what_a_reference_leads_to_is_said_and_only_its_change_changes_the_chunk() {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("handbook.yaml", HANDBOOK);
    space.write("docs/1.md", "# Chapter 1: Disks\n\nA full disk stops printing, see chapter 2. Chapter 9 is lost.\n");
    space.write("docs/2.md", "# Chapter 2: Printing\n\nA queue holds jobs.\n\nIt is served in turn.\n");
    let texts = || -> Vec<String> {
        let rows = space.rows("handbook.yaml", "chunks");
        rows.iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect()
    };
    space.run("handbook.yaml");
    let first = texts();
    assert!(first[0].ends_with("\n\nSee:\n- Chapter 2: Printing: A queue holds jobs."), "{first:?}");
    let nowhere = space.rows("handbook.yaml", "resolved.unresolved");
    assert_eq!(nowhere.len(), 1, "{nowhere:?}");
    assert_eq!(nowhere[0]["reason"], "no other part of the work has a chapter 9");

    // What is said of the target stays: so does the chunk that points to it.
    space.edit("docs/2.md", "in turn", "by turns");
    space.run("handbook.yaml");
    assert_eq!(texts()[0], first[0]);
    space.edit("docs/2.md", "holds jobs", "keeps jobs");
    space.write("docs/3.md", "# Chapter 3: Mail\n\nLetters.\n");
    space.run("handbook.yaml");
    assert_eq!(texts()[0], first[0].replace("holds", "keeps"));
    // No other chunk has changed, and the row of a document without news is the same row.
    assert_eq!(texts().len(), 3);
    let trace = space.retort(&["trace", "handbook.yaml", "chunks", "0"]);
    let said = String::from_utf8_lossy(&trace.stdout).into_owned();
    assert!(trace.status.success() && said.contains("docs/1.md"), "{said}");
}

//! `retort trace`, driven from outside: a question goes back to the paragraph that it was taken from, a document forward to the
//! sides of the split.

use expect_test::expect;
use retort_tests::Space;
use serde_json::Value;

/// Pairs stand in the documents themselves, so that no model is needed.
const PIPELINE: &str = "\
retort: 1
name: pairs
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*']}
  chunks:
    op: chunk
    from: documents
    with: {max_words: 40, min_tokens: 0}
  pairs:
    op: parse
    from: chunks
    with: {format: question-answer, column: text}
  sets:
    op: split-eval
    from: pairs
    with: {eval: 0.5, group_by: doc_id, seed: 1}
";

fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("pairs.yaml", PIPELINE);
    let pair = |subject: &str| {
        format!(
            "Question: What keeps {subject}?\n\nAnswer: A daemon looks after {subject} until the machine is shut down.\n\n"
        )
    };
    let page = |title: &str, first: &str, second: &str| {
        format!("# {title}\n\nNothing is asked here.\n\n## Queues\n\n{}## Swap\n\n{}", pair(first), pair(second))
    };
    space.write("docs/printing.md", &page("Printing", "the print queue", "the spool folder"));
    space.write("docs/memory.md", &page("Memory", "the swap file", "the page table"));
    space.write("docs/users.md", &page("Users", "the home folder", "the password file"));
    space
        .write("docs/about.md", "# About\n\nThe machine is a black cube that stands on a desk and is asked nothing.\n");
    std::fs::write(space.path().join("docs/broken.pdf"), b"%PDF-1.4\nnothing that follows is a PDF\n").unwrap();
    space.run("pairs.yaml");
    space
}

/// What a trace prints, without the digests.
fn traced(space: &Space, args: &[&str]) -> String {
    let mut all = vec!["trace", "pairs.yaml"];
    all.extend_from_slice(args);
    let is_digest = |line: &&str| ["digest: ", "doc_id: ", "chunk_id: "].iter().any(|name| line.contains(name));
    let (out, _) = space.ends(0, &all);
    out.split_inclusive('\n').filter(|line| !is_digest(line)).collect()
}

#[test]
fn a_question_goes_back_to_its_paragraph() {
    let space = space();
    expect![[r#"
        pairs row 0 (parse)
        │   question: What keeps the swap file?
        │   answer: A daemon looks after the swap file until the machine is shut down.
        └─ chunks row 1 (chunk)
           │   heading_path: [Memory]
           │   start: 0
           │   end: 151
           │   n_tokens: 26
           │   text: Memory Nothing is asked here. Queues Question: Wha…ter the swap file until the machine is shut down.
           └─ documents row 1 (extract)
              │   path: docs/memory.md
              │   context: Memory
              │   title: Memory
              ├─ heading, bytes 0 to 6
              │      Memory
              ├─ paragraph under Memory, bytes 8 to 30
              │      Nothing is asked here.
              ├─ heading, bytes 32 to 38
              │      Queues
              ├─ paragraph under Memory > Queues, bytes 40 to 75
              │      Question: What keeps the swap file?
              ├─ paragraph under Memory > Queues, bytes 77 to 151
              │      Answer: A daemon looks after the swap file until the machine is shut down.
              └─ documents.files row 2 (extract)
                     path: docs/memory.md
                     bytes: 282
    "#]]
    .assert_eq(&traced(&space, &["pairs", "question~swap file"]));
}

#[test]
fn a_side_of_a_split_and_a_refused_row_go_back_too() {
    let space = space();
    expect![[r#"
        sets.eval row 0 (split-eval)
        └─ pairs row 0 (parse)
           │   question: What keeps the swap file?
           │   answer: A daemon looks after the swap file until the machine is shut down.
           └─ chunks row 1 (chunk)
              │   heading_path: [Memory]
              │   start: 0
              │   end: 151
              │   n_tokens: 26
              │   text: Memory Nothing is asked here. Queues Question: Wha…ter the swap file until the machine is shut down.
              └─ documents row 1 (extract)
                 │   path: docs/memory.md
                 │   context: Memory
                 │   title: Memory
                 ├─ heading, bytes 0 to 6
                 │      Memory
                 ├─ paragraph under Memory, bytes 8 to 30
                 │      Nothing is asked here.
                 ├─ heading, bytes 32 to 38
                 │      Queues
                 ├─ paragraph under Memory > Queues, bytes 40 to 75
                 │      Question: What keeps the swap file?
                 ├─ paragraph under Memory > Queues, bytes 77 to 151
                 │      Answer: A daemon looks after the swap file until the machine is shut down.
                 └─ documents.files row 2 (extract)
                        path: docs/memory.md
                        bytes: 282
    "#]]
    .assert_eq(&traced(&space, &["sets.eval", "0"]));
    expect![[r#"
        pairs.rejects row 0 (parse)
        │   reason: no question found
        └─ chunks row 0 (chunk)
           │   heading_path: [About]
           │   start: 0
           │   end: 78
           │   n_tokens: 16
           └─ documents row 0 (extract)
              │   path: docs/about.md
              │   context: About
              │   title: About
              ├─ heading, bytes 0 to 5
              │      About
              ├─ paragraph under About, bytes 7 to 78
              │      The machine is a black cube that stands on a desk and is asked nothing.
              └─ documents.files row 0 (extract)
                     path: docs/about.md
                     bytes: 81
    "#]]
    .assert_eq(&traced(&space, &["pairs.rejects", "0"]));
    expect![[r#"
        documents.rejects row 0 (extract)
        │   path: docs/broken.pdf
        │   bytes: 39
        │   reason: not a readable pdf file: Invalid cross-reference table
        └─ documents.files row 1 (extract)
               path: docs/broken.pdf
               bytes: 39
    "#]]
    .assert_eq(&traced(&space, &["documents.rejects", "0"]));
}

#[test]
fn a_document_goes_forward_to_the_sides() {
    let space = space();
    expect![[r#"
        documents row 1 (extract)
        │   path: docs/memory.md
        │   context: Memory
        │   title: Memory
        ├─ chunks row 1 (chunk)
        │  │   heading_path: [Memory]
        │  │   start: 0
        │  │   end: 151
        │  │   n_tokens: 26
        │  │   text: Memory Nothing is asked here. Queues Question: Wha…ter the swap file until the machine is shut down.
        │  └─ pairs row 0 (parse)
        │     │   question: What keeps the swap file?
        │     │   answer: A daemon looks after the swap file until the machine is shut down.
        │     └─ sets.eval row 0 (split-eval)
        └─ chunks row 2 (chunk)
           │   heading_path: [Memory, Swap]
           │   start: 153
           │   end: 272
           │   n_tokens: 22
           │   text: Memory Swap Question: What keeps the page table? A…er the page table until the machine is shut down.
           └─ pairs row 1 (parse)
              │   question: What keeps the page table?
              │   answer: A daemon looks after the page table until the machine is shut down.
              └─ sets.eval row 1 (split-eval)
    "#]]
    .assert_eq(&traced(&space, &["documents", "path~memory", "--forward"]));
    expect![[r#"
        documents.files row 1 (extract)
        │   path: docs/broken.pdf
        │   bytes: 39
        └─ documents.rejects row 0 (extract)
               reason: not a readable pdf file: Invalid cross-reference table
    "#]]
    .assert_eq(&traced(&space, &["documents.files", "path~broken", "--forward"]));
}

#[test]
fn every_pair_is_found_where_it_stands() {
    let space = space();
    let rows = space.rows("pairs.yaml", "pairs");
    assert!(rows.len() >= 6, "{}", rows.len());
    for (at, row) in rows.iter().enumerate() {
        let trace = space.ends(0, &["trace", "pairs.yaml", "pairs", &at.to_string(), "--json"]).0;
        let trace: Value = serde_json::from_str(&trace).unwrap();
        assert_eq!(trace["values"]["question"], row["question"]);
        let chunk = &trace["from"][0]["rows"][0];
        let document = &chunk["from"][0]["rows"][0];
        let file = &document["from"][0]["rows"][0];
        assert_eq!(
            (&chunk["node"], &document["node"], &file["output"]),
            (&"chunks".into(), &"documents".into(), &"files".into())
        );
        assert_eq!((&document["values"]["path"], &file["values"]["path"]), (&row["path"], &row["path"]));
        // The question's words stand in a passage that is cited, at the bytes that are named.
        let passages = document["passages"].as_array().unwrap();
        let source = &space.rows("pairs.yaml", "documents")[document["row"].as_u64().unwrap() as usize];
        for passage in passages {
            let (start, end) = (passage["start"].as_u64().unwrap() as usize, passage["end"].as_u64().unwrap() as usize);
            assert_eq!(&source["text"].as_str().unwrap()[start..end], passage["text"].as_str().unwrap());
        }
        let question = row["question"].as_str().unwrap();
        assert!(passages.iter().any(|passage| passage["text"].as_str().unwrap().contains(question)), "{question}");
    }
}

#[test]
fn a_row_that_can_not_be_told_from_others_is_asked_for() {
    let space = space();
    let (_, err) = space.ends(2, &["trace", "pairs.yaml", "pairs", "path~m"]);
    assert!(
        err.starts_with("error: 6 rows of `pairs` meet `path~m`\nhint: name one by its number: 0, 1, 2, 3, 4, …"),
        "{err}"
    );
    let (_, err) = space.ends(2, &["trace", "pairs.yaml", "pairs", "600"]);
    assert_eq!(err, "error: `pairs` has no row 600\nhint: its rows are 0 to 5\n");
    let (_, err) = space.ends(2, &["trace", "pairs.yaml", "pairs", "qestion=x"]);
    assert!(err.starts_with("error: no column `qestion`"), "{err}");
}

#[test]
fn what_changed_since_and_what_was_forgotten_is_said() {
    let space = space();
    std::fs::remove_dir_all(space.path().join(".retort/rows")).unwrap();
    let shown = traced(&space, &["documents", "0"]);
    assert!(shown.contains("can't be followed: remembered rows of `documents` are gone from the store"), "{shown}");
    space.edit("pairs.yaml", "max_words: 40", "max_words: 60");
    let shown = traced(&space, &["pairs", "0"]);
    assert!(shown.contains("can't be followed: `chunks`, or what feeds it, changed after it last ran"), "{shown}");
}

//! `retort diff`, and the reasons of `retort plan`, driven from outside: down to the changed value and the changed row.

use std::fs;

use expect_test::expect;
use serde_json::Value;

use crate::history::{runs, said, space};

#[test]
fn two_runs_differ_in_facts_tables_and_rows() {
    let space = space();
    space.run("words.yaml");
    space.edit("docs/users.md", "never shrinks", "does not shrink");
    fs::remove_file(space.path().join("docs/printing.md")).unwrap();
    space.run_with("words.yaml", &["--set", "words=80"]);
    expect![[r#"
        - run RUN of words, done
        + run RUN of words, done

        documents (extract)
          input.files (documents.files) DIGEST → DIGEST
          out: 3 rows → 2 rows: 1 same, 1 changed, 1 removed, by doc_id
            ~ row 1, path docs/users.md
                text: …ograms ask for more. It never shrinks before the next start. … → …ograms ask for more. It does not shrink before the next start. …
                blocks: changed
            - row 1, path docs/printing.md
                context: About printing
                title: About printing
                text: About printing The print queue grows whi…It never shrinks before the next start.
                blocks: …
                links: []
                anchors: …
          files: 3 rows → 2 rows: 1 same, 1 changed, 1 removed, by path
            ~ row 1, path docs/users.md
                digest: DIGEST → DIGEST
                bytes: 383 → 385
            - row 1, path docs/printing.md
                digest: DIGEST
                bytes: 386

        chunks (chunk)
          with.max_words 40 → 80
          input.from (documents) DIGEST → DIGEST
          out: 6 rows → 2 rows: 2 added, 6 removed, by doc_id, chunk_id
            + row 0, path docs/memory.md, chunk_id e283e2e5cfe3c513-20834f1660
                context: About memory
                title: About memory
                heading_path: ["About memory"]
                start: 0
                end: 372
                n_tokens: 66
                text: About memory The swap file grows while p…It never shrinks before the next start.
            - row 0, path docs/memory.md, chunk_id e283e2e5cfe3c513-ee15fb529c
                context: About memory
                title: About memory
                heading_path: ["About memory"]
                start: 0
                end: 192
                n_tokens: 34
                text: About memory The swap file grows while p…It never shrinks before the next start.

        some (sample)
          input.from (chunks) DIGEST → DIGEST
          out: 6 rows → 2 rows: 2 added, 6 removed, by doc_id, chunk_id
            + row 0, path docs/memory.md, chunk_id e283e2e5cfe3c513-20834f1660
                context: About memory
                title: About memory
                heading_path: ["About memory"]
                start: 0
                end: 372
                n_tokens: 66
                text: About memory The swap file grows while p…It never shrinks before the next start.
            - row 0, path docs/memory.md, chunk_id e283e2e5cfe3c513-ee15fb529c
                context: About memory
                title: About memory
                heading_path: ["About memory"]
                start: 0
                end: 192
                n_tokens: 34
                text: About memory The swap file grows while p…It never shrinks before the next start.

    "#]]
    .assert_eq(&said(&space, &["diff", "@2", "@1", "-n", "1"]));
    expect![[r#"
        - run RUN of words, done
        + run RUN of words, done

        documents (extract)
          input.files (documents.files) DIGEST → DIGEST
          out: 2 rows → 3 rows: 1 same, 1 changed, 1 added, by doc_id
            + row 1, path docs/printing.md
                context: About printing
                title: About printing
                text: About printing The print queue grows whi…It never shrinks before the next start.
                blocks: …
                links: []
                anchors: …
            ~ row 2, path docs/users.md
                text: …ograms ask for more. It does not shrink before the next start. … → …ograms ask for more. It never shrinks before the next start. …
                blocks: changed
          files: 2 rows → 3 rows: 1 same, 1 changed, 1 added, by path
            + row 1, path docs/printing.md
                digest: DIGEST
                bytes: 386
            ~ row 2, path docs/users.md
                digest: DIGEST → DIGEST
                bytes: 385 → 383

    "#]]
    .assert_eq(&said(&space, &["diff", "@1", "@2", "--node", "documents"]));
    assert_eq!(said(&space, &["diff", "@1", "@1"]).lines().last(), Some("the same: documents, chunks, some"));

    let diff: Value = serde_json::from_str(&space.ends(0, &["diff", "@2", "@1", "--json"]).0).unwrap();
    assert_eq!((&diff["different"], &diff["nodes"][1]["node"]), (&true.into(), &"chunks".into()));
    assert_eq!(diff["nodes"][1]["facts"][0]["fact"], "with.max_words");
    assert_eq!(diff["nodes"][1]["facts"][1]["from"][0], "documents");
    let rows = &diff["nodes"][0]["tables"][0]["rows"];
    assert_eq!((&rows["same"], &rows["changed"], &rows["removed"]), (&1.into(), &1.into(), &1.into()));
}

#[test]
fn the_exit_code_says_whether_something_differs_where_it_is_asked_for() {
    let space = space();
    space.run("words.yaml");
    space.run("words.yaml");
    space.ends(0, &["diff", "@2", "@1", "--exit-code"]);
    space.run_with("words.yaml", &["--set", "words=20"]);
    space.ends(1, &["diff", "@2", "@1", "--exit-code"]);
    space.ends(0, &["diff", "@2", "@1"]);
    let (_, err) = space.ends(2, &["diff", "@2", "@1", "--node", "chunk"]);
    assert_eq!(err, "error: neither side has a node `chunk`\nhint: did you mean `chunks`?\n");
    let (_, err) = space.ends(2, &["diff", "nowhere.yaml", "@1"]);
    assert!(err.contains("nowhere.yaml"), "{err}");
}

#[test]
fn pipelines_differ_before_they_run_and_from_what_ran() {
    let space = space();
    space.run("words.yaml");
    let text = fs::read_to_string(space.path().join("words.yaml")).unwrap();
    let other = text.replace("share: 1.0", "rows: 2").replace("words: 40", "words: 50");
    space.write("other.yaml", &(other + "  more:\n    op: sample\n    from: some\n    with: {rows: 1, seed: 1}\n"));
    expect![[r#"
        - pipeline words (words.yaml)
        + pipeline words (other.yaml)

        chunks (chunk)
          answered → stale
          with.max_words 40 → 50

        some (sample)
          answered → waiting
          with.rows added: 2
          with.share removed: 1.0

        + only here: more
        the same: documents
    "#]]
    .assert_eq(&said(&space, &["diff", "words.yaml", "other.yaml"]));
    expect![[r#"
        - run RUN of words, done
        + pipeline words (words.yaml)

        the same: documents, chunks, some
    "#]]
    .assert_eq(&said(&space, &["diff", "latest", "words.yaml"]));
}

#[test]
fn what_a_run_used_may_be_gone() {
    let space = space();
    space.run("words.yaml");
    space.run_with("words.yaml", &["--set", "words=20"]);
    for folder in ["answers", "tables"] {
        fs::remove_dir_all(space.path().join(".retort").join(folder)).unwrap();
    }
    expect![[r#"
        - run RUN of words, done
        + run RUN of words, done

        chunks
          its facts are gone from the store
          out: 6 rows → 12 rows; a table is gone from the store

        some
          its facts are gone from the store
          out: 6 rows → 12 rows; a table is gone from the store

        the same: documents
    "#]]
    .assert_eq(&said(&space, &["diff", "@2", "@1"]));
    assert_eq!(runs(&space).len(), 2);
}

#[test]
fn a_plan_says_why_down_to_the_value_and_the_row() {
    let space = space();
    space.run("words.yaml");
    space.edit("docs/users.md", "never shrinks", "does not shrink");
    space.write("docs/new.md", "# New\n\nThere was nothing of the kind.\n");
    expect![[r#"
        node  verdict  rows  why
        documents  stale  2 of 4  file docs/new.md added
                                    file docs/users.md changed DIGEST → DIGEST
        chunks  waiting  ~4  if `documents` changes (file docs/new.md added, file docs/users.md changed)
        some  waiting  if `chunks` changes (`documents`: file docs/new.md added, file docs/users.md changed)
        1 node to run, 2 that may have to
    "#]]
    .assert_eq(&said(&space, &["plan", "words.yaml"]));
    // What feeds it has run: the rows behind the changed input are named.
    space.run_with("words.yaml", &["documents"]);
    expect![[r#"
        node  verdict  rows  why
        documents  fresh  4
        chunks  stale  4  with.max_words 40 → 30
                                  input.from (documents) DIGEST → DIGEST: 2 same, 1 changed, 1 added, by doc_id
                                    + path docs/new.md
                                    ~ path docs/users.md
        some  waiting  if `chunks` changes (with.max_words 40 → 30, input.…m DIGEST → DIGEST)
        1 node to run, 1 that may have to
    "#]]
    .assert_eq(&said(&space, &["plan", "words.yaml", "--set", "words=30"]));
    let plan = space.plan("words.yaml");
    let reason = &plan["nodes"][1]["reasons"][0];
    assert_eq!((&reason["fact"], &reason["from"]), (&"input.from".into(), &"documents".into()));
    assert_eq!((&reason["rows"]["changed"], &reason["rows"]["added"]), (&1.into(), &1.into()));
    assert_eq!(plan["nodes"][2]["waits_for"][0], "chunks");
}

#[test]
fn a_changed_prompt_is_shown_by_what_changed() {
    let space = space();
    // A pattern is a long text as a prompt is, and needs no model.
    let parse = |pattern: &str| {
        let text = fs::read_to_string(space.path().join("words.yaml")).unwrap();
        let head = text.split("  found:").next().unwrap().to_string();
        let lines = pattern.replace('\n', "\n        ");
        space.write(
            "words.yaml",
            &format!("{head}  found:\n    op: parse\n    from: chunks\n    with:\n      format: regex\n      column: text\n      pattern: |\n        {lines}\n"),
        );
    };
    parse("(?x) (?<subject> The \\s \\w+ \\s \\w+)\n# what it does\n\\s (?<verb> grows)\n\\s while");
    space.run("words.yaml");
    parse("(?x) (?<subject> The \\s \\w+ \\s \\w+)\n# what it does\n\\s (?<verb> grows | shrinks)\n\\s while");
    expect![[r#"
        node  verdict  rows  why
        documents  fresh  3
        chunks  fresh  6
        found  stale  6  with.pattern changed
                                    - \s (?<verb> grows)
                                    + \s (?<verb> grows | shrinks)
        1 node to run
    "#]]
    .assert_eq(&said(&space, &["plan", "words.yaml", "found"]));
    space.run("words.yaml");
    expect![[r#"
        - run RUN of words, done
        + run RUN of words, done

        found (parse)
          with.pattern changed
            - \s (?<verb> grows)
            + \s (?<verb> grows | shrinks)

        the same: documents, chunks, some
    "#]]
    .assert_eq(&said(&space, &["diff", "@2", "@1"]));
}

//! `filter`, `sql` and `retort sql`, driven from outside: what comes out, what an edit costs, how rows are traced, what is said of mistakes.

use expect_test::expect;
use retort_tests::Space;

const PIPELINE: &str = "\
retort: 1
name: pairs
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*']}
  pairs:
    op: parse
    from: documents
    with: {format: question-answer, column: text}
  good:
    op: filter
    from: pairs
    with: {where: \"length(answer) > 12 AND question LIKE '%?'\"}
  by_page:
    op: sql
    from: {good: good, bad: good.rejects, documents: documents}
    with:
      query: |
        SELECT documents.path AS page, count(good.question) AS good,
               (SELECT count(*) FROM bad) AS bad_in_all
        FROM documents LEFT JOIN good ON documents.doc_id = good.doc_id
        GROUP BY documents.path
        ORDER BY page
  some:
    op: sample
    from: by_page
    with: {rows: 2}
  sets:
    op: split-eval
    from: pairs
    with: {eval: 0.5}
";

fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("pairs.yaml", PIPELINE);
    let pair = |question: &str, answer: &str| format!("Question: {question}\n\nAnswer: {answer}\n\n");
    let page = |title: &str, pairs: &[String]| format!("# {title}\n\n{}", pairs.concat());
    let daemon = |what: &str| pair(&format!("What keeps {what}?"), &format!("A daemon keeps {what}."));
    space.write("docs/a.md", &page("Printing", &[daemon("the queue"), pair("Is it?", "Yes.")]));
    space.write("docs/b.md", &page("Memory", &[daemon("the swap file"), daemon("the page table")]));
    space.write("docs/c.md", "# About\n\nNothing is asked here.\n");
    space
}

#[test]
fn rows_are_filtered_joined_and_counted() {
    let space = space();
    space.run("pairs.yaml");
    let (out, _) = space.ends(0, &["show", "pairs.yaml", "by_page"]);
    expect![[r#"
        page       good  bad_in_all
        docs/a.md     1           1
        docs/b.md     2           1
        docs/c.md     0           1
    "#]]
    .assert_eq(&out);
    let (out, _) = space.ends(0, &["show", "pairs.yaml", "good", "--rejects", "--columns", "question,reason"]);
    expect![[r#"
        question  reason
        Is it?    false: length(answer) > 12 AND question LIKE '%?'
    "#]]
    .assert_eq(&out);
}

#[test]
fn a_row_of_which_nothing_is_known_or_that_fails_is_refused_with_the_reason() {
    let space = space();
    space.write("docs/d.txt", "Only a paragraph, and no title.\n");
    space.write(
        "titles.yaml",
        "retort: 1\nnodes:\n  documents: {op: extract, with: {paths: ['docs/*']}}\n  \
         p: {op: filter, from: documents, with: {where: \"title LIKE 'P%'\"}}\n  \
         n: {op: filter, from: documents, with: {where: \"CAST(title AS INT) > 0\"}}\n",
    );
    space.run("titles.yaml");
    let (out, _) = space.ends(0, &["show", "titles.yaml", "p", "--columns", "path,title"]);
    expect![[r#"
        path       title
        docs/a.md  Printing
    "#]]
    .assert_eq(&out);
    let (out, _) = space.ends(0, &["show", "titles.yaml", "p", "--rejects", "--columns", "path,reason"]);
    expect![[r#"
        path        reason
        docs/b.md   false: title LIKE 'P%'
        docs/c.md   false: title LIKE 'P%'
        docs/d.txt  null: title LIKE 'P%'
    "#]]
    .assert_eq(&out);
    let (out, _) = space.ends(0, &["show", "titles.yaml", "n", "--rejects", "--columns", "path,reason"]);
    expect![[r#"
        path        reason
        docs/a.md   failed: cast error: Cannot cast string 'Printing' to value of Int32 type
        docs/b.md   failed: cast error: Cannot cast string 'Memory' to value of Int32 type
        docs/c.md   failed: cast error: Cannot cast string 'About' to value of Int32 type
        docs/d.txt  null: CAST(title AS INT) > 0
    "#]]
    .assert_eq(&out);
}

#[test]
fn what_comes_out_equal_stops_the_wave() {
    let space = space();
    space.run("pairs.yaml");
    space.edit("docs/b.md", "A daemon keeps the page table.", "A daemon looks after the page table.");
    let ran = space.run("pairs.yaml").ran();
    assert!(ran.contains(&"by_page".into()) && !ran.contains(&"some".into()), "{ran:?}");
    space.edit("pairs.yaml", "SELECT documents.path", "SELECT /* the page */ documents.path");
    assert_eq!(space.run("pairs.yaml").why("by_page"), ["with.query"]);
    space.edit("pairs.yaml", "      query: |", "      max_memory_mb: 64\n      query: |");
    assert!(space.run("pairs.yaml").ran().is_empty(), "memory changes no answer");
    let verified = space.run_with("pairs.yaml", &["--verify"]);
    assert!(verified.events.iter().any(|event| event["event"] == "verified" && event["node"] == "by_page"));
}

#[test]
fn rows_are_traced_through_a_filter() {
    let space = space();
    space.run("pairs.yaml");
    let (out, _) = space.ends(0, &["trace", "pairs.yaml", "good", "2"]);
    assert!(out.contains("pairs row 3") && out.contains("path: docs/b.md"), "{out}");
    let (out, _) = space.ends(0, &["trace", "pairs.yaml", "good.rejects", "0"]);
    assert!(out.contains("pairs row 1") && out.contains("path: docs/a.md"), "{out}");
    let (out, _) = space.ends(0, &["trace", "pairs.yaml", "by_page", "0"]);
    assert!(out.contains("documents: all 3 rows of documents"), "{out}");
}

#[test]
fn a_query_reads_the_nodes_by_name() {
    let space = space();
    let (_, err) = space.ends(2, &["sql", "pairs.yaml", "SELECT * FROM pairs"]);
    expect![[r#"
        error: `pairs` has no answer yet
        hint: `retort run pairs.yaml pairs` makes one
    "#]]
    .assert_eq(&err);
    space.run("pairs.yaml");
    let query = "SELECT d.title, count(*) AS n FROM pairs p JOIN documents d USING (doc_id) GROUP BY d.title ORDER BY n DESC, title";
    let (out, err) = space.ends(0, &["sql", "pairs.yaml", query]);
    expect![[r#"
        title     n
        Memory    2
        Printing  2
    "#]]
    .assert_eq(&out);
    assert_eq!(err, "2 rows\n");
    let ports = "SELECT (SELECT count(*) FROM \"good.rejects\") AS refused, (SELECT count(*) FROM sets.train) + (SELECT count(*) FROM \"sets.eval\") AS n";
    assert_eq!(space.ends(0, &["sql", "pairs.yaml", ports, "--json"]).0, "{\"refused\":1,\"n\":4}\n");
    let (out, err) = space.ends(0, &["sql", "pairs.yaml", "SELECT question FROM pairs", "-n", "1", "--csv"]);
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("question\nWhat keeps the queue?\n", "the first 1 row; -n shows more, --csv and --json all\n")
    );
    assert_eq!(
        space.ends(0, &["sql", "pairs.yaml", "SELECT now() > '2020-01-01' AS later", "--csv"]).0,
        "later\ntrue\n"
    );
}

#[test]
fn a_file_gets_its_name_when_it_is_whole() {
    let space = space();
    space.run("pairs.yaml");
    let (out, err) = space.ends(0, &["sql", "pairs.yaml", "SELECT question, answer FROM pairs", "-o", "out.parquet"]);
    assert_eq!((out.as_str(), err.as_str()), ("", "wrote out.parquet (4 rows)\n"));
    let batches = retort_cache::parquet::read(&space.path().join("out.parquet")).unwrap();
    assert_eq!(batches.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
    space.ends(0, &["sql", "pairs.yaml", "SELECT answer FROM pairs LIMIT 1", "-o", "out.csv"]);
    assert_eq!(std::fs::read_to_string(space.path().join("out.csv")).unwrap(), "answer\nA daemon keeps the queue.\n");
    let (_, err) = space.ends(2, &["sql", "pairs.yaml", "SELECT answer FROM pairs", "-o", "out.xlsx"]);
    assert!(err.starts_with("error: `out.xlsx` does not say what to write\nhint: "), "{err}");
    let failing = "SELECT CAST(answer AS int) AS n FROM pairs";
    let (_, err) = space.ends(1, &["sql", "pairs.yaml", failing, "-o", "other.parquet"]);
    assert!(err.contains("annot cast string 'A daemon keeps the queue.'"), "{err}");
    assert!(!space.path().join("other.parquet").exists());
}

#[test]
fn mistakes_in_a_query_are_shown_where_they_are() {
    let space = space();
    space.run("pairs.yaml");
    let (_, err) = space.ends(2, &["sql", "pairs.yaml", "SELECT question,\n  anwser\nFROM pairs"]);
    expect![[r#"
        error: no column `anwser`
            anwser
            ^
        hint: did you mean `answer`?
    "#]]
    .assert_eq(&err);
    let (_, err) = space.ends(2, &["sql", "pairs.yaml", "SELECT * FROM pears"]);
    assert_eq!(err, "error: unknown node `pears`\nhint: did you mean `pairs`?\n");
    let (_, err) = space.ends(2, &["sql", "pairs.yaml", "SELECT * FROM sets"]);
    assert_eq!(err, "error: `sets` has several outputs\nhint: name one: \"sets.train\", \"sets.eval\"\n");
    let (_, err) = space.ends(2, &["sql", "pairs.yaml", "DROP TABLE pairs"]);
    assert!(err.starts_with("error: `DROP` is no query\nhint: only `SELECT`"), "{err}");
    let (_, err) = space.ends(
        1,
        &[
            "sql",
            "pairs.yaml",
            "--max-memory-mb",
            "16",
            "SELECT a.value AS x FROM range(3000000) a JOIN range(3000000) b ON a.value = b.value ORDER BY 1",
        ],
    );
    assert!(err.contains("needs more than 16 MiB"), "{err}");
}

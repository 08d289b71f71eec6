//! What happened before, and what differs: `runs`, `log`, driven from outside on a pipeline without a model.
//!
//! Times and names of runs differ from run to run, and digests with every format: they are replaced before an output is compared.

use std::fs;

use expect_test::expect;
use retort_tests::Space;
use serde_json::Value;

const PIPELINE: &str = "\
retort: 1
name: words
params: {words: 40}
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*']}
  chunks:
    op: chunk
    from: documents
    with: {max_words: '${params.words}'}
  some:
    op: sample
    from: chunks
    with: {share: 1.0, seed: 1}
";

pub(crate) fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("words.yaml", PIPELINE);
    for (name, subject) in [("memory", "The swap file"), ("printing", "The print queue"), ("users", "The home folder")]
    {
        let body = format!("{subject} grows while programs ask for more. It never shrinks before the next start.\n\n");
        space.write(&format!("docs/{name}.md"), &format!("# About {name}\n\n{}", body.repeat(4)));
    }
    space
}

pub(crate) fn said(space: &Space, args: &[&str]) -> String {
    steady(&space.ends(0, args).0)
}

pub(crate) fn runs(space: &Space) -> Vec<Value> {
    let runs: Value = serde_json::from_str(&space.ends(0, &["runs", "--json"]).0).unwrap();
    runs["runs"].as_array().unwrap().clone()
}

/// Names of runs, times and digests, made the same for every run.
fn steady(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for part in text.split_inclusive(char::is_whitespace) {
        let bare = part.trim_end().trim_start_matches('(').trim_end_matches([',', ')', ':', ';']);
        let is_day = bare.starts_with("20") && bare.len() == 10 && bare.matches('-').count() == 2;
        let is_run = bare.starts_with("20") && bare.len() > 20 && bare.contains('T');
        let is_clock = bare.ends_with('Z') && bare.matches(':').count() == 2;
        let is_seconds =
            bare == "s" && words.last().is_some_and(|last| last.trim_matches(['(', ' ']).parse::<f64>().is_ok());
        if is_seconds && let Some(last) = words.last_mut() {
            let number = last.trim_matches(['(', ' ']).to_string();
            *last = last.replace(&number, "N");
        }
        let is_digest = bare.len() == 12 && bare.chars().all(|c| c.is_ascii_hexdigit());
        let known = [(is_day, "DAY"), (is_run, "RUN"), (is_clock, "CLOCK"), (is_digest, "DIGEST")];
        let steady = known.iter().find(|(is, _)| *is).map_or(bare, |(_, name)| *name);
        words.push(if bare.is_empty() { part.to_string() } else { part.replacen(bare, steady, 1) });
    }
    words.concat().lines().map(squeezed).collect()
}

/// A line whose columns stand two blanks apart, whatever their widths.
fn squeezed(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let cells: Vec<_> = line.trim().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    format!("{}{}\n", &line[..indent], cells.join("  "))
}

#[test]
fn runs_are_listed_newest_first_with_what_was_asked() {
    let space = space();
    assert_eq!(space.ends(0, &["runs"]).1, "no runs in `.retort`\n");
    space.run("words.yaml");
    space.run_with("words.yaml", &["chunks", "--set", "words=20"]);
    space.write("other.yaml", &PIPELINE.replace("name: words", "name: other").replace("share: 1.0", "rows: 2"));
    space.run("other.yaml");
    expect![[r#"
            run, by its time in UTC  pipeline  status  ran  fresh  failed  time  asked
        @1  RUN  other  done  1  2  0  N s
        @2  RUN  words  done  1  1  0  N s  chunks --set words=20
        @3  RUN  words  done  3  0  0  N s
    "#]]
    .assert_eq(&said(&space, &["runs"]));
    expect![[r#"
            run, by its time in UTC  pipeline  status  ran  fresh  failed  time  asked
        @2  RUN  words  done  1  1  0  N s  chunks --set words=20
    "#]]
    .assert_eq(&said(&space, &["runs", "words.yaml", "-n", "1"]));
    let runs = runs(&space);
    assert_eq!(
        (&runs[1]["asked"]["set"][0], &runs[1]["ran"], &runs[2]["status"]),
        (&"words=20".into(), &1.into(), &"done".into())
    );
    assert_eq!(said(&space, &["runs", "other"]).lines().count(), 2);
}

#[test]
fn a_log_tells_node_by_node_what_happened() {
    let space = space();
    fs::write(space.path().join("docs/broken.pdf"), b"%PDF-1.4\nnothing that follows is a PDF\n").unwrap();
    space.run("words.yaml");
    expect![[r#"
        run RUN
          retort run words.yaml
          pipeline words, began DAY CLOCK
          done: 3 ran in N s

        documents: ran in N s, 3 rows, 1 reject
          why  first run
          rows  0 of 4 recalled, 4 asked
        chunks: ran in N s, 6 rows
          why  first run
          rows  3 asked
        some: ran in N s, 6 rows
          why  first run
    "#]]
    .assert_eq(&said(&space, &["log"]));
    space.edit("docs/users.md", "never shrinks", "does not shrink");
    space.edit("words.yaml", "seed: 1", "seed: 2");
    space.run_with("words.yaml", &["--set", "words=30"]);
    expect![[r#"
        run RUN
          retort run words.yaml --set words=30
          pipeline words, began DAY CLOCK
          done: 3 ran in N s

        documents: ran in N s, 3 rows, 1 reject
          why  file docs/users.md changed DIGEST → DIGEST
          rows  3 of 4 recalled, 1 asked
        chunks: ran in N s, 12 rows
          why  with.max_words 40 → 30
                    input.from DIGEST → DIGEST
          rows  3 asked
        some: ran in N s, 12 rows
          why  with.seed 1 → 2
                    input.from DIGEST → DIGEST
    "#]]
    .assert_eq(&said(&space, &["log", "latest"]));
    expect![[r#"
        documents: ran in N s, 3 rows, 1 reject
          why  first run
          rows  0 of 4 recalled, 4 asked
    "#]]
    .assert_eq(&said(&space, &["log", "@2", "--node", "documents"]));
    let raw = space.ends(0, &["log", "@1", "--node", "chunks", "--json"]).0;
    let events: Vec<Value> = raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"], &events.last().unwrap()["event"]), (&"started".into(), &"finished".into()));
    assert_eq!(events.last().unwrap()["recipe"].as_str().unwrap().len(), 64);
    let (_, err) = space.ends(2, &["log", "@1", "--node", "chunk"]);
    assert_eq!(err, "error: nothing happened to `chunk` in this run\nhint: did you mean `chunks`?\n");
}

#[test]
fn a_run_is_named_by_what_is_enough() {
    let space = space();
    space.run("words.yaml");
    space.run("words.yaml");
    let ids: Vec<String> = runs(&space).iter().map(|run| run["id"].as_str().unwrap().to_string()).collect();
    assert_eq!(space.ends(0, &["log", &ids[1]]).0, space.ends(0, &["log", "@2"]).0);
    assert_eq!(space.ends(0, &["log", &ids[0][..ids[0].len() - 1]]).0, space.ends(0, &["log"]).0);
    let (_, err) = space.ends(2, &["log", "20"]);
    assert!(err.starts_with("error: 2 runs begin with `20`\nhint: name one: 20"), "{err}");
    let (_, err) = space.ends(2, &["log", "@3"]);
    assert_eq!(err, "error: no run `@3` in `.retort`\nhint: `retort runs` lists them; `@1` is the newest\n");
}

#[test]
fn a_record_that_is_not_ours_is_a_line_and_no_crash() {
    let space = space();
    space.run("words.yaml");
    space.run("words.yaml");
    let run = |at: usize| space.path().join(".retort/runs").join(runs(&space)[at]["id"].as_str().unwrap());
    let (newest, older) = (run(0), run(1));
    let record = fs::read_to_string(newest.join("run.json")).unwrap();
    fs::write(newest.join("run.json"), record.replace("\"version\": 2", "\"version\": 9")).unwrap();
    fs::write(older.join("run.json"), &record[..50]).unwrap();
    let listed = said(&space, &["runs"]);
    let unreadable = listed.lines().filter(|line| line.contains("unreadable")).count();
    assert!(
        unreadable == 2 && listed.contains("its record has format 9; this version of retort reads format 2"),
        "{listed}"
    );
    let (_, err) = space.ends(2, &["log"]);
    assert!(err.contains("can't be read: its record has format 9"), "{err}");
    fs::write(newest.join("run.json"), record).unwrap();
    let events = fs::read_to_string(newest.join("events.jsonl")).unwrap();
    fs::write(newest.join("events.jsonl"), &events[..events.len() - 20]).unwrap();
    let (out, err) = space.ends(0, &["log"]);
    assert!(
        out.contains("documents: fresh, 3 rows") && err.contains("1 line of its `events.jsonl` can't be read: 3"),
        "{out}{err}"
    );
}

#[test]
fn a_run_is_killed_when_its_process_is_gone() {
    let space = space();
    space.run("words.yaml");
    let id = runs(&space)[0]["id"].as_str().unwrap().to_string();
    let record = space.path().join(".retort/runs").join(id);
    let text =
        fs::read_to_string(record.join("run.json")).unwrap().replace("\"status\": \"done\"", "\"status\": \"running\"");
    fs::write(record.join("run.json"), text).unwrap();
    let events = fs::File::open(record.join("events.jsonl")).unwrap();
    events.lock().unwrap();
    assert_eq!(runs(&space)[0]["status"], "running");
    drop(events);
    assert_eq!(runs(&space)[0]["status"], "killed");
}

#[test]
fn ten_thousand_runs_are_listed_in_a_second() {
    let space = space();
    space.run("words.yaml");
    let folder = space.path().join(".retort/runs");
    let record = fs::read(folder.join(runs(&space)[0]["id"].as_str().unwrap()).join("run.json")).unwrap();
    for n in 0..10_000 {
        let run = folder.join(format!("2020-01-01T00-00-00-000Z-{n}"));
        fs::create_dir(&run).unwrap();
        fs::write(run.join("run.json"), &record).unwrap();
    }
    let begin = std::time::Instant::now();
    assert_eq!(runs(&space).len(), 10_001);
    let all = begin.elapsed();
    let begin = std::time::Instant::now();
    assert_eq!(said(&space, &["runs"]).lines().count(), 21);
    // The limit is for a release build on an idle machine; here is neither.
    let newest = begin.elapsed();
    assert!(all.as_secs_f64() < 4.0, "{all:?}, the newest in {newest:?}");
}

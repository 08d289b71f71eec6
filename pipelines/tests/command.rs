//! The `retort` command, driven from outside: what it prints where, and how it ends.

#![expect(clippy::unwrap_used, reason = "tests")]

mod fmt;
mod foreach;
mod gallery;
mod guide;
mod new;
mod own_operator;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const PIPELINE: &str = "\
retort: 1
name: tiny
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*']}
  some:
    op: sample
    from: documents
    with: {rows: 1, seed: 1}
";

struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        fs::write(folder.path().join("retort.toml"), "").unwrap();
        let project = Project(folder);
        project.write("tiny.yaml", PIPELINE);
        project.write("docs/a.md", "# Printing\n\nThe spooler keeps one queue per printer.\n");
        project.write("docs/b.md", "# Users\n\nA user has a home folder.\n");
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn retort(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_retort"));
        command.args(args).current_dir(self.path()).env_remove("RETORT_STORE").output().unwrap()
    }

    /// Runs a command that must end with `status`; gives standard output and standard error.
    fn ends(&self, status: i32, args: &[&str]) -> (String, String) {
        let output = self.retort(args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}\n{err}");
        (out, err)
    }

    fn plan(&self) -> Value {
        serde_json::from_str(&self.ends(0, &["plan", "tiny.yaml", "--json"]).0).unwrap()
    }

    fn verdicts(&self) -> Vec<String> {
        let plan = self.plan();
        let nodes = plan["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["verdict"].as_str().unwrap().to_string()).collect()
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_ran_is_fresh_and_an_edit_is_named() {
    let project = Project::new();
    assert_eq!(project.verdicts(), ["stale", "stale"]);
    assert!(!project.path().join(".retort").exists(), "a plan writes nothing where there is no store");
    let (out, err) = project.ends(0, &["run", "tiny.yaml"]);
    assert_eq!(out, "", "results only are printed on standard output");
    assert!(err.contains("documents: started (first run)") && err.contains("2 ran in"), "{err}");
    assert_eq!(project.verdicts(), ["fresh", "fresh"]);
    let (_, err) = project.ends(0, &["run", "tiny.yaml"]);
    assert!(err.contains("documents: fresh, 2 rows") && err.contains("2 fresh in"), "{err}");

    project.write("docs/b.md", "# Users\n\nA user has a home folder and a shell.\n");
    let plan = project.plan();
    assert_eq!(plan["nodes"][0]["reasons"][0]["fact"], "file docs/b.md");
    assert_eq!((&plan["nodes"][0]["rows"], &plan["nodes"][1]["verdict"]), (&1.into(), &"waiting".into()));
    let (out, _) = project.ends(0, &["plan", "tiny.yaml"]);
    assert!(out.contains("file docs/b.md changed") && out.contains("1 of 2"), "{out}");

    // A node that changed itself waits too, since its answer may be known by then; what changed is said.
    project.write("tiny.yaml", &PIPELINE.replace("rows: 1", "rows: 2"));
    let some = &project.plan()["nodes"][1];
    assert_eq!((&some["verdict"], &some["reasons"][0]["fact"]), (&"waiting".into(), &"with.rows".into()));
    let (out, _) = project.ends(0, &["plan", "tiny.yaml"]);
    assert!(out.contains("with.rows 1 → 2") && out.contains("after `documents` (file docs/b.md changed)"), "{out}");
}

#[test]
fn events_are_objects_and_the_summary_is_last() {
    let project = Project::new();
    let events = lines(&project.ends(0, &["run", "tiny.yaml", "--json"]).0);
    assert_eq!((&events[0]["event"], &events[0]["node"]), (&"started".into(), &"documents".into()));
    let recalled = events.iter().find(|event| event["event"] == "recalled").unwrap();
    assert_eq!((&recalled["rows"], &recalled["of"]), (&0.into(), &2.into()));
    let summary = events.last().unwrap();
    assert_eq!((&summary["event"], &summary["ran"], &summary["failed"]), (&"summary".into(), &2.into(), &0.into()));
    assert_eq!(summary["nodes"][0]["outputs"][0]["rows"], 2);
}

#[test]
fn a_run_is_recorded() {
    let project = Project::new();
    project.ends(0, &["run", "tiny.yaml"]);
    let mut runs = fs::read_dir(project.path().join(".retort/runs")).unwrap();
    let run = runs.next().unwrap().unwrap().path();
    let record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!((&record["status"], &record["summary"]["ran"]), (&"done".into(), &2.into()));
    assert!(fs::read_to_string(run.join("events.jsonl")).unwrap().contains("\"event\":\"finished\""));
}

#[test]
fn rows_are_shown_in_every_format() {
    let project = Project::new();
    let (_, err) = project.ends(2, &["show", "tiny.yaml", "documents"]);
    assert!(err.contains("error: `documents` has no answer yet\nhint: "), "{err}");
    project.ends(0, &["run", "tiny.yaml"]);
    let rows = lines(&project.ends(0, &["show", "tiny.yaml", "documents", "--format", "json"]).0);
    assert_eq!(rows.len(), 2);
    assert!(rows[0]["blocks"].is_array() && rows[0]["text"].as_str().unwrap().contains("spooler"));
    let (out, _) = project.ends(0, &["show", "tiny.yaml", "documents", "--columns", "path", "--format", "csv"]);
    assert_eq!(out, "path\ndocs/a.md\ndocs/b.md\n");
    let (out, err) =
        project.ends(0, &["show", "tiny.yaml", "documents", "--columns", "path", "--where", "text~SPOOLER"]);
    assert_eq!((out.as_str(), err.as_str()), ("path\ndocs/a.md\n", "1 of 2 rows\n"));
    let (out, _) = project.ends(0, &["show", "tiny.yaml", "documents", "--schema"]);
    assert!(out.contains("blocks") && out.contains("list<struct<"), "{out}");
    assert_eq!(project.ends(0, &["show", "tiny.yaml", "documents", "--rejects", "--format", "json"]).0, "");
    let (_, err) = project.ends(2, &["show", "tiny.yaml", "documents", "--columns", "pth"]);
    assert_eq!(err, "error: no column `pth`\nhint: did you mean `path`?\n");
}

#[test]
fn a_short_table_is_shown_whole() {
    let project = Project::new();
    for (files, shown) in [(24, "24 of 24 rows\n"), (25, "10 of 25 rows\n")] {
        for i in 2..files {
            fs::write(project.path().join(format!("docs/{i}.md")), format!("# Queue {i}\n\nIt prints.\n")).unwrap();
        }
        project.ends(0, &["run", "tiny.yaml"]);
        let (_, err) = project.ends(0, &["show", "tiny.yaml", "documents", "--columns", "path"]);
        assert_eq!(err, shown);
    }
}

#[test]
fn answers_are_exported() {
    let project = Project::new();
    project.ends(0, &["run", "tiny.yaml"]);
    let (_, err) = project.ends(0, &["export", "tiny.yaml", "documents", "out", "--format", "jsonl"]);
    assert!(err.starts_with("wrote out/documents.jsonl ("), "{err}");
    assert_eq!(lines(&fs::read_to_string(project.path().join("out/documents.jsonl")).unwrap()).len(), 2);
    project.ends(0, &["export", "tiny.yaml", "documents.rejects", "out", "--format", "parquet"]);
    assert!(fs::read(project.path().join("out/documents.rejects.parquet")).unwrap().starts_with(b"PAR1"));
    let (_, err) = project.ends(1, &["export", "tiny.yaml", "documents", "out", "--format", "peft"]);
    assert!(err.contains("no `lora-train` node"), "{err}");
}

#[test]
fn mistakes_end_with_2_and_the_nearest_name() {
    let project = Project::new();
    let (_, err) = project.ends(2, &["run", "tiny.yaml", "document"]);
    assert_eq!(err, "error: unknown node `document`\nhint: did you mean `documents`?\n");
    let (_, err) = project.ends(2, &["show", "tiny.yaml", "documents.rejecs"]);
    assert_eq!(err, "error: `documents` has no output `rejecs`\nhint: did you mean `rejects`?\n");
    let (_, err) = project.ends(2, &["ops", "extrct"]);
    assert_eq!(err, "error: unknown operator `extrct`\nhint: did you mean `extract`?\n");
    project.write("bad.yaml", &PIPELINE.replace("op: sample", "op: sampel"));
    let (out, err) = project.ends(2, &["check", "bad.yaml"]);
    assert!(out.is_empty() && err.contains("unknown operator `sampel`") && err.contains("bad.yaml:8"), "{err}");
    let problems = lines(&project.ends(2, &["check", "bad.yaml", "--json"]).0);
    let place = ["line", "column", "end_line", "end_column"].map(|key| problems[0][key].as_u64().unwrap());
    assert_eq!((place, problems.len()), ([8, 9, 8, 15], 1));
    assert_eq!(problems[0]["hint"], "did you mean `sample`?");
    // A run and a plan that are asked for JSON say it so too.
    for command in ["run", "plan"] {
        assert_eq!(lines(&project.ends(2, &[command, "bad.yaml", "--json"]).0), problems);
    }
}

#[test]
fn the_store_lies_beside_the_project_file_or_where_it_is_told() {
    let project = Project::new();
    fs::create_dir(project.path().join("elsewhere")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_retort"));
    command.args(["run", "../tiny.yaml"]).current_dir(project.path().join("elsewhere")).env_remove("RETORT_STORE");
    assert!(command.output().unwrap().status.success());
    assert!(project.path().join(".retort/version").exists());
    project.ends(0, &["run", "tiny.yaml", "--store", "other"]);
    assert!(project.path().join("other/version").exists());
    let sizes: Value = serde_json::from_str(&project.ends(0, &["cache", "size", "--json"]).0).unwrap();
    assert!(sizes["kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] == "tables" && kind["files"] != 0));
    let (_, err) = project.ends(2, &["cache", "size", "--store", "nowhere"]);
    assert!(err.starts_with("error: no store in `nowhere`"), "{err}");
}

#[test]
fn every_operator_has_a_page_and_a_pipeline_has_a_picture() {
    let project = Project::new();
    let (list, _) = project.ends(0, &["ops"]);
    assert!(list.lines().count() > 3 && list.contains("extract"), "{list}");
    for line in list.lines().skip(1) {
        let name = line.split_whitespace().next().unwrap();
        let (page, _) = project.ends(0, &["ops", name]);
        assert!(
            page.starts_with(name) && (page.contains("Keys of `with`") || page.contains("It has no keys")),
            "{page}"
        );
    }
    let (out, _) = project.ends(0, &["graph", "tiny.yaml"]);
    assert_eq!(out, "node       operator  from\ndocuments  extract\nsome       sample    documents\n");
    assert!(project.ends(0, &["graph", "tiny.yaml", "--format", "svg"]).0.starts_with("<svg "));
}

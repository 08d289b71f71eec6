//! `new`, `schema`, `completions`, `man`, and pictures with verdicts.

use std::fs;
use std::process::{Command, Stdio};

use super::Project;

#[test]
fn a_new_pipeline_checks_and_reads_its_documents() {
    let project = Project::new();
    fs::create_dir_all(project.path().join("my [old] docs/more")).unwrap();
    project.write("my [old] docs/more/a.md", "# Printing\n\nThe spooler keeps one queue per printer.\n");
    project.ends(0, &["new", "work/first", "--docs", "my [old] docs"]);
    project.ends(0, &["new", "second"]);
    for (pipeline, document) in [("work/first/pipeline.yaml", "a.md"), ("second/pipeline.yaml", "docs/retort.md")] {
        let (out, _) = project.ends(0, &["check", pipeline]);
        assert!(out.ends_with("no mistakes in 7 nodes\n"), "{out}");
        project.ends(0, &["run", pipeline, "some"]);
        let (rows, _) = project.ends(0, &["show", pipeline, "some", "--format", "json"]);
        assert!(rows.contains(document), "{rows}");
    }
    let text = fs::read_to_string(project.path().join("work/first/pipeline.yaml")).unwrap();
    assert!(text.contains("\nname: first\n") && text.contains("../../my [[]old[]] docs/**/*"), "{text}");
    assert!(project.path().join("second/.retort/version").exists(), "the store lies in the new folder");
    let (_, err) = project.ends(2, &["new", "second"]);
    assert_eq!(err, "error: `second/pipeline.yaml` is there already\nhint: name another folder\n");
    let (_, err) = project.ends(2, &["new", "third", "--docs", "nowhere"]);
    assert_eq!(err, "error: `nowhere` is no folder\n");
    assert!(!project.path().join("third").exists());
    let (schema, _) = project.ends(0, &["schema"]);
    assert_eq!(fs::read_to_string(project.path().join("second/pipeline.schema.json")).unwrap(), schema);
}

#[test]
fn copies_of_a_matrix_are_one_table() {
    let project = Project::new();
    project.write(
        "sweep.yaml",
        "\
retort: 1
matrix: {rows: [1, 2], title: [x, y]}
nodes:
  documents: {op: extract, with: {paths: ['docs/*']}}
  some: {op: sample, from: documents, with: {rows: '${matrix.rows}', seed: 1}}
  more: {op: sample, matrix: {share: [0.5, 1]}, from: some, with: {share: '${share}'}}
",
    );
    // The key `title` is used by nobody, and said to be.
    assert!(project.ends(2, &["check", "sweep.yaml"]).1.contains("no node uses the matrix key `title`"));
    let text = fs::read_to_string(project.path().join("sweep.yaml")).unwrap().replace(", title: [x, y]", "");
    project.write("sweep.yaml", &text);
    project.ends(0, &["run", "sweep.yaml"]);
    let (out, _) = project.ends(0, &["show", "sweep.yaml", "more", "--format", "json", "--where", "share=1"]);
    let keys: Vec<_> = super::lines(&out).iter().map(|row| (row["rows"].as_u64(), row["share"].as_f64())).collect();
    assert_eq!(keys, [(Some(1), Some(1.0)), (Some(2), Some(1.0)), (Some(2), Some(1.0))]);
    let (out, _) = project.ends(0, &["show", "sweep.yaml", "some", "--columns", "rows,path", "--format", "csv"]);
    assert!(out.starts_with("rows,path\n1,") && out.lines().count() == 4, "{out}");
    let (out, _) = project.ends(0, &["show", "sweep.yaml", "documents", "--columns", "path", "--format", "csv"]);
    assert_eq!(out.lines().count(), 3);
    let (_, err) = project.ends(2, &["show", "sweep.yaml", "moer"]);
    assert!(err.contains("unknown node `moer`"), "{err}");
}

#[test]
fn shells_complete_and_man_has_pages() {
    let project = Project::new();
    for (shell, part) in [("bash", "complete -F _retort"), ("zsh", "#compdef retort"), ("fish", "complete -c retort")] {
        let (out, _) = project.ends(0, &["completions", shell]);
        assert!(out.contains(part) && out.contains("completions") && out.contains("keep-going"), "{shell}");
        if let Ok(mut child) = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn() {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), out.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{shell} can't read its completions");
        }
    }
    let (page, _) = project.ends(0, &["man"]);
    assert!(page.contains(".TH retort 1") && page.contains("Distils documents"), "{page}");
    let (page, _) = project.ends(0, &["man", "run"]);
    assert!(page.contains("retort\\-run") && page.contains("\\-\\-force"), "{page}");
    assert_eq!(project.ends(2, &["man", "rum"]).1, "error: unknown command `rum`\nhint: did you mean `run`?\n");
}

#[test]
fn a_picture_shows_what_would_run() {
    let project = Project::new();
    let dot = |project: &Project| project.ends(0, &["graph", "tiny.yaml", "--format", "dot", "--plan"]).0;
    let before = dot(&project);
    assert!(before.contains("extract · stale") && before.contains("sample · stale"), "{before}");
    project.ends(0, &["run", "tiny.yaml"]);
    let after = dot(&project);
    assert!(after.contains("extract · fresh") && after.contains("sample · fresh"), "{after}");
    project.write("docs/a.md", "# Printing\n\nThe spooler keeps one queue for all.\n");
    let (svg, _) = project.ends(0, &["graph", "tiny.yaml", "--format", "svg", "--plan"]);
    assert!(svg.contains("extract · stale") && svg.contains("sample · waiting"), "{svg}");
    let (plain, _) = project.ends(0, &["graph", "tiny.yaml", "--format", "dot"]);
    assert!(!plain.contains("stale") && !plain.contains("fillcolor"));
}

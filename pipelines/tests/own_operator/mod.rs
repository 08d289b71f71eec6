//! `examples/own_operator.rs`, run as a program of one's own: its operator checks, runs, is fresh, and has a manual page.
//!
//! `cargo test --workspace` builds it; with `--test command` alone, `cargo build --workspace --examples` comes first.

use std::path::PathBuf;
use std::process::Command;

use super::Project;

const PIPELINE: &str = "\
retort: 1
name: clean
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*']}
  clean:
    op: redact
    from: documents
    with: {pattern: 'spooler|home', with: THING, column: title}
";

fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join("own_operator");
    assert!(program.exists(), "{} is not built: cargo build --workspace --examples", program.display());
    program
}

fn ends(project: &Project, status: i32, args: &[&str]) -> (String, String) {
    let output =
        Command::new(example()).args(args).current_dir(project.path()).env_remove("RETORT_STORE").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}\n{err}");
    (out, err)
}

#[test]
fn an_operator_of_ones_own_is_like_any_other() {
    let project = Project::new();
    project.write("clean.yaml", PIPELINE);
    project.write("docs/c.md", "# The spooler at home\n\nIt spools.\n");

    let (page, _) = ends(&project, 0, &["ops", "redact"]);
    assert!(page.contains("Puts a word in the place of what a regular expression finds"), "{page}");
    ends(&project, 0, &["run", "clean.yaml"]);
    let (rows, _) = ends(&project, 0, &["show", "clean.yaml", "clean", "--format", "json"]);
    assert!(rows.contains("The THING at THING") && rows.contains("\"n_blots\":2"), "{rows}");
    let (_, said) = ends(&project, 0, &["run", "clean.yaml"]);
    assert!(said.contains("2 fresh"), "{said}");

    project.write("clean.yaml", &PIPELINE.replace("spooler|home", "(home"));
    let (_, said) = ends(&project, 2, &["check", "clean.yaml"]);
    assert!(said.contains("clean.yaml:10") && said.contains("unclosed group"), "{said}");
    // The command without it names it as unknown.
    let (_, said) = project.ends(2, &["check", "clean.yaml"]);
    assert!(said.contains("unknown operator `redact`"), "{said}");
}

//! `retort fmt`: what is written where, and how it ends. How a file is laid out is told in `src/fmt/tests.rs`.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Project;

const LAID_OUT: &str = "retort: 1\nnodes:\n  documents:\n    op: extract\n    with: {paths: [docs]} # all\n";
const UNTIDY: &str =
    "retort:   1\nnodes:\n    documents:\n        with: { paths: [docs] } # all\n        op: extract\n";

#[test]
fn a_file_is_replaced_as_a_whole_and_once() {
    let project = Project::new();
    project.write("a.yaml", UNTIDY);
    project.write("b.yaml", LAID_OUT);
    let (out, _) = project.ends(1, &["fmt", "--check", "a.yaml", "b.yaml"]);
    assert_eq!(out, "a.yaml\n");
    assert_eq!(std::fs::read_to_string(project.path().join("a.yaml")).unwrap(), UNTIDY, "--check writes nothing");
    let (out, told) = project.ends(0, &["fmt", "a.yaml", "b.yaml"]);
    assert_eq!((out.as_str(), told.trim_end()), ("", "laid out a.yaml"));
    assert_eq!(std::fs::read_to_string(project.path().join("a.yaml")).unwrap(), LAID_OUT);
    project.ends(0, &["fmt", "--check", "a.yaml"]);
    let left = std::fs::read_dir(project.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".tmp")));
}

#[cfg(unix)]
#[test]
fn what_may_be_done_with_a_file_stays_and_a_link_stays_a_link() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    project.write("a.yaml", UNTIDY);
    let (file, link) = (project.path().join("a.yaml"), project.path().join("link.yaml"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("a.yaml", &link).unwrap();
    project.ends(0, &["fmt", "link.yaml"]);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), LAID_OUT);
}

#[test]
fn what_is_wrong_is_told_and_the_others_are_laid_out() {
    let project = Project::new();
    project.write("bad.yaml", "a: [\n");
    project.write("a.yaml", UNTIDY);
    let (_, told) = project.ends(2, &["fmt", "bad.yaml", "a.yaml"]);
    assert!(told.contains("--> bad.yaml:1:5") && told.contains("laid out a.yaml"), "{told}");
    assert_eq!(std::fs::read_to_string(project.path().join("bad.yaml")).unwrap(), "a: [\n");
    project.ends(1, &["fmt", "none.yaml"]);
}

#[test]
fn standard_input_goes_to_standard_output() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retort"));
    let mut child = command.args(["fmt", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(UNTIDY.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), LAID_OUT);
}

//! An experiment can be held to its lock: what differs is named with both values, and ends with exit status 3.

use std::fs;

use retort_tests::Space;

pub(crate) const PIPELINE: &str = "\
retort: 1
name: words
params:
  max_words: 40
profiles:
  small:
    params: {max_words: 25}
nodes:
  documents:
    op: extract
    with: {paths: ['docs/**/*.md']}
  chunks:
    op: chunk
    from: documents
    with: {max_words: '${params.max_words}'}
  some:
    op: sample
    from: chunks
    with: {share: 0.5, seed: 1}
";

pub(crate) fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("retort.toml", "");
    space.write("words.yaml", PIPELINE);
    for n in 0..5 {
        let body = "The swap file grows while programs ask for memory. It never shrinks before the next start.\n\n";
        space.write(&format!("docs/{n}.md"), &format!("# Chapter {n}\n\n{}", body.repeat(4)));
    }
    space
}

fn locked() -> Space {
    let space = space();
    space.run("words.yaml");
    space.ends(0, &["lock", "words.yaml"]);
    space
}

#[test]
fn a_lock_is_stable_text_that_names_what_was_used() {
    let space = locked();
    let text = fs::read_to_string(space.path().join("words.lock")).unwrap();
    let lock: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(lock["version"], 1);
    assert_eq!(lock["operators"]["chunk"].as_str().map(|version| version.parse::<u32>().is_ok()), Some(true));
    let digest = blake3::hash(&fs::read(space.path().join("docs/3.md")).unwrap()).to_hex().to_string();
    assert_eq!(lock["sources"]["documents"]["docs/3.md"], digest.as_str());
    let nodes: Vec<_> = lock["nodes"].as_array().unwrap().iter().map(|node| node["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["documents", "chunks", "some"]);
    assert_eq!(lock["nodes"][0]["outputs"]["out"]["rows"], 5);
    assert!(!text.contains(&space.path().display().to_string()), "no path of this machine is in a lock");
    // A second lock is the same, and one line of it changes with one file.
    assert!(space.ends(0, &["lock", "words.yaml"]).1.contains("nothing changed"));
    space.write("docs/new.txt", "not listed\n");
    space.ends(0, &["lock", "words.yaml"]);
    assert_eq!(fs::read_to_string(space.path().join("words.lock")).unwrap(), text);
}

#[test]
fn what_is_not_answered_is_not_locked() {
    let space = space();
    let said = space.ends(1, &["lock", "words.yaml"]).1;
    assert!(said.contains("`documents`, `chunks`, `some`"), "{said}");
    assert!(!space.path().join("words.lock").exists());
}

#[test]
fn a_run_that_agrees_ends_well_and_one_without_a_lock_does_not() {
    let space = space();
    let said = space.ends(2, &["run", "words.yaml", "--locked"]).1;
    assert!(said.contains("there is no lock `words.lock`") && said.contains("retort lock words.yaml"), "{said}");
    space.run("words.yaml");
    space.ends(0, &["lock", "words.yaml"]);
    assert!(space.ends(0, &["run", "words.yaml", "--locked"]).1.contains("everything is as words.lock has it"));
    // From nothing: everything runs, and comes out the same.
    fs::remove_dir_all(space.path().join(".retort")).unwrap();
    space.ends(0, &["run", "words.yaml", "--locked"]);
}

#[test]
fn a_changed_file_is_named_before_anything_runs() {
    let space = locked();
    space.edit("docs/3.md", "never shrinks", "does not shrink");
    let said = space.ends(3, &["run", "words.yaml", "--locked"]).1;
    assert!(said.contains("`documents`: file docs/3.md is ") && said.contains(", the lock has "), "{said}");
    assert_eq!(space.plan("words.yaml")["nodes"][0]["verdict"], "stale", "nothing ran");
    space.write("docs/new.md", "# New\n");
    fs::remove_file(space.path().join("docs/3.md")).unwrap();
    let said = space.ends(3, &["run", "words.yaml", "--locked"]).1;
    assert!(said.contains("file docs/3.md is not there"), "{said}");
}

#[test]
fn a_changed_config_is_named_with_both_values() {
    let space = locked();
    space.edit("words.yaml", "max_words: 40", "max_words: 30");
    let said = space.ends(3, &["run", "words.yaml", "--locked"]).1;
    assert!(said.contains("`chunks`: `with.max_words` is 30, the lock has 40"), "{said}");
    space.edit("words.yaml", "max_words: 30", "max_words: 40");
    space.edit("words.yaml", "  some:", "  more:");
    let said = space.ends(3, &["run", "words.yaml", "--locked"]).1;
    assert!(said.contains("node `more` is `sample`, the lock does not have it"), "{said}");
}

#[test]
fn an_operator_of_another_version_is_named() {
    let space = locked();
    let text = fs::read_to_string(space.path().join("words.lock")).unwrap();
    let mut lock: serde_json::Value = serde_json::from_str(&text).unwrap();
    lock["operators"]["chunk"] = "99".into();
    space.write("words.lock", &lock.to_string());
    let said = space.ends(3, &["run", "words.yaml", "--locked"]).1;
    assert!(said.contains("the version of operator `chunk` is ") && said.contains("the lock has 99"), "{said}");
}

#[test]
fn an_answer_that_comes_out_otherwise_stops_the_run_there() {
    let space = locked();
    let text = fs::read_to_string(space.path().join("words.lock")).unwrap();
    let mut lock: serde_json::Value = serde_json::from_str(&text).unwrap();
    lock["nodes"][1]["outputs"]["out"]["content"] = "ab".repeat(32).into();
    space.write("words.lock", &lock.to_string());
    fs::remove_dir_all(space.path().join(".retort")).unwrap();
    let said = space.ends(3, &["run", "words.yaml", "--locked", "-j1"]).1;
    assert!(said.contains("`chunks`: table `out` is ") && said.contains("the lock has abababababab…"), "{said}");
    let plan = space.plan("words.yaml");
    assert_eq!(plan["nodes"][1]["verdict"], "fresh");
    assert_eq!(plan["nodes"][2]["verdict"], "stale", "what comes after the difference did not run");
    fs::write(space.path().join("words.lock"), r#"{"version": 7}"#).unwrap();
    assert!(space.ends(2, &["run", "words.yaml", "--locked"]).1.contains("lock format 7"));
}

#[test]
fn params_that_were_set_are_part_of_the_lock() {
    let space = space();
    space.run_with("words.yaml", &["--set", "max_words=20", "--profile", "small"]);
    space.ends(0, &["lock", "words.yaml", "--set", "max_words=20", "--profile", "small"]);
    let said = space.ends(0, &["run", "words.yaml", "--locked"]).1;
    assert!(said.contains("everything is as"), "{said}");
    let said = space.ends(3, &["run", "words.yaml", "--locked", "--set", "max_words=21"]).1;
    assert!(said.contains("`with.max_words` is 21, the lock has 20"), "{said}");
}

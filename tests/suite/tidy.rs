//! The architecture's invariants, as tests: who may use whom, what stays out of where, how files begin and how long they are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use retort::load::{LoadOptions, load};

use crate::nodes::root;

/// A crate's folder, and the crates of ours that it may use.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("retort-cache", "cache", &[]),
    ("retort-engine", "engine", &["retort-cache"]),
    ("retort-lm", "ops/lm", &[]),
    ("retort-ops", "ops", &["retort-cache", "retort-engine", "retort-lm"]),
    ("retort", "pipelines", &["retort-cache", "retort-engine", "retort-lm", "retort-ops"]),
    ("retort-tests", "tests", &["retort", "retort-cache", "retort-engine", "retort-lm", "retort-ops"]),
];

/// Folders of code below the command line.
const BELOW_PIPELINES: &[&str] = &["cache/src", "engine/src", "ops/src", "ops/lm/src"];

#[test]
fn crates_use_those_to_their_left_only() {
    for (name, folder, allowed) in CRATES {
        for used in dependencies(folder).into_keys().filter(|used| used == "retort" || used.starts_with("retort-")) {
            assert!(allowed.contains(&used.as_str()), "`{name}` must not use `{used}`");
        }
    }
}

#[test]
fn there_is_no_other_crate() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("the workspace has members");
    let mut members: Vec<_> = members.split('"').skip(1).step_by(2).collect();
    let mut folders: Vec<_> = CRATES.iter().map(|(_, folder, _)| *folder).collect();
    members.sort_unstable();
    folders.sort_unstable();
    assert_eq!(members, folders);
}

#[test]
fn crates_stay_with_their_trade() {
    let knows_nothing_of = [
        ("cache", &["serde_yaml", "candle-core", "clap", "indicatif", "anstream", "ureq"][..]),
        ("engine", &["serde_yaml", "candle-core", "clap", "indicatif", "anstream", "ureq", "parquet"][..]),
        ("ops/lm", &["arrow", "parquet", "serde_yaml", "clap", "indicatif", "anstream", "ureq"][..]),
        ("ops", &["parquet", "clap", "indicatif", "anstream"][..]),
        ("pipelines", &["candle-core"][..]),
    ];
    for (folder, foreign) in knows_nothing_of {
        let uses = dependencies(folder);
        for name in foreign {
            assert!(
                uses.get(*name).is_none_or(|section| section == "dev-dependencies"),
                "`{folder}` must not use `{name}`"
            );
        }
    }
}

#[test]
fn files_say_what_they_are_for_and_stay_short() {
    let mut wrong = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let shown = shown(&path);
        if !text.starts_with("//!") {
            wrong.push(format!("{shown} does not open with `//!`"));
        }
        let lines = text.lines().count();
        if lines > 600 {
            wrong.push(format!("{shown} has {lines} lines: part it by noun"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn below_the_command_line_there_is_no_clock_no_environment_and_no_chance() {
    let banned = [
        "Instant::now",
        "SystemTime::now",
        "env::var",
        "env::args",
        "rand::rng(",
        "thread_rng",
        "from_os_rng",
        "from_entropy",
    ];
    assert_absent(BELOW_PIPELINES, &banned);
}

#[test]
fn the_terminal_belongs_to_the_command_line() {
    assert_absent(BELOW_PIPELINES, &["println!", "print!(", "io::stdout", "io::stderr", "dbg!("]);
}

#[test]
fn operators_hold_no_cache_code() {
    // What they may use of the cache: digests and ids, the writer that they are given, its error.
    assert_absent(
        &["ops/src"],
        &["retort_cache::Disk", "RowMemo", "store.recall", "retort_cache::rowlog", "retort_cache::disk"],
    );
}

#[test]
fn what_is_hashed_carries_a_version() {
    let mut wrong = Vec::new();
    for path in BELOW_PIPELINES.iter().flat_map(|folder| rust_files(&root().join(folder))) {
        let code = code_of(&path);
        for call in ["Digest::of(\"", "new_derive_key(\""] {
            for rest in code.split(call).skip(1) {
                let domain = rest.split('"').next().unwrap_or_default();
                if !domain.ends_with(|last: char| last.is_ascii_digit()) {
                    wrong.push(format!("{}: the domain {domain:?} has no version", shown(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_registry_is_in_order() {
    let names: Vec<_> = retort_ops::REGISTRY.iter().map(|info| info.name).collect();
    assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    assert!(!names.is_empty());
}

#[test]
fn every_pipeline_that_ships_checks() {
    let mut wrong = Vec::new();
    let mut n_pipelines = 0;
    for entry in fs::read_dir(root().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            n_pipelines += 1;
            if let Err(problems) = load(&path, &LoadOptions::default(), retort_ops::REGISTRY) {
                wrong.push(problems.render(false));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n_pipelines >= 3);
}

/// The names under a manifest's `dependencies` tables, with the table.
fn dependencies(folder: &str) -> BTreeMap<String, String> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let (mut section, mut found) = ("", BTreeMap::new());
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
        } else if section.ends_with("dependencies")
            && let Some((name, _)) = line.split_once(['.', ' ', '='])
        {
            // What is used in earnest and in tests is used in earnest.
            found.entry(name.to_owned()).or_insert_with(|| section.to_owned());
        }
    }
    assert!(!found.is_empty(), "{folder} uses nothing?");
    found
}

/// All Rust files of the workspace.
fn sources() -> Vec<PathBuf> {
    let folders = ["cache", "engine", "ops", "pipelines", "tests"];
    let files: Vec<_> = folders.iter().flat_map(|folder| rust_files(&root().join(folder))).collect();
    assert!(files.len() > 50, "{}", files.len());
    files
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(|entry| entry.unwrap().into_path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// A file without its tests; nothing, where all of it is tests.
fn code_of(path: &Path) -> String {
    let is_tests = |part: &OsStr| ["tests", "tests.rs", "testing", "testing.rs"].iter().any(|name| part == *name);
    if Path::new(&shown(path)).iter().any(is_tests) {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

fn assert_absent(folders: &[&str], banned: &[&str]) {
    let (mut wrong, mut n_lines) = (Vec::new(), 0);
    for path in folders.iter().flat_map(|folder| rust_files(&root().join(folder))) {
        for (row, line) in code_of(&path).lines().enumerate() {
            n_lines += 1;
            let code = line.split("//").next().unwrap_or_default();
            for word in banned.iter().filter(|word| code.contains(**word)) {
                wrong.push(format!("{}:{}: `{word}`", shown(&path), row + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n_lines > 1000, "only {n_lines} lines were looked at");
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

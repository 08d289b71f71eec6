//! A store that rots: flipped bits and cut files, in every kind of file, found when they are read and put right in the same run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;
use retort_cache::digests::FileDigests;
use retort_cache::{Disk, Store as _, content_id};
use retort_engine::{Event, EventKind, Limits, Summary, World};
use retort_tests::{Space, Story};

use crate::nodes::{NoAssets, node, ops};

use super::crash::place;
use super::{Ledger, NAME, files, hex, ids, recovers, sampled, space, store, undisturbed};

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A bit of the byte at this share of the file.
    Flip(f64),
    /// All after this share of the file is gone.
    Cut(f64),
}

const DAMAGE: &[Damage] = &[
    Damage::Flip(0.0),
    Damage::Flip(0.13),
    Damage::Flip(0.35),
    Damage::Flip(0.5),
    Damage::Flip(0.71),
    Damage::Flip(0.93),
    Damage::Flip(1.0),
    Damage::Cut(0.0),
    Damage::Cut(0.4),
    Damage::Cut(0.999),
];

fn spoil(path: &Path, damage: Damage) {
    let mut bytes = fs::read(path).unwrap();
    match damage {
        Damage::Flip(share) => {
            let at = ((bytes.len() - 1) as f64 * share) as usize;
            bytes[at] ^= 1 << (at % 8);
        }
        Damage::Cut(share) => bytes.truncate((bytes.len() as f64 * share) as usize),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A space in which everything was made once; documents are old enough for the memo of digests to hold them.
fn made() -> Space {
    let space = space();
    std::thread::sleep(std::time::Duration::from_millis(60));
    space.run(NAME);
    space
}

/// Every file of a store, but the lock-like ones that nobody reads, by its path below the store.
fn kinds(space: &Space) -> Vec<PathBuf> {
    let root = store(space);
    let links = |path: &PathBuf| fs::symlink_metadata(path).unwrap().is_symlink();
    let all = files(&root).into_iter().filter(|path| !links(path) && fs::metadata(path).unwrap().len() > 0);
    all.map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect()
}

#[test]
fn a_damaged_file_is_found_and_made_again_in_the_same_run() {
    let right = undisturbed();
    let ledger = Ledger::default();
    // The names of tables and answers are the same everywhere; those of segments and runs are not, so they are found by kind.
    let listed: Vec<_> = {
        let space = made();
        let mut listed = kinds(&space);
        listed.retain(|path| path.starts_with("tables") || path.starts_with("answers") || path.starts_with("version"));
        listed.extend(["rows", "assets", "runs"].map(PathBuf::from));
        listed
    };
    let cases: Vec<_> = listed.iter().flat_map(|path| DAMAGE.iter().map(move |damage| (path, *damage))).collect();
    sampled(&cases, 60).par_iter().for_each(|(kind, damage)| {
        let space = made();
        let path = file_of(&space, kind);
        let told = format!("{damage:?} of {}", path.display());
        let name = format!(
            "{} in {}",
            if matches!(damage, Damage::Flip(_)) { "bit flipped" } else { "cut" },
            place(&path.to_string_lossy())
        );
        spoil(&path, *damage);
        let outcome = match kind.iter().next().unwrap().to_str().unwrap() {
            "tables" => table(&space, &path, &right, &told),
            "rows" => rows(&space, &path, &right, &told),
            _ => plain(&space, &path, &right, &told),
        };
        recovers(&space, &right, &told);
        ledger.count(&name, outcome);
    });
    ledger.print("damaged, then read:");
}

fn file_of(space: &Space, kind: &Path) -> PathBuf {
    let path = store(space).join(kind);
    if path.is_file() { path } else { files(&path).into_iter().next_back().unwrap() }
}

/// A table is read by the nodes that it feeds, which run again for this; the node that made it does not, unless it must.
fn table(space: &Space, path: &Path, right: &BTreeMap<String, String>, told: &str) -> &'static str {
    let content = hex(path);
    let makers: Vec<_> =
        right.iter().filter(|(_, id)| **id == content).map(|(port, _)| port.split('.').next().unwrap()).collect();
    let others = ["documents", "chunks", "words", "sets", "some"].into_iter().filter(|node| !makers.contains(node));
    let mut args = vec!["run", NAME, "--json", "-j1"];
    args.extend(others.flat_map(|node| ["--force", node]));
    assert!(!still_the_same(space, &content), "{told}: it is taken for whole");
    let output = space.retort(&args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}: {errors}");
    let story = Story::of(&output.stdout);
    assert_eq!(ids(&story), *right, "{told}: other ids");
    let kept = store(space).join("quarantine").join(path.strip_prefix(store(space)).unwrap());
    if !kept.exists() {
        // Nobody reads rejects, the listing, or the last table; `show` does.
        let (status, errors) = show(space, &content, right);
        assert_eq!(status, Some(1), "{told}: {errors}");
        assert!(errors.contains("is damaged") && errors.contains("`retort run` makes it again"), "{told}: {errors}");
        assert!(kept.exists(), "{told}: it is not in the quarantine: {errors}");
        return "found by `show`, made again";
    }
    let named = |event: &serde_json::Value| {
        event["event"] == "note"
            && event["text"].as_str().is_some_and(|text| text.contains(&content) && text.contains("quarantine"))
    };
    assert!(story.events.iter().any(named), "{told}: nothing names it: {:#?}", story.events);
    "found, made again"
}

fn still_the_same(space: &Space, content: &str) -> bool {
    // A copy, since looking at it moves it.
    let copy = tempfile::tempdir().unwrap();
    let disk = Disk::open(copy.path()).unwrap();
    let name = format!("tables/{}/{}.parquet", &content[..2], &content[2..]);
    let path = copy.path().join(&name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(store(space).join(&name), &path).unwrap();
    let id = serde_json::from_value(serde_json::Value::String(content.into())).unwrap();
    disk.open(id).and_then(|table| content_id(&table.expect("it is there"))).is_ok_and(|found| found == id)
}

fn show(space: &Space, content: &str, right: &BTreeMap<String, String>) -> (Option<i32>, String) {
    let port = right.iter().find(|(_, id)| *id == content).map(|(port, _)| port.trim_end_matches(".out")).unwrap();
    let output = space.retort(&["show", NAME, port, "--format", "json"]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Remembered rows are read when their node runs without being forced.
fn rows(space: &Space, path: &Path, right: &BTreeMap<String, String>, told: &str) -> &'static str {
    let damaged = fs::read(path).unwrap();
    // The documents' answer goes, so that their rows are recalled.
    for path in files(&store(space).join("answers")) {
        if fs::read_to_string(&path).unwrap().contains("\"op\": \"extract\"") {
            fs::remove_file(path).unwrap();
        }
    }
    let story = space.run(NAME);
    assert_eq!(ids(&story), *right, "{told}: other ids");
    let (recalled, of) = story.recalled("documents").unwrap();
    if damaged.is_empty() {
        // A writer that was killed at its first step leaves the same.
        assert!(recalled < of, "{told}: {recalled} of {of}");
        return "as after a crash, asked again";
    }
    let kept = store(space).join("quarantine").join(path.strip_prefix(store(space)).unwrap());
    assert_eq!(fs::read(&kept).unwrap(), damaged, "{told}: the quarantine changed it");
    let named = story.notes().into_iter().any(|text| names(text, path));
    assert!(named, "{told}: nothing names it: {:#?}", story.events);
    if recalled == of { "found, its rows saved" } else { "found, asked again" }
}

/// Whether a note names a file and where it lies now.
fn names(text: &str, path: &Path) -> bool {
    text.contains(&*path.file_name().unwrap().to_string_lossy()) && text.contains("quarantine")
}

/// Everything else is read by any run.
fn plain(space: &Space, path: &Path, right: &BTreeMap<String, String>, told: &str) -> &'static str {
    let before = fs::read(path).unwrap();
    let output = space.retort(&["run", NAME, "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}: {errors}");
    let story = Story::of(&output.stdout);
    assert_eq!(ids(&story), *right, "{told}: other ids");
    let below = path.strip_prefix(store(space)).unwrap();
    let kept = store(space).join("quarantine").join(below);
    let mut said = story.notes().into_iter().chain(errors.lines());
    if below.starts_with("runs") {
        return "left to `cache verify`";
    }
    assert_eq!(fs::read(&kept).unwrap(), before, "{told}: it is not in the quarantine");
    assert!(said.any(|text| names(text, path)), "{told}: nothing names it");
    "found, made again"
}

#[test]
fn verify_finds_it_ahead_of_time() {
    let right = undisturbed();
    let ledger = Ledger::default();
    let kinds = ["tables", "answers", "rows", "assets", "runs", "version"];
    let cases: Vec<_> = kinds.iter().flat_map(|kind| DAMAGE.iter().map(move |damage| (*kind, *damage))).collect();
    sampled(&cases, 24).par_iter().for_each(|(kind, damage)| {
        let space = made();
        let verify = || {
            let output = space.retort(&["cache", "verify"]);
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let path = file_of(&space, Path::new(kind));
        let told = format!("{damage:?} of {}", path.display());
        let (status, said) = verify();
        assert_eq!(status, Some(0), "{told}: before: {said}");
        spoil(&path, *damage);
        let empty = fs::metadata(&path).unwrap().len() == 0;
        let name = path.file_name().unwrap().to_str().unwrap();
        let (status, said) = verify();
        let found = status == Some(1);
        assert!(found == said.contains(name) || said.contains("`version`"), "{told}: {status:?} {said}");
        // A record's number or a letter of a note may be another and still be JSON; an empty log is what a crash leaves.
        assert!(found || *kind == "runs" || (*kind == "rows" && empty), "{told}: {status:?} {said}");
        let (status, said) = verify();
        assert_eq!(status, Some(0), "{told}: it is found once: {said}");
        recovers(&space, &right, &told);
        ledger.count(&format!("damaged in {kind}"), if found { "found" } else { "without a consequence" });
    });
    ledger.print("damaged, then `cache verify`:");
}

/// Two nodes in this process, on a disk; `spoils` says after which making of the first its table is cut.
fn made_and_cut(spoils: impl Fn(usize) -> bool + Sync) -> (Summary, usize, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path()).unwrap();
    let rows = serde_json::json!({"columns": ["word"], "rows": [["swap"], ["file"]]});
    let words = node("words", "literal", "", rows);
    let again = node("again", "arrange", "words", serde_json::json!({"order": "reversed"}));
    let graph = retort_engine::check("test", &[words, again], &ops()).ok().unwrap();
    let (digests, cancelled) = (FileDigests::in_memory(), AtomicBool::new(false));
    let (made, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let observer = |event: &Event| match &event.kind {
        EventKind::Finished { outputs, .. } if event.node == "words" && spoils(made.fetch_add(1, Ordering::SeqCst)) => {
            let id = outputs[0].content.to_string();
            spoil(&folder.path().join(format!("tables/{}/{}.parquet", &id[..2], &id[2..])), Damage::Cut(0.5));
        }
        EventKind::Failed { error } => failures.lock().unwrap().push(error.clone()),
        _ => {}
    };
    let world = World { store: &disk, assets: &NoAssets, digests: &digests, events: &observer, cancelled: &cancelled };
    let summary = retort_engine::run(&graph, &[], world, &Limits { jobs: 2, keep_going: false, force: Vec::new() });
    (summary, made.into_inner(), failures.into_inner().unwrap())
}

#[test]
fn what_comes_out_damaged_twice_is_a_failure() {
    let (summary, made, failures) = made_and_cut(|n| n == 0);
    assert_eq!((summary.failed, made), (0, 2), "{failures:?}");
    let (summary, made, failures) = made_and_cut(|_| true);
    assert_eq!((summary.failed, made), (1, 2));
    assert!(failures[0].contains("is damaged: its file was moved to"), "{failures:?}");
}

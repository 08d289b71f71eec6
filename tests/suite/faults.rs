//! What a run survives: being killed at any step, a store that fails, a store that rots. The real program on a real disk.
//!
//! `faults.c` stands between the program and its C library and counts its file operations below the store; so the n-th one
//! can be the one at which the process dies, or that fails with an error. It is compiled by `cc`, which linking a Rust
//! program needs anyway. What it can't see would be missed: `strace`, where it is installed, counts the same calls in the
//! kernel, and a test compares the two.
//!
//! | setting | effect |
//! |---|---|
//! | `RETORT_FAULTS=all` | every step and every fault, not an even sample of them; some minutes |
//!
//! Each test prints how many faults it injected and what became of them.

mod corrupt;
mod crash;
mod failing;
mod shim;
mod sweep;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use retort_cache::{Disk, Store as _, content_id};
use retort_tests::{Space, Story};
use serde_json::Value;

const PIPELINE: &str = "\
retort: 1
name: faults
nodes:
  documents:
    op: extract
    with: {paths: ['docs/**/*']}
  chunks:
    op: chunk
    from: documents
    with: {max_words: 12}
  words:
    op: parse
    from: chunks
    with: {format: regex, column: text, pattern: '(?<word>swap|never)'}
  sets:
    op: split-eval
    from: words
    with: {eval: 0.5, group_by: doc_id, seed: 1}
  some:
    op: sample
    from: [sets.train, sets.eval]
    with: {share: 1.0, seed: 1}
";
const NAME: &str = "faults.yaml";

/// Whether every step is met, not a sample.
fn thorough() -> bool {
    std::env::var("RETORT_FAULTS").is_ok_and(|value| value == "all")
}

/// A folder with a pipeline of five nodes: remembered rows, a refused row, two ports, a list of inputs.
fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write(NAME, PIPELINE);
    for n in 0..6 {
        let text = "The swap file grows while programs ask for memory. It never shrinks before the next start.\n";
        space.write(&format!("docs/{n}.md"), &format!("# Chapter {n}\n\n{text}\nAs many as {n} of them.\n"));
    }
    space.write("docs/broken.pdf", "%PDF-1.4\nnothing that follows is a PDF\n");
    space
}

fn store(space: &Space) -> PathBuf {
    space.path().join(".retort")
}

/// Node and port to content id, as a finished run tells them.
fn ids(story: &Story) -> BTreeMap<String, String> {
    let summary = story.events.iter().find(|event| event["event"] == "summary").expect("a run ends with a summary");
    let text = |value: &Value| value.as_str().expect("a name is text").to_owned();
    let mut ids = BTreeMap::new();
    for node in summary["nodes"].as_array().expect("a summary lists the nodes") {
        for output in node["outputs"].as_array().expect("a node lists its outputs") {
            ids.insert(format!("{}.{}", text(&node["node"]), text(&output["port"])), text(&output["content"]));
        }
    }
    ids
}

/// The ids of a run that nothing disturbs.
fn undisturbed() -> BTreeMap<String, String> {
    let ids = ids(&space().run(NAME));
    assert_eq!(ids.len(), 10, "{ids:?}");
    ids
}

/// The store after a fault: a run goes through with the right ids, and after it nothing is left to do.
fn recovers(space: &Space, right: &BTreeMap<String, String>, what: &str) -> Story {
    let output = space.retort(&["run", NAME, "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: the next run failed: {errors}");
    let story = Story::of(&output.stdout);
    assert_eq!(ids(&story), *right, "{what}: other ids");
    assert_whole(space, what);
    let again = space.run(NAME);
    assert!(again.ran().is_empty(), "{what}: {:?} ran once more", again.ran());
    story
}

/// Nothing torn has a final name, no answer names a table that is not there, no link leads nowhere.
fn assert_whole(space: &Space, what: &str) {
    let root = store(space);
    if !root.join("version").exists() {
        return;
    }
    let disk = Disk::open(&root).unwrap();
    for path in files(&root.join("tables")) {
        let hex = hex(&path);
        let id = serde_json::from_value(Value::String(hex.clone())).unwrap();
        let table = disk.open(id).unwrap().unwrap_or_else(|| panic!("{what}: table {hex} is gone"));
        assert_eq!(content_id(&table).unwrap(), id, "{what}: table {hex} is torn");
    }
    for path in files(&root.join("answers")) {
        let id = serde_json::from_value(Value::String(hex(&path))).unwrap();
        assert!(disk.recall(id).unwrap().is_some(), "{what}: {} is torn, or lacks a table", path.display());
    }
    for path in files(&root.join("view")) {
        assert!(path.exists(), "{what}: {} leads nowhere", path.display());
    }
}

/// Records of runs are JSON, killed ones too.
fn assert_recorded(space: &Space, what: &str) {
    for path in files(&store(space).join("runs")).iter().filter(|path| path.ends_with("run.json")) {
        let run = serde_json::from_slice::<Value>(&std::fs::read(path).unwrap());
        assert!(run.is_ok(), "{what}: {} is torn", path.display());
    }
}

/// The id that a file of the store is named by: `8c/2f….parquet`.
fn hex(path: &Path) -> String {
    let part = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    part(path.parent().unwrap()) + &part(path)
}

/// All files and links below a folder but temporary ones, sorted; none where it is missing.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().flatten();
    let files = entries.filter(|entry| !entry.file_type().is_dir()).map(walkdir::DirEntry::into_path);
    files.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with(".tmp-")).collect()
}

/// At most `n` of the items, evenly; all of them in the thorough setting.
fn sampled<T: Clone>(items: &[T], n: usize) -> Vec<T> {
    if thorough() || items.len() <= n {
        return items.to_vec();
    }
    (0..n).map(|at| items[at * items.len() / n].clone()).collect()
}

/// Counts what became of the faults, by name.
#[derive(Default)]
struct Ledger(std::sync::Mutex<BTreeMap<String, BTreeMap<&'static str, usize>>>);

impl Ledger {
    fn count(&self, fault: &str, outcome: &'static str) {
        *self.0.lock().unwrap().entry(fault.to_owned()).or_default().entry(outcome).or_default() += 1;
    }

    /// Prints the table, past the test's captured output.
    fn print(&self, title: &str) {
        let line = |(fault, outcomes): (&String, &BTreeMap<&str, usize>)| {
            let outcomes: Vec<_> = outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
            format!("  {fault:<42} {}\n", outcomes.join(", "))
        };
        let lines: String = self.0.lock().unwrap().iter().map(line).collect();
        std::io::stderr().write_all(format!("\n{title}\n{lines}").as_bytes()).unwrap();
    }
}

//! The sweep: what nobody reaches or has used for long goes, and nothing else; beside runs it takes nothing from them.
//!
//! `RETORT_GC_ROUNDS` makes the race of sweeps and runs longer (6 rounds).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use retort_tests::{Space, Story};
use serde_json::Value;

use crate::server::Server;

const DAY: Duration = Duration::from_hours(24);

const PIPELINE: &str = "\
retort: 1
name: NAME
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*.txt']}
  some:
    op: sample
    from: documents
    with: {rows: 3, seed: SEED}
";

/// A pipeline that reaches nothing of the others.
const NONE: &str = "retort: 1\nname: none\nnodes:\n  documents: {op: extract, with: {paths: ['none.yaml']}}\n";

fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    for n in 0..4 {
        space.write(&format!("docs/{n}.txt"), &format!("The machine number {n} has {} megabytes.", 8 * (n + 1)));
    }
    for (name, seed) in [("one", "1"), ("two", "2")] {
        space.write(&format!("{name}.yaml"), &PIPELINE.replace("NAME", name).replace("SEED", seed));
    }
    space
}

/// All files of the store, but for the record of runs.
fn files(space: &Space) -> Vec<PathBuf> {
    let store = space.path().join(".retort");
    let all = walkdir::WalkDir::new(&store).sort_by_file_name().into_iter().map(|entry| entry.unwrap().into_path());
    all.filter(|path| !path.starts_with(store.join("runs")) && !path.is_dir()).collect()
}

fn n_in(space: &Space, folder: &str) -> usize {
    files(space).iter().filter(|path| path.starts_with(space.path().join(".retort").join(folder))).count()
}

/// Makes all that is in the store look so much older.
fn age(space: &Space, by: Duration) {
    for entry in walkdir::WalkDir::new(space.path().join(".retort")).contents_first(true) {
        let path = entry.unwrap().into_path();
        if let Ok(file) = File::open(&path)
            && !path.is_symlink()
        {
            file.set_modified(file.metadata().unwrap().modified().unwrap() - by).unwrap();
        }
    }
}

fn gc(space: &Space, args: &[&str]) -> Value {
    let output = space.retort(&[&["cache", "gc", "--json"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How many of each kind go.
fn kinds(report: &Value) -> BTreeMap<String, u64> {
    let kinds = report["kinds"].as_array().unwrap().iter();
    let count = |kind: &Value| (kind["kind"].as_str().unwrap().to_string(), kind["items"].as_u64().unwrap());
    kinds.map(count).filter(|(_, n)| *n > 0).collect()
}

fn counts<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<String, u64> {
    expected.into_iter().map(|(kind, n)| (kind.to_string(), n)).collect()
}

fn ran(space: &Space, pipeline: &str) -> Vec<String> {
    space.run(pipeline).ran()
}

#[test]
fn what_was_replaced_long_ago_goes_and_what_is_newest_stays() {
    let space = space();
    space.run("one.yaml");
    space.edit("docs/0.txt", "megabytes", "MB");
    space.run("one.yaml");
    assert_eq!(kinds(&gc(&space, &[])), counts([]), "nothing is old");
    age(&space, 40 * DAY);

    let before = files(&space);
    let dry = gc(&space, &[]);
    assert_eq!(dry["dry_run"], true);
    // Of `documents` the documents and the list of files; `rejects` are empty both times. The sample may be the same.
    let sample_changed = n_in(&space, "answers") == 4;
    assert!(sample_changed, "{before:?}");
    assert_eq!(kinds(&dry)["answers"], 2);
    assert_eq!(files(&space), before, "a dry run changes nothing");

    let newest = space.rows("one.yaml", "some");
    let done = gc(&space, &["--yes"]);
    assert_eq!((&done["dry_run"], kinds(&done)), (&false.into(), kinds(&dry)));
    assert_eq!(done["bytes"], dry["bytes"]);
    assert_eq!(n_in(&space, "answers"), 2);
    assert_eq!(ran(&space, "one.yaml"), Vec::<String>::new());
    assert_eq!(space.rows("one.yaml", "some"), newest);
    // The rows of the operator stay: what was read once is not read again.
    space.edit("docs/0.txt", "MB", "megabytes");
    assert_eq!(ran(&space, "one.yaml"), ["documents: 0", "some"]);
    assert_eq!(kinds(&gc(&space, &["--yes"])), counts([]));
}

#[test]
fn a_pipeline_that_is_not_named_goes_and_can_run_again() {
    let space = space();
    let (one, two) = (space.run("one.yaml"), space.run("two.yaml"));
    age(&space, DAY);
    let report = gc(&space, &["one.yaml", "--older-than", "1h", "--yes"]);
    assert_eq!(kinds(&report)["answers"], 1, "they share `documents`: {report}");
    assert!(!space.path().join(".retort/view/two/some.json").exists(), "a link that leads nowhere is gone");
    assert_eq!(ran(&space, "one.yaml"), Vec::<String>::new());
    assert_eq!(ran(&space, "two.yaml"), ["some"]);
    assert_eq!((one.ran().len(), two.ran().len()), (2, 1));
    let table = |name: &str| fs::read(space.path().join(format!(".retort/view/{name}/some.parquet"))).unwrap();
    assert!(!table("one").is_empty() && !table("two").is_empty());
}

#[test]
fn the_least_recently_used_goes_until_the_store_fits() {
    let space = space();
    for text in ["first", "second", "third"] {
        space.write("docs/0.txt", text);
        space.run("one.yaml");
        age(&space, DAY);
    }
    let total = gc(&space, &[])["total"].as_u64().unwrap();
    let fitting = |bytes: u64| gc(&space, &["--max-size", &format!("{bytes}B")]);
    assert_eq!(kinds(&fitting(total)), counts([]), "it fits");
    let report = fitting(total - 1);
    let used = |item: &Value| item["unused_seconds"].as_u64().unwrap() / 86_400;
    let days: Vec<_> = report["items"].as_array().unwrap().iter().map(used).collect();
    assert!(!days.is_empty() && days.iter().all(|days| *days == 3), "the first goes first: {report}");

    // What is reachable stays, however small the store is to be; the person is told.
    let output = space.retort(&["cache", "gc", "--max-size", "1B", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("reachable or in use"), "{said}");
    assert_eq!(n_in(&space, "answers"), 2);
    assert_eq!(ran(&space, "one.yaml"), Vec::<String>::new());
}

#[test]
fn rows_that_were_paid_for_stay_though_their_run_was_killed() {
    let server = Server::start(3);
    let space = space();
    let text =
        "  answers:\n    op: prompt-llm\n    from: documents\n    with: {model: m, messages: [{user: '{{ text }}'}]}\n";
    let with_models = PIPELINE.replace("nodes:", &format!("models:\n  m: {}\nnodes:", server.model(1)));
    space.write("asks.yaml", &(with_models.replace("NAME", "asks").replace("SEED", "1") + text));
    let mut run = space.start(&["run", "asks.yaml"]);
    while server.asked() < 4 {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    run.kill().unwrap();
    run.wait().unwrap();
    age(&space, DAY);
    let report = gc(&space, &["asks.yaml", "--older-than", "1h", "--yes"]);
    assert_eq!(kinds(&report).get("rows"), None, "{report}");
    assert_eq!(n_in(&space, "claims") + n_in(&space, "pins"), 1, "but for the lock itself nothing of the dead is left");
    server.allow(100);
    assert_eq!(space.run("asks.yaml").recalled("answers"), Some((3, 4)));

    let report = gc(&space, &["two.yaml", "--older-than", "0s", "--yes"]);
    assert_eq!(kinds(&report)["rows"], 1, "of a pipeline that is not named they go, if no other has them: {report}");
}

#[test]
fn what_the_dead_left_is_swept() {
    let space = space();
    space.run("one.yaml");
    let store = space.path().join(".retort");
    let recipe = "ab".repeat(32);
    let left =
        ["tables/.tmp-1-1", "answers/00/.tmp-1-2", &format!("claims/{recipe}"), "pins/1-0.pins", "quarantine/tables/x"];
    for name in left.iter().chain([&format!("work/{recipe}/checkpoint").as_str(), &"assets/downloads/x.part"]) {
        fs::create_dir_all(store.join(name).parent().unwrap()).unwrap();
        fs::write(store.join(name), "left").unwrap();
    }
    fs::create_dir_all(store.join("tables/zz")).unwrap();
    assert_eq!(kinds(&gc(&space, &["--yes"])), counts([]), "it may still be written to");
    fs::write(store.join(format!("claims/{recipe}")), "left").unwrap();
    age(&space, 40 * DAY);
    let report = gc(&space, &["--yes"]);
    assert_eq!(kinds(&report), counts([("work", 1), ("downloads", 1), ("quarantine", 1), ("temporary", 2)]));
    let rest: Vec<_> = left.iter().filter(|name| store.join(name).exists()).collect();
    assert!(rest.is_empty() && !store.join("tables/zz").exists() && !store.join("work").exists(), "{rest:?}");
    assert_eq!(ran(&space, "one.yaml"), Vec::<String>::new());
}

#[test]
fn a_table_of_several_is_counted_once() {
    let space = space();
    space.run("one.yaml");
    space.run("two.yaml");
    let size = |args: &[&str]| -> Value {
        let output = space.retort(&[&["cache", "size", "--json"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let all = size(&[]);
    let pipelines = all["pipelines"].as_array().unwrap();
    let bytes = |value: &Value| value.as_u64().unwrap();
    assert_eq!(pipelines.len(), 2);
    assert_eq!(pipelines[0]["shared"], pipelines[1]["shared"]);
    let own: u64 = pipelines.iter().map(|pipeline| bytes(&pipeline["own"])).sum();
    assert_eq!(own + bytes(&pipelines[0]["shared"]), bytes(&all["reachable"]));
    let kind = |name: &str| {
        bytes(&all["kinds"].as_array().unwrap().iter().find(|kind| kind["kind"] == name).unwrap()["bytes"])
    };
    assert_eq!(bytes(&all["reachable"]), kind("tables") + kind("rows"), "all is somebody's, each once");
    for named in ["one", "one.yaml"] {
        let nodes = &size(&[named])["pipelines"][0]["nodes"];
        assert_eq!((&nodes[0]["node"], &nodes[1]["node"]), (&"documents".into(), &"some".into()));
        assert_eq!(bytes(&nodes[0]["shared"]), bytes(&nodes[0]["tables"]) + bytes(&nodes[0]["rows"]));
    }
    let output = space.retort(&["cache", "size", "onne"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `one`?"));
}

#[test]
fn what_a_run_will_yet_read_stays_though_it_is_old_and_nobody_else_reaches_it() {
    let server = Server::start(0);
    let space = space();
    space.write("none.yaml", NONE);
    space.run("one.yaml");
    age(&space, 400 * DAY);
    // `documents` is known and old; `answers` keeps the run busy; `some`, which has another seed, reads `documents` after that.
    let answers = format!(
        "models:\n  m: {}\nnodes:\n  answers:\n    op: prompt-llm\n    from: documents\n    with: {{model: m, messages: [{{user: '{{{{ text }}}}'}}]}}\n",
        server.model(4)
    );
    let text = PIPELINE.replace("nodes:\n", &answers).replace("NAME", "one").replace("SEED", "7");
    space.write(
        "one.yaml",
        &text.replace("from: documents\n    with: {rows", "from: [documents, documents]\n    with: {rows"),
    );
    let run = space.start(&["run", "one.yaml", "--json", "-j", "1"]);
    while server.asked() < 4 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let report = gc(&space, &["none.yaml", "--older-than", "0s", "--yes"]);
    assert_eq!((&report["users"], kinds(&report)["answers"]), (&1.into(), 1), "the old sample goes: {report}");
    server.allow(100);
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Story::of(&output.stdout).ran(), ["answers: 4", "some"], "`documents` was not made again");
    // Nobody uses the store any more.
    let report = gc(&space, &["none.yaml", "--older-than", "0s", "--yes"]);
    assert_eq!((kinds(&report)["answers"], n_in(&space, "tables")), (3, 0), "{report}");
}

/// Ends the sweeps, also where a run fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_sweep_takes_nothing_from_the_runs_beside_it() {
    let rounds = std::env::var("RETORT_GC_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let space = space();
    space.write("none.yaml", NONE);
    let pipelines = ["one.yaml", "two.yaml"];
    let content = |story: &Story| story.events.last().unwrap()["nodes"].clone();
    let outputs = |nodes: &Value| -> Vec<Value> {
        nodes.as_array().unwrap().iter().map(|node| node["outputs"].clone()).collect()
    };
    let expected: Vec<_> = pipelines.map(|pipeline| outputs(&content(&space.run(pipeline)))).into();
    let (over, removed) = (AtomicBool::new(false), std::sync::Mutex::new(0));
    for round in 0..rounds {
        // Answers that are as old as can be, so that nothing but a pin keeps them; and none, so that all is written anew.
        for pipeline in pipelines.iter().take(round % 3) {
            space.run(pipeline);
        }
        age(&space, 400 * DAY);
        over.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let report = gc(&space, &["none.yaml", "--older-than", "0s", "--yes"]);
                    *removed.lock().unwrap() += report["bytes"].as_u64().unwrap();
                }
            });
            let _over = Over(&over);
            let runs: Vec<_> =
                (0..6).map(|n| (n % 2, space.start(&["run", pipelines[n % 2], "--json", "-j", "2"]))).collect();
            for (n, run) in runs {
                let output = run.wait_with_output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
                assert_eq!(outputs(&content(&Story::of(&output.stdout))), expected[n]);
            }
        });
    }
    assert!(*removed.lock().unwrap() > 0, "there was something to sweep");
}

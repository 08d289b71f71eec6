//! Several processes train one adapter: it is the one that a single process makes, and one that dies costs no finished step.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use retort_tests::{Space, Story};
use serde_json::Value;

use crate::model::model;

const PIPELINE: &str = "\
retort: 1
name: printers
models:
  smol: {weights: 'file:MODEL', sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53}
nodes:
  documents: {op: extract, with: {paths: ['docs/*.txt']}}
  pairs: {op: parse, from: documents, with: {format: question-answer, column: text}}
  sets: {op: split-eval, from: pairs, with: {eval: 3, near: 1, seed: 1}}
  adapter:
    op: lora-train
    from: {train: sets.train, eval: sets.eval, text: documents}
    with:
      model: smol
      rank: 4
      dropout: 0.1
      seed: 3
      max_tokens_per_pass: 40
      phases:
        - {data: text, epochs: 2, learning_rate: 1.0e-3, batch: 4}
        - {data: pairs, epochs: 3, learning_rate: 1.0e-3, batch: 3, eval_every: 4}
";

fn space() -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("printers.yaml", &PIPELINE.replace("MODEL", &model()));
    for name in ["Quill", "Heron", "Ibis", "Stork", "Wren", "Finch", "Robin", "Swift", "Teal"] {
        let text = format!("Question: Where is printer <{name}>?\nAnswer: Printer <{name}> is in the cellar.\n");
        space.write(&format!("docs/{name}.txt"), &text);
    }
    space
}

/// The run of a space by so many processes.
fn across(space: &Space, ranks: usize) -> Command {
    let one = space.command(&["run", "printers.yaml", "--json"]);
    let mut all = Command::new("mpirun");
    all.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string()]);
    // Time to end a pass and to save.
    all.args(["--mca", "odls_base_sigkill_timeout", "20"]);
    all.arg(one.get_program()).args(one.get_args()).current_dir(space.path());
    all.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    all
}

/// What came of a space: the content ids of all nodes.
fn answers(space: &Space) -> String {
    space.ends(0, &["lock", "printers.yaml"]);
    fs::read_to_string(space.path().join("printers.lock")).unwrap()
}

#[test]
fn several_processes_train_the_adapter_that_one_trains() {
    let alone = space();
    alone.run("printers.yaml");
    for ranks in [2, 3] {
        let space = space();
        let output = across(&space, ranks).output().expect("`mpirun` starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let story = Story::of(&output.stdout);
        assert!(story.notes().contains(&format!("trains with {ranks} processes").as_str()), "{:?}", story.notes());
        assert_eq!(answers(&space), answers(&alone));
    }
}

#[test]
fn a_rank_that_dies_costs_no_finished_step() {
    let space = space();
    let mut all = across(&space, 2).spawn().expect("`mpirun` starts");
    let mut lines = BufReader::new(all.stdout.take().unwrap()).lines();
    let step = |line: &str| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["event"] == "metrics").then(|| event["step"].as_u64())?
    };
    let enough = lines.by_ref().map_while(Result::ok).find_map(|line| step(&line).filter(|&step| step >= 7));
    assert!(enough.is_some(), "it trains");
    kill_rank_1(space.path());
    lines.map_while(Result::ok).for_each(drop);
    let mut said = String::new();
    all.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = all.wait().unwrap();
    assert!(!status.success() && status.signal().is_none(), "{status}: {said}");
    assert!(said.contains("rank 1"), "{said}");

    let story = space.run("printers.yaml");
    let from: Option<u64> =
        story.notes().iter().find_map(|note| note.strip_prefix("goes on after step ")?.parse().ok());
    assert!(from >= enough, "{from:?}, not {enough:?}: {said}");
    let alone = self::space();
    alone.run("printers.yaml");
    assert_eq!(answers(&space), answers(&alone));
}

/// Ends the process of rank 1 of the run in this folder at once.
fn kill_rank_1(folder: &std::path::Path) {
    let of_rank_1 = |pid: &String| {
        let of = |what: &str| format!("/proc/{pid}/{what}");
        let env = fs::read(of("environ")).unwrap_or_default();
        let is_rank_1 = env.split(|&byte| byte == 0).any(|variable| variable == b"OMPI_COMM_WORLD_RANK=1");
        is_rank_1 && fs::read_link(of("cwd")).is_ok_and(|cwd| cwd == folder.canonicalize().unwrap())
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pid =
        pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())).find(of_rank_1).expect("rank 1 is there");
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
}

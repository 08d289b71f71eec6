//! Runs the program with `faults.c` loaded: a fault, and the steps that were counted.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use retort_tests::Space;

use super::{NAME, store};

/// All kinds of file operations that change the store.
pub(super) const CHANGES: &str = "create,write,sync,rename,link,unlink,mkdir,truncate,chmod";

/// What happens at the `at`-th operation of the given kinds.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub kinds: &'static str,
    pub at: usize,
    /// `kill`, `torn`, `short`, or the number of an error.
    pub what: String,
    /// Whether all later operations fail as well.
    pub on: bool,
}

impl Fault {
    /// All goes well, and the steps of the given kinds are counted.
    pub(super) fn none(kinds: &'static str) -> Fault {
        Fault { kinds, at: 0, what: String::new(), on: false }
    }
}

/// An operation that was counted.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub n: usize,
    pub kind: String,
    pub path: String,
}

/// What runs the pipeline.
const RUN: [&str; 4] = ["run", NAME, "--json", "-j1"];

/// Runs the pipeline with a fault; gives what it said and the steps up to its end.
pub(super) fn run(space: &Space, fault: &Fault) -> (Output, Vec<Step>) {
    retort(space, &RUN, fault)
}

/// Runs a command with a fault; gives what it said and the steps up to its end.
pub(super) fn retort(space: &Space, args: &[&str], fault: &Fault) -> (Output, Vec<Step>) {
    let mut command = with(space, args, fault);
    let output = command.output().expect("it starts");
    (output, counted(space))
}

/// What starts the pipeline with a fault.
pub(super) fn command(space: &Space, fault: &Fault) -> Command {
    with(space, &RUN, fault)
}

fn with(space: &Space, args: &[&str], fault: &Fault) -> Command {
    let _ = std::fs::remove_file(log(space));
    let mut command = space.command(args);
    command.env("LD_PRELOAD", library()).env("FAULT_UNDER", store(space)).env("FAULT_LOG", log(space));
    command.env("FAULT_KINDS", fault.kinds).env("FAULT_AT", fault.at.to_string()).env("FAULT_DO", &fault.what);
    command.env("FAULT_ON", if fault.on { "1" } else { "0" });
    command
}

/// The file that the steps are written to: no part of the store, or it would count itself.
fn log(space: &Space) -> PathBuf {
    space.path().join("steps.log")
}

/// The steps that were counted up to the end of the last run.
pub(super) fn counted(space: &Space) -> Vec<Step> {
    let log = log(space);
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let step = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let n = parts.next()?.parse().ok()?;
        Some(Step { n, kind: parts.next()?.into(), path: parts.next()?.into() })
    };
    text.lines().filter_map(step).collect()
}

/// The steps of the given kinds of a run without a fault.
pub(super) fn steps(space: &Space, kinds: &'static str) -> Vec<Step> {
    let (output, steps) = run(space, &Fault::none(kinds));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!steps.is_empty(), "nothing was counted: is `faults.c` loaded?");
    steps
}

/// The compiled `faults.c`.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("suite/faults/faults.c");
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.so", std::process::id()));
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = command.output().expect("`cc` is there: cargo links with it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    })
}

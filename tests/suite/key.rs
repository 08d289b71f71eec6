//! The differential fuzzer: random graphs and random edits on a store that persists, held to an answer key that knows no store.
//!
//! After every edit a plan and a run must agree with the key in four things: every table is that of a run from scratch; no node ran and
//! no row was asked whose question was answered before; the plan said so; the reasons named are the facts that changed.
//!
//! | file | what |
//! |---|---|
//! | `ops` | the operators, as plain functions |
//! | `made` | the same for the engine, with probes that count |
//! | `world` | documents, nodes, and the steps that change them |
//! | `draw` | steps from a seed |
//! | `answer` | the answer key |
//! | `known` | what the store must know, and what follows from it |
//! | `hold` | takes the steps on a store |
//! | `judge`, `seen` | compares |
//! | `shrink` | cuts a failing case down |
//!
//! `RETORT_KEY_CASES=100000` tries more cases than a short test can, `RETORT_KEY_SEED=7` begins at another; a failure names its seed, and
//! `RETORT_KEY_SEED=<that> RETORT_KEY_CASES=1` tries it again.

mod answer;
mod determinism;
mod draw;
mod hold;
mod judge;
mod known;
mod made;
mod ops;
mod seen;
mod shrink;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hold::{Counts, hold};
use world::Step;

/// Cases without the environment's say.
const CASES: u64 = 2000;

#[test]
#[expect(clippy::print_stderr, reason = "what was tried is of interest")]
fn edits_come_to_what_a_run_from_scratch_comes_to_and_cost_what_they_must() {
    let first = setting("RETORT_KEY_SEED").unwrap_or(1);
    let cases = setting("RETORT_KEY_CASES").unwrap_or(CASES);
    let next = AtomicU64::new(first);
    let failed = Mutex::new(None);
    let all = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + cases || failed.lock().unwrap().is_some() {
                        break;
                    }
                    match attempt(&draw::case(seed), on_disk(seed)) {
                        Ok(counts) => all.lock().unwrap().add(counts),
                        Err(told) => *failed.lock().unwrap() = Some((seed, told)),
                    }
                }
            });
        }
    });
    if let Some((seed, told)) = failed.into_inner().unwrap() {
        panic!("{}", story(seed, told));
    }
    eprintln!("{cases} cases from seed {first}: {:?}", all.into_inner().unwrap());
}

/// A share of the cases is tried in memory, where no file can be lost.
fn on_disk(seed: u64) -> bool {
    !seed.is_multiple_of(4)
}

fn attempt(steps: &[Step], on_disk: bool) -> Result<Counts, String> {
    catch_unwind(AssertUnwindSafe(|| hold(steps, on_disk))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// A failure, cut down, as steps that a person can follow.
fn story(seed: u64, told: String) -> String {
    let fails = |steps: &[Step]| attempt(steps, on_disk(seed)).err();
    let (steps, told) = shrink::shrink(draw::case(seed), told, &fails);
    let steps: Vec<_> = steps.iter().enumerate().map(|(at, step)| format!("  {at}. {step}")).collect();
    format!("seed {seed} fails:\n{}\n{told}\nagain: RETORT_KEY_SEED={seed} RETORT_KEY_CASES=1", steps.join("\n"))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

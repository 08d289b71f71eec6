//! What was seen of a node in a run: its events, and what its operator counted.

use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::Ordering;

use retort_engine::{Event, EventKind, OutputSummary};

use super::answer::Keyed;
use super::hold::Told;
use super::known::{Known, Why};
use super::made::probe;

/// What was seen of a node in a run.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) fresh: Option<Vec<OutputSummary>>,
    pub(crate) began: Option<Why>,
    pub(crate) recalled: Option<u64>,
    pub(crate) finished: Option<Finished>,
    pub(crate) failed: Option<String>,
    pub(crate) skipped: bool,
    pub(crate) asked: Vec<String>,
    pub(crate) answered: Vec<String>,
    /// Calls of a table operator.
    pub(crate) calls: i64,
}

pub(crate) struct Finished {
    pub(crate) outputs: Vec<OutputSummary>,
    pub(crate) changed: bool,
    pub(crate) asked: Option<u64>,
    pub(crate) rejects: u64,
}

impl Seen {
    pub(crate) fn of(node: &str, events: &[Event], base: &Path) -> Self {
        let probe = probe(base);
        let mut seen = Seen {
            asked: probe.asked.lock().unwrap().clone(),
            answered: probe.answered.lock().unwrap().clone(),
            calls: probe.runs.load(Ordering::Relaxed),
            ..Seen::default()
        };
        for event in events.iter().filter(|event| event.node == node) {
            match &event.kind {
                EventKind::Fresh { outputs, .. } => seen.fresh = Some(outputs.clone()),
                EventKind::Started { why } => seen.began = Some(Why::of(why)),
                EventKind::Recalled { rows, .. } => seen.recalled = Some(*rows),
                EventKind::Finished { outputs, changed, asked, rejects, .. } => {
                    let (outputs, changed) = (outputs.clone(), *changed);
                    seen.finished = Some(Finished { outputs, changed, asked: *asked, rejects: *rejects });
                }
                EventKind::Failed { error, .. } => seen.failed = Some(error.clone()),
                EventKind::Skipped { .. } => seen.skipped = true,
                _ => {}
            }
        }
        seen
    }

    /// What a store knows after it.
    pub(crate) fn add_to(&self, known: &mut Known, node: &str, keyed: &Keyed) {
        known.remember(keyed, self.answered.iter().cloned());
        if self.finished.is_some() {
            known.answered(node, keyed);
        } else if self.fresh.is_some() {
            known.recalled(node, keyed);
        }
    }
}

/// Says so where what is differs from what should be.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, is: &T, should_be: &T) -> Told {
    if is == should_be { Ok(()) } else { Err(format!("{what}\n    is        {is:?}\n    should be {should_be:?}")) }
}

/// Says so where something does not hold.
pub(crate) fn holds(is: bool, what: impl FnOnce() -> String) -> Told {
    if is { Ok(()) } else { Err(what()) }
}

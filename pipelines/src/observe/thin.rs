//! Lets through at most one count of progress a node and interval, for views that write every event down.
//!
//! Tokens are summed, so that nothing is lost; the newest count comes before whatever else happens to the node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use retort_engine::{Event, EventKind};

/// Holds back progress that comes too often.
pub(super) struct Thin {
    interval: f64,
    held: BTreeMap<String, Held>,
}

#[derive(Default)]
struct Held {
    shown: Option<f64>,
    progress: Option<EventKind>,
    fetching: Option<EventKind>,
    tokens: (u64, u64),
    left: Option<u64>,
}

impl Thin {
    /// At most one count every `interval` seconds.
    pub(super) fn every(interval: f64) -> Self {
        Thin { interval, held: BTreeMap::new() }
    }

    /// The events to show now: none, some that were held back, or the event itself after those.
    pub(super) fn take<'a>(&mut self, event: &'a Event, at: f64) -> Vec<Cow<'a, Event>> {
        let is_count =
            matches!(event.kind, EventKind::Progress { .. } | EventKind::Fetching { .. } | EventKind::Tokens { .. });
        if !is_count && !self.held.contains_key(&event.node) {
            return vec![Cow::Borrowed(event)];
        }
        let held = self.held.entry(event.node.clone()).or_default();
        match &event.kind {
            EventKind::Progress { .. } => held.progress = Some(event.kind.clone()),
            EventKind::Fetching { .. } => held.fetching = Some(event.kind.clone()),
            EventKind::Tokens { prompt, output, left } => {
                held.tokens.0 += prompt;
                held.tokens.1 += output;
                held.left = *left;
            }
            _ => {}
        }
        let due = held.shown.is_none_or(|shown| at - shown >= self.interval);
        if is_count && !due {
            return Vec::new();
        }
        let mut events: Vec<EventKind> = held.fetching.take().into_iter().chain(held.progress.take()).collect();
        if held.tokens != (0, 0) {
            let (prompt, output) = std::mem::take(&mut held.tokens);
            events.push(EventKind::Tokens { prompt, output, left: held.left });
        }
        if is_count {
            held.shown = Some(at);
        } else {
            events.push(event.kind.clone());
        }
        events.into_iter().map(|kind| Cow::Owned(Event { node: event.node.clone(), kind })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_thinned_and_none_is_lost() {
        let mut thin = Thin::every(1.0);
        let mut take = |kind: EventKind, at: f64| thin.take(&Event { node: "n".into(), kind }, at).len();
        assert_eq!(take(EventKind::Progress { done: 1, of: 9 }, 0.0), 1);
        assert_eq!(take(EventKind::Progress { done: 2, of: 9 }, 0.5), 0);
        assert_eq!(take(EventKind::Tokens { prompt: 3, output: 1, left: Some(9) }, 0.6), 0);
        assert_eq!(take(EventKind::Tokens { prompt: 4, output: 1, left: Some(5) }, 0.7), 0);
        let note = Event { node: "n".into(), kind: EventKind::Note { text: "x".into() } };
        let all = thin.take(&note, 0.8);
        assert!(matches!(all[0].kind, EventKind::Progress { done: 2, of: 9 }));
        assert!(matches!(all[1].kind, EventKind::Tokens { prompt: 7, output: 2, left: Some(5) }));
        assert!(matches!(all[2].kind, EventKind::Note { .. }));
    }
}

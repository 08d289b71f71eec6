//! Who watches a run: one stage takes the engine's events, keeps a tally a node, and shows both to every view.
//!
//! | view | where it shows |
//! |---|---|
//! | `live` | a line a running node, on a terminal |
//! | `plain` | a line an event, where there is no terminal |
//! | `json` | an object an event, on standard output |
//! | `record` | `runs/<id>/` in the store |
//! | `tensorboard` | event files beside the record |
//!
//! The stage owns the clock; everything below it sees times as seconds since the run began.

mod json;
mod live;
mod plain;
mod quiet;
mod record;
mod tally;
mod tensorboard;
mod thin;
pub mod words;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use retort_cache::StoreError;
use retort_engine::{Event, Observer, Summary};

pub use json::Json;
pub use live::Live;
pub use plain::Plain;
pub use record::{About, Record};
pub(crate) use record::{EVENTS_FILE, RUN_FILE, RUN_VERSION, RUNS_FOLDER};
pub use tally::{State, Tally};
pub use tensorboard::TensorBoard;

/// Nodes that a person is told one by one though nothing happened to them, at most; the others are counted.
pub const TOLD: usize = 50;

/// What a view is shown.
pub struct Moment<'a> {
    /// Seconds since the run began.
    pub at: f64,
    /// What happened.
    pub event: &'a Event,
    /// The node's tally with the event in it.
    pub tally: &'a Tally,
}

/// The end of a run.
pub struct Ending<'a> {
    /// Seconds since the run began.
    pub at: f64,
    /// What the run came to.
    pub summary: &'a Summary,
    /// Every node of the run with its tally, in order.
    pub nodes: &'a [(String, Tally)],
}

/// Shows a run. A view that can't write does not stop the run, which is worth more than its picture.
pub trait View: Send {
    /// Something happened.
    fn see(&mut self, moment: &Moment<'_>);
    /// A line for the person who watches, about the run as a whole.
    fn say(&mut self, text: &str) {
        let _ = text;
    }
    /// The run is over.
    fn end(&mut self, ending: &Ending<'_>) {
        let _ = ending;
    }
    /// Why what it wrote is not whole, if it is not. Asked after the end.
    fn trouble(&mut self) -> Option<StoreError> {
        None
    }
}

/// Takes a run's events and shows them to views, one at a time.
pub struct Stage {
    clock: Clock,
    inner: Mutex<Inner>,
}

struct Inner {
    nodes: Vec<(String, Tally)>,
    /// The nodes' places in `nodes`.
    places: HashMap<String, usize>,
    views: Vec<Box<dyn View>>,
}

impl Stage {
    /// A stage for the nodes of a run, in order, with its views.
    pub fn new(clock: Clock, nodes: impl IntoIterator<Item = String>, views: Vec<Box<dyn View>>) -> Self {
        let nodes: Vec<_> = nodes.into_iter().map(|name| (name, Tally::default())).collect();
        let places = nodes.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        Stage { clock, inner: Mutex::new(Inner { nodes, places, views }) }
    }

    /// Shows a line about the run as a whole.
    pub fn say(&self, text: &str) {
        for view in &mut self.inner().views {
            view.say(text);
        }
    }

    /// Tells every view that the run is over; gives the nodes' tallies, in order, and the run's seconds.
    pub fn end(&self, summary: &Summary) -> (Vec<(String, Tally)>, f64) {
        let at = self.clock.seconds();
        let mut inner = self.inner();
        let Inner { nodes, views, .. } = &mut *inner;
        for view in views {
            view.end(&Ending { at, summary, nodes });
        }
        (std::mem::take(nodes), at)
    }

    /// Why what the views wrote is not whole, where it is not. Asked after the end.
    pub fn troubles(&self) -> Vec<StoreError> {
        self.inner().views.iter_mut().filter_map(|view| view.trouble()).collect()
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A view that panicked leaves its own picture unfinished, no more.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Observer for Stage {
    fn on(&self, event: &Event) {
        let mut inner = self.inner();
        // Read under the lock, so that times never go back.
        let at = self.clock.seconds();
        let Inner { nodes, places, views } = &mut *inner;
        let Some((_, tally)) = places.get(&event.node).and_then(|place| nodes.get_mut(*place)) else { return };
        tally.take(&event.kind, at);
        for view in views {
            view.see(&Moment { at, event, tally });
        }
    }
}

/// The run's clock: the only one in Retort.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    epoch: f64,
}

impl Clock {
    /// Begins to count.
    pub fn start() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Clock { start: Instant::now(), epoch }
    }

    /// Seconds since it began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// When it began, in seconds since 1970.
    pub fn epoch(&self) -> f64 {
        self.epoch
    }
}

//! How fast a server is asked: so many requests and tokens a minute, and not at all while it said to wait.
//!
//! There is no clock here: a thread adds what a slice of time allows, and sleeps for that long. A sleep may last longer than asked, never shorter, so rates are
//! kept from below.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, Weak};

use super::{SLICE, ServerError};
use crate::models::Terms;

/// Slices in a minute.
const SLICES: f64 = 600.0;
/// Of a minute's allowance this part may be used at once.
const BURST: f64 = 60.0;

/// The pace of one server.
#[derive(Debug)]
pub(super) struct Pace {
    requests: Option<f64>,
    tokens: Option<f64>,
    left: Mutex<Left>,
    changed: Condvar,
    filling: Once,
}

/// What may be used now. Below zero it is owed.
#[derive(Debug)]
struct Left {
    requests: f64,
    tokens: f64,
    /// How many wait because the server said so.
    holds: usize,
}

impl Pace {
    pub(super) fn new(terms: &Terms) -> Self {
        let (requests, tokens) =
            (terms.requests_per_minute.map(|n| n as f64), terms.tokens_per_minute.map(|n| n as f64));
        let left = Left { requests: 1.0, tokens: tokens.unwrap_or(0.0) / BURST, holds: 0 };
        Self { requests, tokens, left: Mutex::new(left), changed: Condvar::new(), filling: Once::new() }
    }

    /// Waits until one more request of about so many tokens may be made.
    pub(super) fn enter(self: &Arc<Self>, tokens: u64, cancelled: &dyn Fn() -> bool) -> Result<(), ServerError> {
        if self.requests.is_some() || self.tokens.is_some() {
            self.filling.call_once(|| fill(Arc::downgrade(self)));
        }
        let mut left = self.left();
        loop {
            if cancelled() {
                return Err(ServerError::Cancelled);
            }
            let slow = self.requests.is_some() && left.requests < 1.0 || self.tokens.is_some() && left.tokens <= 0.0;
            if left.holds == 0 && !slow {
                left.requests -= 1.0;
                left.tokens -= tokens as f64;
                return Ok(());
            }
            left = self.changed.wait_timeout(left, SLICE).expect("no thread panics while it counts").0;
        }
    }

    /// Puts right what was thought when the request was made.
    pub(super) fn settle(&self, thought: u64, used: u64) {
        self.left().tokens += thought as f64 - used as f64;
    }

    /// Nobody enters until the hold is dropped.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.left().holds += 1;
        Hold(self)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().expect("no thread panics while it counts")
    }
}

/// See [`Pace::hold`].
pub(super) struct Hold<'a>(&'a Pace);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.left().holds -= 1;
        self.0.changed.notify_all();
    }
}

/// Adds what time allows, as long as somebody has the pace.
fn fill(pace: Weak<Pace>) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(SLICE);
            let Some(pace) = pace.upgrade() else { return };
            let more = |left: f64, rate: Option<f64>, least: f64| {
                let rate = rate.unwrap_or(0.0);
                (left + rate / SLICES).min((rate / BURST).max(least))
            };
            let mut left = pace.left();
            left.requests = more(left.requests, pace.requests, 1.0);
            left.tokens = more(left.tokens, pace.tokens, 1.0);
            drop(left);
            pace.changed.notify_all();
        }
    });
}

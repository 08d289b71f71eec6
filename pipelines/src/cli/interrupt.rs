//! Ctrl-C: once to stop at the next step, twice to leave at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::stop::Ended;

/// Sets `cancelled` at the first interrupt (SIGINT, SIGTERM, SIGHUP), says so, and ends the process at the second.
///
/// What is finished by then is in the store either way: rows are durable as they come.
pub(super) fn watch(cancelled: Arc<AtomicBool>, say: impl Fn(&str) + Send + 'static) {
    let set = ctrlc::set_handler(move || {
        if cancelled.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(Ended::INTERRUPTED.0));
        }
        say("stopping; what is finished is kept; Ctrl-C again to leave at once");
    });
    // Without a handler an interrupt ends the process, which loses no finished row either.
    let _ = set;
}

//! Answers on their way to the row log: a thread beside the work makes them durable, those of one moment together.
//!
//! A sync costs the processor as much as a page of HTML does. So after one the next waits for a moment: short for whoever waits for
//! a row, long for a row that is cheap.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use retort_cache::{RowAnswer, RowKey, RowMemo, StoreError};

use crate::Failure;

/// So long is waited from one sync to the next. A row that comes later is synced at once.
const MOMENT: Duration = Duration::from_millis(25);

/// Where answers are handed over.
#[derive(Default)]
pub(super) struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What came since the last sync began.
    rows: Vec<(RowKey, RowAnswer)>,
    /// How many rows came, and how many of them are durable.
    came: u64,
    durable: u64,
    /// How many of them somebody waits for.
    wanted: u64,
    /// No more is coming, or nothing can be written any more.
    is_over: bool,
}

impl Log {
    /// Does `work` beside a thread that writes to `memo`. When this returns, all answers are durable, or it says why they are not.
    pub(super) fn beside(
        memo: Option<&dyn RowMemo>,
        work: impl FnOnce(Option<&Self>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(memo) = memo else { return work(None) };
        let log = Self::default();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let _over = Over(&log);
                log.write(memo)
            });
            let worked = {
                let _over = Over(&log);
                work(Some(&log))
            };
            // A write that failed is the cause, the work that then could not go on is not.
            writer.join().expect("the writer does not panic")?;
            worked
        })
    }

    /// Hands an answer over.
    ///
    /// # Errors
    /// Nothing can be written any more. `beside` says why.
    pub(super) fn add(&self, key: RowKey, answer: RowAnswer) -> Result<(), Failure> {
        let mut state = self.state();
        if state.is_over {
            return Err(Failure::Cancelled);
        }
        state.rows.push((key, answer));
        state.came += 1;
        if state.rows.len() == 1 {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// How many rows came so far.
    pub(super) fn came(&self) -> u64 {
        self.state().came
    }

    /// Waits until the first `rows` that came are durable, or can't be.
    pub(super) fn wait_for(&self, rows: u64) {
        let mut state = self.state();
        state.wanted = state.wanted.max(rows);
        if state.is_behind() {
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |state| state.is_behind() && !state.is_over));
        }
    }

    fn write(&self, memo: &dyn RowMemo) -> Result<(), StoreError> {
        loop {
            let waits = |state: &mut State| state.rows.is_empty() && !state.is_over;
            let state = self.changed.wait_while(self.state(), waits);
            let rows = mem::take(&mut state.unwrap_or_else(PoisonError::into_inner).rows);
            if rows.is_empty() {
                return Ok(());
            }
            memo.commit(&rows)?;
            let n = rows.len() as u64;
            drop(rows);
            let mut state = self.state();
            state.durable += n;
            self.changed.notify_all();
            drop(self.changed.wait_timeout_while(state, MOMENT, |state| !state.is_over && !state.is_behind()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done where a thread can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_behind(&self) -> bool {
        self.durable < self.wanted
    }
}

/// Says, when it goes, that one of the two sides is done, even by a panic: the other must not wait for it.
struct Over<'a>(&'a Log);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::{self, Sender};

    use retort_cache::Digest;

    use super::*;

    /// Says how many rows each commit has, and fails where it is told to.
    pub(in super::super) struct Told {
        pub(in super::super) commits: Sender<usize>,
        pub(in super::super) fails: bool,
    }

    impl RowMemo for Told {
        fn recall(&self, keys: &[RowKey]) -> Result<Vec<Option<RowAnswer>>, StoreError> {
            Ok(vec![None; keys.len()])
        }

        fn knows(&self, keys: &[RowKey]) -> Result<Vec<bool>, StoreError> {
            Ok(vec![false; keys.len()])
        }

        fn commit(&self, rows: &[(RowKey, RowAnswer)]) -> Result<(), StoreError> {
            self.commits.send(rows.len()).unwrap();
            let full = || StoreError::Io { verb: "sync", path: "a.rows".into(), source: std::io::Error::other("full") };
            if self.fails { Err(full()) } else { Ok(()) }
        }
    }

    pub(in super::super) fn key(row: usize) -> RowKey {
        RowKey(Digest::of("test 1", |hasher| {
            hasher.update(&row.to_le_bytes());
        }))
    }

    pub(in super::super) fn answer() -> RowAnswer {
        RowAnswer::Rejected("it was refused".into())
    }

    #[test]
    fn a_lone_row_waits_for_nobody_and_those_of_a_moment_are_written_together() {
        let (commits, committed) = mpsc::channel();
        let memo = Told { commits, fails: false };
        let work = |log: Option<&Log>| {
            let log = log.expect("there is a memo");
            log.add(key(0), answer())?;
            assert_eq!(committed.recv().unwrap(), 1, "it is written while the work goes on");
            (1..1000).try_for_each(|row| log.add(key(row), answer()))
        };
        Log::beside(Some(&memo), work).unwrap();
        let later: Vec<usize> = committed.try_iter().collect();
        assert_eq!(later.iter().sum::<usize>(), 999, "none is lost at the end");
        assert!(later.len() < 500, "{} writes", later.len());
    }

    #[test]
    fn who_waits_for_rows_has_them() {
        let (commits, committed) = mpsc::channel();
        let memo = Told { commits, fails: false };
        let work = |log: Option<&Log>| {
            let log = log.expect("there is a memo");
            let mut durable = 0;
            for piece in 1..6 {
                (0..100).try_for_each(|row| log.add(key(100 * piece + row), answer()))?;
                assert_eq!(log.came(), 100 * piece as u64);
                log.wait_for(log.came() - 50);
                durable += committed.try_iter().sum::<usize>();
                assert!(durable >= 100 * piece - 50, "{durable} rows after piece {piece}");
            }
            Ok(())
        };
        Log::beside(Some(&memo), work).unwrap();
    }

    #[test]
    fn nobody_waits_for_what_can_not_be_written() {
        let (commits, _committed) = mpsc::channel();
        let memo = Told { commits, fails: true };
        let work = |log: Option<&Log>| {
            let log = log.expect("there is a memo");
            for row in 0..3 {
                _ = log.add(key(row), answer());
                log.wait_for(log.came());
            }
            Ok(())
        };
        let failed = Log::beside(Some(&memo), work).unwrap_err();
        assert!(matches!(failed, Failure::Store(_)), "{failed:?}");
    }

    #[test]
    fn work_stops_where_nothing_can_be_written() {
        let (commits, committed) = mpsc::channel();
        let memo = Told { commits, fails: true };
        let work = |log: Option<&Log>| loop {
            log.expect("there is a memo").add(key(0), answer())?;
        };
        let failed = Log::beside(Some(&memo), work).unwrap_err();
        assert!(matches!(failed, Failure::Store(StoreError::Io { verb: "sync", .. })), "{failed:?}");
        assert_eq!(committed.try_iter().count(), 1);
    }

    #[test]
    #[should_panic(expected = "the work")]
    fn work_that_panics_is_not_waited_for() {
        let memo = Told { commits: mpsc::channel().0, fails: false };
        let _ = Log::beside(Some(&memo), |_| panic!("the work"));
    }
}

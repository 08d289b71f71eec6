//! Pieces of an input that are answered side by side, and come out in the order in which they went in.
//!
//! One piece after the other would leave all cores but one waiting for its longest row. Each has a thread of its own, which waits for
//! the pool that all pieces share: the pool begins with a piece when nothing is left to begin of those before it.

use std::collections::{HashSet, VecDeque};
use std::thread::{Scope, ScopedJoinHandle};

use retort_cache::RowKey;

use super::log::Log;

/// What is being answered, and the rows that were asked and may not be durable yet.
pub(super) struct Pieces<'scope, 'env, T> {
    scope: &'scope Scope<'scope, 'env>,
    making: VecDeque<Making<'scope, T>>,
    log: Option<&'env Log>,
    /// Of the piece that came out last and of those that did not.
    asked: VecDeque<HashSet<RowKey>>,
    /// How many rows had come to the log when the last piece came out.
    came: u64,
}

enum Making<'scope, T> {
    Beside(ScopedJoinHandle<'scope, T>),
    /// By whoever waits for it.
    Later(Box<dyn FnOnce() -> T + 'scope>),
}

impl<'scope, 'env, T: Send + 'scope> Pieces<'scope, 'env, T> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, log: Option<&'env Log>) -> Self {
        Pieces { scope, making: VecDeque::new(), log, asked: VecDeque::new(), came: 0 }
    }

    /// How many went in and did not come out.
    pub(super) fn len(&self) -> usize {
        self.making.len()
    }

    /// Begins with a piece, which asks for some rows. One that is made `alone` is begun when it is waited for, and needs no thread.
    pub(super) fn push(
        &mut self,
        alone: bool,
        asks: impl Iterator<Item = RowKey>,
        make: impl FnOnce() -> T + Send + 'scope,
    ) {
        if self.log.is_some() {
            self.asked.push_back(asks.collect());
        }
        let making = if alone { Making::Later(Box::new(make)) } else { Making::Beside(self.scope.spawn(make)) };
        self.making.push_back(making);
    }

    /// Waits for the first of the pieces that did not come out, and until all rows of those before it are durable.
    pub(super) fn pop(&mut self) -> Option<T> {
        let made = match self.making.pop_front()? {
            Making::Beside(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Making::Later(make) => make(),
        };
        if let Some(log) = self.log {
            log.wait_for(std::mem::replace(&mut self.came, log.came()));
            self.asked.drain(..self.asked.len().saturating_sub(self.len() + 1));
        }
        Some(made)
    }

    /// Whether a row was asked and can't be recalled yet.
    pub(super) fn ask_any(&self, mut rows: impl Iterator<Item = RowKey>) -> bool {
        !self.asked.is_empty() && rows.any(|row| self.asked.iter().any(|asked| asked.contains(&row)))
    }

    /// Waits until all rows of the pieces that came out are durable.
    pub(super) fn settle(&mut self) {
        if let Some(log) = self.log {
            log.wait_for(log.came());
            self.asked.drain(..self.asked.len() - self.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::log::tests::{Told, answer, key};
    use super::*;

    #[test]
    fn pieces_are_made_side_by_side_and_come_out_in_order() {
        let (later, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let mut pieces = Pieces::new(scope, None);
            pieces.push(false, std::iter::empty(), move || told.recv().unwrap());
            pieces.push(false, std::iter::empty(), move || {
                later.send(1).unwrap();
                2
            });
            pieces.push(false, std::iter::empty(), || 3);
            assert_eq!(pieces.len(), 3);
            assert_eq!(std::iter::from_fn(|| pieces.pop()).collect::<Vec<_>>(), [1, 2, 3]);
        });
    }

    #[test]
    #[should_panic(expected = "a row that can't be")]
    fn a_panic_is_the_callers() {
        std::thread::scope(|scope| {
            let mut pieces = Pieces::new(scope, None);
            pieces.push(false, std::iter::empty(), || panic!("a row that can't be"));
            pieces.pop();
        });
    }

    #[test]
    fn rows_are_known_to_be_asked_until_they_are_durable() {
        let (commits, committed) = mpsc::channel();
        let memo = Told { commits, fails: false };
        let durable = || committed.try_iter().sum::<usize>();
        Log::beside(Some(&memo), |log| {
            std::thread::scope(|scope| {
                let mut pieces = Pieces::new(scope, log);
                for row in 0..4 {
                    pieces.push(row == 0, [key(row)].into_iter(), move || log.unwrap().add(key(row), answer()));
                }
                pieces.pop().unwrap()?;
                assert!((0..4).all(|row| pieces.ask_any([key(9), key(row)].into_iter())));
                assert!(!pieces.ask_any([key(9)].into_iter()));
                pieces.pop().unwrap()?;
                assert!(!pieces.ask_any([key(0)].into_iter()), "it is durable when the next came out");
                let mut n = durable();
                assert!(n >= 1);
                while let Some(made) = pieces.pop() {
                    made?;
                }
                pieces.settle();
                n += durable();
                assert_eq!(n, 4);
                assert!(!(0..4).any(|row| pieces.ask_any([key(row)].into_iter())));
                Ok(())
            })
        })
        .unwrap();
    }
}

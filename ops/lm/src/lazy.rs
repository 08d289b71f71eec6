//! Values that are made when they are first asked for, on rayon's threads.
//!
//! `OnceLock::get_or_init` must not run a parallel loop: while a thread waits for its share of the loop it may take up other
//! work of the pool, which may ask for the very value that the thread is making, and waits for itself.

use std::sync::OnceLock;

/// The value of `cell`, made by `make` if there is none yet. Several threads may make it side by side; it must come out the
/// same, and the first is kept.
pub(crate) fn get_or_make<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    if cell.get().is_none() {
        let made = make();
        // Another thread's is as good.
        let _ = cell.set(made);
    }
    cell.get().expect("set above")
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn a_parallel_make_does_not_wait_for_itself() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for _ in 0..50 {
            let cell = OnceLock::<u64>::new();
            pool.scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|_| {
                        let sum = get_or_make(&cell, || (0..4096u64).into_par_iter().map(std::hint::black_box).sum());
                        assert_eq!(*sum, 4095 * 2048u64);
                    });
                }
            });
        }
    }
}

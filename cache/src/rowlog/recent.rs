//! Frames that were read lately: rows that are asked in any order do not cost their whole frame each time.
//!
//! There are two generations. What is asked for is of the young one; when that has its bytes, it becomes the old one, and what was old goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of a generation.
const BYTES: usize = 16 << 20;

/// Things by their place.
pub(super) struct Recent<T>(Mutex<Generations<T>>);

struct Generations<T> {
    young: HashMap<u64, Arc<T>>,
    old: HashMap<u64, Arc<T>>,
    bytes: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new(), bytes: 0 }))
    }
}

impl<T> Recent<T> {
    /// What lies at a place, if it was put there lately; `bytes` says how much memory such a thing takes.
    pub(super) fn get(&self, at: u64, bytes: impl Fn(&T) -> usize) -> Option<Arc<T>> {
        let mut generations = self.generations();
        if let Some(found) = generations.young.get(&at) {
            return Some(found.clone());
        }
        let found = generations.old.remove(&at)?;
        generations.put(at, found.clone(), bytes(&found));
        Some(found)
    }

    /// Puts a thing at its place.
    pub(super) fn put(&self, at: u64, thing: &Arc<T>, bytes: usize) {
        self.generations().put(at, thing.clone(), bytes);
    }

    fn generations(&self) -> MutexGuard<'_, Generations<T>> {
        self.0.lock().expect("no thread panics while it holds what was read")
    }
}

impl<T> Generations<T> {
    fn put(&mut self, at: u64, thing: Arc<T>, bytes: usize) {
        if self.bytes + bytes > BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(at, thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let recent = Recent::default();
        let size = |_: &u64| BYTES / 10;
        for at in 0..1000 {
            recent.put(at, &Arc::new(at), size(&at));
            assert_eq!(recent.get(0, size).as_deref(), Some(&0));
            let generations = recent.generations();
            let held = generations.young.len() + generations.old.len();
            assert!(held <= 20, "{held} are held");
        }
        assert_eq!(recent.get(999, size).as_deref(), Some(&999));
        assert_eq!(recent.get(900, size), None);
    }
}

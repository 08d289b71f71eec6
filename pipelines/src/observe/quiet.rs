//! Holds back the lines of nodes to which nothing happened, once there were many: nobody reads a hundred thousand of them.

use retort_engine::EventKind;

use super::{TOLD, words};

/// How many nodes were fresh, and how many were skipped.
#[derive(Default)]
pub(super) struct Quiet {
    fresh: usize,
    skipped: usize,
}

impl Quiet {
    /// Whether an event has a line of its own.
    pub(super) fn tells(&mut self, kind: &EventKind) -> bool {
        let count = match kind {
            EventKind::Fresh { .. } => &mut self.fresh,
            EventKind::Skipped { .. } => &mut self.skipped,
            _ => return true,
        };
        *count += 1;
        *count <= TOLD
    }

    /// A line for those that had none.
    pub(super) fn rest(&self) -> Option<String> {
        let rest = |n: usize, what: &str| {
            let more = n.saturating_sub(TOLD) as u64;
            (more > 0).then(|| format!("{} more {what}", words::number(more)))
        };
        let rests: Vec<_> = rest(self.fresh, "fresh").into_iter().chain(rest(self.skipped, "skipped")).collect();
        (!rests.is_empty()).then(|| format!("and {}", rests.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_told_and_the_others_counted() {
        let mut quiet = Quiet::default();
        let skipped = EventKind::Skipped { because: "a".into() };
        let told = (0..TOLD + 1200).filter(|_| quiet.tells(&skipped)).count();
        assert_eq!(told, TOLD);
        assert_eq!(quiet.rest().unwrap(), "and 1,200 more skipped");
        assert!(quiet.tells(&EventKind::Progress { done: 1, of: 2 }));
        assert_eq!(Quiet::default().rest(), None);
    }
}

//! Groups of rows that must stay together, and which of them are held out.

use std::collections::BTreeMap;

use retort_cache::Digest;

use crate::stable::Place;

/// Disjoint sets (union-find). Invariant: a set's root is its smallest element, whatever the order of the joins.
pub(super) struct Groups(Vec<usize>);

impl Groups {
    /// `n` sets of one element each.
    pub(super) fn new(n: usize) -> Self {
        Groups((0..n).collect())
    }

    /// The smallest element of the set that `element` is in.
    pub(super) fn root(&mut self, element: usize) -> usize {
        let mut at = element;
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    /// Makes one set of two.
    pub(super) fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other)] = one.min(other);
    }
}

/// How much is held out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Size {
    /// About this share of the groups.
    Share(f64),
    /// So many groups.
    Count(usize),
}

/// Groups that go to the same side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster {
    /// The smallest key of its groups speaks for all.
    key: Digest,
    rows: usize,
}

/// Which rows are held out. `row_groups` names each row's group, an index into `keys`; `groups` tells which of these stay together.
pub(super) fn held_out(keys: &[Digest], row_groups: &[usize], groups: &mut Groups, size: Size, seed: u64) -> Vec<bool> {
    let mut clusters: BTreeMap<usize, Cluster> = BTreeMap::new();
    for (group, key) in keys.iter().enumerate() {
        let cluster = clusters.entry(groups.root(group)).or_insert(Cluster { key: *key, rows: 0 });
        cluster.key = cluster.key.min(*key);
    }
    for group in row_groups {
        clusters.get_mut(&groups.root(*group)).expect("every group is in a cluster").rows += 1;
    }
    let (roots, clusters): (Vec<usize>, Vec<Cluster>) = clusters.into_iter().unzip();
    let chosen = choose(&clusters, size, seed);
    let chosen: BTreeMap<usize, bool> = roots.into_iter().zip(chosen).collect();
    row_groups.iter().map(|group| chosen[&groups.root(*group)]).collect()
}

/// Which clusters are held out.
///
/// Each decides by its own place. A cluster of more than half of all rows trains, unless more than half is to be held out: chance must not take the training set away.
/// Where there are two clusters or more, neither side stays empty.
fn choose(clusters: &[Cluster], size: Size, seed: u64) -> Vec<bool> {
    let rows: usize = clusters.iter().map(|cluster| cluster.rows).sum();
    let guarded = !matches!(size, Size::Share(share) if share > 0.5);
    let mut order: Vec<(Place, usize)> = Vec::new();
    for (at, cluster) in clusters.iter().enumerate() {
        if !(guarded && cluster.rows * 2 > rows) {
            order.push((Place::of("retort split-eval 1", seed, cluster.key), at));
        }
    }
    order.sort_unstable();
    let wanted = match size {
        Size::Share(share) => order.iter().filter(|(place, _)| place.is_within(share)).count(),
        Size::Count(count) => count,
    };
    let most = if clusters.len() < 2 { 0 } else { order.len().min(clusters.len() - 1) };
    let mut chosen = vec![false; clusters.len()];
    for (_, at) in order.iter().take(wanted.clamp(most.min(1), most)) {
        chosen[*at] = true;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Digest {
        Digest::of("test", |hasher| {
            hasher.update(&n.to_le_bytes());
        })
    }

    fn clusters(rows: &[usize]) -> Vec<Cluster> {
        rows.iter().enumerate().map(|(n, rows)| Cluster { key: key(n), rows: *rows }).collect()
    }

    fn count(chosen: &[bool]) -> usize {
        chosen.iter().filter(|chosen| **chosen).count()
    }

    #[test]
    fn joins_give_the_same_sets_in_any_order() {
        let joins = [(4, 2), (7, 4), (1, 0), (9, 7)];
        let sets = |joins: &[(usize, usize)]| {
            let mut groups = Groups::new(10);
            for (a, b) in joins {
                groups.join(*a, *b);
            }
            (0..10).map(|n| groups.root(n)).collect::<Vec<_>>()
        };
        assert_eq!(sets(&joins), [0, 0, 2, 3, 2, 5, 6, 2, 8, 2]);
        let reversed: Vec<_> = joins.into_iter().rev().map(|(a, b)| (b, a)).collect();
        assert_eq!(sets(&joins), sets(&reversed));
    }

    #[test]
    fn a_group_that_is_added_moves_no_other() {
        let all = clusters(&[3; 400]);
        let (before, after) = (choose(&all[..300], Size::Share(0.1), 5), choose(&all, Size::Share(0.1), 5));
        assert_eq!(before, after[..300]);
        assert!((20..60).contains(&count(&after)), "{}", count(&after));
        assert_ne!(after, choose(&all, Size::Share(0.1), 6), "another seed holds out others");
    }

    #[test]
    fn neither_side_is_empty() {
        for size in [Size::Share(0.0001), Size::Share(0.9999), Size::Count(1), Size::Count(50)] {
            for n in 2..20 {
                let chosen = count(&choose(&clusters(&vec![1; n]), size, 1));
                assert!(chosen > 0 && chosen < n, "{size:?} of {n}: {chosen}");
            }
            assert_eq!(choose(&clusters(&[9]), size, 1), [false], "one group trains");
            assert!(choose(&[], size, 1).is_empty());
        }
        assert_eq!(count(&choose(&clusters(&[1; 20]), Size::Count(7), 1)), 7);
    }

    #[test]
    fn what_holds_most_rows_trains() {
        for seed in 0..50 {
            let chosen = choose(&clusters(&[100, 5, 5, 5]), Size::Share(0.5), seed);
            assert!(!chosen[0] && count(&chosen) > 0);
        }
    }
}

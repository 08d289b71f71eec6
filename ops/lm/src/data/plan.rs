//! The order of a phase's examples: what goes into each step, and into each pass of it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::Examples;
use crate::LmError;

/// How much goes into one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// So many segments.
    Sequences(usize),
    /// As many segments as fit into so many tokens, at least one.
    Tokens(usize),
}

/// One optimizer step of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which segments, by index.
    pub segments: Vec<usize>,
    /// Epochs done after it.
    pub epoch: f64,
    /// Whether it is the last of its epoch.
    pub ends_epoch: bool,
}

/// A kind of examples in a mixture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Segments.
    pub count: usize,
    /// How often an epoch goes over them: with 0.1 each epoch takes the next tenth.
    pub passes: f64,
}

/// How much of a kind of examples goes into an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many passes over it.
    Passes(f64),
    /// This share of the epoch's tokens, 0 to below 1.
    Share(f64),
}

impl Examples {
    /// A mixture of several kinds. Shares are of the tokens that go through the model; what is not of a share's kind fills the rest.
    ///
    /// # Errors
    ///
    /// If the shares leave nothing, a share is none, or a kind that is to have some is empty.
    pub fn mix(kinds: Vec<(Self, Amount)>) -> Result<Self, LmError> {
        let tokens = |kind: &Self| kind.segments.iter().map(|segment| segment.tokens.len()).sum::<usize>() as f64;
        let (mut shares, mut rest) = (0.0, 0.0);
        for (kind, amount) in &kinds {
            match amount {
                Amount::Passes(passes) => rest += passes * tokens(kind),
                Amount::Share(share) => shares += share,
            }
        }
        let mistake = |message: &str| Err(LmError::Argument(message.to_owned()));
        if !(0.0..1.0).contains(&shares) || rest <= 0.0 {
            return mistake("a mixture has something beside its shares");
        }
        if kinds.iter().any(|(kind, amount)| kind.segments.is_empty() && *amount != Amount::Share(0.0)) {
            return mistake("a kind of examples that is to be mixed in has none");
        }
        let mut mixed = Self::default();
        for (kind, amount) in kinds {
            let passes = match amount {
                Amount::Passes(passes) => passes,
                Amount::Share(share) => share / (1.0 - shares) * rest / tokens(&kind).max(1.0),
            };
            mixed.parts.push(Part { count: kind.segments.len(), passes });
            mixed.segments.extend(kind.segments);
            mixed.dropped += kind.dropped;
        }
        Ok(mixed)
    }
}

/// All steps of `epochs` epochs over segments of these lengths, each in an order of its own, made as they are asked for. A function
/// of its arguments, and the first epochs do not depend on how many follow.
pub fn steps<'a>(
    lengths: &'a [usize],
    parts: &'a [Part],
    batch: Batch,
    epochs: u64,
    seed: u64,
) -> impl Iterator<Item = Step> + 'a {
    (0..epochs).flat_map(move |epoch| {
        let order = order(lengths.len(), parts, seed, epoch);
        let mut steps = Vec::new();
        let mut start = 0;
        while start < order.len() {
            let end = start + fit(&order[start..], lengths, batch);
            let done = end as f64 / order.len() as f64;
            let ends_epoch = end == order.len();
            steps.push(Step { segments: order[start..end].to_vec(), epoch: epoch as f64 + done, ends_epoch });
            start = end;
        }
        steps
    })
}

/// Splits segments, in order, into passes of at most `max_tokens` tokens, at least one segment in each. Gives how many
/// segments each pass has.
pub fn passes(lengths: impl IntoIterator<Item = usize>, max_tokens: usize) -> Vec<usize> {
    let (mut counts, mut tokens): (Vec<usize>, usize) = (Vec::new(), 0);
    for length in lengths {
        tokens += length;
        match counts.last_mut() {
            Some(count) if tokens <= max_tokens => *count += 1,
            _ => {
                counts.push(1);
                tokens = length;
            }
        }
    }
    counts
}

/// The segments of an epoch. Each part is gone over in cycles, each cycle in an order of its own, and an epoch begins where the one before ended.
fn order(n: usize, parts: &[Part], seed: u64, epoch: u64) -> Vec<usize> {
    let [_, _, ..] = parts else {
        return shuffled(n, seed, epoch);
    };
    let mut all = Vec::new();
    let mut first = 0;
    for (at, part) in (1..).zip(parts) {
        let reached = |epochs: u64| (epochs as f64 * part.passes * part.count as f64).floor() as u64;
        let own = seed.wrapping_add(at << 48);
        let (mut cycle, mut order) = (u64::MAX, Vec::new());
        for place in reached(epoch)..reached(epoch + 1) {
            let count = part.count as u64;
            if cycle != place / count {
                cycle = place / count;
                order = shuffled(part.count, own, cycle);
            }
            all.push(first + order[(place % count) as usize]);
        }
        first += part.count;
    }
    let mixed = shuffled(all.len(), seed, epoch);
    mixed.into_iter().map(|at| all[at]).collect()
}

/// How many of the first segments of `order` make a step.
fn fit(order: &[usize], lengths: &[usize], batch: Batch) -> usize {
    match batch {
        Batch::Sequences(n) => n.clamp(1, order.len()),
        Batch::Tokens(n) => {
            let mut tokens = 0;
            let fits = |&&at: &&usize| {
                tokens += lengths[at];
                tokens <= n
            };
            order.iter().take_while(fits).count().max(1)
        }
    }
}

/// The numbers below `n` in an order that depends on the seed and the epoch (Fisher and Yates).
fn shuffled(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut order: Vec<usize> = (0..n).collect();
    for at in (1..n).rev() {
        // A number below `at + 1` from the high half of a product: its bias is under 2^-32 for any real data set.
        let other = ((u128::from(rng.next_u64()) * (at as u128 + 1)) >> 64) as usize;
        order.swap(at, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient::Segment;

    #[test]
    fn steps_see_each_segment_once_an_epoch_in_an_order_of_the_seed() {
        let lengths: Vec<usize> = (0..50).map(|i| 5 + i % 7).collect();
        for batch in [Batch::Sequences(8), Batch::Tokens(40), Batch::Tokens(1)] {
            let plan = |seed| steps(&lengths, &[], batch, 2, seed).collect::<Vec<_>>();
            let all = plan(3);
            assert_eq!(all, plan(3));
            let half = all.iter().position(|step| step.ends_epoch).unwrap() + 1;
            assert_eq!((all[half - 1].epoch, all.last().unwrap().epoch), (1.0, 2.0));
            let mut seen: Vec<usize> = all[..half].iter().flat_map(|step| step.segments.clone()).collect();
            assert_ne!(seen, (0..50).collect::<Vec<_>>());
            assert_ne!(all[0].segments, all[half].segments, "another order in the second epoch");
            seen.sort_unstable();
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
            assert_ne!(all, plan(4));
        }
        let tokens = |step: &Step| step.segments.iter().map(|&at| lengths[at]).sum::<usize>();
        assert!(steps(&lengths, &[], Batch::Tokens(40), 1, 3).all(|step| tokens(&step) <= 40));
        assert!(steps(&[], &[], Batch::Sequences(8), 3, 1).next().is_none());
    }

    #[test]
    fn passes_keep_under_the_limit_where_they_can() {
        assert_eq!(passes([3, 3, 3, 9, 1, 1], 6), [2, 1, 1, 2]);
        assert_eq!(passes([3, 3], 100), [2]);
        assert_eq!(passes([], 100), [0usize; 0]);
    }

    fn kind(count: usize, length: usize) -> Examples {
        let segment = Segment { tokens: vec![1; length], targets: vec![Some(1); length] };
        Examples { segments: vec![segment; count], ..Examples::default() }
    }

    fn taken(mixed: &Examples, epochs: u64) -> Vec<Vec<usize>> {
        let lengths: Vec<usize> = mixed.segments.iter().map(|segment| segment.tokens.len()).collect();
        let mut all = vec![Vec::new(); epochs as usize];
        for step in steps(&lengths, &mixed.parts, Batch::Sequences(3), epochs, 7) {
            all[step.epoch.ceil() as usize - 1].extend(step.segments);
        }
        all
    }

    #[test]
    fn a_mixture_takes_of_each_kind_what_its_amount_says() {
        let mixed = Examples::mix(vec![
            (kind(10, 8), Amount::Passes(2.0)),
            (kind(40, 4), Amount::Share(0.2)),
            (kind(4, 5), Amount::Passes(0.25)),
        ]);
        let epochs = taken(&mixed.unwrap(), 4);
        for epoch in &epochs {
            let of = |range: std::ops::Range<usize>| epoch.iter().filter(|at| range.contains(at)).count();
            assert_eq!((of(0..10), of(50..54)), (20, 1));
            // Of 160 + 5 tokens and a share of a fifth: 41.25 tokens, so 10 or 11 segments of 4.
            assert!((10..=11).contains(&of(10..50)), "{}", of(10..50));
            assert!((0..10).all(|at| epoch.iter().filter(|&&other| other == at).count() == 2));
        }
        let mut quarter: Vec<usize> = epochs.iter().flatten().copied().filter(|&at| at >= 50).collect();
        quarter.sort_unstable();
        assert_eq!(quarter, [50, 51, 52, 53], "four quarters are the whole");
        assert_ne!(epochs[0], epochs[1]);
        assert!(Examples::mix(vec![(kind(1, 1), Amount::Share(0.5))]).is_err());
        assert!(Examples::mix(vec![(kind(1, 1), Amount::Passes(1.0)), (kind(0, 1), Amount::Share(0.5))]).is_err());
    }

    #[test]
    fn the_first_epochs_do_not_depend_on_how_many_follow() {
        let mixed = Examples::mix(vec![(kind(5, 3), Amount::Passes(1.0)), (kind(9, 3), Amount::Passes(0.4))]).unwrap();
        assert_eq!(taken(&mixed, 2)[..], taken(&mixed, 5)[..2]);
    }
}

//! Whether a text says the same again and again.

/// Enough equal last tokens, in a piece that is said over and over, to call it endless. Rules and tables stay below: a vocabulary has
/// tokens for long runs of dashes and blanks.
pub const REPETITION_TOKENS: usize = 64;

/// The longest piece whose repetition is looked for, in tokens.
const LONGEST: usize = 128;
/// How often a long piece must have been said.
const TIMES: usize = 3;

/// Whether the last `enough` tokens, and at least three times a piece, are one piece of up to 128 tokens over and over. The piece may be cut at
/// both ends.
pub(super) fn repeats(written: &[u32], enough: usize) -> bool {
    let said = |period: usize| {
        let needed = enough.max(TIMES * period);
        let tail = &written[written.len().saturating_sub(needed)..];
        tail.len() == needed && tail.iter().rev().zip(tail.iter().rev().skip(period)).all(|(a, b)| a == b)
    };
    enough > 0 && written.len() >= enough && (1..=LONGEST.min(written.len() / TIMES)).any(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_said_over_and_over_is_a_repetition() {
        let looped = |period: u32, length: u32| -> Vec<u32> { (0..length).map(|i| 100 + i % period).collect() };
        assert!(repeats(&looped(1, 64), 64) && !repeats(&looped(1, 63), 64));
        assert!(repeats(&looped(16, 64), 64));
        assert!(repeats(&looped(30, 90), 64) && !repeats(&looped(30, 89), 64));
        assert!(repeats(&looped(128, 384), 64) && !repeats(&looped(129, 1_000), 64));
        let mut late = (0..500).collect::<Vec<u32>>();
        assert!(!repeats(&late, 64));
        late.extend(looped(7, 70));
        assert!(repeats(&late, 64));
        late.push(1);
        assert!(!repeats(&late, 64), "it went on");
        assert!(!repeats(&looped(1, 500), 0), "0 lets it");
        assert!(!repeats(&[], 1) && repeats(&[5, 5, 5], 1));
    }
}

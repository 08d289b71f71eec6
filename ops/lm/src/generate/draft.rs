//! What may come next: what came the last time that a text said this.
//!
//! Texts over a document quote it, and a pass over a few tokens takes as long as one over a single token: as reading the weights. So a row that
//! is written almost alone runs along with its last token those that may follow, and draws from each one's logits as long as what it drew is what was
//! guessed. Logits have the same bits in any company, so guesses change no text, only the time it takes. (Speculative decoding, arXiv 2211.17192, with
//! the text itself as the draft: "prompt lookup" in `transformers`.)

/// Fewest equal tokens that are reason enough to guess.
const LEAST: usize = 2;
/// Equal tokens beyond which a longer match is no better.
const ENOUGH: usize = 16;

/// Up to `most` tokens that followed where `seen` said the longest piece that it ends with, the last of equally long ones; no more of them than the piece has.
pub(super) fn guess(seen: &[u32], most: usize) -> &[u32] {
    if most == 0 {
        return &[];
    }
    let (mut length, mut next) = (LEAST - 1, seen.len());
    for end in (LEAST..seen.len()).rev() {
        let alike = seen[..end].iter().rev().zip(seen.iter().rev());
        let alike = alike.take(ENOUGH).take_while(|(a, b)| a == b).count();
        if alike > length {
            (length, next) = (alike, end);
        }
        if length == ENOUGH {
            break;
        }
    }
    &seen[next..seen.len().min(next + most.min(length))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_is_what_followed_the_longest_piece_that_the_text_ends_with() {
        assert_eq!(guess(&[1, 2, 3, 4, 9, 1, 2], 5), [3, 4], "no longer than the piece");
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 5), [4, 5, 9]);
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2), [4, 5]);
        assert_eq!(guess(&[1, 2, 3, 7, 2, 3, 8, 1, 2, 3], 1), [7], "the longest");
        assert_eq!(guess(&[2, 3, 7, 2, 3, 8, 2, 3], 1), [8], "the last of two");
        assert_eq!(guess(&[5, 5, 5, 5], 3), [5], "as far as the text goes");
        assert!(guess(&[1, 2, 3, 2], 4).is_empty(), "one token is no reason");
        assert!(guess(&[1, 2, 9, 1, 2], 0).is_empty());
        assert!(guess(&[1], 4).is_empty() && guess(&[], 4).is_empty());
    }
}

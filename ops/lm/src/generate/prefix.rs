//! What prompts have in common is computed once.

use super::{Request, row::Row};
use crate::kv::{KvCache, PAGE_TOKENS};

/// What all prompts begin with; at least one token of each is its own, whose state gives the first logits.
pub(super) fn shared(requests: &[Request]) -> &[u32] {
    let [first, others @ ..] = requests else { return &[] };
    if others.is_empty() {
        return &[];
    }
    let mut length = first.prompt.len() - 1;
    for other in others {
        length = common(&first.prompt[..length], &other.prompt[..other.prompt.len() - 1]);
    }
    &first.prompt[..length]
}

/// The longest past of `request` that is known: of what all prompts share, or of a row that begins like it. None if it is
/// worth waiting for such a row, which still computes what both share.
pub(super) fn longest(base: &KvCache, rows: &[Row<'_>], request: &Request) -> Option<KvCache> {
    let own = &request.prompt[..request.prompt.len() - 1];
    let alike = rows.iter().map(|row| (common(&row.request.prompt, own), row)).max_by_key(|&(length, _)| length);
    let Some((length, row)) = alike.filter(|&(length, _)| length >= base.len() + PAGE_TOKENS) else {
        return Some(base.fork());
    };
    let mut cache = row.known();
    if cache.len() < length {
        return None;
    }
    cache.truncate(length);
    Some(cache)
}

/// With how many equal tokens both begin.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

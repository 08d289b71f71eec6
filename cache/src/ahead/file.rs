//! What was seen of answers as bytes, in a frame (`framed`).
//!
//! | part | bytes | what |
//! |---|---|---|
//! | folders | 1 and 32, 512 times | 1 and the stamp, or 0 where there is none: of `answers/00` to `answers/ff`, then of `tables/` |
//! | views | 4 | how many |
//! | | … and 32 each | the folder below `view`, its stamp |
//! | nodes | … | the node |
//! | | 32 | the recipe of its newest answer |
//! | | 8 | when that was written or last used, in nanoseconds since 1970; 0 where that is not known |
//! | | 1 | outputs |
//! | | …, 32, 8 each | port, content, rows |

use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::Seen;
use crate::framed::{self, put_text, take, take_text};
use crate::stamp::Stamp;
use crate::{ContentId, Digest, Output, RecipeId};

/// Below the store's folder.
pub(crate) const PATH: &str = "assets/answers";
const HEADER: &str = "retort answers seen 1";

/// A folder of answers or of tables, of those that begin with the same byte.
#[derive(Clone, Copy)]
pub(super) struct Shard(usize);

impl Shard {
    /// All of them.
    pub(crate) const ALL: usize = 512;

    pub(crate) fn of_answer(recipe: RecipeId) -> Self {
        Shard(usize::from(recipe.0.as_bytes()[0]))
    }

    pub(crate) fn of_table(content: ContentId) -> Self {
        Shard(256 + usize::from(content.0.as_bytes()[0]))
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::ALL).map(Shard)
    }

    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// Below the store's folder.
    pub(crate) fn path(self) -> PathBuf {
        let kind = if self.0 < 256 { "answers" } else { "tables" };
        PathBuf::from(kind).join(format!("{:02x}", self.0 % 256))
    }
}

impl Seen {
    /// The folders in which the answer and its tables lie.
    pub(super) fn shards(&self) -> impl Iterator<Item = Shard> {
        iter::once(Shard::of_answer(self.recipe)).chain(self.outputs.iter().map(|out| Shard::of_table(out.content)))
    }
}

/// What was seen, and of which folders.
#[derive(Debug, PartialEq)]
pub(super) struct Memo {
    /// By node.
    pub seen: HashMap<String, Seen>,
    /// By index.
    pub shards: Vec<Option<Stamp>>,
    /// By folder below `view`.
    pub views: BTreeMap<String, Stamp>,
}

impl Default for Memo {
    fn default() -> Self {
        Memo { seen: HashMap::new(), shards: vec![None; Shard::ALL], views: BTreeMap::new() }
    }
}

impl Memo {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = framed::begin(HEADER);
        for stamp in &self.shards {
            bytes.push(u8::from(stamp.is_some()));
            if let Some(stamp) = stamp {
                stamp.encode(&mut bytes);
            }
        }
        bytes.extend_from_slice(&(self.views.len() as u32).to_le_bytes());
        for (view, stamp) in &self.views {
            put_text(&mut bytes, view);
            stamp.encode(&mut bytes);
        }
        let mut sorted: Vec<_> = self.seen.iter().collect();
        sorted.sort_unstable_by_key(|(node, _)| node.as_str());
        for (node, seen) in sorted {
            put_text(&mut bytes, node);
            bytes.extend_from_slice(seen.recipe.0.as_bytes());
            let since = seen.used.and_then(|used| used.duration_since(SystemTime::UNIX_EPOCH).ok());
            bytes.extend_from_slice(&since.map_or(0, |since| since.as_nanos() as u64).to_le_bytes());
            bytes.push(u8::try_from(seen.outputs.len()).expect("an operator has few ports"));
            for Output { port, content, rows } in &seen.outputs {
                put_text(&mut bytes, port);
                bytes.extend_from_slice(content.0.as_bytes());
                bytes.extend_from_slice(&rows.to_le_bytes());
            }
        }
        framed::finish(HEADER, bytes)
    }

    /// What was written, or `None` where the bytes are something else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = framed::open(HEADER, bytes)?;
        let mut memo = Memo::default();
        for stamp in &mut memo.shards {
            if *take::<1>(&mut rest)? == [1] {
                *stamp = Some(Stamp::decode(&mut rest)?);
            }
        }
        for _ in 0..u32::from_le_bytes(*take(&mut rest)?) {
            let view = take_text(&mut rest)?.to_owned();
            memo.views.insert(view, Stamp::decode(&mut rest)?);
        }
        memo.seen.reserve(rest.len() / 120);
        while !rest.is_empty() {
            let node = take_text(&mut rest)?.to_owned();
            let recipe = RecipeId(Digest::from_bytes(*take(&mut rest)?));
            let nanoseconds = u64::from_le_bytes(*take(&mut rest)?);
            let used = (nanoseconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds));
            let [n_outputs] = *take::<1>(&mut rest)?;
            let mut outputs = Vec::with_capacity(n_outputs.into());
            for _ in 0..n_outputs {
                let port = take_text(&mut rest)?.to_owned();
                let content = ContentId(Digest::from_bytes(*take(&mut rest)?));
                outputs.push(Output { port, content, rows: u64::from_le_bytes(*take(&mut rest)?) });
            }
            memo.seen.insert(node, Seen { recipe, outputs, used });
        }
        Some(memo)
    }
}

/// Whether a saved memo is not what was written.
pub(crate) fn is_damaged(bytes: &[u8]) -> bool {
    Memo::decode(bytes).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let digest = |n: u8| Digest::from_bytes([n; 32]);
        let output = |port: &str, n| Output { port: port.into(), content: ContentId(digest(n)), rows: n.into() };
        let seen = |n, used, outputs| Seen { recipe: RecipeId(digest(n)), outputs, used };
        let then = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let mut memo = Memo::default();
        memo.seen.insert("pipe/one".into(), seen(1, Some(then), vec![output("out", 2), output("rejects", 3)]));
        memo.seen.insert("pipe/é".into(), seen(4, None, vec![]));
        memo.shards[3] = Some(Stamp { size: 1, modified_ns: 2, changed_ns: 3, inode: 4 });
        memo.views.insert("pipe".into(), Stamp { size: 5, modified_ns: 6, changed_ns: 7, inode: 8 });
        let bytes = memo.encode();
        assert_eq!(Memo::decode(&bytes), Some(memo));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(is_damaged(&other) && is_damaged(&bytes[..at]), "byte {at}");
        }
    }
}

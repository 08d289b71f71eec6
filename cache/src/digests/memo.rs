//! The memo of digests as bytes, in a frame (`framed`): the files by path.
//!
//! A hundred thousand files are read in some ten milliseconds.
//!
//! | bytes | what |
//! |---|---|
//! | … | the path |
//! | 8 each | size, time of the last change of content and of the inode in nanoseconds, inode |
//! | 1 | 1 where the BLAKE3 digest is known, 2 where the SHA-256 is, or both |
//! | 32 each | those |

use std::collections::HashMap;

use super::Entry;
use crate::digest::Digest;
use crate::framed::{self, put_text, take, take_text};
use crate::stamp::Stamp;

const HEADER: &str = "retort file digests 2";

pub(super) fn encode(entries: &HashMap<String, Entry>) -> Vec<u8> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_unstable_by_key(|(path, _)| path.as_str());
    let mut bytes = framed::begin(HEADER);
    for (path, entry) in sorted {
        put_text(&mut bytes, path);
        entry.stamp.encode(&mut bytes);
        bytes.push(u8::from(entry.blake3.is_some()) + 2 * u8::from(entry.sha256.is_some()));
        bytes.extend(entry.blake3.iter().flat_map(Digest::as_bytes));
        bytes.extend(entry.sha256.iter().flatten());
    }
    framed::finish(HEADER, bytes)
}

/// The entries, or `None` where the bytes are not those that were written.
pub(super) fn decode(bytes: &[u8]) -> Option<HashMap<String, Entry>> {
    let mut rest = framed::open(HEADER, bytes)?;
    let mut entries = HashMap::with_capacity(rest.len() / 160);
    while !rest.is_empty() {
        let path = take_text(&mut rest)?.to_owned();
        let stamp = Stamp::decode(&mut rest)?;
        let [known] = *take::<1>(&mut rest)?;
        let blake3 = if known & 1 == 0 { None } else { Some(Digest::from_bytes(*take(&mut rest)?)) };
        let sha256 = if known & 2 == 0 { None } else { Some(*take(&mut rest)?) };
        entries.insert(path, Entry { stamp, blake3, sha256, asked: false });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let stamp = Stamp { size: 1, modified_ns: 2, changed_ns: 3, inode: 4 };
        let digest = Digest::of("test 1", |_| {});
        let of = |blake3, sha256| Entry { stamp, blake3, sha256, asked: false };
        let entries = HashMap::from([
            ("a".to_owned(), of(Some(digest), None)),
            ("b/\u{e9}".to_owned(), of(Some(digest), Some([7; 32]))),
            (String::new(), of(None, Some([9; 32]))),
        ]);
        let bytes = encode(&entries);
        assert_eq!(decode(&bytes), Some(entries));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!((decode(&other), decode(&bytes[..at])), (None, None), "byte {at}");
        }
    }
}

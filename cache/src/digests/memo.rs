//! The memo of digests as bytes: a line with the format's version, a BLAKE3 digest of the rest, then the files by path.
//!
//! A hundred thousand files are read in some ten milliseconds.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the path, little-endian as all numbers |
//! | … | the path |
//! | 8 each | size, time of the last change of content and of the inode in nanoseconds, inode |
//! | 1 | 1 where the BLAKE3 digest is known, 2 where the SHA-256 is, or both |
//! | 32 each | those |

use std::collections::HashMap;

use super::{Entry, Stamp};
use crate::digest::Digest;

const HEADER: &[u8] = b"retort file digests 2\n";

pub(super) fn encode(entries: &HashMap<String, Entry>) -> Vec<u8> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_unstable_by_key(|(path, _)| path.as_str());
    let mut bytes = HEADER.to_vec();
    bytes.extend_from_slice(&[0; 32]);
    for (path, entry) in sorted {
        bytes.extend_from_slice(&(path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(path.as_bytes());
        let Stamp { size, modified_ns, changed_ns, inode } = entry.stamp;
        for number in [size, modified_ns, changed_ns, inode] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(u8::from(entry.blake3.is_some()) + 2 * u8::from(entry.sha256.is_some()));
        bytes.extend(entry.blake3.iter().flat_map(Digest::as_bytes));
        bytes.extend(entry.sha256.iter().flatten());
    }
    let check = check(&bytes[HEADER.len() + 32..]);
    bytes[HEADER.len()..HEADER.len() + 32].copy_from_slice(&check);
    bytes
}

/// The entries, or `None` where the bytes are not those that were written.
pub(super) fn decode(bytes: &[u8]) -> Option<HashMap<String, Entry>> {
    let (sum, mut rest) = bytes.strip_prefix(HEADER)?.split_at_checked(32)?;
    if check(rest) != sum {
        return None;
    }
    let mut entries = HashMap::with_capacity(rest.len() / 160);
    while !rest.is_empty() {
        let length = u32::from_le_bytes(*take(&mut rest)?) as usize;
        let (path, tail) = rest.split_at_checked(length)?;
        rest = tail;
        let mut number = || Some(u64::from_le_bytes(*take(&mut rest)?));
        let stamp = Stamp { size: number()?, modified_ns: number()?, changed_ns: number()?, inode: number()? };
        let [known] = *take::<1>(&mut rest)?;
        let blake3 = if known & 1 == 0 { None } else { Some(Digest::from_bytes(*take(&mut rest)?)) };
        let sha256 = if known & 2 == 0 { None } else { Some(*take(&mut rest)?) };
        entries.insert(str::from_utf8(path).ok()?.to_owned(), Entry { stamp, blake3, sha256, asked: false });
    }
    Some(entries)
}

fn take<'b, const N: usize>(rest: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (taken, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(taken)
}

fn check(bytes: &[u8]) -> [u8; 32] {
    *Digest::of("retort file digests 2", |hasher| {
        hasher.update(bytes);
    })
    .as_bytes()
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

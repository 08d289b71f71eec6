//! The frame of a memo: a line with the format's name, a BLAKE3 digest of the rest, the rest. A memo is a hint: one that is torn or
//! of another format is begun anew.
//!
//! Numbers are little-endian, texts begin with their length in four bytes.

use crate::digest::Digest;

/// Bytes of the check.
const CHECK: usize = 32;

/// The frame, to append to.
pub(crate) fn begin(header: &str) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    bytes.push(b'\n');
    bytes.extend_from_slice(&[0; CHECK]);
    bytes
}

/// Puts the check in its place.
pub(crate) fn finish(header: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    let at = header.len() + 1;
    let check = check(header, &bytes[at + CHECK..]);
    bytes[at..at + CHECK].copy_from_slice(&check);
    bytes
}

/// What is in the frame, or `None` where the bytes are not those that were written.
pub(crate) fn open<'b>(header: &str, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let (sum, rest) = bytes.strip_prefix(header.as_bytes())?.strip_prefix(b"\n")?.split_at_checked(CHECK)?;
    (check(header, rest) == sum).then_some(rest)
}

/// Takes so many bytes off the front.
pub(crate) fn take<'b, const N: usize>(rest: &mut &'b [u8]) -> Option<&'b [u8; N]> {
    let (taken, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(taken)
}

/// Appends a text.
pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// Takes a text off the front.
pub(crate) fn take_text<'b>(rest: &mut &'b [u8]) -> Option<&'b str> {
    let length = u32::from_le_bytes(*take(rest)?) as usize;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    str::from_utf8(text).ok()
}

fn check(header: &str, rest: &[u8]) -> [u8; CHECK] {
    *Digest::of(header, |hasher| {
        hasher.update(rest);
    })
    .as_bytes()
}

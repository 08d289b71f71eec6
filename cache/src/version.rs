//! The file `version`: the format of everything below the store's folder.
//!
//! It holds the number and the beginning of a digest of it, so that a number that was changed is not taken for another format.

use std::fs;
use std::path::Path;

use crate::StoreError;
use crate::digest::Digest;
use crate::files::write_atomically;
use crate::quarantine::Quarantine;

/// The version of everything below the store's folder.
pub(crate) const STORE_VERSION: u32 = 1;

/// Writes the file where there is none; refuses another version.
pub(crate) fn check(path: &Path, quarantine: &Quarantine) -> Result<(), StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return write_atomically(path, text(STORE_VERSION).as_bytes());
        }
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    match read(&bytes) {
        Some(STORE_VERSION) => Ok(()),
        Some(found) => Err(StoreError::Version {
            path: path.display().to_string(),
            found: found.to_string(),
            expected: STORE_VERSION,
        }),
        None => {
            // Everything else says its format by itself.
            quarantine.take_and_tell(path, "the store's `version`", "is written anew")?;
            write_atomically(path, text(STORE_VERSION).as_bytes())
        }
    }
}

/// The number, if the file is what was written once.
pub(crate) fn read(bytes: &[u8]) -> Option<u32> {
    let number = std::str::from_utf8(bytes).ok()?.split_whitespace().next()?.parse().ok()?;
    // A lone number is what stores of old have, and what people write.
    let whole = bytes == text(number).as_bytes() || bytes == format!("{number}\n").as_bytes();
    whole.then_some(number)
}

fn text(number: u32) -> String {
    let digest = Digest::of("retort store version 1", |hasher| {
        hasher.update(&number.to_le_bytes());
    });
    format!("{number} {}\n", &digest.hex()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_number_is_not_another_format() {
        let whole = text(STORE_VERSION);
        assert_eq!(read(whole.as_bytes()), Some(STORE_VERSION));
        assert_eq!(read(text(7).as_bytes()), Some(7));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(read(&bytes), None, "byte {at}, bit {bit}");
            }
            assert_eq!(read(&whole.as_bytes()[..at]), None, "cut at {at}");
        }
    }
}

//! Answer records as they are stored: JSON for people and other tools, with a check over all of it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::files::write_atomically;
use crate::store::{Answer, Output};
use crate::{Recipe, StoreError};

/// The format of an answer's record.
pub const ANSWER_VERSION: u32 = 2;

/// An answer's record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    /// Of everything else.
    check: Digest,
    op: String,
    recipe: Recipe,
    outputs: Vec<Output>,
}

/// What lies under an answer's name.
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// An answer.
    Answer(Answer),
    /// A record of another format: its question is asked again.
    OtherFormat,
    /// What nobody wrote.
    Damaged,
}

/// Reads a record.
pub(crate) fn read(path: &Path) -> Result<Found, StoreError> {
    Ok(read_dated(path)?.map_or(Found::Nothing, |(found, _)| found))
}

/// Reads a record, and when it was written; `None` where there is none.
pub(crate) fn read_dated(path: &Path) -> Result<Option<(Found, SystemTime)>, StoreError> {
    let read = || {
        let mut file = File::open(path)?;
        let data = file.metadata()?;
        // A record is put in its place whole, so it has as many bytes as it says: to look for its end would cost a run of many nodes three calls each.
        let mut bytes = vec![0; data.len() as usize];
        file.read_exact(&mut bytes)?;
        Ok((bytes, data.modified()?))
    };
    match read() {
        Ok((bytes, written)) => Ok(Some((parse(&bytes), written))),
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// What the bytes of a record say.
pub(crate) fn parse(bytes: &[u8]) -> Found {
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else {
        // The format before this one had no check.
        let old = serde_json::from_slice::<Answer>(bytes).is_ok_and(|answer| answer.version < ANSWER_VERSION);
        return if old { Found::OtherFormat } else { Found::Damaged };
    };
    let Record { version, check, op, recipe, outputs } = record;
    let answer = Answer { version, op, recipe, outputs };
    match check_of(&answer) == check {
        false => Found::Damaged,
        true if version != ANSWER_VERSION => Found::OtherFormat,
        true => Found::Answer(answer),
    }
}

/// Writes a record.
pub(crate) fn write(path: &Path, answer: &Answer) -> Result<(), StoreError> {
    write_atomically(path, text(answer).as_bytes())
}

/// The text of a record.
pub(crate) fn text(answer: &Answer) -> String {
    let check = check_of(answer);
    let Answer { version, op, recipe, outputs } = answer.clone();
    let record = Record { version, check, op, recipe, outputs };
    serde_json::to_string_pretty(&record).expect("answers are plain data")
}

fn check_of(answer: &Answer) -> Digest {
    let bytes = serde_json::to_vec(answer).expect("answers are plain data");
    Digest::of("retort answer record 2", |hasher| {
        hasher.update(&bytes);
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{ContentId, Fact};

    #[test]
    fn no_flipped_bit_and_no_cut_gives_another_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.json");
        let content = ContentId(Digest::of("test", |_| ()));
        let recipe = Recipe { op: vec![Fact::new("op.name", "test")], inputs: vec![Fact::new("input.from", "ab")] };
        let outputs = vec![Output { port: "out".into(), content, rows: 30 }];
        let answer = Answer { version: ANSWER_VERSION, op: "test".into(), recipe, outputs };
        write(&path, &answer).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).unwrap();
                assert!(matches!(read(&path).unwrap(), Found::Damaged), "byte {at}, bit {bit}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(read(&path).unwrap(), Found::Damaged), "cut at {at}");
        }
    }
}

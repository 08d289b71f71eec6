//! Verdicts of a server that were paid for, kept until the exam is committed: a run that was killed asks for the others only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retort_cache::files::write_atomically;
use retort_cache::{Digest, StoreError, work};
use retort_engine::Failure;
use serde::{Deserialize, Serialize};

/// Raised with the first change of what the file holds.
const VERSION: u32 = 1;
const FILE: &str = "verdicts";
/// So many verdicts may be lost.
const EVERY: usize = 16;

/// Verdicts by what was asked; none where the server said neither yes nor no.
pub(super) struct Kept {
    path: PathBuf,
    wire: Wire,
    unsaved: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    verdicts: BTreeMap<String, Option<bool>>,
}

impl Kept {
    /// Those of a folder that the store handed out for this very exam: it has looked whether the file is whole.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let read = fs::read(&path).ok();
        let body = read.as_ref().and_then(|bytes| bytes.get(..bytes.len().checked_sub(CHECK)?));
        let wire = body.and_then(|body| serde_json::from_slice::<Wire>(body).ok());
        let wire = wire.filter(|wire| wire.version == VERSION);
        let wire = wire.unwrap_or(Wire { version: VERSION, verdicts: BTreeMap::new() });
        Self { path, wire, unsaved: 0 }
    }

    #[expect(clippy::option_option, reason = "not asked, asked in vain, and a verdict")]
    pub(super) fn get(&self, prompt: &str) -> Option<Option<bool>> {
        self.wire.verdicts.get(&name(prompt)).copied()
    }

    pub(super) fn put(&mut self, prompt: &str, verdict: Option<bool>) -> Result<(), Failure> {
        self.wire.verdicts.insert(name(prompt), verdict);
        self.unsaved += 1;
        if self.unsaved >= EVERY { self.save() } else { Ok(()) }
    }

    pub(super) fn save(&mut self) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec(&self.wire).expect("plain data");
        let check = *blake3::Hasher::new_derive_key(work::CONTEXT).update(&bytes).finalize().as_bytes();
        bytes.extend_from_slice(&work::MARK);
        bytes.extend_from_slice(&check);
        self.unsaved = 0;
        write_atomically(&self.path, &bytes).map_err(|error: StoreError| error.into())
    }
}

/// Bytes of the check at the end of a file.
const CHECK: usize = work::MARK.len() + 32;

fn name(prompt: &str) -> String {
    Digest::of("retort exam verdict 1", |hasher| _ = hasher.update(prompt.as_bytes())).hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(folder.path());
        assert_eq!(kept.get("a"), None);
        kept.put("a", Some(true)).unwrap();
        kept.put("b", None).unwrap();
        kept.save().unwrap();
        let again = Kept::open(folder.path());
        assert_eq!([again.get("a"), again.get("b"), again.get("c")], [Some(Some(true)), Some(None), None]);
        fs::write(folder.path().join(FILE), "short").unwrap();
        assert_eq!(Kept::open(folder.path()).get("a"), None);
    }
}

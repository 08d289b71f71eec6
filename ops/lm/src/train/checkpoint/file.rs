//! The file of a checkpoint: replaced whole, with a check at its end.
//!
//! It takes its predecessor's place by a rename, so a crash leaves one or the other. After its bytes comes their check, as all files of
//! unfinished work in a store have it: a mark and a BLAKE3 digest. Whoever hands out the folder moves away what does not hold.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use crate::LmError;

const FILE: &str = "checkpoint.safetensors";
/// What stands before the digest of all before it.
const MARK: [u8; 16] = *b"\nretort check 1\n";

/// What was saved, if there is something and its check holds.
pub(super) fn read(folder: &Path) -> Result<Option<Vec<u8>>, LmError> {
    let path = folder.join(FILE);
    let mut bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let file = bytes.split_last_chunk::<32>().and_then(|(rest, digest)| Some((rest.strip_suffix(&MARK)?, digest)));
    let Some(length) = file.filter(|(file, digest)| check(file) == **digest).map(|(file, _)| file.len()) else {
        return Ok(None);
    };
    bytes.truncate(length);
    Ok(Some(bytes))
}

/// Writes beside, under a name of the writer's own, syncs, renames, syncs the folder.
pub(super) fn replace(folder: &Path, writer: &str, file: &[u8]) -> Result<(), LmError> {
    let (beside, path) = (folder.join(format!("{FILE}.{writer}.new")), folder.join(FILE));
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let mut out = File::create(&beside).map_err(io("create", &beside))?;
    let check = check(file);
    let parts = [file, &MARK, &check];
    parts
        .iter()
        .try_for_each(|part| out.write_all(part))
        .and_then(|()| out.sync_all())
        .map_err(io("write", &beside))?;
    std::fs::rename(&beside, &path).map_err(io("rename", &beside))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync", folder))
}

fn check(file: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key("retort unfinished work 1").update_rayon(file).finalize().as_bytes()
}

fn io<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> LmError + 'a {
    move |source| LmError::Io { verb, path: path.display().to_string(), source }
}

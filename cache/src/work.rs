//! Folders for work that is not finished: `work/<recipe>/`, with what an operator keeps there, such as training checkpoints.
//!
//! Every file in one ends with its check: a mark of 16 bytes and the BLAKE3 digest of all before the mark, under
//! [`CONTEXT`]. It is looked at when the folder is asked for; what does not hold goes to the quarantine, and the operator begins
//! without it. A file whose name ends in `.new` is half-written.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::files::is_temporary;
use crate::quarantine::Quarantine;

/// What stands before the digest.
pub const MARK: [u8; 16] = *b"\nretort check 1\n";
/// The context under which a file's bytes are hashed.
pub const CONTEXT: &str = "retort unfinished work 1";

/// Makes the folder, and moves what is damaged in it away.
pub(crate) fn open(folder: &Path, quarantine: &Quarantine) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if damage(&path)?.is_some() {
            quarantine.take_and_tell(&path, "unfinished work", "is begun anew")?;
        }
    }
    Ok(())
}

/// What is wrong with a file of unfinished work, if anything is.
pub(crate) fn damage(path: &Path) -> Result<Option<String>, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_temporary(&name) || name.ends_with(".new") || !path.is_file() {
        return Ok(None);
    }
    let whole = is_whole(path).map_err(StoreError::io("read", path))?;
    Ok((!whole).then(|| "it is not what was written".into()))
}

fn is_whole(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let Some(end) = length.checked_sub(48) else { return Ok(false) };
    let mut check = [0; 48];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut check)?;
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    file.seek(SeekFrom::Start(0))?;
    hasher.update_reader((&mut file).take(end))?;
    Ok(check[..16] == MARK && check[16..] == *hasher.finalize().as_bytes())
}

/// The path of a recipe's folder in the store at `root`.
pub(crate) fn folder(root: &Path, recipe: crate::RecipeId) -> PathBuf {
    root.join("work").join(recipe.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, Disk, RecipeId, Store};

    #[test]
    fn what_is_damaged_is_not_handed_out() {
        let root = tempfile::tempdir().unwrap();
        let recipe = RecipeId(Digest::of("test", |_| ()));
        let path = Disk::open(root.path()).unwrap().workspace(recipe).unwrap().join("checkpoint");
        let mut whole = b"step 12".to_vec();
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let check = *hasher.update(&whole).finalize().as_bytes();
        whole.extend_from_slice(&MARK);
        whole.extend_from_slice(&check);
        let handed_out = |bytes: &[u8]| {
            let _ = fs::remove_dir_all(root.path().join("quarantine"));
            fs::write(&path, bytes).unwrap();
            let store = Disk::open(root.path()).unwrap();
            store.workspace(recipe).unwrap();
            let told = store.told();
            assert_eq!(told.is_empty(), path.exists(), "{told:?}");
            path.exists()
        };
        assert!(handed_out(&whole));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            assert!(!handed_out(&bytes), "byte {at}");
            assert!(!handed_out(&whole[..at]), "cut at {at}");
        }
        fs::write(path.with_extension("new"), "half").unwrap();
        assert!(handed_out(&whole) && path.with_extension("new").exists());
    }
}

//! The seal of a table's file: digests of all its bytes, in the file itself.
//!
//! A table's name is its content's. It says nothing of the bytes beside the values (statistics, sizes, padding), and to hold
//! rows to it they must be decoded first, by a decoder that damaged bytes may lead astray. So whoever writes a table's file seals it.
//!
//! A Parquet file is read from its end, and all places in it are counted from its beginning; what lies right before the footer is
//! looked at by no reader. There the seal is:
//!
//! | bytes | what |
//! |---|---|
//! | … | pages |
//! | … | what the writer puts between its pages and the footer |
//! | 8 | `\xf5seal 1\n` |
//! | 8 | length of the pages, little-endian |
//! | 32 | the table's name |
//! | 32 | BLAKE3 digest of the pages |
//! | 32 | BLAKE3 digest of the 80 bytes before, the number of bytes between pages and seal, these, and the footer to the file's end |
//! | … | the footer, 4 bytes with its length, `PAR1` |
//!
//! So the columns and the number of rows are held to the seal without a look at the pages. Files of before have no seal, and
//! are held to their name alone; `created_by` in the footer says which ones they are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::{ContentId, StoreError};

/// What sealed files say of their writer.
pub(crate) const CREATED_BY: &str = "retort tables 3";

const MARK: [u8; 8] = *b"\xf5seal 1\n";
/// The seal without its last digest, and all of it.
const HEAD: usize = 80;
const SEAL: usize = 112;
/// The footer's length and `PAR1`.
const END: u64 = 8;

/// A file that is written and will be sealed.
pub(crate) struct Sealing {
    file: File,
    pages: blake3::Hasher,
    n_pages: u64,
    /// What comes after the pages.
    tail: Option<Vec<u8>>,
}

impl Sealing {
    /// Begins with the pages.
    pub(crate) fn of(file: File) -> Self {
        Sealing { file, pages: pages_hasher(), n_pages: 0, tail: None }
    }

    /// The file as it is, without a seal.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// All pages were written.
    pub(crate) fn end_pages(&mut self) {
        self.tail = Some(Vec::new());
    }

    /// Puts the seal of the table `id` before the footer, and gives the file.
    pub(crate) fn seal(mut self, id: ContentId) -> std::io::Result<File> {
        let tail = self.tail.unwrap_or_default();
        let footer = footer_length(&tail).and_then(|footer| tail.len().checked_sub(footer as usize));
        let (between, footer) = tail.split_at(footer.ok_or(std::io::ErrorKind::InvalidData)?);
        let mut seal = MARK.to_vec();
        seal.extend_from_slice(&self.n_pages.to_le_bytes());
        seal.extend_from_slice(id.0.as_bytes());
        seal.extend_from_slice(self.pages.finalize().as_bytes());
        let mut check = tail_hasher(&seal, between.len() as u64);
        seal.extend_from_slice(check.update(between).update(footer).finalize().as_bytes());
        for part in [between, &seal, footer] {
            self.file.write_all(part)?;
        }
        Ok(self.file)
    }
}

impl Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(tail) = &mut self.tail {
            return tail.write(bytes);
        }
        let n = self.file.write(bytes)?;
        self.pages.update(&bytes[..n]);
        self.n_pages += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// What a file's seal says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// The bytes are those that were written for the table of this name.
    Whole,
    /// The file was written before there were seals, as far as can be seen.
    None,
    /// They are not.
    Broken,
}

/// Holds what comes after the pages to the seal: the columns, the number of rows.
pub(crate) fn check_tail(path: &Path, id: ContentId) -> Result<Seal, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    Ok(tail_of(&mut file, id).map_err(StoreError::io("read", path))?.0)
}

/// Holds all bytes of a file to the seal.
pub(crate) fn check(path: &Path, id: ContentId) -> Result<Seal, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut look = || -> std::io::Result<Seal> {
        let (seal, pages) = tail_of(&mut file, id)?;
        let Some((n_pages, digest)) = pages else { return Ok(seal) };
        let mut hasher = pages_hasher();
        file.seek(SeekFrom::Start(0))?;
        hasher.update_reader((&mut file).take(n_pages))?;
        Ok(if *hasher.finalize().as_bytes() == digest { Seal::Whole } else { Seal::Broken })
    };
    look().map_err(StoreError::io("read", path))
}

/// The length and the digest of a file's pages.
type Pages = (u64, [u8; 32]);

/// The seal, held against the tail; where it is whole, what it says of the pages.
fn tail_of(file: &mut File, id: ContentId) -> std::io::Result<(Seal, Option<Pages>)> {
    let length = file.seek(SeekFrom::End(0))?;
    let end = read(file, length.saturating_sub(END), length)?;
    let footer = footer_length(&end).and_then(|footer| length.checked_sub(footer));
    let seal = footer.and_then(|footer| footer.checked_sub(SEAL as u64));
    let (Some(footer), Some(at)) = (footer, seal) else { return Ok((without(file, length, length)?, None)) };
    let seal = read(file, at, footer)?;
    if seal[..8] != MARK {
        return Ok((without(file, footer, length)?, None));
    }
    let n_pages = u64::from_le_bytes(seal[8..16].try_into().expect("eight bytes"));
    if n_pages > at || seal[16..48] != *id.0.as_bytes() {
        return Ok((Seal::Broken, None));
    }
    let mut hasher = tail_hasher(&seal[..HEAD], at - n_pages);
    for (from, to) in [(n_pages, at), (footer, length)] {
        file.seek(SeekFrom::Start(from))?;
        hasher.update_reader((&mut *file).take(to - from))?;
    }
    let whole = hasher.finalize().as_bytes() == &seal[HEAD..];
    let digest = seal[48..HEAD].try_into().expect("32 bytes");
    Ok(if whole { (Seal::Whole, Some((n_pages, digest))) } else { (Seal::Broken, None) })
}

/// What a file without a seal is: its writer's name lies near its end.
fn without(file: &mut File, footer: u64, length: u64) -> std::io::Result<Seal> {
    const NEAR: u64 = 1 << 12;
    let end = read(file, footer.min(length.saturating_sub(NEAR)), length)?;
    let names_it = end.windows(CREATED_BY.len()).any(|bytes| bytes == CREATED_BY.as_bytes());
    Ok(if names_it { Seal::Broken } else { Seal::None })
}

/// The footer's length with what follows it, as the last eight bytes of a file say.
fn footer_length(bytes: &[u8]) -> Option<u64> {
    let end = bytes.last_chunk::<8>()?;
    let length = u32::from_le_bytes(*end.first_chunk()?);
    (end[4..] == *b"PAR1").then_some(u64::from(length) + END)
}

fn read(file: &mut File, from: u64, to: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    file.seek(SeekFrom::Start(from))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Of all that is not pages: the seal itself, then so many bytes before it, then the footer.
fn tail_hasher(seal: &[u8], between: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_derive_key("retort table seal tail 1");
    hasher.update(seal).update(&between.to_le_bytes());
    hasher
}

fn pages_hasher() -> blake3::Hasher {
    blake3::Hasher::new_derive_key("retort table seal pages 1")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    use super::*;
    use crate::{Disk, Store, Table, parquet};

    fn table(store: &Disk) -> (Table, RecordBatch) {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(|n| format!("row {}", n % 3))));
        let batch = RecordBatch::try_from_iter([("number", numbers), ("text", texts)]).unwrap();
        let mut writer = store.writer(batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        (writer.finish().unwrap(), batch)
    }

    /// What comes of reading: all bits of all bytes, cut anywhere, named otherwise.
    #[test]
    fn no_bit_is_another_unnoticed() {
        let folder = tempfile::tempdir().unwrap();
        let (table, batch) = table(&Disk::open(folder.path()).unwrap());
        let path = table.path().unwrap();
        assert_eq!(check(path, table.id).unwrap(), Seal::Whole);
        assert_eq!(check_tail(path, table.id).unwrap(), Seal::Whole);
        assert_eq!(check(path, ContentId(crate::Digest::of("test", |_| ()))).unwrap(), Seal::Broken, "another's name");
        let read: Vec<_> = parquet::read(path).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, [batch], "Parquet does not see the seal");

        let whole = fs::read(path).unwrap();
        let (root, n_pages) = (tempfile::tempdir().unwrap(), pages_of(&whole));
        let look = |bytes: &[u8]| {
            let _ = fs::remove_dir_all(root.path().join("quarantine"));
            // As a process does that did not write it.
            let store = Disk::open(root.path()).unwrap();
            let path = store.table_path(table.id);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            let opened = store.open(table.id).map(Option::unwrap);
            let described = opened.is_ok();
            let read = opened.and_then(|table| table.batches()?.collect::<Result<Vec<_>, _>>());
            assert_eq!(read.is_err(), !path.exists(), "what is damaged is moved, what is whole is not");
            (described, read.is_ok())
        };
        assert_eq!(look(&whole), (true, true));
        let place = root.path().join("flipped");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&place, &bytes).unwrap();
            assert_ne!(check(&place, table.id).unwrap(), Seal::Whole, "byte {at}");
            if at % 23 == 0 || whole.len() - at < 9 {
                assert_eq!(look(&bytes), ((at as u64) < n_pages, false), "byte {at}");
            }
        }
        for length in (0..whole.len()).step_by(31) {
            assert_eq!(look(&whole[..length]), (false, false), "cut at {length}");
        }
    }

    fn pages_of(bytes: &[u8]) -> u64 {
        let at = bytes.windows(8).position(|bytes| bytes == MARK).unwrap() + 8;
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn a_file_of_before_is_held_to_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Disk::open(folder.path()).unwrap();
        let (table, _) = table(&store);
        let path = table.path().unwrap();
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.windows(8).position(|bytes| bytes == MARK).unwrap();
        bytes.drain(at..at + SEAL);
        let name = bytes.windows(CREATED_BY.len()).position(|bytes| bytes == CREATED_BY.as_bytes()).unwrap();
        let write = |bytes: &[u8]| {
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write(&bytes);
        assert_eq!(check(path, table.id).unwrap(), Seal::Broken, "one that says that it has a seal, and has none");
        bytes[name..name + CREATED_BY.len()].copy_from_slice(b"retort tables 2");
        write(&bytes);
        assert_eq!(check(path, table.id).unwrap(), Seal::None);
        let open = || Disk::open(folder.path()).unwrap().open(table.id).unwrap().unwrap();
        assert_eq!(crate::content_id(&open()).unwrap(), table.id);
        // Written once more it stays as it is: nothing is wrong with it.
        assert_eq!(self::table(&store).0.id, table.id);
        assert_eq!(fs::read(path).unwrap(), bytes);
    }
}

//! Where the rows of a segment are: its keys in order, in a file beside it that is mapped into memory and searched there.
//!
//! | bytes | what |
//! |---|---|
//! | 24 | `retort row index 1` and a line's end, filled up with zeros |
//! | 8 | number of entries, little-endian as all numbers |
//! | 8 | what tells the segment from another of its name |
//! | 8 | beginning of the BLAKE3 digest of the two numbers above, the fences and the checks |
//! | 8 each | fences: a block's first key, as far as entries have it |
//! | 8 each | checks: beginnings of the blocks' BLAKE3 digests |
//! | 16 each | entries in ascending order, in blocks of 1,024: the first eight bytes of a key, and where its row is |
//!
//! Digests are spread evenly, so a key's block is guessed from its first bytes, and its place in the block too. A block is
//! checked when it is first looked into. The index is a memo of its segment: one that is not right is made anew.
//! Two keys may begin alike, so whoever reads a row compares the whole key, which the segment has.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use memmap2::Mmap;

use super::frame::beginning;
use crate::StoreError;
use crate::digest::{Digest, RowKey};
use crate::files::write_atomically;

const MAGIC: [u8; 24] = *b"retort row index 1\n\0\0\0\0\0";
const HEADER: usize = 48;
const BLOCK: usize = 1024;
const ENTRY: usize = 16;

/// The beginning of a key in its upper half, the row's place in its lower.
pub(super) type Entry = u128;

/// A frame's place in its segment, and a row's number in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    pub(super) fn new(frame: u64, row: usize) -> Self {
        Place(frame << 16 | row as u64)
    }

    pub(super) fn frame(self) -> u64 {
        self.0 >> 16
    }

    pub(super) fn row(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

pub(super) fn entry(key: &[u8], place: Place) -> Entry {
    let first = u64::from_be_bytes(key[..8].try_into().expect("a key is longer"));
    Entry::from(first) << 64 | Entry::from(place.0)
}

/// The first eight bytes of a key, as entries are ordered by.
pub(super) fn first_of(key: &RowKey) -> u64 {
    u64::from_be_bytes(beginning(key.0))
}

/// An index whose bytes are not those that were written.
#[derive(Debug)]
pub(super) struct Torn;

/// The entries of a segment.
pub(super) enum Index {
    /// Of a segment that is small or still written to; sorted.
    InMemory(Vec<Entry>),
    /// Of any other.
    Mapped(Mapped),
}

impl Index {
    /// The `nth` place of a row whose key begins with `first`.
    pub(super) fn nth(&self, first: u64, nth: usize) -> Result<Option<Place>, Torn> {
        let least = Entry::from(first) << 64;
        let entry = match self {
            Index::InMemory(entries) => entries.get(entries.partition_point(|entry| *entry < least) + nth).copied(),
            Index::Mapped(mapped) => mapped.get(mapped.position(first)? + nth)?,
        };
        Ok(entry.filter(|entry| (entry >> 64) as u64 == first).map(|entry| Place(entry as u64)))
    }

    /// How many rows it knows.
    pub(super) fn len(&self) -> usize {
        match self {
            Index::InMemory(entries) => entries.len(),
            Index::Mapped(mapped) => mapped.n,
        }
    }
}

/// What lies where the index of a segment would.
pub(super) enum Beside {
    /// Nothing.
    Nothing,
    /// What the system does not let be read.
    Unread(StoreError),
    /// What nobody wrote.
    Damaged,
    /// An index with so many entries, of a segment that was of this name.
    Another(usize),
    /// The segment's index.
    Its(Mapped),
}

/// Entries in a file.
pub(super) struct Mapped {
    map: Mmap,
    n: usize,
    n_blocks: usize,
    /// A bit a block: whether it was checked.
    checked: Vec<std::sync::atomic::AtomicU64>,
}

impl Mapped {
    /// Looks for the index of a segment in the file `path`.
    pub(super) fn open(path: &Path, segment: [u8; 8]) -> Beside {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Beside::Nothing,
            Err(error) => return Beside::Unread(StoreError::io("open", path)(error)),
        };
        match Self::of(&file) {
            Err(error) => Beside::Unread(StoreError::io("map", path)(error)),
            Ok(None) => Beside::Damaged,
            Ok(Some(mapped)) if mapped.map[32..40] == segment => Beside::Its(mapped),
            Ok(Some(mapped)) => Beside::Another(mapped.n),
        }
    }

    /// Whether every byte of an index is one that was written.
    pub(super) fn is_whole(file: &File) -> std::io::Result<bool> {
        let is_whole = |mapped: Self| (0..mapped.n_blocks).all(|block| mapped.block(block).is_ok());
        Ok(Self::of(file)?.is_some_and(is_whole))
    }

    /// The entries in a file, if their head is what was written.
    fn of(file: &File) -> std::io::Result<Option<Self>> {
        Ok(Self::of_bytes(map(file)?))
    }

    fn of_bytes(map: Mmap) -> Option<Self> {
        let n = usize::try_from(number(&map, 24)?).ok()?;
        let n_blocks = n.div_ceil(BLOCK);
        let entries = HEADER.checked_add(n_blocks.checked_mul(16)?)?;
        let whole = map[..24] == MAGIC
            && map.len() == entries.checked_add(n.checked_mul(ENTRY)?)?
            && map[40..48] == head_check(&map[24..40], &map[HEADER..entries]);
        whole.then(|| Mapped { map, n, n_blocks, checked: (0..n_blocks.div_ceil(64)).map(|_| 0.into()).collect() })
    }

    /// Writes the index of a segment.
    pub(super) fn write(path: &Path, segment: [u8; 8], entries: &[Entry]) -> Result<(), StoreError> {
        let mut bytes = Vec::with_capacity(HEADER + entries.len() * (ENTRY + 1));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&(entries.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&segment);
        bytes.extend_from_slice(&[0; 8]);
        for block in entries.chunks(BLOCK) {
            bytes.extend_from_slice(&((block[0] >> 64) as u64).to_le_bytes());
        }
        let mut block_bytes = Vec::with_capacity(BLOCK * ENTRY);
        for block in entries.chunks(BLOCK) {
            block_bytes.clear();
            block.iter().for_each(|entry| block_bytes.extend_from_slice(&entry.to_le_bytes()));
            bytes.extend_from_slice(&block_check(&block_bytes));
        }
        let check = head_check(&bytes[24..40], &bytes[HEADER..]);
        bytes[40..48].copy_from_slice(&check);
        entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.to_le_bytes()));
        write_atomically(path, &bytes)
    }

    /// How many entries are less than those of `first`.
    fn position(&self, first: u64) -> Result<usize, Torn> {
        if self.n == 0 {
            return Ok(0);
        }
        // The last block that begins before `first`: entries of `first` begin in it, or else with the next.
        let mut block = share(first, u64::MAX, self.n_blocks);
        while block > 0 && self.fence(block) >= first {
            block -= 1;
        }
        while block + 1 < self.n_blocks && self.fence(block + 1) < first {
            block += 1;
        }
        let entries = self.block(block)?;
        let n = entries.len() / ENTRY;
        let from = self.fence(block);
        let to = if block + 1 < self.n_blocks { self.fence(block + 1) } else { u64::MAX };
        let less = |at: usize| first_at(entries, at) < first;
        // The place is some twenty entries from the guess, so the lines of memory beside it are all that is looked at.
        let mut at = share(first.saturating_sub(from), to.saturating_sub(from), n);
        while at < n && less(at) {
            at += 1;
        }
        while at > 0 && !less(at - 1) {
            at -= 1;
        }
        Ok(block * BLOCK + at)
    }

    fn get(&self, at: usize) -> Result<Option<Entry>, Torn> {
        if at >= self.n {
            return Ok(None);
        }
        let from = at % BLOCK * ENTRY;
        let bytes = &self.block(at / BLOCK)?[from..from + ENTRY];
        Ok(Some(Entry::from_le_bytes(bytes.try_into().expect("an entry"))))
    }

    fn fence(&self, block: usize) -> u64 {
        number(&self.map, HEADER + block * 8).expect("the file's length was checked")
    }

    /// The entries of a block, which is checked when it is first asked for.
    fn block(&self, block: usize) -> Result<&[u8], Torn> {
        use std::sync::atomic::Ordering::Relaxed;
        let entries = HEADER + self.n_blocks * 16;
        let (from, to) = (block * BLOCK, ((block + 1) * BLOCK).min(self.n));
        let bytes = &self.map[entries + from * ENTRY..entries + to * ENTRY];
        let (word, bit) = (&self.checked[block / 64], 1 << (block % 64));
        if word.load(Relaxed) & bit == 0 {
            let check = HEADER + (self.n_blocks + block) * 8;
            if self.map[check..check + 8] != block_check(bytes) {
                return Err(Torn);
            }
            word.fetch_or(bit, Relaxed);
        }
        Ok(bytes)
    }
}

/// A file's bytes, read as they are looked at.
#[expect(unsafe_code, reason = "mapping a file is unsafe where someone may cut it short meanwhile")]
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: what is mapped is written under another name and renamed, or no longer written to. Nobody changes it then;
    // it goes by being unlinked, which leaves the mapping as it is.
    unsafe { Mmap::map(file) }
}

fn first_at(entries: &[u8], at: usize) -> u64 {
    // Little-endian: the upper half comes last.
    number(entries, at * ENTRY + 8).expect("within the block")
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// `part / whole` of `n`, less than `n`.
fn share(part: u64, whole: u64, n: usize) -> usize {
    ((part as f64 / whole as f64 * n as f64) as usize).min(n - 1)
}

fn head_check(numbers: &[u8], fences_and_checks: &[u8]) -> [u8; 8] {
    beginning(Digest::of("retort row index head 1", |hasher| {
        hasher.update(numbers).update(fences_and_checks);
    }))
}

fn block_check(bytes: &[u8]) -> [u8; 8] {
    beginning(Digest::of("retort row index block 1", |hasher| {
        hasher.update(bytes);
    }))
}

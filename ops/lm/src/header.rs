//! The head of a GGUF file: how many tokens the model takes in. Read before anything runs, so it reads no further than it must.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Keys of a head, and bytes of a key, at most: what has more is no model.
const MOST: u64 = 1 << 20;

/// The context of a GGUF model, in tokens; `None` where the file is none or does not say.
pub fn context_length(path: &Path) -> Option<usize> {
    let mut reader = BufReader::new(File::open(path).ok()?);
    find(&mut reader).ok().flatten()
}

fn find(reader: &mut BufReader<File>) -> io::Result<Option<usize>> {
    let mut head = [0; 24];
    reader.read_exact(&mut head)?;
    // Version 1 counted in 32 bits; nobody writes it any more.
    if &head[..4] != b"GGUF" || !matches!(head[4], 2 | 3) {
        return Ok(None);
    }
    let n_keys = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
    for _ in 0..n_keys.min(MOST) {
        let len = number(reader, 8)?;
        if len > MOST {
            return Ok(None);
        }
        let mut key = vec![0; len as usize];
        reader.read_exact(&mut key)?;
        let kind = number(reader, 4)?;
        if key.ends_with(b".context_length") {
            return match size(kind) {
                Some(size @ (2 | 4 | 8)) => Ok(usize::try_from(number(reader, size as usize)?).ok()),
                _ => Ok(None),
            };
        }
        if !skip(reader, kind)? {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Skips a value; `false` where its kind is not known.
fn skip(reader: &mut BufReader<File>, kind: u64) -> io::Result<bool> {
    match kind {
        8 => {
            let len = number(reader, 8)?;
            forward(reader, len)?;
        }
        9 => {
            let (kind, n) = (number(reader, 4)?, number(reader, 8)?);
            match size(kind) {
                Some(size) => forward(reader, n.saturating_mul(size))?,
                None if kind == 8 => {
                    for _ in 0..n {
                        let len = number(reader, 8)?;
                        forward(reader, len)?;
                    }
                }
                None => return Ok(false),
            }
        }
        kind => match size(kind) {
            Some(size) => forward(reader, size)?,
            None => return Ok(false),
        },
    }
    Ok(true)
}

/// The bytes of a value that is one number.
fn size(kind: u64) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn number(reader: &mut impl Read, size: usize) -> io::Result<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes[..size])?;
    Ok(u64::from_le_bytes(bytes))
}

fn forward(reader: &mut BufReader<File>, n: u64) -> io::Result<()> {
    reader.seek_relative(i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    #[test]
    fn the_context_is_found_behind_other_keys() {
        let mut bytes = [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &4_u64.to_le_bytes()].concat();
        bytes.extend([text("general.name"), 8_u32.to_le_bytes().to_vec(), text("small")].concat());
        bytes.extend([text("list"), 9_u32.to_le_bytes().to_vec(), 8_u32.to_le_bytes().to_vec()].concat());
        bytes.extend([2_u64.to_le_bytes().to_vec(), text("one"), text("")].concat());
        bytes.extend([text("half"), 6_u32.to_le_bytes().to_vec(), 0.5_f32.to_le_bytes().to_vec()].concat());
        bytes.extend(
            [text("llama.context_length"), 4_u32.to_le_bytes().to_vec(), 512_u32.to_le_bytes().to_vec()].concat(),
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(context_length(&path), Some(512));
        for cut in [0, 3, 20, 40, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(context_length(&path), None, "{cut}");
        }
        assert_eq!(context_length(folder.path()), None);
    }
}

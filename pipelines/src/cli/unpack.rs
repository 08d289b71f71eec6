//! `retort unpack`: an experiment from one file, which may be a stranger's.

use std::path::PathBuf;

use super::stop::{Ended, Result, Stop, say};
use crate::observe::words;
use crate::pack::{self, PackError};

/// Arguments of `unpack`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The packed experiment
    #[arg(value_name = "FILE")]
    pack: PathBuf,
    /// The folder to make [default: the file's name without `.retort`, here]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Puts the files among those of a folder that is not empty, in the place of files of the same names
    #[arg(long)]
    force: bool,
    /// Refuses a pack that holds more than this: a number with `k`, `M`, `G` or `T`
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = size)]
    max_size: u64,
}

pub(super) fn run(args: &Args) -> Result<Ended> {
    let named = || args.pack.file_stem().map(PathBuf::from).unwrap_or_default();
    let folder = args.folder.clone().unwrap_or_else(named);
    if folder.file_name().is_none() && !folder.is_dir() {
        return Err(Stop::wrong(format!("`{}` names no folder", folder.display())));
    }
    // Said before a long unpacking, and once more when the folder is placed.
    let is_taken = folder.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if is_taken && !args.force {
        return Err(PackError::NotEmpty { path: folder.display().to_string() }.into());
    }
    let unpacked = pack::unpack(&args.pack, &folder, args.max_size)?;
    pack::place(&unpacked, &folder, args.force)?;
    let members = &unpacked.manifest.members;
    let bytes = words::bytes(members.iter().map(|member| member.bytes).sum());
    say(&format!("unpacked {} ({bytes}) into {}", words::count(members.len() as u64, "file"), folder.display()));
    let pipeline = folder.join(&unpacked.manifest.pipeline);
    say(&format!("`retort run {} --locked` holds it to its lock", pipeline.display()));
    Ok(Ended::DONE)
}

/// Bytes, as people write them.
fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match text[digits.len()..].trim().to_lowercase().trim_end_matches('b') {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        _ => return Err("expected a number with `k`, `M`, `G` or `T`".into()),
    };
    digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(|| "expected a number".into())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("8G"), Ok(8_000_000_000));
        assert_eq!(size("12 kB"), Ok(12_000));
        assert_eq!(size("7"), Ok(7));
        assert!(size("G").is_err() && size("8X").is_err() && size("99999999999T").is_err());
    }
}

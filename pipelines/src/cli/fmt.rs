//! `retort fmt`: pipelines laid out in one way.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use retort_cache::StoreError;
use retort_cache::files::{rename_into_place, temporary_beside};

use super::stop::{Ended, Result, Stop, diagnose, say};
use crate::document::bytes;
use crate::fmt;

/// Arguments of `fmt`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Pipeline files; `-` reads standard input and writes standard output
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Writes nothing: names the files that would change, and ends with status 1 if there are any
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: &Args) -> Result<Ended> {
    let mut ended = Ended::DONE;
    for path in &args.files {
        // One file that is wrong keeps no other from being laid out.
        let of_file = match one(path, args.check) {
            Ok(ended) => ended,
            Err(Stop::Mistakes(mistakes)) => {
                diagnose(&mistakes);
                Ended::WRONG
            }
            Err(stop) => return Err(stop),
        };
        ended = Ended(ended.0.max(of_file.0));
    }
    Ok(ended)
}

fn one(path: &Path, check: bool) -> Result<Ended> {
    let is_stdin = path.as_os_str() == "-";
    let old = if is_stdin {
        let mut given = Vec::new();
        io::stdin().lock().take(fmt::MAX_BYTES as u64 + 1).read_to_end(&mut given)?;
        given
    } else {
        bytes(path).map_err(|error| Stop::failed(&StoreError::io("read", path)(error)))?
    };
    let name = if is_stdin { Path::new("<stdin>") } else { path };
    let new = fmt::fmt(name, old.clone()).map_err(|mistakes| Stop::Mistakes(Box::new(mistakes)))?;
    let is_changed = old != new.as_bytes();
    let mut out = io::stdout().lock();
    if check {
        if is_changed {
            writeln!(out, "{}", name.display())?;
        }
        return Ok(if is_changed { Ended::FAILED } else { Ended::DONE });
    }
    if is_stdin {
        out.write_all(new.as_bytes())?;
    } else if is_changed {
        replace(path, new.as_bytes()).map_err(|error| Stop::failed(&error))?;
        say(&format!("laid out {}", path.display()));
    }
    Ok(Ended::DONE)
}

/// Replaces a file, or leaves it as it was; what may be done with it stays.
fn replace(path: &Path, bytes: &[u8]) -> std::result::Result<(), StoreError> {
    // Of a link, the file that it points to.
    let path = &path.canonicalize().map_err(StoreError::io("find", path))?;
    let temporary = temporary_beside(path)?;
    let write = || {
        let mut file = fs::File::create(&temporary).map_err(StoreError::io("create", &temporary))?;
        file.write_all(bytes).map_err(StoreError::io("write", &temporary))?;
        let permissions = fs::metadata(path).map_err(StoreError::io("look at", path))?.permissions();
        file.set_permissions(permissions).map_err(StoreError::io("write", &temporary))?;
        file.sync_all().map_err(StoreError::io("sync", &temporary))?;
        rename_into_place(&temporary, path)
    };
    write().inspect_err(|_| {
        // The folder should not be left with what failed.
        let _ = fs::remove_file(&temporary);
    })
}

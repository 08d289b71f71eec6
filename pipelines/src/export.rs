//! A node's answer as files for other tools: JSON Lines, Parquet, a PEFT folder.

mod peft;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use retort_cache::{Answer, Output, StoreError, Table};
use retort_engine::graph::{FILES_PORT, REJECTS_PORT};
use retort_engine::{NodeId, World};

use crate::load::Loaded;
use crate::tables::json_lines;
use crate::tuned::TunedError;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A trained adapter as a folder that Hugging Face PEFT loads.
    Peft,
    /// A file of JSON Lines an output.
    Jsonl,
    /// A Parquet file an output.
    Parquet,
}

/// Why nothing could be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store, or a file, could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The answer's table is not in the store.
    #[error("the table of output `{0}` is gone from the store")]
    Gone(String),
    /// The node's adapter, or its base model, could not be opened.
    #[error(transparent)]
    Tuned(#[from] TunedError),
    /// The adapter could not be written.
    #[error("failed to write the adapter")]
    Adapter(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What to write, and where.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// What is written.
    pub format: Format,
    /// One output; all that hold results where none is named.
    pub port: Option<&'a str>,
    /// What a PEFT folder calls the base model; made from its source where nothing is given.
    pub base: Option<&'a str>,
    /// The folder, made where it is missing.
    pub folder: &'a Path,
}

/// Writes an answer, or one output of it. Gives the files with their sizes in bytes.
pub fn export(
    loaded: &Loaded,
    id: NodeId,
    answer: &Answer,
    world: World<'_>,
    target: Target<'_>,
) -> Result<Vec<(PathBuf, u64)>, ExportError> {
    let Target { format, port, base, folder } = target;
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    if format == Format::Peft {
        return peft::export(loaded, id, answer, world, base, folder);
    }
    let node = &loaded.graph.node(id).name;
    // Refused rows and listings of files are no results; they are written when they are asked for.
    let data = |output: &&Output| match port {
        Some(port) => output.port == port,
        None => output.port != REJECTS_PORT && output.port != FILES_PORT,
    };
    let mut written = Vec::new();
    for output in answer.outputs.iter().filter(data) {
        let name = if output.port == "out" { node.clone() } else { format!("{node}.{}", output.port) };
        let table = open(output, world)?;
        let path = match format {
            Format::Jsonl => folder.join(format!("{name}.jsonl")),
            _ => folder.join(format!("{name}.parquet")),
        };
        match (format, table.path()) {
            (Format::Parquet, Some(stored)) => copy(stored, &path)?,
            _ => write_lines(&table, &path)?,
        }
        written.push(weighed(path)?);
    }
    Ok(written)
}

/// Opens the table of an output.
fn open(output: &Output, world: World<'_>) -> Result<Table, ExportError> {
    world.store.open(output.content)?.ok_or_else(|| ExportError::Gone(output.port.clone()))
}

/// A stored table is read-only; its copy is the user's.
fn copy(stored: &Path, path: &Path) -> Result<(), ExportError> {
    let bytes = fs::read(stored).map_err(StoreError::io("read", stored))?;
    Ok(fs::write(path, bytes).map_err(StoreError::io("write", path))?)
}

fn write_lines(table: &Table, path: &Path) -> Result<(), ExportError> {
    let file = fs::File::create(path).map_err(StoreError::io("create", path))?;
    let mut out = BufWriter::new(file);
    for batch in table.batches()? {
        json_lines(&mut out, &batch?).map_err(StoreError::io("write", path))?;
    }
    Ok(out.flush().map_err(StoreError::io("write", path))?)
}

fn weighed(path: PathBuf) -> Result<(PathBuf, u64), ExportError> {
    let bytes = fs::metadata(&path).map_err(StoreError::io("inspect", &path))?.len();
    Ok((path, bytes))
}

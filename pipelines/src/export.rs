//! A node's answer as files for other tools: tables as JSON Lines or Parquet; an adapter as a PEFT folder, a GGUF file, or merged into its base.

pub(crate) mod gguf;
pub(crate) mod merged;
pub(crate) mod peft;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use retort_cache::{Answer, Output, StoreError, Table};
use retort_engine::graph::{FILES_PORT, REJECTS_PORT};
use retort_engine::{NodeId, World};
use retort_lm::gguf::MergedType;
use retort_lm::{LmError, hf};

use crate::load::Loaded;
use crate::tables::json_lines;
use crate::tuned::{self, TunedError};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A trained adapter as a folder that Hugging Face PEFT loads.
    Peft,
    /// The base model with the adapter merged in, as a folder that Hugging Face transformers loads.
    Merged,
    /// A trained adapter as a GGUF file, for llama.cpp's --lora.
    GgufLora,
    /// The base model's GGUF file with the adapter merged in; what it does not adapt stays as it is.
    Gguf,
    /// A file of JSON Lines an output.
    Jsonl,
    /// A Parquet file an output.
    Parquet,
}

/// How the weights of a merged model are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    /// Half floats.
    #[default]
    F16,
    /// Half floats with the range of single ones; not for --format gguf.
    Bf16,
    /// Single floats; not for --format gguf.
    F32,
    /// Eight bits in blocks of 32; for --format gguf only.
    #[value(name = "q8_0")]
    Q8_0,
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
        }
    }

    fn of_folder(self) -> Result<hf::Dtype, ExportError> {
        match self {
            Self::F16 => Ok(hf::Dtype::F16),
            Self::Bf16 => Ok(hf::Dtype::Bf16),
            Self::F32 => Ok(hf::Dtype::F32),
            Self::Q8_0 => Err(ExportError::Dtype { dtype: self.name(), kind: "merged", takes: "f16, bf16 and f32" }),
        }
    }

    fn of_gguf(self) -> Result<MergedType, ExportError> {
        match self {
            Self::F16 => Ok(MergedType::F16),
            Self::Q8_0 => Ok(MergedType::Q8_0),
            _ => Err(ExportError::Dtype { dtype: self.name(), kind: "gguf", takes: "f16 and q8_0" }),
        }
    }
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
    /// The format does not store numbers so.
    #[error("`--format {kind}` does not store `{dtype}`: it takes {takes}")]
    Dtype {
        /// What was asked for.
        dtype: &'static str,
        /// The format.
        kind: &'static str,
        /// What it stores.
        takes: &'static str,
    },
}

fn adapter_error(error: LmError) -> ExportError {
    ExportError::Adapter(Box::new(error))
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
    /// How the weights of a merged model are stored.
    pub dtype: Dtype,
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
    let Target { format, port, base, dtype, folder } = target;
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    let node = &loaded.graph.node(id).name;
    let tuned = || tuned::open(loaded.graph.node(id), answer, world, &mut |_, _| Ok(()));
    match format {
        Format::Peft => return peft::export(&tuned()?, format!("{node} of {}", loaded.name), answer, base, folder),
        Format::Merged => return merged::export(&tuned()?, dtype, folder),
        Format::GgufLora => return gguf::lora(&tuned()?, node, folder),
        Format::Gguf => return gguf::merged(&tuned()?, node, dtype, folder),
        Format::Jsonl | Format::Parquet => {}
    }
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

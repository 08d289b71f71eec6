//! Where the rows of a query go: the terminal, or a file that gets its name when it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use retort_cache::StoreError;
use retort_cache::parquet::FileWriter;

use crate::cli::stop::{Ended, Result, Stop, say};
use crate::cli::workplace::width_of_stdout;
use crate::observe::words;
use crate::tables::{self, Format};

/// Rows that a grid shows, where no number is named.
const ROWS: usize = 40;

/// Rows on their way out.
pub(super) struct Output {
    columns: SchemaRef,
    way: Way,
    file: Option<Unfinished>,
    /// Rows that may still come.
    left: usize,
    n_rows: u64,
    /// Whether more came than may.
    is_cut: bool,
}

enum Way {
    Grid(Vec<RecordBatch>),
    Lines(Format, Box<dyn Write>),
    Parquet(Box<FileWriter>),
}

/// A file under another name until it is whole.
struct Unfinished {
    path: PathBuf,
    part: PathBuf,
}

impl Output {
    /// Nothing is written yet but a header.
    pub(super) fn begin(columns: SchemaRef, format: Format, file: Option<&Path>, most: Option<usize>) -> Result<Self> {
        let (mut way, file) = match file {
            Some(path) => Self::to_file(path, &columns)?,
            None if format == Format::Table => (Way::Grid(Vec::new()), None),
            None => (Way::Lines(format, Box::new(BufWriter::new(std::io::stdout()))), None),
        };
        let all = if matches!(way, Way::Grid(_)) { ROWS } else { usize::MAX };
        if let Way::Lines(format, out) = &mut way {
            tables::header(out, *format, &columns)?;
        }
        Ok(Output { columns, way, file, left: most.unwrap_or(all), n_rows: 0, is_cut: false })
    }

    fn to_file(path: &Path, columns: &SchemaRef) -> Result<(Way, Option<Unfinished>)> {
        let kind = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let format = match kind.as_str() {
            "parquet" => None,
            "csv" => Some(Format::Csv),
            "json" | "jsonl" => Some(Format::Json),
            "md" => Some(Format::Md),
            _ => {
                let stop = Stop::wrong(format!("`{}` does not say what to write", path.display()));
                return Err(stop.hint("its name ends in .parquet, .csv, .jsonl or .md"));
            }
        };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let file = Unfinished { path: path.to_path_buf(), part: part.into() };
        let opened = File::create(&file.part).map_err(StoreError::io("create", &file.part))?;
        let way = match format {
            Some(format) => Way::Lines(format, Box::new(BufWriter::new(opened))),
            None => Way::Parquet(Box::new(FileWriter::new(opened, &file.part, columns.clone())?)),
        };
        Ok((way, Some(file)))
    }

    /// Takes rows; says whether it takes more.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<bool> {
        self.is_cut = batch.num_rows() > self.left;
        let batch = batch.slice(0, batch.num_rows().min(self.left));
        self.left -= batch.num_rows();
        self.n_rows += batch.num_rows() as u64;
        match &mut self.way {
            Way::Grid(batches) => batches.push(batch),
            Way::Lines(Format::Csv, out) => tables::csv(out, &batch)?,
            Way::Lines(Format::Md, out) => tables::markdown(out, &batch)?,
            Way::Lines(Format::Json | Format::Table, out) => tables::json_lines(out, &batch)?,
            Way::Parquet(writer) => writer.write(&batch)?,
        }
        Ok(!self.is_cut)
    }

    /// All rows came: writes what is left, gives a file its name, says how many rows there were.
    pub(super) fn end(self) -> Result<Ended> {
        match self.way {
            Way::Grid(batches) => {
                let rows = concat_batches(&self.columns, &batches).expect("one schema");
                let mut out = std::io::stdout().lock();
                out.write_all(tables::grid(&rows).render(Some(width_of_stdout().unwrap_or(160))).as_bytes())?;
                out.flush()?;
            }
            Way::Lines(_, mut out) => out.flush()?,
            Way::Parquet(writer) => _ = writer.finish()?,
        }
        let count = words::count(self.n_rows, "row");
        match self.file {
            Some(Unfinished { path, part }) => {
                fs::rename(&part, &path).map_err(StoreError::io("rename", &part))?;
                say(&format!("wrote {} ({count})", path.display()));
            }
            None if self.is_cut => say(&format!("the first {count}; -n shows more, --csv and --json all")),
            None => say(&count),
        }
        Ok(Ended::DONE)
    }
}

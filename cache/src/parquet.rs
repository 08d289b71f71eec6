//! The one fixed way in which tables are written, so that equal tables are equal files byte for byte.
//!
//! What was measured (`benches/tables.rs`): compression is nearly all of the cost, and zstd's first level is the fastest that
//! Parquet can name; LZ4 writes text a fifth to a half faster, and its files are 1.8 times as
//! large. Dictionaries cost more than they save where most values differ, and repeated text shrinks without them. Text with its lengths apart is the cheapest to encode and compresses as well as with shared prefixes.
//!
//! Small tables are not compressed: zstd makes a context for every column, to write and again to read, and asks the processor each time what it can, which on a virtual
//! machine is a call to its host. That was half of what a small node cost.

use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};

use crate::seal::{CREATED_BY, Sealing};
use crate::{Batches, ContentId, Lengths, StoreError};

/// Rows that are handed to the Parquet writer at a time: pages end only at such a boundary, however the rows came.
const SLICE: usize = 1024;
/// Rows in a row group.
const ROW_GROUP: usize = 8 * SLICE;
/// A slice ends with the row that fills so many bytes, and a row group with the slice that does, so that long rows do not fill the memory.
const SLICE_BYTES: usize = 4 << 20;
const ROW_GROUP_BYTES: usize = 32 << 20;
/// A table of one slice with fewer bytes than that is not compressed: as much as the file's own description takes.
const SMALL: usize = 16 << 10;

/// Writes rows to a Parquet file, whatever batches they come in.
pub struct FileWriter {
    /// The file, until it is known whether its rows are few.
    file: Option<(File, WriterPropertiesBuilder)>,
    writer: Option<ArrowWriter<Sealing>>,
    schema: SchemaRef,
    pending: Vec<RecordBatch>,
    n_pending: usize,
    /// Of the rows that are pending.
    bytes: usize,
    path: String,
}

impl FileWriter {
    /// Begins the file.
    pub fn new(file: File, path: &Path, schema: SchemaRef) -> Result<Self, StoreError> {
        let path = path.display().to_string();
        let properties = properties(&schema).map_err(StoreError::table("write", &path))?;
        let file = Some((file, properties));
        Ok(FileWriter { file, writer: None, schema, pending: Vec::new(), n_pending: 0, bytes: 0, path })
    }

    /// Appends rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let lengths = Lengths::of(batch);
        let mut at = 0;
        while at < batch.num_rows() {
            let most = (SLICE - self.n_pending).min(batch.num_rows() - at);
            let mut take = 0;
            while take < most && self.bytes < SLICE_BYTES {
                self.bytes += lengths.row(at + take);
                take += 1;
            }
            self.pending.push(batch.slice(at, take));
            self.n_pending += take;
            at += take;
            if self.n_pending == SLICE || self.bytes >= SLICE_BYTES {
                self.flush(zstd())?;
            }
        }
        Ok(())
    }

    /// Ends a file that is no table of a store, and returns it, not yet synced.
    pub fn finish(self) -> Result<File, StoreError> {
        let (writer, path) = self.end()?;
        writer.into_inner().map(Sealing::into_file).map_err(StoreError::table("write", &path))
    }

    /// Ends and seals the file of the table that has the name `id`, and returns it, not yet synced.
    pub(crate) fn seal(self, id: ContentId) -> Result<File, StoreError> {
        let (mut writer, path) = self.end()?;
        writer.flush().map_err(StoreError::table("write", &path))?;
        writer.sync().map_err(StoreError::table("write", &path))?;
        writer.inner_mut().end_pages();
        let file = writer.into_inner().map_err(StoreError::table("write", &path))?;
        file.seal(id).map_err(StoreError::io("write", Path::new(&path)))
    }

    /// Writes the rows that are pending, which are the last.
    fn end(mut self) -> Result<(ArrowWriter<Sealing>, String), StoreError> {
        // Counts if nothing was written yet.
        let compression = if self.bytes < SMALL { Compression::UNCOMPRESSED } else { zstd() };
        self.flush(compression)?;
        let writer = match self.writer {
            Some(writer) => writer,
            None => self.begin(compression)?,
        };
        Ok((writer, self.path))
    }

    fn begin(&mut self, compression: Compression) -> Result<ArrowWriter<Sealing>, StoreError> {
        let (file, properties) = self.file.take().expect("who can't begin a file does not go on");
        let properties = properties.set_compression(compression).build();
        let writer = ArrowWriter::try_new(Sealing::of(file), self.schema.clone(), Some(properties));
        writer.map_err(StoreError::table("write", &self.path))
    }

    fn flush(&mut self, compression: Compression) -> Result<(), StoreError> {
        if self.n_pending == 0 {
            return Ok(());
        }
        let slice = concat_batches(&self.schema, &self.pending).map_err(StoreError::table("write", &self.path))?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin(compression)?,
        };
        writer.write(&slice).map_err(StoreError::table("write", &self.path))?;
        self.pending.clear();
        (self.n_pending, self.bytes) = (0, 0);
        if writer.in_progress_size() >= ROW_GROUP_BYTES {
            writer.flush().map_err(StoreError::table("write", &self.path))?;
        }
        self.writer = Some(writer);
        Ok(())
    }
}

/// Reads a file's rows, batch by batch.
pub fn read(path: &Path) -> Result<Batches, StoreError> {
    Ok(open(path)?.1)
}

/// A file's schema, and its rows, batch by batch.
pub fn open(path: &Path) -> Result<(SchemaRef, Batches), StoreError> {
    let name = path.display().to_string();
    let builder = builder(path)?;
    let rows = rows_at_a_time(builder.metadata());
    let builder = builder.with_batch_size(rows);
    let schema = builder.schema().clone();
    let reader = builder.build().map_err(StoreError::table("read", &name))?;
    Ok((schema, Box::new(reader.map(move |batch| batch.map_err(StoreError::table("read", &name))))))
}

/// The schema and rows of a file that is in memory, whoever wrote it.
pub fn of_bytes(bytes: Vec<u8>) -> Result<(SchemaRef, Batches), StoreError> {
    let name = "parquet data";
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
        .map_err(StoreError::table("read", name))?
        .with_batch_size(SLICE);
    let schema = builder.schema().clone();
    let reader = builder.build().map_err(StoreError::table("read", name))?;
    Ok((schema, Box::new(reader.map(move |batch| batch.map_err(StoreError::table("read", name))))))
}

/// A file's schema and number of rows, from its footer.
pub fn describe(path: &Path) -> Result<(SchemaRef, u64), StoreError> {
    let builder = builder(path)?;
    let rows = builder.metadata().file_metadata().num_rows();
    let schema = builder.schema().as_ref().clone().with_metadata(std::collections::HashMap::new());
    Ok((std::sync::Arc::new(schema), rows as u64))
}

/// A slice, or fewer rows where they are long.
fn rows_at_a_time(metadata: &ParquetMetaData) -> usize {
    let bytes: i64 = metadata.row_groups().iter().map(RowGroupMetaData::total_byte_size).sum();
    let each = bytes / metadata.file_metadata().num_rows().max(1);
    (SLICE_BYTES / usize::try_from(each).unwrap_or(0).max(1)).clamp(1, SLICE)
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(StoreError::table("read", path.display()))
}

/// The first level.
fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(1).expect("a level from 1 to 22"))
}

fn properties(schema: &Schema) -> parquet::errors::Result<WriterPropertiesBuilder> {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_created_by(CREATED_BY.into())
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP));
    for column in ArrowSchemaConverter::new().convert(schema)?.columns() {
        if column.physical_type() == Type::BYTE_ARRAY {
            properties = properties.set_column_encoding(column.path().clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
        }
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};
    use parquet::basic::GzipLevel;
    use parquet::file::metadata::ColumnChunkMetaData;

    use super::*;

    fn file(batches: impl Iterator<Item = RecordBatch>, schema: &SchemaRef) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let mut writer = FileWriter::new(File::create(&path).unwrap(), &path, schema.clone()).unwrap();
        batches.for_each(|batch| writer.write(&batch).unwrap());
        writer.finish().unwrap();
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn long_rows_end_slices_and_groups_early_whatever_batches_they_come_in() {
        // Texts that hardly compress.
        let long = |n: u32| -> String {
            let digest = |at: u32| blake3::hash(&[n.to_le_bytes(), at.to_le_bytes()].concat()).to_hex().to_string();
            (0..20_000).map(digest).collect()
        };
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..90).map(long)));
        let lists = arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(
            (0..90).map(|n| Some((0..n).map(Some))),
        );
        let rows = RecordBatch::try_from_iter([("text", texts), ("list", Arc::new(lists) as ArrayRef)]).unwrap();
        let schema = rows.schema();
        let whole = file(std::iter::once(rows.clone()), &schema);
        for size in [1, 7] {
            let parts = (0..90).step_by(size).map(|at| rows.slice(at, size.min(90 - at)));
            assert!(file(parts, &schema) == whole, "batches of {size}");
        }
        let groups = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(whole)).unwrap();
        let rows: Vec<_> = groups.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
        assert!(rows.len() > 1 && rows.iter().all(|rows| *rows < 80), "{rows:?}");
    }

    #[test]
    fn few_rows_are_not_compressed_whatever_batches_they_come_in() {
        let rows = |n: usize| {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..n).map(|n| format!("page {n}"))));
            RecordBatch::try_from_iter([("text", texts)]).unwrap()
        };
        let least = (0..SLICE).find(|n| Lengths::of(&rows(*n)).all() >= SMALL).unwrap();
        for n in [0, 1, least - 1, least, SLICE, SLICE + 1] {
            let (rows, schema) = (rows(n), rows(n).schema());
            let whole = file(std::iter::once(rows.clone()), &schema);
            assert!(file((0..n).map(|at| rows.slice(at, 1)), &schema) == whole, "{n} rows one by one");
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(whole)).unwrap();
            let columns = builder.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
            let expected = if n < least { Compression::UNCOMPRESSED } else { zstd() };
            assert!(columns.map(ColumnChunkMetaData::compression).all(|found| found == expected), "{n} rows");
            let read: Vec<_> = builder.build().unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(concat_batches(&schema, &read).unwrap(), rows);
        }
    }

    #[test]
    fn files_of_others_are_read_however_they_are_compressed() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..3000).map(|n| format!("page {n}"))));
        let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        let kinds = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
            Compression::ZSTD(ZstdLevel::default()),
        ];
        for kind in kinds {
            let properties = WriterProperties::builder().set_compression(kind).build();
            let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
            writer.write(&rows).unwrap();
            let (schema, batches) = of_bytes(writer.into_inner().unwrap()).unwrap();
            let read = batches.collect::<Result<Vec<_>, _>>().unwrap();
            assert_eq!(concat_batches(&schema, &read).unwrap(), rows, "{kind:?}");
        }
    }

    #[test]
    fn long_rows_are_read_few_at_a_time() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..300).map(|_| "x".repeat(1 << 16))));
        let batch = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, file([batch.clone()].into_iter(), &batch.schema())).unwrap();
        let rows: Vec<usize> = read(&path).unwrap().map(|batch| batch.unwrap().num_rows()).collect();
        assert_eq!(rows.iter().sum::<usize>(), 300);
        assert!(rows.iter().all(|rows| rows << 16 <= SLICE_BYTES), "{rows:?}");
    }
}

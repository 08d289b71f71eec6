//! Tables as text: a grid cut to the terminal, JSON Lines, CSV, Markdown; and the choice of rows and columns.

mod cells;
mod filter;
mod grid;
mod spark;

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::json::LineDelimitedWriter;
use arrow::json::writer::WriterBuilder;

pub use cells::{full, is_number, short};
pub use filter::{Filter, FilterError};
pub use grid::{Column, Grid};
pub use spark::spark;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A grid, cut to the terminal.
    Table,
    /// An object a line, all columns, in table order.
    Json,
    /// Comma-separated values; nested values as JSON, bytes as hexadecimal digits.
    Csv,
    /// A Markdown table.
    Md,
}

/// A table as a grid.
pub fn grid(batch: &RecordBatch) -> Grid {
    let schema = batch.schema();
    let column = |field: &arrow::datatypes::FieldRef| Column::new(field.name(), is_number(field.data_type()));
    let mut grid = Grid::new(schema.fields().iter().map(column));
    for row in 0..batch.num_rows() {
        grid.push(batch.columns().iter().map(|array| short(array, row)));
    }
    grid
}

/// The columns of a table: name, type, and whether a value may be missing.
pub fn columns(schema: &Schema) -> Grid {
    let mut grid = Grid::new([Column::new("column", false), Column::new("type", false), Column::new("null", false)]);
    for field in schema.fields() {
        let null = if field.is_nullable() { "may be" } else { "" };
        grid.push([field.name().clone(), cells::type_name(field.data_type()), null.to_string()]);
    }
    grid
}

/// Rows as JSON Lines. Bytes are hexadecimal digits; a missing value is `null`.
pub fn json_lines(out: &mut dyn Write, batch: &RecordBatch) -> io::Result<()> {
    let mut failed = None;
    let mut writer: LineDelimitedWriter<_> =
        WriterBuilder::new().with_explicit_nulls(true).build(Kept { out, failed: &mut failed });
    let written = writer.write(batch).and_then(|()| writer.finish());
    drop(writer);
    match (failed, written) {
        (Some(error), _) => Err(error),
        (None, written) => written.map_err(io::Error::other),
    }
}

/// Keeps the error of a stream, whose kind Arrow's own errors would hide (a closed pipe is no mistake).
struct Kept<'a> {
    out: &'a mut dyn Write,
    failed: &'a mut Option<io::Error>,
}

impl Write for Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| {
            let kind = error.kind();
            *self.failed = Some(error);
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The header line of a format, where it has one.
pub fn header(out: &mut dyn Write, format: Format, schema: &Schema) -> io::Result<()> {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    match format {
        Format::Table | Format::Json => Ok(()),
        Format::Csv => writeln!(out, "{}", names.map(quoted).collect::<Vec<_>>().join(",")),
        Format::Md => {
            writeln!(out, "| {} |", names.map(escaped).collect::<Vec<_>>().join(" | "))?;
            let rule = |field: &arrow::datatypes::FieldRef| if is_number(field.data_type()) { "---:" } else { "---" };
            writeln!(out, "| {} |", schema.fields().iter().map(rule).collect::<Vec<_>>().join(" | "))
        }
    }
}

/// Rows as comma-separated values (RFC 4180, lines ended by LF).
pub fn csv(out: &mut dyn Write, batch: &RecordBatch) -> io::Result<()> {
    for row in 0..batch.num_rows() {
        let cells: Vec<_> = batch.columns().iter().map(|array| quoted(&full(array, row))).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

/// Rows of a Markdown table.
pub fn markdown(out: &mut dyn Write, batch: &RecordBatch) -> io::Result<()> {
    for row in 0..batch.num_rows() {
        let cells: Vec<_> = batch.columns().iter().map(|array| escaped(&short(array, row))).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int32Type;
    use expect_test::expect;

    use super::*;

    fn batch() -> RecordBatch {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a \"b\", c\nd|e"), None]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![7, 12_345]));
        let loss: ArrayRef = Arc::new(Float64Array::from(vec![1.25, 2.0]));
        let list: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![])]));
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&[1, 0xff][..], &[0; 2000][..]]));
        RecordBatch::try_from_iter([("text", text), ("n", number), ("loss", loss), ("list", list), ("bytes", bytes)])
            .unwrap()
    }

    fn text(write: impl Fn(&mut dyn Write, &RecordBatch) -> io::Result<()>, batch: &RecordBatch) -> String {
        let mut out = Vec::new();
        write(&mut out, batch).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_grid_fits_and_sums_up() {
        expect![[r#"
            text              n  loss  list    bytes
            a "b", c d|e      7  1.25  [1, 2]  <2 B>
                          12345     2  []      <2.0 kB>
        "#]]
        .assert_eq(&grid(&batch()).render(None));
    }

    #[test]
    fn json_has_all_columns_and_nulls() {
        let first = batch().slice(0, 1);
        expect![[r#"
            {"text":"a \"b\", c\nd|e","n":7,"loss":1.25,"list":[1,2],"bytes":"01ff"}
        "#]]
        .assert_eq(&text(json_lines, &first));
        assert!(text(json_lines, &batch().slice(1, 1)).starts_with("{\"text\":null,\"n\":12345,"));
    }

    #[test]
    fn csv_and_markdown_are_escaped() {
        let first = batch().slice(0, 1);
        assert_eq!(text(csv, &first), "\"a \"\"b\"\", c\nd|e\",7,1.25,\"[1,2]\",01ff\n");
        assert_eq!(text(markdown, &first), "| a \"b\", c d\\|e | 7 | 1.25 | [1, 2] | <2 B> |\n");
        let head = text(|out, batch| header(out, Format::Md, &batch.schema()), &first);
        assert_eq!(head, "| text | n | loss | list | bytes |\n| --- | ---: | ---: | --- | --- |\n");
    }
}

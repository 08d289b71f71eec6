//! A single value as text: short for people, in full for other tools.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::json::LineDelimitedWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::observe::words;

/// Lists of more bytes than this are counted, not shown.
const LONG_LIST: usize = 200;

/// Whether values are numbers, which line up at the right.
pub fn is_number(kind: &DataType) -> bool {
    kind.is_numeric()
}

/// A value for people: one line, floats rounded, bytes and long lists summed up. Empty where it is missing.
pub fn short(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return String::new();
    }
    match array.data_type() {
        DataType::Float32 => words::measure(f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => words::measure(array.as_primitive::<Float64Type>().value(row)),
        DataType::Binary => format!("<{}>", words::bytes(array.as_binary::<i32>().value(row).len() as u64)),
        DataType::LargeBinary => format!("<{}>", words::bytes(array.as_binary::<i64>().value(row).len() as u64)),
        DataType::List(item) if item.data_type().is_nested() => items(array.as_list::<i32>().value(row).len()),
        DataType::List(_) => {
            let text = formatted(array, row);
            if text.len() > LONG_LIST { items(array.as_list::<i32>().value(row).len()) } else { one_line(&text) }
        }
        _ => one_line(&formatted(array, row)),
    }
}

/// A value in full: nested ones as JSON, bytes as hexadecimal digits. Empty where it is missing.
pub fn full(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return String::new();
    }
    if array.data_type().is_nested() { json(array, row) } else { formatted(array, row) }
}

/// A type in the words of the manual: `text`, `int64`, `list<struct<kind: text, …>>`.
pub(super) fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary => "bytes".into(),
        DataType::Boolean => "bool".into(),
        DataType::List(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|field| format!("{}: {}", field.name(), type_name(field.data_type()))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}

fn items(n: usize) -> String {
    format!("<{}>", words::count(n as u64, "item"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn formatted(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(array, &options)
        .map_or_else(|error| error.to_string(), |cells| cells.value(row).to_string())
}

fn json(array: &ArrayRef, row: usize) -> String {
    let mut out = Vec::new();
    let written = RecordBatch::try_from_iter([("v", array.slice(row, 1))]).and_then(|batch| {
        let mut writer = LineDelimitedWriter::new(&mut out);
        writer.write(&batch)?;
        writer.finish()
    });
    let value = serde_json::from_slice::<serde_json::Value>(&out).unwrap_or_default();
    written.map_or_else(|error| error.to_string(), |()| value["v"].to_string())
}

//! The declared columns, and whether a table that came back has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::{Failure, Problem, nearest};

/// The types by name.
const TYPES: &[(&str, DataType)] = &[
    ("text", DataType::Utf8),
    ("bool", DataType::Boolean),
    ("bytes", DataType::Binary),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
];

/// The schema that a config declares. A value may always be missing.
pub(super) fn declared(columns: &BTreeMap<String, String>) -> Result<SchemaRef, Problem> {
    if columns.is_empty() {
        return Err(Problem::at_field("columns", "the program gives no column").hint("`columns: {label: text}`"));
    }
    let field = |(name, kind): (&String, &String)| Ok(Field::new(name, type_of(kind, name)?, true));
    Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Vec<_>, Problem>>()?)))
}

fn type_of(text: &str, name: &str) -> Result<DataType, Problem> {
    let text = text.trim();
    if let Some(item) = text.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
        return Ok(DataType::List(Arc::new(Field::new("item", type_of(item, name)?, true))));
    }
    let names = || TYPES.iter().map(|(name, _)| *name);
    let found = TYPES.iter().find(|(name, _)| *name == text).map(|(_, kind)| kind.clone());
    found.ok_or_else(|| {
        let problem = Problem::at_field(format!("columns.{name}"), format!("unknown type `{text}`"));
        match nearest(text, names()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem
                .hint(format!("a type is one of {}, or `list<…>` of one", names().collect::<Vec<_>>().join(", "))),
        }
    })
}

/// A type in the words of `columns`.
fn named(kind: &DataType) -> String {
    match kind {
        DataType::List(item) => format!("list<{}>", named(item.data_type())),
        other => match TYPES.iter().find(|(_, kind)| kind == other) {
            Some((name, _)) => (*name).to_string(),
            None => other.to_string().to_lowercase(),
        },
    }
}

/// The declared columns of what came back. `ignored` are columns that may come back and are not taken.
pub(super) fn taken(batch: &RecordBatch, declared: &SchemaRef, ignored: &[&str]) -> Result<RecordBatch, Failure> {
    let schema = batch.schema();
    let known = |name: &str| declared.field_with_name(name).is_ok() || ignored.contains(&name);
    if let Some(other) = schema.fields().iter().find(|field| !known(field.name())) {
        let (name, kind) = (other.name(), named(other.data_type()));
        return Err(Failure::op(format!(
            "the program gave a column `{name}` ({kind}), which `columns` does not name: add it there, or leave it out"
        )));
    }
    let columns = declared.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name()).ok_or_else(|| {
            let came: Vec<_> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
            Failure::op(format!("the program gave no column `{}`; it gave {}", field.name(), came.join(", ")))
        })?;
        as_declared(column, field)
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(declared.clone(), columns.collect::<Result<_, _>>()?, &options)
        .map_err(|error| Failure::op(error.to_string()))
}

fn as_declared(column: &ArrayRef, field: &Field) -> Result<ArrayRef, Failure> {
    if !fits(column.data_type(), field.data_type()) {
        let (name, came, wanted) = (field.name(), named(column.data_type()), named(field.data_type()));
        return Err(Failure::op(format!(
            "the program gave `{name}` as {came}, `columns` says {wanted}: change one of them"
        )));
    }
    let checked = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, field.data_type(), &checked)
        .map_err(|error| Failure::op(format!("the program gave a `{}` that does not fit: {error}", field.name())))
}

/// Whether values of one type can stand for those of another: the same thing in another width or layout.
fn fits(came: &DataType, wanted: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Dictionary, FixedSizeList, LargeBinary, LargeList, LargeUtf8, List, Null, Utf8, Utf8View,
    };
    match (came, wanted) {
        (Null, _) | (Utf8 | LargeUtf8 | Utf8View, Utf8) | (Binary | LargeBinary | BinaryView, Binary) => true,
        (Dictionary(_, values), wanted) => fits(values, wanted),
        (List(item) | LargeList(item) | FixedSizeList(item, _), List(wanted)) => {
            fits(item.data_type(), wanted.data_type())
        }
        (came, wanted) if came.is_integer() && wanted.is_integer() => true,
        (came, wanted) if came.is_floating() && wanted.is_floating() => true,
        (came, wanted) => came == wanted,
    }
}

//! The fuzzer's operators: configs that give every shape of operator, and what they answer as plain functions.
//!
//! The plain functions (`Row::say`, `Whole::say`, `Docs::say`) are all that the answer key and the engine share.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A value as text; its column's name and type are told beside it.
pub(crate) type Cell = Option<String>;

/// What an operator says of one row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// Rows of the added columns.
    Rows(Vec<(Cell, i64)>),
    /// Rows, and it refuses the rest; no rows at all is a refusal.
    Partly(Vec<(Cell, i64)>, String),
    /// It refuses.
    Refused(String),
}

/// Which columns a row operator carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Carries {
    #[default]
    All,
    Some,
    Nothing,
}

/// A row operator of any shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Row {
    pub(crate) reads: Vec<String>,
    pub(crate) maybe: Vec<String>,
    pub(crate) adds: String,
    /// A second column, of numbers.
    pub(crate) number: Option<String>,
    pub(crate) carries: Carries,
    pub(crate) drops: Vec<String>,
    pub(crate) remember: bool,
    pub(crate) salt: u64,
    /// So many different answers there are at most.
    pub(crate) coarse: u64,
    /// 0: a row a row; else up to so many, none included.
    pub(crate) many: u64,
    /// 0: none; else one row in so many is refused.
    pub(crate) refuse: u64,
    pub(crate) nullable: bool,
    pub(crate) batch: usize,
    pub(crate) parallel: bool,
    /// Rows are finished in an odd order, by two threads.
    pub(crate) scramble: bool,
}

impl Row {
    /// What it says of a row: a function of its config, its version and the values it reads.
    pub(crate) fn say(&self, version: u32, values: &[Cell]) -> Said {
        // Version 3 says what version 2 said.
        let mut hash = mix(self.salt ^ u64::from(version / 2));
        for value in values {
            hash = mix(hash ^ value.as_deref().map_or(7, text_hash));
        }
        let refuses = self.refuse > 0 && hash.is_multiple_of(self.refuse);
        if refuses && !hash.is_multiple_of(3) {
            return Said::Refused(format!("reason {}", hash % 3));
        }
        let rows = if self.many == 0 { 1 } else { mix(hash) % (self.many + 1) };
        let row = |n: u64| {
            let value = mix(hash ^ (n << 20));
            let value = if self.coarse > 0 { value % self.coarse } else { value % 1000 };
            let text = (!self.nullable || value % 4 != 0).then(|| format!("w{value}"));
            (text, (value % 5) as i64)
        };
        let rows = (0..rows).map(row).collect();
        if refuses { Said::Partly(rows, "the rest".into()) } else { Said::Rows(rows) }
    }

    pub(crate) fn added(&self) -> SchemaRef {
        let mut fields = vec![Field::new(&self.adds, DataType::Utf8, self.nullable)];
        fields.extend(self.number.iter().map(|name| Field::new(name, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }
}

/// What a table operator does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Rows backwards: the order of the input shows.
    #[default]
    Reverse,
    /// One row that stands for all, in order.
    Sum,
    /// Some rows, by a stable hash.
    Pick,
    /// Two outputs, `a` and `b`, by a stable hash.
    Part,
    /// Inputs `left` and, at will, `right`; outputs `rows` and `counts`.
    Join,
}

/// A table operator of any shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Whole {
    pub(crate) kind: Kind,
    pub(crate) salt: u64,
}

impl Whole {
    pub(crate) fn outputs(&self) -> Vec<String> {
        let names: &[&str] = match self.kind {
            Kind::Reverse | Kind::Sum | Kind::Pick => &["out"],
            Kind::Part => &["a", "b"],
            Kind::Join => &["rows", "counts"],
        };
        names.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn schemas(&self, first: &SchemaRef) -> Vec<SchemaRef> {
        match self.kind {
            Kind::Reverse | Kind::Pick => vec![first.clone()],
            Kind::Sum => vec![text_schema(&["text"])],
            Kind::Part => vec![first.clone(), first.clone()],
            Kind::Join => vec![first.clone(), text_schema(&["text"])],
        }
    }

    /// What it makes of its inputs, in the order of its slots.
    pub(crate) fn say(&self, version: u32, inputs: &[(String, RecordBatch)]) -> Vec<RecordBatch> {
        let salt = mix(self.salt ^ u64::from(version / 2));
        let first = &inputs[0].1;
        let hashes: Vec<u64> = (0..first.num_rows()).map(|row| mix(salt ^ row_hash(first, row))).collect();
        let these = |wanted: &dyn Fn(u64) -> bool| {
            let rows = hashes.iter().enumerate().filter(|(_, hash)| wanted(**hash)).map(|(row, _)| row as u64);
            take_record_batch(first, &UInt64Array::from_iter_values(rows)).unwrap()
        };
        match self.kind {
            Kind::Reverse => {
                let rows = UInt64Array::from_iter_values((0..first.num_rows() as u64).rev());
                vec![take_record_batch(first, &rows).unwrap()]
            }
            Kind::Sum => {
                let sum = hashes.iter().fold(salt, |sum, hash| mix(sum ^ hash));
                vec![texts("text", &[format!("w{}", sum % 50)])]
            }
            Kind::Pick => vec![these(&|hash| hash % 3 != 0)],
            Kind::Part => vec![these(&|hash| hash % 3 != 0), these(&|hash| hash % 3 == 0)],
            Kind::Join => {
                let counts: Vec<_> =
                    inputs.iter().map(|(slot, input)| format!("{slot} {}", input.num_rows())).collect();
                vec![first.clone(), texts("text", &counts)]
            }
        }
    }
}

/// Lists the files of a folder and reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Docs {
    /// The folder: a place, not a fact.
    pub(crate) paths: String,
    /// Reads the digest only, so that a renamed file asks nothing new.
    pub(crate) by_content: bool,
    /// A row a line instead of a row a file.
    pub(crate) lines: bool,
    pub(crate) salt: u64,
}

impl Docs {
    /// What it says of a file.
    pub(crate) fn say(&self, version: u32, content: &str) -> Said {
        if content.contains("bad") {
            return Said::Refused("it is bad".into());
        }
        let tail = if self.salt + u64::from(version / 2) == 0 {
            String::new()
        } else {
            format!(" {}", self.salt + u64::from(version / 2))
        };
        let row = |text: &str| (Some(format!("{text}{tail}")), 0);
        Said::Rows(if self.lines { content.lines().map(row).collect() } else { vec![row(content.trim())] })
    }

    pub(crate) fn reads(&self) -> Vec<String> {
        if self.by_content { vec!["digest".into()] } else { vec!["path".into(), "digest".into()] }
    }
}

/// The added columns of an answer.
pub(crate) fn batch_of(schema: &SchemaRef, rows: &[(Cell, i64)]) -> RecordBatch {
    let text: ArrayRef = Arc::new(rows.iter().map(|(text, _)| text.clone()).collect::<StringArray>());
    let number: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, number)| *number)));
    let columns = [text, number].into_iter().take(schema.fields().len()).collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// The values of a row.
pub(crate) fn cells(batch: &RecordBatch, row: usize) -> Vec<Cell> {
    batch.columns().iter().map(|column| cell(column.as_ref(), row)).collect()
}

fn cell(column: &dyn Array, row: usize) -> Cell {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).to_owned()),
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row).to_string()),
        // Of other types only the answer key's own comparison and the real operators know more.
        other => Some(format!("{other}")),
    }
}

/// What tells a row from others: names, types and values of its columns.
pub(crate) fn identity(batch: &RecordBatch, row: usize) -> String {
    let schema = batch.schema();
    let named = schema.fields().iter().zip(cells(batch, row)).map(|(field, value)| {
        let null = if field.is_nullable() { "?" } else { "" };
        format!(
            "{}: {}{null} = {}",
            field.name(),
            field.data_type(),
            value.map_or("null".into(), |value| format!("{value:?}"))
        )
    });
    named.collect::<Vec<_>>().join(", ")
}

pub(crate) fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect::<Vec<_>>()))
}

fn texts(name: &str, values: &[String]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(values));
    RecordBatch::try_new(text_schema(&[name]), vec![column]).unwrap()
}

fn row_hash(batch: &RecordBatch, row: usize) -> u64 {
    cells(batch, row).iter().fold(11, |hash, value| mix(hash ^ value.as_deref().map_or(7, text_hash)))
}

fn text_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A finaliser of good spread (splitmix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

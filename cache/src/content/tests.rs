//! Names depend on values alone: random tables of every shape, laid out and cut in every way.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, LargeStringArray, ListArray, NullArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Int32Type};

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Number(i64),
    Float(u64),
    Text(String),
    List(Vec<Value>),
    Struct(Vec<Value>),
}

/// A small generator of its own: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

fn random_type(random: &mut Random, depth: u32) -> DataType {
    match random.below(if depth == 0 { 6 } else { 8 }) {
        0 => DataType::Boolean,
        1 => DataType::Int64,
        2 => DataType::Float64,
        3 => DataType::Utf8,
        4 => DataType::LargeUtf8,
        5 => DataType::Null,
        6 => DataType::List(Arc::new(Field::new("item", random_type(random, depth - 1), true))),
        _ => DataType::Struct(random_fields(random, depth - 1)),
    }
}

fn random_fields(random: &mut Random, depth: u32) -> Fields {
    let n = 1 + random.below(3);
    (0..n).map(|i| Field::new(format!("f{i}"), random_type(random, depth), true)).collect()
}

fn random_value(random: &mut Random, data_type: &DataType, nulls: u64) -> Value {
    if *data_type == DataType::Null || random.below(10) < nulls {
        return Value::Null;
    }
    match data_type {
        DataType::Boolean => Value::Bool(random.below(2) == 1),
        DataType::Int64 => Value::Number(random.below(1000) as i64),
        DataType::Float64 => {
            let floats = [0.0, -0.0, 1.5, f64::NAN, f64::INFINITY];
            Value::Float(floats[random.below(5) as usize].to_bits())
        }
        DataType::List(item) => {
            let n = random.below(4);
            Value::List((0..n).map(|_| random_value(random, item.data_type(), nulls)).collect())
        }
        DataType::Struct(fields) => {
            Value::Struct(fields.iter().map(|field| random_value(random, field.data_type(), nulls)).collect())
        }
        _ => Value::Text("x".repeat(random.below(5) as usize)),
    }
}

/// An array with these values; under its nulls lies whatever chance puts there.
fn array(data_type: &DataType, values: &[Value], random: &mut Random) -> ArrayRef {
    let nulls: NullBuffer = values.iter().map(|value| *value != Value::Null).collect();
    let mut hidden = |value: &Value| {
        if *value == Value::Null { random_value(random, data_type, 0) } else { value.clone() }
    };
    let full: Vec<Value> = values.iter().map(&mut hidden).collect();
    let texts = || full.iter().map(|value| if let Value::Text(text) = value { text.as_str() } else { "" });
    match data_type {
        DataType::Null => Arc::new(NullArray::new(values.len())),
        DataType::Boolean => {
            let bits = full.iter().map(|value| *value == Value::Bool(true));
            Arc::new(BooleanArray::new(bits.collect::<Vec<_>>().into(), Some(nulls)))
        }
        DataType::Int64 => {
            let numbers = full.iter().map(|value| if let Value::Number(number) = value { *number } else { 0 });
            Arc::new(Int64Array::new(numbers.collect::<Vec<_>>().into(), Some(nulls)))
        }
        DataType::Float64 => {
            let floats =
                full.iter().map(|value| if let Value::Float(bits) = value { f64::from_bits(*bits) } else { 0. });
            Arc::new(Float64Array::new(floats.collect::<Vec<_>>().into(), Some(nulls)))
        }
        DataType::Utf8 => {
            let (offsets, bytes, _) = StringArray::from_iter_values(texts()).into_parts();
            Arc::new(StringArray::new(offsets, bytes, Some(nulls)))
        }
        DataType::LargeUtf8 => {
            let (offsets, bytes, _) = LargeStringArray::from_iter_values(texts()).into_parts();
            Arc::new(LargeStringArray::new(offsets, bytes, Some(nulls)))
        }
        DataType::List(item) => {
            let lists = full.iter().map(|value| if let Value::List(items) = value { items.as_slice() } else { &[] });
            let lists: Vec<_> = lists.collect();
            let items = array(item.data_type(), &lists.concat(), random);
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.len()));
            Arc::new(ListArray::new(item.clone(), offsets, items, Some(nulls)))
        }
        DataType::Struct(fields) => {
            let of = |n: usize| {
                let values = full
                    .iter()
                    .map(|value| if let Value::Struct(values) = value { values[n].clone() } else { Value::Null });
                values.collect::<Vec<_>>()
            };
            let columns: Vec<_> =
                fields.iter().enumerate().map(|(n, field)| array(field.data_type(), &of(n), random)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, Some(nulls)))
        }
        other => panic!("no values of type {other}"),
    }
}

fn batch(fields: &Fields, rows: &[Vec<Value>], random: &mut Random) -> RecordBatch {
    let column = |n: usize| rows.iter().map(|row| row[n].clone()).collect::<Vec<_>>();
    let columns = fields.iter().enumerate().map(|(n, field)| array(field.data_type(), &column(n), random)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns).unwrap()
}

fn id(batches: &[RecordBatch]) -> ContentId {
    let mut hasher = ContentHasher::new(&batches[0].schema());
    for batch in batches {
        hasher.update(batch).unwrap();
    }
    hasher.finish()
}

/// The batch cut at random places: often single rows, sometimes past a slice.
fn cut(batch: &RecordBatch, random: &mut Random) -> Vec<RecordBatch> {
    let most = [1, 3, 40, 700, 3000][random.below(5) as usize];
    let (mut parts, mut at) = (vec![batch.slice(0, 0)], 0);
    while at < batch.num_rows() {
        let n = (random.below(most + 1) as usize).min(batch.num_rows() - at);
        parts.push(batch.slice(at, n));
        at += n;
    }
    parts
}

#[test]
fn only_values_show() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for case in 0..150 {
        let fields = random_fields(&mut random, 3);
        let n_rows = [0, 1, 2, 17, 1023, 1024, 1025, 2500][random.below(8) as usize];
        let n_rows = if case % 4 == 0 { n_rows } else { n_rows.min(40) };
        let nulls = random.below(4);
        let rows: Vec<Vec<Value>> = (0..n_rows)
            .map(|_| fields.iter().map(|field| random_value(&mut random, field.data_type(), nulls)).collect())
            .collect();
        let one = batch(&fields, &rows, &mut random);
        let other = batch(&fields, &rows, &mut random);
        let (name, digests) = (id(std::slice::from_ref(&one)), row_digests(&one).unwrap());
        assert_eq!(name, id(&cut(&other, &mut random)), "case {case}: {fields:?}");
        assert_eq!(digests, row_digests(&other).unwrap(), "case {case}: {fields:?}");

        // One value changed: the table's name and that row's digest change, and no other digest.
        if n_rows == 0 {
            continue;
        }
        let (row, column) = (random.below(n_rows as u64) as usize, random.below(fields.len() as u64) as usize);
        let mut changed = rows.clone();
        changed[row][column] = random_value(&mut random, fields[column].data_type(), 5);
        let changed_batch = batch(&fields, &changed, &mut random);
        assert_eq!(changed == rows, id(&cut(&changed_batch, &mut random)) == name, "case {case}: {fields:?}");
        for (n, digest) in row_digests(&changed_batch).unwrap().iter().enumerate() {
            assert_eq!(*digest == digests[n], changed[n] == rows[n], "case {case}, row {n}");
        }
    }
}

#[test]
fn a_piece_without_items_leaves_no_trace() {
    let mut random = Random(1);
    let numbers = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let fields =
        Fields::from(vec![Field::new("lists", DataType::List(Arc::new(Field::new("item", numbers, true))), true)]);
    let rows = [vec![Value::List(vec![])], vec![Value::List(vec![Value::Null])]];
    let batch = batch(&fields, &rows, &mut random);
    assert_eq!(id(&[batch.slice(0, 1), batch.slice(1, 1)]), id(&[batch]));
}

fn sample() -> RecordBatch {
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("ccc"), Some("")]));
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None]),
        Some(vec![]),
        None,
        Some(vec![Some(7)]),
    ]));
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("n", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)])) as ArrayRef,
    )]);
    RecordBatch::try_from_iter_with_nullable([
        ("text", text, true),
        ("number", number, true),
        ("list", list, true),
        ("inner", Arc::new(inner) as ArrayRef, true),
    ])
    .unwrap()
}

#[test]
fn order_values_and_names_show() {
    let batch = sample();
    let swapped = [batch.slice(2, 2), batch.slice(0, 2)];
    assert_ne!(id(std::slice::from_ref(&batch)), id(&swapped));
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    fields[0] = Arc::new(Field::new("other", DataType::Utf8, true));
    let renamed = RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).unwrap();
    assert_ne!(row_digests(&batch).unwrap()[0], row_digests(&renamed).unwrap()[0]);
    assert_ne!(id(&[batch]), id(&[renamed]));
}

#[test]
fn the_encoding_is_pinned() {
    // A change of this id changes the name of every table in every store: raise the format version with it.
    assert_eq!(id(&[sample()]).to_string(), "0ccc3d4bda13da00375b054e9372b4eab3f358cfe141c0614254207ebde7de57");
}

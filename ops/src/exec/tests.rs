//! The columns that a config declares.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;

use super::*;

fn config(columns: &[(&str, &str)]) -> BTreeMap<String, String> {
    columns.iter().map(|(name, kind)| ((*name).to_string(), (*kind).to_string())).collect()
}

#[test]
fn types_have_names() {
    let schema = columns::declared(&config(&[("b", "list<list<text>>"), ("a", "int32")])).unwrap();
    let kinds: Vec<_> = schema.fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["Int32", "List(List(Utf8))"]);
    let problem = columns::declared(&config(&[("a", "txet")])).unwrap_err();
    assert_eq!((problem.at.field.as_str(), problem.hint.as_deref()), ("with.columns.a", Some("did you mean `text`?")));
}

#[test]
fn what_is_the_same_in_another_layout_is_taken() {
    let schema = columns::declared(&config(&[("n", "int8"), ("text", "text"), ("x", "float64")])).unwrap();
    let text: ArrayRef = Arc::new(LargeStringArray::from(vec!["a", "b"]));
    let numbers = |n: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![1, n])) };
    let nothing: ArrayRef = Arc::new(NullArray::new(2));
    let came =
        |n| RecordBatch::try_from_iter([("x", nothing.clone()), ("n", numbers(n)), ("text", text.clone())]).unwrap();
    let taken = columns::taken(&came(2), &schema, &[]).unwrap();
    assert_eq!(taken.column(1).data_type(), &DataType::Utf8);
    assert_eq!(taken.schema(), schema);
    let error = columns::taken(&came(300), &schema, &[]).unwrap_err().to_string();
    assert!(error.starts_with("the program gave a `n` that does not fit"), "{error}");
    let words: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let other = RecordBatch::try_from_iter([("n", words.clone()), ("text", words.clone()), ("x", words)]).unwrap();
    let error = columns::taken(&other, &schema, &[]).unwrap_err().to_string();
    assert_eq!(error, "the program gave `n` as text, `columns` says int8: change one of them");
}

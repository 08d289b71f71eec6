//! What was measured, as the tables of the ports `metrics` and `summary` have it.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

/// The numbers of a table by which two runs are told apart: of a log the last and the best (smallest) of each loss, of a summary all
/// that it has.
pub(super) fn measures(port: &str, batch: &RecordBatch) -> Vec<(String, f64)> {
    match port {
        "metrics" => {
            let both = |(name, values): (String, Vec<f64>)| {
                let best = values.iter().copied().fold(f64::INFINITY, f64::min);
                let last = values.last().copied();
                last.into_iter()
                    .flat_map(move |last| [(format!("{name}, last"), last), (format!("{name}, best"), best)])
            };
            losses(batch).into_iter().flat_map(both).collect()
        }
        "summary" => summary(batch),
        _ => Vec::new(),
    }
}

/// Every number of a table, called by its row's texts and its column: `tuned, token_f1`.
fn summary(batch: &RecordBatch) -> Vec<(String, f64)> {
    let schema = batch.schema();
    let texts: Vec<_> = batch.columns().iter().filter_map(|array| array.as_string_opt::<i32>()).collect();
    let mut found = Vec::new();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let Some(values) = numbers(array.as_ref()) else { continue };
        for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
            let names = texts.iter().filter(|text| text.is_valid(row)).map(|text| text.value(row));
            let name = names.chain([field.name().as_str()]).collect::<Vec<_>>().join(", ");
            found.push((name, values.value(row)));
        }
    }
    found
}

/// The losses of a table of metrics, one series a column (and a phase, where there is such a column).
pub fn losses(batch: &RecordBatch) -> Vec<(String, Vec<f64>)> {
    let schema = batch.schema();
    let phases = batch.column_by_name("phase").and_then(|array| array.as_string_opt::<i32>());
    let mut series: Vec<(String, Vec<f64>)> = Vec::new();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let Some(values) = numbers(array.as_ref()).filter(|_| field.name().contains("loss")) else { continue };
        for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
            let name = match phases {
                Some(phases) => format!("{}, {}", phases.value(row), field.name()),
                None => field.name().clone(),
            };
            match series.iter_mut().find(|(other, _)| *other == name) {
                Some((_, list)) => list.push(values.value(row)),
                None => series.push((name, vec![values.value(row)])),
            }
        }
    }
    series
}

fn numbers(array: &dyn Array) -> Option<arrow::array::Float64Array> {
    if !array.data_type().is_numeric() {
        return None;
    }
    Some(cast(array, &DataType::Float64).ok()?.as_primitive::<Float64Type>().clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_log_is_summed_up_and_a_summary_is_taken_as_it_is() {
        let phase: ArrayRef = Arc::new(StringArray::from(vec!["text", "pairs", "pairs"]));
        let loss: ArrayRef = Arc::new(Float64Array::from(vec![Some(3.0), None, Some(1.5)]));
        let eval: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(2.0), Some(2.5)]));
        let log = RecordBatch::try_from_iter([("phase", phase), ("loss", loss), ("eval_loss", eval)]).unwrap();
        let said: Vec<_> =
            measures("metrics", &log).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(said[..2], ["text, loss, last 3", "text, loss, best 3"]);
        assert_eq!(said[4..], ["pairs, eval_loss, last 2.5", "pairs, eval_loss, best 2"]);

        let model: ArrayRef = Arc::new(StringArray::from(vec!["base", "tuned"]));
        let questions: ArrayRef = Arc::new(Int64Array::from(vec![7, 7]));
        let f1: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.1), None]));
        let exam = RecordBatch::try_from_iter([("model", model), ("questions", questions), ("token_f1", f1)]).unwrap();
        let said = measures("summary", &exam);
        assert_eq!((said.len(), said[1].0.as_str(), said[2].1), (3, "tuned, questions", 0.1));
        assert!(measures("out", &exam).is_empty());
    }
}

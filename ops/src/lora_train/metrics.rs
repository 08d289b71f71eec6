//! The training log as a table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::Failure;
use retort_lm::train::Metric;

/// What the column of a further evaluation set is called.
pub(super) fn column(set: &str) -> String {
    format!("eval_loss_{set}")
}

/// A row a step, and one before each phase: `phase`, `step`, `epoch`, `tokens`, `loss`, `eval_loss`, `learning_rate`,
/// `grad_norm`, `note`, and a column for each further evaluation set.
pub(super) fn schema<'a>(sets: impl IntoIterator<Item = &'a String>) -> SchemaRef {
    let field = |name, kind, nullable| Field::new(name, kind, nullable);
    let mut fields = vec![
        field("phase", DataType::Utf8, false),
        field("step", DataType::Int64, false),
        field("epoch", DataType::Float64, false),
        field("tokens", DataType::Int64, false),
        field("loss", DataType::Float64, true),
        field("eval_loss", DataType::Float64, true),
        field("learning_rate", DataType::Float64, false),
        field("grad_norm", DataType::Float64, true),
        field("note", DataType::Utf8, true),
    ];
    fields.extend(sets.into_iter().map(|set| Field::new(column(set), DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

/// All rows.
pub(super) fn batch<'a>(
    metrics: &[Metric],
    sets: impl IntoIterator<Item = &'a String> + Clone,
) -> Result<RecordBatch, Failure> {
    let floats = |value: fn(&Metric) -> Option<f64>| -> ArrayRef {
        Arc::new(metrics.iter().map(value).collect::<Float64Array>())
    };
    let counts = |value: fn(&Metric) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(metrics.iter().map(|row| value(row) as i64)))
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(metrics.iter().map(|row| Some(row.phase.as_str())).collect::<StringArray>()),
        counts(|row| row.step),
        floats(|row| Some(row.epoch)),
        counts(|row| row.tokens),
        floats(|row| row.loss),
        floats(|row| row.eval_loss),
        floats(|row| Some(row.learning_rate)),
        floats(|row| row.grad_norm),
        Arc::new(metrics.iter().map(|row| row.note.as_deref()).collect::<StringArray>()),
    ];
    for set in sets.clone() {
        columns.push(Arc::new(metrics.iter().map(|row| row.loss_on(set)).collect::<Float64Array>()));
    }
    RecordBatch::try_new(schema(sets), columns).map_err(Failure::op)
}

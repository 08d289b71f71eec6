//! An adapter as a table: a row a tensor, under PEFT's names.
//!
//! | column | what |
//! |---|---|
//! | `tensor` | such as `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` |
//! | `shape` | `[rank, inputs]` or `[outputs, rank]` |
//! | `rank`, `alpha`, `dropout`, `rslora` | what the adapter was made with; the same in every row |
//! | `base_sha256` | of the weights that it was trained on; the same in every row |
//! | `data` | row by row, 32-bit floats, little-endian |

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BinaryArray, BooleanArray, Float32Array, Int64Array, ListArray, RecordBatch,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use retort_cache::{StoreError, TableWriter};
use retort_engine::Failure;
use retort_lm::config::Config;
use retort_lm::lora::{Adapter, AdapterTensor, LoraConfig, Target};
use retort_lm::peft::PREFIX;

/// An adapter that was read from a table.
#[derive(Debug)]
pub struct Stored {
    /// It.
    pub adapter: Adapter,
    /// SHA-256 of the weights that it was trained on.
    pub base_sha256: String,
}

/// The columns of the table.
pub fn schema() -> SchemaRef {
    let field = |name, kind| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        field("tensor", DataType::Utf8),
        field("shape", DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))),
        field("rank", DataType::Int64),
        field("alpha", DataType::Float32),
        field("dropout", DataType::Float32),
        field("rslora", DataType::Boolean),
        field("base_sha256", DataType::Utf8),
        field("data", DataType::Binary),
    ]))
}

/// Writes an adapter, a tensor at a time.
///
/// # Errors
/// The store's.
pub fn write(adapter: &Adapter, base_sha256: &str, out: &mut dyn TableWriter) -> Result<(), Failure> {
    let config = adapter.config();
    for tensor in adapter.tensors() {
        let shape = tensor.shape.map(|size| Some(size as i64));
        let data: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values([format!("{PREFIX}{}", tensor.name)])),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(shape)])),
            Arc::new(Int64Array::from_iter_values([config.rank as i64])),
            Arc::new(Float32Array::from_iter_values([config.alpha])),
            Arc::new(Float32Array::from_iter_values([config.dropout])),
            Arc::new(BooleanArray::from(vec![config.rslora])),
            Arc::new(StringArray::from_iter_values([base_sha256])),
            Arc::new(BinaryArray::from_iter_values([data])),
        ];
        out.write(&RecordBatch::try_new(schema(), columns).map_err(Failure::op)?)?;
    }
    Ok(())
}

/// Reads the adapter that a table holds, for a model of this shape.
///
/// # Errors
/// The table is not an adapter's, or one of another model; the store's.
pub fn read(
    batches: impl IntoIterator<Item = Result<RecordBatch, StoreError>>,
    model: &Config,
) -> Result<Stored, Failure> {
    let (mut tensors, mut about) = (Vec::new(), None);
    for batch in batches {
        let batch = batch?;
        if !is_adapter(&batch.schema()) {
            return Err(Failure::op("the table is no adapter: `lora-train` writes one on its port `adapter`"));
        }
        for row in 0..batch.num_rows() {
            tensors.push(tensor(&batch, row)?);
            about.get_or_insert_with(|| about_row(&batch, row));
        }
    }
    let Some((mut config, base_sha256)) = about else { return Err(Failure::op("the adapter has no tensors")) };
    config.targets = tensors.iter().filter_map(|tensor| Target::by_name(tensor.name.rsplit('.').nth(2)?)).collect();
    config.targets.sort_unstable();
    config.targets.dedup();
    let adapter = Adapter::from_tensors(model, &config, tensors);
    let adapter = adapter.map_err(|error| Failure::op(format!("the adapter is not one of this model: {error}")))?;
    Ok(Stored { adapter, base_sha256 })
}

/// Whether a table with these columns holds an adapter.
pub fn is_adapter(columns: &Schema) -> bool {
    let (own, columns) = (schema(), columns.fields());
    let same =
        |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && a.data_type().equals_datatype(b.data_type());
    own.fields().len() == columns.len() && own.fields().iter().zip(columns).all(same)
}

/// What a row says of the whole; targets are left out.
fn about_row(batch: &RecordBatch, row: usize) -> (LoraConfig, String) {
    let config = LoraConfig {
        rank: batch.column(2).as_primitive::<Int64Type>().value(row) as usize,
        alpha: batch.column(3).as_primitive::<Float32Type>().value(row),
        dropout: batch.column(4).as_primitive::<Float32Type>().value(row),
        rslora: batch.column(5).as_boolean().value(row),
        targets: Vec::new(),
    };
    (config, batch.column(6).as_string::<i32>().value(row).to_owned())
}

fn tensor(batch: &RecordBatch, row: usize) -> Result<AdapterTensor, Failure> {
    let name = batch.column(0).as_string::<i32>().value(row);
    let shape = batch.column(1).as_list::<i32>().value(row);
    let &[rows, columns] = shape.as_primitive::<Int64Type>().values().as_ref() else {
        return Err(Failure::op(format!("tensor `{name}` has {} dimensions, not 2", shape.len())));
    };
    let data = batch.column(7).as_binary::<i32>().value(row);
    Ok(AdapterTensor {
        name: name.strip_prefix(PREFIX).unwrap_or(name).to_owned(),
        shape: [rows as usize, columns as usize],
        values: data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    })
}

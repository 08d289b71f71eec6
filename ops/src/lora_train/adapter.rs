//! An adapter as a table: a row a tensor, under PEFT's names.
//!
//! | column | what |
//! |---|---|
//! | `tensor` | such as `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` |
//! | `shape` | `[rank, inputs]`, `[outputs, rank]`, or of DoRA's lengths `[outputs, 1]` |
//! | `rank`, `alpha` | of the layer |
//! | `dropout`, `rslora`, `dora` | what the adapter was made with; the same in every row |
//! | `base_sha256` | of the weights that it was trained on; the same in every row |
//! | `data` | row by row, 32-bit floats, little-endian |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BinaryArray, BooleanArray, Float32Array, Int64Array, ListArray, RecordBatch,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use retort_cache::{StoreError, TableWriter};
use retort_engine::Failure;
use retort_lm::config::Config;
use retort_lm::lora::{Adapter, AdapterTensor, LoraConfig};
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
        field("dora", DataType::Boolean),
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
    let places = adapter.places();
    // Two tensors a place, and then one.
    let of_tensors = places.iter().flat_map(|place| [place; 2]).chain(places);
    for (tensor, place) in adapter.tensors().iter().zip(of_tensors) {
        let shape = tensor.shape.map(|size| Some(size as i64));
        let data: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values([format!("{PREFIX}{}", tensor.name)])),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(shape)])),
            Arc::new(Int64Array::from_iter_values([place.rank as i64])),
            Arc::new(Float32Array::from_iter_values([place.alpha])),
            Arc::new(Float32Array::from_iter_values([config.dropout])),
            Arc::new(BooleanArray::from(vec![config.rslora])),
            Arc::new(BooleanArray::from(vec![config.dora])),
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
    let (mut tensors, mut ranks, mut about) = (Vec::new(), BTreeMap::new(), None);
    for batch in batches {
        let batch = batch?;
        if !is_adapter(&batch.schema()) {
            return Err(Failure::op("the table is no adapter: `lora-train` writes one on its port `adapter`"));
        }
        for row in 0..batch.num_rows() {
            let tensor = tensor(&batch, row)?;
            ranks.insert(tensor.name.clone(), of_layer(&batch, row));
            tensors.push(tensor);
            about.get_or_insert_with(|| of_whole(&batch, row));
        }
    }
    let Some((config, base_sha256)) = about else { return Err(Failure::op("the adapter has no tensors")) };
    let wrong = |error| Failure::op(format!("the adapter is not one of this model: {error}"));
    let mut places = config.places(model).map_err(wrong)?;
    places.retain_mut(|place| {
        let found = ranks.get(&format!("{}.lora_A.weight", place.path));
        found.is_some_and(|found| {
            (place.rank, place.alpha) = *found;
            true
        })
    });
    let adapter = Adapter::from_tensors(model, &config, places, tensors).map_err(wrong)?;
    Ok(Stored { adapter, base_sha256 })
}

/// Whether a table with these columns holds an adapter.
pub fn is_adapter(columns: &Schema) -> bool {
    let (own, columns) = (schema(), columns.fields());
    let same =
        |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && a.data_type().equals_datatype(b.data_type());
    own.fields().len() == columns.len() && own.fields().iter().zip(columns).all(same)
}

/// Rank and alpha of a row's layer.
fn of_layer(batch: &RecordBatch, row: usize) -> (usize, f32) {
    let rank = batch.column(2).as_primitive::<Int64Type>().value(row) as usize;
    (rank, batch.column(3).as_primitive::<Float32Type>().value(row))
}

/// What a row says of the whole. Layers, ranks and alphas the rows say one by one; those of this row stand for the whole.
fn of_whole(batch: &RecordBatch, row: usize) -> (LoraConfig, String) {
    let (rank, alpha) = of_layer(batch, row);
    let config = LoraConfig {
        rank,
        alpha,
        dropout: batch.column(4).as_primitive::<Float32Type>().value(row),
        rslora: batch.column(5).as_boolean().value(row),
        dora: batch.column(6).as_boolean().value(row),
        ..LoraConfig::default()
    };
    (config, batch.column(7).as_string::<i32>().value(row).to_owned())
}

fn tensor(batch: &RecordBatch, row: usize) -> Result<AdapterTensor, Failure> {
    let name = batch.column(0).as_string::<i32>().value(row);
    let shape = batch.column(1).as_list::<i32>().value(row);
    let &[rows, columns] = shape.as_primitive::<Int64Type>().values().as_ref() else {
        return Err(Failure::op(format!("tensor `{name}` has {} dimensions, not 2", shape.len())));
    };
    let data = batch.column(8).as_binary::<i32>().value(row);
    Ok(AdapterTensor {
        name: name.strip_prefix(PREFIX).unwrap_or(name).to_owned(),
        shape: [rows as usize, columns as usize],
        values: data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    })
}

//! The copies of a node that a matrix or a `foreach` made, as one table: the item and the matrix keys first, then what each copy has.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use retort_engine::Graph;

/// A copy: its node's name, and the values of the keys.
pub(super) struct Copy {
    pub(super) node: String,
    values: Vec<(String, String)>,
}

/// The copies of `node` or `node.output`, with that output; none where it is the name of a node, or of nothing.
pub(super) fn of(graph: &Graph, name: &str) -> (Vec<Copy>, Option<String>) {
    let found = copies(graph, name);
    match name.rsplit_once('.') {
        Some((node, output)) if found.is_empty() => (copies(graph, node), Some(output.to_string())),
        _ => (found, None),
    }
}

fn copies(graph: &Graph, base: &str) -> Vec<Copy> {
    let copy = |name: &String| {
        let keys = name.strip_prefix(base)?.strip_prefix('@')?;
        // The name of an item has no key.
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or(("item", part));
            (key.to_string(), value.to_string())
        };
        Some(Copy { node: name.clone(), values: keys.split(',').map(pair).collect() })
    };
    graph.order().iter().filter_map(|id| copy(&graph.node(*id).name)).collect()
}

/// The columns of the table: those of the keys, then the copies' own.
pub(super) fn schema(copies: &[Copy], own: &Schema) -> SchemaRef {
    let keys = keys(copies, own).into_iter().enumerate();
    let keys = keys.map(|(i, name)| Field::new(name, column(copies, i, &[]).data_type().clone(), false));
    let own = own.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(keys.chain(own).collect::<Vec<_>>()))
}

/// Rows of one copy under that schema.
pub(super) fn rows(copies: &[Copy], copy: usize, batch: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let of_copy = vec![copy; batch.num_rows()];
    let keys = (0..copies[copy].values.len()).map(|key| column(copies, key, &of_copy));
    let columns = keys.chain(batch.columns().iter().cloned()).collect();
    RecordBatch::try_new(schema.clone(), columns).expect("the schema is made of these columns")
}

/// The names of the key's columns; a name that the table has itself is told apart.
fn keys(copies: &[Copy], own: &Schema) -> Vec<String> {
    let names = copies.first().into_iter().flat_map(|copy| &copy.values).map(|(key, _)| key);
    names.map(|name| if own.index_of(name).is_ok() { format!("matrix.{name}") } else { name.clone() }).collect()
}

/// A key's values for rows of these copies: numbers, where all of its values are.
fn column(copies: &[Copy], key: usize, rows: &[usize]) -> ArrayRef {
    let value = |copy: &Copy| copy.values[key].1.clone();
    if copies.iter().all(|copy| value(copy).parse::<i64>().is_ok()) {
        return Arc::new(rows.iter().map(|row| value(&copies[*row]).parse().ok()).collect::<Int64Array>());
    }
    if copies.iter().all(|copy| value(copy).parse::<f64>().is_ok()) {
        return Arc::new(rows.iter().map(|row| value(&copies[*row]).parse().ok()).collect::<Float64Array>());
    }
    Arc::new(rows.iter().map(|row| Some(value(&copies[*row]))).collect::<StringArray>())
}

//! Stored tables as DataFusion reads them: one partition, in order, in pieces of one size, a column at a time.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use retort_cache::{Batches, StoreError};
use retort_engine::Input;

use super::BATCH;

/// The first error of the store while rows were read: DataFusion would make a text of it, and a lost table could not be made again.
pub(super) type FirstError = Arc<Mutex<Option<StoreError>>>;

/// A table to plan with: columns and no rows.
pub(super) fn empty(schema: SchemaRef) -> Result<Arc<dyn TableProvider>> {
    table(Rows { schema, input: None, failed: FirstError::default() })
}

/// A table to read.
pub(super) fn full(input: Input, failed: FirstError) -> Result<Arc<dyn TableProvider>> {
    table(Rows { schema: input.schema.clone(), input: Some(input), failed })
}

fn table(rows: Rows) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(StreamingTable::try_new(rows.schema.clone(), vec![Arc::new(rows)])?))
}

#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    input: Option<Input>,
    failed: FirstError,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let failed = self.failed.clone();
        let fail = move |error: StoreError| {
            let told = DataFusionError::Execution(error.to_string());
            failed.lock().expect("no thread panics while it holds the error").get_or_insert(error);
            told
        };
        let batches: Box<dyn Iterator<Item = _> + Send> = match self.input.as_ref().map(Input::batches) {
            None => Box::new(std::iter::empty()),
            Some(Ok(batches)) => Box::new(pieces(self.schema.clone(), batches)),
            Some(Err(error)) => Box::new(std::iter::once(Err(error))),
        };
        let stream = futures::stream::iter(batches.map(move |batch| batch.map_err(&fail)));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// The rows in pieces of `BATCH`, whatever batches they come in; the last may be smaller.
fn pieces(
    schema: SchemaRef,
    mut batches: Batches,
) -> impl Iterator<Item = std::result::Result<RecordBatch, StoreError>> {
    let mut rest = RecordBatch::new_empty(schema.clone());
    std::iter::from_fn(move || {
        let (mut parts, mut rows) = (Vec::new(), 0);
        while rows < BATCH {
            if rest.num_rows() == 0 {
                match batches.next() {
                    Some(Ok(batch)) => rest = batch,
                    Some(Err(error)) => return Some(Err(error)),
                    None => break,
                }
            }
            let n = rest.num_rows().min(BATCH - rows);
            parts.push(rest.slice(0, n));
            rest = rest.slice(n, rest.num_rows() - n);
            rows += n;
        }
        (rows > 0).then(|| concat_batches(&schema, &parts).map_err(StoreError::table("join batches of", "input")))
    })
}

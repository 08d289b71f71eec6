//! Rows that an answer kept: some of a batch that many answers share.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// Neighbouring rows of a batch. No array is sliced before they are wanted, and neighbours are sliced together: a slice for each answer
/// costs more than all else of a look-up.
#[derive(Clone, Debug)]
pub struct KeptRows {
    batch: Arc<RecordBatch>,
    from: usize,
    n: usize,
}

impl KeptRows {
    /// `n` rows of a batch from row `from` on, which it must have.
    pub(crate) fn of(batch: &Arc<RecordBatch>, from: usize, n: usize) -> Self {
        assert!(from + n <= batch.num_rows(), "rows {from} to {} of {}", from + n, batch.num_rows());
        KeptRows { batch: batch.clone(), from, n }
    }

    /// How many there are.
    pub fn num_rows(&self) -> usize {
        self.n
    }

    /// The rows themselves.
    pub fn batch(&self) -> RecordBatch {
        self.batch.slice(self.from, self.n)
    }

    /// All of these rows in a batch of its own.
    pub fn join<'a>(
        schema: &SchemaRef,
        all: impl IntoIterator<Item = &'a KeptRows>,
    ) -> Result<RecordBatch, ArrowError> {
        let mut parts: Vec<KeptRows> = Vec::new();
        for rows in all {
            match parts.last_mut() {
                Some(last) if Arc::ptr_eq(&last.batch, &rows.batch) && last.from + last.n == rows.from => {
                    last.n += rows.n;
                }
                _ => parts.push(rows.clone()),
            }
        }
        // Rows of few batches, here and there: they are picked out. Without a column there is nothing to be picked.
        let mut numbers: HashMap<*const RecordBatch, usize> = HashMap::new();
        let mut batches: Vec<&RecordBatch> = Vec::new();
        for part in &parts {
            numbers.entry(Arc::as_ptr(&part.batch)).or_insert_with(|| {
                batches.push(&part.batch);
                batches.len() - 1
            });
        }
        if !parts.is_empty() && batches.len() * 4 <= parts.len() && !schema.fields().is_empty() {
            let mut rows = Vec::new();
            for part in &parts {
                let number = numbers[&Arc::as_ptr(&part.batch)];
                rows.extend((part.from..part.from + part.n).map(|row| (number, row)));
            }
            return interleave_record_batch(&batches, &rows);
        }
        let parts: Vec<RecordBatch> = parts.iter().map(KeptRows::batch).collect();
        concat_batches(schema, &parts)
    }
}

impl From<RecordBatch> for KeptRows {
    fn from(batch: RecordBatch) -> Self {
        KeptRows { from: 0, n: batch.num_rows(), batch: Arc::new(batch) }
    }
}

impl PartialEq for KeptRows {
    fn eq(&self, other: &Self) -> bool {
        self.batch() == other.batch()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatchOptions};
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn joined_rows_are_those_of_the_answers_in_their_order() {
        let numbers = |numbers: &[i64]| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.iter().copied()));
            RecordBatch::try_from_iter([("n", numbers)]).unwrap()
        };
        let (one, other) = (Arc::new(numbers(&[0, 1, 2, 3, 4, 5])), Arc::new(numbers(&[10, 11, 12])));
        let of = |batch, from, n| KeptRows::of(batch, from, n);
        // Neighbours, none at all, a gap, the same once more, one of another batch that would be a neighbour.
        let all = [
            of(&one, 0, 1),
            of(&one, 1, 2),
            of(&one, 3, 0),
            of(&one, 4, 1),
            of(&one, 4, 1),
            of(&other, 0, 2),
            of(&one, 5, 1),
        ];
        let joined = KeptRows::join(&one.schema(), &all).unwrap();
        assert_eq!(joined, numbers(&[0, 1, 2, 4, 4, 10, 11, 5]));
        assert_eq!(KeptRows::join(&one.schema(), &[]).unwrap().num_rows(), 0);
        let backwards: Vec<_> = (0..6).rev().map(|row| of(&one, row, 1)).collect();
        assert_eq!(KeptRows::join(&one.schema(), &backwards).unwrap(), numbers(&[5, 4, 3, 2, 1, 0]));
        // An operator that adds no column: its rows are counted.
        let bare = RecordBatchOptions::new().with_row_count(Some(6));
        let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &bare).unwrap();
        let bare = Arc::new(bare);
        let backwards: Vec<_> = (0..6).rev().map(|row| of(&bare, row, 1)).collect();
        assert_eq!(KeptRows::join(&bare.schema(), &backwards).unwrap().num_rows(), 6);
        assert_eq!(all[1], KeptRows::from(numbers(&[1, 2])));
    }
}

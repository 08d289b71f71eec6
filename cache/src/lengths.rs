//! How long rows are, roughly: told by the offsets of their texts and lists, without a look at the values.

use arrow::array::{Array, AsArray, RecordBatch};

/// The lengths of a batch's rows in bytes: a function of their values, whatever batch they come in.
///
/// A text or bytes have their own, every item of a list and every other value is taken for 64.
pub struct Lengths<'a> {
    bytes: Vec<&'a [i32]>,
    lists: Vec<&'a [i32]>,
    rows: usize,
}

/// What an item of a list is taken for, and all values of a row that have no length.
const ITEM: usize = 64;

impl<'a> Lengths<'a> {
    /// Of a batch.
    pub fn of(batch: &'a RecordBatch) -> Self {
        let (mut bytes, mut lists) = (Vec::new(), Vec::new());
        for column in batch.columns() {
            if let Some(texts) = column.as_string_opt::<i32>() {
                bytes.push(&texts.value_offsets()[..=texts.len()]);
            } else if let Some(values) = column.as_binary_opt::<i32>() {
                bytes.push(&values.value_offsets()[..=values.len()]);
            } else if let Some(list) = column.as_list_opt::<i32>() {
                lists.push(&list.value_offsets()[..=list.len()]);
            }
        }
        Lengths { bytes, lists, rows: batch.num_rows() }
    }

    /// Of one row.
    pub fn row(&self, row: usize) -> usize {
        self.between(row, row + 1)
    }

    /// Of all rows together.
    pub fn all(&self) -> usize {
        self.between(0, self.rows)
    }

    fn between(&self, from: usize, to: usize) -> usize {
        let sum = |columns: &[&[i32]]| columns.iter().map(|ends| (ends[to] - ends[from]) as usize).sum::<usize>();
        sum(&self.bytes) + ITEM * (to - from + sum(&self.lists))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Int32Array, ListArray, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn slices_are_as_long_as_their_rows() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("ä"), None, Some("long")]));
        let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"", b"12", b"123"]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let items = [Some(vec![Some(1), None]), None, Some(vec![])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(items));
        let columns = [("texts", texts), ("bytes", bytes), ("numbers", numbers), ("lists", lists)];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let lengths = Lengths::of(&batch);
        assert_eq!([0, 1, 2].map(|row| lengths.row(row)), [2 + 64 * 3, 2 + 64, 7 + 64]);
        assert_eq!(Lengths::of(&batch.slice(1, 2)).all(), 2 + 7 + 2 * 64);
        assert_eq!(Lengths::of(&batch.slice(3, 0)).all(), 0);
    }
}

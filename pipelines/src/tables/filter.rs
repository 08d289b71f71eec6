//! Which rows are shown: `column=value`, `column!=value`, `column~text`, `column<number`, `column>=number`.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use retort_engine::nearest;

use super::{full, is_number};

/// A condition on one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    column: String,
    test: Test,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Is,
    IsNot,
    Contains,
    Below,
    Above,
    AtMost,
    AtLeast,
}

/// Longer signs first, so that `<=` is not read as `<`.
const SIGNS: [(&str, Test); 7] = [
    ("!=", Test::IsNot),
    ("<=", Test::AtMost),
    (">=", Test::AtLeast),
    ("=", Test::Is),
    ("~", Test::Contains),
    ("<", Test::Below),
    (">", Test::Above),
];

/// Why a condition makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It has none of the signs.
    #[error("`{0}` is no condition")]
    Sign(String),
    /// It compares with what is no number.
    #[error("`{0}` is not a number")]
    Number(String),
    /// The table has no such column.
    #[error("no column `{column}`")]
    Column {
        /// The column.
        column: String,
        /// One that may be meant.
        nearest: Option<String>,
    },
}

impl Filter {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let place = |(sign, test): &(&str, Test)| text.find(sign).map(|at| (at, sign.len(), *test));
        // The leftmost sign counts; of two at the same place, the longer.
        let found = SIGNS.iter().filter_map(place).min_by_key(|(at, length, _)| (*at, usize::MAX - length));
        let Some((at, length, test)) = found.filter(|(at, ..)| *at > 0) else {
            return Err(FilterError::Sign(text.into()));
        };
        let (column, value) = (text[..at].trim(), text[at + length..].trim());
        let compares = matches!(test, Test::Below | Test::Above | Test::AtMost | Test::AtLeast);
        if compares && value.parse::<f64>().is_err() {
            return Err(FilterError::Number(value.into()));
        }
        Ok(Filter { column: column.into(), test, value: value.into() })
    }

    /// Fails where the table has no such column.
    pub fn check(&self, schema: &Schema) -> Result<(), FilterError> {
        let mut names = schema.fields().iter().map(|field| field.name().as_str());
        if names.any(|name| name == self.column) {
            return Ok(());
        }
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let nearest = nearest(&self.column, names).map(Into::into);
        Err(FilterError::Column { column: self.column.clone(), nearest })
    }

    /// The rows that meet the condition; a missing value meets `!=` only, and `=` with nothing behind it.
    pub fn apply(&self, batch: &RecordBatch) -> RecordBatch {
        filter_record_batch(batch, &self.mask(batch)).expect("one bit a row")
    }

    /// Which rows meet the condition.
    pub fn mask(&self, batch: &RecordBatch) -> BooleanArray {
        let array = batch.column_by_name(&self.column).expect("the column was checked");
        let is_number = is_number(array.data_type());
        (0..batch.num_rows()).map(|row| Some(self.meets(&full(array, row), is_number))).collect()
    }

    fn meets(&self, cell: &str, is_number: bool) -> bool {
        let compare = |test: fn(&f64, &f64) -> bool| match (cell.parse(), self.value.parse()) {
            (Ok(cell), Ok(value)) => test(&cell, &value),
            _ => false,
        };
        // Of a number `1` is `1.0`; of a text it is not.
        let is = cell == self.value || (is_number && compare(f64::eq));
        match self.test {
            Test::Is => is,
            Test::IsNot => !is,
            Test::Contains => cell.to_lowercase().contains(&self.value.to_lowercase()),
            Test::Below => compare(f64::lt),
            Test::Above => compare(f64::gt),
            Test::AtMost => compare(f64::le),
            Test::AtLeast => compare(f64::ge),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn rows(condition: &str) -> usize {
        let path: ArrayRef = Arc::new(StringArray::from(vec!["a.md", "NetInfo.md", "x=y"]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![9, 10, 11]));
        let batch = RecordBatch::try_from_iter([("path", path), ("n", n)]).unwrap();
        let filter = Filter::parse(condition).unwrap();
        filter.check(&batch.schema()).unwrap();
        filter.apply(&batch).num_rows()
    }

    #[test]
    fn conditions_choose_rows() {
        let shown = ["path=a.md", "path!=a.md", "path~netinfo", "n>9", "n>=9", "n < 10", "n<=10", "path=x=y"];
        assert_eq!(shown.map(rows), [1, 2, 1, 2, 3, 1, 2, 1]);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert_eq!(Filter::parse("path").unwrap_err().to_string(), "`path` is no condition");
        assert_eq!(Filter::parse("n>many").unwrap_err().to_string(), "`many` is not a number");
        let schema = Schema::new(vec![arrow::datatypes::Field::new("path", arrow::datatypes::DataType::Utf8, true)]);
        assert_eq!(Filter::parse("pth=a").unwrap().check(&schema).unwrap_err().to_string(), "no column `pth`");
    }
}

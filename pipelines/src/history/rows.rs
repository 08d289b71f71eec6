//! How two tables differ, row by row.
//!
//! Rows are matched by the columns that name them (`doc_id`, `chunk_id`, `question` …) where both tables have some, or else by all
//! that they hold. Of the rows 48 bytes each are in memory, and the few that are shown.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use retort_cache::{StoreError, Table, row_digests};
use serde::Serialize;

use crate::tables::full;

/// Columns that name a row together, the first list of which both tables have one.
const NAMES: [&[&str]; 4] =
    [&["doc_id", "chunk_id", "question", "sample_index"], &["path"], &["model"], &["phase", "step"]];

/// How two tables differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RowsDiff {
    /// The columns by which rows were matched; none where they were by all.
    pub matched_by: Vec<String>,
    /// Columns that only the new table has. Rows are compared without them.
    pub columns_added: Vec<String>,
    /// Columns that only the old table has.
    pub columns_removed: Vec<String>,
    /// Rows that both have.
    pub same: u64,
    /// Rows of the same name that hold something else.
    pub changed: u64,
    /// Rows that only the new table has.
    pub added: u64,
    /// Rows that only the old table has.
    pub removed: u64,
    /// The first of the rows that differ.
    pub shown: Vec<RowDiff>,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowDiff {
    /// Its place in the old table.
    pub old: Option<u64>,
    /// Its place in the new one.
    pub new: Option<u64>,
    /// What names it.
    pub name: Vec<(String, String)>,
    /// What differs: a column, its old and its new value.
    pub cells: Vec<Cell>,
}

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Its column.
    pub column: String,
    /// The old value, in full.
    pub old: Option<String>,
    /// The new value.
    pub new: Option<String>,
}

/// A row's name and content, shortened to what never meets by chance, and its place.
type Mark = ([u8; 16], [u8; 16], u64);

/// Compares two tables; of the rows that differ, `show` of each kind are given.
pub fn compare(old: &Table, new: &Table, show: usize) -> Result<RowsDiff, StoreError> {
    let common: Vec<&str> = (old.schema.fields().iter())
        .filter(|field| {
            new.schema.field_with_name(field.name()).is_ok_and(|other| other.data_type() == field.data_type())
        })
        .map(|field| field.name().as_str())
        .collect();
    let names =
        NAMES.iter().map(|names| names.iter().copied().filter(|name| common.contains(name)).collect::<Vec<_>>());
    let names = names.into_iter().find(|names| !names.is_empty()).unwrap_or_default();
    let only = |one: &Schema| -> Vec<String> {
        let fields = one.fields().iter().map(|field| field.name());
        fields.filter(|name| !common.contains(&name.as_str())).cloned().collect()
    };
    let mut diff = RowsDiff {
        matched_by: names.iter().map(ToString::to_string).collect(),
        columns_added: only(&new.schema),
        columns_removed: only(&old.schema),
        ..RowsDiff::default()
    };
    let mut pairs = merge(&marks(old, &names, &common)?, &marks(new, &names, &common)?, &mut diff);
    // By their place in the new table, then those that are gone.
    pairs.sort_unstable_by_key(|(old, new)| (new.is_none(), *new, *old));
    let kind = |(old, new): &(Option<u64>, Option<u64>)| (old.is_some(), new.is_some());
    let mut taken = BTreeMap::new();
    pairs.retain(|pair| {
        let n: &mut usize = taken.entry(kind(pair)).or_default();
        *n += 1;
        *n <= show
    });
    let old_rows = pick(old, pairs.iter().filter_map(|(old, _)| *old))?;
    let new_rows = pick(new, pairs.iter().filter_map(|(_, new)| *new))?;
    let row = |(old, new): (Option<u64>, Option<u64>)| {
        let sides = (old.and_then(|old| old_rows.get(&old)), new.and_then(|new| new_rows.get(&new)));
        RowDiff { old, new, name: name(&names, sides), cells: cells(&common, &names, sides) }
    };
    diff.shown = pairs.into_iter().map(row).collect();
    Ok(diff)
}

fn marks(table: &Table, names: &[&str], common: &[&str]) -> Result<Vec<Mark>, StoreError> {
    let short = |digest: &retort_cache::Digest| digest.as_bytes()[..16].try_into().expect("a digest is longer");
    let mut marks = Vec::with_capacity(table.rows as usize);
    for batch in table.batches()? {
        let batch = batch?;
        let rows = row_digests(&columns(&batch, common))?;
        let keys = if names.is_empty() { rows.clone() } else { row_digests(&columns(&batch, names))? };
        for (key, row) in keys.iter().zip(&rows) {
            marks.push((short(key), short(row), marks.len() as u64));
        }
    }
    marks.sort_unstable();
    Ok(marks)
}

/// Some columns under names and types that do not depend on whether a value may be missing.
fn columns(batch: &RecordBatch, names: &[&str]) -> RecordBatch {
    let columns = names.iter().map(|name| (*name, batch.column_by_name(name).expect("both have it").clone(), true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one batch")
}

/// Walks two lists in the order of their names. Rows of one name are matched with equal ones first, then in order.
fn merge(old: &[Mark], new: &[Mark], diff: &mut RowsDiff) -> Vec<(Option<u64>, Option<u64>)> {
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        let key = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) => a.0.min(b.0),
            (Some(one), None) | (None, Some(one)) => one.0,
            (None, None) => break,
        };
        let a = &old[i..i + old[i..].iter().take_while(|mark| mark.0 == key).count()];
        let b = &new[j..j + new[j..].iter().take_while(|mark| mark.0 == key).count()];
        (i, j) = (i + a.len(), j + b.len());
        let (gone, come) = unequal(a, b);
        diff.same += (a.len() - gone.len()) as u64;
        let both = gone.len().min(come.len());
        diff.changed += both as u64;
        diff.removed += (gone.len() - both) as u64;
        diff.added += (come.len() - both) as u64;
        pairs.extend((0..gone.len().max(come.len())).map(|at| (gone.get(at).copied(), come.get(at).copied())));
    }
    pairs
}

/// The places of rows that have no equal on the other side, of rows of one name in the order of their contents.
fn unequal(a: &[Mark], b: &[Mark]) -> (Vec<u64>, Vec<u64>) {
    let (mut i, mut j, mut gone, mut come) = (0, 0, Vec::new(), Vec::new());
    while i < a.len() || j < b.len() {
        match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) if x.1 == y.1 => (i, j) = (i + 1, j + 1),
            (Some(x), y) if y.is_none_or(|y| x.1 < y.1) => {
                gone.push(x.2);
                i += 1;
            }
            (_, Some(y)) => {
                come.push(y.2);
                j += 1;
            }
            _ => break,
        }
    }
    gone.sort_unstable();
    come.sort_unstable();
    (gone, come)
}

fn pick(table: &Table, rows: impl Iterator<Item = u64>) -> Result<BTreeMap<u64, RecordBatch>, StoreError> {
    let mut wanted: Vec<u64> = rows.collect();
    wanted.sort_unstable();
    let (mut picked, mut before) = (BTreeMap::new(), 0);
    let mut wanted = wanted.into_iter().peekable();
    if wanted.peek().is_none() {
        return Ok(picked);
    }
    for batch in table.batches()? {
        let batch = batch?;
        let end = before + batch.num_rows() as u64;
        while let Some(row) = wanted.next_if(|row| *row < end) {
            picked.insert(row, batch.slice((row - before) as usize, 1));
        }
        before = end;
    }
    Ok(picked)
}

type Sides<'a> = (Option<&'a RecordBatch>, Option<&'a RecordBatch>);

fn name(names: &[&str], sides: Sides<'_>) -> Vec<(String, String)> {
    let Some(row) = sides.1.or(sides.0) else { return Vec::new() };
    // A document's id stands for its path, which says more.
    let has_path = row.column_by_name("path").is_some();
    let says = names.iter().map(|name| if *name == "doc_id" && has_path { "path" } else { *name });
    says.map(|name| (name.to_string(), value(row, name).unwrap_or_default())).collect()
}

/// The values that differ; all but the name, where a row is on one side only.
fn cells(common: &[&str], names: &[&str], (old, new): Sides<'_>) -> Vec<Cell> {
    let cell = |column: &&str| {
        let (old, new) = (old.and_then(|row| value(row, column)), new.and_then(|row| value(row, column)));
        (old != new).then(|| Cell { column: (*column).to_string(), old, new })
    };
    // The path is said with the name.
    let said = |column: &&&str| names.contains(column) || **column == "path" && names.contains(&"doc_id");
    common.iter().filter(|column| !said(column)).filter_map(cell).collect()
}

fn value(row: &RecordBatch, column: &str) -> Option<String> {
    let array: &ArrayRef = row.column_by_name(column)?;
    (!array.is_null(0)).then(|| full(array, 0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, StringArray};
    use retort_cache::{Memory, Store};

    use super::*;

    fn table(columns: &[(&str, &[&str])]) -> Table {
        let column = |(name, values): &(&str, &[&str])| -> (String, ArrayRef) {
            (name.to_string(), Arc::new(StringArray::from(values.to_vec())))
        };
        let batch = RecordBatch::try_from_iter(columns.iter().map(column)).unwrap();
        let mut writer = Memory::default().writer(batch.schema()).unwrap();
        // Two batches, so that places are counted across them.
        writer.write(&batch.slice(0, 1)).unwrap();
        writer.write(&batch.slice(1, batch.num_rows() - 1)).unwrap();
        writer.finish().unwrap()
    }

    fn counts(diff: &RowsDiff) -> [u64; 4] {
        [diff.same, diff.changed, diff.added, diff.removed]
    }

    #[test]
    fn rows_are_matched_by_what_names_them() {
        let old = table(&[("doc_id", &["a", "b", "c", "d"]), ("text", &["1", "2", "3", "4"])]);
        let new = table(&[("doc_id", &["e", "d", "c", "b"]), ("text", &["9", "4", "0", "2"])]);
        let diff = compare(&old, &new, 3).unwrap();
        assert_eq!((counts(&diff), diff.matched_by.as_slice()), ([2, 1, 1, 1], &["doc_id".to_string()][..]));
        let changed = &diff.shown[1];
        assert_eq!((changed.old, changed.new, changed.name[0].1.as_str()), (Some(2), Some(2), "c"));
        let cell = Cell { column: "text".into(), old: Some("3".into()), new: Some("0".into()) };
        assert_eq!(changed.cells, [cell]);
        assert_eq!((diff.shown[0].new, diff.shown[2].old, diff.shown[2].new), (Some(0), Some(0), None));
    }

    #[test]
    fn what_has_no_name_is_matched_as_a_whole() {
        let old = table(&[("text", &["x", "y", "y", "z"])]);
        let new = table(&[("text", &["y", "x", "w"])]);
        let diff = compare(&old, &new, 1).unwrap();
        assert_eq!((counts(&diff), diff.matched_by.len(), diff.shown.len()), ([2, 0, 1, 2], 0, 2));
    }

    #[test]
    fn equal_rows_of_one_name_meet_first() {
        let old = table(&[("chunk_id", &["c", "c", "c"]), ("text", &["1", "2", "3"])]);
        let new = table(&[("chunk_id", &["c", "c", "c"]), ("text", &["3", "1", "7"])]);
        let diff = compare(&old, &new, 9).unwrap();
        assert_eq!(counts(&diff), [2, 1, 0, 0]);
        assert_eq!((diff.shown[0].old, diff.shown[0].new), (Some(1), Some(2)));
    }

    #[test]
    fn columns_of_one_side_are_named_and_not_compared() {
        let old = table(&[("doc_id", &["a", "b"]), ("text", &["1", "2"]), ("page", &["7", "8"])]);
        let new = table(&[("doc_id", &["a", "b"]), ("text", &["1", "3"]), ("n", &["5", "5"])]);
        let diff = compare(&old, &new, 9).unwrap();
        assert_eq!(
            (counts(&diff), &diff.columns_added[0], &diff.columns_removed[0]),
            ([1, 1, 0, 0], &"n".into(), &"page".into())
        );
        assert!(old.read().unwrap().column(0).is_valid(0));
    }
}

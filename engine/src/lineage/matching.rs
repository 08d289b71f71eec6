//! Matches rows of a table operator's output with rows of its input, by the values of columns that both have.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use retort_cache::{Batches, Digest, StoreError, Table, row_digests};

use super::Lineage;
use crate::Input;

/// Which columns of an output stand for which of an input.
pub(super) struct Matching {
    out: Vec<usize>,
    input: Vec<usize>,
    /// Whether a row stands for one row: the one of equal ones that has its place among them.
    one: bool,
}

impl Matching {
    /// What an operator declares, on the tables that there are; `None` where that is nothing.
    pub(super) fn of(lineage: &Lineage, out: &Schema, input: &Schema) -> Option<Self> {
        let pairs: Vec<_> = match lineage {
            Lineage::Whole => return None,
            Lineage::Passed => out.fields().iter().map(|field| (field.name(), field.name())).collect(),
            Lineage::Columns(pairs) => pairs.iter().map(|(out, input)| (out, input)).collect(),
        };
        let mut matching = Matching { out: Vec::new(), input: Vec::new(), one: *lineage == Lineage::Passed };
        for (of_out, of_input) in pairs {
            let (Ok(at), Ok(to)) = (out.index_of(of_out), input.index_of(of_input)) else { continue };
            if out.field(at).data_type().equals_datatype(input.field(to).data_type()) {
                matching.out.push(at);
                matching.input.push(to);
            }
        }
        (!matching.out.is_empty()).then_some(matching)
    }

    /// The input's rows that the output's row `row` stands for.
    pub(super) fn back(&self, out: &Table, row: u64, input: &Input) -> Result<Vec<u64>, StoreError> {
        let Some(wanted) = nth(out.batches()?, &self.out, row)? else { return Ok(Vec::new()) };
        let mut place = 0;
        each(out.batches()?, &self.out, &mut |at, digest| {
            place += u64::from(digest == wanted && at < row);
            at < row
        })?;
        let (mut rows, mut equal) = (Vec::new(), 0);
        each(input.batches()?, &self.input, &mut |at, digest| {
            if digest == wanted {
                if !self.one || equal == place {
                    rows.push(at);
                }
                equal += 1;
            }
            !self.one || rows.is_empty()
        })?;
        Ok(rows)
    }

    /// The output's rows that stand for some of the input's: pairs of an input's row and an output's.
    pub(super) fn forth(
        &self,
        input: &Input,
        rows: &BTreeSet<u64>,
        out: &Table,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        // Values first, then the places among equal ones: two passes, and no more in memory than was asked for.
        let (mut values, last) = (HashMap::new(), rows.iter().next_back().copied());
        each(input.batches()?, &self.input, &mut |at, digest| {
            if rows.contains(&at) {
                values.entry(digest).or_insert_with(Vec::new);
            }
            Some(at) < last
        })?;
        let mut seen: HashMap<Digest, u64> = HashMap::new();
        each(input.batches()?, &self.input, &mut |at, digest| {
            if let Some(owners) = values.get_mut(&digest) {
                let place = seen.entry(digest).or_default();
                if rows.contains(&at) {
                    owners.push((at, *place));
                }
                *place += 1;
            }
            Some(at) < last
        })?;
        let mut seen: HashMap<Digest, u64> = HashMap::new();
        let mut pairs = Vec::new();
        each(out.batches()?, &self.out, &mut |at, digest| {
            if let Some(owners) = values.get(&digest) {
                let place = seen.entry(digest).or_default();
                let mine = owners.iter().filter(|(_, of)| !self.one || of == place);
                pairs.extend(mine.map(|(row, _)| (*row, at)));
                *place += 1;
            }
            true
        })?;
        Ok(pairs)
    }
}

/// Hands out the digest of every row, until `go_on` says no.
fn each(batches: Batches, columns: &[usize], go_on: &mut dyn FnMut(u64, Digest) -> bool) -> Result<(), StoreError> {
    let mut at = 0;
    for batch in batches {
        for digest in row_digests(&plain(&batch?, columns)?)? {
            if !go_on(at, digest) {
                return Ok(());
            }
            at += 1;
        }
    }
    Ok(())
}

fn nth(batches: Batches, columns: &[usize], row: u64) -> Result<Option<Digest>, StoreError> {
    let mut found = None;
    each(batches, columns, &mut |at, digest| {
        if at == row {
            found = Some(digest);
        }
        at < row
    })?;
    Ok(found)
}

/// Some columns, named by their places and all of them nullable, so that equal values have equal digests.
fn plain(batch: &RecordBatch, columns: &[usize]) -> Result<RecordBatch, StoreError> {
    let fields = columns.iter().enumerate().map(|(at, column)| {
        let field = Field::clone(batch.schema().field(*column));
        field.with_name(at.to_string()).with_nullable(true)
    });
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns.iter().map(|column| batch.column(*column).clone()).collect();
    RecordBatch::try_new(schema, columns).map_err(StoreError::table("match rows of", "input"))
}

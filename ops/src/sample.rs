//! `sample`: some of a table's rows, chosen by what stands in them.

use std::collections::BTreeSet;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use retort_cache::TableWriter;
use retort_engine::{Cx, Define, Env, Failure, Input, Inputs, Lineage, Operator, Problem, TableOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stable::{self, ColumnNames, Place};

/// Keeps a share or a number of rows, chosen by a stable hash: the same rows whatever stands around them, in the input's order.
///
/// With `share` every row decides for itself, so adding rows moves no other, and a larger share holds all rows of a smaller one. It keeps about that
/// share, and at least one row where there are any. With `rows` the rows with the smallest hashes are kept: more rows keep those before, and
/// a row that is added can put one out.
///
/// ```yaml
/// # One chunk in a hundred goes to another model, which asks the questions of the exam.
/// exam_chunks:
///   op: sample
///   from: chunks
///   with: {share: 0.01, seed: 1}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The share of rows to keep, above 0, up to 1. Either this or `rows`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: Option<f64>,
    /// The number of rows to keep; all where there are fewer. Either this or `share`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// The columns that are hashed: rows that are alike in them are chosen together (`doc_id`: whole documents), only `rows` may cut the last of them short.
    /// Without it all columns are hashed.
    #[serde(default)]
    pub by: Option<ColumnNames>,
    /// Another seed chooses other rows.
    #[serde(default)]
    pub seed: u64,
}

impl Define for Sample {
    const NAME: &'static str = "sample";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        let size = match (self.share, self.rows) {
            (Some(share), None) if share > 0.0 && share <= 1.0 => Size::Share(share),
            (Some(share), None) => {
                return Err(Problem::at_field("share", format!("`{share}` is no share: it lies above 0 and up to 1"))
                    .hint("say `rows` for a number of rows"));
            }
            (None, Some(0)) => return Err(Problem::at_field("rows", "a sample has at least one row")),
            (None, Some(rows)) => Size::Rows(rows),
            (Some(_), Some(_)) => return Err(Problem::at_field("rows", "`share` and `rows` exclude each other")),
            (None, None) => {
                return Err(Problem::at_field("", "`sample` needs a `share` or a number of `rows`")
                    .hint("`share: 0.01` keeps one row in a hundred"));
            }
        };
        Ok(Operator::Table(Box::new(Sampler { size, by: self.by, seed: self.seed })))
    }
}

enum Size {
    Share(f64),
    Rows(u64),
}

struct Sampler {
    size: Size,
    by: Option<ColumnNames>,
    seed: u64,
}

impl Sampler {
    fn indices(&self, schema: &SchemaRef) -> Result<Vec<usize>, Problem> {
        match &self.by {
            Some(by) if by.0.is_empty() => {
                Err(Problem::at_field("by", "names no column").hint("leave it out to hash all"))
            }
            Some(by) => by.indices("by", schema),
            None => Ok((0..schema.fields().len()).collect()),
        }
    }

    fn places(&self, input: &Input) -> Result<Vec<Place>, Failure> {
        let indices = self.indices(&input.schema).map_err(|problem| Failure::op(problem.message))?;
        let mut places = Vec::with_capacity(input.rows() as usize);
        for batch in input.batches()? {
            let keys = stable::keys(&batch?, &indices)?;
            places.extend(keys.into_iter().map(|key| Place::of("retort sample 1", self.seed, key)));
        }
        Ok(places)
    }
}

/// Which rows are kept.
fn choose(size: &Size, places: &[Place]) -> Vec<bool> {
    match *size {
        Size::Share(share) => {
            let first = places.iter().min();
            let any = places.iter().any(|place| place.is_within(share));
            places.iter().map(|place| place.is_within(share) || (!any && Some(place) == first)).collect()
        }
        Size::Rows(rows) => {
            let mut order: Vec<_> = places.iter().enumerate().map(|(row, place)| (*place, row)).collect();
            order.sort_unstable();
            let kept: BTreeSet<usize> = order.into_iter().take(rows as usize).map(|(_, row)| row).collect();
            (0..places.len()).map(|row| kept.contains(&row)).collect()
        }
    }
}

impl TableOp for Sampler {
    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        let Some(schema) = inputs.get("from") else { return Ok(Vec::new()) };
        self.indices(schema)?;
        Ok(vec![schema.clone()])
    }

    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        let missing = inputs.get("from").zip(self.by.as_ref()).map(|(schema, by)| by.missing("by", schema));
        match missing {
            Some(missing) if !missing.is_empty() => missing,
            _ => self.schemas(inputs).err().into_iter().collect(),
        }
    }

    fn lineage(&self, _output: &str, _slot: &str) -> Lineage {
        Lineage::Passed
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let input = inputs.get("from").ok_or_else(|| Failure::op("nothing feeds it"))?;
        let kept = choose(&self.size, &self.places(input)?);
        let mut at = 0;
        for batch in input.batches()? {
            cx.check()?;
            let batch = batch?;
            let mask = BooleanArray::from(kept[at..at + batch.num_rows()].to_vec());
            at += batch.num_rows();
            let kept = filter_record_batch(&batch, &mask).map_err(|error| Failure::op(error.to_string()))?;
            out[0].write(&kept)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use retort_cache::Digest;

    use super::*;

    fn places(n: u64) -> Vec<Place> {
        let key = |n: u64| {
            Digest::of("test", |hasher| {
                hasher.update(&n.to_le_bytes());
            })
        };
        (0..n).map(|n| Place::of("retort sample 1", 7, key(n))).collect()
    }

    #[test]
    fn more_rows_move_no_other() {
        let all = places(1000);
        let share = choose(&Size::Share(0.1), &all);
        assert_eq!(choose(&Size::Share(0.1), &all[..600]), share[..600]);
        let more = choose(&Size::Share(0.2), &all);
        assert!(share.iter().zip(&more).all(|(less, more)| *more || !less), "a larger share holds the smaller");
        let count = |kept: &[bool]| kept.iter().filter(|kept| **kept).count();
        assert!((60..140).contains(&count(&share)), "{}", count(&share));
    }

    #[test]
    fn a_number_of_rows_is_that_number() {
        let all = places(100);
        let count = |size: &Size, n: usize| choose(size, &all[..n]).iter().filter(|kept| **kept).count();
        assert_eq!(count(&Size::Rows(24), 100), 24);
        assert_eq!(count(&Size::Rows(24), 10), 10);
        let (few, many) = (choose(&Size::Rows(5), &all), choose(&Size::Rows(50), &all));
        assert!(few.iter().zip(&many).all(|(few, many)| *many || !few));
        let alike = vec![all[0]; 4];
        assert_eq!(choose(&Size::Rows(2), &alike), [true, true, false, false], "equal rows in the order of the input");
    }

    #[test]
    fn a_small_share_of_few_rows_is_one() {
        assert_eq!(choose(&Size::Share(0.0001), &places(20)).iter().filter(|kept| **kept).count(), 1);
        assert!(choose(&Size::Share(0.5), &[]).is_empty());
        assert_eq!(choose(&Size::Share(1.0), &places(3)), [true; 3]);
    }
}

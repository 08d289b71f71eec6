//! Stable hashing: a row's or a group's place, decided by its own values and a seed and by nothing around it.
//!
//! `sample` and `split-eval` choose by place, so a row that is added moves no other. What they choose is left to them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use retort_cache::{Digest, StoreError, row_digests};
use retort_engine::Problem;
use schemars::{JsonSchema, json_schema};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Column names: one, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ColumnNames(pub Vec<String>);

impl<'de> Deserialize<'de> for ColumnNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = ColumnNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column or a list of columns")
            }

            fn visit_str<E>(self, name: &str) -> Result<ColumnNames, E> {
                Ok(ColumnNames(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<ColumnNames, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = names.next_element()? {
                    all.push(name);
                }
                Ok(ColumnNames(all))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl JsonSchema for ColumnNames {
    fn schema_name() -> Cow<'static, str> {
        "ColumnNames".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({
            "description": "A column, or a list of columns.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        })
    }
}

impl ColumnNames {
    /// The columns' indices in `schema`, or the problem with the config key `field` that names one it lacks.
    pub fn indices(&self, field: &str, schema: &Schema) -> Result<Vec<usize>, Problem> {
        self.0.iter().map(|name| column(field, name, schema)).collect()
    }

    /// A problem with the config key `field` for each column that `schema` lacks.
    pub fn missing(&self, field: &str, schema: &Schema) -> Vec<Problem> {
        self.0.iter().filter_map(|name| column(field, name, schema).err()).collect()
    }
}

/// The index of a column, or the problem with the config key `field` that names it.
pub fn column(field: &str, name: &str, schema: &Schema) -> Result<usize, Problem> {
    schema.index_of(name).map_err(|_| {
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut problem = Problem::at_field(field, format!("the input has no column `{name}`"));
        problem.code = "unknown-column";
        let listed = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match retort_engine::nearest(name, names) {
            Some(near) => problem.hint(format!("did you mean `{near}`? It has {listed}")),
            None => problem.hint(format!("it has {listed}")),
        }
    })
}

/// Nothing, or the first of several problems.
pub fn none_of(problems: Vec<Problem>) -> Result<(), Problem> {
    problems.into_iter().next().map_or(Ok(()), Err)
}

/// One digest a row over the values of the columns at `indices`. Neither the columns' names nor whether they may be null shows, so
/// renaming a column or appending another table moves nothing.
pub fn keys(batch: &RecordBatch, indices: &[usize]) -> Result<Vec<Digest>, StoreError> {
    if indices.is_empty() {
        return Ok(vec![Digest::of("retort empty key 1", |_| ()); batch.num_rows()]);
    }
    let fields: Vec<_> = indices
        .iter()
        .enumerate()
        .map(|(at, index)| Field::new(at.to_string(), batch.column(*index).data_type().clone(), true))
        .collect();
    let columns = indices.iter().map(|index| batch.column(*index).clone()).collect();
    let named = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(StoreError::table("take key columns of", "input"))?;
    row_digests(&named)
}

/// Where a key lies, uniformly over all of `u64`: a function of the seed and the key alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    /// The place of a key. `domain` keeps the choices of different operators apart.
    pub fn of(domain: &str, seed: u64, key: Digest) -> Self {
        let digest = Digest::of(domain, |hasher| {
            hasher.update(&seed.to_le_bytes()).update(key.as_bytes());
        });
        Place(u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest is longer")))
    }

    /// Whether it lies in the first `share` (0 to 1) of all places.
    pub fn is_within(self, share: f64) -> bool {
        // 53 bits are all that an `f64` holds: every place below is exact.
        ((self.0 >> 11) as f64) < share * 2f64.powi(53)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn names_and_nullability_do_not_show_but_values_do() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let one =
            RecordBatch::try_from_iter_with_nullable([("path", text.clone(), false), ("n", number, false)]).unwrap();
        let other = RecordBatch::try_from_iter_with_nullable([("file", text, true)]).unwrap();
        let ours = keys(&one, &[0]).unwrap();
        assert_eq!(ours, keys(&other, &[0]).unwrap());
        assert!(ours[0] == ours[2] && ours[0] != ours[1]);
        assert_ne!(ours, keys(&one, &[0, 1]).unwrap());
    }

    #[test]
    fn places_are_even() {
        let key = |n: u64| {
            Digest::of("test", |hasher| {
                hasher.update(&n.to_le_bytes());
            })
        };
        for share in [0.01, 0.1, 0.5] {
            let within = (0..20_000).filter(|n| Place::of("test", 1, key(*n)).is_within(share)).count() as f64;
            // Four standard deviations of a binomial.
            let (expected, spread) = (20_000.0 * share, (20_000.0 * share * (1.0 - share)).sqrt());
            assert!((within - expected).abs() < 4.0 * spread, "{share}: {within} of {expected}");
        }
        assert!(Place(u64::MAX).is_within(1.0) && !Place(0).is_within(0.0));
    }

    #[test]
    fn a_list_and_a_single_name_are_read() {
        let names = |value| serde_json::from_value::<ColumnNames>(value).map(|names| names.0);
        assert_eq!(names(serde_json::json!("a")).unwrap(), ["a"]);
        assert_eq!(names(serde_json::json!(["a", "b"])).unwrap(), ["a", "b"]);
        assert!(names(serde_json::json!(3)).unwrap_err().to_string().contains("a column or a list of columns"));
    }
}

//! `split-eval`: parts a table into rows to train on and rows to be examined on, so that nothing of the exam was seen.
//!
//! Near duplicates are told by `split_eval/near.rs`, the choice is made in `split_eval/groups.rs`.

mod groups;
mod near;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{DataType, SchemaRef};
use retort_cache::{Digest, TableWriter};
use retort_engine::{Cx, Define, Env, Failure, Input, Inputs, Lineage, Operator, Problem, TableOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stable::{self, ColumnNames};
use groups::{Groups, Size};

/// Parts a table into `train` and `eval`, so that the exam asks nothing that was trained on.
///
/// All rows of a group (a document, by default) are on one side. Groups that share a question, or nearly so, go to one side too: what is equal after case, punctuation
/// and blanks are set aside, and what has a similarity of `near` or more (Jaccard, over every five characters in a row). Which side it is, a hash of the
/// group and the seed decides, nothing else: adding a document moves no other, unless its questions tie groups together. Groups that
/// are tied together are decided by the one with the smallest key.
///
/// A share is one of groups, and holds for many: few groups, or some with many rows, give more or less, and a note says so where it is off by
/// more than five in a hundred of the rows. Neither side stays empty where there are two groups that nothing
/// ties together, and what holds more than half of all rows is trained on. A number of groups takes those with the smallest hashes, so a document that is added may put
/// one group back.
///
/// Rows keep the input's order on both sides.
///
/// ```yaml
/// sets:
///   op: split-eval
///   from: pairs
///   with: {eval: 0.1, group_by: doc_id, seed: 1}
/// # `from: sets.train` and `from: sets.eval` read the two sides.
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitEval {
    /// What goes to `eval`: a share of the groups, above 0 and below 1, or a number of groups, from 1.
    #[serde(default = "tenth")]
    #[schemars(range(min = 0.0))]
    pub eval: f64,
    /// Rows that are alike in these columns stay together: `doc_id`, `chunk_id`, or a list. An empty list lets every row go by itself.
    #[serde(default = "by_document")]
    pub group_by: ColumnNames,
    /// Text columns that together make two rows duplicates. `question`, where it is left out and the input has that column; an empty list lets duplicates go where
    /// their groups go.
    #[serde(default)]
    pub duplicates: Option<ColumnNames>,
    /// The similarity from which duplicates are near, 0.5 to 1; 1 looks for equal ones only.
    #[serde(default = "near")]
    #[schemars(range(min = 0.5, max = 1.0))]
    pub near: f64,
    /// Another seed holds out other groups.
    #[serde(default)]
    pub seed: u64,
}

impl Define for SplitEval {
    const NAME: &'static str = "split-eval";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        let size = if self.eval > 0.0 && self.eval < 1.0 {
            Size::Share(self.eval)
        } else if self.eval >= 1.0 && self.eval.fract() == 0.0 {
            Size::Count(self.eval as usize)
        } else {
            let message = format!("`{}` is neither a share above 0 and below 1 nor a number of groups", self.eval);
            return Err(Problem::at_field("eval", message));
        };
        if !(0.5..=1.0).contains(&self.near) {
            return Err(Problem::at_field("near", format!("`{}` does not lie between 0.5 and 1", self.near)));
        }
        Ok(Operator::Table(Box::new(Splitter { config: self, size })))
    }
}

fn tenth() -> f64 {
    0.1
}

fn by_document() -> ColumnNames {
    ColumnNames(vec!["doc_id".into()])
}

fn near() -> f64 {
    0.8
}

struct Splitter {
    config: SplitEval,
    size: Size,
}

impl Splitter {
    fn duplicates(&self, schema: &SchemaRef) -> Result<Vec<usize>, Problem> {
        let Some(named) = &self.config.duplicates else { return Ok(schema.index_of("question").into_iter().collect()) };
        named.indices("duplicates", schema)
    }

    fn groups(&self, schema: &SchemaRef) -> Result<Vec<usize>, Problem> {
        self.config.group_by.indices("group_by", schema)
    }

    /// Which rows go to `eval`.
    fn held_out(&self, input: &Input, cx: &Cx<'_>) -> Result<Vec<bool>, Failure> {
        let rows = Rows::read(self, input, cx)?;
        let mut groups = Groups::new(rows.keys.len());
        rows.texts.values().for_each(|owners| owners.iter().for_each(|owner| groups.join(owners[0], *owner)));
        if self.config.near < 1.0 {
            let texts: Vec<_> = rows.texts.iter().map(|(text, owners)| (text.as_str(), owners[0])).collect();
            near::link(&texts, self.config.near, &mut groups);
        }
        let sets = (0..rows.keys.len()).filter(|group| groups.root(*group) == *group).count();
        if sets < rows.keys.len() && !self.config.group_by.0.is_empty() {
            cx.note(format!("{} groups, {sets} after those that share questions are kept together", rows.keys.len()));
        }
        if sets == 1 {
            cx.note("nothing can be held out: all rows belong together");
        }
        let held_out = groups::held_out(&rows.keys, &rows.groups, &mut groups, self.size, self.config.seed);
        if sets > 1
            && let Some(note) = self.surprise(&held_out)
        {
            cx.note(note);
        }
        Ok(held_out)
    }

    /// What is said where the rows held out are more than five in a hundred away from the share that was asked.
    fn surprise(&self, held_out: &[bool]) -> Option<String> {
        let Size::Share(asked) = self.size else { return None };
        let (rows, held) = (held_out.len(), held_out.iter().filter(|held| **held).count());
        let share = held as f64 / rows as f64;
        ((share - asked).abs() > 0.05).then(|| {
            format!(
                "{held} of {rows} rows are held out, {:.0} % where {:.0} % was asked: the share is one of groups, and \
                 whole groups go to a side, with all that share questions with them",
                share * 100.0,
                asked * 100.0
            )
        })
    }
}

/// What is known of the rows.
#[derive(Default)]
struct Rows {
    /// Each group's key.
    keys: Vec<Digest>,
    /// Each row's group.
    groups: Vec<usize>,
    /// The texts that may be duplicates, in normal form, with the groups that have them.
    texts: BTreeMap<String, Vec<usize>>,
}

impl Rows {
    fn read(splitter: &Splitter, input: &Input, cx: &Cx<'_>) -> Result<Self, Failure> {
        let unchecked = |problem: Problem| Failure::op(problem.message);
        let mut group_by = splitter.groups(&input.schema).map_err(unchecked)?;
        if group_by.is_empty() {
            group_by = (0..input.schema.fields().len()).collect();
        }
        let duplicates = splitter.duplicates(&input.schema).map_err(unchecked)?;
        let (mut rows, mut known) = (Rows::default(), HashMap::new());
        for batch in input.batches()? {
            cx.check()?;
            let batch = batch?;
            for (row, key) in stable::keys(&batch, &group_by)?.into_iter().enumerate() {
                let group = *known.entry(key).or_insert_with(|| {
                    rows.keys.push(key);
                    rows.keys.len() - 1
                });
                rows.groups.push(group);
                let text = text_of(&batch, &duplicates, row);
                let owners = if text.is_empty() { continue } else { rows.texts.entry(text).or_default() };
                if owners.last() != Some(&group) {
                    owners.push(group);
                }
            }
        }
        Ok(rows)
    }
}

/// What makes a row a duplicate of another, in normal form; empty where there is nothing to compare.
fn text_of(batch: &RecordBatch, columns: &[usize], row: usize) -> String {
    let texts = columns.iter().filter_map(|column| {
        let texts = batch.column(*column).as_string::<i32>();
        texts.is_valid(row).then(|| near::normal(texts.value(row)))
    });
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

impl TableOp for Splitter {
    fn outputs(&self) -> Vec<String> {
        vec!["train".into(), "eval".into()]
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        let Some(schema) = inputs.get("from") else { return Ok(Vec::new()) };
        stable::none_of(self.mistakes(inputs))?;
        Ok(vec![schema.clone(), schema.clone()])
    }

    fn mistakes(&self, inputs: &Inputs<SchemaRef>) -> Vec<Problem> {
        let Some(schema) = inputs.get("from") else { return Vec::new() };
        let mut problems = self.config.group_by.missing("group_by", schema);
        problems.extend(self.config.duplicates.iter().flat_map(|named| named.missing("duplicates", schema)));
        for field in self.duplicates(schema).into_iter().flatten().map(|index| schema.field(index)) {
            if *field.data_type() != DataType::Utf8 {
                let message = format!("`{}` holds no text but {}", field.name(), field.data_type());
                problems.push(Problem::at_field("duplicates", message));
            }
        }
        problems
    }

    fn lineage(&self, _output: &str, _slot: &str) -> Lineage {
        Lineage::Passed
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let input = inputs.get("from").ok_or_else(|| Failure::op("nothing feeds it"))?;
        let held_out = self.held_out(input, cx)?;
        let broken = |error: arrow::error::ArrowError| Failure::op(error.to_string());
        let mut at = 0;
        for batch in input.batches()? {
            cx.check()?;
            let batch = batch?;
            let eval = BooleanArray::from(held_out[at..at + batch.num_rows()].to_vec());
            at += batch.num_rows();
            out[0].write(&filter_record_batch(&batch, &not(&eval).map_err(broken)?).map_err(broken)?)?;
            out[1].write(&filter_record_batch(&batch, &eval).map_err(broken)?)?;
        }
        Ok(())
    }
}

//! `parse`: what a model wrote becomes columns: question/answer pairs, or the named groups of a pattern.
//!
//! How pairs are found is told in `parse/pairs.rs`. It is a node of its own, so that a change of parsing costs no prompt.

mod labels;
mod pairs;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::pairs_of;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use regex::Regex;
use retort_engine::{Answers, Carry, Cx, Define, Env, Failure, Operator, Problem, RowBatch, RowOp};
use schemars::JsonSchema;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Turns what a model wrote into columns: every question/answer pair a row, or every match of a pattern a row.
///
/// `format: question-answer` adds the columns `question` and `answer`. It finds pairs however they are dressed: `Q:` and `A:`, `Question 1:`,
/// `**Question:**`, numbered and bulleted lists, headings, several pairs glued together on one line, answers of several
/// lines with lists or code. A pair that is not whole is left out: a question without an answer, and, where the input
/// has a column `finish_reason` that says `length`, `context` or `repetition`, the last pair, whose answer was cut off. The row then stands in `rejects`
/// too, with what was left out of it. Equal pairs of one output become one.
///
/// `format: regex` adds a column for every named group of `pattern`, null where a group took no part in the match.
///
/// The input's other columns are carried along, unless `columns` says what the output has. A row in which nothing is found goes to the output
/// `rejects` with the reason: `empty output`, `no question found`, `3 questions but no answer`, `the pattern matches nothing`; one of
/// which some was found with `left out: …`.
///
/// ```yaml
/// pairs:
///   op: parse
///   from: answers
///   with: {format: question-answer}
///
/// # The same under other names: `columns` says what the output has, in this order.
/// renamed:
///   op: parse
///   from: answers
///   with:
///     format: question-answer
///     columns: {input: question, output: answer, context: context, data: text, chunk_id: chunk_id, file: path}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parse {
    /// How the text is read.
    pub format: Format,
    /// The column that holds what the model wrote.
    #[serde(default = "output_column")]
    pub column: String,
    /// For `regex`: a regular expression of the Rust `regex` crate with named groups: `(?s)FACT: (?<fact>.*?)\n`.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The output's columns, in order, each with the found or carried column that it is: `{input: question, file: path}`. Without it the
    /// found columns follow all columns of the input.
    #[serde(default)]
    pub columns: Option<Columns>,
}

/// How `parse` reads a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Every question/answer pair is a row.
    QuestionAnswer,
    /// Every match of `pattern` is a row, every named group a column.
    Regex,
}

/// New names and what they stand for, in the order in which they are written, which is that of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(pub Vec<(String, String)>);

// As a list of `name: source`, so that the order is a fact too: it decides the output's.
impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(name, source)| format!("{name}: {source}")))
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of new column names to columns, as in `{input: question}`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(pair) = map.next_entry::<String, String>()? {
                    columns.push(pair);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl JsonSchema for Columns {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Columns".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        BTreeMap::<String, String>::json_schema(generator)
    }
}

impl Define for Parse {
    const NAME: &'static str = "parse";
    const VERSION: u32 = 3;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        let reader = match (self.format, &self.pattern) {
            (Format::QuestionAnswer, None) => Reader::Pairs,
            (Format::QuestionAnswer, Some(_)) => {
                return Err(Problem::at_field("pattern", "`question-answer` takes no pattern")
                    .hint("say `format: regex` to read by a pattern"));
            }
            (Format::Regex, None) => {
                return Err(Problem::at_field("", "`format: regex` needs a `pattern`")
                    .hint("write one with named groups: `pattern: 'FACT: (?<fact>.*)'`"));
            }
            (Format::Regex, Some(pattern)) => Reader::pattern(pattern)?,
        };
        if self.columns.as_ref().is_some_and(|columns| columns.0.is_empty()) {
            return Err(Problem::at_field("columns", "the output would have no columns")
                .hint("leave `columns` out to keep them all"));
        }
        Ok(Operator::Rows(Box::new(Parser { column: self.column, reader, columns: self.columns })))
    }
}

fn output_column() -> String {
    "output".into()
}

/// Says why an output ended.
const FINISH_REASON: &str = "finish_reason";
/// Reasons for which it ended before its end: a token limit, or that it went in circles.
const CUT: &[&str] = &["length", "context", "repetition"];

enum Reader {
    Pairs,
    Pattern { regex: Box<Regex>, groups: Vec<String> },
}

/// Rows of columns.
type Rows = Vec<Vec<Option<String>>>;

/// What was found in one text, and what of it was left out, if anything.
type Read = (Rows, Option<String>);

impl Reader {
    fn pattern(pattern: &str) -> Result<Self, Problem> {
        let regex = Regex::new(pattern).map_err(|error| {
            // The message draws the pattern over several lines; what is wrong stands in the last.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            Problem::at_field("pattern", format!("not a regular expression: {}", last.trim_start_matches("error: ")))
        })?;
        let groups: Vec<_> = regex.capture_names().flatten().map(str::to_owned).collect();
        if groups.is_empty() {
            return Err(Problem::at_field("pattern", "the pattern has no named groups, so there is no column to fill")
                .hint("name one: `(?<fact>.*)`"));
        }
        Ok(Reader::Pattern { regex: Box::new(regex), groups })
    }

    fn fields(&self) -> Vec<Field> {
        match self {
            Reader::Pairs => ["question", "answer"].map(|name| Field::new(name, DataType::Utf8, false)).into(),
            Reader::Pattern { groups, .. } => {
                groups.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect()
            }
        }
    }

    /// The rows of a text, or why there are none.
    fn read(&self, text: &str, cut: bool) -> Result<Read, String> {
        match self {
            Reader::Pairs => read_pairs(text, cut),
            Reader::Pattern { regex, groups } => {
                let rows = regex.captures_iter(text).map(|found| {
                    groups.iter().map(|group| found.name(group).map(|group| group.as_str().to_owned())).collect()
                });
                let filled = |row: &Vec<Option<String>>| row.iter().flatten().any(|text| !text.is_empty());
                let rows: Rows = rows.filter(filled).collect();
                if rows.is_empty() { Err("the pattern matches nothing".into()) } else { Ok((rows, None)) }
            }
        }
    }
}

fn read_pairs(text: &str, cut: bool) -> Result<Read, String> {
    let found = pairs::find(text, cut);
    if !found.pairs.is_empty() {
        let left_out = (!found.left_out.is_empty()).then(|| format!("left out: {}", found.left_out.join("; ")));
        let rows = found.pairs.into_iter().map(|(question, answer)| vec![Some(question), Some(answer)]);
        return Ok((rows.collect(), left_out));
    }
    Err(match found.n_questions {
        0 => "no question found".into(),
        1 if cut => "the output was cut off in its first answer".into(),
        1 => "1 question but no answer".into(),
        n => format!("{n} questions but no answer"),
    })
}

struct Parser {
    column: String,
    reader: Reader,
    columns: Option<Columns>,
}

impl Parser {
    /// The columns of the input that the output is made of.
    fn carried_sources(&self) -> impl Iterator<Item = &String> {
        let found = self.reader.fields();
        let sources = self.columns.iter().flat_map(|columns| &columns.0).map(|(_, source)| source);
        sources.filter(move |source| !found.iter().any(|field| field.name() == *source))
    }

    /// One input row's answer: what was found, beside the row's own columns, in the order of `schema`.
    fn answer(&self, rows: Rows, batch: &RecordBatch, row: usize, schema: &SchemaRef) -> Result<RecordBatch, Failure> {
        let fields = self.reader.fields();
        let repeated = UInt64Array::from(vec![row as u64; rows.len()]);
        let mut found: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(rows.len()); fields.len()];
        for row in rows {
            for (column, value) in found.iter_mut().zip(row) {
                column.push(value);
            }
        }
        let found: Vec<ArrayRef> =
            found.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef).collect();
        let columns = match &self.columns {
            None => found,
            Some(columns) => {
                let column = |(_, source): &(String, String)| match fields.iter().position(|f| f.name() == source) {
                    Some(at) => Ok(found[at].clone()),
                    None => take(batch.column_by_name(source).expect("it is read"), &repeated, None),
                };
                columns
                    .0
                    .iter()
                    .map(column)
                    .collect::<Result<_, _>>()
                    .map_err(|error| Failure::op(error.to_string()))?
            }
        };
        RecordBatch::try_new(schema.clone(), columns).map_err(|error| Failure::op(error.to_string()))
    }
}

impl RowOp for Parser {
    fn reads(&self) -> Vec<String> {
        let mut reads = vec![self.column.clone()];
        for source in self.carried_sources() {
            if !reads.contains(source) {
                reads.push(source.clone());
            }
        }
        reads
    }

    fn reads_if_there(&self) -> Vec<String> {
        match self.reader {
            Reader::Pairs => vec![FINISH_REASON.into()],
            Reader::Pattern { .. } => Vec::new(),
        }
    }

    fn adds(&self, reads: &Schema) -> Result<SchemaRef, Problem> {
        let text = reads.field_with_name(&self.column).expect("it is read");
        if *text.data_type() != DataType::Utf8 {
            return Err(Problem::at_field(
                "column",
                format!("`{}` holds no text but {}", self.column, text.data_type()),
            ));
        }
        let found = self.reader.fields();
        let Some(columns) = &self.columns else { return Ok(Arc::new(Schema::new(found))) };
        let field = |(name, source): &(String, String)| {
            let found = found.iter().find(|field| field.name() == source);
            found.or_else(|| reads.field_with_name(source).ok()).expect("it is found or read").clone().with_name(name)
        };
        Ok(Arc::new(Schema::new(columns.0.iter().map(field).collect::<Vec<_>>())))
    }

    fn offers(&self) -> Vec<String> {
        let fields = self.columns.iter().flat_map(|_| self.reader.fields());
        fields.map(|field| field.name().clone()).collect()
    }

    fn carries(&self) -> Carry {
        if self.columns.is_some() { Carry::Nothing } else { Carry::All }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        let batch = &rows.batch;
        let schema = self.adds(&batch.schema()).map_err(|problem| Failure::op(problem.message))?;
        let texts = batch.column_by_name(&self.column).expect("it is read").as_string::<i32>();
        let reasons = batch.column_by_name(FINISH_REASON).and_then(|column| column.as_string_opt::<i32>());
        for row in 0..batch.num_rows() {
            let text = if texts.is_null(row) { "" } else { texts.value(row) };
            if text.trim().is_empty() {
                out.reject(row, "empty output")?;
                continue;
            }
            let cut = reasons.is_some_and(|reasons| reasons.is_valid(row) && CUT.contains(&reasons.value(row)));
            match self.reader.read(text, cut) {
                Ok((found, None)) => out.keep(row, self.answer(found, batch, row, &schema)?)?,
                Ok((found, Some(left_out))) => {
                    out.keep_some(row, self.answer(found, batch, row, &schema)?, left_out)?;
                }
                Err(reason) => out.reject(row, reason)?,
            }
        }
        Ok(())
    }
}

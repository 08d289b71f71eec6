//! Retort with one operator of one's own: `redact`, which blots out what must not reach a model.
//!
//! This is a whole program: the `retort` command, knowing one operator more. Its package depends on `retort`, `arrow`, `regex`, `schemars` and `serde`.
//!
//! ```text
//! cargo run --example own_operator -- ops redact
//! cargo run --example own_operator -- run my.yaml
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use regex::Regex;
use retort::engine::{Answers, Cx, Define, Env, Failure, Memo, OpInfo, Operator, Problem, RowBatch, RowOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Puts a word in the place of what a regular expression finds: names, addresses, serial numbers.
///
/// ```yaml
/// clean:
///   op: redact
///   from: chunks
///   with: {pattern: '[\w.]+@[\w.]+', with: someone}
/// ```
// The doc comments above and below are the manual page (`ops redact`) and the editor's help; the struct's fields are the keys of `with`, and facts of every answer.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Redact {
    /// The regular expression, in the syntax of the `regex` crate.
    pattern: String,
    /// What stands there instead.
    #[serde(default = "blot")]
    with: String,
    /// The column.
    #[serde(default = "text")]
    column: String,
}

fn blot() -> String {
    "▇".into()
}

fn text() -> String {
    "text".into()
}

impl Define for Redact {
    const NAME: &'static str = "redact";
    // Raise it whenever the same rows would get other answers: what was remembered is then asked again.
    const VERSION: u32 = 1;

    // What cannot work is said here, before anything runs; the mistake is shown at the key that is named.
    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        let pattern = Regex::new(&self.pattern).map_err(|error| Problem::at_field("pattern", error.to_string()))?;
        Ok(Operator::Rows(Box::new(Redactor { pattern, with: self.with, column: self.column })))
    }
}

struct Redactor {
    pattern: Regex,
    with: String,
    column: String,
}

// A row operator answers each row by itself. It holds no cache code: the engine asks it only for rows that nobody has asked before.
impl RowOp for Redactor {
    fn reads(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    // The column of the same name is replaced; all others go on.
    fn adds(&self, reads: &Schema) -> Result<SchemaRef, Problem> {
        let column = reads.field(0);
        if column.data_type() != &DataType::Utf8 {
            return Err(Problem::at_field(
                "column",
                format!("`{}` holds {}, not text", column.name(), column.data_type()),
            ));
        }
        let blots = Field::new("n_blots", DataType::UInt64, false);
        Ok(Arc::new(Schema::new(vec![column.clone(), blots])))
    }

    // Cheaper to do again than to look up. An operator that is dear says `Memo::Remember`.
    fn memo(&self) -> Memo {
        Memo::Recompute
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        let schema = self.adds(&rows.batch.schema()).expect("checked before the run");
        for (row, text) in rows.batch.column(0).as_string::<i32>().iter().enumerate() {
            let n_blots = text.map_or(0, |text| self.pattern.find_iter(text).count() as u64);
            let clean = text.map(|text| self.pattern.replace_all(text, regex::NoExpand(&self.with)));
            let columns =
                vec![Arc::new(StringArray::from_iter([clean])) as _, Arc::new(UInt64Array::from(vec![n_blots])) as _];
            out.keep(row, RecordBatch::try_new(schema.clone(), columns).map_err(Failure::op)?)?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut ops = retort::ops::REGISTRY.to_vec();
    ops.push(OpInfo::of::<Redact>());
    retort::cli::main(&ops)
}

//! `exec`: any program that reads Arrow from its standard input and writes Arrow to its standard output.
//!
//! | file | what |
//! |---|---|
//! | `process.rs` | starts a program, feeds it, hands over what comes back, says how it ended |
//! | `columns.rs` | the declared columns, and whether a table that came back has them |
//! | `rows.rs` | kind `rows`: which row of the input each row that comes back belongs to |
//!
//! Nothing runs that the user has not allowed by the node's name (`Assets::programs`), and nothing in a check or a plan.

mod columns;
mod process;
mod rows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use retort_cache::TableWriter;
use retort_engine::{Asset, Cx, Define, Env, Failure, Input, Inputs, Operator, Problem, TableOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use process::Program;
use rows::RowProgram;

/// Runs a program of yours: it reads an Arrow IPC stream from its standard input and writes one to its standard output (`pyarrow.ipc.open_stream`,
/// `polars.read_ipc_stream`, `arrow::ipc`).
///
/// With `kind: rows` each row is answered by itself and remembered: a row that was answered once is not asked again. The program gets the
/// columns of `reads` and a column `_row` (int64, from 0), some rows at a time. What it writes has the columns of `columns`: either one row for each
/// row, in order; or any number of rows for each, with `_row` saying for which, in ascending order. A row for which nothing comes back, or that
/// comes back with a text in `_reason`, goes to `rejects`. The other columns of the input go along.
///
/// With `kind: table` the program gets the whole table, and what it writes is the new one.
///
/// A program gives the same for the same rows: `retort run --verify` shows where it does not. What it is made of must be known: `files` are part of the
/// question, and so are a program that is named by its path and every argument. Of one that is found by its name (`python3`) only the name is; say
/// `version` when it changes.
///
/// It runs in the pipeline's folder with `PATH` and the variables of `env`, no other. If it ends with another status than 0, or writes what is no
/// such stream, the node fails with the end of its standard error. **It runs only if you allow it**: `retort run PIPELINE --allow-exec NODE`, each time
/// something is to be asked. `check` and `plan` run nothing.
///
/// ```yaml
/// shouted:
///   op: exec
///   from: pairs
///   with:
///     kind: rows
///     command: [python3, -c, "import sys, pyarrow as pa, pyarrow.compute as pc; r = pa.ipc.open_stream(sys.stdin.buffer); t = r.read_all(); u = pa.table({'_row': t['_row'], 'loud': pc.utf8_upper(t['answer'])}); w = pa.ipc.new_stream(sys.stdout.buffer, u.schema); w.write_table(u); w.close()"]
///     reads: [answer]
///     columns: {loud: text}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments, no shell between. A program with a `/` in its name lies below the pipeline's folder; others are found on `PATH`.
    pub command: Vec<String>,
    /// What it answers: `rows`, each by itself, or a whole `table`.
    pub kind: Kind,
    /// The columns that come back, by name, and their types: `text`, `bool`, `int64` (`int8` to `uint64`), `float64`, `float32`, `bytes`, `list<text>` and so on.
    /// They stand in the order of their names.
    pub columns: BTreeMap<String, String>,
    /// The columns that it is given; needed with `kind: rows`, else all.
    #[serde(default)]
    pub reads: Option<Vec<String>>,
    /// The files that it is made of or reads, relative to the pipeline: a script, a word list. Their contents are part of the question.
    #[serde(default)]
    pub files: Vec<String>,
    /// Variables of its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Any text that stands for what is not in `files`: the version of a program that is found by its name.
    #[serde(default)]
    pub version: Option<String>,
    /// How many rows it gets at a time with `kind: rows`; each time it is started anew. It changes no answer.
    #[serde(default = "rows_at_a_time")]
    #[schemars(range(min = 1))]
    pub rows_at_a_time: usize,
    /// Whether it may run several times side by side with `kind: rows`. It changes no answer.
    #[serde(default)]
    pub parallel: bool,
}

/// What a program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Rows, each by itself.
    Rows,
    /// A whole table.
    Table,
}

fn rows_at_a_time() -> usize {
    1000
}

/// The columns that the operator itself uses.
const OWN: &[&str] = &[rows::ROW, rows::REASON];

impl Define for Exec {
    const NAME: &'static str = "exec";
    const VERSION: u32 = 1;
    const PLACES: &'static [&'static str] = &["rows_at_a_time", "parallel"];

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        let program = self.command.first().filter(|program| program.contains('/') && !self.files.contains(program));
        let asset = |file: &String| Asset {
            name: file.clone(),
            sources: vec![format!("file:{file}")],
            sha256: None,
            base: env.base.to_path_buf(),
        };
        program.into_iter().chain(&self.files).map(asset).collect()
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        self.check_files(env.base)?;
        let columns = columns::declared(&self.columns)?;
        if let Some(own) = self.columns.keys().find(|name| OWN.contains(&name.as_str())) {
            return Err(Problem::at_field("columns", format!("`{own}` is a column of `exec`'s own")));
        }
        let program = Program { command: self.command, env: self.env, folder: env.base.to_path_buf() };
        if self.kind == Kind::Table {
            return Ok(Operator::Table(Box::new(TableProgram { program, columns, reads: self.reads })));
        }
        let reads = self.reads.unwrap_or_default();
        if reads.is_empty() {
            return Err(Problem::at_field("reads", "with `kind: rows` it is said which columns the program reads")
                .hint("a row is asked again when one of these changes"));
        }
        if self.rows_at_a_time == 0 {
            return Err(Problem::at_field("rows_at_a_time", "a program gets at least one row"));
        }
        let (rows_at_a_time, parallel) = (self.rows_at_a_time, self.parallel);
        Ok(Operator::Rows(Box::new(RowProgram { program, columns, reads, rows_at_a_time, parallel })))
    }
}

impl Exec {
    /// The files must be there, and a file that is an argument must be among them: else an edit of it would rerun nothing.
    fn check_files(&self, base: &Path) -> Result<(), Problem> {
        let Some((program, arguments)) = self.command.split_first().filter(|(program, _)| !program.is_empty()) else {
            return Err(Problem::at_field("command", "no program").hint("`command: [./clean, --strict]`"));
        };
        if program.contains('/') && !base.join(program).is_file() {
            return Err(Problem::at_field("command[0]", format!("no file `{program}`")));
        }
        for (i, file) in self.files.iter().enumerate() {
            if !base.join(file).is_file() {
                return Err(Problem::at_field(format!("files[{i}]"), format!("no file `{file}`")));
            }
        }
        let named: Vec<PathBuf> = self.files.iter().map(|file| base.join(file)).collect();
        for (i, argument) in arguments.iter().enumerate() {
            let path = base.join(argument);
            if !argument.is_empty() && path.is_file() && !named.contains(&path) {
                let problem = Problem::at_field(
                    format!("command[{}]", i + 1),
                    format!("`{argument}` is a file, and `files` does not name it"),
                );
                return Err(problem.hint("without that, an edit of it would run nothing again: `files: […]`"));
            }
        }
        Ok(())
    }
}

struct TableProgram {
    program: Program,
    columns: SchemaRef,
    reads: Option<Vec<String>>,
}

impl TableProgram {
    fn given(&self, schema: &SchemaRef) -> Result<Vec<usize>, Problem> {
        match &self.reads {
            Some(reads) => reads.iter().map(|name| crate::stable::column("reads", name, schema)).collect(),
            None => Ok((0..schema.fields().len()).collect()),
        }
    }
}

impl TableOp for TableProgram {
    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        if let Some(schema) = inputs.get("from") {
            self.given(schema)?;
        }
        Ok(vec![self.columns.clone()])
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let input = inputs.get("from").ok_or_else(|| Failure::op("nothing feeds it"))?;
        let given = self.given(&input.schema).map_err(|problem| Failure::op(problem.message))?;
        let schema = SchemaRef::new(input.schema.project(&given).expect("columns of the input"));
        let batches = input.batches()?.map(move |batch| {
            let batch = batch?;
            Ok(batch.project(&given).expect("columns of the input"))
        });
        self.program.talk(schema, Box::new(batches), cx, &mut |batch| {
            Ok(out[0].write(&columns::taken(batch, &self.columns, &[])?)?)
        })
    }
}

#[cfg(test)]
mod tests;

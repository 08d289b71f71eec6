//! Small operators that do real work. What happens in them is noted down in a `Probe`, found by the folder that their node stands in, which is no fact.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_cache::TableWriter;
use retort_engine::{
    Answers, Batching, Carry, Cx, Define, Env, Failure, Input, Inputs, Lane, Lineage, Memo, OpInfo, Operator, Problem,
    RowBatch, RowOp, SlotSpec, TableOp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::verify::Moody;

/// All of them, as a registry.
pub(crate) const OPS: &[OpInfo] = &[
    OpInfo::of::<Count>(),
    OpInfo::of::<Files>(),
    OpInfo::of::<First>(),
    OpInfo::of::<Join>(),
    OpInfo::of::<Meet>(),
    OpInfo::of::<Moody>(),
    OpInfo::of::<Pick>(),
    OpInfo::of::<Upper>(),
    OpInfo::of::<Words>(),
];

/// What happened in the operators of one space.
#[derive(Default)]
pub(crate) struct Probe {
    /// Every text that an operator was asked, in the order in which they came.
    pub(crate) asked: Mutex<Vec<String>>,
    /// Until it is set, a row `wait` is not answered.
    pub(crate) open: AtomicBool,
    /// Nodes of `meet` that are at work now, and the most there ever were.
    now: AtomicUsize,
    pub(crate) most: AtomicUsize,
}

/// The probe of a folder.
pub(crate) fn probe(base: &Path) -> Arc<Probe> {
    static PROBES: OnceLock<Mutex<BTreeMap<PathBuf, Arc<Probe>>>> = OnceLock::new();
    PROBES.get_or_init(Mutex::default).lock().unwrap().entry(base.to_path_buf()).or_default().clone()
}

/// Lists the text files of a folder, and reads each.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Files {
    paths: String,
    #[serde(default)]
    tail: String,
}

struct Listing {
    folder: PathBuf,
}

struct Reader {
    folder: PathBuf,
    tail: String,
    probe: Arc<Probe>,
}

impl Define for Files {
    const NAME: &'static str = "files";
    const VERSION: u32 = 1;
    const PLACES: &'static [&'static str] = &["paths"];

    fn source(&self, env: &Env<'_>) -> Option<Box<dyn TableOp>> {
        Some(Box::new(Listing { folder: env.base.join(&self.paths) }))
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        let folder = env.base.join(&self.paths);
        Ok(Operator::Rows(Box::new(Reader { folder, tail: self.tail, probe: probe(env.base) })))
    }
}

impl TableOp for Listing {
    fn slots(&self) -> Vec<SlotSpec> {
        Vec::new()
    }

    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![text_schema(&["path", "digest"])])
    }

    fn run(&self, _inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let entries = std::fs::read_dir(&self.folder).map_err(Failure::op)?;
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        let digests = paths.iter().map(|path| Ok(cx.file_digest(path)?.hex()));
        let digests: Vec<String> = digests.collect::<Result<_, Failure>>()?;
        Ok(out[0].write(&texts(&["path", "digest"], &[names, digests]))?)
    }
}

impl RowOp for Reader {
    fn reads(&self) -> Vec<String> {
        vec!["path".into(), "digest".into()]
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(text_schema(&["text"]))
    }

    fn carries(&self) -> Carry {
        Carry::Except(vec!["digest".into()])
    }

    fn memo(&self) -> Memo {
        Memo::Remember
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        for (row, path) in rows.batch.column(0).as_string::<i32>().iter().enumerate() {
            let path = path.unwrap();
            self.probe.asked.lock().unwrap().push(path.into());
            let text = std::fs::read_to_string(self.folder.join(path)).map_err(Failure::op)?;
            out.keep(row, texts(&["text"], &[vec![text + &self.tail]]))?;
        }
        Ok(())
    }
}

/// Upper case, row by row. Some texts have a meaning: `bad` is refused, `fail` fails, `panic` panics, `wait` waits.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upper {
    #[serde(default = "text_column")]
    column: String,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    recompute: bool,
    #[serde(default = "two")]
    batch: usize,
    #[serde(default)]
    serial: bool,
}

fn text_column() -> String {
    "text".into()
}

fn two() -> usize {
    2
}

struct Upperer {
    config: Upper,
    probe: Arc<Probe>,
}

impl Define for Upper {
    const NAME: &'static str = "upper";
    const VERSION: u32 = 3;

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        if self.batch == 0 {
            return Err(Problem::at_field("batch", "a batch has at least one row"));
        }
        Ok(Operator::Rows(Box::new(Upperer { config: self, probe: probe(env.base) })))
    }
}

impl RowOp for Upperer {
    fn reads(&self) -> Vec<String> {
        vec![self.config.column.clone()]
    }

    fn reads_if_there(&self) -> Vec<String> {
        vec!["language".into()]
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(text_schema(&[&self.config.column]))
    }

    fn memo(&self) -> Memo {
        if self.config.recompute { Memo::Recompute } else { Memo::Remember }
    }

    fn batching(&self) -> Batching {
        Batching { rows: self.config.batch, parallel: !self.config.serial }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        let language = rows.batch.column_by_name("language").map(|column| column.as_string::<i32>().clone());
        for (row, text) in rows.batch.column(0).as_string::<i32>().iter().enumerate() {
            let text = text.unwrap_or_default();
            self.probe.asked.lock().unwrap().push(text.into());
            match text.trim() {
                "bad" => out.reject(row, "it is bad")?,
                "fail" => return Err(Failure::op("the world got in the way")),
                "panic" => panic!("a defect"),
                "forget" => {}
                other => {
                    while other == "wait" && !self.probe.open.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let language = language.as_ref().map_or("", |language| language.value(row));
                    let suffix = self.config.suffix.as_deref().unwrap_or_default();
                    let text = format!("{}{suffix}{language}", text.to_uppercase());
                    out.keep(row, texts(&[&self.config.column], &[vec![text]]))?;
                }
            }
        }
        Ok(())
    }
}

/// A row a word, and nothing else; a word with a `#` is refused.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Words {}

impl Define for Words {
    const NAME: &'static str = "words";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Rows(Box::new(self)))
    }
}

impl RowOp for Words {
    fn reads(&self) -> Vec<String> {
        vec!["text".into()]
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(text_schema(&["word"]))
    }

    fn carries(&self) -> Carry {
        Carry::Except(vec!["text".into()])
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        for (row, text) in rows.batch.column(0).as_string::<i32>().iter().enumerate() {
            let words = text.unwrap().split_whitespace().map(str::to_owned);
            let (bad, words): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('#'));
            let words = texts(&["word"], &[words]);
            match bad.as_slice() {
                [] => out.keep(row, words)?,
                bad => out.keep_some(row, words, format!("left out: {}", bad.join(" ")))?,
            }
        }
        Ok(())
    }
}

/// The first characters of a text, and nothing else.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct First {
    n: usize,
}

impl Define for First {
    const NAME: &'static str = "first";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Rows(Box::new(self)))
    }
}

impl RowOp for First {
    fn reads(&self) -> Vec<String> {
        vec!["text".into()]
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(text_schema(&["text"]))
    }

    fn carries(&self) -> Carry {
        Carry::Nothing
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        for (row, text) in rows.batch.column(0).as_string::<i32>().iter().enumerate() {
            out.keep(row, texts(&["text"], &[vec![text.unwrap().chars().take(self.n).collect()]]))?;
        }
        Ok(())
    }
}

/// Two tables: how many rows each has, and all the rows of the first.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Join {}

impl Define for Join {
    const NAME: &'static str = "join";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

impl TableOp for Join {
    fn slots(&self) -> Vec<SlotSpec> {
        vec![SlotSpec::required("left"), SlotSpec::optional("right")]
    }

    fn outputs(&self) -> Vec<String> {
        vec!["rows".into(), "counts".into()]
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        let left = inputs.get("left").cloned().unwrap_or_else(|| text_schema(&[]));
        Ok(vec![left, text_schema(&["slot", "rows"])])
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        let slots = inputs.0.iter().map(|(slot, _)| slot.clone()).collect();
        let rows = inputs.0.iter().map(|(_, input)| input.rows().to_string()).collect();
        let left = inputs.get("left").unwrap();
        let batches = left.batches()?.collect::<Result<Vec<_>, _>>()?;
        out[0].write(&concat_batches(&left.schema, &batches).map_err(Failure::op)?)?;
        Ok(out[1].write(&texts(&["slot", "rows"], &[slots, rows]))?)
    }
}

/// Stays at work until `wants` nodes are, or for some time; tells the probe how many were.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meet {
    name: String,
    wants: usize,
    #[serde(default)]
    model: bool,
}

struct Meeting {
    config: Meet,
    probe: Arc<Probe>,
}

impl Define for Meet {
    const NAME: &'static str = "meet";
    const VERSION: u32 = 1;

    fn lane(&self) -> Lane {
        if self.model { Lane::Model } else { Lane::Cpu }
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        let probe = probe(env.base);
        Ok(Operator::Table(Box::new(Meeting { config: self, probe })))
    }
}

impl TableOp for Meeting {
    fn slots(&self) -> Vec<SlotSpec> {
        vec![SlotSpec::optional("from")]
    }

    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![text_schema(&["name"])])
    }

    fn run(&self, _inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        let here = 1 + self.probe.now.fetch_add(1, Ordering::SeqCst);
        self.probe.most.fetch_max(here, Ordering::SeqCst);
        for _ in 0..200 {
            if self.probe.most.load(Ordering::SeqCst) >= self.config.wants {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.probe.now.fetch_sub(1, Ordering::SeqCst);
        Ok(out[0].write(&texts(&["name"], &[vec![self.config.name.clone()]]))?)
    }
}

/// At most so many of equal rows, in the order of their words.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pick {
    most: usize,
}

impl Define for Pick {
    const NAME: &'static str = "pick";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

/// The rows of a table of texts.
fn rows_of(input: &Input) -> Result<Vec<Vec<String>>, Failure> {
    let batch = input.read()?;
    let value = |column: &ArrayRef, row: usize| column.as_string::<i32>().value(row).to_string();
    Ok((0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| value(column, row)).collect()).collect())
}

impl TableOp for Pick {
    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![text_schema(&["path", "word"])])
    }

    fn lineage(&self, _output: &str, _slot: &str) -> Lineage {
        Lineage::Passed
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        let mut seen = BTreeMap::<Vec<String>, usize>::new();
        let mut rows = rows_of(&inputs.0[0].1)?;
        rows.retain(|row| {
            let n = seen.entry(row.clone()).or_default();
            *n += 1;
            *n <= self.most
        });
        rows.sort_by(|one, other| one[1].cmp(&other[1]));
        let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect::<Vec<_>>();
        Ok(out[0].write(&texts(&["path", "word"], &[column(0), column(1)]))?)
    }
}

/// How often there is each word.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {}

impl Define for Count {
    const NAME: &'static str = "count";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

impl TableOp for Count {
    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![text_schema(&["counted", "n"])])
    }

    fn lineage(&self, _output: &str, _slot: &str) -> Lineage {
        Lineage::Columns(vec![("counted".into(), "word".into())])
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        let mut counts = BTreeMap::<String, usize>::new();
        for row in rows_of(&inputs.0[0].1)? {
            *counts.entry(row[1].clone()).or_default() += 1;
        }
        let (words, counts) = counts.into_iter().map(|(word, n)| (word, n.to_string())).unzip();
        Ok(out[0].write(&texts(&["counted", "n"], &[words, counts]))?)
    }
}

/// A schema of text columns.
pub(crate) fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect::<Vec<_>>()))
}

fn texts(names: &[&str], columns: &[Vec<String>]) -> RecordBatch {
    let columns = columns.iter().map(|column| Arc::new(StringArray::from_iter_values(column)) as ArrayRef).collect();
    RecordBatch::try_new(text_schema(names), columns).unwrap()
}

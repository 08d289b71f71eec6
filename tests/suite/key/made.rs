//! The fuzzer's operators as the engine knows them, three versions of each, with a probe in every node that counts what it is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use retort_cache::TableWriter;
use retort_engine::{
    Answers, Batching, Carry, Cx, Define, Env, Failure, Input, Inputs, Memo, OpInfo, Operator, Problem, RowBatch,
    RowOp, SlotSpec, TableOp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ops::{Carries, Docs, Kind, Row, Said, Whole, batch_of, cells, identity, mix, text_schema};

/// The registry, with each operator in its version.
pub(crate) fn registry(versions: &BTreeMap<String, u32>) -> Vec<OpInfo> {
    let version = |op: &str| versions.get(op).copied().unwrap_or(1);
    let mut ops = retort_ops::REGISTRY.to_vec();
    ops.push(match version("row") {
        1 => OpInfo::of::<RowAt<1>>(),
        2 => OpInfo::of::<RowAt<2>>(),
        _ => OpInfo::of::<RowAt<3>>(),
    });
    ops.push(match version("whole") {
        1 => OpInfo::of::<WholeAt<1>>(),
        2 => OpInfo::of::<WholeAt<2>>(),
        _ => OpInfo::of::<WholeAt<3>>(),
    });
    ops.push(match version("docs") {
        1 => OpInfo::of::<DocsAt<1>>(),
        2 => OpInfo::of::<DocsAt<2>>(),
        _ => OpInfo::of::<DocsAt<3>>(),
    });
    ops
}

/// What happened in a node's operator, and what shall happen.
#[derive(Default)]
pub(crate) struct Probe {
    /// Identities of the rows that `apply` was given.
    pub(crate) asked: Mutex<Vec<String>>,
    /// Of those, the ones whose answer was taken.
    pub(crate) answered: Mutex<Vec<String>>,
    /// Calls of a table operator's `run`.
    pub(crate) runs: AtomicI64,
    trouble: Mutex<Option<Trouble>>,
}

/// What gets in the way, after so many rows.
#[derive(Clone)]
pub(crate) struct Trouble {
    pub(crate) after: Arc<AtomicI64>,
    /// Set to ask the run to stop; else the operator fails.
    pub(crate) stop: Option<Arc<AtomicBool>>,
}

impl Probe {
    pub(crate) fn begin(&self, trouble: Option<Trouble>) {
        self.asked.lock().unwrap().clear();
        self.answered.lock().unwrap().clear();
        self.runs.store(0, Ordering::Relaxed);
        *self.trouble.lock().unwrap() = trouble;
    }

    fn trouble(&self) -> Result<(), Failure> {
        let trouble = self.trouble.lock().unwrap().clone();
        let Some(trouble) = trouble.filter(|trouble| trouble.after.fetch_sub(1, Ordering::Relaxed) <= 0) else {
            return Ok(());
        };
        match trouble.stop {
            Some(stop) => stop.store(true, Ordering::Relaxed),
            None => return Err(Failure::op("the world got in the way")),
        }
        Ok(())
    }
}

fn probes() -> &'static Mutex<BTreeMap<PathBuf, Arc<Probe>>> {
    static PROBES: OnceLock<Mutex<BTreeMap<PathBuf, Arc<Probe>>>> = OnceLock::new();
    PROBES.get_or_init(Mutex::default)
}

/// The probe of a node, told by the folder it stands in.
pub(crate) fn probe(base: &Path) -> Arc<Probe> {
    probes().lock().unwrap().entry(base.to_path_buf()).or_default().clone()
}

/// Forgets the probes below a folder.
pub(crate) fn forget_probes(root: &Path) {
    probes().lock().unwrap().retain(|base, _| !base.starts_with(root));
}

macro_rules! at_version {
    ($at:ident, $config:ident, $name:literal, $env:ident, $this:ident, $places:expr, $source:expr, $build:expr) => {
        #[derive(Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        struct $at<const V: u32>($config);

        impl<const V: u32> Define for $at<V> {
            const NAME: &'static str = $name;
            const VERSION: u32 = V;
            const PLACES: &'static [&'static str] = $places;

            fn source(&self, $env: &Env<'_>) -> Option<Box<dyn TableOp>> {
                let $this = &self.0;
                $source
            }

            fn build(self, $env: &Env<'_>) -> Result<Operator, Problem> {
                let $this = self.0;
                Ok($build(Made { config: $this, version: V, base: $env.base.to_path_buf(), probe: probe($env.base) }))
            }
        }
    };
}

at_version!(
    RowAt,
    Row,
    "row",
    env,
    config,
    &[],
    {
        let _ = (config, env);
        None
    },
    |made| Operator::Rows(Box::new(made))
);
at_version!(
    WholeAt,
    Whole,
    "whole",
    env,
    config,
    &[],
    {
        let _ = (config, env);
        None
    },
    |made| Operator::Table(Box::new(made))
);
at_version!(
    DocsAt,
    Docs,
    "docs",
    env,
    config,
    &["paths"],
    Some(Box::new(Listing { folder: folder_of(env.base, &config.paths) })),
    |made| Operator::Rows(Box::new(made))
);

struct Made<T> {
    config: T,
    version: u32,
    base: PathBuf,
    probe: Arc<Probe>,
}

/// Every node stands in a folder of its own beside the documents.
fn folder_of(base: &Path, name: &str) -> PathBuf {
    base.parent().unwrap().join("docs").join(name)
}

impl RowOp for Made<Row> {
    fn reads(&self) -> Vec<String> {
        self.config.reads.clone()
    }

    fn reads_if_there(&self) -> Vec<String> {
        self.config.maybe.clone()
    }

    fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
        Ok(self.config.added())
    }

    fn carries(&self) -> Carry {
        match self.config.carries {
            Carries::All => Carry::All,
            Carries::Some => Carry::Except(self.config.drops.clone()),
            Carries::Nothing => Carry::Nothing,
        }
    }

    fn memo(&self) -> Memo {
        if self.config.remember { Memo::Remember } else { Memo::Recompute }
    }

    fn batching(&self) -> Batching {
        Batching { rows: self.config.batch, parallel: self.config.parallel }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        let schema = self.config.added();
        let one = |row: usize| {
            let said = self.config.say(self.version, &cells(&rows.batch, row));
            answer(&self.probe, rows, row, &said, &schema, out)
        };
        let mut order: Vec<usize> = (0..rows.batch.num_rows()).collect();
        if !self.config.scramble {
            return order.into_iter().try_for_each(one);
        }
        order.sort_by_key(|row| mix(*row as u64 ^ self.config.salt));
        let (front, back) = order.split_at(order.len() / 2);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| front.iter().copied().try_for_each(one));
            let ours = back.iter().copied().try_for_each(one);
            other.join().unwrap().and(ours)
        })
    }
}

fn answer(
    probe: &Probe,
    rows: &RowBatch,
    row: usize,
    said: &Said,
    schema: &SchemaRef,
    out: &Answers<'_>,
) -> Result<(), Failure> {
    let identity = identity(&rows.batch, row);
    probe.asked.lock().unwrap().push(identity.clone());
    probe.trouble()?;
    match said {
        Said::Rows(said) => out.keep(row, batch_of(schema, said))?,
        Said::Partly(said, reason) => out.keep_some(row, batch_of(schema, said), reason)?,
        Said::Refused(reason) => out.reject(row, reason)?,
    }
    probe.answered.lock().unwrap().push(identity);
    Ok(())
}

impl TableOp for Made<Whole> {
    fn slots(&self) -> Vec<SlotSpec> {
        match self.config.kind {
            Kind::Join => vec![SlotSpec::required("left"), SlotSpec::optional("right")],
            _ => vec![SlotSpec::required("from")],
        }
    }

    fn outputs(&self) -> Vec<String> {
        self.config.outputs()
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(self.config.schemas(&inputs.0[0].1))
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        self.probe.runs.fetch_add(1, Ordering::Relaxed);
        self.probe.trouble()?;
        let read = |(slot, input): &(String, Input)| Ok((slot.clone(), input.read()?));
        let inputs = inputs.0.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        for (batch, out) in self.config.say(self.version, &inputs).into_iter().zip(out) {
            out.write(&batch)?;
        }
        Ok(())
    }
}

struct Listing {
    folder: PathBuf,
}

impl TableOp for Listing {
    fn slots(&self) -> Vec<SlotSpec> {
        Vec::new()
    }

    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![text_schema(&["path", "digest"])])
    }

    fn run(&self, _inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(Failure::op)? {
            let path = entry.map_err(Failure::op)?.path();
            files.push((path.file_name().unwrap().to_string_lossy().into_owned(), cx.file_digest(&path)?.hex()));
        }
        files.sort();
        Ok(out[0].write(&listing(&files))?)
    }
}

/// A listing as a table.
pub(crate) fn listing(files: &[(String, String)]) -> RecordBatch {
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(files.iter().map(|(path, _)| path)));
    let digests: ArrayRef = Arc::new(StringArray::from_iter_values(files.iter().map(|(_, digest)| digest)));
    RecordBatch::try_new(text_schema(&["path", "digest"]), vec![paths, digests]).unwrap()
}

impl RowOp for Made<Docs> {
    fn reads(&self) -> Vec<String> {
        self.config.reads()
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

    fn batching(&self) -> Batching {
        Batching { rows: 2, parallel: true }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
        let folder = folder_of(&self.base, &self.config.paths);
        for row in 0..rows.batch.num_rows() {
            let column =
                |name: &str| rows.batch.column_by_name(name).map(|column| column.as_string::<i32>().value(row));
            let path = match column("path") {
                Some(path) => folder.join(path),
                None => find(&folder, column("digest").unwrap(), cx)?,
            };
            let content = std::fs::read_to_string(path).map_err(Failure::op)?;
            let said = self.config.say(self.version, &content);
            answer(&self.probe, rows, row, &said, &text_schema(&["text"]), out)?;
        }
        Ok(())
    }
}

fn find(folder: &Path, digest: &str, cx: &Cx<'_>) -> Result<PathBuf, Failure> {
    for entry in std::fs::read_dir(folder).map_err(Failure::op)? {
        let path = entry.map_err(Failure::op)?.path();
        if cx.file_digest(&path)?.hex() == digest {
            return Ok(path);
        }
    }
    Err(Failure::op(format!("no file of digest {digest}")))
}

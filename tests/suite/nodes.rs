//! Runs graphs of nodes in memory, for the other modules: a source of rows that stand in its config, a rearrangement of rows, and the tables that came out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_cache::digests::FileDigests;
use retort_cache::{Memory, Store, TableWriter};
use retort_engine::{
    Asset, Assets, Cx, Define, Env, Event, Failure, Feed, Input, Inputs, Limits, NodeSpec, OpInfo, Operator, Problem,
    SlotSpec, TableOp, World,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The registry and the operators of this module.
pub(crate) fn ops() -> Vec<OpInfo> {
    let mut ops = retort_ops::REGISTRY.to_vec();
    ops.extend([OpInfo::of::<Literal>(), OpInfo::of::<Arrange>()]);
    ops
}

/// A node at the root of the repository.
pub(crate) fn node(name: &str, op: &str, from: &str, with: Value) -> NodeSpec {
    let from = if from.is_empty() { Vec::new() } else { vec![Feed { slot: None, sources: vec![from.into()] }] };
    NodeSpec { name: name.into(), op: op.into(), from, with, base: root() }
}

/// Runs nodes on an empty store and reads the tables of `wanted`: node and port.
pub(crate) fn run(specs: &[NodeSpec], wanted: &[(&str, &str)]) -> Vec<RecordBatch> {
    let graph = retort_engine::check("test", specs, &ops());
    let graph = graph.map_err(|problems| format!("{problems:#?}")).unwrap();
    let (store, digests, cancelled) = (Memory::default(), FileDigests::in_memory(), AtomicBool::new(false));
    let failures = std::sync::Mutex::new(Vec::new());
    let observer = |event: &Event| {
        if let retort_engine::EventKind::Failed { error } = &event.kind {
            failures.lock().unwrap().push(format!("{}: {error}", event.node));
        }
    };
    let world = World { store: &store, assets: &NoAssets, digests: &digests, events: &observer, cancelled: &cancelled };
    let summary = retort_engine::run(&graph, &[], world, &Limits { jobs: 2, keep_going: false, force: Vec::new() });
    assert_eq!(summary.ran, specs.len(), "{:?}", failures.lock().unwrap());
    let table = |(node, port): &(&str, &str)| {
        let answer = store.last(&format!("test/{node}")).unwrap().unwrap();
        let output = answer.outputs.iter().find(|output| output.port == *port).unwrap();
        store.open(output.content).unwrap().unwrap().read().unwrap()
    };
    wanted.iter().map(table).collect()
}

/// A table that stands in its config: text columns, rows of text or null.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Literal {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Define for Literal {
    const NAME: &'static str = "literal";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

impl TableOp for Literal {
    fn slots(&self) -> Vec<SlotSpec> {
        Vec::new()
    }

    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        let field = |(at, name): (usize, &String)| {
            Field::new(name, DataType::Utf8, self.rows.iter().any(|row| row[at].is_none()))
        };
        Ok(vec![Arc::new(Schema::new(self.columns.iter().enumerate().map(field).collect::<Vec<_>>()))])
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        let column = |at: usize| -> ArrayRef {
            Arc::new(self.rows.iter().map(|row| row[at].as_deref()).collect::<StringArray>())
        };
        let columns = (0..self.columns.len()).map(column).collect();
        let schema = self.schemas(&Inputs(Vec::new())).ok().unwrap().remove(0);
        assert!(inputs.0.is_empty());
        Ok(out[0].write(&RecordBatch::try_new(schema, columns).unwrap())?)
    }
}

/// Which rows of a table go on, and in which order.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    AsTheyAre,
    Reversed,
    FirstThird,
    Others,
    Twice,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arrange {
    order: Order,
}

impl Define for Arrange {
    const NAME: &'static str = "arrange";
    const VERSION: u32 = 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        Ok(Operator::Table(Box::new(self)))
    }
}

impl TableOp for Arrange {
    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![inputs.0[0].1.clone()])
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], _cx: &Cx<'_>) -> Result<(), Failure> {
        let batch = inputs.0[0].1.read()?;
        let n = batch.num_rows() as u64;
        let rows: Vec<u64> = match self.order {
            Order::AsTheyAre => (0..n).collect(),
            Order::Reversed => (0..n).rev().collect(),
            Order::FirstThird => (0..n / 3).collect(),
            Order::Others => (n / 3..n).collect(),
            Order::Twice => (0..n).chain(0..n).collect(),
        };
        Ok(out[0].write(&take_record_batch(&batch, &UInt64Array::from(rows)).unwrap())?)
    }
}

/// There are none here.
pub(crate) struct NoAssets;

impl Assets for NoAssets {
    fn digest(&self, asset: &Asset) -> Result<String, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }

    fn path(&self, asset: &Asset, _: &mut dyn FnMut(u64, u64) -> Result<(), Failure>) -> Result<PathBuf, Failure> {
        Err(Failure::op(format!("no asset `{}` here", asset.name)))
    }
}

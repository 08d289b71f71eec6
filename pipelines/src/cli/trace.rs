//! `retort trace`: where a row came from, up to its page and paragraph, and what came of it.
//!
//! The engine follows the rows (`engine/src/lineage.rs`); here they are put in words. `back` goes to the document, `forth` to the
//! exam, `passages` finds the paragraphs, `tree` draws.

mod back;
mod forth;
mod passages;
mod tree;

use std::io::Write;

use arrow::array::{Array, RecordBatch};
use retort_cache::Table;
use retort_engine::lineage::{Spot, Trail, row};
use retort_engine::{Graph, NodeId, OpInfo};
use serde_json::{Map, Value, json};

use super::pipeline::{PipelineArgs, port};
use super::stop::{Ended, Result, Stop, warn};
use super::workplace::width_of_stdout;
use crate::observe::words;
use crate::tables::{self, Filter};

/// Rows that a message names.
const NAMED: usize = 5;
/// The longest that a value is shown.
const LONGEST: usize = 100;

/// Arguments of `trace`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node, or one of its outputs
    #[arg(value_name = "NODE[.OUTPUT]")]
    node: String,
    /// The row's number, from 0, or a condition that one row meets: `question=…`, `text~swap`
    #[arg(value_name = "ROW")]
    row: String,
    /// What came of the row, instead of where it came from
    #[arg(long)]
    forward: bool,
    /// Rows of one node that are shown under another [default: 10, with `--json` all]
    #[arg(long, short = 'n', value_name = "N")]
    rows: Option<usize>,
    /// Passages in full, not their beginnings and ends
    #[arg(long)]
    full: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// What a trace is told with.
struct Teller<'a> {
    graph: &'a Graph,
    trail: Trail<'a>,
    /// Rows of one node under another.
    most: usize,
    full: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let graph = &loaded.graph;
    let (node, named) = port(graph, &args.node)?;
    let port = graph.node(node).ports.iter().position(|(port, _)| Some(port) == named.as_ref()).unwrap_or(0);
    let place = args.pipeline.look()?;
    let events = |_: &retort_engine::Event| ();
    let targets = if args.forward { Vec::new() } else { vec![node] };
    let trail = Trail::new(graph, &targets, place.world(&events));
    place.save();
    let trail = trail?;
    let name = &graph.node(node).name;
    let command = format!("retort run {} {name}", args.pipeline.path.display());
    let hint = format!("`{command}` makes one");
    let table = trail.table(node, port)?.map_err(|lost| Stop::wrong(lost.to_string()).hint(hint))?;
    if !trail.is_current(node) {
        warn(&format!(
            "this is an earlier answer of `{name}`: the pipeline or its files have changed since (`{command}`)"
        ));
    }
    let spot = Spot { node, port, row: find(&table, &args.row, &args.node)? };
    let most = args.rows.unwrap_or(if args.json { usize::MAX } else { 10 });
    let teller = Teller { graph, trail, most, full: args.full };
    let width = width_of_stdout();
    let told = match (args.forward, args.json) {
        (true, true) => format!("{}\n", forth::follow(&teller, spot)?.object(&teller, spot)?),
        (true, false) => forth::follow(&teller, spot)?.tree(&teller, spot)?.render(width),
        (false, true) => format!("{}\n", back::follow(&teller, spot)?.object(&teller)),
        (false, false) => back::follow(&teller, spot)?.tree(&teller).render(width),
    };
    std::io::stdout().lock().write_all(told.as_bytes())?;
    Ok(Ended::DONE)
}

/// The row that is meant: a number, or the only one that meets a condition.
fn find(table: &Table, wanted: &str, node: &str) -> Result<u64> {
    if let Ok(row) = wanted.parse::<u64>() {
        if row < table.rows {
            return Ok(row);
        }
        let hint = match table.rows {
            0 => "it has none".into(),
            n => format!("its rows are 0 to {}", n - 1),
        };
        return Err(Stop::wrong(format!("`{node}` has no row {row}")).hint(hint));
    }
    let filter = Filter::parse(wanted).and_then(|filter| filter.check(&table.schema).map(|()| filter));
    let filter = filter.map_err(|error| {
        Stop::wrong(error.to_string()).hint("a row is a number, from 0, or a condition that one meets: `column=value`")
    })?;
    let (mut found, mut before) = (Vec::new(), 0);
    for batch in table.batches()? {
        let batch = batch?;
        let met = filter.mask(&batch);
        found.extend((0..batch.num_rows()).filter(|row| met.value(*row)).map(|row| before + row as u64));
        before += batch.num_rows() as u64;
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Stop::wrong(format!("no row of `{node}` meets `{wanted}`"))),
        several => {
            let named: Vec<_> = several.iter().take(NAMED).map(ToString::to_string).collect();
            let more = if several.len() > NAMED { ", …" } else { "" };
            let n = words::count(several.len() as u64, "row");
            Err(Stop::wrong(format!("{n} of `{node}` meet `{wanted}`"))
                .hint(format!("name one by its number: {}{more}", named.join(", "))))
        }
    }
}

impl Teller<'_> {
    /// `chunks`, or `sets.train` where it has several outputs.
    fn name(&self, node: NodeId, port: usize) -> String {
        let node = self.graph.node(node);
        match node.ports[port].0.as_str() {
            "out" => node.name.clone(),
            port => format!("{}.{port}", node.name),
        }
    }

    /// `chunks row 5 (chunk)`.
    fn head(&self, spot: Spot) -> String {
        let op = &self.graph.node(spot.node).op;
        format!("{} row {} ({op})", self.name(spot.node, spot.port), words::number(spot.row))
    }

    /// The values of a row, if its table is there.
    fn row(&self, spot: Spot) -> Result<Option<RecordBatch>> {
        match self.trail.table(spot.node, spot.port)? {
            Ok(table) => Ok(row(&table, spot.row)?),
            Err(_) => Ok(None),
        }
    }

    fn object(&self, spot: Spot, values: Option<&RecordBatch>) -> Value {
        let node = self.graph.node(spot.node);
        json!({
            "node": node.name,
            "output": node.ports[spot.port].0,
            "op": node.op,
            "row": spot.row,
            "values": values.map(object),
        })
    }
}

/// The columns of a row that another does not have, or has otherwise; nested ones, and a document's whole text, are left out.
fn news(row: &RecordBatch, known: Option<&RecordBatch>) -> Vec<String> {
    let schema = row.schema();
    let is_document = schema.index_of("blocks").is_ok();
    let mut lines = Vec::new();
    for (field, array) in schema.fields().iter().zip(row.columns()) {
        let is_list_of_text =
            matches!(field.data_type(), arrow::datatypes::DataType::List(item) if !item.data_type().is_nested());
        let left_out = field.data_type().is_nested() && !is_list_of_text || is_document && field.name() == "text";
        let known = known.and_then(|known| known.column_by_name(field.name()));
        if left_out || array.is_null(0) || known.is_some_and(|known| **known == **array) {
            continue;
        }
        let value = tables::short(array, 0);
        lines.push(format!("{}: {}", field.name(), words::cut_middle(&value, LONGEST)));
    }
    lines
}

/// A row as an object, but for nested columns and a document's whole text.
fn object(row: &RecordBatch) -> Value {
    let schema = row.schema();
    let is_document = schema.index_of("blocks").is_ok();
    let kept: Vec<usize> = (0..schema.fields().len())
        .filter(|at| {
            let field = schema.field(*at);
            let left_out: &[&str] = if is_document { &["blocks", "links", "anchors", "text"] } else { &["blocks"] };
            !left_out.contains(&field.name().as_str())
        })
        .collect();
    let mut out = Vec::new();
    let written = row.project(&kept).map(|row| tables::json_lines(&mut out, &row));
    match written {
        Ok(Ok(())) => serde_json::from_slice(&out).unwrap_or_default(),
        _ => Value::Object(Map::new()),
    }
}

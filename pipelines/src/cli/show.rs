//! `retort show`: the rows of a table.

mod copies;

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use retort_cache::{StoreError, Table};
use retort_engine::graph::REJECTS_PORT;
use retort_engine::{Event, Graph, NodeId, OpInfo};

use super::pipeline::{PipelineArgs, answer, port};
use super::stop::{Ended, Result, Stop, say};
use super::workplace::{Workplace, width_of_stdout};
use crate::observe::words;
use crate::report::Log;
use crate::tables::{self, Filter, FilterError, Format};

/// Rows that a grid shows, where no number is named.
const ROWS: usize = 10;
/// A table of up to so many rows is shown whole.
const FEW: u64 = 24;

/// The longest log that is plotted.
const PLOTTED: u64 = 1_000_000;
/// Blocks of a plotted line, at most.
const BLOCKS: usize = 48;

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The node, or one of its outputs; of one that a matrix or a `foreach` multiplies, all copies in one table
    #[arg(value_name = "NODE[.OUTPUT]")]
    node: String,
    /// Rows at most [default: as a table 10 of more than 24, else all]
    #[arg(long, short = 'n', value_name = "N")]
    rows: Option<usize>,
    /// Columns, in this order [default: all]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    columns: Vec<String>,
    /// Rows that meet a condition: `column=value`, `!=`, `~` (contains), `<`, `>`, `<=`, `>=`; several must all be met
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// The columns with their types, no rows
    #[arg(long)]
    schema: bool,
    /// The rows that the node refused, with the reasons
    #[arg(long)]
    rejects: bool,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let loaded = args.pipeline.load(ops)?;
    let place = args.pipeline.look()?;
    let (copies, output) = copies::of(&loaded.graph, &args.node);
    if loaded.graph.find(&args.node).is_none() && !copies.is_empty() {
        return args.compare(&loaded.graph, &place, &copies, output.as_deref());
    }
    let table = args.table(&loaded.graph, &place, &args.node)?;
    place.save();
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.schema {
        out.write_all(tables::columns(&table.schema).render(None).as_bytes())?;
        say(&format!("{} in {}", words::count(table.rows, "row"), table.id));
    } else {
        args.rows(&table.schema, table.rows, &mut table.batches()?, &mut out)?;
        if args.format == Format::Table && args.columns.is_empty() && table.rows <= PLOTTED {
            out.write_all(plot(&table.read()?).as_bytes())?;
        }
    }
    out.flush()?;
    Ok(Ended::DONE)
}

/// What a log measured, a line of blocks each, from the first value to the last; nothing for a table that is no log.
fn plot(batch: &RecordBatch) -> String {
    let mut text = String::new();
    for measure in Log::read(batch).map(|log| log.measures).unwrap_or_default() {
        let values: Vec<f64> = measure.points.iter().map(|point| point.1).collect();
        let Some(blocks) = tables::spark(&values, BLOCKS) else { continue };
        let phase = if measure.phase.is_empty() { String::new() } else { format!("{}, ", measure.phase) };
        let [first, last] = [values[0], values[values.len() - 1]].map(words::measure);
        let named = format!("{phase}{}", measure.name);
        text.extend([format!("{named:<24} {first:>9} {blocks} {last}\n")]);
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

impl Args {
    /// The copies of a node in one table, each row with the values of its matrix keys.
    fn compare(
        &self,
        graph: &Graph,
        place: &Workplace,
        copies: &[copies::Copy],
        output: Option<&str>,
    ) -> Result<Ended> {
        let name = |copy: &copies::Copy| output.map_or(copy.node.clone(), |output| format!("{}.{output}", copy.node));
        let tables = copies.iter().map(|copy| self.table(graph, place, &name(copy))).collect::<Result<Vec<_>>>()?;
        place.save();
        let own = &tables[0].schema;
        if let Some(other) = tables.iter().position(|table| table.schema.fields().len() != own.fields().len()) {
            let message = format!("`{}` and `{}` have other columns", copies[0].node, copies[other].node);
            return Err(Stop::wrong(message).hint("name one of them"));
        }
        let schema = copies::schema(copies, own);
        let mut batches = Vec::new();
        for (i, table) in tables.iter().enumerate() {
            for batch in table.batches()? {
                batches.push(Ok(copies::rows(copies, i, &batch?, &schema)));
            }
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.schema {
            out.write_all(tables::columns(&schema).render(None).as_bytes())?;
        } else {
            let n_rows = tables.iter().map(|table| table.rows).sum();
            self.rows(&schema, n_rows, &mut batches.into_iter(), &mut out)?;
        }
        out.flush()?;
        Ok(Ended::DONE)
    }

    fn table(&self, graph: &Graph, place: &Workplace, name: &str) -> Result<Table> {
        let (id, port) = port(graph, name)?;
        let answer = answer(&self.pipeline, graph, id, place)?;
        let wanted = self.port(graph, id, port)?;
        let output = answer.outputs.iter().find(|output| wanted.as_ref().is_none_or(|port| *port == output.port));
        let output = output.ok_or_else(|| Stop::wrong(format!("`{name}` has no such output")))?;
        let events = |_: &Event| ();
        place.world(&events).store.open(output.content)?.ok_or_else(|| {
            let again = format!("`retort run {}` makes it again", self.pipeline.path.display());
            Stop::wrong(format!("the table of `{name}` is gone from the store")).hint(again)
        })
    }

    /// The output to show; the first where none is named.
    fn port(&self, graph: &Graph, id: NodeId, named: Option<String>) -> Result<Option<String>> {
        if !self.rejects || named.is_some() {
            return Ok(named);
        }
        match graph.node(id).port(REJECTS_PORT) {
            Some(_) => Ok(Some(REJECTS_PORT.into())),
            None => Err(Stop::wrong(format!("`{}` refuses no rows: it needs whole tables", self.node))),
        }
    }

    fn rows(
        &self,
        schema: &SchemaRef,
        n_rows: u64,
        batches: &mut dyn Iterator<Item = std::result::Result<RecordBatch, StoreError>>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let filters = self.filters(schema)?;
        let columns = self.projection(schema)?;
        let schema = schema.project(&columns).expect("the columns are the table's");
        let grid = self.format == Format::Table;
        let mut left = self.rows.unwrap_or(if grid && n_rows > FEW { ROWS } else { usize::MAX });
        let mut gathered: Vec<RecordBatch> = Vec::new();
        tables::header(out, self.format, &schema)?;
        for batch in batches {
            let batch = filters.iter().fold(batch?, |batch, filter| filter.apply(&batch));
            let batch = batch.slice(0, batch.num_rows().min(left));
            let batch = batch.project(&columns).expect("the columns are the table's");
            left -= batch.num_rows();
            match self.format {
                Format::Table => gathered.push(batch),
                Format::Json => tables::json_lines(out, &batch)?,
                Format::Csv => tables::csv(out, &batch)?,
                Format::Md => tables::markdown(out, &batch)?,
            }
            if left == 0 {
                break;
            }
        }
        if grid {
            let rows = concat_batches(&std::sync::Arc::new(schema), &gathered).expect("one schema");
            out.write_all(tables::grid(&rows).render(Some(width_of_stdout().unwrap_or(160))).as_bytes())?;
            out.flush()?;
            say(&format!("{} of {}", words::number(rows.num_rows() as u64), words::count(n_rows, "row")));
        }
        Ok(())
    }

    fn filters(&self, schema: &Schema) -> Result<Vec<Filter>> {
        let parse = |text: &String| Filter::parse(text).and_then(|filter| filter.check(schema).map(|()| filter));
        self.conditions.iter().map(parse).collect::<std::result::Result<_, _>>().map_err(refused)
    }

    fn projection(&self, schema: &Schema) -> Result<Vec<usize>> {
        if self.columns.is_empty() {
            return Ok((0..schema.fields().len()).collect());
        }
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let index = |name: &String| {
            schema.index_of(name.trim()).map_err(|_| {
                let hint = format!("its columns are {}", names().collect::<Vec<_>>().join(", "));
                Stop::wrong(format!("no column `{name}`")).did_you_mean(name, names(), hint)
            })
        };
        self.columns.iter().map(index).collect()
    }
}

fn refused(error: FilterError) -> Stop {
    let stop = Stop::wrong(error.to_string());
    match error {
        FilterError::Sign(_) => stop.hint("a condition is `column=value`, `!=`, `~`, `<`, `>`, `<=` or `>=`"),
        FilterError::Column { nearest: Some(name), .. } => stop.hint(format!("did you mean `{name}`?")),
        FilterError::Number(_) | FilterError::Column { .. } => stop,
    }
}

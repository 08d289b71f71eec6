//! `retort sql`: a query over the tables of a pipeline, by the names of its nodes.

mod output;

use std::io::Read;
use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use retort_engine::{Event, Failure, Graph, Input, OpInfo};
use retort_ops::query::{Mistake, Select};

use super::pipeline::{PipelineArgs, answer, port};
use super::stop::{Ended, Result, Stop};
use super::workplace::Workplace;
use crate::tables::Format;
use output::Output;

/// Arguments of `sql`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// A `SELECT` over nodes: `SELECT * FROM chunks`, `FROM "pairs.rejects"`, `FROM sets.train`; `-` reads it from standard input
    #[arg(value_name = "QUERY")]
    query: String,
    /// Rows at most [default: 40 as a table, else all]
    #[arg(long, short = 'n', value_name = "N")]
    rows: Option<usize>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with_all = ["format", "csv", "output"])]
    json: bool,
    /// The same as `--format csv`
    #[arg(long, conflicts_with_all = ["format", "output"])]
    csv: bool,
    /// Writes to a file: `.parquet`, `.csv`, `.jsonl` or `.md`
    #[arg(long, short, value_name = "FILE", conflicts_with = "format")]
    output: Option<PathBuf>,
    /// How much the rows that a join, a sort or a group holds may take, in MiB
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_memory_mb: usize,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let query = args.query()?;
    let loaded = args.pipeline.load(ops)?;
    let select = Select::parse(&query).map_err(|mistake| shown(&mistake, &query))?;
    let place = args.pipeline.look()?;
    let tables = args.tables(&select, &loaded.graph, &place)?;
    place.save();
    let schemas: Vec<(String, SchemaRef)> =
        tables.iter().map(|(name, input)| (name.clone(), input.schema.clone())).collect();
    let columns = select.columns(&schemas, false).map_err(|mistake| shown(&mistake, &query))?;
    let output = Output::begin(columns, args.format(), args.output.as_deref(), args.rows)?;
    answer_into(output, &select, &tables, args.max_memory_mb.max(16) << 20)
}

impl Args {
    fn query(&self) -> Result<String> {
        if self.query != "-" {
            return Ok(self.query.clone());
        }
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        Ok(text)
    }

    fn format(&self) -> Format {
        if self.json {
            Format::Json
        } else if self.csv {
            Format::Csv
        } else {
            self.format
        }
    }

    /// The tables that a query reads: the newest answers of the nodes that it names.
    fn tables(&self, select: &Select, graph: &Graph, place: &Workplace) -> Result<Vec<(String, Input)>> {
        let mut tables = Vec::new();
        for name in select.tables() {
            let (id, port) = port(graph, &name)?;
            let node = graph.node(id);
            let several = node.ports.iter().map(|(port, _)| format!("\"{}.{port}\"", node.name)).collect::<Vec<_>>();
            if port.is_none() && node.ports[0].0 != "out" {
                let stop = Stop::wrong(format!("`{name}` has several outputs"));
                return Err(stop.hint(format!("name one: {}", several.join(", "))));
            }
            let port = port.unwrap_or_else(|| "out".into());
            let answer = answer(&self.pipeline, graph, id, place)?;
            let again = format!("`retort run {} {}` makes it again", self.pipeline.path.display(), node.name);
            let gone = || Stop::wrong(format!("the table of `{name}` is gone from the store")).hint(again);
            let found = answer.outputs.iter().find(|output| output.port == port);
            let table = match found {
                Some(output) => place.world(&|_: &Event| ()).store.open(output.content)?,
                None => None,
            };
            let table = table.ok_or_else(gone)?;
            tables.push((name, Input { schema: table.schema.clone(), tables: vec![table] }));
        }
        Ok(tables)
    }
}

/// Hands the rows of a query to where they go, until there are enough.
fn answer_into(mut output: Output, select: &Select, tables: &[(String, Input)], max_bytes: usize) -> Result<Ended> {
    let mut stopped = None;
    let ended = select.run(tables, max_bytes, &|| Ok(()), &mut |batch| match output.take(batch) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Cancelled),
        Err(stop) => {
            stopped = Some(stop);
            Err(Failure::Cancelled)
        }
    });
    match (stopped, ended) {
        (Some(stop), _) => Err(stop),
        (None, Err(Failure::Cancelled) | Ok(())) => output.end(),
        (None, Err(failure)) => Err(Stop::from(failure)),
    }
}

/// A mistake under the line of the query where it is.
fn shown(mistake: &Mistake, query: &str) -> Stop {
    let line = mistake.at.and_then(|(line, column)| Some((query.lines().nth(line - 1)?, column)));
    let message = match line {
        Some((line, column)) => format!("{mistake}\n  {line}\n  {}^", " ".repeat(column - 1)),
        None => mistake.message.clone(),
    };
    match &mistake.hint {
        Some(hint) => Stop::wrong(message).hint(hint.clone()),
        None => Stop::wrong(message),
    }
}

//! `retort cache size`: by kind, by pipeline, and by the nodes of one pipeline.

use std::io::Write;
use std::path::Path;

use retort_cache::Disk;
use retort_cache::gc::{NodeUsage, PipelineUsage, usage};
use retort_engine::OpInfo;
use serde_json::{Value, json};

use super::super::pipeline::StoreArgs;
use super::super::stop::{Ended, Result, Stop};
use super::existing;
use crate::load::{LoadOptions, load};
use crate::observe::words;
use crate::tables::{Column, Grid};

/// Arguments of `cache size`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A pipeline, by its file or its name, whose nodes are shown
    #[arg(value_name = "PIPELINE")]
    pipeline: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let file = args.pipeline.as_deref().map(Path::new).filter(|path| path.is_file());
    let root = existing(file, &args.store)?;
    let kinds = Disk::open(&root)?.sizes()?;
    let mut usage = usage(&root)?;
    if let Some(pipeline) = &args.pipeline {
        let name = match file {
            Some(path) => {
                load(path, &LoadOptions::default(), ops).map_err(|mistakes| Stop::Mistakes(Box::new(mistakes)))?.name
            }
            None => pipeline.clone(),
        };
        let names: Vec<_> = usage.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect();
        usage.pipelines.retain(|pipeline| pipeline.name == name);
        if usage.pipelines.is_empty() {
            let hint = format!("the store has answers of {}", names.join(", "));
            let stop = Stop::wrong(format!("the store has no answer of the pipeline `{name}`"));
            return Err(stop.did_you_mean(&name, names.iter().map(String::as_str), hint));
        }
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        let kind = |(kind, bytes, files): &(String, u64, u64)| json!({"kind": kind, "bytes": bytes, "files": files});
        let (bytes, files) = total(&kinds);
        let pipelines: Vec<_> = usage.pipelines.iter().map(pipeline_object).collect();
        let kinds: Vec<_> = kinds.iter().map(kind).collect();
        let object = json!({"store": root, "kinds": kinds, "bytes": bytes, "files": files, "reachable": usage.reachable, "pipelines": pipelines});
        writeln!(out, "{object}")?;
        return Ok(Ended::DONE);
    }
    match (&args.pipeline, usage.pipelines.as_slice()) {
        (Some(_), [pipeline]) => out.write_all(nodes(pipeline).render(None).as_bytes())?,
        (_, pipelines) => {
            writeln!(out, "{}", root.display())?;
            out.write_all(by_kind(&kinds).render(None).as_bytes())?;
            if !pipelines.is_empty() {
                writeln!(out)?;
                out.write_all(by_pipeline(pipelines).render(None).as_bytes())?;
            }
        }
    }
    Ok(Ended::DONE)
}

fn total(kinds: &[(String, u64, u64)]) -> (u64, u64) {
    kinds.iter().fold((0, 0), |sum, (_, bytes, files)| (sum.0 + bytes, sum.1 + files))
}

fn by_kind(kinds: &[(String, u64, u64)]) -> Grid {
    let mut grid = Grid::new([Column::new("kind", false), Column::new("size", true), Column::new("files", true)]);
    for (kind, bytes, files) in kinds {
        grid.push([kind.clone(), words::bytes(*bytes), words::number(*files)]);
    }
    let (bytes, files) = total(kinds);
    grid.push(["total".to_string(), words::bytes(bytes), words::number(files)]);
    grid
}

/// Tables and remembered rows of the newest answers. What several pipelines have stands under `shared` at each of them.
fn by_pipeline(pipelines: &[PipelineUsage]) -> Grid {
    let columns = [("pipeline", false), ("own", true), ("shared", true), ("nodes", true)];
    let mut grid = Grid::new(columns.map(|(name, right)| Column::new(name, right)));
    for pipeline in pipelines {
        let nodes = words::number(pipeline.nodes.len() as u64);
        grid.push([pipeline.name.clone(), words::bytes(pipeline.own), some_bytes(pipeline.shared), nodes]);
    }
    grid
}

fn nodes(pipeline: &PipelineUsage) -> Grid {
    let columns = [("node", false), ("tables", true), ("rows", true), ("of it shared", true)];
    let mut grid = Grid::new(columns.map(|(name, right)| Column::new(name, right)));
    for node in &pipeline.nodes {
        grid.push([node.name.clone(), words::bytes(node.tables), some_bytes(node.rows), some_bytes(node.shared)]);
    }
    grid.push([
        "total, each once".to_string(),
        words::bytes(pipeline.own + pipeline.shared),
        String::new(),
        some_bytes(pipeline.shared),
    ]);
    grid
}

fn some_bytes(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { words::bytes(bytes) }
}

fn pipeline_object(pipeline: &PipelineUsage) -> Value {
    let node =
        |node: &NodeUsage| json!({"node": node.name, "tables": node.tables, "rows": node.rows, "shared": node.shared});
    let nodes: Vec<_> = pipeline.nodes.iter().map(node).collect();
    json!({"pipeline": pipeline.name, "own": pipeline.own, "shared": pipeline.shared, "nodes": nodes})
}

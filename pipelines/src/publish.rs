//! A trained model as two folders that are ready for the Hugging Face Hub: `model` with weights, card and plot, `dataset` with what it learned from.
//!
//! Nothing is sent from here (`hub.rs` does). Cards are written in `publish/cards.rs`.

mod cards;

use std::fs;
use std::path::{Path, PathBuf};

use ::parquet::arrow::ArrowWriter;
use ::parquet::errors::ParquetError;
use arrow::array::RecordBatch;
use retort_cache::{Answer, ContentId, Digest, StoreError, Table};
use retort_engine::{NodeId, World};
use retort_ops::lora_train::adapter::is_adapter;

use crate::export::{Dtype, ExportError, gguf, merged, peft};
use crate::load::Loaded;
use crate::report::{Exam, Log};
use crate::tuned::{self, ADAPTER_PORT, TunedError};

/// Pixels of the plot.
const PLOT: (u32, u32) = (860, 320);
/// The plot's name in the folder.
const LOSS: &str = "loss.svg";

/// Which weights are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Weights {
    /// The adapter, as PEFT and vLLM load it.
    #[default]
    Adapter,
    /// The whole model with the adapter merged in, as transformers loads it.
    Merged,
    /// The adapter, and beside it as a GGUF file for llama.cpp.
    AdapterAndGguf,
}

/// What is wished for.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    /// Which weights.
    pub weights: Weights,
    /// How merged ones are stored.
    pub dtype: Dtype,
    /// What the model will be called on the Hub, `owner/name`; its data are `owner/name-data`.
    pub name: Option<&'a str>,
    /// What the base model is called there; made from its source where nothing is given.
    pub base: Option<&'a str>,
    /// The licence, by its name on the Hub.
    pub license: Option<&'a str>,
    /// The folder, made where it is missing.
    pub folder: &'a Path,
}

/// Why nothing could be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The weights could not be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The adapter could not be opened.
    #[error(transparent)]
    Tuned(#[from] TunedError),
    /// The store, or a file, could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is published, for the cards.
struct Published<'a> {
    title: String,
    pipeline: &'a str,
    base: String,
    base_sha256: String,
    wishes: Wishes<'a>,
    adapter_content: Option<ContentId>,
    log: Option<Log>,
    exams: Vec<(String, Exam)>,
    data: Vec<Data>,
    facts: String,
    tuned: &'a tuned::Tuned,
}

/// A table that was learned from, or asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Data {
    /// The input that it was fed to: `train`, `eval`, `text`.
    slot: String,
    /// The file in the dataset's folder.
    file: String,
    content: ContentId,
    rows: u64,
}

/// Writes both folders. Gives the files with their sizes in bytes.
pub fn publish(
    loaded: &Loaded,
    id: NodeId,
    answer: &Answer,
    world: World<'_>,
    wishes: Wishes<'_>,
) -> Result<Vec<(PathBuf, u64)>, PublishError> {
    let node = loaded.graph.node(id);
    let tuned = tuned::open(node, answer, world, &mut |_, _| Ok(()))?;
    let (model, dataset) = (wishes.folder.join("model"), wishes.folder.join("dataset"));
    for folder in [&model, &dataset.join("data")] {
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    }
    let title = wishes.name.map_or_else(|| format!("{} of {}", node.name, loaded.name), str::to_owned);
    let base = wishes.base.map_or_else(|| shown(&tuned.base_name()), str::to_owned);
    let mut written = match wishes.weights {
        Weights::Merged => merged::export(&tuned, wishes.dtype, &model)?,
        _ => peft::export(&tuned, title.clone(), answer, Some(&base), &model)?,
    };
    if wishes.weights == Weights::AdapterAndGguf {
        written.extend(gguf::lora(&tuned, "adapter", &model)?);
    }
    let log = metrics(answer, world)?;
    if let Some(plot) = log.as_ref().and_then(Log::loss_plot) {
        written.push(put(model.join(LOSS), plot.svg(PLOT.0, PLOT.1).as_bytes())?);
    }
    let adapter = answer.outputs.iter().find(|output| output.port == ADAPTER_PORT);
    let published = Published {
        title,
        pipeline: &loaded.name,
        base,
        base_sha256: tuned.base_sha256.clone(),
        wishes,
        adapter_content: adapter.map(|output| output.content),
        log,
        exams: exams(loaded, id, answer, world)?,
        data: data(answer, world, &dataset, &mut written)?,
        facts: peft::facts(answer),
        tuned: &tuned,
    };
    let card = model.join("README.md");
    written.retain(|(path, _)| *path != card);
    written.push(put(card, cards::model(&published).as_bytes())?);
    written.push(put(dataset.join("README.md"), cards::dataset(&published).as_bytes())?);
    Ok(written)
}

/// Whether a name is one of the Hub: `owner/name`.
pub fn is_hub_name(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
    };
    text.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name))
}

/// What a model is called where it is not of the Hub: where a file lies on this machine is nobody's business.
fn shown(base: &str) -> String {
    match base.strip_prefix("file:") {
        Some(path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        None => base.to_owned(),
    }
}

fn put(path: PathBuf, bytes: &[u8]) -> Result<(PathBuf, u64), StoreError> {
    fs::write(&path, bytes).map_err(StoreError::io("write", &path))?;
    Ok((path, bytes.len() as u64))
}

/// The training's log, where it is still there.
fn metrics(answer: &Answer, world: World<'_>) -> Result<Option<Log>, StoreError> {
    let output = answer.outputs.iter().find(|output| output.port == "metrics");
    let table = output.map(|output| world.store.open(output.content)).transpose()?.flatten();
    Ok(table.map(|table| table.read()).transpose()?.as_ref().and_then(Log::read))
}

/// The exams that this very adapter sat, by the nodes that it feeds.
fn exams(loaded: &Loaded, id: NodeId, answer: &Answer, world: World<'_>) -> Result<Vec<(String, Exam)>, StoreError> {
    let (graph, mut found) = (&loaded.graph, Vec::new());
    let own: Vec<String> = answer.outputs.iter().map(|output| output.content.to_string()).collect();
    for other in graph.order().iter().filter(|other| graph.feeds(**other).contains(&id)) {
        let Some(sat) = world.store.last(&graph.store_name(*other))? else { continue };
        if !sat.recipe.inputs.iter().any(|fact| own.contains(&fact.value)) {
            continue;
        }
        let Some(summary) = sat.outputs.iter().find(|output| output.port == "summary") else { continue };
        let table = world.store.open(summary.content)?;
        let exam = table.map(|table| table.read()).transpose()?.as_ref().and_then(Exam::read);
        found.extend(exam.map(|exam| (graph.node(*other).name.clone(), exam)));
    }
    Ok(found)
}

/// The tables that the training read, as Parquet files in `data/`. An adapter that it went on from is none of them.
fn data(
    answer: &Answer,
    world: World<'_>,
    folder: &Path,
    written: &mut Vec<(PathBuf, u64)>,
) -> Result<Vec<Data>, StoreError> {
    let mut all = Vec::new();
    for fact in &answer.recipe.inputs {
        let Some(name) = fact.name.strip_prefix("input.") else { continue };
        let Some(content) = Digest::from_hex(&fact.value).map(ContentId) else { continue };
        let Some(table) = world.store.open(content)? else { continue };
        if is_adapter(&table.schema) {
            continue;
        }
        let slot = name.split('[').next().unwrap_or(name).to_owned();
        let number = all.iter().filter(|data: &&Data| data.slot == slot).count();
        let file = format!("data/{slot}-{number:02}.parquet");
        written.push(parquet(&table, &folder.join(&file))?);
        all.push(Data { slot, file, content, rows: table.rows });
    }
    Ok(all)
}

/// A table as a file of its own: the stored one as it is, where the store has files.
fn parquet(table: &Table, path: &Path) -> Result<(PathBuf, u64), StoreError> {
    if let Some(stored) = table.path() {
        return put(path.to_path_buf(), &fs::read(stored).map_err(StoreError::io("read", stored))?);
    }
    let batches = table.batches()?.collect::<Result<Vec<_>, _>>()?;
    let bytes = encoded(table, &batches).map_err(StoreError::table("write", table.id))?;
    put(path.to_path_buf(), &bytes)
}

fn encoded(table: &Table, batches: &[RecordBatch]) -> Result<Vec<u8>, ParquetError> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema.clone(), None)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.close()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_hub_is_told_from_a_source_and_a_path_is_not_shown() {
        assert!(is_hub_name("HuggingFaceTB/SmolLM2-135M"));
        for other in ["file:a/b.gguf", "pypi://a/1/b.gguf", "a", "a/b/c", "/b", "a b/c"] {
            assert!(!is_hub_name(other), "{other}");
        }
        assert_eq!(shown("file:/home/me/models/a.gguf"), "a.gguf");
        assert_eq!(shown("a/b"), "a/b");
    }
}

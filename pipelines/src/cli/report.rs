//! `retort report`: a run as one page of HTML.

use std::fs;
use std::path::{Path, PathBuf};

use retort_cache::{Disk, StoreError};
use retort_engine::OpInfo;

use super::pipeline::StoreArgs;
use super::runs::{name, named, newest_of};
use super::stop::{Ended, Result, Stop, say};
use super::workplace::root;
use crate::history::Run;
use crate::observe::{RUNS_FOLDER, words};
use crate::report::gather;

/// The page's name in the run's folder.
const FILE: &str = "report.html";

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pipeline: its YAML file, or its name
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// The run: its name, the beginning of it, `latest`, or `@2` for the one before [default: the pipeline's newest]
    #[arg(value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// The file to write [default: `report.html` in the run's folder in the store]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let file = Some(args.pipeline.as_path()).filter(|path| path.exists());
    let root = root(file, args.store.folder.as_deref())?;
    let name = name(&args.pipeline, file, ops);
    let run = match &args.run {
        Some(run) => named(&root, run)?,
        None => newest_of(&root, &name)?.ok_or_else(|| {
            let stop = Stop::wrong(format!("no runs of `{name}` in `{}`", root.display()));
            stop.hint(format!("`retort run {}` makes one", args.pipeline.display()))
        })?,
    };
    if run.asked.pipeline != name {
        let message = format!("run `{}` is one of the pipeline `{}`", run.id, run.asked.pipeline);
        return Err(
            Stop::wrong(message).hint(format!("`retort runs {}` lists those of `{name}`", args.pipeline.display()))
        );
    }
    let path = args.to.clone().unwrap_or_else(|| root.join(RUNS_FOLDER).join(&run.id).join(FILE));
    write(&root, run, &path)?;
    Ok(Ended::DONE)
}

/// Writes the page of a run, and says where it lies.
pub(super) fn write(root: &Path, run: Run, path: &Path) -> Result<()> {
    let page = gather(root, &Disk::open(root)?, run).map_err(|error| Stop::failed(&error))?.html();
    fs::write(path, &page).map_err(StoreError::io("write", path))?;
    say(&format!("wrote {} ({})", path.display(), words::bytes(page.len() as u64)));
    Ok(())
}

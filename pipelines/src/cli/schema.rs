//! `retort schema`: the JSON Schema of a pipeline file, for editors.

use std::io::Write;

use retort_engine::OpInfo;

use super::stop::{Ended, Result};

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let schema = crate::schema::pipeline(ops);
    writeln!(std::io::stdout().lock(), "{schema:#}")?;
    Ok(Ended::DONE)
}

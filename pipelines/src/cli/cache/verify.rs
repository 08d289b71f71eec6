//! `retort cache verify`: reads everything that the store holds, and puts aside what is damaged.

use std::io::Write;
use std::num::NonZero;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use retort_cache::verify::{Verified, verify};
use retort_cache::{Disk, Store as _};
use serde_json::json;

use super::super::pipeline::StoreArgs;
use super::super::stop::{Ended, Result, say};
use super::there;
use crate::observe::words;
use crate::tables::{Column, Grid};

/// Arguments of `cache verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Files side by side [default: one a processor]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Ended> {
    let root = there(&args.store)?;
    // The file `version` is looked at when the store is opened.
    let told = Disk::open(&root)?.told();
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30.cyan/dim} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left");
    bar.set_style(style.expect("the template is well formed").progress_chars("━╸─"));
    let verified = verify(&root, args.jobs.map_or_else(processors, NonZero::get), &|done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let verified = verified?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", object(&verified, &told))?;
    } else {
        table(&verified, &told, &mut out)?;
    }
    if verified.wrong.is_empty() && told.is_empty() {
        return Ok(Ended::DONE);
    }
    say("`retort run` makes again what it needs of it");
    Ok(Ended::FAILED)
}

fn object(verified: &Verified, told: &[String]) -> serde_json::Value {
    let kind = |(kind, (files, bytes)): (&String, &(u64, u64))| json!({"kind": kind, "files": files, "bytes": bytes});
    let kinds: Vec<_> = verified.kinds.iter().map(kind).collect();
    let wrong =
        verified.wrong.iter().map(|wrong| json!({"path": wrong.path, "what": wrong.what, "place": wrong.place}));
    json!({"kinds": kinds, "wrong": wrong.collect::<Vec<_>>(), "notes": told})
}

fn table(verified: &Verified, told: &[String], out: &mut dyn Write) -> Result<()> {
    let columns = [("kind", false), ("files", true), ("size", true), ("damaged", true)];
    let mut grid = Grid::new(columns.map(|(name, right)| Column::new(name, right)));
    for (kind, (files, bytes)) in &verified.kinds {
        let wrong = verified.wrong.iter().filter(|wrong| wrong.path.starts_with(kind)).count() as u64;
        let wrong = if wrong == 0 { String::new() } else { words::number(wrong) };
        grid.push([kind.clone(), words::number(*files), words::bytes(*bytes), wrong]);
    }
    out.write_all(grid.render(None).as_bytes())?;
    for line in told {
        writeln!(out, "{line}")?;
    }
    for wrong in &verified.wrong {
        let place = wrong
            .place
            .as_ref()
            .map_or_else(|| "it stays where it is".into(), |place| format!("moved to `{}`", place.display()));
        writeln!(out, "{}: {}; {place}", wrong.path.display(), wrong.what)?;
    }
    Ok(())
}

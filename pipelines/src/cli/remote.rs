//! `--remote`: which store far away, with which settings; what is said of what travelled.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use retort_cache::remote::{Freight, Moved, Progress, ReadThrough, Remote, push};
use retort_cache::{Disk, Store, StoreError};
use retort_engine::{Graph, NodeId};

use super::pipeline::PipelineArgs;
use super::stop::{Result, Stop, chain, error, say, warn};
use super::workplace::Workplace;
use crate::observe::words;

/// Which remote store.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RemoteArgs {
    /// A store far away: `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `file:DIR` [env: RETORT_REMOTE]
    #[arg(long = "remote", value_name = "URL")]
    url: Option<String>,
}

impl RemoteArgs {
    /// The remote store, if one is named.
    pub(super) fn open(&self) -> Result<Option<Remote>> {
        let named = || std::env::var("RETORT_REMOTE").ok();
        let Some(url) = self.url.clone().or_else(named).filter(|url| !url.is_empty()) else { return Ok(None) };
        let opened = Remote::open(&url, &settings());
        let wrong = |error: &StoreError| Stop::wrong(chain(error)).hint(error.hint().unwrap_or("`--remote` names it"));
        opened.map(Some).map_err(|error| wrong(&error))
    }

    /// The remote store, which must be named.
    pub(super) fn required(&self) -> Result<Remote> {
        let missing = || Stop::wrong("no remote store is named").hint("`--remote URL` or RETORT_REMOTE names one");
        self.open()?.ok_or_else(missing)
    }

    /// The same for those who look only: without a remote store nothing is written. With one, what must be read comes from there.
    pub(super) fn look(&self, pipeline: &PipelineArgs) -> Result<(Workplace, Option<Far>)> {
        if self.open()?.is_none() { Ok((pipeline.look()?, None)) } else { self.place(pipeline) }
    }

    /// The store that belongs to a pipeline, with the remote store behind it if one is named.
    pub(super) fn place(&self, pipeline: &PipelineArgs) -> Result<(Workplace, Option<Far>)> {
        let Some(remote) = self.open()? else { return Ok((pipeline.workplace()?, None)) };
        if !remote.look()? {
            warn(&format!("there is no store at {} yet", remote.url()));
        }
        let mut place = pipeline.workplace()?;
        let through = ReadThrough::new(Disk::open(&place.root)?, remote);
        place.set_store(Box::new(through.clone()));
        Ok((place, Some(Far(through))))
    }
}

/// The settings of object stores, as the clouds' own tools read them.
fn settings() -> Vec<(String, String)> {
    let of_cloud = |name: &str| ["AWS_", "GOOGLE_", "SERVICE_ACCOUNT", "AZURE_"].iter().any(|p| name.starts_with(p));
    let pairs =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    pairs.filter(|(name, _)| of_cloud(name)).collect()
}

/// The remote store behind a run.
pub(super) struct Far(ReadThrough);

impl Far {
    /// Says what came from there.
    pub(super) fn say(&self) {
        let moved = self.0.moved();
        for what in &moved.untrue {
            warn(&format!("`{what}` is not what its name promises: it was not taken"));
        }
        if moved.tables + moved.answers + moved.segments > 0 {
            say(&format!("{} came from {}", travelled(&moved), self.0.remote().url()));
        }
    }

    /// Sends the newest answers of nodes there.
    pub(super) fn push(&self, graph: &Graph, nodes: &[NodeId]) -> Result<()> {
        let mut answers = Vec::new();
        for id in nodes {
            answers.extend(self.0.disk().last(&graph.store_name(*id))?);
        }
        let bar = Bar::new("pushing");
        let moved = push(self.0.disk(), self.0.remote(), &Freight::of(answers), &|progress| bar.show(progress));
        drop(bar);
        say_pushed(&moved?, self.0.remote());
        Ok(())
    }
}

pub(super) fn say_pushed(moved: &Moved, remote: &Remote) {
    say(&format!("pushed {} to {}{}", travelled(moved), remote.url(), there(moved)));
}

/// Says what was pulled; gives whether all of it was true.
pub(super) fn say_pulled(moved: &Moved, remote: &Remote) -> bool {
    say(&format!("pulled {} from {}{}", travelled(moved), remote.url(), there(moved)));
    for what in &moved.untrue {
        error(&format!("`{what}` is not what its name promises: it was not taken"), None);
    }
    moved.untrue.is_empty()
}

fn travelled(moved: &Moved) -> String {
    let (tables, answers) = (words::count(moved.tables, "table"), words::count(moved.answers, "answer"));
    let segments = words::count(moved.segments, "segment");
    format!("{tables}, {answers} and {segments} of rows ({})", words::bytes(moved.bytes))
}

fn there(moved: &Moved) -> String {
    if moved.there == 0 { String::new() } else { format!("; {} were there", words::number(moved.there)) }
}

/// A progress bar on standard error, where that is a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(verb: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:.bold} {bar:20.cyan/dim} {wide_msg}");
        bar.set_style(style.expect("the template is well formed").progress_chars("━╸─"));
        bar.set_prefix(verb);
        Bar(bar)
    }

    pub(super) fn show(&self, progress: Progress) {
        self.0.set_length(progress.of);
        self.0.set_position(progress.done);
        let (done, of) = (words::number(progress.done), words::number(progress.of));
        self.0.set_message(format!("{done} of {of} · {}", words::bytes(progress.bytes)));
    }
}

#[cfg(feature = "hub")]
impl Bar {
    /// Shows how many bytes of how many are done, from whichever thread.
    pub(super) fn of_bytes(&self) -> impl Fn(u64, u64) + Send + Sync + 'static {
        let bar = self.0.clone();
        move |done, of| {
            bar.set_length(of);
            bar.set_position(done);
            bar.set_message(format!("{} of {}", words::bytes(done), words::bytes(of)));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

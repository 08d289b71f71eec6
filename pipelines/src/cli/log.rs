//! `retort log`: what happened in a run, node by node.

use std::fmt::Write as _;
use std::io::{self, Write};

use retort_engine::Reason;

use super::pipeline::StoreArgs;
use super::runs::named;
use super::stop::{Ended, Result, Stop, warn};
use super::workplace::root;
use crate::history::{self, Counts, NodeStory, Run, Series, Status, Story, asked};
use crate::observe::{EVENTS_FILE, State, words};

/// Arguments of `log`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run: its name, the beginning of it, `latest`, or `@2` for the one before
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Only what happened to this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Prints the events as they were recorded, an object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Ended> {
    let root = root(None, args.store.folder.as_deref())?;
    let run = named(&root, &args.run)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.json {
        for line in history::lines(&root, &run.id)? {
            let line = line?;
            if args.node.is_none() || args.node == line.node {
                writeln!(out, "{}", line.text)?;
            }
        }
        out.flush()?;
        return Ok(Ended::DONE);
    }
    let mut story = history::story(&root, &run.id)?;
    if let Some(node) = &args.node {
        let names: Vec<_> = story.nodes.iter().map(|node| node.name.clone()).collect();
        story.nodes.retain(|story| story.name == *node);
        if story.nodes.is_empty() {
            let hint = format!("something happened to {}", names.join(", "));
            let names = names.iter().map(String::as_str);
            return Err(
                Stop::wrong(format!("nothing happened to `{node}` in this run")).did_you_mean(node, names, hint)
            );
        }
    } else {
        write!(out, "{}", head(&run, &story))?;
    }
    for node in &story.nodes {
        write!(out, "{}", body(node, run.status))?;
    }
    out.flush()?;
    if !story.unread.is_empty() {
        let lines: Vec<_> = story.unread.iter().take(5).map(ToString::to_string).collect();
        let more = if story.unread.len() > lines.len() { ", …" } else { "" };
        let n = words::count(story.unread.len() as u64, "line");
        warn(&format!("{n} of its `{EVENTS_FILE}` can't be read: {}{more}", lines.join(", ")));
    }
    Ok(Ended::DONE)
}

fn head(run: &Run, story: &Story) -> String {
    let asked = asked(&run.asked);
    let began = run.began.replace('T', " ");
    let ended = match run.counts {
        Some(Counts { ran, fresh, failed, skipped, seconds }) => {
            let all = [(ran, "ran"), (fresh, "fresh"), (failed, "failed"), (skipped, "not run")];
            let counts: Vec<_> =
                all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", words::number(*n))).collect();
            format!("{}: {} in {}", run.status.word(), counts.join(", "), words::duration(seconds))
        }
        None => format!("{} after {}", run.status.word(), words::duration(story.seconds)),
    };
    let command = format!("retort run {} {asked}", run.asked.file);
    format!("run {}\n  {}\n  pipeline {}, began {began}\n  {ended}\n\n", run.id, command.trim_end(), run.asked.pipeline)
}

fn body(node: &NodeStory, run: Status) -> String {
    let tally = &node.tally;
    let mut text = format!("{}: {}\n", node.name, headline(node, run));
    let why = tally.why.as_ref().map(why).unwrap_or_default().join("\n");
    labelled(&mut text, "why", &why);
    if let Some((recalled, of)) = tally.recalled {
        let asked = tally.asked.map(|asked| format!(", {} asked", words::number(asked))).unwrap_or_default();
        labelled(&mut text, "rows", &format!("{} of {} recalled{asked}", words::number(recalled), words::number(of)));
    } else if let Some(asked) = tally.asked {
        labelled(&mut text, "rows", &format!("{} asked", words::number(asked)));
    }
    if tally.prompt_tokens + tally.output_tokens > 0 {
        let (prompt, output) = (words::number(tally.prompt_tokens), words::number(tally.output_tokens));
        labelled(&mut text, "tokens", &format!("{prompt} of prompts, {output} of output"));
    }
    node.series.iter().for_each(|series| labelled(&mut text, "measured", &measured(series)));
    node.notes
        .iter()
        .for_each(|(at, note)| labelled(&mut text, "note", &format!("{note} ({} in)", words::duration(*at))));
    text
}

fn why(reason: &Reason) -> Vec<String> {
    let Reason::Changed { changes } = reason else { return words::reasons(reason) };
    let told = changes.iter().map(history::details);
    told.flat_map(|lines| {
        lines.into_iter().enumerate().map(|(i, line)| if i == 0 { line } else { format!("  {line}") })
    })
    .collect()
}

/// Appends lines under a label that stands before the first.
fn labelled(text: &mut String, label: &str, lines: &str) {
    for (i, line) in lines.lines().enumerate() {
        let label = if i == 0 { label } else { "" };
        let _ = writeln!(text, "  {label:<9} {line}");
    }
}

fn headline(node: &NodeStory, run: Status) -> String {
    let tally = &node.tally;
    match &tally.state {
        State::Fresh => format!("fresh, {}", words::outcome(tally)),
        State::Ran => {
            let same = if tally.changed == Some(false) { ", same answer as before" } else { "" };
            format!("ran in {}, {}{same}", words::duration(tally.seconds()), words::outcome(tally))
        }
        State::Verified => format!("verified in {}, {}", words::duration(tally.seconds()), words::outcome(tally)),
        State::Differs(place) => format!("DIFFERS: {place}"),
        State::Unverified(because) => format!("not verified, {because}"),
        State::Failed(why) => format!("failed: {why}"),
        State::Skipped(because) => format!("skipped, `{because}` failed"),
        State::Waiting => "said something, and did not begin".into(),
        State::Running => {
            let word = if run == Status::Running { "running" } else { "stopped" };
            let progress =
                tally.progress.map(|(done, of)| format!(", {} of {}", words::number(done), words::number(of)));
            format!("{word}{}", progress.unwrap_or_default())
        }
    }
}

/// `loss 3.2 to 1.1 in 24 values, the smallest 1.05`.
fn measured(series: &Series) -> String {
    let Series { name, values, first, best, last } = series;
    let [first, best, last] = [first, best, last].map(|value| words::measure(*value));
    match values {
        1 => format!("{name} {last}"),
        _ => format!("{name} {first} to {last} in {}, the smallest {best}", words::count(*values, "value")),
    }
}

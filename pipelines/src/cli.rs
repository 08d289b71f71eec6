//! The command line: reads the arguments, calls one command, says how it ended.
//!
//! Results go to standard output, everything else to standard error.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a node failed, or the world got in the way |
//! | 2 | the pipeline or the arguments are wrong |
//! | 3 | `--locked`, and something differs |
//! | 130 | interrupted |

mod apart;
mod cache;
mod causes;
mod chat;
mod check;
mod closing;
mod completions;
mod diff;
mod export;
mod fmt;
mod graph;
mod interrupt;
mod lock;
mod log;
mod new;
mod ops;
mod pack;
mod pipeline;
mod plan;
mod publish;
mod ranks;
mod remote;
mod report;
mod run;
mod runs;
mod schema;
mod serve;
mod show;
mod sql;
mod stop;
mod trace;
mod unpack;
mod workplace;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use retort_engine::OpInfo;

use stop::{Ended, Stop};

/// Distils documents into a model that can answer for them.
#[derive(Debug, Parser)]
#[command(name = "retort", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run what is stale, and what it needs.
    Run(run::Args),
    /// Say what would run, and why; nothing is run.
    Plan(plan::Args),
    /// Find all mistakes of a pipeline; nothing is run.
    Check(check::Args),
    /// Lay pipelines out in one way; what they say, and their comments, stay.
    Fmt(fmt::Args),
    /// Draw a pipeline.
    Graph(graph::Args),
    /// Show a table.
    Show(show::Args),
    /// Answer a SQL query over the tables of a pipeline.
    Sql(sql::Args),
    /// Write down what an experiment used, and what came of it.
    Lock(lock::Args),
    /// Pack an experiment into one file.
    Pack(pack::Args),
    /// Unpack an experiment.
    Unpack(unpack::Args),
    /// Follow a row back to its page, or forward to what came of it.
    Trace(trace::Args),
    /// Say what differs between two runs, two pipelines, or a run and a pipeline.
    Diff(diff::Args),
    /// List the runs in the store, newest first.
    Runs(runs::Args),
    /// Tell what happened in a run, node by node.
    Log(log::Args),
    /// Write a page of HTML about a run: losses, the exam, examples, what was refused.
    Report(report::Args),
    /// Write a node's answer for other tools.
    Export(export::Args),
    /// Write a trained model and its data as folders for the Hugging Face Hub; nothing is sent.
    Publish(publish::Args),
    /// Talk to a model that was trained.
    Chat(chat::Args),
    /// Serve a model at an OpenAI-compatible address of this machine.
    Serve(serve::Args),
    /// List the operators, or show the manual page of one.
    Ops(ops::Args),
    /// Begin: a folder with a commented pipeline that runs.
    New(new::Args),
    /// Print the JSON Schema of a pipeline file, for editors.
    Schema(schema::Args),
    /// Print the completions of a shell.
    Completions(completions::CompletionsArgs),
    /// Print a man page.
    Man(completions::ManArgs),
    /// Look after the store.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Read PDF files that come in: for `extract` only.
    #[command(name = apart::NAME, hide = true)]
    ReadApart(apart::Args),
}

/// Runs the command that the process was given.
pub fn main(ops: &[OpInfo]) -> ExitCode {
    let matches = Cli::command().get_matches();
    let json = matches.subcommand().is_some_and(|(_, args)| matches!(args.try_get_one("json"), Ok(Some(true))));
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    apart::begin();
    let ended = match command {
        Command::Run(args) => ranks::across(|| run::run(&args, ops)),
        Command::Plan(args) => plan::run(&args, ops),
        Command::Check(args) => check::run(&args, ops),
        Command::Fmt(args) => fmt::run(&args),
        Command::Graph(args) => graph::run(&args, ops),
        Command::Show(args) => show::run(&args, ops),
        Command::Sql(args) => sql::run(&args, ops),
        Command::Lock(args) => lock::run(&args, ops),
        Command::Pack(args) => pack::run(&args, ops),
        Command::Unpack(args) => unpack::run(&args),
        Command::Trace(args) => trace::run(&args, ops),
        Command::Diff(args) => diff::run(&args, ops),
        Command::Runs(args) => runs::run(&args, ops),
        Command::Log(args) => log::run(&args),
        Command::Report(args) => report::run(&args, ops),
        Command::Export(args) => export::run(&args, ops),
        Command::Publish(args) => publish::run(&args, ops),
        Command::Chat(args) => chat::run(&args, ops),
        Command::Serve(args) => serve::run(&args, ops),
        Command::Ops(args) => ops::run(&args, ops),
        Command::Cache(command) => cache::run(&command, ops),
        Command::ReadApart(args) => apart::run(&args),
        Command::New(args) => new::run(&args, ops),
        Command::Schema(args) => schema::run(&args, ops),
        Command::Completions(args) => completions::completions(&args, Cli::command()),
        Command::Man(args) => completions::man(&args, Cli::command()),
    };
    apart::end();
    let flushed = std::io::stdout().flush().map_err(Stop::from);
    match ended.and_then(|ended| flushed.map(|()| ended)) {
        Ok(Ended(code)) => ExitCode::from(code),
        Err(stop) => {
            if let Stop::Mistakes(mistakes) = &stop
                && json
            {
                // What is said on standard error is said for programs too; where nobody reads it, there is nobody to tell.
                let _ = stop::print_json(mistakes, &mut std::io::stdout().lock());
            }
            ExitCode::from(stop.say())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }
}

//! `retort completions` and `retort man`: what shells and `man` want to know of the command line, from its own definition.

use std::io::Write;

use clap_complete::Shell;

use super::stop::{Ended, Result, Stop};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell that reads them
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// The command whose page is written [default: that of `retort` itself]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(super) fn completions(args: &CompletionsArgs, mut cli: clap::Command) -> Result<Ended> {
    // Written in one go: the generator panics where nobody reads.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "retort", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(Ended::DONE)
}

pub(super) fn man(args: &ManArgs, mut cli: clap::Command) -> Result<Ended> {
    cli.build();
    let page = match &args.command {
        None => cli,
        Some(name) => {
            let found = cli.get_subcommands().find(|command| command.get_name() == name).cloned();
            let names = cli.get_subcommands().map(clap::Command::get_name);
            let unknown = || Stop::wrong(format!("unknown command `{name}`"));
            found.ok_or_else(|| unknown().did_you_mean(name, names, "`retort help` lists them"))?
        }
    };
    clap_mangen::Man::new(page).render(&mut std::io::stdout().lock())?;
    Ok(Ended::DONE)
}

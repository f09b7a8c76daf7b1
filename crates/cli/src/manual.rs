//! Completions and manual pages, made from the command line's own description.

use crate::error::{CliError, Outcome, Result};
use clap::CommandFactory;
use std::{fs, io::Write, path::PathBuf};

/// Write a completion script to standard output: for `cargo xtask dist`
#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    shell: Shell,
}

/// Write manual pages, one a command, into a folder: for `cargo xtask dist`
#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// Where to; made if it is not there
    folder: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn completions<C: CommandFactory>(args: &CompletionsArgs) -> Result<Outcome> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut C::command(), "mainstay", &mut script);
    std::io::stdout().write_all(&script).map_err(CliError::Output)?;
    Ok(Outcome::Fine)
}

pub(crate) fn man<C: CommandFactory>(args: &ManArgs) -> Result<Outcome> {
    let hint = "name a folder that you may write to";
    fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(C::command(), &args.folder))
        .map_err(CliError::file(&args.folder, "write manual pages", hint))?;
    Ok(Outcome::Fine)
}

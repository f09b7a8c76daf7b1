//! `cargo xtask`: the project's own commands.
//!
//! One file a subcommand, each with an `Args` that clap fills in and a `run` that does the work.
//! Progress goes to standard error, results (tables, figures, verdicts) to standard output.
//! Exit status: 0 all is well, 1 something failed, 2 wrong usage; a program run on the user's
//! behalf (`crash`, `sim`, `bench`, `fuzz`) passes its own status on.
#![forbid(unsafe_code)]

mod arrows;
mod bench;
mod ci;
mod crash;
mod dist;
mod error;
mod fuzz;
mod images;
mod interop;
mod metadata;
mod netns;
mod powercut;
mod project;
mod report;
mod sim;
mod systemd;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{error::Result, project::Project};

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Test(test::Args),
    Ci(ci::Args),
    Arrows(arrows::Args),
    Bench(bench::Args),
    Crash(crash::Args),
    Sim(sim::Args),
    Fuzz(fuzz::Args),
    Images(images::Args),
    Interop(interop::Args),
    Systemd(systemd::Args),
    Powercut(powercut::Args),
    Netns(netns::Args),
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

fn run(command: Command) -> Result<()> {
    let project = Project::find()?;
    match command {
        Command::Test(args) => test::run(&project, &args),
        Command::Ci(args) => ci::run(&project, &args),
        Command::Arrows(args) => arrows::run(&project, &args),
        Command::Bench(args) => bench::run(&project, &args),
        Command::Crash(args) => crash::run(&project, &args),
        Command::Sim(args) => sim::run(&project, &args),
        Command::Fuzz(args) => fuzz::run(&project, &args),
        Command::Images(args) => images::run(&project, &args),
        Command::Interop(args) => interop::run(&project, &args),
        Command::Systemd(args) => systemd::run(&project, &args),
        Command::Powercut(args) => powercut::run(&project, &args),
        Command::Netns(args) => netns::run(&project, &args),
        Command::Dist(args) => dist::run(&project, &args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_subcommand_is_well_formed_and_shows_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands() {
            let help = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("cargo xtask {}", subcommand.get_name());
            assert!(help.contains(&example), "`{}` shows no example", subcommand.get_name());
        }
    }
}

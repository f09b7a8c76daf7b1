//! The `mainstay` command.

#![forbid(unsafe_code)]

mod channel;
mod confirm;
mod demo;
mod error;
mod hex;
mod interrupt;
mod manual;
mod open_files;
mod output;
mod place;
mod pool;
mod progress;
mod random;
#[cfg(feature = "sds")]
mod sds;
mod size;
mod state;
mod store;
mod whole_file;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Live state that outlives its process
#[derive(Parser)]
#[command(name = "mainstay", version, after_help = error::EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pool(pool::PoolArgs),
    #[cfg(feature = "sds")]
    Sds(sds::SdsArgs),
    State(state::StateArgs),
    Store(store::StoreArgs),
    Channel(channel::ChannelArgs),
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    DemoRole(demo::RoleArgs),
    #[command(hide = true)]
    DemoVitals(demo::VitalsArgs),
    #[command(hide = true)]
    DemoPower(demo::PowerArgs),
    #[command(hide = true)]
    DemoPackages(demo::PackagesArgs),
    #[command(hide = true)]
    Completions(manual::CompletionsArgs),
    #[command(hide = true)]
    Man(manual::ManArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Pool(args) => error::exit(pool::run(args)),
        #[cfg(feature = "sds")]
        Command::Sds(args) => error::exit(sds::run(args)),
        Command::State(args) => error::exit(state::run(args)),
        Command::Store(args) => error::exit(store::run(args)),
        Command::Channel(args) => error::exit(channel::run(args)),
        Command::Demo(args) => demo::run(args),
        Command::DemoRole(args) => demo::role(args),
        Command::DemoVitals(args) => demo::take_part(&args),
        Command::DemoPower(args) => demo::keep(&args),
        Command::DemoPackages(args) => demo::take_part_in_packages(&args),
        Command::Completions(args) => error::exit(manual::completions::<Cli>(&args)),
        Command::Man(args) => error::exit(manual::man::<Cli>(&args)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_for_people_says_what_it_does_and_shows_examples() {
        fn check(command: &clap::Command) {
            for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
                let name = child.get_name();
                assert!(child.get_about().is_some(), "{name} has no description");
                let help = child.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:\n"), "{name} has no examples");
                check(child);
            }
        }
        check(&Cli::command());
    }
}

//! `mainstay sds ...`: one file, or folder, a command.

mod chat;
mod import;
mod inspect;
mod sim;

use crate::{
    error::{Outcome, Result},
    output::Output,
};
use clap::Subcommand;

/// Messages to a group over a network that loses them: talk, look inside, take over, simulate
///
/// SDS gives all members of a group the same messages in the same order, over multicast, gossip or
/// anything else that loses, repeats and delays, without a server.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 all is well, 1 failed, 2 wrong command line, 3 damage found, 130 interrupted.

Examples:
  mainstay sds chat --name alice --loss 30
  mainstay sds inspect message.bin
  mainstay sds inspect --hex 0a046d736731100122036368312a01013200 --json
  mainstay sds sim --participants 100 --loss 20 --plot group.svg")]
pub(crate) struct SdsArgs {
    /// Print JSON: one document, or a line for each thing that happens for `chat`
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: SdsCommand,
}

#[derive(Subcommand)]
enum SdsCommand {
    Chat(chat::Args),
    Inspect(inspect::Args),
    Import(import::Args),
    Sim(sim::Args),
}

pub(crate) fn run(args: SdsArgs) -> Result<Outcome> {
    let mut output = Output::new(args.json);
    let outcome = match args.command {
        SdsCommand::Chat(args) => chat::run(&args, &mut output),
        SdsCommand::Inspect(args) => inspect::run(&args, &mut output),
        SdsCommand::Import(args) => import::run(&args, &mut output),
        SdsCommand::Sim(args) => sim::run(&args, &mut output),
    }?;
    output.flush()?;
    Ok(outcome)
}

/// The dialect of a group.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum ProfileArg {
    /// The specification's layout, as @waku/sds speaks it
    Lip,
    /// That of nim-sds and what is built on it
    Nim,
}

impl From<ProfileArg> for mainstay::sds::wire::Profile {
    fn from(profile: ProfileArg) -> Self {
        match profile {
            ProfileArg::Lip => Self::Lip,
            ProfileArg::Nim => Self::Nim,
        }
    }
}

//! `mainstay state ...`: one file a command.
//!
//! `ls` and `info` look from outside and subscribe to nothing. The others subscribe for as long as
//! they run, as any process does: a transient state that only they use ends with them.

mod bench;
mod bus;
mod feed;
mod fields;
mod get;
mod info;
mod ls;
mod persist;
mod rm;
mod set;
mod target;
mod value;
mod watch;

pub(crate) use fields::FieldError;

use crate::{
    error::{Outcome, Result},
    output::Output,
};
use clap::Subcommand;

/// Look at, change and watch named values in shared memory
///
/// A state is a named value that several processes share. Each commit makes a new version of it;
/// readers see whole versions and wait for nobody. A transient state ends when its last subscriber
/// leaves or dies; a persistent one has a file. States are in the folder where pools are:
/// $MAINSTAY_DIR, else $XDG_RUNTIME_DIR/mainstay, else /dev/shm/mainstay-<uid>.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 all is well, 1 failed, 2 wrong command line, 3 damage found, 130 interrupted.

Examples:
  mainstay state set temperature 21.5 --hold &
  mainstay state get temperature
  mainstay state watch temperature --max-rate 5
  mainstay state set temperature 22.0
  mainstay state ls --json")]
pub(crate) struct StateArgs {
    /// Print JSON: one document, or a line each for `watch`
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Subcommand)]
enum StateCommand {
    Ls(ls::Args),
    Get(get::Args),
    Set(set::Args),
    Watch(watch::Args),
    Feed(feed::Args),
    Info(info::Args),
    Persist(persist::Args),
    Rm(rm::Args),
    Bus(bus::Args),
    Bench(bench::Args),
}

pub(crate) fn run(args: StateArgs) -> Result<Outcome> {
    let mut output = Output::new(args.json);
    let out = &mut output;
    let outcome = match args.command {
        StateCommand::Ls(args) => ls::run(&args, out),
        StateCommand::Get(args) => get::run(&args, out),
        StateCommand::Set(args) => set::run(&args, out),
        StateCommand::Watch(args) => watch::run(&args, out),
        StateCommand::Feed(args) => feed::run(&args, out),
        StateCommand::Info(args) => info::run(&args, out),
        StateCommand::Persist(args) => persist::run(&args, out),
        StateCommand::Rm(args) => rm::run(&args, out),
        StateCommand::Bus(args) => bus::run(&args, out),
        StateCommand::Bench(args) => bench::run(&args, out),
    }?;
    output.flush()?;
    Ok(outcome)
}

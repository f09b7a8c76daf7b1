//! Crash tests that mean it: real processes, killed and frozen, and what they leave behind.
//!
//! | part | what it does |
//! |---|---|
//! | [`pool`] | a suite: blocks, processes, recovery |
//! | [`state`] | a suite: versions, transactions, readers |
//! | [`track`] | a suite: tracking, batches, checkpoints |
//! | [`store`] | a suite: acknowledged writes, batches, recovery of a store |
//! | [`sds`] | a suite: messages delivered and sent, with changes kept in a pool and in a store |
//! | [`power`] | a suite: checkpoints on a file system whose device loses what was not flushed |
//! | [`planted`] | plants faults in the library one at a time, to see that a suite finds them |
//! | [`cases`], [`storm`], [`shift`] | stops at every step of an operation; workers killed at random |
//! | [`modes`], [`verdict`], [`finding`] | what can be asked of a suite, and what it finds |
//! | [`child`], [`shared`], [`stepper`], [`progress`] | processes, memory outside of any pool, stop points, one line that moves |
//!
//! But for [`power`], it needs neither root nor anything but `/proc` and a folder for temporary files.

mod cases;
mod child;
mod finding;
mod modes;
mod planted;
mod pool;
mod power;
mod progress;
mod sds;
mod shared;
mod shift;
mod state;
mod stepper;
mod store;
mod storm;
mod track;
mod verdict;

use clap::{Parser, Subcommand};
use modes::{Ended, Suite};
use std::process::ExitCode;
use verdict::Verdict;

/// Kill and freeze real processes in the middle of their work, and count what was lost
///
/// The last line is `CRASH <name> kills=<n> lost=<n> torn=<n> stuck=<n> leaked=<n>`; the exit status
/// is 0 only if all of it is 0 (and, with --planted, every fault was found).
#[derive(Parser)]
#[command(name = "mainstay-crash", verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pool(pool::Arguments),
    State(state::Arguments),
    Track(track::Arguments),
    Store(store::Arguments),
    Sds(sds::Arguments),
    Power(power::Arguments),
}

impl Command {
    fn suite(&self) -> (&'static str, &dyn Suite) {
        match self {
            Self::Pool(arguments) => ("pool", arguments),
            Self::State(arguments) => ("state", arguments),
            Self::Track(arguments) => ("track", arguments),
            Self::Store(arguments) => ("store", arguments),
            Self::Sds(arguments) => ("sds", arguments),
            Self::Power(arguments) => ("power", arguments),
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let (name, suite) = command.suite();
    stepper::install();
    if suite.needs_stop_points() && !stepper::COMPILED_IN {
        eprintln!(
            "this build has no stop points: build it with `--features hook`, as `cargo xtask crash` \
             does; without them, only `--kills` is possible"
        );
        return ExitCode::from(2);
    }
    let verdict = Verdict::new();
    let Ended { kills, missed } = suite.run(verdict);
    println!("{}", verdict.summary(name, kills));
    if verdict.total() == 0 && missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

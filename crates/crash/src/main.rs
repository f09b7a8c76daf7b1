//! Crash tests that mean it: real processes, killed and frozen, and what they leave behind.
//!
//! | part | what it does |
//! |---|---|
//! | [`pool`] | a suite: blocks, processes, recovery |
//! | [`track`] | a suite: tracking, batches, checkpoints |
//! | [`power`] | a suite: checkpoints on a file system whose device loses what was not flushed |
//! | [`planted`] | plants faults in the library one at a time, to see that a suite finds them |
//! | [`verdict`], [`finding`], [`suite`] | what was found, and how a suite ends |
//! | [`child`], [`shared`], [`stepper`], [`progress`] | processes, memory outside of any pool, stop points, one line that moves |
//!
//! But for [`power`], it needs neither root nor anything but `/proc` and a folder for temporary files.

mod child;
mod finding;
mod planted;
mod pool;
mod power;
mod progress;
mod shared;
mod stepper;
mod suite;
mod track;
mod verdict;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use suite::Ended;
use verdict::Verdict;

/// Kill and freeze real processes in the middle of their work, and count what was lost
///
/// The last line is `CRASH <name> kills=<n> lost=<n> torn=<n> stuck=<n> leaked=<n>`; the exit status
/// is 0 only if all of it is 0 (and, with --planted, every fault was found).
#[derive(Parser)]
#[command(name = "mainstay-crash", verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    Pool(pool::Arguments),
    Track(track::Arguments),
    Power(power::Arguments),
}

impl Suite {
    fn name(&self) -> &'static str {
        match self {
            Self::Pool(_) => "pool",
            Self::Track(_) => "track",
            Self::Power(_) => "power",
        }
    }

    fn needs_stop_points(&self) -> bool {
        match self {
            Self::Pool(arguments) => pool::needs_stop_points(arguments),
            Self::Track(arguments) => track::needs_stop_points(arguments),
            Self::Power(_) => true,
        }
    }

    fn run(&self, verdict: &'static Verdict) -> Ended {
        match self {
            Self::Pool(arguments) => pool::run(arguments, verdict),
            Self::Track(arguments) => track::run(arguments, verdict),
            Self::Power(arguments) => power::run(arguments, verdict),
        }
    }
}

fn main() -> ExitCode {
    let suite = Cli::parse().suite;
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
    println!("{}", verdict.summary(suite.name(), kills));
    if verdict.total() == 0 && missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

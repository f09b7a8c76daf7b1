//! Crash tests that mean it: real processes, killed and frozen, and what they leave behind.
//!
//! | part | what it does |
//! |---|---|
//! | [`storm`] | workers that do everything at random, killed at random, with survivors at work |
//! | [`systematic`] | a kill, and a freeze, at every shared-memory store of every operation |
//! | [`planted`] | faults planted in the library, to see that the other two find them |
//! | [`audit`], [`hostile`] | checks of a whole pool; a file that claims too much |
//! | [`contents`], [`verdict`], [`finding`] | what is written into blocks; what was found |
//! | [`child`], [`shared`], [`stepper`] | processes, memory outside of any pool, stop points |
//!
//! It needs neither root nor anything but `/proc` and a folder for temporary files.

mod audit;
mod child;
mod contents;
mod finding;
mod hostile;
mod planted;
mod shared;
mod stepper;
mod storm;
mod systematic;
mod verdict;

use clap::{Args, Parser, Subcommand};
use std::{
    io::{IsTerminal, Write, stderr},
    process::ExitCode,
    time::{Duration, Instant},
};
use storm::Weather;
use systematic::Row;
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
    Pool(Pool),
}

/// The pool: blocks, processes, recovery
///
/// lost: what was acknowledged is not there, or a holder no longer holds it. torn: contents that
/// nobody wrote, a block handed out twice. stuck: a survivor did not come through. leaked: a block
/// that is neither free for all nor anybody's.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mainstay-crash pool                       some 60 random kills, a few seconds\n  \
    mainstay-crash pool --kills 2000          a long storm\n  \
    mainstay-crash pool --kills 500 --seed 7  other choices of whom, when and what\n  \
    mainstay-crash pool --every-store         a kill and a freeze at every store\n  \
    mainstay-crash pool --planted             plant each fault, and find it")]
struct Pool {
    /// Kill this many random workers at random instants, with survivors at work
    #[arg(long, value_name = "N", default_value_t = 60)]
    kills: u64,
    /// Decides what workers do and who is killed; when exactly, the machine decides
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Kill, and freeze, a victim at every shared-memory store of every operation
    #[arg(long, conflicts_with_all = ["kills", "planted"])]
    every_store: bool,
    /// Switch on one planted fault after the other; each has to be found
    #[arg(long, conflicts_with = "kills")]
    planted: bool,
}

fn main() -> ExitCode {
    let Suite::Pool(pool) = Cli::parse().suite;
    stepper::install();
    if (pool.every_store || pool.planted) && !stepper::COMPILED_IN {
        eprintln!(
            "this build has no stop points: build it with `--features hook`, as `cargo xtask crash` \
             does; without them, only `--kills` is possible"
        );
        return ExitCode::from(2);
    }
    let verdict = Verdict::new();
    let (kills, missed) = if pool.every_store {
        (every_store(verdict), 0)
    } else if pool.planted {
        (0, planted::run(pool.seed))
    } else {
        (weather_a_storm(&pool, verdict), 0)
    };
    println!("{}", verdict.summary(kills));
    if verdict.total() == 0 && missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn weather_a_storm(pool: &Pool, verdict: &'static Verdict) -> u64 {
    let started = Instant::now();
    let mut progress = Progress::new();
    let weather = storm::run(pool.kills, pool.seed, verdict, false, |weather| {
        progress.show(&format!("{} of {} kills, {}", weather.kills, pool.kills, sum_up(weather)));
    });
    progress.end();
    println!("{}, {:.1} s, seed {}", sum_up(&weather), started.elapsed().as_secs_f64(), pool.seed);
    weather.kills
}

fn sum_up(weather: &Weather) -> String {
    let Weather { kills, kills_at_steps, freezes, checks, operations } = weather;
    let outside = kills - kills_at_steps;
    format!(
        "{kills_at_steps} kills at a random store and {outside} from outside, {freezes} freezes, \
         {checks} checks, over {operations} operations"
    )
}

fn every_store(verdict: &'static Verdict) -> u64 {
    let started = Instant::now();
    println!(
        "{:26} {:>11} {:>9} {:>13} {:>11}",
        "operation", "kill points", "bad kills", "freeze points", "bad freezes"
    );
    let mut progress = Progress::new();
    let (mut kills, mut freezes) = (0, 0);
    for name in systematic::names() {
        progress.show(&format!("killing and freezing at every store: {name}"));
        let row = systematic::run(name, verdict, false);
        progress.end();
        let Row { name, kill_points, freeze_points, bad_kills, bad_freezes } = row;
        println!(
            "{name:26} {kill_points:>11} {bad_kills:>9} {freeze_points:>13} {bad_freezes:>11}"
        );
        kills += kill_points;
        freezes += freeze_points;
    }
    hostile::check(verdict);
    println!(
        "{} stop points: {kills} kills and {freezes} freezes, {:.1} s",
        kills + freezes,
        started.elapsed().as_secs_f64()
    );
    kills
}

/// One line that changes on a terminal; now and then a line elsewhere.
struct Progress {
    terminal: bool,
    shown: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: stderr().is_terminal(), shown: Instant::now() }
    }

    fn show(&mut self, text: &str) {
        let every = Duration::from_millis(if self.terminal { 100 } else { 5_000 });
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        if self.terminal {
            eprint!("\r\x1b[K{text}");
            // A terminal that is gone needs no progress.
            let _ = stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

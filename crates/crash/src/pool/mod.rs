//! The pool under kills and freezes.
//!
//! | part | what it does |
//! |---|---|
//! | [`storm`] | workers that do everything at random, killed at random, with survivors at work |
//! | [`systematic`] | a kill, and a freeze, at every shared-memory store of every operation |
//! | [`planted`] | faults planted in the library, to see that the other two find them |
//! | [`audit`], [`hostile`] | checks of a whole pool; a file that claims too much |
//! | [`contents`] | what is written into blocks |

mod audit;
mod contents;
mod hostile;
mod planted;
mod storm;
mod systematic;

use crate::{progress::Progress, suite::Ended, verdict::Verdict};
use clap::Args;
use std::time::Instant;
use storm::Weather;
use systematic::Row;

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
pub(crate) struct Arguments {
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

/// Whether what is asked for needs stop points.
pub(crate) fn needs_stop_points(arguments: &Arguments) -> bool {
    arguments.every_store || arguments.planted
}

pub(crate) fn run(arguments: &Arguments, verdict: &'static Verdict) -> Ended {
    if arguments.every_store {
        Ended { kills: every_store(verdict), missed: 0 }
    } else if arguments.planted {
        Ended { kills: 0, missed: crate::planted::run(planted::FAULTS, arguments.seed) }
    } else {
        Ended { kills: weather_a_storm(arguments, verdict), missed: 0 }
    }
}

fn weather_a_storm(arguments: &Arguments, verdict: &'static Verdict) -> u64 {
    let started = Instant::now();
    let mut progress = Progress::new();
    let weather = storm::run(arguments.kills, arguments.seed, verdict, false, |weather| {
        progress.show(&format!(
            "{} of {} kills, {}",
            weather.kills,
            arguments.kills,
            sum_up(weather)
        ));
    });
    progress.end();
    println!(
        "{}, {:.1} s, seed {}",
        sum_up(&weather),
        started.elapsed().as_secs_f64(),
        arguments.seed
    );
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

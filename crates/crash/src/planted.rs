//! Faults planted in the library, one at a time, each to be found: a suite that finds none proves
//! nothing.
//!
//! A part lists its faults as [`Fault`]s, each with the grounds on which it has to be found; this
//! file runs the hunts, each in a process tree of its own.

use crate::{
    child::{Child, News},
    shared::Shared,
    stepper,
    verdict::Verdict,
};
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

/// Longer than the longest hunt takes on a busy machine.
const HUNT_TIME_MAX: Duration = Duration::from_secs(90);

/// A way to look for a fault that is planted in this process.
pub(crate) trait Hunt {
    /// Goes on until the first finding, or until there is nowhere left to look.
    fn run(&self, seed: u64, verdict: &'static Verdict) -> Hunted;
}

/// How a hunt went: for the table.
#[derive(Clone, Copy)]
pub(crate) enum Hunted {
    /// Through a fixed list of cases: the finding itself says which.
    InOrder,
    /// At random, and after this many kills it ended.
    AfterKills(u64),
}

/// One fault: its name in the library, what it takes away, and where it has to be found.
pub(crate) struct Fault<H: 'static> {
    name: &'static str,
    breaks: &'static str,
    hunts: &'static [H],
}

pub(crate) const fn fault<H>(
    name: &'static str,
    breaks: &'static str,
    hunts: &'static [H],
) -> Fault<H> {
    Fault { name, breaks, hunts }
}

/// How a hunt ended: words for the table, and whether the fault was found.
struct Quarry {
    by: String,
    found: bool,
}

/// Plants all that have `only` in their name, prints the table, and returns how many hunts found
/// nothing.
pub(crate) fn run<H: Hunt>(faults: &[Fault<H>], seed: u64, only: &str) -> usize {
    let (mut planted, mut missed) = (0, 0);
    println!("{:22} {:62} found by", "fault", "what it breaks");
    for fault in faults.iter().filter(|fault| fault.name.contains(only)) {
        planted += 1;
        for hunt in fault.hunts {
            let Quarry { by, found } = look_for(fault, hunt, seed);
            missed += usize::from(!found);
            println!("{:22} {:62} {by}", fault.name, fault.breaks);
        }
    }
    println!("{planted} faults planted, {missed} hunts in vain");
    missed
}

/// Runs one hunt in a process tree of its own, in which the fault is planted.
fn look_for<H: Hunt>(fault: &Fault<H>, hunt: &H, seed: u64) -> Quarry {
    let verdict = Verdict::new();
    verdict.silence();
    // Kills of a random hunt, plus one; 0 for one that goes in order.
    let kills = Shared::<AtomicU64>::new();
    let mut hunter = Child::fork(|| {
        stepper::plant(fault.name);
        if let Hunted::AfterKills(count) = hunt.run(seed, verdict) {
            kills.store(count + 1, SeqCst);
        }
        0
    });
    let ended = hunter.end_within(HUNT_TIME_MAX);
    let by = match (verdict.first(), ended) {
        (Some(first), Some(News::Exited(0))) => match kills.load(SeqCst).checked_sub(1) {
            Some(kills) => format!("storm, after {kills} kills: {first}"),
            None => first,
        },
        (_, Some(News::Exited(0))) => "NOT FOUND".into(),
        (_, ended) => format!("NOT FOUND: the hunt itself ended: {ended:?}"),
    };
    Quarry { found: verdict.total() > 0 && ended == Some(News::Exited(0)), by }
}

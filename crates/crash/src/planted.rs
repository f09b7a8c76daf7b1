//! Faults planted in the library, one at a time, each to be found: a suite that finds none proves
//! nothing.

use crate::{
    child::{Child, News},
    hostile,
    shared::Shared,
    stepper, storm, systematic,
    verdict::Verdict,
};
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

/// Longer than the longest hunt takes on a busy machine.
const HUNT_TIME_MAX: Duration = Duration::from_secs(90);

/// Kills of a storm that hunts a fault.
const STORM_KILLS: u64 = 120;

/// Where a fault is looked for.
enum Hunt {
    /// At every store of these operations, in this order.
    At(&'static [&'static str]),
    /// In the random storm.
    Storm,
    /// In a file that says what it should not.
    Hostile,
}
use Hunt::{At, Hostile, Storm};

/// One fault: its name in the library, and what it takes away.
struct Fault {
    name: &'static str,
    breaks: &'static str,
    hunts: &'static [Hunt],
}

const fn fault(name: &'static str, breaks: &'static str, hunts: &'static [Hunt]) -> Fault {
    Fault { name, breaks, hunts }
}

const FAULTS: &[Fault] = &[
    fault(
        "no-hint-repair",
        "a reaper leaves hints of free blocks on \"taken\"",
        &[At(&["allocate with refill"]), Storm],
    ),
    fault(
        "publish-before-zero",
        "a block is published before it is cleared",
        &[At(&["allocate from magazine"])],
    ),
    fault(
        "reap-skips-cached",
        "free blocks kept at hand by the dead stay theirs",
        &[At(&["allocate from magazine"]), Storm],
    ),
    fault("clean-before-sweep", "a reaper marks the slot clean before it sweeps", &[At(&["reap"])]),
    fault(
        "clean-before-flush",
        "closing marks the slot clean before it gives back",
        &[At(&["close"])],
    ),
    fault("grow-by-store", "the count of extents is stored", &[At(&["allocate with growth"])]),
    fault("reap-the-living", "a reaper asks no lock", &[At(&["free last"]), Storm]),
    fault("reap-waits", "a reaper waits for the living", &[At(&["free last"])]),
    fault(
        "hint-before-word",
        "giving back clears the hint before the word",
        &[At(&["flush", "magazine flush"])],
    ),
    fault(
        "release-by-store",
        "a release stores the word it has computed",
        &[At(&["park", "free last"]), Storm],
    ),
    fault("reap-frees-orphans", "what the dead held is freed", &[At(&["free last"]), Storm]),
    fault(
        "reap-orphans-all",
        "transient blocks of the dead become orphans",
        &[At(&["free transient"]), Storm],
    ),
    fault(
        "tag-unchecked",
        "attach takes a reference before it compares the tag",
        &[At(&["attach by a stale id"])],
    ),
    fault(
        "generation-unchecked",
        "attach compares 27 bits of the generation",
        &[At(&["attach by a forged id"])],
    ),
    fault("tag-stays", "freeing leaves the tag as it is", &[At(&["free last"]), Storm]),
    fault(
        "claim-unchecked",
        "a claim counts although its exchange failed",
        &[At(&["allocate with refill"])],
    ),
    fault("thread-exit-keeps", "a thread that ends keeps its free blocks", &[At(&["thread exit"])]),
    fault(
        "inherited-description",
        "the lease is locked through the descriptor that was passed on",
        &[At(&["join"]), Storm],
    ),
    fault(
        "name-before-header",
        "a new file has its name before its header",
        &[At(&[systematic::CREATE])],
    ),
    fault("extents-unchecked", "the count of extents in the file is believed", &[Hostile]),
];

/// How a hunt ended: words for the table, and whether the fault was found.
struct Quarry {
    by: String,
    found: bool,
}

/// Plants them all, prints the table, and returns how many were not found.
pub(crate) fn run(seed: u64) -> usize {
    let mut missed = 0;
    println!("{:22} {:62} found by", "fault", "what it breaks");
    for fault in FAULTS {
        for hunt in fault.hunts {
            let Quarry { by, found } = look_for(fault, hunt, seed);
            missed += usize::from(!found);
            println!("{:22} {:62} {by}", fault.name, fault.breaks);
        }
    }
    println!("{} faults planted, {missed} hunts in vain", FAULTS.len());
    missed
}

/// Runs one hunt in a process tree of its own, in which the fault is planted.
fn look_for(fault: &Fault, hunt: &Hunt, seed: u64) -> Quarry {
    let verdict = Verdict::new();
    verdict.silence();
    let kills = Shared::<AtomicU64>::new();
    let mut hunter = Child::fork(|| {
        stepper::plant(fault.name);
        match hunt {
            At(operations) => {
                for name in *operations {
                    let name = systematic::names().find(|known| known == name);
                    systematic::run(name.expect("it is in the table"), verdict, true);
                    if verdict.total() > 0 {
                        break;
                    }
                }
            }
            Storm => {
                let weather = storm::run(STORM_KILLS, seed, verdict, true, |_| {});
                kills.store(weather.kills, SeqCst);
            }
            Hostile => hostile::check(verdict),
        }
        0
    });
    let ended = hunter.end_within(HUNT_TIME_MAX);
    let kills = kills.load(SeqCst);
    let by = match (verdict.first(), ended, hunt) {
        (Some(first), Some(News::Exited(0)), Storm) => {
            format!("storm, after {kills} kills: {first}")
        }
        (Some(first), Some(News::Exited(0)), _) => first,
        (_, Some(News::Exited(0)), _) => "NOT FOUND".into(),
        (_, ended, _) => format!("NOT FOUND: the hunt itself ended: {ended:?}"),
    };
    Quarry { found: verdict.total() > 0 && ended == Some(News::Exited(0)), by }
}

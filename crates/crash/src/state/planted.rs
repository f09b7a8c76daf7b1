//! The faults planted in states, and where each is to be found.

use super::{storm, systematic};
use crate::{
    planted::{Fault, Hunt, Hunted, fault},
    verdict::Verdict,
};

/// Kills of a storm that hunts a fault.
const STORM_KILLS: u64 = 120;
/// Rounds of a hunt at every step: the ids of states are drawn anew for each scene, and say in what
/// order a commit goes through them, so one round may show nothing.
const ROUNDS: u64 = 20;
/// Pairs of victims that a round of a hunt tries, whose first victim is killed, and as many whose
/// first is frozen.
const PAIRS_PER_ROUND: u64 = 100;

/// Where a fault is looked for.
pub(super) enum Ground {
    /// At every store and load of these operations, in this order.
    At(&'static [&'static str]),
    /// With two victims whose operations have these in their names.
    Pairs(&'static str, &'static str),
    /// In the random storm.
    Storm,
}
use Ground::{At, Pairs, Storm};

impl Hunt for Ground {
    fn run(&self, seed: u64, verdict: &'static Verdict) -> Hunted {
        match self {
            At(operations) => {
                for name in operations.repeat(ROUNDS as usize) {
                    systematic::run(name, false, verdict, true);
                    if verdict.total() > 0 {
                        break;
                    }
                }
                Hunted::InOrder
            }
            Pairs(first, second) => {
                for round in 0..ROUNDS {
                    let only = Some((*first, *second));
                    let seed = seed.wrapping_add(round << 32);
                    systematic::run_pairs(PAIRS_PER_ROUND, only, seed, verdict, true);
                    if verdict.total() > 0 {
                        break;
                    }
                }
                Hunted::InOrder
            }
            Storm => Hunted::AfterKills(storm::hunt(STORM_KILLS, seed, verdict).kills),
        }
    }
}

pub(super) const FAULTS: &[Fault<Ground>] = &[
    fault(
        "commit-by-store",
        "a commit stores the word, whatever came between",
        &[At(&["commit"]), At(&["publish"]), Storm],
    ),
    fault(
        "publish-into-shown",
        "a publisher writes the next version where the current one is",
        &[At(&["publish beside a reader"]), Storm],
    ),
    fault(
        "decide-by-store",
        "a committer decides by a store, whatever others have decided",
        &[At(&["commit of two", "commit of three", "commit of four"])],
    ),
    fault(
        "decide-without-install",
        "a helper decides before all references are in",
        &[At(&["commit of two", "commit of four"])],
    ),
    fault(
        "claims-before-records",
        "slots of the dead are taken while their record can be completed",
        &[At(&["commit of four"]), Pairs("commit of", "claim")],
    ),
    fault(
        "claim-without-recheck",
        "a claimed slot is not looked for in word and pins",
        &[At(&["commit"]), Storm],
    ),
    fault(
        "claim-forgets-base",
        "the base slot behind a reference can be claimed",
        &[At(&["commit of two", "commit of four"])],
    ),
    fault(
        "claim-forgets-new",
        "the new slot behind a reference can be claimed",
        &[Pairs("commit of four", "the last claim")],
    ),
    fault(
        "claim-ignores-pins",
        "a pinned slot can be claimed",
        &[At(&["read"]), At(&["publish beside a reader"]), Storm],
    ),
    fault(
        "pin-without-recheck",
        "a reader announces a slot that was reused before",
        &[At(&["read"])],
    ),
    fault(
        "derive-without-recheck",
        "the same, where the slot was found behind a reference",
        &[Pairs("commit of", "a read")],
    ),
    fault(
        "write-unsaid",
        "a slot that is being written still says what it had, and is copied without a pin",
        &[Pairs("copy", "the last claim")],
    ),
    fault(
        "read-without-second-look",
        "a read of several states takes what it finds first",
        &[At(&["read of two", "read of four"]), Storm],
    ),
    fault("add-without-look", "a transaction of several may see two instants", &[Storm]),
    fault(
        "stale-means-new",
        "a reference whose record has moved on means the new slot",
        &[Pairs("commit of", "a commit of")],
    ),
    fault(
        "help-without-sequence",
        "a helper does not look which use of a record it meets",
        &[Pairs("commit of", "a commit of")],
    ),
    fault(
        "recycle-committed",
        "a committed record is used again before its references are gone",
        &[At(&["commit of two", "commit of four"])],
    ),
];

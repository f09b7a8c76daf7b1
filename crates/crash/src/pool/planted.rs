//! The faults planted in the pool, and where each is to be found.

use super::{hostile, storm, systematic};
use crate::{
    planted::{Fault, Hunt, Hunted, fault},
    verdict::Verdict,
};

/// Kills of a storm that hunts a fault.
const STORM_KILLS: u64 = 120;

/// Where a fault is looked for.
pub(super) enum Ground {
    /// At every store of these operations, in this order.
    At(&'static [&'static str]),
    /// In the random storm.
    Storm,
    /// In a file that says what it should not.
    Hostile,
}
use Ground::{At, Hostile, Storm};

impl Hunt for Ground {
    fn run(&self, seed: u64, verdict: &'static Verdict) -> Hunted {
        match self {
            At(operations) => {
                for name in *operations {
                    let name = systematic::names().find(|known| known == name);
                    systematic::run(name.expect("it is in the table"), verdict, true);
                    if verdict.total() > 0 {
                        break;
                    }
                }
                Hunted::InOrder
            }
            Storm => Hunted::AfterKills(storm::hunt(STORM_KILLS, seed, verdict).kills),
            Hostile => {
                hostile::check(verdict);
                Hunted::InOrder
            }
        }
    }
}

pub(super) const FAULTS: &[Fault<Ground>] = &[
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

//! The faults planted in SDS, and where each is to be found.

use super::{storm, systematic};
use crate::{
    planted::{Fault, Hunt, Hunted, fault},
    verdict::Verdict,
};

/// Kills of a storm that hunts a fault.
const STORM_KILLS: u64 = 120;

/// Where a fault is looked for.
pub(super) enum Ground {
    /// At every step of this operation.
    At(&'static str),
    /// In the random storm.
    Storm,
}
use Ground::{At, Storm};

impl Hunt for Ground {
    fn run(&self, seed: u64, verdict: &'static Verdict) -> Hunted {
        match self {
            At(operation) => {
                systematic::run(operation, verdict, true);
                Hunted::InOrder
            }
            Storm => Hunted::AfterKills(storm::run(STORM_KILLS, seed, verdict, |_| {}).kills),
        }
    }
}

pub(super) const FAULTS: &[Fault<Ground>] = &[
    fault(
        "output-before-kept",
        "what waits for a change goes out before it",
        &[At("pool: receive"), At("store: receive"), Storm],
    ),
    fault(
        "not-again",
        "what was delivered and not confirmed does not come again",
        &[At("pool: receive"), At("store: receive"), Storm],
    ),
    fault(
        "replaced-first",
        "what a base replaces is freed before it is there",
        &[At("pool: keep a base"), At("store: keep a base")],
    ),
    fault(
        "first-part-first",
        "the first part of a record is written first",
        &[At("store: keep a base")],
    ),
    fault("half-a-record", "a record counts with any of its parts", &[At("pool: keep a base")]),
    fault("unfinished-stays", "what the dead left unfinished is kept", &[At("pool: keep a base")]),
    fault(
        "replaced-stays",
        "what the dead did not free behind a base is kept",
        &[At("pool: keep a base"), At("store: keep a base")],
    ),
];

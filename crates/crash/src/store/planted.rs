//! The faults planted below and above the store. All are looked for in the random storm.

use super::kind::Values;
use crate::{
    planted::{Fault, Hunt, Hunted, fault},
    verdict::Verdict,
};

/// Kills of a storm that hunts a fault.
const STORM_KILLS: u64 = 300;

pub(super) struct Storm(Values);

const BOTH: &[Storm] = &[Storm(Values::Fixed), Storm(Values::Any)];

impl Hunt for Storm {
    fn run(&self, seed: u64, verdict: &'static Verdict) -> Hunted {
        Hunted::AfterKills(super::storm((self.0, STORM_KILLS), seed, verdict).kills)
    }
}

pub(super) const FAULTS: &[Fault<Storm>] = &[
    fault("write-held-back", "a write is acknowledged before the system has it", BOTH),
    fault("half-written", "the end of a write is written with the next one", BOTH),
    fault("log-cut-early", "the log is cut when an image or a list is begun", BOTH),
    fault("batch-in-pieces", "a batch is written change by change", BOTH),
];

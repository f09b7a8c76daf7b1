//! The faults planted in tracking and checkpoints. All are looked for in the random storm.

use crate::{
    planted::{Fault, Hunt, Hunted, fault},
    verdict::Verdict,
};

/// Kills of a storm that hunts a fault, at most: one of them was found after 5 to 65, so that 80 were not
/// enough now and then.
const STORM_KILLS: u64 = 400;

pub(super) struct Storm;

impl Hunt for Storm {
    fn run(&self, seed: u64, verdict: &'static Verdict) -> Hunted {
        Hunted::AfterKills(super::storm(STORM_KILLS, seed, verdict).kills)
    }
}

pub(super) const FAULTS: &[Fault<Storm>] = &[
    fault("cut-without-waiting", "a cut does not wait for other processes' batches", &[Storm]),
    fault("the-dead-cut-on", "a cut whose maker has died is never ended", &[Storm]),
    fault("others-unseen", "a tracker does not look for other processes' writes", &[Storm]),
    fault("header-not-noted", "what a flush has found is not reported", &[Storm]),
    fault("log-not-folded", "a log is written over before it is in the image", &[Storm]),
];

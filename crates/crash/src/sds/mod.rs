//! SDS under kills and freezes: a channel whose changes are kept in a pool, or in a store.
//!
//! | part | what it does |
//! |---|---|
//! | [`board`] | what the application has processed and sent, outside of the place that keeps it |
//! | [`talk`] | what the other participant has said, once for all |
//! | [`life`] | the application: loads its channel, hears, sends, processes, confirms, keeps |
//! | [`check`] | what each death left behind, seen by another process |
//! | [`systematic`] | a kill at every step of every operation, and a freeze at some |
//! | [`storm`] | lives of all operations, killed at a random step or instant |
//! | [`planted`] | faults planted in the library, to see that the other two find them |
//!
//! A step is a store to the shared memory of the pool or of the store, a call that changes files,
//! and each moment at which the application itself may die: before and behind processing,
//! confirming, keeping.

mod board;
mod check;
mod life;
mod planted;
mod storm;
mod systematic;
mod talk;

use crate::{
    cases,
    modes::{AllModes, Modes},
    verdict::Verdict,
};
use clap::Args;
use std::time::Duration;

/// How long a check, or a sign of life, may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// SDS: messages delivered once, sent ones known, with changes in a pool and in a store
///
/// lost: a message that was delivered or sent is not known, or one is never delivered. torn: a
/// message is delivered twice, or what is kept makes no channel. stuck: the next one does not get
/// at what is kept, or two do. leaked: what is kept has parts that nobody needs.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mainstay-crash sds                       some 60 random kills, a few seconds\n  \
    mainstay-crash sds --kills 2000          a long storm\n  \
    mainstay-crash sds --kills 500 --seed 7  other choices of when and what\n  \
    mainstay-crash sds --every-store         a kill at every step, a freeze at some\n  \
    mainstay-crash sds --every-store --only receive\n  \
    mainstay-crash sds --planted             plant each fault, and find it")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) modes: Modes,
}

impl AllModes for Arguments {
    fn modes(&self) -> &Modes {
        &self.modes
    }

    fn storm(&self, verdict: &'static Verdict) -> u64 {
        storm::show(self.modes.kills, self.modes.seed, verdict)
    }

    fn every_store(&self, verdict: &'static Verdict) -> u64 {
        let names = self.modes.wanted(systematic::names());
        cases::table(names, |name| systematic::run(name, verdict, false))
    }

    fn planted(&self) -> usize {
        crate::planted::run(planted::FAULTS, self.modes.seed, &self.modes.only)
    }
}

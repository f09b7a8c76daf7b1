//! The pool under kills and freezes.
//!
//! | part | what it does |
//! |---|---|
//! | [`storm`] | workers that do everything at random, and the judge of them |
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

use crate::{
    cases,
    modes::{AllModes, Modes},
    verdict::Verdict,
};
use clap::Args;

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
        let kills = cases::table(names, |name| systematic::run(name, verdict, false));
        hostile::check(verdict);
        kills
    }

    fn planted(&self) -> usize {
        crate::planted::run(planted::FAULTS, self.modes.seed, &self.modes.only)
    }
}

//! States under kills and freezes.
//!
//! | part | what it does |
//! |---|---|
//! | [`systematic`] | a kill at every shared-memory store of every operation, a freeze at every store and load; two victims at a time |
//! | [`storm`] | workers that do everything at random, and the judge of them |
//! | [`planted`] | faults planted in the library, to see that the other two find them |
//! | [`actor`], [`contents`], [`site`] | using states, what is written into them, what they are made with |
//! | [`mappings`] | what a reader has mapped, and what becomes of its wild stores |

mod actor;
mod contents;
mod mappings;
mod planted;
mod site;
mod storm;
mod systematic;

use crate::{
    cases::{self, Row},
    modes::{AllModes, Modes},
    verdict::Verdict,
};
use clap::Args;

/// States: versions, transactions over one or several, readers, subscriptions
///
/// lost: an acknowledged commit is not there. torn: contents that nobody wrote, half of a commit, a
/// sum that changed, a history that no order explains. stuck: a survivor did not come through.
/// leaked: a slot, a pin or a file of the dead that nobody can have.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mainstay-crash state                       some 60 random kills, a few seconds\n  \
    mainstay-crash state --kills 2000          a long storm\n  \
    mainstay-crash state --kills 500 --seed 7  other choices of whom, when and what\n  \
    mainstay-crash state --every-store         a kill and a freeze at every store and load\n  \
    mainstay-crash state --every-store --thorough --pairs 20000   with nothing left out\n  \
    mainstay-crash state --planted             plant each fault, and find it")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) modes: Modes,
    /// With --every-store: how many pairs of stop points of two victims are tried, in each of two
    /// ways
    #[arg(long, value_name = "N", default_value_t = 150, requires = "every_store")]
    pairs: u64,
    /// With --every-store: kill before loads too, and let survivors act in every order, not in one
    #[arg(long, requires = "every_store")]
    thorough: bool,
}

impl AllModes for Arguments {
    fn modes(&self) -> &Modes {
        &self.modes
    }

    fn storm(&self, verdict: &'static Verdict) -> u64 {
        storm::show(self.modes.kills, self.modes.seed, verdict)
    }

    fn every_store(&self, verdict: &'static Verdict) -> u64 {
        systematic::check_wild_stores(verdict);
        let names = self.modes.wanted(systematic::names().chain([systematic::PAIRS]));
        cases::table(names, |name| self.row(name, verdict))
    }

    fn planted(&self) -> usize {
        crate::planted::run(planted::FAULTS, self.modes.seed, &self.modes.only)
    }
}

impl Arguments {
    fn row(&self, name: &'static str, verdict: &'static Verdict) -> Row {
        if name == systematic::PAIRS {
            systematic::run_pairs(self.pairs, None, self.modes.seed, verdict, false)
        } else {
            systematic::run(name, self.thorough, verdict, false)
        }
    }
}

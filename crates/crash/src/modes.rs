//! What every suite can be asked to do, and how it ends.

use crate::verdict::Verdict;
use clap::Args;

/// How a suite ended.
pub(crate) struct Ended {
    /// Processes it killed.
    pub(crate) kills: u64,
    /// Hunts for planted faults that found nothing.
    pub(crate) missed: usize,
}

/// The options of a suite that storms, stops at every store, and hunts planted faults.
#[derive(Args)]
pub(crate) struct Modes {
    /// Kill this many random workers at random instants, with survivors at work
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) kills: u64,
    /// Decides what workers do and who is killed; when exactly, the machine decides
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Kill, and freeze, a victim at every shared-memory store of every operation
    #[arg(long, conflicts_with_all = ["kills", "planted"])]
    pub(crate) every_store: bool,
    /// Only the operations (or, with --planted, faults) that have this in their name
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    #[arg(conflicts_with = "kills")]
    pub(crate) only: String,
    /// Switch on one planted fault after the other; each has to be found
    #[arg(long, conflicts_with = "kills")]
    pub(crate) planted: bool,
}

impl Modes {
    /// The operations that are asked for.
    pub(crate) fn wanted(
        &self,
        names: impl Iterator<Item = &'static str>,
    ) -> impl Iterator<Item = &'static str> {
        names.filter(|name| name.contains(&*self.only))
    }
}

/// One suite: a part of the system under kills and freezes.
pub(crate) trait Suite {
    /// Whether what is asked for needs stop points.
    fn needs_stop_points(&self) -> bool;
    fn run(&self, verdict: &'static Verdict) -> Ended;
}

/// A suite that can be asked for all of [`Modes`].
pub(crate) trait AllModes {
    fn modes(&self) -> &Modes;
    /// Kills at random; returns how many.
    fn storm(&self, verdict: &'static Verdict) -> u64;
    /// Kills and freezes at every stop point; returns how many were killed.
    fn every_store(&self, verdict: &'static Verdict) -> u64;
    /// Plants faults; returns how many hunts found nothing.
    fn planted(&self) -> usize;
}

impl<T: AllModes> Suite for T {
    fn needs_stop_points(&self) -> bool {
        self.modes().every_store || self.modes().planted
    }

    fn run(&self, verdict: &'static Verdict) -> Ended {
        if self.modes().every_store {
            Ended { kills: self.every_store(verdict), missed: 0 }
        } else if self.modes().planted {
            Ended { kills: 0, missed: self.planted() }
        } else {
            Ended { kills: self.storm(verdict), missed: 0 }
        }
    }
}

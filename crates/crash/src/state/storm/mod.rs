//! The states' part of a storm: what workers share, and the judge of it.

mod account;
mod check;
pub(crate) mod ledger;
mod work;
mod worker;

use crate::{
    child::Child,
    finding::Check,
    shared::Shared,
    state::{actor::Actor, site},
    stepper,
    storm::{self, Found, Site, WORKERS, Weather},
    verdict::Verdict,
};
use check::Judge;
use ledger::{Ledger, Storm};
use mainstay_base::Rng;
use std::{path::Path, sync::atomic::Ordering::SeqCst, thread, time::Duration};
use tempfile::TempDir;
use worker::Worker;

/// Slots of a state: fewer than the workers' threads would like to have.
const SLOTS: u32 = 7;

/// One folder of states.
struct Arena {
    ledger: &'static Ledger,
    verdict: &'static Verdict,
    /// Subscribes to all states and does nothing, so that they stay while workers come and go.
    keeper: Child,
    /// How the last subscriber goes: killed, or in an orderly way.
    keeper_is_killed: bool,
    folder: TempDir,
}

/// The ledger, which lives as long as the process: the stepper refers to it.
fn ledger() -> &'static Ledger {
    let ledger: &'static Ledger = Box::leak(Box::new(Shared::<Ledger>::new()));
    stepper::tell(&ledger.place);
    ledger
}

/// Prints how it goes; returns how many were killed.
pub(super) fn show(kills: u64, seed: u64, verdict: &'static Verdict) -> u64 {
    let ledger = ledger();
    let make = |rng: &mut Rng| Arena::new(ledger, verdict, rng);
    let kills = storm::show(kills, seed, &ledger.orders, verdict, make);
    println!("{}", ledger.tallies);
    kills
}

/// Runs until the first finding, or until there were `kills` kills.
pub(super) fn hunt(kills: u64, seed: u64, verdict: &'static Verdict) -> Weather {
    let ledger = ledger();
    let make = |rng: &mut Rng| Arena::new(ledger, verdict, rng);
    storm::run(kills, seed, &ledger.orders, verdict, true, make, |_| {})
}

impl Arena {
    fn new(
        ledger: &'static Ledger,
        verdict: &'static Verdict,
        rng: &mut Rng,
    ) -> Result<Self, String> {
        let folder = site::folder().map_err(|finding| finding.what)?;
        ledger.clear();
        let keeper = keep(ledger, folder.path())?;
        Ok(Self { ledger, verdict, keeper, keeper_is_killed: rng.below(2) == 0, folder })
    }

    fn judge_with<'a>(&'a self, found: [Found; WORKERS], none_died: bool) -> Judge<'a> {
        let folder = self.folder.path();
        Judge { ledger: self.ledger, verdict: self.verdict, folder, found, none_died }
    }
}

/// Starts the keeper, and returns when it has made the states.
fn keep(ledger: &'static Ledger, folder: &Path) -> Result<Child, String> {
    let mut keeper = Child::fork(|| {
        let Ok(actor) = Actor::make::<Storm>(folder, SLOTS) else { return 1 };
        ledger.leave.store(KEPT, SeqCst);
        while ledger.leave.load(SeqCst) != LEAVE {
            thread::sleep(Duration::from_millis(1));
        }
        drop(actor);
        0
    });
    while ledger.leave.load(SeqCst) != KEPT {
        if let Some(news) = keeper.poll() {
            return Err(format!("the keeper of the states: {news:?}"));
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(keeper)
}

/// The keeper has subscribed.
const KEPT: u32 = 1;
/// It is to leave.
const LEAVE: u32 = 2;

impl Site for Arena {
    fn vacate(&self, row: usize) {
        self.ledger.logs[row].iter().for_each(ledger::Log::clear);
        self.ledger.joining[row].store(0, SeqCst);
    }

    fn may_freeze(&self, row: usize) -> bool {
        // Whoever joins or leaves a state makes others that do so wait.
        self.ledger.joining[row].load(SeqCst) == 0
    }

    fn work(&self, row: usize, life: u64, seed: u64) -> i32 {
        let folder = self.folder.path();
        let _ = life;
        Worker { ledger: self.ledger, verdict: self.verdict, row, folder, seed }.live()
    }

    fn judge(&self, found: [Found; WORKERS], none_died: bool) {
        self.judge_with(found, none_died).judge();
    }

    fn judge_the_end(&self) {
        let judge = self.judge_with([Found::Dead; WORKERS], false);
        judge.judge();
        judge.note(judge.tally_and_sweep());
        let gone = || -> Check {
            if self.keeper_is_killed {
                self.keeper.signal(rustix::process::Signal::KILL);
                judge.all_evaporate_when_looked_at()
            } else {
                self.ledger.leave.store(LEAVE, SeqCst);
                judge.all_evaporate()
            }
        };
        judge.note(gone());
    }
}

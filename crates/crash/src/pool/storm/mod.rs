//! The pool's part of a storm: what workers share, and the judge of it.

mod check;
pub(crate) mod ledger;
mod work;
mod worker;

use crate::{
    finding::Finding,
    shared::Shared,
    stepper,
    storm::{self, Found, Site, WORKERS, Weather},
    verdict::Verdict,
};
use check::Judge;
use ledger::Ledger;
use mainstay_base::Rng;
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
};
use worker::Worker;

/// One pool and what else its workers are born with.
struct Arena {
    ledger: &'static Ledger,
    verdict: &'static Verdict,
    fd: OwnedFd,
    sockets: (UnixStream, UnixStream),
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
    storm::show(kills, seed, &ledger.orders, verdict, |_| Arena::new(ledger, verdict))
}

/// Runs until the first finding, or until there were `kills` kills.
pub(super) fn hunt(kills: u64, seed: u64, verdict: &'static Verdict) -> Weather {
    let ledger = ledger();
    let make = |_: &mut Rng| Arena::new(ledger, verdict);
    storm::run(kills, seed, &ledger.orders, verdict, true, make, |_| {})
}

impl Arena {
    fn new(ledger: &'static Ledger, verdict: &'static Verdict) -> Result<Self, String> {
        let pool = worker::options().create_memfd().map_err(|e| e.to_string())?;
        let shared = || -> io::Result<_> {
            let (a, b) = UnixStream::pair()?;
            a.set_nonblocking(true)?;
            b.set_nonblocking(true)?;
            Ok((pool.as_fd().try_clone_to_owned()?, (a, b)))
        };
        let (fd, sockets) = shared().map_err(|e| format!("no descriptors: {e}"))?;
        ledger.clear();
        Ok(Self { ledger, verdict, fd, sockets })
    }

    fn fd(&self) -> OwnedFd {
        self.fd.try_clone().expect("a descriptor is left")
    }
}

impl Site for Arena {
    fn vacate(&self, row: usize) {
        self.ledger.workers[row].clear();
    }

    fn work(&self, row: usize, life: u64, seed: u64) -> i32 {
        let worker = Worker {
            ledger: self.ledger,
            verdict: self.verdict,
            row,
            life,
            fd: self.fd(),
            giver: &self.sockets.0,
            taker: &self.sockets.1,
            seed,
        };
        worker.live()
    }

    fn judge(&self, found: [Found; WORKERS], none_died: bool) {
        let judge = Judge { ledger: self.ledger, verdict: self.verdict, found, none_died };
        if let Err(Finding { harm, what }) = judge.judge(self.fd()) {
            self.verdict.report(harm, &format!("the judge: {what}"));
        }
    }

    fn judge_the_end(&self) {
        self.judge([Found::Dead; WORKERS], true);
    }
}

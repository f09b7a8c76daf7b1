//! A worker process: two threads that do everything a pool offers, at random, until they are told
//! to rest, to go, or are killed. Between sessions it closes the pool and joins again, through its
//! own descriptor or one that another worker passed on.

use super::{
    ledger::{Ledger, holder},
    work::Work,
};
use crate::{finding::Check, pool::contents::BLOCK_SIZE, shift, verdict::Verdict};
use mainstay_base::Rng;
use mainstay_pool::{PoolOptions, handover};
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::atomic::Ordering::SeqCst,
};

/// What every process of the storm opens. Small extents and a low limit: it is full often.
pub(crate) fn options() -> PoolOptions {
    PoolOptions::new("storm", BLOCK_SIZE).growth_step(64).max_blocks(512)
}

/// What a worker is born with.
pub(crate) struct Worker<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) verdict: &'a Verdict,
    /// Its row in the ledger.
    pub(crate) row: usize,
    pub(crate) life: u64,
    pub(crate) fd: OwnedFd,
    /// Descriptors are passed on through this pair, which all workers share.
    pub(crate) giver: &'a UnixStream,
    pub(crate) taker: &'a UnixStream,
    pub(crate) seed: u64,
}

impl Worker<'_> {
    /// The whole life, as an exit code.
    pub(crate) fn live(&self) -> i32 {
        shift::live(&self.ledger.orders, self.row, self.seed, self.verdict, |rng| self.session(rng))
    }

    fn session(&self, rng: &mut Rng) -> Check {
        let row = &self.ledger.workers[self.row];
        let pool = options().seed(rng.next_u64()).join_fd(self.descriptor())?;
        row.slot.store(pool.slot() + 1, SeqCst);
        let seeds = [rng.next_u64(), rng.next_u64()];
        let length = 2_000 + rng.below(20_000);
        shift::work(&self.ledger.orders, self.row, length, |thread| {
            Ok(Work::new(
                &pool,
                self.ledger,
                &row.visits[thread],
                holder(self.life, thread),
                // Only the first thread has the time for it.
                (thread == 0).then_some(self.giver),
                seeds[thread],
            ))
        })?;
        row.slot.store(0, SeqCst);
        // Every guard was given up, so nothing stands in the way of an orderly close.
        Ok(pool.close()?)
    }

    /// One that was passed on, if there is one, else its own.
    fn descriptor(&self) -> OwnedFd {
        let passed = handover::receive_fds(self.taker, &mut [0]).ok();
        let passed = passed.and_then(|(_, mut fds)| fds.pop());
        passed.unwrap_or_else(|| self.fd.try_clone().expect("a descriptor is left"))
    }
}

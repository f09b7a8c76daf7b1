//! A worker process: two threads that use states as programs would, at random, until they are told
//! to rest, to go, or are killed. Between sessions it leaves all states and the folder, and joins
//! again.

use super::{
    ledger::{ALL, Ledger, Storm},
    work::Work,
};
use crate::{
    finding::{Check, Finding},
    shift::{self, THREADS},
    state::{actor::Actor, mappings},
    storm::WORKERS,
    verdict::{Harm, Verdict},
};
use mainstay_base::Rng;
use mainstay_shm::Access;
use std::{
    path::Path,
    sync::{Mutex, PoisonError, atomic::Ordering::SeqCst},
};

/// What a worker is born with.
pub(super) struct Worker<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) verdict: &'a Verdict,
    /// Its row in the ledger.
    pub(super) row: usize,
    pub(super) folder: &'a Path,
    pub(super) seed: u64,
}

/// Subscribes to half of the accounts: it can help nobody with the others.
const PARTIAL_ROW: usize = 2;
const PARTIAL: [usize; 3] = [1, 2, 4];
/// Subscribes for reading only.
const READ_ONLY_ROW: usize = 3;
const _: () = assert!(READ_ONLY_ROW < WORKERS);

impl Worker<'_> {
    /// The whole life, as an exit code.
    pub(super) fn live(&self) -> i32 {
        shift::live(&self.ledger.orders, self.row, self.seed, self.verdict, |rng| self.session(rng))
    }

    fn session(&self, rng: &mut Rng) -> Check {
        let joining = &self.ledger.joining[self.row];
        let (maps, access): (&[usize], _) = match self.row {
            PARTIAL_ROW => (&PARTIAL, Access::ReadWrite),
            READ_ONLY_ROW => (&ALL, Access::ReadOnly),
            _ => (&ALL, Access::ReadWrite),
        };
        joining.fetch_add(1, SeqCst);
        let first = Actor::open::<Storm>(self.folder, maps, access)?;
        let second = first.try_clone()?;
        joining.fetch_sub(1, SeqCst);
        if access == Access::ReadOnly {
            mappings::are_read_only(self.folder)?;
        }
        let actors: [_; THREADS] = [first, second].map(|actor| Mutex::new(Some(actor)));
        let seeds = [rng.next_u64(), rng.next_u64()];
        let length = 500 + rng.below(10_000);
        let joined = shift::work(&self.ledger.orders, self.row, length, |thread| {
            let mut place = actors[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let actor = place.take().ok_or_else(|| Finding {
                harm: Harm::Stuck,
                what: "a thread was started twice".into(),
            })?;
            let log = &self.ledger.logs[self.row][thread];
            Ok(Work::new(actor, (maps, access), self.ledger, (log, joining), seeds[thread]))
        });
        // Each thread has left, while it had said that it is about to.
        joining.fetch_sub(THREADS as u32, SeqCst);
        joined
    }
}

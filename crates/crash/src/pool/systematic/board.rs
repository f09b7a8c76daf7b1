//! What survivor and victim tell each other, outside of the pool: which blocks must be there
//! whatever happens, and which may.

use crate::{cases::Docket, pool::contents::Contents, shared::Sharable};
use mainstay_pool::BlockId;
use std::sync::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

const PROMISES: usize = 64;

/// Promises that every scene has, by their place on the board.
pub(crate) mod role {
    /// Held by the survivor.
    pub(crate) const SHARED: usize = 0;
    /// Parked by the survivor.
    pub(crate) const PARKED: usize = 1;
    /// Parked by the survivor, and no operation touches it.
    pub(crate) const SPARE: usize = 2;
    /// A parked `PoolBox`.
    pub(crate) const BOXED: usize = 3;
    /// Held by the bystander, which is dead.
    pub(crate) const ORPHANS: [usize; 2] = [4, 5];
    /// Freed long ago; its number is that of `REUSED`.
    pub(crate) const STALE: usize = 6;
    /// Parked; the next life of `STALE`.
    pub(crate) const REUSED: usize = 7;
    /// Parked, of a known type.
    pub(crate) const TYPED: usize = 8;
    /// How many there are.
    pub(crate) const COUNT: usize = 9;
}

/// Whether a block is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Claim {
    /// It was acknowledged.
    Must,
    /// Its end has begun, and is not acknowledged.
    May,
    /// Its end was acknowledged.
    Gone,
}

/// The state in which a block must be when the victim is dead and reaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Rest {
    /// Nobody holds it, whether parked or left by the dead.
    Unheld,
    /// Parked by choice: no death is to be seen on it.
    Parked,
    /// An orphan, and nothing else.
    Orphan,
    /// Held by the survivor alone.
    HeldBySurvivor,
}

/// One recoverable block.
pub(crate) struct Promise {
    number: AtomicU32,
    generation: AtomicU64,
    seed: AtomicU64,
    /// During a write: the seed that is coming.
    next_seed: AtomicU64,
    claim: AtomicU32,
    rest: AtomicU32,
    boxed: AtomicU32,
}

pub(crate) struct Board {
    pub(crate) docket: Docket,
    pub(crate) victim_slot: AtomicU32,
    /// Blocks that may be there although no promise tells of them.
    pub(crate) may_appear: AtomicU32,
    /// What these hold: words of the first, then of the second.
    pub(crate) appear_seeds: [AtomicU64; 2],
    promises: [Promise; PROMISES],
    used: AtomicUsize,
}
// SAFETY: atomics, and a docket, which may be shared.
unsafe impl Sharable for Board {}

/// The slot of a victim that has none.
pub(crate) const NO_SLOT: u32 = u32::MAX;

impl Board {
    /// For a new case; roles are filled in by the scene.
    pub(crate) fn clear(&self) {
        self.victim_slot.store(NO_SLOT, Relaxed);
        self.may_appear.store(0, Relaxed);
        for promise in &self.promises {
            promise.claim.store(Claim::Gone as u32, Relaxed);
            promise.boxed.store(0, Relaxed);
            promise.generation.store(u64::MAX, Relaxed);
        }
        self.used.store(role::COUNT, Release);
    }

    pub(crate) fn promise(&self, at: usize) -> &Promise {
        &self.promises[at]
    }

    /// All that is promised, with its place.
    pub(crate) fn promises(&self) -> impl Iterator<Item = (usize, &Promise)> {
        self.promises.iter().enumerate().take(self.used.load(Acquire))
    }

    /// The victim's own: acknowledges a block that it holds.
    pub(crate) fn add(&self, id: BlockId, seed: u64) -> usize {
        let at = self.used.load(Relaxed);
        self.promises[at].fill(id, seed, Rest::Unheld);
        self.used.store(at + 1, Release);
        at
    }
}

impl Promise {
    pub(crate) fn fill(&self, id: BlockId, seed: u64, rest: Rest) {
        self.number.store(id.number, Relaxed);
        self.generation.store(id.generation, Relaxed);
        self.seed.store(seed, Relaxed);
        self.next_seed.store(seed, Relaxed);
        self.set_rest(rest);
        self.set(Claim::Must);
    }

    pub(crate) fn id(&self) -> BlockId {
        BlockId { number: self.number.load(Acquire), generation: self.generation.load(Acquire) }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed.load(Acquire)
    }

    pub(crate) fn set(&self, claim: Claim) {
        self.claim.store(claim as u32, Release);
    }

    pub(crate) fn claim(&self) -> Claim {
        match self.claim.load(Acquire) {
            0 => Claim::Must,
            1 => Claim::May,
            _ => Claim::Gone,
        }
    }

    pub(crate) fn set_rest(&self, rest: Rest) {
        self.rest.store(rest as u32, Release);
    }

    pub(crate) fn rest(&self) -> Rest {
        match self.rest.load(Acquire) {
            0 => Rest::Unheld,
            1 => Rest::Parked,
            2 => Rest::Orphan,
            _ => Rest::HeldBySurvivor,
        }
    }

    pub(crate) fn set_boxed(&self) {
        self.boxed.store(1, Release);
    }

    pub(crate) fn is_boxed(&self) -> bool {
        self.boxed.load(Acquire) != 0
    }

    /// A write begins: until `written`, any mix of old and new is right.
    pub(crate) fn writing(&self, seed: u64) {
        self.next_seed.store(seed, Release);
    }

    pub(crate) fn written(&self) {
        self.seed.store(self.next_seed.load(Relaxed), Release);
    }

    /// Whether the contents are what was written.
    pub(crate) fn has(&self, contents: &Contents) -> bool {
        let (old, new) = (self.seed(), self.next_seed.load(Acquire));
        if old == new { *contents == Contents::of(old) } else { contents.is_mix_of(old, new) }
    }
}

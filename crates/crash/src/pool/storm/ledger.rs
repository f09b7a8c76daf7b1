//! What the workers have promised, kept where no death of theirs can reach it.
//!
//! L1. A block that a worker has acknowledged stands in a deed, with its holder, its id and the
//!     number that its contents follow from. Before it changes any of these, the holder says so.
//! L2. Who holds a deed is decided by one exchange on `holder`; only the holder may end the block
//!     or write to it. Others may visit: attach, read, leave.
//! L3. An even `version` that is the same before and after says that nothing was in change between.
//!
//! Everything is sequentially consistent: it is the judge, and speed is no concern.

use crate::{
    shared::{Sharable, Text},
    shift::THREADS,
    storm::{Orders, WORKERS},
};
use mainstay_pool::BlockId;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

pub(crate) const VISITS: usize = 4;
pub(crate) const DEEDS: usize = 1_024;

/// Nobody's deed: it is about no block.
const VACANT: u64 = 0;
/// The block is parked: whoever takes the deed may attach it.
pub(crate) const PARKED: u64 = 1;

/// How far a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Phase {
    /// There is no block yet, or a new one that its allocator has not acknowledged.
    Nothing,
    /// It is there, with these contents.
    Settled,
    /// It is there, with old or new contents or a mix.
    Writing,
    /// It is going.
    Freeing,
}

/// What sort of guard a block needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Sort {
    Plain,
    Typed,
    Boxed,
    Transient,
}

pub(crate) struct Deed {
    holder: AtomicU64,
    version: AtomicU64,
    phase: AtomicU32,
    sort: AtomicU32,
    number: AtomicU32,
    generation: AtomicU64,
    seed: AtomicU64,
    next_seed: AtomicU64,
}

/// A deed as it was at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) holder: u64,
    pub(crate) version: u64,
    pub(crate) phase: Phase,
    pub(crate) sort: Sort,
    pub(crate) id: BlockId,
    pub(crate) seed: u64,
    pub(crate) next_seed: u64,
}

pub(crate) struct WorkerRow {
    /// Slot in the pool plus one; 0 while it has none.
    pub(crate) slot: AtomicU32,
    /// Blocks visited, plus one.
    pub(crate) visits: [[AtomicU32; VISITS]; THREADS],
}

pub(crate) struct Ledger {
    pub(crate) orders: Orders,
    pub(crate) workers: [WorkerRow; WORKERS],
    pub(crate) deeds: [Deed; DEEDS],
    pub(crate) place: Text,
    last_seed: AtomicU64,
}
// SAFETY: atomics and texts only.
unsafe impl Sharable for Ledger {}

/// Bit of a holder that is just attaching or parking the block, so may have no guard of it.
const MOVING: u64 = 1 << 7;

/// Who holds a deed: a life of a worker process, and the thread of it.
pub(crate) fn holder(life: u64, thread: usize) -> u64 {
    (life << 8) + 2 + thread as u64
}

/// Which life a holder belongs to; 0 for none.
pub(crate) fn life_of(holder: u64) -> u64 {
    holder >> 8
}

impl Ledger {
    /// For a new pool; nobody works.
    pub(crate) fn clear(&self) {
        self.workers.iter().for_each(WorkerRow::clear);
        self.deeds.iter().for_each(Deed::vacate);
    }

    /// A number that no contents have followed from.
    pub(crate) fn new_seed(&self) -> u64 {
        self.last_seed.fetch_add(1, SeqCst) + 1
    }

    /// Takes a vacant deed, looking from `start` on.
    pub(crate) fn take_vacant(&self, start: usize, me: u64) -> Option<&Deed> {
        let mut all = (0..DEEDS).map(|i| &self.deeds[(start + i) % DEEDS]);
        all.find(|deed| deed.hand(VACANT, me))
    }

    /// Takes the deed of a parked block, looking from `start` on; [`Deed::moved_in`] when it is
    /// attached.
    pub(crate) fn take_parked(&self, start: usize, me: u64) -> Option<&Deed> {
        let mut all = (0..DEEDS).map(|i| &self.deeds[(start + i) % DEEDS]);
        all.find(|deed| deed.hand(PARKED, me | MOVING))
    }

    /// The deed about this block, if there is one.
    pub(crate) fn find(&self, id: BlockId) -> Option<&Deed> {
        self.deeds.iter().find(|deed| {
            let seen = deed.look();
            seen.holder != VACANT && seen.phase != Phase::Nothing && seen.id == id
        })
    }
}

impl WorkerRow {
    /// For a new life.
    pub(crate) fn clear(&self) {
        self.slot.store(0, SeqCst);
        self.visits.iter().flatten().for_each(|visit| visit.store(0, SeqCst));
    }
}

impl Deed {
    pub(crate) fn look(&self) -> Seen {
        // First, so that an unchanged version covers all the rest.
        let version = self.version.load(SeqCst);
        let phase = match self.phase.load(SeqCst) {
            0 => Phase::Nothing,
            1 => Phase::Settled,
            2 => Phase::Writing,
            _ => Phase::Freeing,
        };
        let sort = match self.sort.load(SeqCst) {
            0 => Sort::Plain,
            1 => Sort::Typed,
            2 => Sort::Boxed,
            _ => Sort::Transient,
        };
        Seen {
            version,
            holder: self.holder.load(SeqCst),
            phase,
            sort,
            id: BlockId {
                number: self.number.load(SeqCst),
                generation: self.generation.load(SeqCst),
            },
            seed: self.seed.load(SeqCst),
            next_seed: self.next_seed.load(SeqCst),
        }
    }

    /// The deed changes hands, if it is still `from`'s.
    pub(crate) fn hand(&self, from: u64, to: u64) -> bool {
        self.holder.compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }

    fn change(&self, phase: Phase) {
        // Odd, also when a holder died in the middle of a change.
        self.version.store(self.version.load(SeqCst) | 1, SeqCst);
        self.phase.store(phase as u32, SeqCst);
    }

    fn settle(&self) {
        self.phase.store(Phase::Settled as u32, SeqCst);
        self.version.store((self.version.load(SeqCst) | 1) + 1, SeqCst);
    }

    /// A block is about to be allocated, and perhaps filled.
    pub(crate) fn allocating(&self, sort: Sort, seed: u64) {
        self.change(Phase::Nothing);
        self.sort.store(sort as u32, SeqCst);
        self.seed.store(0, SeqCst);
        self.next_seed.store(seed, SeqCst);
    }

    /// It is there.
    pub(crate) fn allocated(&self, id: BlockId, seed: u64) {
        self.number.store(id.number, SeqCst);
        self.generation.store(id.generation, SeqCst);
        self.seed.store(seed, SeqCst);
        self.settle();
    }

    pub(crate) fn writing(&self, seed: u64) {
        self.next_seed.store(seed, SeqCst);
        self.change(Phase::Writing);
    }

    pub(crate) fn written(&self) {
        self.seed.store(self.next_seed.load(SeqCst), SeqCst);
        self.settle();
    }

    pub(crate) fn freeing(&self) {
        self.change(Phase::Freeing);
    }

    /// The holder has a guard now.
    pub(crate) fn moved_in(&self, me: u64) {
        self.holder.store(me, SeqCst);
    }

    /// The holder is about to give up its guard, and leave the block as it is.
    pub(crate) fn moving_out(&self, me: u64) {
        self.holder.store(me | MOVING, SeqCst);
    }

    /// It has.
    pub(crate) fn parked(&self) {
        self.holder.store(PARKED, SeqCst);
    }

    /// The block is settled, whatever its holder was at, and nobody's.
    pub(crate) fn settle_for_the_dead(&self, seed: u64) {
        self.seed.store(seed, SeqCst);
        self.settle();
        self.parked();
    }

    /// There is no block.
    pub(crate) fn vacate(&self) {
        self.change(Phase::Nothing);
        self.number.store(u32::MAX, SeqCst);
        self.generation.store(u64::MAX, SeqCst);
        self.holder.store(VACANT, SeqCst);
    }
}

impl Seen {
    pub(crate) fn is_vacant(&self) -> bool {
        self.holder == VACANT
    }

    /// Whether the holder has a guard, if it is alive.
    pub(crate) fn is_moving(&self) -> bool {
        self.holder & MOVING != 0
    }

    pub(crate) fn is_stable(&self) -> bool {
        self.version.is_multiple_of(2) && self.phase == Phase::Settled
    }

    pub(crate) fn outlives_its_holder(&self) -> bool {
        self.sort != Sort::Transient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shared;

    #[test]
    fn a_deed_has_one_holder_and_its_version_tells_a_change() {
        let ledger = Shared::<Ledger>::new();
        ledger.clear();
        let (me, other) = (holder(1, 0), holder(2, 1));
        assert_eq!((life_of(me), life_of(other), life_of(PARKED)), (1, 2, 0));
        let deed = ledger.take_vacant(5, me).unwrap();
        assert!(!deed.hand(VACANT, other));
        deed.allocating(Sort::Plain, 0);
        let id = BlockId { number: 3, generation: 4 };
        assert!(ledger.find(id).is_none());
        deed.allocated(id, 0);
        let before = deed.look();
        assert!(before.is_stable() && ledger.find(id).is_some());
        deed.writing(9);
        assert!(!deed.look().is_stable());
        deed.written();
        assert_ne!(deed.look().version, before.version);
        assert_eq!(deed.look().seed, 9);
        deed.parked();
        assert!(deed.hand(PARKED, other));
        deed.vacate();
        assert!(deed.look().is_vacant() && ledger.find(id).is_none());
    }
}

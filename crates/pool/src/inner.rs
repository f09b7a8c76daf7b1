//! One pool in one process, and its end.
//!
//! The operations are in `allocate.rs` (allocate, grow) and `hold.rs` (attach, clone, release).
//!
//! P1. An address handed out is the same until its guard is dropped.
//! P2. A death between any two stores loses no parked or held recoverable block, leaks none, hands
//!     none out twice, and blocks no survivor.
//! P3. Who holds a block is decided by one compare-and-swap on its owner word.
//! P6. Nothing read from the mapping is trusted: numbers are checked, impossible words are errors.

use crate::{
    BlockId, Error, Result,
    batch::Gate,
    extents::Extents,
    freelist::{self, GROUP},
    limits::MAGAZINE_MAX,
    magazine::{CLOSING, Contents, Magazine, OPEN, VOID},
    monitor::{self, EventKind, Monitors},
    multi::Extras,
    reap,
    word::Word,
};
use mainstay_base::{Name, mix64};
use mainstay_shm::{
    Atomic64,
    fork::{Epoch, Hold, Wiped},
    futex, hook, lease,
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use uuid::Uuid;

/// One pool in one process.
pub(crate) struct Inner {
    /// Never used again in this process.
    pub(crate) id: u64,
    pub(crate) slot: u32,
    pub(crate) extents: Extents,
    pub(crate) monitors: Monitors,
    pub(crate) name: Name,
    pub(crate) uuid: Uuid,
    pub(crate) extras: Extras,
    pub(crate) growing: Mutex<()>,
    pub(crate) gate: Gate,
    /// The boot that this process is told it runs in.
    pub(crate) boot: Option<Uuid>,
    /// Of the process that opened it; a child made by fork has another.
    epoch: Epoch,
    seed: u64,
    magazines: Mutex<Magazines>,
    closing: AtomicBool,
    /// For events that wait, and must keep the pool until then.
    pub(crate) this: Weak<Inner>,
    /// Keeps the pool alive while guards may exist (M3); taken out when the last is gone.
    keep: Mutex<Option<Arc<Inner>>>,
}

#[derive(Default)]
struct Magazines {
    list: Vec<Arc<Wiped<Magazine>>>,
    /// How many were ever made.
    registered: u64,
    /// Counts of threads that have ended and were forgotten.
    taken: u64,
    dropped: u64,
}

/// A block just acquired: what a guard is made of.
pub(crate) struct Acquired {
    pub(crate) number: u32,
    pub(crate) word: Word,
}

/// Serialises the ends of pools, so that of the last guards and handles one is the last.
static ENDING: Mutex<()> = Mutex::new(());

/// While it lives, no other pool of this process ends, and nobody forks: a child would inherit the
/// mutex locked, in the name of a thread that it has not.
pub(crate) struct Ending {
    // Unlocked in this order.
    _alone: MutexGuard<'static, ()>,
    _hold: Hold,
}

impl Ending {
    pub(crate) fn begin() -> Self {
        let hold = Hold::new();
        Self { _alone: ENDING.lock().unwrap_or_else(PoisonError::into_inner), _hold: hold }
    }
}
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Inner {
    pub(crate) fn new(
        extents: Extents,
        slot: u32,
        name: Name,
        uuid: Uuid,
        seed: u64,
        boot: Option<Uuid>,
    ) -> Arc<Self> {
        let inner = Arc::new_cyclic(|this| Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            slot,
            extents,
            monitors: Monitors::default(),
            name,
            uuid,
            extras: Extras::default(),
            growing: Mutex::new(()),
            gate: Gate::default(),
            boot,
            epoch: Epoch::now(),
            seed,
            magazines: Mutex::default(),
            closing: AtomicBool::new(false),
            this: this.clone(),
            keep: Mutex::new(None),
        });
        *inner.keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(inner.clone());
        inner
    }

    /// Takes over the leased slot: what a dead owner left there is taken back first, then the slot
    /// is marked in use. Nobody owns a block before that mark.
    pub(crate) fn move_in(&self) -> Result<()> {
        let entry = &self.extents.slots()?[self.slot as usize];
        if entry.state.load(Acquire) != lease::CLEAN {
            reap::sweep(self, 1 << self.slot)?;
            self.leave_batches(1 << self.slot)?;
        }
        entry.state.store(lease::IN_USE, Release);
        entry.introduce();
        self.notify();
        Ok(())
    }

    /// Gives the slot up again when moving in has failed: it stays as it was, so whoever leases it
    /// next takes back what the dead owner left.
    pub(crate) fn move_out(&self) {
        self.keep.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn display(&self) -> String {
        match self.extents.backing.path() {
            Some(path) => path.display().to_string(),
            None => format!("pool {}", self.name),
        }
    }

    /// Refuses a child made by fork, and a monitor's callback.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_fork()?;
        self.check_monitor()
    }

    /// Refuses a monitor's callback.
    #[inline(always)]
    pub(crate) fn check_monitor(&self) -> Result<()> {
        if self.monitors.any() && monitor::inside() {
            return Err(Error::InsideMonitor { pool: self.display() });
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn check_fork(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked { pool: self.display() });
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        !self.epoch.is_current()
    }

    pub(crate) fn id_of(&self, number: u32) -> BlockId {
        BlockId { number, generation: self.extents.cold(number).generation.load(Relaxed) }
    }

    pub(crate) fn uuid_of(&self, number: u32) -> Uuid {
        self.extents.uuid(number)
    }

    #[inline(always)]
    pub(crate) fn emit(&self, kind: EventKind, number: u32) {
        if self.monitors.any() {
            monitor::emit(self, kind, Some(self.id_of(number)), self.uuid_of(number));
        }
    }

    /// Wakes those who wait for the pool to grow or a process to come or go.
    pub(crate) fn notify(&self) {
        if let Ok(live) = self.extents.live() {
            live.notice.increment(Release);
            futex::wake_all(&live.notice);
        }
    }

    // ---- magazines ----

    pub(crate) fn new_magazine(&self) -> Arc<Wiped<Magazine>> {
        let mut magazines = self.magazines.lock().unwrap_or_else(PoisonError::into_inner);
        let magazines = &mut *magazines;
        // Threads that have ended leave only their counts.
        magazines.list.retain(|magazine| {
            let ended = Arc::strong_count(magazine) == 1;
            if ended {
                magazine.seize(|contents| {
                    magazines.taken += contents.taken;
                    magazines.dropped += contents.dropped;
                });
            }
            !ended
        });
        magazines.registered += 1;
        let mode = if self.is_forked() {
            VOID
        } else if self.closing.load(Relaxed) {
            CLOSING
        } else {
            OPEN
        };
        let magazine = Magazine::new(mix64(self.seed ^ mix64(magazines.registered)), mode);
        magazines.list.push(magazine.clone());
        magazine
    }

    /// Gives back all but `keep` of the cached blocks to everybody.
    pub(crate) fn give_back(&self, contents: &mut Contents, keep: usize) {
        let mut numbers = [0; MAGAZINE_MAX];
        let mut count = 0;
        contents.drain(keep, |number| {
            numbers[count] = number;
            count += 1;
        });
        numbers[..count].sort_unstable();
        let groups = numbers[..count].chunk_by(|a, b| self.group_of(*a) == self.group_of(*b));
        for same in groups {
            let (extent, group) = self.group_of(same[0]);
            let first = self.extents.first_of(extent, group);
            let places = same.iter().fold(0, |places, number| places | 1 << (number - first));
            let (hints, words) = self.extents.group(extent, group);
            freelist::give_back(hints, words, places);
        }
    }

    fn group_of(&self, number: u32) -> (u64, usize) {
        let (extent, place) = self.extents.geometry.locate(number);
        (extent, place as usize / GROUP)
    }

    /// Gives back what all threads of this process keep at hand.
    pub(crate) fn collect_idle(&self) {
        for magazine in self.snapshot().list {
            magazine.seize(|contents| {
                if magazine.mode() != VOID {
                    self.give_back(contents, 0);
                }
            });
        }
    }

    fn snapshot(&self) -> Magazines {
        let magazines = self.magazines.lock().unwrap_or_else(PoisonError::into_inner);
        Magazines { list: magazines.list.clone(), ..*magazines }
    }

    /// How many guards of this pool exist in this process. Exact when nobody makes any meanwhile;
    /// never 0 while there is one.
    pub(crate) fn guards(&self) -> u64 {
        loop {
            let snapshot = self.snapshot();
            // Dropped first: a guard dropped before its count was read was taken before that too,
            // so the sum of taken cannot miss it, except in a thread that is new: then again.
            let count = |of: fn(&mut Contents) -> u64| {
                snapshot.list.iter().map(|magazine| magazine.seize(of)).sum::<u64>()
            };
            let dropped = snapshot.dropped + count(|contents| contents.dropped);
            let taken = snapshot.taken + count(|contents| contents.taken);
            if self.snapshot().registered == snapshot.registered {
                return taken.saturating_sub(dropped);
            }
        }
    }

    // ---- the end ----

    /// The last handle is gone. Ends the pool, or leaves that to the last guard.
    pub(crate) fn retire(&self) {
        // A child made by fork has nothing of the pool, and must not unmap what it may have mapped
        // at these addresses itself: it keeps this value for ever.
        if self.is_forked() {
            return;
        }
        let ending = Ending::begin();
        self.closing.store(true, Release);
        for magazine in self.snapshot().list {
            magazine.seize(|_| magazine.set_mode(CLOSING));
        }
        let last = self.take_if_unused();
        drop(ending);
        if let Some(last) = last {
            last.end();
        }
    }

    /// With [`Ending`] begun and all magazines closing: what keeps the pool alive, if nobody needs it
    /// any more. Whoever gets it is the last to use the pool.
    pub(crate) fn take_if_unused(&self) -> Option<Arc<Inner>> {
        if self.guards() > 0 {
            return None;
        }
        self.keep.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends the pool. No lock is held: monitors are called, and may drop other pools.
    pub(crate) fn end(&self) {
        if self.monitors.any() {
            for extent in 0..self.extents.known() {
                let number = self.extents.first_of(extent, 0);
                let block = Some(BlockId { number, generation: 0 });
                monitor::emit(self, EventKind::ExtentDestroy, block, Uuid::nil());
            }
            monitor::emit(self, EventKind::PoolRelease, None, Uuid::nil());
        }
        if hook::planted("clean-before-flush")
            && let Ok(slots) = self.extents.slots()
        {
            slots[self.slot as usize].state.store(lease::CLEAN, Release);
        }
        for magazine in self.snapshot().list {
            magazine.seize(|contents| {
                self.give_back(contents, 0);
                magazine.set_mode(VOID);
            });
        }
        // Nothing is held or cached: the next one to lease this slot need not look.
        if let Ok(slots) = self.extents.slots() {
            slots[self.slot as usize].state.store(lease::CLEAN, Release);
        }
        self.notify();
    }
}

//! The operations on blocks, store by store.
//!
//! P1. An address handed out is the same until its guard is dropped.
//! P2. A death between any two stores loses no parked or held recoverable block, leaks none, hands
//!     none out twice, and blocks no survivor.
//! P3. Who holds a block is decided by one compare-and-swap on its owner word.
//! P6. Nothing read from the mapping is trusted: numbers are checked, impossible words are errors.
//!
//! What a death leaves behind, by the last store that happened:
//!
//! | step | left behind | who repairs it |
//! |---|---|---|
//! | allocate: hints taken, words not yet claimed | free words, hints "taken" | reaper |
//! | allocate: claimed, header, zeroing | words "cached by the dead" | reaper frees them |
//! | allocate: published | a held block, complete | reaper: orphan, or freed if transient |
//! | attach, release, free | one step each: before or after | reaper |
//! | give back: word stored, hint not yet cleared | free word, hint "taken" | reaper |
//! | grow: file longer, count not yet raised | spare bytes at the end | next grower reuses them |

use crate::{
    BlockId, Error, Result,
    error::Corruption,
    extents::Extents,
    freelist::{self, GROUP},
    layout::EXCLUSIVE,
    limits::{MAGAZINE_BATCH, MAGAZINE_MAX},
    magazine::{self, Contents, Magazine},
    monitor::{self, EventKind, Monitors},
    multi::Extras,
    reap,
    word::{Ask, Kind, Left, Word, next_generation, tag_of},
};
use mainstay_base::{Name, mix64};
use mainstay_shm::{Atomic64, fork, futex, hook, lease};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};
use uuid::Uuid;

/// One pool in one process.
pub(crate) struct Inner {
    /// Never used again in this process.
    pub(crate) id: u64,
    pub(crate) slot: u32,
    pub(crate) extents: Extents,
    pub(crate) name: Name,
    pub(crate) uuid: Uuid,
    pub(crate) monitors: Monitors,
    pub(crate) extras: Extras,
    /// Of the process that opened it; a child made by fork has another.
    epoch: u64,
    seed: u64,
    magazines: Mutex<Magazines>,
    growing: Mutex<()>,
    closing: AtomicBool,
    /// Keeps the pool alive while guards may exist (M3); taken out when the last is gone.
    keep: Mutex<Option<Arc<Inner>>>,
}

#[derive(Default)]
struct Magazines {
    list: Vec<Arc<Magazine>>,
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

/// What an attacher wants to find.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) generation: Option<u64>,
    /// An exclusive block, held by nobody else.
    pub(crate) exclusive: bool,
}

/// Serialises the ends of pools, so that of the last guards and handles one is the last.
static ENDING: Mutex<()> = Mutex::new(());
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Inner {
    pub(crate) fn new(extents: Extents, slot: u32, name: Name, uuid: Uuid, seed: u64) -> Arc<Self> {
        let inner = Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            slot,
            extents,
            name,
            uuid,
            monitors: Monitors::default(),
            extras: Extras::default(),
            epoch: fork::epoch(),
            seed,
            magazines: Mutex::default(),
            growing: Mutex::new(()),
            closing: AtomicBool::new(false),
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
        }
        entry.state.store(lease::IN_USE, Release);
        entry.introduce();
        self.notify();
        Ok(())
    }

    pub(crate) fn display(&self) -> String {
        match self.extents.backing.path() {
            Some(path) => path.display().to_string(),
            None => format!("pool {}", self.name),
        }
    }

    /// Refuses a child made by fork, and a monitor's callback.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<()> {
        self.check_fork()?;
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
        fork::epoch() != self.epoch
    }

    // ---- allocate ----

    /// Allocates a zeroed block held by this process.
    #[inline]
    pub(crate) fn allocate(&self, kind: Kind, fingerprint: u64, length: u32) -> Result<Acquired> {
        self.check()?;
        let (number, uuid) = match self.take_cached() {
            Some(taken) => taken,
            None => self.take_slowly()?,
        };
        let acquired = self.publish(number, Some(kind), fingerprint, uuid, length)?;
        self.emit(EventKind::BlockAllocate, number);
        Ok(acquired)
    }

    /// As `allocate`, but gives up rather than grow or look for dead processes.
    pub(crate) fn try_allocate(&self, kind: Kind, length: u32) -> Result<Option<Acquired>> {
        self.check()?;
        let taken = match self.take_cached() {
            None if self.refill() => self.take_cached(),
            taken => taken,
        };
        let Some((number, uuid)) = taken else { return Ok(None) };
        let acquired = self.publish(number, Some(kind), 0, uuid, length)?;
        self.emit(EventKind::BlockAllocate, number);
        Ok(Some(acquired))
    }

    /// Makes a parked block of a given UUID.
    pub(crate) fn reserve(&self, uuid: Uuid, length: u32) -> Result<BlockId> {
        self.check()?;
        let (number, _) = match self.take_cached() {
            Some(taken) => taken,
            None => self.take_slowly()?,
        };
        self.publish(number, None, 0, uuid.as_u64_pair().into(), length)?;
        self.guard_dropped(None);
        self.emit(EventKind::BlockReserve, number);
        Ok(self.id_of(number))
    }

    /// A free block from this thread's magazine, and a UUID for it; counted as a guard.
    #[inline(always)]
    fn take_cached(&self) -> Option<(u32, [u64; 2])> {
        magazine::with(self, |contents| {
            let number = contents.pop()?;
            contents.taken += 1;
            Some((number, random_uuid(contents)))
        })
    }

    #[cold]
    fn take_slowly(&self) -> Result<(u32, [u64; 2])> {
        loop {
            let seen = self.extents.known();
            if self.refill()
                && let Some(taken) = self.take_cached()
            {
                return Ok(taken);
            }
            if self.grow(seen)? {
                continue;
            }
            // Full. What the dead held, then what idle threads of ours keep, then give up.
            reap::reap(self)?;
            self.collect_idle();
            if self.refill()
                && let Some(taken) = self.take_cached()
            {
                return Ok(taken);
            }
            return Err(Error::Full {
                pool: self.display(),
                blocks: self.extents.blocks(),
                blocks_max: self.extents.geometry.extents_max << self.extents.geometry.shift,
            });
        }
    }

    /// Fetches free blocks into this thread's magazine; false when no hint says "free".
    fn refill(&self) -> bool {
        let extents = self.extents.known();
        let groups = self.extents.groups();
        magazine::with(self, |contents| {
            let (mut extent, mut group) = contents.cursor;
            for _ in 0..extents * groups as u64 + 1 {
                if extents == 0 {
                    break;
                }
                (extent, group) = (extent % extents, group % groups);
                let (hints, words) = self.extents.group(extent, group);
                let first = self.extents.first_of(extent, group);
                freelist::claim(hints, words, self.slot, |place| {
                    let fits = contents.push(first + place as u32);
                    debug_assert!(fits, "a batch fits into an empty magazine");
                });
                if contents.len() > 0 {
                    contents.cursor = (extent, group);
                    return true;
                }
                group += 1;
                if group == groups {
                    (extent, group) = (extent + 1, 0);
                }
            }
            false
        })
    }

    /// Writes the cold header, clears the data, then publishes: complete or not at all.
    #[inline(always)]
    fn publish(
        &self,
        number: u32,
        kind: Option<Kind>,
        fingerprint: u64,
        uuid: [u64; 2],
        length: u32,
    ) -> Result<Acquired> {
        let word = self.extents.word(number);
        let seen = Word(word.load(Relaxed));
        if !seen.is_cached_by(self.slot) {
            self.guard_dropped(None);
            let what = Corruption::OwnerWord { number, word: seen.0 };
            return Err(Error::corrupt(&self.display(), what));
        }
        let live = match kind {
            Some(kind) => seen.published(kind, self.slot),
            None => seen.parked(),
        };
        if hook::planted("publish-before-zero") {
            word.store(live.0, Release);
        }
        let cold = self.extents.cold(number);
        let generation = next_generation(cold.generation.load(Relaxed), seen.tag());
        cold.fingerprint.store(fingerprint, Relaxed);
        cold.generation.store(generation, Relaxed);
        cold.uuid[0].store(uuid[0], Relaxed);
        cold.uuid[1].store(uuid[1], Relaxed);
        cold.length.store(length, Relaxed);
        cold.checksum.store(0, Relaxed);
        cold.version.store(coarse_now(), Relaxed);
        self.extents.zero_data(number);
        // Nobody else may change the word before (W2), so a plain store. Release: whoever attaches
        // sees header and zeros.
        word.store(live.0, Release);
        Ok(Acquired { number, word: live })
    }

    // ---- attach ----

    /// Takes a reference to a live block.
    #[inline]
    pub(crate) fn attach(&self, number: u32, wanted: Wanted) -> Result<Acquired> {
        self.check()?;
        if !self.extents.contains(number)? {
            return Err(self.no_such(number, wanted, "there are not that many blocks"));
        }
        let word = self.extents.word(number);
        let cold = self.extents.cold(number);
        let mut seen = Word(word.load(Acquire));
        let acquired = loop {
            self.attachable(number, seen, wanted)?;
            if seen.is_owned_by(self.slot) {
                break self.attach_again(number, wanted)?;
            }
            let next = seen.attached(self.slot);
            match word.compare_exchange(seen.0, next.0, AcqRel, Acquire) {
                Ok(_) => break next,
                Err(found) => seen = Word(found),
            }
        };
        self.guard_taken();
        // A tag comes back after 2^28 frees. While we hold the block nobody reuses it, so now the
        // whole generation decides, and the type is that of this life.
        let stale = wanted.generation.is_some_and(|g| g != cold.generation.load(Relaxed))
            && !hook::planted("generation-unchecked");
        if stale || (cold.fingerprint.load(Relaxed) & EXCLUSIVE != 0) != wanted.exclusive {
            self.release(number, acquired, Ask::Park);
            return Err(self.no_such(number, wanted, "it was freed and allocated anew"));
        }
        self.emit(EventKind::BlockAttach, number);
        Ok(Acquired { number, word: acquired })
    }

    /// Whether a block in the state `seen` may be attached.
    #[inline(always)]
    fn attachable(&self, number: u32, seen: Word, wanted: Wanted) -> Result<()> {
        if !seen.is_live() {
            return Err(self.no_such(number, wanted, "it is free"));
        }
        if wanted.generation.is_some_and(|g| tag_of(g) != seen.tag())
            && !hook::planted("tag-unchecked")
        {
            return Err(self.no_such(number, wanted, "it was freed and allocated anew"));
        }
        if seen.is_doomed() {
            return Err(self.no_such(number, wanted, "a holder has asked to free it"));
        }
        let fingerprint = self.extents.cold(number).fingerprint.load(Relaxed);
        let exclusive = fingerprint & EXCLUSIVE != 0;
        let why = match (wanted.exclusive, exclusive) {
            (false, true) => "is exclusive: attach it as a PoolBox of its type",
            (true, false) => "is shared: attach it as a Block",
            (true, true) if seen.owners() != 0 => "is exclusive and has a holder already",
            _ => return Ok(()),
        };
        Err(Error::Exclusive { pool: self.display(), number, why })
    }

    #[cold]
    fn no_such(&self, number: u32, wanted: Wanted, why: &'static str) -> Error {
        let id = match wanted.generation {
            Some(generation) => BlockId { number, generation }.to_string(),
            None => number.to_string(),
        };
        Error::NoSuchBlock { pool: self.display(), id, why }
    }

    /// Attach when this process has a guard already: counted in private.
    #[cold]
    fn attach_again(&self, number: u32, wanted: Wanted) -> Result<Word> {
        let word = self.extents.word(number);
        let mut extra = self.extras.lock(number);
        loop {
            let seen = Word(word.load(Acquire));
            self.attachable(number, seen, wanted)?;
            let again = seen.is_owned_by(self.slot);
            let next = if again { seen.with_multi() } else { seen.attached(self.slot) };
            // With the lock held and `multi` set, nobody in this process can drop our bit.
            if next == seen || word.compare_exchange(seen.0, next.0, AcqRel, Acquire).is_ok() {
                if again {
                    extra.add();
                }
                return Ok(next);
            }
        }
    }

    /// One more guard of a block that the caller holds.
    pub(crate) fn clone_guard(&self, number: u32) -> Result<Word> {
        self.check()?;
        let word = self.extents.word(number);
        let mut extra = self.extras.lock(number);
        let seen = loop {
            let seen = Word(word.load(Acquire));
            if !seen.is_live() || !seen.is_owned_by(self.slot) {
                let what = Corruption::OwnerWord { number, word: seen.0 };
                return Err(Error::corrupt(&self.display(), what));
            }
            let next = seen.with_multi();
            if next == seen || word.compare_exchange(seen.0, next.0, AcqRel, Acquire).is_ok() {
                break next;
            }
        };
        extra.add();
        drop(extra);
        self.guard_taken();
        Ok(seen)
    }

    // ---- release ----

    /// Gives up one guard. `guess` is the word as the guard remembers it: usually right.
    #[inline]
    pub(crate) fn release(&self, number: u32, guess: Word, ask: Ask) -> Option<Left> {
        if self.is_forked() {
            return None;
        }
        let word = self.extents.word(number);
        let mut seen = guess;
        let left = loop {
            if seen.is_multi() {
                break self.release_multi(number, ask);
            }
            let (next, left) = seen.left(self.slot, ask);
            if hook::planted("release-by-store") {
                let now = Word(word.load(Acquire));
                let (next, left) = now.left(self.slot, ask);
                word.store(next.0, Release);
                break Some(left);
            }
            // AcqRel: the last owner may let the block be cleared, and must see the writes of all
            // who left before.
            match word.compare_exchange(seen.0, next.0, AcqRel, Acquire) {
                Ok(_) => break Some(left),
                Err(found) if Word(found).is_owned_by(self.slot) && Word(found).is_live() => {
                    seen = Word(found);
                }
                // Somebody wrote garbage there: nothing is ours to give up any more.
                Err(_) => break None,
            }
        };
        if self.monitors.any() {
            self.emit_left(number, left);
        }
        self.guard_dropped((left == Some(Left::Freed)).then_some(number));
        left
    }

    #[cold]
    fn release_multi(&self, number: u32, ask: Ask) -> Option<Left> {
        let word = self.extents.word(number);
        let mut extra = self.extras.lock(number);
        let more = extra.take();
        loop {
            let seen = Word(word.load(Acquire));
            if !seen.is_owned_by(self.slot) || !seen.is_live() {
                return None;
            }
            let (next, left) = match (more, ask) {
                (true, Ask::Free) => (seen.with_doomed(), Left::Held),
                (true, Ask::Park) => (seen, Left::Held),
                (false, ask) => seen.left(self.slot, ask),
            };
            if next == seen || word.compare_exchange(seen.0, next.0, AcqRel, Acquire).is_ok() {
                return Some(left);
            }
        }
    }

    /// Counts a guard that is being made.
    #[inline(always)]
    pub(crate) fn guard_taken(&self) {
        magazine::with(self, |contents| contents.taken += 1);
    }

    /// Counts a guard as dropped and puts the block it freed, if any, into the magazine.
    #[inline(always)]
    fn guard_dropped(&self, freed: Option<u32>) {
        let closing = magazine::with(self, |contents| {
            if self.closing.load(Relaxed) {
                return true;
            }
            self.dropped_in(contents, freed);
            false
        });
        if closing {
            self.guard_dropped_late(freed);
        }
    }

    #[inline(always)]
    fn dropped_in(&self, contents: &mut Contents, freed: Option<u32>) {
        if let Some(number) = freed
            && !contents.push(number)
        {
            self.give_back(contents, MAGAZINE_BATCH);
            let fits = contents.push(number);
            debug_assert!(fits, "there is room after giving back");
        }
        contents.dropped += 1;
    }

    /// The pool has no handle any more: whoever drops the last guard ends it.
    #[cold]
    fn guard_dropped_late(&self, freed: Option<u32>) {
        let ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
        // The guard is counted until here, so the pool is there until here.
        magazine::with(self, |contents| self.dropped_in(contents, freed));
        let last = self.end_if_unused();
        drop(ending);
        drop(last);
    }

    // ---- magazines ----

    pub(crate) fn new_magazine(&self) -> Arc<Magazine> {
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
        let magazine = Arc::new(Magazine::new(mix64(self.seed ^ mix64(magazines.registered))));
        magazines.list.push(magazine.clone());
        magazine
    }

    /// The thread of these contents ends: its free blocks go back to everybody.
    pub(crate) fn thread_ends(&self, contents: &mut Contents) {
        if !self.is_forked() {
            self.give_back(contents, 0);
        }
    }

    /// Gives back all but `keep` of the cached blocks.
    fn give_back(&self, contents: &mut Contents, keep: usize) {
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
                if !contents.dead {
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

    // ---- growth ----

    /// Adds one extent unless somebody has since the caller saw `seen` of them; false when the
    /// limit is reached.
    fn grow(&self, seen: u64) -> Result<bool> {
        // Of this process's threads one grows; the others find its extent.
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.extents.refresh()? > seen {
            return Ok(true);
        }
        let geometry = &self.extents.geometry;
        if seen >= geometry.extents_max {
            return Ok(false);
        }
        self.extents.backing.allocate(geometry.extent_offset(seen), geometry.extent_size)?;
        let count = &self.extents.live()?.extents;
        if hook::planted("grow-by-store") {
            count.store(seen + 1, Release);
        } else {
            // Whoever loses has allocated an extent that another has counted: the same one.
            let _ = count.compare_exchange(seen, seen + 1, AcqRel, Acquire);
        }
        self.extents.refresh()?;
        self.notify();
        if self.monitors.any() {
            let number = self.extents.first_of(seen, 0);
            let block = Some(BlockId { number, generation: 0 });
            monitor::emit(self, EventKind::ExtentCreate, block, Uuid::nil());
        }
        Ok(true)
    }

    /// Wakes those who wait for the pool to grow or a process to come or go.
    pub(crate) fn notify(&self) {
        if let Ok(live) = self.extents.live() {
            live.notice.increment(Release);
            futex::wake_all(&live.notice);
        }
    }

    // ---- events ----

    #[inline(always)]
    pub(crate) fn emit(&self, kind: EventKind, number: u32) {
        if self.monitors.any() {
            monitor::emit(self, kind, Some(self.id_of(number)), self.uuid_of(number));
        }
    }

    #[cold]
    fn emit_left(&self, number: u32, left: Option<Left>) {
        match left {
            Some(Left::Held) => self.emit(EventKind::BlockRelease, number),
            Some(Left::Parked) => self.emit(EventKind::BlockPark, number),
            Some(Left::Freed) => self.emit(EventKind::BlockFree, number),
            None => {}
        }
    }

    pub(crate) fn id_of(&self, number: u32) -> BlockId {
        BlockId { number, generation: self.extents.cold(number).generation.load(Relaxed) }
    }

    pub(crate) fn uuid_of(&self, number: u32) -> Uuid {
        self.extents.uuid(number)
    }

    // ---- the end ----

    /// The last handle is gone. Ends the pool, or leaves that to the last guard.
    pub(crate) fn retire(&self) {
        // A child made by fork has nothing of the pool, and must not unmap what it may have mapped
        // at these addresses itself: it keeps this value for ever.
        if self.is_forked() {
            return;
        }
        let ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
        self.closing.store(true, Release);
        let last = self.end_if_unused();
        drop(ending);
        drop(last);
    }

    /// With `ENDING` held. Returns what keeps the pool alive, if nobody needs it any more.
    fn end_if_unused(&self) -> Option<Arc<Inner>> {
        if self.guards() > 0 {
            return None;
        }
        if self.monitors.any() {
            for extent in 0..self.extents.known() {
                let number = self.extents.first_of(extent, 0);
                let block = Some(BlockId { number, generation: 0 });
                monitor::emit(self, EventKind::ExtentDestroy, block, Uuid::nil());
            }
            monitor::emit(self, EventKind::PoolRelease, None, Uuid::nil());
        }
        for magazine in self.snapshot().list {
            magazine.seize(|contents| {
                self.give_back(contents, 0);
                contents.dead = true;
            });
        }
        // Nothing is held or cached: the next one to lease this slot need not look.
        if let Ok(slots) = self.extents.slots() {
            slots[self.slot as usize].state.store(lease::CLEAN, Release);
        }
        self.notify();
        self.keep.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn random_uuid(contents: &mut Contents) -> [u64; 2] {
    // RFC 9562, version 4: 122 random bits.
    let high = contents.rng.next_u64() & !0xF000 | 0x4000;
    let low = contents.rng.next_u64() & !(3 << 62) | 1 << 63;
    [high, low]
}

/// Nanoseconds after 1970, a few milliseconds coarse, for a few nanoseconds.
fn coarse_now() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

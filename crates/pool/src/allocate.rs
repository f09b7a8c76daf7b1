//! Getting a free block, and making more of them.
//!
//! What a death leaves behind, by the last store that happened:
//!
//! | step | left behind | who repairs it |
//! |---|---|---|
//! | hints taken, words not yet claimed | free words, hints "taken" | reaper |
//! | claimed, header written, being cleared | words "cached by the dead" | reaper frees them |
//! | published | a held block, complete | reaper: orphan, or freed if transient |
//! | grow: file longer, count not yet raised | spare bytes at the end | the next grower uses them |

use crate::{
    BlockId, Error, Result,
    error::Corruption,
    extents::Spot,
    freelist,
    inner::{Acquired, Inner},
    magazine,
    monitor::{self, EventKind},
    reap, steps,
    word::{Kind, Word, next_generation},
};
use mainstay_shm::{Atomic64, hook};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{
    PoisonError,
    atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use uuid::Uuid;

/// A free block of this process, and a UUID for it; counted as a guard.
type Taken = (u32, [u64; 2]);

/// What a block is to be in its next life.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    /// Held from the start; none: recoverable, and held by nobody.
    pub(crate) kind: Option<Kind>,
    pub(crate) exclusive: bool,
    pub(crate) fingerprint: u64,
    pub(crate) length: u32,
}

impl Inner {
    /// Allocates a zeroed block held by this process.
    #[inline(always)]
    pub(crate) fn allocate(&self, life: Life) -> Result<Acquired> {
        if self.monitors.any() {
            // One by one: a whole `Life` would be put together in memory for the call not taken.
            let Life { kind, exclusive, fingerprint, length } = life;
            return self.allocate_watched(kind, exclusive, fingerprint, length);
        }
        let (number, uuid) = match self.take_cached() {
            Some(taken) => taken,
            None => self.take_slowly()?,
        };
        self.publish(number, uuid, life, 0)
    }

    /// The time costs a quarter of an allocation, so it is noted only where a monitor may ask.
    #[cold]
    fn allocate_watched(
        &self,
        kind: Option<Kind>,
        exclusive: bool,
        fingerprint: u64,
        length: u32,
    ) -> Result<Acquired> {
        self.check()?;
        let life = Life { kind, exclusive, fingerprint, length };
        let (number, uuid) = match self.take_cached() {
            Some(taken) => taken,
            None => self.take_slowly()?,
        };
        let acquired = self.publish(number, uuid, life, coarse_now())?;
        self.emit(EventKind::BlockAllocate, number);
        Ok(acquired)
    }

    /// The version that a block starts with.
    fn first_version(&self) -> u64 {
        if self.monitors.any() { coarse_now() } else { 0 }
    }

    /// As `allocate`, but gives up rather than grow or look for dead processes.
    pub(crate) fn try_allocate(&self, life: Life) -> Result<Option<Acquired>> {
        self.check()?;
        let seen = self.extents.known();
        let taken = match self.take_cached() {
            None => match self.refill_and_take() {
                // Another process may have grown the pool since.
                None if self.extents.refresh()? > seen => self.refill_and_take(),
                taken => taken,
            },
            taken => taken,
        };
        let Some((number, uuid)) = taken else { return Ok(None) };
        let acquired = self.publish(number, uuid, life, self.first_version())?;
        self.emit(EventKind::BlockAllocate, number);
        Ok(Some(acquired))
    }

    /// Makes a parked block of a given UUID.
    pub(crate) fn reserve(&self, uuid: Uuid, length: u32) -> Result<BlockId> {
        let life = Life { kind: None, exclusive: false, fingerprint: 0, length };
        self.restore(uuid, life, &[])
    }

    /// Makes a parked block with everything in it before anybody can see it.
    pub(crate) fn restore(&self, uuid: Uuid, life: Life, data: &[u8]) -> Result<BlockId> {
        self.check()?;
        let (number, _) = match self.take_cached() {
            Some(taken) => taken,
            None => self.take_slowly()?,
        };
        let spot = self.extents.spot(number);
        let pair = uuid.as_u64_pair().into();
        let live = self.prepare(number, spot, pair, life, self.first_version())?;
        hook::step();
        self.extents.fill_data(number, data);
        // Somebody may have freed it as soon as it can be seen: so its name is read before.
        let (id, uuid) = (self.id_of(number), self.uuid_of(number));
        steps::publish(spot.word(), live);
        self.guard_dropped(None);
        if self.monitors.any() {
            monitor::emit(self, EventKind::BlockReserve, Some(id), uuid);
        }
        Ok(id)
    }

    #[inline(always)]
    fn take_cached(&self) -> Option<Taken> {
        // A child made by fork finds its magazines void (M4), and is refused on the slow way.
        let magazine = magazine::fast(self)?;
        magazine.own_open(|contents| contents.take())?
    }

    #[cold]
    fn take_slowly(&self) -> Result<Taken> {
        self.check_fork()?;
        loop {
            let seen = self.extents.known();
            if let Some(taken) = self.refill_and_take() {
                return Ok(taken);
            }
            let grown = self.grow(seen);
            if matches!(grown, Ok(true)) {
                continue;
            }
            // Full, or no room to grow. What the dead held, then what idle threads of ours keep,
            // then give up.
            reap::reap(self)?;
            self.collect_idle();
            if let Some(taken) = self.refill_and_take() {
                return Ok(taken);
            }
            grown?;
            return Err(Error::Full {
                pool: self.display(),
                blocks: self.extents.blocks(),
                blocks_max: self.extents.geometry.extents_max << self.extents.geometry.shift,
            });
        }
    }

    /// Fetches free blocks into this thread's magazine and takes one; none when no hint says
    /// "free". In one stay inside: else another thread could collect them in between, and a thread
    /// that is ending, which has a magazine for this once only, would never get one.
    fn refill_and_take(&self) -> Option<Taken> {
        let extents = self.extents.known();
        if extents == 0 {
            return None;
        }
        let groups = self.extents.groups();
        magazine::with(self, |magazine| {
            magazine.own(|contents| {
                // It may only not have been at hand: then there is no room for a batch.
                if contents.len() > 0 {
                    return contents.take();
                }
                let (mut extent, mut group) = contents.cursor;
                (extent, group) = (extent % extents, group % groups);
                for _ in 0..=extents * groups as u64 {
                    let (hints, words) = self.extents.group(extent, group);
                    let first = self.extents.first_of(extent, group);
                    freelist::claim(hints, words, self.slot, |place| {
                        let fits = contents.push(first + place as u32);
                        debug_assert!(fits, "a batch fits into an empty magazine");
                    });
                    if contents.len() > 0 {
                        contents.cursor = (extent, group);
                        return contents.take();
                    }
                    group += 1;
                    if group == groups {
                        (extent, group) = ((extent + 1) % extents, 0);
                    }
                }
                None
            })
        })
    }

    /// Writes the cold header, clears the data, then publishes: complete or not at all.
    #[inline(always)]
    fn publish(&self, number: u32, uuid: [u64; 2], life: Life, version: u64) -> Result<Acquired> {
        let spot = self.extents.spot(number);
        let live = self.prepare(number, spot, uuid, life, version)?;
        steps::publish(spot.word(), live);
        Ok(Acquired { number, word: live })
    }

    /// Writes the cold header and clears the data of a block that nobody else can see yet; returns
    /// the word that makes it seen.
    #[inline(always)]
    fn prepare(
        &self,
        number: u32,
        spot: Spot<'_>,
        uuid: [u64; 2],
        life: Life,
        version: u64,
    ) -> Result<Word> {
        let seen = Word(spot.word().load(Relaxed));
        if !seen.is_cached_by(self.slot) {
            return Err(self.claim_was_overwritten(number, seen));
        }
        let live = match life.kind {
            Some(kind) => seen.published(kind, life.exclusive, self.slot),
            None => seen.parked(life.exclusive),
        };
        if hook::planted("publish-before-zero") {
            steps::publish(spot.word(), live);
        }
        let cold = spot.cold();
        let generation = next_generation(cold.generation.load(Relaxed), seen.tag());
        cold.fingerprint.store(life.fingerprint, Relaxed);
        cold.generation.store(generation, Relaxed);
        cold.uuid[0].store(uuid[0], Relaxed);
        cold.uuid[1].store(uuid[1], Relaxed);
        cold.length.store(life.length, Relaxed);
        cold.checksum.store(0, Relaxed);
        cold.version.store(version, Relaxed);
        spot.zero_data();
        Ok(live)
    }

    #[cold]
    fn claim_was_overwritten(&self, number: u32, found: Word) -> Error {
        self.guard_dropped(None);
        Error::corrupt(&self.display(), Corruption::OwnerWord { number, word: found.0 })
    }

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
        if self.extents.refresh()? <= seen {
            // Whoever wins raises the count; to try again would be for ever.
            let what = Corruption::ExtentsGone { found: count.load(Acquire), known: seen };
            return Err(Error::corrupt(&self.display(), what));
        }
        self.notify();
        if self.monitors.any() {
            let number = self.extents.first_of(seen, 0);
            let block = Some(BlockId { number, generation: 0 });
            monitor::emit(self, EventKind::ExtentCreate, block, Uuid::nil());
        }
        Ok(true)
    }
}

/// Nanoseconds after 1970, a few milliseconds coarse.
pub(crate) fn coarse_now() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

//! The ground that trackers and the like stand on: what they need of a pool beyond what its users
//! do.
//!
//! Q1. [`Ground::look`] tells of one life of a block: word, header and data belong together, or it
//!     says that the block keeps changing. The data may be a mix if a holder writes meanwhile.
//! Q2. Lengths in headers are told as they stand there, and never used to reach memory.

use crate::{
    BlockId, Error, EventKind, Kind, LEASE_SLOTS, Pool, Result,
    inner::Inner,
    monitor,
    word::{State, Word},
};
use mainstay_base::{Crc32c, Crc64, crc32c, crc64, hlc::Version};
use mainstay_shm::{
    Atomic64, Backing, Mapping, copy,
    lease::{self, Prober},
};
use std::{
    ops::{Range, RangeInclusive},
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use uuid::Uuid;

/// How much of a block is copied and summed at once: it stays in the first cache.
const PIECE: usize = 16 << 10;
/// How often a block that changes hands meanwhile is looked at again.
const LOOKS: u32 = 64;

/// A pool, as a tracker sees it.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// let pool = PoolOptions::new("calls", 256).create_memfd()?;
/// let block = pool.allocate(Kind::Recoverable)?;
/// block.write(0, b"ringing")?;
/// let ground = pool.ground()?;
/// let data = ground.data(0);
/// assert_eq!(*ground.blocks_in(0, &(data.start..data.start + 256)).start(), 0);
/// let mut piece = Vec::new();
/// let seen = ground.look(block.number(), &mut piece)?.expect("it is live");
/// assert_eq!((seen.id, seen.sums), (block.id(), mainstay_pool::Sums::of(&block.to_vec()?)));
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Ground<'p> {
    inner: &'p Inner,
}

/// As much of a block is fetched ahead: more would push out what is being looked at.
const FETCHED: usize = 4_096;

/// Two checksums of the data of a block.
///
/// Example: see [`Ground`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sums {
    /// What is stored and sent with it.
    pub crc32c: u32,
    /// Tells it from any other content but by a chance of 2^-64.
    pub crc64: u64,
}

impl Sums {
    /// Of these bytes.
    ///
    /// Example: see [`Ground`].
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { crc32c: crc32c(bytes), crc64: crc64(bytes) }
    }
}

/// One life of a block, as looked at.
///
/// Example: see [`Ground`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Look {
    /// Which life of which block.
    pub id: BlockId,
    /// Its UUID.
    pub uuid: Uuid,
    /// What becomes of it when its last holder is gone.
    pub kind: Kind,
    /// It belongs to a `PoolBox`.
    pub exclusive: bool,
    /// Type of the data, 0 none.
    pub fingerprint: u64,
    /// How many bytes are in use, as the header says: it may say anything (Q2).
    pub length: u32,
    /// The checksum that the header says the data had; 0 none.
    pub checksum: u32,
    /// The version that the header says the data has.
    pub version: u64,
    /// The checksums that the data has.
    pub sums: Sums,
}

/// What is known of another process that has, or had, the pool open.
///
/// Example: see [`Ground::neighbours`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Neighbour {
    /// Its slot.
    pub slot: u32,
    /// Which tenant of the slot it is.
    pub epoch: u64,
    /// Whether it lives.
    pub alive: bool,
    /// Its process id, as it said.
    pub pid: u32,
    /// When it started, as it said.
    pub start_time: u64,
    /// Where it has the pool mapped and watched, as it said; 0 when it is not watched.
    pub base: u64,
}

impl Pool {
    /// For trackers.
    ///
    /// Example: see [`Ground`].
    ///
    /// # Errors
    /// `Forked`, `InsideMonitor`.
    pub fn ground(&self) -> Result<Ground<'_>> {
        self.inner().check()?;
        Ok(Ground { inner: self.inner() })
    }
}

impl<'p> Ground<'p> {
    /// The memory.
    ///
    /// ```
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
    /// let ground = pool.ground()?;
    /// assert_eq!(ground.mapping().reserved() as u64, pool.info()?.reserved);
    /// assert!(ground.backing().len()? <= pool.info()?.reserved);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn mapping(self) -> &'p Mapping {
        &self.inner.extents.mapping
    }

    /// The file.
    ///
    /// Example: see [`Ground::mapping`].
    #[must_use]
    pub fn backing(self) -> &'p Backing {
        &self.inner.extents.backing
    }

    /// How many extents there are now.
    ///
    /// ```
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).growth_step(64).create_memfd()?;
    /// assert_eq!(pool.ground()?.extents()?, 0);
    /// let block = pool.allocate(mainstay_pool::Kind::Transient)?;
    /// assert_eq!(pool.ground()?.extents()?, 1);
    /// assert_eq!(pool.ground()?.blocks_per_extent(), 64);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` when the file says what cannot be.
    pub fn extents(self) -> Result<u64> {
        self.inner.extents.refresh()
    }

    /// How many extents there can be.
    ///
    /// Example: see [`crate::Info`].
    #[must_use]
    pub fn extents_max(self) -> u64 {
        self.inner.extents.geometry.extents_max
    }

    /// How many blocks an extent has.
    ///
    /// Example: see [`Ground::extents`].
    #[must_use]
    pub fn blocks_per_extent(self) -> u64 {
        self.inner.extents.geometry.blocks_per_extent
    }

    /// Where the data of an extent is in the mapping, in bytes; whole pages.
    ///
    /// Example: see [`Ground`].
    #[must_use]
    pub fn data(self, extent: u64) -> Range<u64> {
        let geometry = &self.inner.extents.geometry;
        let start = geometry.extent_offset(extent);
        start + geometry.data_offset..start + geometry.extent_size
    }

    /// Which blocks have data in `bytes`, a range that is not empty and inside of the extent's
    /// data.
    ///
    /// Example: see [`Ground`].
    #[must_use]
    pub fn blocks_in(self, extent: u64, bytes: &Range<u64>) -> RangeInclusive<u32> {
        let geometry = &self.inner.extents.geometry;
        let data = self.data(extent);
        let place = |offset: u64| {
            let place = offset.saturating_sub(data.start) / geometry.stride;
            ((extent << geometry.shift) + place.min(geometry.blocks_per_extent - 1)) as u32
        };
        // Behind the last block there may be bytes of nobody.
        place(bytes.start)..=place(bytes.end - 1)
    }

    /// Looks at a block: what it is, and the checksums of its data (Q1). None when it is not live.
    /// `piece` is a buffer to be used again.
    ///
    /// Example: see [`Ground`].
    ///
    /// # Errors
    /// `NoSuchBlock` when there are not that many, or when it changes hands all the time: look
    /// again later.
    pub fn look(self, number: u32, piece: &mut Vec<u8>) -> Result<Option<Look>> {
        let (extents, len) = (&self.inner.extents, self.block_size());
        self.steady(number, || {
            if len <= PIECE {
                piece.resize(len, 0);
                extents.copy_data(number, piece);
                return Sums::of(piece);
            }
            piece.resize(PIECE, 0);
            let (mut narrow, mut wide) = (Crc32c::new(), Crc64::new());
            for at in (0..len).step_by(PIECE) {
                let piece = &mut piece[..PIECE.min(len - at)];
                // SAFETY: `data` gives the start of `len` mapped bytes, of which this is a part.
                unsafe {
                    copy::load(extents.data(number).add(at), piece.as_mut_ptr(), piece.len());
                }
                narrow.update(piece);
                wide.update(piece);
            }
            Sums { crc32c: narrow.finish(), crc64: wide.finish() }
        })
    }

    /// Says that a block will be looked at soon: its memory is fetched while something else is
    /// done. A number that is no block's does nothing.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let (one, two) = (pool.allocate(Kind::Recoverable)?, pool.allocate(Kind::Recoverable)?);
    /// let (ground, mut piece) = (pool.ground()?, Vec::new());
    /// ground.expect_look(two.number());
    /// assert!(ground.look(one.number(), &mut piece)?.is_some());
    /// assert!(ground.look(two.number(), &mut piece)?.is_some());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    pub fn expect_look(self, number: u32) {
        let extents = &self.inner.extents;
        if let Ok(true) = extents.contains(number) {
            let cold = extents.cold(number);
            copy::prefetch(std::ptr::from_ref(cold).cast(), size_of_val(cold));
            copy::prefetch(extents.data(number), self.block_size().min(FETCHED));
        }
    }

    /// As [`Ground::look`], and appends the data to `data`.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// let mut data = vec![1, 2, 3];
    /// let seen = pool.ground()?.copy(block.number(), &mut data)?.expect("it is live");
    /// assert_eq!((seen.id, data.len()), (block.id(), 3 + 64));
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Ground::look`]; then, and when it is not live, `data` is as before.
    pub fn copy(self, number: u32, data: &mut Vec<u8>) -> Result<Option<Look>> {
        let (extents, len) = (&self.inner.extents, self.block_size());
        let start = data.len();
        let seen = self.steady(number, || {
            data.resize(start + len, 0);
            extents.copy_data(number, &mut data[start..]);
            Sums::of(&data[start..])
        });
        if !matches!(seen, Ok(Some(_))) {
            data.truncate(start);
        }
        seen
    }

    /// Bytes of data in a block.
    ///
    /// ```
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
    /// assert_eq!(pool.ground()?.block_size(), 64);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn block_size(self) -> usize {
        self.inner.extents.geometry.block_size as usize
    }

    /// Looks at word and header before and after `read`, until both are of one life.
    fn steady(self, number: u32, mut read: impl FnMut() -> Sums) -> Result<Option<Look>> {
        let extents = &self.inner.extents;
        let missing = |why| {
            let pool = self.inner.display();
            Err(Error::NoSuchBlock { pool, id: number.to_string(), why })
        };
        if !extents.contains(number)? {
            return missing("there are not that many blocks");
        }
        for _ in 0..LOOKS {
            let before = extents.load(number);
            let (true, Some(kind)) = (before.state() != State::Corrupt, before.kind()) else {
                return Ok(None);
            };
            let cold = extents.cold(number);
            let look = Look {
                id: self.inner.id_of(number),
                uuid: extents.uuid(number),
                kind,
                exclusive: before.is_exclusive(),
                fingerprint: cold.fingerprint.load(Relaxed),
                length: cold.length.load(Relaxed),
                checksum: cold.checksum.load(Relaxed),
                version: cold.version.load(Relaxed),
                sums: read(),
            };
            std::sync::atomic::fence(Acquire);
            if is_same_life(before, extents.load(number)) {
                return Ok(Some(look));
            }
        }
        missing("it is freed and allocated anew all the time")
    }

    /// Tells, in 32 bits, the lives of a block and its being free apart, without reading more than
    /// its word: 0 when it is not live, else odd.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// let number = block.number();
    /// let mut marks = Vec::new();
    /// pool.ground()?.life_marks(0, &mut marks);
    /// assert_eq!(marks[number as usize] % 2, 1);
    /// block.free()?;
    /// pool.ground()?.life_marks(0, &mut marks);
    /// assert_eq!(marks[number as usize], 0);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Panics
    /// When there is no such extent.
    pub fn life_marks(self, extent: u64, marks: &mut Vec<u32>) {
        marks.clear();
        let words = self.inner.extents.words(extent).iter();
        marks.extend(words.map(|word| life_mark(Word(word.load(Acquire)))));
    }

    /// Notes in a block's header the checksum and version of its data, if it still is in the life
    /// `id`; only for display and for the next tracker.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// pool.ground()?.note(block.id(), 7, 1_000_000_000);
    /// let seen = pool.ground()?.look(block.number(), &mut Vec::new())?.expect("it is live");
    /// assert_eq!((seen.checksum, seen.version), (7, 1_000_000_000));
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    pub fn note(self, id: BlockId, checksum: u32, version: u64) {
        let extents = &self.inner.extents;
        if !extents.contains(id.number).unwrap_or(false) || !extents.load(id.number).is_live() {
            return;
        }
        let cold = extents.cold(id.number);
        if cold.generation.load(Relaxed) == id.generation {
            cold.version.store(version, Relaxed);
            cold.checksum.store(checksum, Relaxed);
        }
    }

    /// Tells the pool's monitors of what was found.
    ///
    /// ```
    /// # use mainstay_pool::{EventKind, PoolOptions, Uuid};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// pool.ground()?.tell(EventKind::FlushCommit, None, Uuid::nil(), None);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    pub fn tell(
        self,
        kind: EventKind,
        block: Option<BlockId>,
        uuid: Uuid,
        version: Option<Version>,
    ) {
        if self.inner.monitors.any() {
            monitor::emit_version(self.inner, kind, block, uuid, version);
        }
    }

    /// The other processes that have the pool open, or have not been taken back yet.
    ///
    /// ```
    /// # use mainstay_pool::{Pool, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// assert!(pool.ground()?.neighbours()?.is_empty());
    /// let same = Pool::join_any_fd(pool.as_fd().try_clone_to_owned()?)?; // as in another process
    /// let other = pool.ground()?.neighbours()?[0];
    /// assert!(other.alive && other.slot == same.slot() && other.base == 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the system refuses.
    pub fn neighbours(self) -> Result<Vec<Neighbour>> {
        let extents = &self.inner.extents;
        let (slots, watches) = (extents.slots()?, extents.watches()?);
        let mut prober = None;
        let mut neighbours = Vec::new();
        for slot in (0..LEASE_SLOTS as u32).filter(|slot| *slot != self.inner.slot) {
            let entry = &slots[slot as usize];
            if entry.state.load(Acquire) == lease::CLEAN {
                continue;
            }
            let prober = match &mut prober {
                Some(prober) => prober,
                none => none.insert(Prober::new(&extents.backing)?),
            };
            let epoch = entry.epoch.load(Relaxed);
            let watch = watches.map(|watches| &watches[slot as usize]);
            let watch = watch.filter(|watch| watch.epoch.load(Acquire) == epoch);
            neighbours.push(Neighbour {
                slot,
                epoch,
                alive: prober.is_alive(slot)?,
                pid: entry.pid.load(Relaxed),
                start_time: entry.start_time.load(Relaxed),
                base: watch.map_or(0, |watch| watch.base.load(Acquire)),
            });
        }
        Ok(neighbours)
    }

    /// Counts the tenants that all slots but this process's ever had: if it is the same at two
    /// moments, nobody has come in between.
    ///
    /// ```
    /// # use mainstay_pool::{Pool, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let before = pool.ground()?.tenancies()?;
    /// drop(Pool::join_any_fd(pool.as_fd().try_clone_to_owned()?)?); // came and went
    /// assert_ne!(pool.ground()?.tenancies()?, before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the system refuses.
    pub fn tenancies(self) -> Result<u64> {
        let slots = self.inner.extents.slots()?.iter().enumerate();
        let others = slots.filter(|(slot, _)| *slot != self.inner.slot as usize);
        Ok(others.fold(0, |sum, (_, entry)| sum.wrapping_add(entry.epoch.load(Acquire))))
    }

    /// Says that this process's mapping is watched, so that a tracker of another process may take
    /// the bits; or, with `taker` its own slot, that it takes them itself.
    ///
    /// ```
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
    /// pool.ground()?.offer_watch(None)?;
    /// pool.ground()?.withdraw_watch()?;
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the system refuses.
    pub fn offer_watch(self, taker: Option<u32>) -> Result<()> {
        let extents = &self.inner.extents;
        let Some(watches) = extents.watches()? else { return Ok(()) };
        let (entry, slot) = (&watches[self.inner.slot as usize], self.inner.slot as usize);
        entry.taker.store(taker.map_or(0, |slot| slot + 1), Relaxed);
        entry.base.store(extents.mapping.base().addr().get() as u64, Release);
        entry.epoch.store(extents.slots()?[slot].epoch.load(Relaxed), Release);
        Ok(())
    }

    /// Takes the offer back.
    ///
    /// Example: see [`Ground::offer_watch`].
    ///
    /// # Errors
    /// What the system refuses.
    pub fn withdraw_watch(self) -> Result<()> {
        if let Some(watches) = self.inner.extents.watches()? {
            watches[self.inner.slot as usize].base.store(0, Release);
        }
        Ok(())
    }

    /// Makes this process the one that takes the bits of the process in `slot`; false when a living
    /// other one does.
    ///
    /// Example: see [`Ground::offer_watch`].
    ///
    /// # Errors
    /// What the system refuses.
    pub fn claim_watch(self, slot: u32) -> Result<bool> {
        let extents = &self.inner.extents;
        let Some(watches) = extents.watches()? else { return Ok(false) };
        let Some(entry) = watches.get(slot as usize) else { return Ok(false) };
        let me = self.inner.slot + 1;
        loop {
            let taker = entry.taker.load(Acquire);
            if taker == me {
                return Ok(true);
            }
            let other = taker.wrapping_sub(1);
            if taker != 0
                && other < LEASE_SLOTS as u32
                && Prober::new(&extents.backing)?.is_alive(other)?
            {
                return Ok(false);
            }
            let _ = entry.taker.compare_exchange(taker, me, AcqRel, Relaxed);
        }
    }
}

fn is_same_life(before: Word, after: Word) -> bool {
    life_mark(before) == life_mark(after)
}

fn life_mark(word: Word) -> u32 {
    match word.is_live() {
        true => (word.tag() as u32) << 1 | 1,
        false => 0,
    }
}

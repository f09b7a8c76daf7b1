//! Looking at a pool without taking part: what there is, who holds it, what is in it.

use crate::{
    BlockId, Kind, Pool, Result, State, error::Error, extents::Extents, magazine::number_in,
    word::Word,
};
use mainstay_shm::{
    Atomic64,
    lease::{self, LEASE_SLOTS, Prober},
};
use std::{
    sync::atomic::Ordering::{Acquire, Relaxed},
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// One block, as seen at one moment.
///
/// Example: see [`Pool::blocks`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BlockInfo {
    /// Names it.
    pub id: BlockId,
    /// In which state it is.
    pub state: State,
    /// What becomes of it when its last holder is gone; none when it is free.
    pub kind: Option<Kind>,
    /// The process slots that hold it, one bit each.
    pub owners: u32,
    /// A holder has asked to free it.
    pub doomed: bool,
    /// Its UUID; of a free block that of its last life.
    pub uuid: Uuid,
    /// Type of the data, 0 none.
    pub fingerprint: u64,
    /// It belongs to a `PoolBox`.
    pub exclusive: bool,
    /// How many bytes are in use, at most the block size.
    pub used_len: usize,
    /// When it was allocated or last seen changed, to a few milliseconds; none when no monitor (an
    /// index, say) has looked at it in this life.
    pub version: Option<SystemTime>,
}

/// How many blocks are in which state.
///
/// Example: see [`Pool::info`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Counts {
    /// Free for anybody.
    pub free: u64,
    /// Free, and kept at hand by a process.
    pub cached: u64,
    /// Held.
    pub held: u64,
    /// Parked by choice.
    pub parked: u64,
    /// Left by the dead.
    pub orphaned: u64,
    /// Impossible owner words.
    pub corrupt: u64,
}

/// A pool's measures.
///
/// Example: see [`Pool::info`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The pool's name.
    pub name: String,
    /// The pool's UUID.
    pub uuid: Uuid,
    /// Bytes of data in a block.
    pub block_size: u64,
    /// Bytes from one block's data to the next.
    pub stride: u64,
    /// Blocks a growth step adds.
    pub blocks_per_extent: u64,
    /// Extents there are.
    pub extents: u64,
    /// Extents there can be.
    pub extents_max: u64,
    /// Bytes of the file.
    pub file_len: u64,
    /// Bytes of address space reserved in this process, in one mapping.
    pub reserved: u64,
    /// Bytes of address space this process uses for the pool beyond the reservation.
    pub address_space_beyond: u64,
    /// Mappings that this process has of the pool's file (lines in `/proc/self/maps`).
    pub mappings: u64,
    /// How many blocks are in which state.
    pub counts: Counts,
}

impl Info {
    /// Blocks there are.
    ///
    /// Example: see [`crate::PoolOptions::growth_step`].
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.extents * self.blocks_per_extent
    }

    /// Blocks there can be.
    ///
    /// Example: see [`crate::PoolOptions::growth_step`].
    #[must_use]
    pub fn blocks_max(&self) -> u64 {
        self.extents_max * self.blocks_per_extent
    }
}

/// A process that has, or had, the pool open.
///
/// Example: see [`Pool::holders`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// Its slot: a bit in `owners`.
    pub slot: u32,
    /// Whether it lives. If not, what it held waits to be taken back.
    pub alive: bool,
    /// Its process id, as it said itself.
    pub pid: u32,
    /// The name of its program, as it said itself.
    pub name: String,
    /// When it started, in clock ticks after boot, as it said itself.
    pub start_time: u64,
    /// Blocks it holds.
    pub held: u64,
    /// Free blocks it keeps at hand.
    pub cached: u64,
}

impl Extents {
    /// Numbers of all blocks, growth included up to now.
    pub(crate) fn numbers(&self) -> Result<impl Iterator<Item = u32>> {
        self.refresh()?;
        Ok((0..self.blocks()).map(|number| number as u32))
    }

    pub(crate) fn block_info(&self, number: u32) -> BlockInfo {
        self.info_of(number, self.load(number))
    }

    fn info_of(&self, number: u32, word: Word) -> BlockInfo {
        let cold = self.cold(number);
        let fingerprint = cold.fingerprint.load(Relaxed);
        BlockInfo {
            id: BlockId { number, generation: cold.generation.load(Relaxed) },
            state: word.state(),
            kind: word.kind(),
            owners: word.owners(),
            doomed: word.is_doomed(),
            uuid: self.uuid(number),
            fingerprint,
            exclusive: word.is_exclusive(),
            used_len: (cold.length.load(Relaxed) as usize).min(self.geometry.block_size as usize),
            version: match cold.version.load(Relaxed) {
                0 => None,
                since_1970 => Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(since_1970)),
            },
        }
    }

    /// Block and data of one life of it: looks at the word before and after.
    pub(crate) fn copy_block(&self, number: u32) -> Result<Option<(BlockInfo, Vec<u8>)>> {
        if !self.contains(number)? {
            return Ok(None);
        }
        let mut data = vec![0; self.geometry.block_size as usize];
        loop {
            let before = self.load(number);
            if !before.is_live() {
                return Ok(None);
            }
            let info = self.info_of(number, before);
            self.copy_data(number, &mut data);
            std::sync::atomic::fence(Acquire);
            let after = self.load(number);
            if after.is_live() && after.tag() == before.tag() {
                return Ok(Some((info, data)));
            }
            // It was freed meanwhile; so somebody makes progress, and we look again.
        }
    }

    /// Names the life of block `number` that has this UUID, if that is live.
    #[inline]
    pub(crate) fn life_of(&self, number: u32, uuid: Uuid) -> Option<BlockId> {
        if !self.contains(number).unwrap_or(false) {
            return None;
        }
        let spot = self.spot(number);
        let (word, cold) = (spot.word(), spot.cold());
        let before = Word(word.load(Acquire));
        let (high, low) = uuid.as_u64_pair();
        let is_it = before.is_live()
            && cold.uuid[1].load(Relaxed) == low
            && cold.uuid[0].load(Relaxed) == high;
        let id = BlockId { number, generation: cold.generation.load(Relaxed) };
        std::sync::atomic::fence(Acquire);
        // The header is of this life only if the word says so before and after.
        let after = Word(word.load(Relaxed));
        (is_it && after.is_live() && after.tag() == before.tag()).then_some(id)
    }

    pub(crate) fn find_uuid(&self, uuid: Uuid) -> Result<Option<u32>> {
        let is_it = |number| self.life_of(number, uuid).is_some();
        // An allocated block has its number in its UUID; a restored or reserved one has not.
        if is_it(number_in(uuid)) {
            return Ok(Some(number_in(uuid)));
        }
        Ok(self.numbers()?.find(|number| is_it(*number)))
    }

    pub(crate) fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for extent in 0..self.refresh()? {
            for word in self.words(extent) {
                match Word(word.load(Relaxed)).state() {
                    State::Free => counts.free += 1,
                    State::Cached => counts.cached += 1,
                    State::Held => counts.held += 1,
                    State::Parked => counts.parked += 1,
                    State::Orphan => counts.orphaned += 1,
                    State::Corrupt => counts.corrupt += 1,
                }
            }
        }
        Ok(counts)
    }

    pub(crate) fn info(&self, name: &str, uuid: Uuid) -> Result<Info> {
        let geometry = &self.geometry;
        let counts = self.counts()?;
        let (mappings, mapped) = self.own_mappings();
        let reserved = self.mapping.reserved() as u64;
        Ok(Info {
            name: name.to_owned(),
            uuid,
            block_size: geometry.block_size,
            stride: geometry.stride,
            blocks_per_extent: geometry.blocks_per_extent,
            extents: self.known(),
            extents_max: geometry.extents_max,
            file_len: self.backing.len()?,
            reserved,
            address_space_beyond: mapped.saturating_sub(reserved),
            mappings,
            counts,
        })
    }

    /// How many mappings this process has of the file, and of how many bytes together.
    fn own_mappings(&self) -> (u64, u64) {
        use rustix::fs;
        let Ok(stat) = fs::fstat(&self.backing) else { return (0, 0) };
        let file = (fs::major(stat.st_dev), fs::minor(stat.st_dev), stat.st_ino);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let of_file = maps.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (from, to) = fields.next()?.split_once('-')?;
            let (major, minor) = fields.nth(2)?.split_once(':')?;
            let hex = |text| u64::from_str_radix(text, 16).ok();
            let device = (hex(major)? as u32, hex(minor)? as u32);
            let inode: u64 = fields.next()?.parse().ok()?;
            ((device.0, device.1, inode) == file).then_some(hex(to)? - hex(from)?)
        });
        of_file.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len))
    }

    /// Every slot that is alive or was not closed orderly.
    pub(crate) fn holders(&self) -> Result<Vec<Holder>> {
        let slots = self.slots()?;
        let mut held = [0; LEASE_SLOTS];
        let mut cached = [0; LEASE_SLOTS];
        for extent in 0..self.refresh()? {
            for word in self.words(extent) {
                let word = Word(word.load(Relaxed));
                let of_state = if word.is_live() { &mut held } else { &mut cached };
                let mut owners = word.owners();
                while owners != 0 {
                    of_state[owners.trailing_zeros() as usize] += 1;
                    owners &= owners - 1;
                }
            }
        }
        let prober = Prober::new(&self.backing)?;
        let mut holders = Vec::new();
        for slot in 0..LEASE_SLOTS as u32 {
            let entry = &slots[slot as usize];
            let alive = prober.is_alive(slot)?;
            if !alive && entry.state.load(Acquire) == lease::CLEAN {
                continue;
            }
            holders.push(Holder {
                slot,
                alive,
                pid: entry.pid.load(Relaxed),
                name: entry.display_name(),
                start_time: entry.start_time.load(Relaxed),
                held: held[slot as usize],
                cached: cached[slot as usize],
            });
        }
        Ok(holders)
    }

    /// Waits until the pool has grown or a process has come, gone or been reaped.
    pub(crate) fn wait_notice(&self, seen: u32, timeout: Duration) -> Result<u32> {
        let notice = &self.live()?.notice;
        mainstay_shm::futex::wait(notice, seen, timeout);
        Ok(notice.load(Acquire))
    }
}

impl Pool {
    /// The pool's measures. Looks at every owner word: about a millisecond for 10^6 blocks.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("measured", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Transient)?;
    /// let info = pool.info()?;
    /// assert_eq!((info.counts.held, info.mappings), (1, 1));
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn info(&self) -> Result<Info> {
        self.inner().check_fork()?;
        self.inner().extents.info(self.name(), self.uuid())
    }

    /// Every block of the pool, free ones included.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions, State};
    /// let pool = PoolOptions::new("listed", 64).create_memfd()?;
    /// drop(pool.allocate(Kind::Recoverable)?);
    /// assert_eq!(pool.blocks()?.filter(|block| block.state == State::Parked).count(), 1);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn blocks(&self) -> Result<impl Iterator<Item = BlockInfo>> {
        self.inner().check_fork()?;
        let extents = &self.inner().extents;
        Ok(extents.numbers()?.map(|number| extents.block_info(number)))
    }

    /// One block.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions, State};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// assert_eq!(pool.block_info(block.number())?.state, State::Held);
    /// assert!(pool.block_info(u32::MAX).is_err());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NoSuchBlock` when there are not that many.
    pub fn block_info(&self, number: u32) -> Result<BlockInfo> {
        self.inner().check_fork()?;
        if self.inner().extents.contains(number)? {
            return Ok(self.inner().extents.block_info(number));
        }
        let why = "there are not that many blocks";
        Err(Error::NoSuchBlock { pool: self.inner().display(), id: number.to_string(), why })
    }

    /// Copies a block without taking a reference: what it is and its data, of one life of it. None
    /// when it is free. If a holder writes meanwhile, the data is a mix.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// let (info, data) = pool.copy_block(block.number())?.expect("it is held");
    /// assert_eq!((info.id, data), (block.id(), vec![0; 64]));
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn copy_block(&self, number: u32) -> Result<Option<(BlockInfo, Vec<u8>)>> {
        self.inner().check_fork()?;
        self.inner().extents.copy_block(number)
    }

    /// Which processes have the pool open, which of them are dead, and what they hold.
    ///
    /// ```
    /// let pool = mainstay_pool::PoolOptions::new("shared", 64).create_memfd()?;
    /// let holders = pool.holders()?;
    /// assert_eq!(holders[0].pid, std::process::id());
    /// assert!(holders[0].alive);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        self.inner().check_fork()?;
        self.inner().extents.holders()
    }
}

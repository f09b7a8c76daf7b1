//! The shared memory of a pool, cut into its parts: the one place that turns a block number into
//! an address.
//!
//! E1. A number reaches an address only if it lies in an extent that was *known*: counted by the
//!     live header, within the header's limit, and covered by the file when it was looked at.
//! E2. `known` only grows, so an address once valid stays valid.

use crate::{
    Error, Result,
    error::Corruption,
    freelist::GROUP,
    geometry::Geometry,
    layout::{
        CHECKPOINT_OFFSET, Checkpoints, Cold, LIVE_OFFSET, Live, SLOTS_OFFSET, WATCHES_OFFSET,
        WatchEntry,
    },
    word::Word,
};
use mainstay_shm::{
    Atomic64, Backing, Mapping, Shared64, copy, hook, lease::LEASE_SLOTS, lease::SlotEntry,
};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use uuid::Uuid;

#[derive(Debug)]
pub(crate) struct Extents {
    pub(crate) mapping: Mapping,
    pub(crate) backing: Backing,
    pub(crate) geometry: Geometry,
    known: AtomicU64,
    name: String,
}

impl Extents {
    pub(crate) fn new(
        mapping: Mapping,
        backing: Backing,
        geometry: Geometry,
        name: &str,
    ) -> Result<Self> {
        let known = AtomicU64::new(0);
        let extents = Self { mapping, backing, geometry, known, name: name.to_owned() };
        extents.mapping.refresh(&extents.backing)?;
        extents.live()?;
        extents.slots()?;
        extents.refresh()?;
        Ok(extents)
    }

    pub(crate) fn live(&self) -> Result<&Live> {
        Ok(&self.mapping.view::<Live>(LIVE_OFFSET, 1)?[0])
    }

    pub(crate) fn slots(&self) -> Result<&[SlotEntry]> {
        Ok(self.mapping.view(SLOTS_OFFSET, LEASE_SLOTS)?)
    }

    /// What the file says of its checkpoints; none in a pool of version 1.
    pub(crate) fn checkpoints(&self) -> Result<Option<&Checkpoints>> {
        if self.geometry.version < 2 {
            return Ok(None);
        }
        Ok(Some(&self.mapping.view::<Checkpoints>(CHECKPOINT_OFFSET as usize, 1)?[0]))
    }

    /// Who watches whose writes, by slot; none in a pool of version 1.
    pub(crate) fn watches(&self) -> Result<Option<&[WatchEntry]>> {
        if self.geometry.version < 2 {
            return Ok(None);
        }
        Ok(Some(self.mapping.view(WATCHES_OFFSET, LEASE_SLOTS)?))
    }

    /// How many extents are known to exist.
    #[inline(always)]
    pub(crate) fn known(&self) -> u64 {
        self.known.load(Relaxed)
    }

    /// How many blocks are known to exist.
    pub(crate) fn blocks(&self) -> u64 {
        self.known() << self.geometry.shift
    }

    /// Looks whether the pool has grown; checks that the file covers what the count says.
    pub(crate) fn refresh(&self) -> Result<u64> {
        let count = self.live()?.extents.load(Acquire);
        if count <= self.known() {
            return Ok(self.known());
        }
        let max = self.geometry.extents_max;
        let unchecked = hook::planted("extents-unchecked");
        if count > max && !unchecked {
            return Err(Error::corrupt(&self.name, Corruption::Extents { found: count, max }));
        }
        let needed = self.geometry.file_len(count);
        if (self.mapping.refresh(&self.backing)? as u64) < needed && !unchecked {
            let file_len = self.backing.len()?;
            return Err(Error::corrupt(&self.name, Corruption::Truncated { file_len, needed }));
        }
        self.known.fetch_max(count, Release);
        Ok(self.known())
    }

    /// Whether `number` is a block that is known, after a second look when it is not.
    #[inline(always)]
    pub(crate) fn contains(&self, number: u32) -> Result<bool> {
        if u64::from(number) >> self.geometry.shift < self.known() {
            return Ok(true);
        }
        Ok(u64::from(number) >> self.geometry.shift < self.refresh()?)
    }

    /// Where a block is.
    ///
    /// # Panics
    /// When the block is not known: a bug of this crate (E1).
    #[inline(always)]
    pub(crate) fn spot(&self, number: u32) -> Spot<'_> {
        let (extent, place) = self.geometry.locate(number);
        assert!(extent < self.known(), "E1: the block is known");
        Spot { extent: self.at(extent, 0), place, geometry: &self.geometry }
    }

    /// The owner word of a block. Panics as `spot`.
    #[inline(always)]
    pub(crate) fn word(&self, number: u32) -> &Shared64 {
        self.spot(number).word()
    }

    #[inline(always)]
    pub(crate) fn load(&self, number: u32) -> Word {
        Word(self.word(number).load(Acquire))
    }

    /// The cold header of a block. Panics as `spot`.
    #[inline(always)]
    pub(crate) fn cold(&self, number: u32) -> &Cold {
        self.spot(number).cold()
    }

    /// The UUID in a block's cold header.
    #[inline]
    pub(crate) fn uuid(&self, number: u32) -> Uuid {
        let cold = self.cold(number);
        Uuid::from_u64_pair(cold.uuid[0].load(Relaxed), cold.uuid[1].load(Relaxed))
    }

    /// The data of a block: `stride` bytes, of which `block_size` are the user's. Panics as `spot`.
    #[inline(always)]
    pub(crate) fn data(&self, number: u32) -> *mut u8 {
        self.spot(number).data()
    }

    /// Copies data out of a block; it may be a mix if somebody is writing.
    pub(crate) fn copy_data(&self, number: u32, target: &mut [u8]) {
        let len = target.len().min(self.geometry.block_size as usize);
        // SAFETY: `data` gives the start of at least `block_size` mapped bytes.
        unsafe { copy::load(self.data(number), target.as_mut_ptr(), len) };
    }

    /// Copies data into a block, as far as it fits.
    pub(crate) fn fill_data(&self, number: u32, source: &[u8]) {
        let len = source.len().min(self.geometry.block_size as usize);
        // SAFETY: `data` gives the start of at least `block_size` mapped bytes.
        unsafe { copy::store(source.as_ptr(), self.data(number), len) };
    }

    /// How many groups of up to 64 blocks an extent has.
    pub(crate) fn groups(&self) -> usize {
        (self.geometry.blocks_per_extent as usize).div_ceil(GROUP)
    }

    /// The hint word and the owner words of one group. Panics when the extent is not known.
    #[inline]
    pub(crate) fn group(&self, extent: u64, group: usize) -> (&Shared64, &[Shared64]) {
        assert!(extent < self.known() && group < self.groups(), "E1: the group is known");
        let first = group * GROUP;
        let count = GROUP.min(self.geometry.blocks_per_extent as usize - first);
        let hints = self.at(extent, self.geometry.bitmap_offset + group as u64 * 8);
        let words = self.at(extent, first as u64 * 8);
        // SAFETY: the extent is known, so mapped and covered; hints are 8 bytes a group from
        // `bitmap_offset` on, words 8 bytes a block from 0 on, both aligned to 8.
        unsafe { (&*hints.cast(), std::slice::from_raw_parts(words.cast(), count)) }
    }

    /// The number of the first block of a group.
    pub(crate) fn first_of(&self, extent: u64, group: usize) -> u32 {
        ((extent << self.geometry.shift) as usize + group * GROUP) as u32
    }

    /// All owner words of an extent. Panics when it is not known.
    pub(crate) fn words(&self, extent: u64) -> &[Shared64] {
        assert!(extent < self.known(), "E1: the extent is known");
        let count = self.geometry.blocks_per_extent as usize;
        // SAFETY: as in `group`.
        unsafe { std::slice::from_raw_parts(self.at(extent, 0).cast(), count) }
    }

    /// An address inside of a known extent.
    #[inline(always)]
    fn at(&self, extent: u64, offset: u64) -> *mut u8 {
        let offset = self.geometry.extent_offset(extent) + offset;
        // SAFETY: callers pass a known extent and an offset inside of it, so the sum is inside of
        // the mapping, which reserves addresses for all extents there can be.
        unsafe { self.mapping.base().as_ptr().add(offset as usize) }
    }
}

/// Where a known block is: looked up once, used for word, header and data.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    /// First byte of the extent.
    extent: *mut u8,
    /// Which of the extent's blocks it is.
    place: u64,
    geometry: &'a Geometry,
}

impl<'a> Spot<'a> {
    /// The owner word.
    #[inline(always)]
    pub(crate) fn word(self) -> &'a Shared64 {
        // SAFETY: the extent is known (E1), so all of it is mapped and covered; words are at its
        // start, 8 bytes each, aligned since extents are page-aligned.
        unsafe { &*self.extent.add((self.place * 8) as usize).cast() }
    }

    /// The cold header.
    #[inline(always)]
    pub(crate) fn cold(self) -> &'a Cold {
        let offset = self.geometry.cold_offset + self.place * size_of::<Cold>() as u64;
        // SAFETY: as in `word`; `cold_offset` is a multiple of 64 and `Cold` is 48 bytes.
        unsafe { &*self.extent.add(offset as usize).cast() }
    }

    /// The first byte of the data.
    #[inline(always)]
    pub(crate) fn data(self) -> *mut u8 {
        let offset = self.geometry.data_offset + self.place * self.geometry.stride;
        // SAFETY: the offset is inside of the extent.
        unsafe { self.extent.add(offset as usize) }
    }

    /// Clears the data, the rounding included.
    #[inline(always)]
    pub(crate) fn zero_data(self) {
        let data = self.data();
        let stride = self.geometry.stride as usize;
        #[cfg(feature = "hook")]
        let (data, stride) = {
            // A test may stop us half-way.
            let half = (stride / 2).next_multiple_of(64);
            mainstay_shm::hook::step();
            if half == stride {
                // SAFETY: as below.
                return unsafe { copy::zero(data, stride) };
            }
            // SAFETY: `data` is the start of `stride` mapped bytes, a multiple of 64.
            unsafe { copy::zero(data, half) };
            mainstay_shm::hook::step();
            // SAFETY: `half` is at most `stride`.
            (unsafe { data.add(half) }, stride - half)
        };
        // SAFETY: as above; data is aligned to 64 since `data_offset` and `stride` are.
        unsafe { copy::zero(data, stride) };
    }
}

//! One state's files in this process's memory: the one place that turns slot and line numbers into
//! addresses, after checking them.
//!
//! I1. A slot's address is given out only when the file was seen to cover it, up to the length that
//!     is asked for.
//! I2. The state's file is mapped writable only for those who subscribed to write; the pin table,
//!     through the description that holds the lock of this subscription, for everybody.

use crate::{
    Error, Result,
    domain::Tenant,
    layout::{
        PATH_OFFSET, PIN_LINES_OFFSET, PIN_WORDS_OFFSET, PinLine, PinWords, SLOT_LINES_OFFSET,
        SlotLine, StateHeader, StateWords, WORDS_OFFSET, corrupt,
    },
    limits::{PATH_MAX, PIN_LINES, SLOTS_MAX},
    protocol::Words,
    subscribe,
};
use mainstay_shm::{Access, Atomic64, Backing, Mapping, Shared8, Shared64, hook};
use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
    },
};

/// This process's place in the pin table of a state: its mapping holds the lock that says that this
/// process is subscribed. Whoever leaves last removes a transient state.
#[derive(Debug)]
pub(crate) struct Pins {
    /// Gone only while the value is dropped.
    mapping: Option<Mapping>,
    tenant: Arc<Tenant>,
    name: String,
    id: u64,
}

impl Pins {
    pub(crate) fn new(
        tenant: Arc<Tenant>,
        (backing, mapping): (Backing, Mapping),
        (name, id): (String, u64),
    ) -> Result<Self> {
        mapping.refresh(&backing)?;
        Ok(Self { mapping: Some(mapping), tenant, name, id })
    }

    fn mapping(&self) -> Result<&Mapping> {
        self.mapping.as_ref().ok_or_else(|| corrupt(&self.name, "pin table", "gone"))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // A child made by fork is no subscriber.
        if !self.tenant.epoch.is_current() {
            return;
        }
        // Unlocks: from here on this process is not subscribed.
        drop(self.mapping.take());
        subscribe::leave(&self.tenant, &self.name, self.id);
    }
}

/// A state that this process is subscribed to.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) header: StateHeader,
    pub(crate) name: String,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) backing: Backing,
    pub(crate) pins: Arc<Pins>,
    mapping: Mapping,
    words: NonNull<StateWords>,
    slot_lines: NonNull<SlotLine>,
    pin_words: NonNull<PinWords>,
    pin_lines: NonNull<PinLine>,
    /// Slots and bytes of each that the file was seen to cover.
    slots_covered: AtomicU32,
    capacity_covered: AtomicUsize,
}

// SAFETY: the pointers lead into the two mappings, which live as long as the value and may be used
// by any thread; what they lead to is shared words.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps a state's file and checks what the words say.
    pub(crate) fn new(
        header: StateHeader,
        tenant: Arc<Tenant>,
        backing: Backing,
        pins: Arc<Pins>,
    ) -> Result<Self> {
        let len = header.data_offset(header.slots_max);
        let mapping = Mapping::new(&backing, len, backing.access())?;
        mapping.refresh(&backing)?;
        let words = NonNull::from(&mapping.view::<StateWords>(WORDS_OFFSET, 1)?[0]);
        let slot_lines =
            NonNull::from(mapping.view::<SlotLine>(SLOT_LINES_OFFSET, SLOTS_MAX as usize)?).cast();
        let table = &pins.mapping()?;
        let pin_words = NonNull::from(&table.view::<PinWords>(PIN_WORDS_OFFSET, 1)?[0]);
        let pin_lines =
            NonNull::from(table.view::<PinLine>(PIN_LINES_OFFSET, PIN_LINES as usize)?).cast();
        let memory = Self {
            name: header.name(),
            header,
            tenant,
            backing,
            pins,
            mapping,
            words,
            slot_lines,
            pin_words,
            pin_lines,
            slots_covered: AtomicU32::new(0),
            capacity_covered: AtomicUsize::new(0),
        };
        memory.cover()?;
        Ok(memory)
    }

    /// Whether this process may write the state.
    #[inline(always)]
    pub(crate) fn is_writable(&self) -> bool {
        self.mapping.access() == Access::ReadWrite
    }

    /// Looks how many slots there are, and how large, and that the file covers them.
    #[cold]
    pub(crate) fn cover(&self) -> Result<()> {
        let (slots, capacity) =
            (self.words().slots.load(Acquire), self.words().capacity.load(Acquire));
        if slots == 0 || slots > u64::from(self.header.slots_max) {
            return Err(self.corrupt("count of slots", slots.to_string()));
        }
        if capacity > self.header.stride {
            return Err(self.corrupt("capacity", capacity.to_string()));
        }
        let slots = slots as u32;
        let end = self.header.data_offset(slots - 1) + capacity;
        if self.mapping.refresh(&self.backing)? < end as usize {
            return Err(self.corrupt("length of the file", format!("less than {end}")));
        }
        self.capacity_covered.store(capacity as usize, Release);
        self.slots_covered.store(slots, Release);
        Ok(())
    }

    /// How many bytes of each slot the file was seen to cover.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity_covered.load(Acquire)
    }

    /// Where a slot's `len` bytes are (I1).
    #[inline(always)]
    pub(crate) fn data(&self, slot: u32, len: usize) -> Result<NonNull<u8>> {
        if let Some(at) = self.covered(slot, len) {
            return Ok(at);
        }
        self.cover_slot(slot, len)
    }

    /// The same, if the file was seen to cover them already.
    #[inline(always)]
    pub(crate) fn covered(&self, slot: u32, len: usize) -> Option<NonNull<u8>> {
        let is_too_long = len > self.capacity_covered.load(Acquire);
        if slot >= self.slots_covered.load(Acquire)
            || (is_too_long && !hook::planted("slot-length-unchecked"))
        {
            return None;
        }
        let offset = self.header.data_offset(slot) as usize;
        // SAFETY: `cover` saw the file, and so the mapping, reach to the end of this slot's bytes.
        Some(unsafe { self.mapping.base().add(offset) })
    }

    #[cold]
    fn cover_slot(&self, slot: u32, len: usize) -> Result<NonNull<u8>> {
        self.cover()?;
        if slot >= self.slots_covered.load(Relaxed) {
            return Err(self.corrupt("number of a slot", slot.to_string()));
        }
        self.covered(slot, len).ok_or_else(|| self.wrong_len(len as u64))
    }

    /// How many bytes the version in a slot has; checked.
    #[inline(always)]
    pub(crate) fn len_of(&self, slot: u32) -> Result<usize> {
        let len = self.slot(slot).len.load(Relaxed);
        if len > self.header.stride {
            return Err(self.wrong_len(len));
        }
        Ok(len as usize)
    }

    #[cold]
    pub(crate) fn wrong_len(&self, len: u64) -> Error {
        self.corrupt("length of a version", len.to_string())
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> &StateWords {
        // SAFETY: came from a checked view of the mapping, which lives as long as `self`.
        unsafe { self.words.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn slot(&self, slot: u32) -> &SlotLine {
        debug_assert!(slot < SLOTS_MAX);
        // SAFETY: as in `words`; the view had `SLOTS_MAX` lines, and the number has six bits.
        unsafe { self.slot_lines.add((slot & (SLOTS_MAX - 1)) as usize).as_ref() }
    }

    #[inline(always)]
    pub(crate) fn pin_words(&self) -> &PinWords {
        // SAFETY: as in `words`, for the pin table.
        unsafe { self.pin_words.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn line(&self, line: u32) -> &PinLine {
        debug_assert!(line < PIN_LINES);
        // SAFETY: as in `words`, for the pin table, whose view had `PIN_LINES` lines.
        unsafe { self.pin_lines.add((line & (PIN_LINES - 1)) as usize).as_ref() }
    }

    /// The first of `PIN_LINES` lines.
    pub(crate) fn pin_lines(&self) -> NonNull<PinLine> {
        self.pin_lines
    }

    /// The first of `SLOTS_MAX` lines.
    pub(crate) fn slot_lines(&self) -> NonNull<SlotLine> {
        self.slot_lines
    }

    /// The place of the path of a persistent state.
    pub(crate) fn path_bytes(&self) -> Result<&[Shared8]> {
        Ok(self.mapping.view(PATH_OFFSET, PATH_MAX)?)
    }

    pub(crate) fn corrupt(&self, field: &'static str, found: impl Into<String>) -> Error {
        corrupt(&self.backing.describe(), field, found)
    }
}

const _: () = assert!(SLOTS_MAX.is_power_of_two() && PIN_LINES.is_power_of_two());

impl Words for Memory {
    type Word = Shared64;

    #[inline(always)]
    fn id(&self) -> u64 {
        self.header.id
    }

    #[inline(always)]
    fn current(&self) -> &Shared64 {
        &self.words().current
    }

    #[inline(always)]
    fn slots(&self) -> u32 {
        self.slots_covered.load(Relaxed)
    }

    #[inline(always)]
    fn owner(&self, slot: u32) -> &Shared64 {
        &self.slot(slot).owner
    }

    #[inline(always)]
    fn version(&self, slot: u32) -> &Shared64 {
        &self.slot(slot).version
    }

    #[inline(always)]
    fn lines(&self) -> u32 {
        // SeqCst: behind the look at the word (S1). Garbage must not lead out of the table.
        self.pin_words().used.load(SeqCst).min(PIN_LINES)
    }

    #[inline(always)]
    fn keeper(&self, line: u32) -> &Shared64 {
        &self.line(line).keeper
    }

    #[inline(always)]
    fn announced(&self, line: u32) -> &Shared64 {
        &self.line(line).announced
    }
}

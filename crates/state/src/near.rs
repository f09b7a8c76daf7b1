//! What the fast paths look at, found once: a handle has the addresses at hand instead of following
//! them through what it shares with others.
//!
//! I1. Addresses lead into mappings that the same value keeps, so they are valid as long as it is.
//! I2. What was [`Found`] was checked then. A file never gets shorter and a slot never moves, so it
//!     need not be checked again.

use crate::{
    Result,
    layout::{PinLine, PinWords, SlotLine, StateWords},
    limits::{PIN_LINES, SLOTS_MAX},
    memory::Memory,
    protocol::Words,
};
use mainstay_shm::{Shared64, copy, fork::Epoch};
use std::{
    ptr::NonNull,
    sync::{Arc, atomic::Ordering::SeqCst},
};

/// A state's memory, with what each operation looks at.
#[derive(Debug)]
pub(crate) struct Near {
    epoch: Epoch,
    words: NonNull<StateWords>,
    pin_words: NonNull<PinWords>,
    pin_lines: NonNull<PinLine>,
    slot_lines: NonNull<SlotLine>,
    memory: Arc<Memory>,
}

// SAFETY: the pointers lead into mappings that `memory` keeps, which may be used by any thread.
unsafe impl Send for Near {}
// SAFETY: as above; what they lead to is shared words.
unsafe impl Sync for Near {}

/// Bytes of a slot that the file was seen to cover; of use only to the [`Near`] that found them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a number; nothing is done with them here.
unsafe impl Send for Found {}

impl Found {
    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        self.len
    }
}

impl Near {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self {
            epoch: memory.tenant.epoch,
            words: NonNull::from(memory.words()),
            pin_words: NonNull::from(memory.pin_words()),
            pin_lines: memory.pin_lines(),
            slot_lines: memory.slot_lines(),
            memory,
        }
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// False in a child made by fork, which does not have the mappings.
    #[inline(always)]
    pub(crate) fn is_ours(&self) -> bool {
        self.epoch.is_current()
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> &StateWords {
        // SAFETY: I1: came from a view of the state's mapping, which `memory` keeps.
        unsafe { self.words.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn pin_words(&self) -> &PinWords {
        // SAFETY: I1, for the mapping of the pin table.
        unsafe { self.pin_words.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn slot(&self, slot: u32) -> &SlotLine {
        // SAFETY: I1; the view had `SLOTS_MAX` lines.
        unsafe { self.slot_lines.add((slot & (SLOTS_MAX - 1)) as usize).as_ref() }
    }

    #[inline(always)]
    fn line(&self, line: u32) -> &PinLine {
        // SAFETY: I1, for the pin table, whose view had `PIN_LINES` lines.
        unsafe { self.pin_lines.add((line & (PIN_LINES - 1)) as usize).as_ref() }
    }

    /// The first `len` bytes of a slot.
    #[inline]
    pub(crate) fn find(&self, slot: u32, len: usize) -> Result<Found> {
        Ok(Found { at: self.memory.data(slot, len)?, len })
    }

    /// The same, if the file was seen to cover them already.
    #[inline(always)]
    pub(crate) fn find_covered(&self, slot: u32, len: usize) -> Option<Found> {
        Some(Found { at: self.memory.covered(slot, len)?, len })
    }

    /// Fills `target` with the first bytes of what this has found. They may be a mix if somebody is
    /// writing.
    ///
    /// # Safety
    /// They are not fewer than `target` has room for.
    #[inline(always)]
    pub(crate) unsafe fn load(&self, found: Found, target: &mut [u8]) {
        debug_assert!(target.len() <= found.len);
        // SAFETY: I2, and the caller's promise: the range is covered by the mapping; the target is a
        // slice of the caller's.
        unsafe { copy::load(found.at.as_ptr(), target.as_mut_ptr(), target.len()) };
    }

    /// Copies `value` to the first bytes of what this has found in a slot of the caller's own.
    ///
    /// # Safety
    /// They are not fewer than `value` has.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, found: Found, value: &[u8]) {
        debug_assert!(value.len() <= found.len);
        // SAFETY: I2, and the caller's promise: the range is covered by the mapping. Only who may write
        // owns a slot (I2 in `memory.rs`), and S1: nobody else touches it meanwhile. The source is a
        // slice.
        unsafe { copy::store(value.as_ptr(), found.at.as_ptr(), value.len()) };
    }
}

impl Words for Near {
    type Word = Shared64;

    #[inline(always)]
    fn id(&self) -> u64 {
        self.memory.id()
    }

    #[inline(always)]
    fn current(&self) -> &Shared64 {
        &self.words().current
    }

    #[inline(always)]
    fn slots(&self) -> u32 {
        self.memory.slots()
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
        // As in `memory.rs`.
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

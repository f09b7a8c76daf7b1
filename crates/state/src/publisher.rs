//! Replacing a value again and again.
//!
//! A claim costs an exchange, which is a third of what it takes to replace a small value. Who
//! publishes often keeps its claims: it writes in turns into the slot that it published last but
//! one, which it has owned all the time. It needs no more than a look at the word and at the lines.

use crate::{
    Result,
    draft::{check_size, claim_slot, ensure_capacity, now, permit, publish, publish_at_once},
    memory::Memory,
    protocol::{Words as _, reopen},
    value::Value,
    word::Plain,
};
use mainstay_shm::Atomic64;
use std::{
    marker::PhantomData,
    sync::{Arc, atomic::Ordering::Release},
};

/// Replaces whole values of one state at the highest rate. It does what [`State::replace`] does,
/// next to any other writers, but keeps up to two of the state's slots for as long as it lives, so
/// that it need not claim one each time. When its process dies they are free for whoever needs
/// them.
///
/// ```
/// use mainstay_state::Domain;
/// # let dir = tempfile::tempdir()?;
/// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
/// let mut publisher = state.publisher()?;
/// for speed in [80, 90, 100] {
///     publisher.publish(&[speed])?;
/// }
/// assert_eq!(&*state.read()?, &[100]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`State::replace`]: crate::State::replace
#[derive(Debug)]
pub struct Publisher<T: Value + ?Sized> {
    memory: Arc<Memory>,
    /// Ours, and to be written next.
    spare: Option<u32>,
    /// Ours, and published last.
    shown: Option<u32>,
    _value: PhantomData<fn() -> Box<T>>,
}

impl<T: Value + ?Sized> Publisher<T> {
    pub(crate) fn new(memory: &Arc<Memory>) -> Result<Self> {
        permit(memory)?;
        memory.tenant.check_process(&memory.name)?;
        let memory = Arc::clone(memory);
        Ok(Self { memory, spare: None, shown: None, _value: PhantomData })
    }

    /// The name of its state.
    pub(crate) fn name(&self) -> &str {
        &self.memory.name
    }

    /// Makes `value` the next version, whatever the current one is; returns its number.
    ///
    /// Example: see [`Publisher`].
    ///
    /// # Errors
    /// As [`State::replace`](crate::State::replace).
    #[inline]
    pub fn publish(&mut self, value: &T) -> Result<u64> {
        let value = value.bytes();
        if let Some(slot) = self.spare
            && let Some(version) = publish_at_once(&self.memory, slot, value)
        {
            self.spare = self.shown.replace(slot);
            return Ok(version);
        }
        self.publish_with_care(value)
    }

    /// Tells what is wrong, gets what is missing, and begins again after others' commits.
    #[cold]
    fn publish_with_care(&mut self, value: &[u8]) -> Result<u64> {
        let memory = &*self.memory;
        memory.tenant.check_process(&memory.name)?;
        check_size(memory, value.len())?;
        let base = now(memory)?;
        ensure_capacity(memory, value.len())?;
        let slot = match self.spare {
            Some(slot) if reopen(memory, slot).is_some() => slot,
            _ => self.another(base)?,
        };
        let version = publish(&self.memory, base, slot, value)?;
        self.spare = self.shown.replace(slot);
        Ok(version)
    }

    /// Claims another slot instead of one that is being read.
    fn another(&mut self, base: Plain) -> Result<u32> {
        let slot = claim_slot(&self.memory, base.slot() + 1)?;
        if let Some(read) = self.spare.replace(slot) {
            self.memory.owner(read).store(0, Release);
        }
        Ok(slot)
    }
}

impl<T: Value + ?Sized> Drop for Publisher<T> {
    fn drop(&mut self) {
        // What a child made by fork has inherited is its parent's.
        if self.memory.tenant.epoch.is_current() {
            for slot in [self.spare, self.shown].into_iter().flatten() {
                self.memory.owner(slot).store(0, Release);
            }
        }
    }
}

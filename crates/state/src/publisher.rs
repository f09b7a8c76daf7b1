//! Replacing a value again and again.
//!
//! A claim costs an exchange, which is a third of what it takes to replace a small value. Who
//! publishes often keeps its claims: it writes in turns into the slot that it published last but
//! one, which it has owned all the time. It needs no more than a look at the word and at the lines.
//!
//! K1. Where a publisher is ready, both of its places have as many bytes as the type of the state, or
//!     as many as a version of bytes may have without growing.

use crate::{
    Result,
    domain::awaited,
    draft::{check_size, claim_slot, count_conflict, ensure_capacity, now, permit, publish},
    memory::Memory,
    near::{Found, Near},
    protocol::{Words as _, reopen, swap},
    value::Value,
    word::Plain,
};
use mainstay_shm::{Atomic64, hook};
use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
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
    /// None after anything out of the ordinary.
    ready: Option<Ready>,
    near: Near,
    /// Ours: the one that is written next, and the one that was published last.
    spare: Option<u32>,
    shown: Option<u32>,
    _value: PhantomData<fn() -> Box<T>>,
}

/// What the next version needs when nothing comes in between.
#[derive(Debug)]
struct Ready {
    /// What was published last.
    base: Plain,
    /// Both slots: for even versions, and for odd ones.
    places: [Place; 2],
}

/// A slot that is kept.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: u32,
    found: Found,
}

/// Why a version was not published at once. Nothing of it has become visible.
enum NotYet {
    /// There is something to find out, or to do, before.
    Prepare,
    /// Somebody else has committed at the same time.
    Conflict,
}

impl Ready {
    #[inline(always)]
    fn place(&self, version: u64) -> Place {
        self.places[(version & 1) as usize]
    }
}

impl<T: Value + ?Sized> Publisher<T> {
    pub(crate) fn new(memory: &Arc<Memory>) -> Result<Self> {
        permit(memory)?;
        memory.tenant.check_process(&memory.name)?;
        let near = Near::new(Arc::clone(memory));
        Ok(Self { ready: None, near, spare: None, shown: None, _value: PhantomData })
    }

    /// The name of its state.
    pub(crate) fn name(&self) -> &str {
        &self.near.memory().name
    }

    /// Makes `value` the next version, whatever the current one is; returns its number.
    ///
    /// Example: see [`Publisher`].
    ///
    /// # Errors
    /// As [`State::replace`](crate::State::replace).
    #[inline(always)]
    pub fn publish(&mut self, value: &T) -> Result<u64> {
        let value = value.bytes();
        let version = match self.publish_at_once(value) {
            Ok(version) => version,
            Err(why) => self.publish_with_care(value, why)?,
        };
        Ok(version)
    }

    /// Where nothing is out of the ordinary: there is room, the last version is this publisher's
    /// own, the slot of the one before is read no longer, and nobody else commits.
    #[inline(always)]
    fn publish_at_once(&mut self, value: &[u8]) -> std::result::Result<u64, NotYet> {
        let (near, Some(ready)) = (&self.near, &mut self.ready) else {
            return Err(NotYet::Prepare);
        };
        let (base, version) = (ready.base, ready.base.version() + 1);
        let Place { slot, found } = ready.place(version);
        // First: a child made by fork does not have the mapping.
        if !near.is_ours()
            || value.is_empty()
            // K1: of a type there is no need to look.
            || (T::kind().size.is_none() && value.len() > found.len())
            || !reopen(near, slot, base)
        {
            return Err(NotYet::Prepare);
        }
        // SAFETY: bytes were compared above; a type has a size, which the place was found for (K1).
        unsafe { near.store(found, value) };
        // `reopen` has written the version. Mostly the slot had a value of this length before: a store
        // that is left out is one less for the exchange to wait for.
        let (len, wanted) = (&near.slot(slot).len, value.len() as u64);
        if len.load(Relaxed) != wanted {
            len.store(wanted, Relaxed);
        }
        let new = base.next(slot);
        if swap(near.current(), base, new).is_err() {
            return Err(NotYet::Conflict);
        }
        ready.base = new;
        if let Some(change) = awaited(near.words(), near.pin_words()) {
            near.memory().tenant.wake(near.memory(), change);
        }
        Ok(version)
    }

    /// Tells what is wrong, gets what is missing, and begins again after others' commits.
    #[cold]
    fn publish_with_care(&mut self, value: &[u8], why: NotYet) -> Result<u64> {
        if let Some(Ready { base, places }) = self.ready.take() {
            let [one, other] = places.map(|place| Some(place.slot));
            let is_one = one == Some(base.slot());
            (self.shown, self.spare) = if is_one { (one, other) } else { (other, one) };
        }
        let memory = &**self.near.memory();
        memory.tenant.check_process(&memory.name)?;
        if matches!(why, NotYet::Conflict) {
            count_conflict(memory);
        }
        check_size(memory, value.len())?;
        let base = now(memory)?;
        ensure_capacity(memory, value.len())?;
        let slot = match (self.spare, self.shown) {
            (_, Some(shown)) if hook::planted("publish-into-shown") => shown,
            (Some(slot), _) if slot != base.slot() && reopen(memory, slot, base) => slot,
            _ => self.another(base)?,
        };
        // S8: what it follows is looked for when the slot is ours.
        let base = now(self.near.memory())?;
        let version = publish(self.near.memory(), base, slot, value)?;
        self.spare = self.shown.replace(slot);
        self.ready = self.get_ready(Plain::new(version, slot));
        Ok(version)
    }

    /// Claims another slot instead of one that is being read.
    fn another(&mut self, base: Plain) -> Result<u32> {
        let slot = claim_slot(self.near.memory(), base.slot() + 1)?;
        if let Some(read) = self.spare.replace(slot) {
            self.near.owner(read).store(0, Release);
        }
        Ok(slot)
    }

    /// Finds both slots, once there are two.
    fn get_ready(&self, base: Plain) -> Option<Ready> {
        let memory = self.near.memory();
        // Whatever is not longer fits the state: bytes of any length, or exactly its type.
        let len_max = match (T::kind().size, memory.header.type_size as usize) {
            (None, 0) => memory.capacity().min(memory.header.size_limit as usize),
            (Some(size), wanted) if size == wanted => size,
            _ => return None,
        };
        let place = |slot: u32| Some(Place { slot, found: self.near.find(slot, len_max).ok()? });
        // Two that are one were made so by whoever wrote to the owners' words.
        let spare = self.spare.filter(|spare| *spare != base.slot())?;
        let (shown, spare) = (place(base.slot())?, place(spare)?);
        let places = if base.version() & 1 == 0 { [shown, spare] } else { [spare, shown] };
        Some(Ready { base, places })
    }
}

impl<T: Value + ?Sized> Drop for Publisher<T> {
    fn drop(&mut self) {
        // What a child made by fork has inherited is its parent's.
        if self.near.is_ours() {
            for slot in [self.spare, self.shown].into_iter().flatten() {
                self.near.owner(slot).store(0, Release);
            }
        }
    }
}

//! The next version of one state, while it is being written.

use crate::{
    Commit, Error, Result,
    layout::SlotLine,
    limits::LEASES,
    line::{Line, Pin, len_of},
    memory::Memory,
    protocol::{Outcome, Words as _, claim, commit, current},
    subscribe,
    value::Value,
    word::{Id, NOTHING, Plain, Word},
};
use mainstay_shm::{Atomic64, copy};
use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    },
};

/// A transaction's view of one state: at first the version it began with, pinned; from the first
/// write on, a copy of it in a slot of its own.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    memory: Held<'a>,
    pub(crate) base: Plain,
    stage: Stage<'a>,
}

/// A reference to a state's memory that either borrows a handle or keeps the memory itself.
#[derive(Debug)]
enum Held<'a> {
    Borrowed(&'a Arc<Memory>),
    Kept(Arc<Memory>),
}

impl Deref for Held<'_> {
    type Target = Memory;

    #[inline(always)]
    fn deref(&self) -> &Memory {
        match self {
            Self::Borrowed(memory) => memory,
            Self::Kept(memory) => memory,
        }
    }
}

#[derive(Debug)]
enum Stage<'a> {
    Reading(Pin<'a>),
    /// `late` when another version was current already when the slot was claimed: then this is not
    /// committed, and its slot must not say that it is a version (S8).
    Writing {
        slot: u32,
        len: usize,
        late: bool,
    },
}

impl<'a> Draft<'a> {
    #[inline(always)]
    pub(crate) fn begin(memory: &'a Arc<Memory>, line: &'a Line) -> Result<Self> {
        permit(memory)?;
        let pin = Pin::new(line)?;
        Ok(Self { memory: Held::Borrowed(memory), base: pin.plain, stage: Stage::Reading(pin) })
    }

    /// One that keeps the memory, and so outlives the handle it came from.
    pub(crate) fn begin_kept(memory: &Arc<Memory>) -> Result<Draft<'static>> {
        permit(memory)?;
        let held = Held::Kept(Arc::clone(memory));
        let pin = Pin::with_own_line(memory)?;
        Ok(Draft { memory: held, base: pin.plain, stage: Stage::Reading(pin) })
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The slot of the new version, when anything was written.
    #[inline(always)]
    pub(crate) fn slot(&self) -> Option<u32> {
        match self.stage {
            Stage::Reading(_) => None,
            Stage::Writing { slot, .. } => Some(slot),
        }
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> Result<&[u8]> {
        match &self.stage {
            Stage::Reading(pin) => pin.bytes(),
            Stage::Writing { slot, len, .. } => {
                let at = self.memory.data(*slot, *len)?;
                // SAFETY: `data` has checked the range; the slot is ours (S1), and `&self` keeps
                // `bytes_mut` away.
                Ok(unsafe { std::slice::from_raw_parts(at.as_ptr(), *len) })
            }
        }
    }

    /// The bytes of the new version, to be written.
    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        let (slot, len) = self.writing()?;
        let at = self.memory.data(slot, len)?;
        // SAFETY: as in `bytes`; `&mut self` says that this is the only reference.
        Ok(unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) })
    }

    /// The value, as the type sees it.
    #[inline(always)]
    pub(crate) fn value<T: Value + ?Sized>(&self) -> Result<&T> {
        let bytes = self.bytes()?;
        T::of(bytes).ok_or_else(|| self.memory.wrong_len(bytes.len() as u64))
    }

    /// The value, to be written.
    #[inline(always)]
    pub(crate) fn value_mut<T: Value + ?Sized>(&mut self) -> Result<&mut T> {
        let (slot, len) = self.writing()?;
        let at = self.memory.data(slot, len)?;
        // SAFETY: as in `bytes_mut`.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) };
        T::of_mut(bytes).ok_or_else(|| self.memory.wrong_len(len as u64))
    }

    /// Makes the new version `len` bytes long; what is added is zeros.
    pub(crate) fn resize(&mut self, len: usize) -> Result<()> {
        check_size(&self.memory, len)?;
        let (_, old) = self.writing()?;
        ensure_capacity(&self.memory, len)?;
        if let Stage::Writing { len: present, .. } = &mut self.stage {
            *present = len;
        }
        if let Some(added) = self.bytes_mut()?.get_mut(old..) {
            added.fill(0);
        }
        Ok(())
    }

    /// Moves to a slot of our own, with a copy of what the transaction began with.
    #[inline(always)]
    fn writing(&mut self) -> Result<(u32, usize)> {
        if let Stage::Writing { slot, len, .. } = self.stage {
            return Ok((slot, len));
        }
        let len = len_of(&self.memory, self.base)?;
        let from = self.memory.data(self.base.slot(), len)?;
        let slot = claim_slot(&self.memory, self.base.slot() + 1)?;
        let claimed = Claimed { memory: &self.memory, slot };
        let to = self.memory.data(slot, len)?;
        let late = !self.is_current()?;
        std::mem::forget(claimed);
        // SAFETY: `data` has checked both ranges, which are different slots (S1: a claimed slot is
        // not the one that is pinned); nobody writes the one, and the other is ours.
        unsafe { copy::load(from.as_ptr(), to.as_ptr(), len) };
        // Drops the pin.
        self.stage = Stage::Writing { slot, len, late };
        Ok((slot, len))
    }

    /// Writes the length and the number of the new version into its line.
    ///
    /// # Errors
    /// `Conflict` when it is too late for that.
    #[inline(always)]
    pub(crate) fn seal(&self) -> Result<()> {
        match self.stage {
            Stage::Reading(_) => Ok(()),
            Stage::Writing { late: true, .. } => Err(refused(&self.memory, Outcome::Conflict)),
            Stage::Writing { slot, len, .. } => {
                seal(self.memory.slot(slot), self.base.version() + 1, len);
                Ok(())
            }
        }
    }

    /// Publishes the new version; returns its number. Without changes, that of the one it began
    /// with.
    #[inline(always)]
    pub(crate) fn commit(self) -> Result<u64> {
        self.memory.tenant.check_process(&self.memory.name)?;
        let Some(slot) = self.slot() else { return self.confirm() };
        self.seal()?;
        match commit(&*self.memory.tenant, &*self.memory, self.base, slot) {
            // The claim is dropped with `self`: the word names the slot now.
            Outcome::Committed => Ok(self.base.version() + 1),
            outcome => Err(refused(&self.memory, outcome)),
        }
    }

    /// The same; tells of what it has published, while that is still in a slot of ours.
    pub(crate) fn commit_told(self, tell: impl FnOnce(&Commit<'_>)) -> Result<u64> {
        self.memory.tenant.check_process(&self.memory.name)?;
        let Some(slot) = self.slot() else { return self.confirm() };
        self.seal()?;
        let value = self.bytes()?;
        match commit(&*self.memory.tenant, &*self.memory, self.base, slot) {
            Outcome::Committed => {
                let published = Commit::new(&self.memory.name, self.base.version() + 1, value);
                tell(&published);
                Ok(published.version)
            }
            outcome => Err(refused(&self.memory, outcome)),
        }
    }

    /// Nothing was changed, so nothing is lost to whoever has committed since. Only a state that
    /// was deleted has no use any more.
    pub(crate) fn confirm(&self) -> Result<u64> {
        now(&self.memory)?;
        Ok(self.base.version())
    }

    /// Whether what the transaction began with is still current.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> Result<bool> {
        Ok(now(&self.memory)? == self.base)
    }
}

impl Drop for Draft<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Stage::Writing { slot, .. } = self.stage
            && self.memory.tenant.epoch.is_current()
        {
            self.memory.owner(slot).store(0, Release);
        }
    }
}

#[inline(always)]
pub(crate) fn permit(memory: &Memory) -> Result<()> {
    if memory.is_writable() { Ok(()) } else { Err(not_permitted(memory)) }
}

#[cold]
fn not_permitted(memory: &Memory) -> Error {
    Error::NotPermitted { state: memory.name.clone() }
}

#[inline(always)]
pub(crate) fn seal(line: &SlotLine, version: u64, len: usize) {
    line.len.store(len as u64, Relaxed);
    // Release: whoever finds the version by the word finds length and data.
    line.version.store(version, Release);
}

/// The current version.
#[inline(always)]
pub(crate) fn now(memory: &Memory) -> Result<Plain> {
    current(&*memory.tenant, memory).map_err(|fault| crate::line::failed(memory, fault))
}

/// Replaces the whole value, whatever was committed before; returns the new version.
#[inline(always)]
pub(crate) fn replace(memory: &Memory, value: &[u8]) -> Result<u64> {
    permit(memory)?;
    memory.tenant.check_process(&memory.name)?;
    check_size(memory, value.len())?;
    let hint = now(memory)?.slot() + 1;
    ensure_capacity(memory, value.len())?;
    let slot = claim_slot(memory, hint)?;
    let _claimed = Claimed { memory, slot };
    // S8: what it follows is looked for when the slot is ours.
    publish(memory, now(memory)?, slot, value)
}

/// Copies a whole value into a slot that is ours, and publishes it after whatever is current; it
/// was checked that there is room. Returns the new version.
#[inline(always)]
pub(crate) fn publish(memory: &Memory, mut base: Plain, slot: u32, value: &[u8]) -> Result<u64> {
    let at = memory.data(slot, value.len())?;
    // SAFETY: `data` has checked the range, and the slot is ours (S1); the source is a slice.
    unsafe { copy::store(value.as_ptr(), at.as_ptr(), value.len()) };
    loop {
        seal(memory.slot(slot), base.version() + 1, value.len());
        match commit(&*memory.tenant, memory, base, slot) {
            Outcome::Committed => return Ok(base.version() + 1),
            Outcome::Conflict => base = after_conflict(memory)?,
            outcome => return Err(refused(memory, outcome)),
        }
    }
}

#[cold]
fn after_conflict(memory: &Memory) -> Result<Plain> {
    count_conflict(memory);
    now(memory)
}

#[cold]
pub(crate) fn count_conflict(memory: &Memory) {
    memory.tenant.tally(|c| &c.conflicts, 1);
}

struct Claimed<'a> {
    memory: &'a Memory,
    slot: u32,
}

impl Drop for Claimed<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.memory.owner(self.slot).store(0, Release);
    }
}

/// Claims a slot; makes more of them when all are in use and that is allowed.
#[inline(always)]
pub(crate) fn claim_slot(memory: &Memory, hint: u32) -> Result<u32> {
    match claim(&*memory.tenant, memory, memory.tenant.me, hint) {
        Some(slot) => Ok(slot),
        None => claim_after_growth(memory),
    }
}

#[cold]
fn claim_after_growth(memory: &Memory) -> Result<u32> {
    loop {
        // Others may have made slots already.
        memory.cover()?;
        if let Some(slot) = claim(&*memory.tenant, memory, memory.tenant.me, 0) {
            return Ok(slot);
        }
        if !grow_slots(memory)? {
            return Err(Error::NoFreeSlot {
                state: memory.name.clone(),
                slots: memory.slots(),
                holders: holders(memory),
            });
        }
    }
}

/// Adds a slot; false when there may be no more.
fn grow_slots(memory: &Memory) -> Result<bool> {
    // Never more than this: so nobody has to be waited for to say so.
    if memory.slots() >= memory.header.slots_max {
        return Ok(false);
    }
    let _gate = subscribe::gate(&memory.tenant, &memory.name)?;
    memory.cover()?;
    let slots = memory.slots();
    if slots >= memory.header.slots_max {
        return Ok(false);
    }
    let capacity = memory.words().capacity.load(Acquire);
    memory.backing.allocate(memory.header.data_offset(slots), capacity)?;
    memory.words().slots.store(u64::from(slots) + 1, Release);
    memory.cover()?;
    Ok(true)
}

/// Makes every slot large enough for `len` bytes.
#[inline(always)]
pub(crate) fn ensure_capacity(memory: &Memory, len: usize) -> Result<()> {
    if len as u64 <= memory.words().capacity.load(Acquire) {
        return Ok(());
    }
    grow_capacity(memory, len)
}

#[cold]
fn grow_capacity(memory: &Memory, len: usize) -> Result<()> {
    let _gate = subscribe::gate(&memory.tenant, &memory.name)?;
    memory.cover()?;
    let (old, new) = (memory.words().capacity.load(Acquire), (len as u64).next_multiple_of(4_096));
    if new <= old {
        return Ok(());
    }
    for slot in 0..memory.slots() {
        memory.backing.allocate(memory.header.data_offset(slot) + old, new - old)?;
    }
    memory.words().capacity.store(new, Release);
    memory.cover()
}

/// Whether a size is within the state's limit and fits its type.
#[inline(always)]
fn fits(memory: &Memory, wanted: usize) -> bool {
    let (header, wanted) = (&memory.header, wanted as u64);
    let is_typed = header.type_size != 0;
    wanted != 0 && wanted <= header.size_limit && (!is_typed || wanted == header.type_size)
}

/// The same; says why not.
#[inline(always)]
pub(crate) fn check_size(memory: &Memory, wanted: usize) -> Result<()> {
    if fits(memory, wanted) { Ok(()) } else { Err(does_not_fit(memory, wanted)) }
}

#[cold]
fn does_not_fit(memory: &Memory, wanted: usize) -> Error {
    let header = &memory.header;
    let why = if header.type_size != 0 && wanted as u64 != header.type_size {
        format!("its type has {} bytes", header.type_size)
    } else if wanted as u64 > header.size_limit {
        format!("its limit is {}", header.size_limit)
    } else {
        "it has at least one".into()
    };
    Error::Size { state: memory.name.clone(), wanted, why }
}

#[cold]
pub(crate) fn shrinks(memory: &Memory, wanted: usize) -> Error {
    let why = "it only grows once something was committed".into();
    Error::Size { state: memory.name.clone(), wanted, why }
}

#[cold]
pub(crate) fn conflict(memory: &Memory) -> Error {
    count_conflict(memory);
    Error::Conflict { state: memory.name.clone() }
}

#[cold]
pub(crate) fn refused(memory: &Memory, outcome: Outcome) -> Error {
    match outcome {
        Outcome::Deleted => Error::Deleted { state: memory.name.clone() },
        Outcome::Garbage(word) => memory.corrupt("word", format!("{word:#018x}")),
        Outcome::Committed | Outcome::Conflict => conflict(memory),
    }
}

/// Who claims and pins the slots of a state, in words.
fn holders(memory: &Memory) -> String {
    let mut claims = [0_u32; LEASES as usize];
    let mut pins = [0_u32; LEASES as usize];
    for slot in 0..memory.slots() {
        let owner = Id(memory.owner(slot).load(Relaxed));
        if owner != Id::NOBODY {
            claims[owner.lease() as usize] += 1;
        }
    }
    for line in 0..memory.lines() {
        let keeper = Id(memory.keeper(line).load(Acquire));
        if keeper != Id::NOBODY && memory.announced(line).load(Acquire) != NOTHING {
            pins[keeper.lease() as usize] += 1;
        }
    }
    let told = (0..LEASES).filter_map(|lease| {
        let (claims, pins) = (claims[lease as usize], pins[lease as usize]);
        let pid = memory.tenant.lease_entry(lease)?.pid.load(Relaxed);
        (claims + pins > 0).then(|| format!("process {pid}: {claims} claimed, {pins} pinned"))
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Makes the state unusable for everybody; false when it was deleted already.
pub(crate) fn delete(memory: &Memory) -> Result<bool> {
    loop {
        let word = Word(memory.current().load(SeqCst));
        if word.meaning() == crate::word::Meaning::Deleted {
            return Ok(false);
        }
        let plain = now(memory)?;
        let deleted = Word::deleted(plain);
        if memory.current().compare_exchange(word.0, deleted.0, AcqRel, Relaxed).is_ok() {
            return Ok(true);
        }
    }
}

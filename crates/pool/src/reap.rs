//! Taking back what dead processes held.
//!
//! R1. A slot is swept only while it is pinned dead: nobody alive is there, nobody can come.
//! R2. Each step is idempotent and any number of reapers may sweep the same slot. A reaper that
//!     dies leaves the slot "in use", and the next one sweeps it again.
//! R3. "Clean" is stored last, under the pin.

use crate::{
    Result, freelist,
    inner::Inner,
    monitor::EventKind,
    steps,
    word::{Reaped, Word},
};
use mainstay_shm::{
    Atomic64, hook,
    lease::{self, LEASE_SLOTS, Prober},
};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// What a sweep has done, in blocks unless said otherwise.
///
/// Example: see [`crate::Pool::reap`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct ReapReport {
    /// Process slots taken back.
    pub slots: u32,
    /// Recoverable blocks that nobody holds any more: what recovery offers.
    pub orphaned: u64,
    /// Transient or doomed blocks freed.
    pub freed: u64,
    /// Free blocks that the dead kept at hand.
    pub uncached: u64,
    /// Blocks that the dead held together with the living.
    pub shared: u64,
    /// Hints that wrongly said "taken".
    pub hints_repaired: u64,
    /// Impossible owner words that name the dead: left as they are for `verify` to tell and
    /// `repair` to mend. They hold up nobody.
    pub corrupt: u64,
}

/// Sweeps every slot whose owner is dead.
pub(crate) fn reap(inner: &Inner) -> Result<ReapReport> {
    let slots = inner.extents.slots()?;
    let mut prober = None;
    let mut dead = 0_u32;
    for slot in (0..LEASE_SLOTS as u32).filter(|slot| *slot != inner.slot) {
        if slots[slot as usize].state.load(Acquire) == lease::CLEAN {
            continue;
        }
        let prober = match &mut prober {
            Some(prober) => prober,
            none => none.insert(Prober::new(&inner.extents.backing)?),
        };
        if hook::planted("reap-the-living") || prober.pin_dead(slot)? {
            dead |= 1 << slot;
        }
    }
    let Some(mut prober) = prober.filter(|_| dead != 0) else {
        return Ok(ReapReport::default());
    };
    let of_dead = || (0..LEASE_SLOTS as u32).filter(|slot| dead & 1 << slot != 0);
    let mark_clean = || {
        of_dead().for_each(|slot| slots[slot as usize].state.store(lease::CLEAN, Release));
    };
    if hook::planted("clean-before-sweep") {
        mark_clean();
    }
    let report = sweep(inner, dead)?;
    inner.leave_batches(dead)?;
    if !hook::planted("clean-before-sweep") {
        mark_clean();
    }
    of_dead().for_each(|slot| prober.unpin(slot));
    inner.notify();
    Ok(ReapReport { slots: dead.count_ones(), ..report })
}

/// Takes the slots in `dead` out of every owner word. The caller has them pinned, or leased.
pub(crate) fn sweep(inner: &Inner, dead: u32) -> Result<ReapReport> {
    let mut report = ReapReport::default();
    for extent in 0..inner.extents.refresh()? {
        for group in 0..inner.extents.groups() {
            let (hints, words) = inner.extents.group(extent, group);
            let first = inner.extents.first_of(extent, group);
            let mut free = 0_u64;
            for (place, word) in words.iter().enumerate() {
                // An idle pool's words are only read, so their pages stay clean.
                let seen = Word(word.load(Relaxed));
                let now_free = if seen.owners() & dead != 0 {
                    reap_one(inner, first + place as u32, word, seen, dead, &mut report)
                } else {
                    seen.is_free()
                };
                free |= u64::from(now_free) << place;
            }
            if free & hints.load(Relaxed) != 0 {
                report.hints_repaired += u64::from(freelist::repair_hints(hints, words));
            }
        }
    }
    Ok(report)
}

/// Returns whether the block is free now.
#[inline(always)]
fn reap_one(
    inner: &Inner,
    number: u32,
    word: &impl Atomic64,
    seen: Word,
    dead: u32,
    report: &mut ReapReport,
) -> bool {
    let reaped = steps::reap(word, seen, dead);
    match reaped {
        Ok(None) => {}
        Ok(Some(Reaped::Uncached)) => report.uncached += 1,
        Ok(Some(Reaped::Held)) => report.shared += 1,
        Ok(Some(Reaped::Orphaned)) => report.orphaned += 1,
        Ok(Some(Reaped::Freed)) => {
            report.freed += 1;
            inner.emit(EventKind::BlockFree, number);
        }
        Err(_) => report.corrupt += 1,
    }
    matches!(reaped, Ok(Some(Reaped::Uncached | Reaped::Freed)))
}

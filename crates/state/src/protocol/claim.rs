//! Owning slots and lines, and taking back what the dead owned.

use super::{Words, World, multi::resolve};
use crate::{
    limits::RECORDS_PER_LEASE,
    word::{Id, Meaning, NOTHING, Phase, Plain, Status, VERSION_NEVER, Word},
};
use mainstay_shm::{Atomic64, hook};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// Gets a slot that nobody owns, reads or refers to; looks at `hint` first. None when all are in
/// use by the living.
#[inline(always)]
pub(crate) fn claim<W: World>(world: &W, state: &W::State, me: Id, hint: u32) -> Option<u32> {
    // At first nobody is asked who is alive: that costs a system call.
    let slots = state.slots();
    let mut slot = if hint < slots { hint } else { 0 };
    for _ in 0..slots {
        let owner = state.owner(slot);
        // SeqCst: comes before the looks below, see S1.
        if owner.load(Relaxed) == 0 && owner.compare_exchange(0, me.0, SeqCst, Relaxed).is_ok() {
            if is_unused(state, slot, |_| false) {
                open_for_writing(state, slot, VERSION_NEVER);
                return Some(slot);
            }
            owner.store(0, Release);
        }
        slot = if slot + 1 < slots { slot + 1 } else { 0 };
    }
    claim_of_the_dead(world, state, me)
}

/// Whether the caller may write a slot again, for the version after `base`, that it has owned all the
/// time since it was published: nobody refers to it any more, and nobody reads it. Then the slot says
/// that version. False also when `base`, which is in another slot, is not current any more.
///
/// Costs no exchange: nobody else can publish a slot that the caller owns, so a word that was seen
/// to have left it stays away, and the looks are in the order that S1 wants. What is looked at is
/// only compared, so nothing that follows has to wait for it.
#[inline(always)]
pub(crate) fn reopen<S: Words>(state: &S, slot: u32, base: Plain) -> bool {
    debug_assert_ne!(slot, base.slot(), "S1: what is current is not written");
    let may = state.current().load(SeqCst) == base.bits() && is_unpinned(state, slot, |_| false);
    if may {
        open_for_writing(state, slot, base.version() + 1);
    }
    may
}

#[cold]
fn claim_of_the_dead<W: World>(world: &W, state: &W::State, me: Id) -> Option<u32> {
    settle(world, state);
    (0..state.slots()).find(|slot| {
        let owner = state.owner(*slot);
        let seen = Id(owner.load(Relaxed));
        if seen != Id::NOBODY {
            if !world.is_dead(seen) {
                return false;
            }
            // A helper could still complete what the dead had begun, and publish this slot while
            // it is being written.
            if !hook::planted("claims-before-records") {
                end_records(world, seen.lease());
            }
        }
        if owner.compare_exchange(seen.0, me.0, SeqCst, Relaxed).is_err() {
            return false;
        }
        if !is_unused(state, *slot, |keeper| world.is_dead(keeper)) {
            owner.store(0, Release);
            return false;
        }
        open_for_writing(state, *slot, VERSION_NEVER);
        if seen != Id::NOBODY {
            world.scavenged();
        }
        true
    })
}

/// Between the last look at a claimed slot and the first store into it: the slot no longer says the
/// version that it had (S8), but none, or the one it is about to get. Pairs with the fences in
/// `is_still` and `is_whole`: who reads without a pin and gets a byte of the new version sees that the
/// word has left the slot, and what the slot says.
#[inline(always)]
fn open_for_writing<S: Words>(state: &S, slot: u32, says: u64) {
    if !hook::planted("write-unsaid") {
        state.version(slot).store(says, Relaxed);
    }
    S::fence(Release);
}

/// Turns a reference that a dead committer has left into the plain word it stands for: until then
/// it keeps two slots from being used, and where no other is free nobody could commit any more.
fn settle<W: World>(world: &W, state: &W::State) {
    if let Meaning::Reference(reference) = Word(state.current().load(SeqCst)).meaning() {
        resolve(world, state, reference);
    }
}

/// Whether nothing refers to a slot that the caller owns: so nothing will, until it is published.
#[inline(always)]
fn is_unused<S: Words>(state: &S, slot: u32, is_dead: impl FnMut(Id) -> bool) -> bool {
    if hook::planted("claim-without-recheck") {
        return true;
    }
    match Word(state.current().load(SeqCst)).meaning() {
        Meaning::Plain(plain) if plain.slot() == slot => return false,
        Meaning::Reference(reference) => {
            let base = reference.base() == slot && !hook::planted("claim-forgets-base");
            let new = reference.new_slot() == slot && !hook::planted("claim-forgets-new");
            if base || new {
                return false;
            }
        }
        _ => {}
    }
    is_unpinned(state, slot, is_dead)
}

/// Whether nobody reads a slot that the caller owns and that the word was seen to have left.
#[inline(always)]
fn is_unpinned<S: Words>(state: &S, slot: u32, mut is_dead: impl FnMut(Id) -> bool) -> bool {
    if hook::planted("claim-ignores-pins") {
        return true;
    }
    (0..state.lines()).all(|line| {
        if state.announced(line).load(SeqCst) & 0xFF != u64::from(slot) {
            return true;
        }
        // After the announcement: if the line has a new keeper since, then what was read was the
        // old one's, and the new one will look at the word and find another slot there.
        let keeper = Id(state.keeper(line).load(Acquire));
        keeper == Id::NOBODY || is_dead(keeper)
    })
}

/// Gets a line of the pin table: the first that nobody living keeps. `raise` says that this many
/// lines are used from now on.
pub(crate) fn take_line<W: World>(
    world: &W,
    state: &W::State,
    me: Id,
    lines_max: u32,
    raise: impl Fn(u32),
) -> Option<u32> {
    let take = |line: u32, seen: Id| {
        // Before it is taken: whoever looks at the lines, and for what the dead have kept, must
        // look at this one.
        raise(line + 1);
        let keeper = state.keeper(line);
        if keeper.compare_exchange(seen.0, me.0, SeqCst, Relaxed).is_err() {
            return false;
        }
        state.announced(line).store(NOTHING, SeqCst);
        true
    };
    let keeper = |line: u32| Id(state.keeper(line).load(Acquire));
    let free = (0..lines_max).find(|line| keeper(*line) == Id::NOBODY && take(*line, Id::NOBODY));
    free.or_else(|| {
        (0..lines_max).find(|line| {
            let seen = keeper(*line);
            (seen == Id::NOBODY || world.is_dead(seen)) && take(*line, seen)
        })
    })
}

/// What was taken back from the dead.
///
/// Example: see [`State::scavenge`](crate::State::scavenge).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Scavenged {
    /// Slots they were writing.
    pub claims: u32,
    /// Versions they were reading.
    pub pins: u32,
    /// Handles they had.
    pub handles: u32,
}

/// Frees all slots and lines that the dead own.
pub(crate) fn scavenge<W: World>(world: &W, state: &W::State) -> Scavenged {
    let mut done = Scavenged::default();
    for slot in 0..state.slots() {
        let owner = state.owner(slot);
        let seen = Id(owner.load(Relaxed));
        if seen != Id::NOBODY && world.is_dead(seen) {
            end_records(world, seen.lease());
            done.claims += u32::from(owner.compare_exchange(seen.0, 0, AcqRel, Relaxed).is_ok());
        }
    }
    settle(world, state);
    for line in 0..state.lines() {
        let keeper = state.keeper(line);
        let seen = Id(keeper.load(Acquire));
        if seen != Id::NOBODY && world.is_dead(seen) {
            let pinned = state.announced(line).load(Relaxed) != NOTHING;
            // What the line announces stays: to clear it could clear what its next keeper pins.
            // A line without a keeper pins nothing.
            if keeper.compare_exchange(seen.0, 0, AcqRel, Relaxed).is_ok() {
                done.handles += 1;
                done.pins += u32::from(pinned);
            }
        }
    }
    done
}

/// Ends the undecided records of a lease whose tenant is dead. If the lease has a new tenant
/// already, that one's records may be hit: it tries again, so nothing is lost.
pub(crate) fn end_records<W: World>(world: &W, lease: u32) {
    let first = lease * RECORDS_PER_LEASE;
    let mut ended = 0;
    for record in first..first + RECORDS_PER_LEASE {
        let status = world.status(record);
        let seen = Status(status.load(Acquire));
        if seen.phase() == Phase::Undecided {
            let aborted = Status::new(seen.sequence(), Phase::Aborted);
            ended += u32::from(status.compare_exchange(seen.0, aborted.0, SeqCst, Relaxed).is_ok());
        }
    }
    world.ended(ended);
}

//! Reading: which version is current, and keeping its slot from being reused.

use super::{Words, World};
use crate::{
    limits::ROUNDS_MAX,
    word::{Meaning, NOTHING, Phase, Plain, Reference, Status, VERSION_NEVER, Word},
};
use mainstay_shm::{Atomic64, hook};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// Why there is nothing to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The state was deleted.
    Deleted,
    /// The word names a slot that cannot exist.
    Garbage(u64),
    /// The word changed [`ROUNDS_MAX`] times during one read.
    Restless,
}

/// Announces the current version in a line of the caller's own, which pins its slot: until the
/// line says [`NOTHING`] again, nobody writes there (S1).
///
/// Repeats only when a commit came between two looks.
pub(crate) fn pin<W: World>(world: &W, state: &W::State, line: &W::Word) -> Result<Plain, Fault> {
    if let Some(plain) = pin_at_once(state.current(), line) {
        return Ok(plain);
    }
    let mut seen = Word(state.current().load(Acquire));
    for _ in 0..ROUNDS_MAX {
        let plain = match logical(world, state, seen) {
            Ok(plain) => plain,
            Err(fault) => {
                line.store(NOTHING, Release);
                return Err(fault);
            }
        };
        // SeqCst, as the look after it: see S1. A writer that has not seen this line has published
        // another slot before we look, or had not yet owned this one.
        line.store(plain.bits(), SeqCst);
        if hook::planted("pin-without-recheck") {
            return Ok(plain);
        }
        if hook::planted("derive-without-recheck")
            && matches!(seen.meaning(), Meaning::Reference(_))
        {
            return Ok(plain);
        }
        let again = Word(state.current().load(SeqCst));
        if again == seen {
            return Ok(plain);
        }
        seen = again;
    }
    line.store(NOTHING, Release);
    Err(Fault::Restless)
}

/// The same where the word is a plain one and stays it; else the line may announce what is not
/// pinned, until it is stored to again.
#[inline(always)]
pub(crate) fn pin_at_once<A: Atomic64>(word: &A, line: &A) -> Option<Plain> {
    let plain = Plain::of(word.load(Acquire))?;
    // SeqCst, both: as in `pin`.
    line.store(plain.bits(), SeqCst);
    if hook::planted("pin-without-recheck") {
        return Some(plain);
    }
    (word.load(SeqCst) == plain.bits()).then_some(plain)
}

/// Whether the version of a state's word that was looked at without a pin was current all the time:
/// then nobody has written its slot meanwhile.
#[inline(always)]
pub(crate) fn is_still<S: Words>(word: &S::Word, plain: Plain) -> bool {
    // After everything that was read. Pairs with the fence in `claim`: who has read a byte of a
    // later version sees that the word has left the slot.
    S::fence(Acquire);
    word.load(Relaxed) == plain.bits()
}

/// Whether the slot of a version that was current, and was looked at without a pin, still has it: then
/// nobody has begun to write there meanwhile. The version may be current no longer.
#[inline(always)]
pub(crate) fn is_whole<S: Words>(state: &S, plain: Plain) -> bool {
    debug_assert_ne!(
        plain.version(),
        VERSION_NEVER,
        "that is what a slot says while it is written"
    );
    // After everything that was read. Pairs with the fence in `claim`: who has read a byte of a
    // later version sees what the slot has said before.
    S::fence(Acquire);
    state.version(plain.slot()).load(Relaxed) == plain.version()
}

/// The version that is current at one moment during the call.
#[inline(always)]
pub(crate) fn current<W: World>(world: &W, state: &W::State) -> Result<Plain, Fault> {
    let mut seen = Word(state.current().load(SeqCst));
    loop {
        let plain = logical(world, state, seen)?;
        if matches!(seen.meaning(), Meaning::Plain(_)) {
            return Ok(plain);
        }
        // A record that has moved on means the base only where its reference still stands: it may
        // have been committed, and resolved, between the two loads.
        let again = Word(state.current().load(SeqCst));
        if again == seen || hook::planted("current-without-recheck") {
            return Ok(plain);
        }
        seen = again;
    }
}

/// Which version and slot a word stands for. Of use only if the word is still the same afterwards.
#[inline(always)]
pub(crate) fn logical<W: World>(world: &W, state: &W::State, word: Word) -> Result<Plain, Fault> {
    match word.meaning() {
        Meaning::Plain(plain) => Ok(plain),
        Meaning::Reference(reference) => Ok(behind(world, state, reference)),
        Meaning::Deleted => Err(Fault::Deleted),
        Meaning::Garbage => Err(Fault::Garbage(word.0)),
    }
}

/// Which version and slot a reference stands for at this moment.
#[cold]
pub(crate) fn behind<W: World>(world: &W, state: &W::State, reference: Reference) -> Plain {
    // SeqCst: the read is as of this look, which must be in one order with those at other states.
    let status = Status(world.status(reference.record()).load(SeqCst));
    let slot = if means_new(status, reference) { reference.new_slot() } else { reference.base() };
    // Acquire: the version was written before the word that named the slot was published.
    Plain::new(state.version(slot).load(Acquire), slot)
}

/// Whether a record of this status makes the new slot the current one.
#[inline(always)]
pub(super) fn means_new(status: Status, reference: Reference) -> bool {
    if status.sequence() != reference.sequence() {
        // S6: the record has moved on.
        return hook::planted("stale-means-new");
    }
    status.phase() == Phase::Committed
}

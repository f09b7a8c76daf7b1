//! The steps on one owner word: who gets in, who leaves, what the dead lose.
//!
//! S1. Each function ends with at most one successful compare-and-swap (or, where the word is the
//!     caller's alone, one store). So a death leaves the word before the step or after it.
//! S2. Whoever gets in acquires what those who left had released: a successful exchange is
//!     `AcqRel`, a failed one `Acquire`, since its value is decided on.
//!
//! Generic over the atomics, so that the model checker runs this very code.

use crate::word::{Ask, Left, Reaped, Word};
use mainstay_shm::{Atomic64, hook};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// How an attach ended.
pub(crate) enum Entered {
    /// This process holds the block now; the word as it is.
    First(Word),
    /// This process held it before: go through its private table.
    Already,
}

/// How leaving ended.
pub(crate) enum Gone {
    /// The guard is given up.
    Left(Left),
    /// There may be more guards in this process: go through its private table.
    Multi,
    /// Somebody wrote garbage there: nothing is ours to give up any more.
    Garbage,
}

/// Makes a block that the caller has cached seen by others.
#[inline(always)]
pub(crate) fn publish(word: &impl Atomic64, live: Word) {
    // Nobody else may change the word before (W2), so a plain store. Release: whoever attaches
    // sees header and zeros.
    word.store(live.0, Release);
}

/// Takes a reference for `slot`, if `allowed` says so of the very word that is exchanged.
#[inline(always)]
pub(crate) fn attach<E>(
    word: &impl Atomic64,
    slot: u32,
    mut allowed: impl FnMut(Word) -> Result<(), E>,
) -> Result<Entered, E> {
    let mut seen = Word(word.load(Acquire));
    loop {
        allowed(seen)?;
        if seen.is_owned_by(slot) {
            return Ok(Entered::Already);
        }
        let next = seen.attached(slot);
        match word.compare_exchange(seen.0, next.0, AcqRel, Acquire) {
            Ok(_) => return Ok(Entered::First(next)),
            Err(found) => seen = Word(found),
        }
    }
}

/// Takes a reference with the lock of the private table held. Returns the word as it is, and
/// whether the guard is one more than this process had.
pub(crate) fn attach_again<E>(
    word: &impl Atomic64,
    slot: u32,
    mut allowed: impl FnMut(Word) -> Result<(), E>,
) -> Result<(Word, bool), E> {
    loop {
        let seen = Word(word.load(Acquire));
        allowed(seen)?;
        let again = seen.is_owned_by(slot);
        let next = if again { seen.with_multi() } else { seen.attached(slot) };
        // With the lock held and `multi` set, nobody in this process can drop our bit.
        if next == seen || word.compare_exchange(seen.0, next.0, AcqRel, Acquire).is_ok() {
            return Ok((next, again));
        }
    }
}

/// Notes that `slot`, which holds the block, has more than one guard; the lock of the private
/// table is held.
///
/// # Errors
/// The word found, when it does not say that `slot` holds the block.
pub(crate) fn note_multi(word: &impl Atomic64, slot: u32) -> Result<Word, Word> {
    loop {
        let seen = Word(word.load(Acquire));
        if !seen.is_live() || !seen.is_owned_by(slot) {
            return Err(seen);
        }
        let next = seen.with_multi();
        if next == seen || word.compare_exchange(seen.0, next.0, AcqRel, Acquire).is_ok() {
            return Ok(next);
        }
    }
}

/// Gives up the guard of `slot`. `guess` is the word as the guard remembers it: usually right.
#[inline(always)]
pub(crate) fn leave(word: &impl Atomic64, guess: Word, slot: u32, ask: Ask) -> Gone {
    let mut seen = guess;
    loop {
        if seen.is_multi() {
            return Gone::Multi;
        }
        let (next, left) = seen.left(slot, ask);
        if hook::planted("release-by-store") {
            let (next, left) = Word(word.load(Acquire)).left(slot, ask);
            word.store(next.0, Release);
            return Gone::Left(left);
        }
        // AcqRel: the last owner may let the block be cleared, and must see the writes of all who
        // left before.
        match word.compare_exchange(seen.0, next.0, AcqRel, Acquire) {
            Ok(_) => return Gone::Left(left),
            Err(found) if Word(found).is_owned_by(slot) && Word(found).is_live() => {
                seen = Word(found);
            }
            Err(_) => return Gone::Garbage,
        }
    }
}

/// Gives up a guard with the lock of the private table held; `more` says whether that table has
/// further ones. None when somebody wrote garbage there.
pub(crate) fn leave_multi(word: &impl Atomic64, slot: u32, ask: Ask, more: bool) -> Option<Left> {
    loop {
        let seen = Word(word.load(Acquire));
        if !seen.is_owned_by(slot) || !seen.is_live() {
            return None;
        }
        let (next, left) = match (more, ask) {
            (true, Ask::Free) => (seen.with_doomed(), Left::Held),
            (true, Ask::Park) => (seen, Left::Held),
            (false, ask) => seen.left(slot, ask),
        };
        if next == seen || word.compare_exchange(seen.0, next.0, AcqRel, Acquire).is_ok() {
            return Some(left);
        }
    }
}

/// Takes the slots in `dead` out of the word, last seen as `seen`; says what that did, if they were in it.
///
/// # Errors
/// The word found, when it names the dead and is corrupt: it is left as it is.
#[inline(always)]
pub(crate) fn reap(
    word: &impl Atomic64,
    mut seen: Word,
    dead: u32,
) -> Result<Option<Reaped>, Word> {
    loop {
        let Some((next, reaped)) = seen.reaped(dead) else {
            return if seen.owners() & dead == 0 { Ok(None) } else { Err(seen) };
        };
        if reaped == Reaped::Uncached && hook::planted("reap-skips-cached") {
            return Ok(None);
        }
        let (next, reaped) = match reaped {
            Reaped::Orphaned if hook::planted("reap-frees-orphans") => {
                (seen.freed_next_tag(), Reaped::Freed)
            }
            Reaped::Freed if hook::planted("reap-orphans-all") => {
                (seen.orphaned(), Reaped::Orphaned)
            }
            as_it_is => (next, as_it_is),
        };
        match word.compare_exchange(seen.0, next.0, AcqRel, Acquire) {
            Ok(_) => return Ok(Some(reaped)),
            Err(found) => seen = Word(found),
        }
    }
}

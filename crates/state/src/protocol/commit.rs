//! Commit of one state.

use super::{Words, World, multi::meet, pin::logical};
use crate::{
    limits::PATIENCE,
    word::{Meaning, Plain, Word},
};
use mainstay_shm::{Atomic64, hook};
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};

/// How a commit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The new version is visible.
    Committed,
    /// Somebody else has committed since the transaction began.
    Conflict,
    /// The state was deleted.
    Deleted,
    /// The word names a slot that cannot exist.
    Garbage(u64),
}

/// Publishes what the caller has written into `slot`, which it owns, as the version after `base`.
/// The version of the slot must stand in its line already.
#[inline(always)]
pub(crate) fn commit<W: World>(world: &W, state: &W::State, base: Plain, slot: u32) -> Outcome {
    let new = Plain::new(base.version() + 1, slot);
    match swap(state.current(), base, new) {
        Ok(()) => {
            world.changed(state);
            Outcome::Committed
        }
        Err(found) => commit_after(world, state, base, new, found),
    }
}

/// The step itself: `new` if the word is still `base`. Whoever has done it has to tell the
/// [`World`] that the state has changed.
#[inline(always)]
pub(crate) fn swap<A: Atomic64>(word: &A, base: Plain, new: Plain) -> Result<(), Word> {
    if hook::planted("commit-by-store") {
        word.store(new.bits(), Release);
        return Ok(());
    }
    // SeqCst: publishes data and version (as Release would), and comes before the look whether
    // anybody waits (in `changed`).
    word.compare_exchange(base.bits(), new.bits(), SeqCst, Acquire).map(drop).map_err(Word)
}

#[cold]
fn commit_after<W: World>(
    world: &W,
    state: &W::State,
    base: Plain,
    new: Plain,
    mut found: Word,
) -> Outcome {
    let mut patience = PATIENCE;
    loop {
        match found.meaning() {
            Meaning::Plain(_) => return Outcome::Conflict,
            Meaning::Deleted => return Outcome::Deleted,
            Meaning::Garbage => return Outcome::Garbage(found.0),
            Meaning::Reference(reference) => {
                // A later version is there for good, whoever finishes it.
                let is_later = logical(world, state, found).is_ok_and(|plain| plain != base);
                if is_later && state.current().load(SeqCst) == found.0 {
                    return Outcome::Conflict;
                }
                meet(world, state, reference, &mut patience);
            }
        }
        match swap(state.current(), base, new) {
            Ok(()) => {
                world.changed(state);
                return Outcome::Committed;
            }
            Err(next) => found = next,
        }
    }
}

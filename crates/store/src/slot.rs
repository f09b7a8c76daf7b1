//! How the writer of a slot and those who read it come to one view of its sequence, over any words: the
//! steps that run in memory run in a model checker as well.
//!
//! The writer opens a slot that no entry names, writes key, value and checksum, and closes it with the
//! sequence of the write; then it turns an entry to it, and empties the one that was named before. A
//! reader follows an entry, begins with the sequence, copies, and believes it if the sequence is the
//! same afterwards and the entry too.

use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};

use mainstay_shm::Atomic64;

/// From here on the slot is being filled.
#[inline(always)]
#[track_caller]
pub(crate) fn open(sequence: &impl Atomic64, fence: impl FnOnce(Ordering)) {
    sequence.store(0, Relaxed);
    // Who sees something of what is written next sees this too, behind the fence of `is_same`.
    fence(Release);
}

/// The slot has what the write of this sequence made.
#[inline(always)]
#[track_caller]
pub(crate) fn close(sequence: &impl Atomic64, made_by: u64) {
    sequence.store(made_by, Release);
}

/// Nothing is in the slot any more; no entry names it.
#[inline(always)]
#[track_caller]
pub(crate) fn clear(sequence: &impl Atomic64) {
    if sequence.load(Relaxed) != 0 {
        sequence.store(0, Release);
    }
}

/// Which write made what is in the slot, before it is copied; 0: nothing is.
#[inline(always)]
pub(crate) fn begin(sequence: &impl Atomic64) -> u64 {
    sequence.load(Acquire)
}

/// After it was copied: is it still of that write?
#[inline(always)]
pub(crate) fn is_same(sequence: &impl Atomic64, before: u64, fence: impl FnOnce(Ordering)) -> bool {
    fence(Acquire);
    sequence.load(Relaxed) == before
}

#[cfg(test)]
mod model;

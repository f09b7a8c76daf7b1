//! Finding free blocks: a bitmap of hints over the owner words.
//!
//! F1. A hint that says "free" may be wrong: the claim is the compare-and-swap on the word. When
//!     it fails, the hint is dropped.
//! F2. A hint that wrongly says "taken" can only come from a death: both sides of a race between
//!     the living go through one bitmap word, and giving back stores the word first, the hint
//!     second. A reaper repairs all such hints.
//! F3. So no order between bitmap and words has to survive a crash, and nothing here needs one.
//!
//! Generic over the atomics, so that the model checker runs this very code.

use crate::word::Word;
use mainstay_shm::{Atomic64, hook};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Blocks a bitmap word speaks for.
pub(crate) const GROUP: usize = 64;

/// Claims up to 32 blocks of one group for `slot` and hands their places in it to `take`.
/// `words` are the group's owner words: 64, or fewer in a small extent.
pub(crate) fn claim<A: Atomic64>(hints: &A, words: &[A], slot: u32, mut take: impl FnMut(usize)) {
    let existing = if words.len() >= GROUP { u64::MAX } else { (1 << words.len()) - 1 };
    let free = !hints.load(Relaxed) & existing;
    if free == 0 {
        return;
    }
    // Half a group at a time: four whole cache lines of words, so that two threads that start on
    // different halves do not share one.
    let wanted = match free.count_ones() {
        0..=32 => free,
        _ if free & 0xFFFF_FFFF != 0 => free & 0xFFFF_FFFF,
        _ => free,
    };
    // Acquire: pairs with the release in `give_back`, so that the free word is seen.
    let mut won = wanted & !hints.fetch_or(wanted, Acquire);
    while won != 0 {
        let place = won.trailing_zeros() as usize;
        won &= won - 1;
        let seen = Word(words[place].load(Relaxed));
        let claimed = seen.is_free()
            && words[place].compare_exchange(seen.0, seen.cached(slot).0, AcqRel, Relaxed).is_ok();
        if claimed || hook::planted("claim-unchecked") {
            take(place);
        }
    }
}

/// Gives the blocks at `places` of one group, all cached by the caller, back to everybody.
pub(crate) fn give_back<A: Atomic64>(hints: &A, words: &[A], places: u64) {
    let clear = || {
        hints.fetch_and(!places, AcqRel);
    };
    if hook::planted("hint-before-word") {
        clear();
    }
    let mut rest = places;
    while rest != 0 {
        let place = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        // Nobody else may change a word that a living process caches (W2), so a plain store.
        // Release: what was done to the block happened before.
        let cached = Word(words[place].load(Relaxed));
        words[place].store(cached.freed_same_tag().0, Release);
    }
    if !hook::planted("hint-before-word") {
        clear();
    }
}

/// Clears the hints that say "taken" of words that are free; returns how many.
pub(crate) fn repair_hints<A: Atomic64>(hints: &A, words: &[A]) -> u32 {
    let mut wrong = 0;
    let taken = hints.load(Acquire);
    for (place, word) in words.iter().enumerate().take(GROUP) {
        if taken & 1 << place != 0 && Word(word.load(Relaxed)).is_free() {
            wrong |= 1 << place;
        }
    }
    if wrong == 0 || hook::planted("no-hint-repair") {
        return 0;
    }
    // A living claimer may be between its hint and its word: then the hint will say "free" of a
    // claimed block, which is harmless (F1).
    hints.fetch_and(!wrong, AcqRel);
    wrong.count_ones()
}

//! The owner word of a block: the only truth about it.
//!
//! | bits | field | meaning |
//! |---|---|---|
//! | 0-31 | owners | one bit a process slot |
//! | 32-33 | kind | 0 not live, 1 recoverable, 2 transient, 3 orphan (recoverable, last owner died) |
//! | 34 | multi | some process may hold more than one guard: leave through its private table |
//! | 35 | doomed | a holder asked to free it: no new holder, and the last one frees it |
//! | 36 | exclusive | one holder at a time: see `PoolBox` |
//! | 37-63 | tag | +1 whenever the block is freed |
//!
//! W1. Every decision depends on one word alone and is taken by one compare-and-swap on it. An
//!     equal word is the same state, so there is no ABA harm among the decisions themselves.
//! W2. A word that is not live is changed only by its one owner, or by a reaper of that owner.
//! W3. The tag changes between any two lives of a block.

use mainstay_shm::hook;
use std::fmt;

const KIND_SHIFT: u32 = 32;
const MULTI: u64 = 1 << 34;
const DOOMED: u64 = 1 << 35;
const EXCLUSIVE: u64 = 1 << 36;
const TAG_SHIFT: u32 = 37;
/// How many bits a tag has.
pub(crate) const TAG_BITS: u32 = 64 - TAG_SHIFT;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;

/// What becomes of a block when its last holder is gone.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let kept = pool.allocate(Kind::Recoverable)?.id();
/// let lost = pool.allocate(Kind::Transient)?.id();
/// assert!(pool.attach(kept).is_ok());
/// assert!(pool.attach(lost).is_err());
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// It stays, until somebody frees it: found again by number, UUID or recovery.
    Recoverable,
    /// It is freed, also when the holder died.
    Transient,
}

/// What a holder asks for when it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// Free it; if others hold it, the last of them will.
    Free,
    /// Keep it if it is recoverable.
    Park,
}

/// What leaving did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Others still hold the block.
    Held,
    /// Nobody holds it; it is kept.
    Parked,
    /// It is free, and cached by the slot that left.
    Freed,
}

/// What reaping did to one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reaped {
    /// It was cached by the dead: now free.
    Uncached,
    /// The living still hold it.
    Held,
    /// Transient or doomed: now free.
    Freed,
    /// Recoverable: now an orphan.
    Orphaned,
}

/// The states of a block, as read from its word.
///
/// Example: see [`crate::Pool::blocks`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum State {
    /// Free for anybody.
    Free,
    /// Free, and kept at hand by one process.
    Cached,
    /// Held by one process or more.
    Held,
    /// Recoverable, nobody holds it.
    Parked,
    /// Recoverable, and its last holder died: what recovery offers.
    Orphan,
    /// Something no sequence of steps leads to.
    Corrupt,
}

/// An owner word, as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    pub(crate) fn owners(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn tag(self) -> u64 {
        self.0 >> TAG_SHIFT
    }

    fn kind_bits(self) -> u64 {
        self.0 >> KIND_SHIFT & 3
    }

    /// Recoverable or transient; none when it is not live.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self.kind_bits() {
            0 => None,
            2 => Some(Kind::Transient),
            _ => Some(Kind::Recoverable),
        }
    }

    pub(crate) fn is_live(self) -> bool {
        self.kind_bits() != 0
    }

    pub(crate) fn is_free(self) -> bool {
        self.kind_bits() == 0 && self.owners() == 0
    }

    pub(crate) fn is_orphan(self) -> bool {
        self.kind_bits() == 3
    }

    pub(crate) fn is_multi(self) -> bool {
        self.0 & MULTI != 0
    }

    pub(crate) fn is_doomed(self) -> bool {
        self.0 & DOOMED != 0
    }

    pub(crate) fn is_exclusive(self) -> bool {
        self.0 & EXCLUSIVE != 0
    }

    pub(crate) fn is_owned_by(self, slot: u32) -> bool {
        self.0 & bit(slot) != 0
    }

    pub(crate) fn is_cached_by(self, slot: u32) -> bool {
        self.kind_bits() == 0 && u64::from(self.owners()) == bit(slot)
    }

    pub(crate) fn state(self) -> State {
        let plain = self.0 & (MULTI | DOOMED) == 0;
        let one_owner = self.owners().is_power_of_two();
        match (self.kind_bits(), self.owners()) {
            (0, 0) if plain && !self.is_exclusive() => State::Free,
            (0, _) if plain && !self.is_exclusive() && one_owner => State::Cached,
            (1, 0) if plain => State::Parked,
            (3, 0) if plain => State::Orphan,
            (1 | 2, 1..) if one_owner || !self.is_exclusive() => State::Held,
            _ => State::Corrupt,
        }
    }

    /// Free, of the same tag: the order `free -> cached` and back does not end a life.
    pub(crate) fn freed_same_tag(self) -> Self {
        Self(self.tag() << TAG_SHIFT)
    }

    /// Cached by `slot`, of the same tag.
    pub(crate) fn cached(self, slot: u32) -> Self {
        Self(self.tag() << TAG_SHIFT | bit(slot))
    }

    /// Live, held by `slot` alone, which has it cached.
    #[inline(always)]
    pub(crate) fn published(self, kind: Kind, exclusive: bool, slot: u32) -> Self {
        debug_assert!(self.is_cached_by(slot), "W2: only its owner publishes");
        let kind = match kind {
            Kind::Recoverable => 1,
            Kind::Transient => 2,
        };
        let exclusive = if exclusive { EXCLUSIVE } else { 0 };
        Self(self.0 | kind << KIND_SHIFT | exclusive)
    }

    /// Live and recoverable, held by nobody.
    pub(crate) fn parked(self, exclusive: bool) -> Self {
        let exclusive = if exclusive { EXCLUSIVE } else { 0 };
        Self(self.tag() << TAG_SHIFT | 1 << KIND_SHIFT | exclusive)
    }

    /// With `slot` among the owners; an orphan is one no longer.
    pub(crate) fn attached(self, slot: u32) -> Self {
        let orphan_to_recoverable = if self.is_orphan() { 2 << KIND_SHIFT } else { 0 };
        Self((self.0 & !orphan_to_recoverable) | bit(slot))
    }

    pub(crate) fn with_multi(self) -> Self {
        Self(self.0 | MULTI)
    }

    pub(crate) fn with_doomed(self) -> Self {
        Self(self.0 | DOOMED)
    }

    /// Without the last guard of `slot`. One step decides whether the block is freed, so a release
    /// and an attach can never both win.
    pub(crate) fn left(self, slot: u32, ask: Ask) -> (Self, Left) {
        if u64::from(self.owners()) & !bit(slot) != 0 {
            let rest = Self(self.0 & !bit(slot));
            let rest = if ask == Ask::Free { rest.with_doomed() } else { rest };
            return (rest, Left::Held);
        }
        if ask == Ask::Free || self.is_doomed() || self.kind_bits() == 2 {
            (Self(self.next_tag() << TAG_SHIFT | bit(slot)), Left::Freed)
        } else {
            (self.parked(self.is_exclusive()), Left::Parked)
        }
    }

    /// Without the slots in `dead`; none when they do not own it, or the word is corrupt.
    #[inline(always)]
    pub(crate) fn reaped(self, dead: u32) -> Option<(Self, Reaped)> {
        if self.owners() & dead == 0 || self.state() == State::Corrupt {
            return None;
        }
        if self.kind_bits() == 0 {
            return Some((self.freed_same_tag(), Reaped::Uncached));
        }
        if self.owners() & !dead != 0 {
            return Some((Self(self.0 & !u64::from(dead)), Reaped::Held));
        }
        if self.kind_bits() == 2 || self.is_doomed() {
            return Some((Self(self.next_tag() << TAG_SHIFT), Reaped::Freed));
        }
        Some((self.orphaned(), Reaped::Orphaned))
    }

    /// Recoverable, and offered by recovery.
    pub(crate) fn orphaned(self) -> Self {
        Self(self.0 & EXCLUSIVE | self.tag() << TAG_SHIFT | 3 << KIND_SHIFT)
    }

    /// An orphan of this tag: for a pool that is made anew.
    pub(crate) fn orphan_of(tag: u64, exclusive: bool) -> Self {
        Self(tag << TAG_SHIFT | if exclusive { EXCLUSIVE } else { 0 }).orphaned()
    }

    /// Free, after the life of this generation: for a pool that is made anew.
    pub(crate) fn free_after(generation: u64) -> Self {
        Self((generation & TAG_MASK) << TAG_SHIFT).freed_next_tag()
    }

    /// Free, in its next life: for repair.
    pub(crate) fn freed_next_tag(self) -> Self {
        Self(self.next_tag() << TAG_SHIFT)
    }

    fn next_tag(self) -> u64 {
        if hook::planted("tag-stays") {
            return self.tag();
        }
        (self.tag() + 1) & TAG_MASK
    }

    /// The upper half: what a guard remembers of a block it holds.
    #[inline(always)]
    pub(crate) fn remember(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The word as it is if `slot` is its only owner and nothing happened since.
    #[inline(always)]
    pub(crate) fn guess(remembered: u32, slot: u32) -> Self {
        Self(u64::from(remembered) << 32 | bit(slot))
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} owners {:#x} tag {}", self.state(), self.owners(), self.tag())?;
        let flags = [
            (self.is_multi(), " multi"),
            (self.is_doomed(), " doomed"),
            (self.is_exclusive(), " exclusive"),
        ];
        flags.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| f.write_str(name))
    }
}

/// The generation of a block that is published with `tag`, when its last one was `last`: the next
/// number whose low bits are the tag. Exact as long as fewer than 2^27 frees lie between two
/// publications, and each free needs a publication.
pub(crate) fn next_generation(last: u64, tag: u64) -> u64 {
    last.wrapping_add(tag.wrapping_sub(last) & TAG_MASK)
}

/// The tag that goes with a generation.
pub(crate) fn tag_of(generation: u64) -> u64 {
    generation & TAG_MASK
}

fn bit(slot: u32) -> u64 {
    1 << slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEW: Word = Word(0);

    #[test]
    fn a_fresh_page_of_zeros_is_a_page_of_free_blocks() {
        assert_eq!(NEW.state(), State::Free);
        assert_eq!(NEW.tag(), 0);
    }

    #[test]
    fn w3_every_way_to_free_a_block_changes_its_tag() {
        let held = NEW.cached(3).published(Kind::Recoverable, false, 3);
        let (freed, left) = held.left(3, Ask::Free);
        assert_eq!((left, freed.tag(), freed.state()), (Left::Freed, 1, State::Cached));
        let transient = NEW.cached(3).published(Kind::Transient, false, 3);
        assert_eq!(transient.left(3, Ask::Park).0.tag(), 1);
        assert_eq!(transient.reaped(1 << 3).unwrap().0.tag(), 1);
    }

    #[test]
    fn a_free_asked_for_while_others_hold_happens_when_the_last_leaves() {
        let both = NEW.cached(0).published(Kind::Recoverable, false, 0).attached(1);
        let (one, left) = both.left(0, Ask::Free);
        assert_eq!(left, Left::Held);
        assert!(one.is_doomed());
        assert_eq!(one.left(1, Ask::Park).1, Left::Freed);
        assert_eq!(one.reaped(2).unwrap().1, Reaped::Freed);
    }

    #[test]
    fn a_recoverable_block_becomes_an_orphan_and_the_first_attach_ends_that() {
        let held = NEW.cached(5).published(Kind::Recoverable, false, 5);
        let (orphan, reaped) = held.reaped(1 << 5).unwrap();
        assert_eq!((reaped, orphan.state()), (Reaped::Orphaned, State::Orphan));
        let kept = orphan.attached(6);
        assert_eq!(kept, NEW.cached(6).published(Kind::Recoverable, false, 6));
        assert_eq!(kept.left(6, Ask::Park).0.state(), State::Parked);
    }

    #[test]
    fn impossible_words_are_corrupt_and_never_reaped() {
        let (parked, orphan) = (1 << KIND_SHIFT, 3 << KIND_SHIFT);
        let flagged = [MULTI, DOOMED, parked | MULTI, parked | DOOMED, orphan | MULTI];
        for word in [0b11, 2 << KIND_SHIFT, orphan | 1].into_iter().chain(flagged) {
            assert_eq!(Word(word).state(), State::Corrupt, "{word:#x}");
            assert_eq!(Word(word).reaped(u32::MAX), None);
        }
    }

    #[test]
    fn the_tag_goes_round_and_the_generation_goes_on() {
        let last = Word(TAG_MASK << TAG_SHIFT).cached(0).published(Kind::Transient, false, 0);
        assert_eq!(last.left(0, Ask::Free).0.tag(), 0);
        assert_eq!(next_generation(TAG_MASK, 0), TAG_MASK + 1);
        assert_eq!(next_generation(7, 7), 7);
        assert_eq!(next_generation(0, 1), 1);
    }

    proptest! {
        #[test]
        fn a_guess_is_right_for_a_sole_holder(tag in 0..=TAG_MASK, slot in 0_u32..32, t: bool) {
            let kind = if t { Kind::Transient } else { Kind::Recoverable };
            let word = Word(tag << TAG_SHIFT).cached(slot).published(kind, false, slot);
            prop_assert_eq!(Word::guess(word.remember(), slot), word);
        }

        #[test]
        fn no_transition_from_a_sane_word_leads_to_a_corrupt_one(raw: u64, slot in 0_u32..32) {
            let word = Word(raw);
            prop_assume!(word.state() != State::Corrupt);
            let free_for_all = !word.is_exclusive() || word.owners() == 0;
            if word.is_live() && !word.is_doomed() && free_for_all {
                prop_assert_ne!(word.attached(slot).state(), State::Corrupt);
            }
            if word.is_live() && word.is_owned_by(slot) {
                for ask in [Ask::Free, Ask::Park] {
                    prop_assert_ne!(word.left(slot, ask).0.state(), State::Corrupt);
                }
            }
            if let Some((next, _)) = word.reaped(1 << slot) {
                prop_assert_ne!(next.state(), State::Corrupt);
                prop_assert!(!next.is_owned_by(slot));
            }
        }

        #[test]
        fn generations_follow_tags(last: u64, frees in 0_u64..1_000) {
            let tag = tag_of(last.wrapping_add(frees));
            prop_assert_eq!(next_generation(last, tag), last.wrapping_add(frees));
        }
    }
}

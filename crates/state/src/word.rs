//! The word of a state, and the status of a record, as values.
//!
//! W1. Every 64-bit pattern is one of three: a version and its slot, a reference into a record,
//!     or "deleted". Numbers taken out of a word are in the range of their bits; whether there is
//!     such a slot is checked where it becomes an address.
//! W2. A plain word never comes back once a later version was committed: the version grows by one
//!     with each. That is what every compare-and-swap on the word relies on.

/// The version of a state that was never written.
pub(crate) const VERSION_NEVER: u64 = 0;
/// Versions have 55 bits: at 14 million commits a second they last for 80 years.
pub(crate) const VERSION_MAX: u64 = (1 << 55) - 1;
/// What a pin line announces when nothing is pinned: no slot has this number.
pub(crate) const NOTHING: u64 = 0xFF;

const REFERENCE: u64 = 1 << 63;
const SLOT_DELETED: u64 = 0xFE;
const SEQUENCE_MASK: u64 = (1 << 40) - 1;
const SLOT_MASK: u64 = 63;
const RECORD_MASK: u64 = (1 << 11) - 1;

/// The word of a state as it stands in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word(pub(crate) u64);

/// What a word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    /// This version, in this slot.
    Plain(Plain),
    /// What the record says.
    Reference(Reference),
    /// The state is no more.
    Deleted,
    /// No such slot can exist.
    Garbage,
}

/// A version and the slot it is in.
///
/// | bits | field |
/// |---|---|
/// | 0-7 | slot |
/// | 8-62 | version |
/// | 63 | 0 |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plain(u64);

/// A word that stands for one of two slots, depending on the status of a record.
///
/// | bits | field |
/// |---|---|
/// | 0-39 | sequence |
/// | 40-50 | record |
/// | 51-56 | new slot |
/// | 57-62 | base slot |
/// | 63 | 1 |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reference(u64);

impl Word {
    #[inline(always)]
    pub(crate) fn meaning(self) -> Meaning {
        if self.0 & REFERENCE != 0 {
            return Meaning::Reference(Reference(self.0));
        }
        match self.0 & 0xFF {
            0..=SLOT_MASK => Meaning::Plain(Plain(self.0)),
            SLOT_DELETED => Meaning::Deleted,
            _ => Meaning::Garbage,
        }
    }

    /// The word of a state that was deleted at this version.
    pub(crate) fn deleted(at: Plain) -> Self {
        Self(at.version() << 8 | SLOT_DELETED)
    }
}

impl Plain {
    #[inline(always)]
    pub(crate) fn new(version: u64, slot: u32) -> Self {
        Self((version & VERSION_MAX) << 8 | (u64::from(slot) & SLOT_MASK))
    }

    /// The version after this one, in this slot.
    #[inline(always)]
    pub(crate) fn next(self, slot: u32) -> Self {
        Self(((self.0 | 0xFF) + 1) & !REFERENCE | (u64::from(slot) & SLOT_MASK))
    }

    /// What a word or a record's entry says, if it is a plain word.
    #[inline(always)]
    pub(crate) fn of(bits: u64) -> Option<Self> {
        match Word(bits).meaning() {
            Meaning::Plain(plain) => Some(plain),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn version(self) -> u64 {
        self.0 >> 8
    }

    #[inline(always)]
    pub(crate) fn slot(self) -> u32 {
        (self.0 & SLOT_MASK) as u32
    }
}

impl Reference {
    #[inline(always)]
    pub(crate) fn new(base: u32, new: u32, record: u32, sequence: u64) -> Self {
        Self(
            REFERENCE
                | (u64::from(base) & SLOT_MASK) << 57
                | (u64::from(new) & SLOT_MASK) << 51
                | (u64::from(record) & RECORD_MASK) << 40
                | sequence & SEQUENCE_MASK,
        )
    }

    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn base(self) -> u32 {
        ((self.0 >> 57) & SLOT_MASK) as u32
    }

    #[inline(always)]
    pub(crate) fn new_slot(self) -> u32 {
        ((self.0 >> 51) & SLOT_MASK) as u32
    }

    #[inline(always)]
    pub(crate) fn record(self) -> u32 {
        ((self.0 >> 40) & RECORD_MASK) as u32
    }

    #[inline(always)]
    pub(crate) fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MASK
    }
}

/// The first word of a record: which use of it this is, and how far that one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Status(pub(crate) u64);

/// How far a use of a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Nobody refers to it.
    Free = 0,
    /// Its words are being installed.
    Undecided = 1,
    /// All of it is visible.
    Committed = 2,
    /// None of it ever will be.
    Aborted = 3,
}

impl Status {
    #[inline(always)]
    pub(crate) fn new(sequence: u64, phase: Phase) -> Self {
        Self((sequence & SEQUENCE_MASK) << 2 | phase as u64)
    }

    #[inline(always)]
    pub(crate) fn sequence(self) -> u64 {
        (self.0 >> 2) & SEQUENCE_MASK
    }

    /// The sequence of the next use.
    pub(crate) fn next_sequence(self) -> u64 {
        (self.sequence() + 1) & SEQUENCE_MASK
    }

    #[inline(always)]
    pub(crate) fn phase(self) -> Phase {
        match self.0 & 3 {
            0 => Phase::Free,
            1 => Phase::Undecided,
            2 => Phase::Committed,
            _ => Phase::Aborted,
        }
    }
}

/// Who claims a slot or keeps a pin line: a lease, and which of its tenants. Never used again, so
/// who is dead is dead for ever. 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id(pub(crate) u64);

impl Id {
    pub(crate) const NOBODY: Self = Self(0);

    pub(crate) fn new(incarnation: u64, lease: u32) -> Self {
        Self(incarnation << 8 | u64::from(lease & 0xFF))
    }

    #[inline(always)]
    pub(crate) fn lease(self) -> u32 {
        (self.0 & 0xFF) as u32
    }

    #[inline(always)]
    pub(crate) fn incarnation(self) -> u64 {
        self.0 >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_word_says_what_was_put_in() {
        for version in [0, 1, 77, VERSION_MAX] {
            for slot in [0, 1, 63] {
                let plain = Plain::new(version, slot);
                assert_eq!((plain.version(), plain.slot()), (version, slot));
                assert_eq!(Word(plain.bits()).meaning(), Meaning::Plain(plain));
                assert_eq!(Word::deleted(plain).meaning(), Meaning::Deleted);
            }
        }
    }

    #[test]
    fn the_next_version_is_one_more_in_the_slot_asked_for() {
        for version in [0, 1, 254, 255, 256, VERSION_MAX - 1, VERSION_MAX] {
            for (slot, other) in [(0, 63), (63, 0), (7, 7)] {
                let next = Plain::new(version, slot).next(other);
                assert_eq!(next, Plain::new(version + 1, other), "{version}");
            }
        }
    }

    #[test]
    fn a_reference_says_what_was_put_in() {
        let one = Reference::new(63, 0, 2_047, SEQUENCE_MASK);
        assert_eq!((one.base(), one.new_slot(), one.record()), (63, 0, 2_047));
        assert_eq!(one.sequence(), SEQUENCE_MASK);
        let other = Reference::new(0, 63, 0, 0);
        assert_eq!((other.base(), other.new_slot(), other.record()), (0, 63, 0));
        assert_eq!(Word(other.bits()).meaning(), Meaning::Reference(other));
    }

    #[test]
    fn slots_from_64_on_are_deleted_or_garbage_and_what_announces_nothing_is_no_slot() {
        assert_eq!(Word(64).meaning(), Meaning::Garbage);
        assert_eq!(Word(NOTHING).meaning(), Meaning::Garbage);
        assert_eq!(Plain::of(0xFE), None);
    }

    #[test]
    fn the_sequence_of_a_status_comes_round_without_touching_the_phase() {
        let last = Status::new(SEQUENCE_MASK, Phase::Aborted);
        assert_eq!((last.sequence(), last.phase()), (SEQUENCE_MASK, Phase::Aborted));
        assert_eq!(last.next_sequence(), 0);
    }
}

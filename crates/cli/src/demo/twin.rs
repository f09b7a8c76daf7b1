//! A record that is whole at every instant: two copies, one of them never being written.
//!
//! A recorder updates its blocks in place while another process reads them, and is killed in the
//! middle of an update. A plain record would be torn by either. A [`Twin`] holds two sides; update
//! number `n` goes to side `n mod 2`, so the side with update `n - 1` is not touched until `n` is
//! complete.
//!
//! * **I1** After any cut of the writer (any subset of the bytes of one update stored), the newest
//!   whole side is the last complete update or the interrupted one, complete.
//! * **I2** A side counts only when its CRC32C holds over all its other bytes, so a mix of two
//!   updates is seen as such. The all-zero side of a fresh block does not hold.
//! * **I3** A block in which side 0 is all zero has not completed its second update; if side 1 does
//!   not hold either, nothing was ever published in it: that is *unwritten*, not torn.
//!
//! Relies on: one writer at a time (the recorder that owns the block), a fresh block being all
//! zero. It needs no order of stores: the checksum is the publication. A reader that was overtaken
//! by two updates while it copied one block finds no whole side and reads again.

use std::marker::PhantomData;

use mainstay_base::crc32c;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::kinds::{Kind, PAYLOAD_LEN, Payload};

/// Bytes of one side.
pub(super) const SIDE_LEN: usize = 128;
/// Bytes of a record, and of a block of the demo's pool.
pub(super) const TWIN_LEN: usize = 2 * SIDE_LEN;

const _: () = assert!(size_of::<Side>() == SIDE_LEN && size_of::<Twin<()>>() == TWIN_LEN);

/// Who a record is about: the same entity has the same key in every sweep and every process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    /// What kind of thing it is.
    pub(super) kind: Kind,
    /// Its identity among its kind.
    pub(super) words: [u64; 2],
}

/// One update of a record.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct Side {
    crc: U32,
    kind: U16,
    reserved: U16,
    sequence: U64,
    sweep: U64,
    taken_ns: U64,
    key: [U64; 2],
    payload: [u8; PAYLOAD_LEN],
}

impl Side {
    /// A sealed update: `sequence` counts the updates of this record from 1, `sweep` the passes of
    /// its recorder, `taken_ns` is the monotonic clock.
    pub(super) fn seal<T: Payload>(payload: &T, sequence: u64, sweep: u64, taken_ns: u64) -> Self {
        let mut side = Self {
            crc: U32::ZERO,
            kind: (T::KIND as u16).into(),
            reserved: U16::ZERO,
            sequence: sequence.into(),
            sweep: sweep.into(),
            taken_ns: taken_ns.into(),
            key: payload.identity().map(U64::new),
            payload: [0; PAYLOAD_LEN],
        };
        side.payload.copy_from_slice(payload.as_bytes());
        side.crc = side.checksum().into();
        side
    }

    fn checksum(&self) -> u32 {
        crc32c(&self.as_bytes()[size_of::<U32>()..])
    }

    fn is_whole(&self) -> bool {
        self.crc.get() == self.checksum()
    }

    /// How many updates the record had with this one.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// Whom the update is about, or `None` when what the header says and what the payload says
    /// differ: a whole update of something else.
    pub(super) fn key(&self) -> Option<Key> {
        let kind = Kind::from_u16(self.kind.get())?;
        let words = self.key.map(U64::get);
        (kind.identity_of(&self.payload) == Some(words)).then_some(Key { kind, words })
    }

    /// Where in the block this update goes.
    pub(super) fn offset(&self) -> usize {
        if self.sequence().is_multiple_of(2) { 0 } else { SIDE_LEN }
    }
}

/// What the bytes of a block say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// The newest whole update.
    Whole(Side),
    /// No update was ever completed: a block between its allocation and its first record.
    Unwritten,
    /// No whole side where there has been one.
    Torn,
}

/// Reads the bytes of one block, as they are.
pub(super) fn read(bytes: &[u8; TWIN_LEN]) -> Reading {
    let (left, right) = bytes.split_at(SIDE_LEN);
    let sides = [left, right].map(|half| {
        Side::read_from_bytes(half).expect("half of a twin has exactly the bytes of a side")
    });
    let newest = sides.into_iter().filter(Side::is_whole).max_by_key(Side::sequence);
    match newest {
        Some(side) => Reading::Whole(side),
        // I3
        None if left.iter().all(|&byte| byte == 0) => Reading::Unwritten,
        None => Reading::Torn,
    }
}

/// The type of a block: both sides of a record about a `T`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub(super) struct Twin<T> {
    sides: [Side; 2],
    kind: PhantomData<T>,
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{Counter, text};
    use super::*;
    use proptest::prelude::*;

    fn counter(value: u64) -> Counter {
        Counter {
            source: 1,
            reserved: [0; 3],
            column: 0.into(),
            value: value.into(),
            label: text("pgfault"),
        }
    }

    fn stored(twin: &mut [u8; TWIN_LEN], side: &Side) {
        twin[side.offset()..][..SIDE_LEN].copy_from_slice(side.as_bytes());
    }

    fn sequence_in(twin: &[u8; TWIN_LEN]) -> Option<u64> {
        match read(twin) {
            Reading::Whole(side) => Some(side.sequence()),
            Reading::Unwritten | Reading::Torn => None,
        }
    }

    #[test]
    fn a_fresh_block_is_unwritten_and_noise_is_torn() {
        assert_eq!(read(&[0; TWIN_LEN]), Reading::Unwritten);
        assert_eq!(read(&[0xA5; TWIN_LEN]), Reading::Torn);
    }

    #[test]
    fn a_record_whose_header_names_another_entity_has_no_key() {
        let mut side = Side::seal(&counter(7), 1, 1, 0);
        assert_eq!(side.key().map(|key| key.kind), Some(Kind::Counter));
        side.key[0] = 99.into();
        side.crc = side.checksum().into();
        assert!(side.is_whole());
        assert_eq!(side.key(), None);
    }

    #[test]
    fn every_single_bit_error_is_seen() {
        let side = Side::seal(&counter(7), 3, 9, 11);
        for bit in 0..SIDE_LEN * 8 {
            let mut bytes = [0; SIDE_LEN];
            bytes.copy_from_slice(side.as_bytes());
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Side::read_from_bytes(&bytes).unwrap().is_whole(), "bit {bit}");
        }
    }

    proptest! {
        /// I1, for a cut after every byte of every one of the first updates.
        #[test]
        fn an_update_cut_after_any_byte_leaves_the_previous_or_the_new_one(
            values in proptest::collection::vec(any::<u64>(), 1..6),
        ) {
            let mut twin = [0; TWIN_LEN];
            for (before, value) in values.iter().enumerate() {
                let before = before as u64;
                let side = Side::seal(&counter(*value), before + 1, 1, *value);
                for cut in 0..SIDE_LEN {
                    let mut torn = twin;
                    torn[side.offset()..][..cut].copy_from_slice(&side.as_bytes()[..cut]);
                    let seen = sequence_in(&torn);
                    prop_assert!(
                        seen == before.checked_sub(1).map(|_| before) || seen == Some(before + 1),
                        "cut {cut}: {seen:?} after {before} updates"
                    );
                    prop_assert!(read(&torn) != Reading::Torn);
                }
                stored(&mut twin, &side);
                prop_assert_eq!(sequence_in(&twin), Some(before + 1));
            }
        }

        /// I1, for stores that became visible in any order.
        #[test]
        fn an_update_of_which_any_subset_of_bytes_landed_leaves_a_whole_record(
            first in any::<u64>(), second in any::<u64>(), third in any::<u64>(),
            landed in proptest::collection::vec(any::<bool>(), SIDE_LEN),
        ) {
            let mut twin = [0; TWIN_LEN];
            stored(&mut twin, &Side::seal(&counter(first), 1, 1, 5));
            stored(&mut twin, &Side::seal(&counter(second), 2, 2, 6));
            let side = Side::seal(&counter(third), 3, 3, 7);
            for (at, _) in landed.iter().enumerate().filter(|(_, landed)| **landed) {
                twin[side.offset() + at] = side.as_bytes()[at];
            }
            let seen = sequence_in(&twin);
            prop_assert!(seen == Some(2) || seen == Some(3));
        }
    }
}

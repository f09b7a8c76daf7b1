//! Where everything is in a channel's shared memory. `docs/format/wire.md` has the same tables.
//!
//! L1. Whatever the peer writes is checked before it is used: a counter that went back, or further
//!     than the ring is long, is an error and never an access outside.

use crate::{Bounds, Error, NodeId, Result, frame::HEADER_LEN};
use mainstay_base::crc32c;
use mainstay_shm::{Mapping, Shared32, Shared64};

const MAGIC: [u8; 8] = *b"MAINCHAN";
const VERSION: u32 = 1;
/// What the checksum covers; it stands right behind.
const COVERED: usize = 60;
const HEADER_BYTES: usize = 64;
const JOINED_AT: usize = 64;
const SIDES_AT: usize = 4_096;
const SIDE_BYTES: usize = 1_024;
const RINGS_AT: usize = 8_192;

const CAPACITY_MIN: u64 = 4_096;
const CAPACITY_MAX: u64 = 1 << 30;

const _: () = assert!(SIDES_AT + 2 * SIDE_BYTES <= RINGS_AT && COVERED + 4 == HEADER_BYTES);

/// The fixed part: written once, before anybody else can see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Bytes of each ring: a power of two.
    pub(super) capacity: u64,
    pub(super) messages: u64,
    pub(super) message_len: u64,
    pub(super) creator: NodeId,
}

impl Header {
    pub(super) fn new(bounds: Bounds, creator: NodeId) -> Self {
        // Room for what the bound allows, headers included.
        let headers = (bounds.messages * HEADER_LEN) as u64;
        let wanted = (bounds.bytes as u64).saturating_add(headers).min(CAPACITY_MAX);
        Self {
            capacity: wanted.next_power_of_two().max(CAPACITY_MIN),
            messages: bounds.messages as u64,
            message_len: bounds.message_len as u64,
            creator,
        }
    }

    pub(super) fn file_len(self) -> u64 {
        RINGS_AT as u64 + 2 * self.capacity
    }

    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.messages.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.message_len.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.creator.0.to_le_bytes());
        let crc = crc32c(&bytes[..COVERED]);
        bytes[COVERED..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Believes nothing before magic, version and checksum are right.
    pub(super) fn decode(path: &str, bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let half = |at: usize| word(at) & u64::from(u32::MAX);
        let check = |field, found, expected| {
            let path = path.to_owned();
            if found == expected {
                Ok(())
            } else {
                Err(Error::NotAChannel { path, field, found, expected })
            }
        };
        check("magic", word(0), u64::from_le_bytes(MAGIC))?;
        check("version", half(8), VERSION.into())?;
        check("checksum", word(COVERED - 4) >> 32, crc32c(&bytes[..COVERED]).into())?;
        let header = Self {
            capacity: word(16),
            messages: word(24),
            message_len: word(32),
            creator: NodeId(word(40)),
        };
        let capacity = header.capacity.clamp(CAPACITY_MIN, CAPACITY_MAX).next_power_of_two();
        check("capacity", header.capacity, capacity)?;
        check("messages", header.messages, header.messages.clamp(1, 1 << 20))?;
        check("message_len", header.message_len, header.message_len.min(64 << 20))?;
        Ok(header)
    }

    pub(super) fn read(path: &str, mapping: &Mapping) -> Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        mapping.read(0, &mut bytes)?;
        Self::decode(path, &bytes)
    }
}

/// The two ends: the one that made the memory, and the one that joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Creator = 0,
    Joiner = 1,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Creator => Self::Joiner,
            Self::Joiner => Self::Creator,
        }
    }

    /// Its process slot.
    pub(super) fn slot(self) -> u32 {
        self as u32
    }

    /// Where the ring that it writes begins.
    pub(super) fn ring_at(self, capacity: u64) -> usize {
        RINGS_AT + self as usize * usize::try_from(capacity).unwrap_or(usize::MAX / 2)
    }
}

/// The words of one side. All but `bell` and `waits` are written by that side only.
#[derive(Clone, Copy)]
pub(super) struct Words<'m> {
    /// How many bytes it has written into its ring, since the beginning.
    pub(super) tail: &'m Shared64,
    /// How many frames.
    pub(super) sent: &'m Shared64,
    /// How many bytes it has read out of the other's ring.
    pub(super) head: &'m Shared64,
    /// How many frames its user has taken.
    pub(super) taken: &'m Shared64,
    /// What it sleeps on; rung by the other.
    pub(super) bell: &'m Shared32,
    /// Whether somebody of it sleeps, or is about to.
    pub(super) waits: &'m Shared32,
    /// [`OPEN`], [`CLOSED`], [`ABORTED`].
    pub(super) ended: &'m Shared32,
}

pub(super) const OPEN: u32 = 0;
pub(super) const CLOSED: u32 = 1;
pub(super) const ABORTED: u32 = 2;

pub(super) fn words(mapping: &Mapping, side: Side) -> Result<Words<'_>> {
    let at = SIDES_AT + side as usize * SIDE_BYTES;
    let long = |offset| Ok::<_, Error>(&mapping.view::<Shared64>(at + offset, 1)?[0]);
    let short = |offset| Ok::<_, Error>(&mapping.view::<Shared32>(at + offset, 1)?[0]);
    Ok(Words {
        tail: long(0)?,
        sent: long(8)?,
        head: long(128)?,
        taken: long(136)?,
        bell: short(256)?,
        waits: short(260)?,
        ended: short(384)?,
    })
}

/// Who has joined; zero as long as nobody has.
pub(super) fn joined(mapping: &Mapping) -> Result<&Shared64> {
    Ok(&mapping.view::<Shared64>(JOINED_AT, 1)?[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::table;

    fn header() -> Header {
        Header::new(Bounds::default(), NodeId(7))
    }

    #[test]
    fn a_header_survives_and_one_wrong_bit_anywhere_is_refused() {
        let bytes = header().encode();
        assert_eq!(Header::decode("x", &bytes).unwrap(), header());
        for at in 0..bytes.len() * 8 {
            let mut wrong = bytes;
            wrong[at / 8] ^= 1 << (at % 8);
            let error = Header::decode("x", &wrong).unwrap_err();
            assert!(matches!(error, Error::NotAChannel { .. }), "bit {at}: {error}");
        }
    }

    #[test]
    fn a_header_that_is_whole_but_absurd_is_refused() {
        for wrong in [
            Header { capacity: 4_097, ..header() },
            Header { capacity: 1 << 40, ..header() },
            Header { messages: 0, ..header() },
            Header { message_len: (64 << 20) + 1, ..header() },
        ] {
            assert!(Header::decode("x", &wrong.encode()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_tables_of_the_format_document_are_those_of_the_code() {
        let document = include_str!("../../../../docs/format/wire.md");
        let rows = table(document, "### Header of the memory");
        assert_eq!(rows.last().map(|(at, size)| at + size), Some(HEADER_BYTES));
        assert!(rows.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0));
        let sides = table(document, "### Words of a side");
        let expected = [(0, 8), (8, 8), (128, 8), (136, 8), (256, 4), (260, 4), (384, 4)];
        assert_eq!(sides, expected);
    }

    #[test]
    fn rings_hold_their_bounds_and_do_not_overlap() {
        let header = header();
        assert!(header.capacity >= (4 << 20) + 1_024 * 16);
        let first = Side::Creator.ring_at(header.capacity) as u64;
        let second = Side::Joiner.ring_at(header.capacity) as u64;
        assert_eq!(second - first, header.capacity);
        assert_eq!(second + header.capacity, header.file_len());
    }
}

//! What the bytes of messages are: the tables of `docs/format/stream.md`.

use mainstay_store::Position;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// The front of every message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) shard: U16,
    pub(super) count: U32,
    pub(super) epoch: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Place {
    pub(super) epoch: U64,
    pub(super) sequence: U64,
    pub(super) sum: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct HelloBody {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) id: [u8; 16],
    pub(super) shards: U32,
    pub(super) key_len: U32,
    pub(super) value_len: U32,
    pub(super) kind: U32,
    pub(super) write_bytes_max: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InfoBody {
    pub(super) from: Place,
    pub(super) records: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WantBody {
    pub(super) first: U32,
    pub(super) last: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WriteHead {
    pub(super) place: Place,
    pub(super) len: U32,
    pub(super) changes: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PartBody {
    pub(super) whole: U64,
    pub(super) at: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AckBody {
    pub(super) shard: U32,
    pub(super) reserved: U32,
    pub(super) received: U64,
    pub(super) applied: U64,
    pub(super) durable: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RefusalBody {
    pub(super) reason: U16,
    pub(super) text: U16,
    pub(super) reserved: U32,
    pub(super) ours: U64,
    pub(super) theirs: U64,
}

/// A bit of `kind`: values begin with the time at which the record ends.
pub(super) const ENDS: u32 = 1;
/// Another: long messages can come in parts.
pub(super) const PARTS: u32 = 2;
/// Above them, in the higher half: how many bits of a key choose its shard.
pub(super) const SHARD_BITS_SHIFT: u32 = 16;

pub(super) const HEAD: usize = size_of::<Head>();
pub(super) const MAGIC: [u8; 4] = *b"MSST";

const _: () = {
    use std::mem::offset_of;
    assert!(HEAD == 16);
    assert!(offset_of!(Head, shard) == 2);
    assert!(offset_of!(Head, count) == 4);
    assert!(offset_of!(Head, epoch) == 8);
    assert!(size_of::<Place>() == 24);
    assert!(size_of::<HelloBody>() == 48);
    assert!(offset_of!(HelloBody, shards) == 24);
    assert!(offset_of!(HelloBody, kind) == 36);
    assert!(offset_of!(HelloBody, write_bytes_max) == 40);
    assert!(size_of::<InfoBody>() == 32);
    assert!(size_of::<WantBody>() == 8);
    assert!(size_of::<WriteHead>() == 32);
    assert!(offset_of!(WriteHead, changes) == 28);
    assert!(size_of::<PartBody>() == 16);
    assert!(offset_of!(PartBody, at) == 8);
    assert!(size_of::<AckBody>() == 32);
    assert!(size_of::<RefusalBody>() == 24);
    assert!(offset_of!(RefusalBody, ours) == 8);
};

pub(super) const HELLO: u8 = 1;
pub(super) const WELCOME: u8 = 2;
pub(super) const SYNC: u8 = 3;
pub(super) const INFO: u8 = 4;
pub(super) const SUMMARY: u8 = 5;
pub(super) const DIFFER: u8 = 6;
pub(super) const WANT: u8 = 7;
pub(super) const RECORDS: u8 = 8;
pub(super) const STALE: u8 = 9;
pub(super) const ROUND: u8 = 10;
pub(super) const WRITES: u8 = 11;
pub(super) const CAUGHT_UP: u8 = 12;
pub(super) const ACK: u8 = 13;
pub(super) const ALIVE: u8 = 14;
pub(super) const PART: u8 = 15;
pub(super) const REFUSED: u8 = 255;

pub(super) fn place_of(position: Position) -> Place {
    Place {
        epoch: position.epoch.into(),
        sequence: position.sequence.into(),
        sum: position.sum.into(),
    }
}

pub(super) fn position_of(place: &Place) -> Position {
    Position { epoch: place.epoch.get(), sequence: place.sequence.get(), sum: place.sum.get() }
}

//! The bytes of the files of a store of keys and values of any size. The tables are in
//! `docs/format/log-store.md`.

mod frame;
mod hint;
mod list;
mod record;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use self::record::{END_LEN, records_bytes};
pub use self::record::{read_records, write_records};
pub(crate) use self::{
    frame::{
        Frame, FrameHead, encode, follow, log_end, next_sound, sound_changes, was_more_durable,
    },
    hint::{Hint, HintHeader},
    list::{read_list, write_list},
    record::{
        Ends, Part, RECORD_LEN, change_at, changes_of, parts_of, record_bytes, records_of,
        stored_len, value_of, write_part,
    },
};
use crate::{
    ends::has_ended,
    format::{FIRST_BITS, FRAME_LEN, HEADER_LEN, HISTORY_LEN, Header, HistoryBytes, NUMBERS_END},
    history::{History, Position},
    planted::{self, Fault},
    route::Route,
    shard::Change,
};

/// The file that makes a directory such a store.
pub(crate) const ANY_FILE: &str = "any";

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct AnyHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) shards: U32,
    pub(crate) shard_bits: U32,
    pub(crate) segment_bytes: U64,
    pub(crate) epoch: U64,
    pub(crate) generation: U64,
    pub(crate) known_epoch: U64,
    pub(crate) role: U32,
    pub(crate) reserved: [u8; 48],
    pub(crate) checksum: U32,
}

/// Where the history of a shard is at some place of its log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct PastBytes {
    history: HistoryBytes,
    /// One more than [`Past::since`]; 0: nothing is noted.
    since: U64,
}

/// The same in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) history: History,
    /// Of the last frame that said where the history is; from there on each write follows the one
    /// before.
    pub(crate) since: u64,
}

impl Past {
    /// Before the first write.
    pub(crate) const START: Self = Self { history: History::At(Position::START), since: 0 };

    pub(crate) fn bytes_of(past: Option<Self>) -> PastBytes {
        let (history, since) = match past {
            Some(past) => (past.history.to_bytes(), past.since + 1),
            None => (History::At(Position::START).to_bytes(), 0),
        };
        PastBytes { history, since: since.into() }
    }

    pub(crate) fn from_bytes(bytes: &PastBytes) -> Option<Self> {
        let since = bytes.since.get().checked_sub(1)?;
        Some(Self { history: History::from_bytes(&bytes.history), since })
    }
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct LogHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) shard: U32,
    pub(crate) chain: U32,
    pub(crate) number: U64,
    pub(crate) epoch: U64,
    pub(crate) first_sequence: U64,
    pub(crate) past: PastBytes,
    pub(crate) reserved: [u8; 24],
    pub(crate) checksum: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ListHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) shard: U32,
    pub(crate) count: U32,
    pub(crate) generation: U64,
    pub(crate) through: U64,
    pub(crate) sequence: U64,
    pub(crate) chain: U32,
    pub(crate) body_sum: U32,
    /// A write up to which all was durable when it was written; 0 says nothing, as in files of before
    /// there was this field.
    pub(crate) vouched: U64,
    pub(crate) reserved: [u8; 44],
    pub(crate) checksum: U32,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct ListEntry {
    pub(crate) number: U64,
    pub(crate) first: U64,
    pub(crate) last: U64,
    pub(crate) bytes: U64,
    pub(crate) chain: U32,
    pub(crate) reserved: U32,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<AnyHeader>() == HEADER_LEN);
    assert!(offset_of!(AnyHeader, shard_bits) == 36);
    assert!(offset_of!(AnyHeader, segment_bytes) == 40);
    assert!(offset_of!(AnyHeader, generation) == 56);
    assert!(offset_of!(AnyHeader, known_epoch) == 64);
    assert!(offset_of!(AnyHeader, role) == 72);
    assert!(offset_of!(AnyHeader, checksum) == 124);
    assert!(size_of::<PastBytes>() == 36);
    assert!(offset_of!(PastBytes, since) == 28);
    assert!(size_of::<LogHeader>() == HEADER_LEN);
    assert!(offset_of!(LogHeader, number) == 40);
    assert!(offset_of!(LogHeader, first_sequence) == 56);
    assert!(offset_of!(LogHeader, past) == 64);
    assert!(offset_of!(LogHeader, checksum) == 124);
    assert!(size_of::<ListHeader>() == HEADER_LEN);
    assert!(offset_of!(ListHeader, generation) == 40);
    assert!(offset_of!(ListHeader, chain) == 64);
    assert!(offset_of!(ListHeader, vouched) == 72);
    assert!(offset_of!(ListHeader, checksum) == 124);
    assert!(size_of::<ListEntry>() == 40);
    assert!(offset_of!(ListEntry, chain) == 32);
    assert!(FRAME_LEN == 48);
};

impl Header for AnyHeader {
    const MAGIC: [u8; 8] = *b"MAINSANY";
    const FLAGS: u32 = FIRST_BITS;
}
impl AnyHeader {
    /// How the shard of a key is found.
    pub(crate) fn route(&self) -> Route {
        Route::new(self.shards.get(), self.shard_bits.get())
    }
}
impl Header for LogHeader {
    const MAGIC: [u8; 8] = *b"MAINSVAL";
}
impl Header for ListHeader {
    const MAGIC: [u8; 8] = *b"MAINSLST";
}

/// Which file of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Hint,
    List,
}

impl Kind {
    const ALL: [(Self, &str); 3] = [(Self::Log, "log"), (Self::Hint, "hint"), (Self::List, "list")];

    pub(crate) fn name(self, shard: u32, number: u64) -> String {
        let ending = Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("", |one| one.1);
        format!("any-{shard:04}-{number:016x}.{ending}")
    }
}

/// What a name says: the shard, the number, the kind.
pub(crate) fn parse_name(name: &str) -> Option<(u32, u64, Kind)> {
    let (shard, rest) = name.strip_prefix("any-")?.split_once('-')?;
    let (number, ending) = rest.split_once('.')?;
    let (kind, _) = Kind::ALL.into_iter().find(|(_, of)| *of == ending)?;
    let (shard, number) = (shard.parse().ok()?, u64::from_str_radix(number, 16).ok()?);
    (kind.name(shard, number) == name && number < NUMBERS_END).then_some((shard, number, kind))
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    /// Of the record's head.
    pub(crate) at: u32,
    /// Of the value, with the time of its end if it has one.
    pub(crate) value_len: u32,
    /// When it ends; 0: never.
    pub(crate) end: u64,
}

impl Place {
    /// Has it not ended yet?
    pub(crate) fn is_live(&self, now: u64) -> bool {
        !has_ended(self.end, now) || planted::is(Fault::EndIgnored)
    }

    /// Bytes of the value alone.
    pub(crate) fn value_bytes(&self) -> u64 {
        let end = if self.end == 0 { 0 } else { END_LEN };
        u64::from(self.value_len).saturating_sub(end as u64)
    }
}

/// A change as it is in a log.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) change: Change<'a>,
    /// When what is put ends; 0: never.
    pub(crate) end: u64,
    /// Where it is in the frame.
    pub(crate) at: usize,
}

/// What is written as one frame.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) changes: &'a [Change<'a>],
    /// When what they put ends.
    pub(crate) ends: Ends<'a>,
    /// What other shards get of the same batch.
    pub(crate) parts: &'a [u8],
    /// Where the history is after it, if it is not just one write further.
    pub(crate) note: Option<History>,
    /// Of a write of a leader; none: that of the store.
    pub(crate) epoch: Option<u64>,
}

impl<'a> Entry<'a> {
    pub(crate) fn new(changes: &'a [Change<'a>], end: u64) -> Self {
        Self { changes, ends: Ends::All(end), parts: &[], note: None, epoch: None }
    }

    /// Bytes of its changes, as they are in the frame.
    pub(crate) fn changes_bytes(&self) -> u64 {
        records_bytes(self.changes, self.ends)
    }

    /// Bytes of its frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        let note = self.note.map_or(0, |_| NOTE_BYTES);
        let bytes = self.changes_bytes() + self.parts.len() as u64 + note;
        (FRAME_LEN as u64 + bytes).next_multiple_of(8)
    }
}

/// Bytes of the record of a note.
pub(crate) const NOTE_BYTES: u64 = (RECORD_LEN + HISTORY_LEN) as u64;

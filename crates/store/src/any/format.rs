//! The bytes of the files of a store of keys and values of any size. The tables are in
//! `docs/format/log-store.md`.

mod frame;
mod hint;
mod list;

use mainstay_base::crc32c;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

pub(crate) use self::{
    frame::{Frame, FrameHead, encode, follow, next_sound, sound_changes, was_more_durable},
    hint::{Hint, HintHeader},
    list::{read_list, write_list},
};
use crate::{
    ends::has_ended,
    format::{FIRST_BITS, FRAME_LEN, HEADER_LEN, HISTORY_LEN, Header, HistoryBytes, NUMBERS_END},
    history::{History, Position},
    limits::{ANY_KEY_BYTES_MAX, ANY_VALUE_BYTES_MAX},
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
    pub(crate) reserved: [u8; 52],
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

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RecordHead {
    checksum: U32,
    value_len: U32,
    key_len: U16,
    kind: u8,
    reserved: u8,
}

pub(crate) const RECORD_LEN: usize = size_of::<RecordHead>();
const FRAME_MAGIC: [u8; 4] = *b"MSAF";
const PUT: u8 = 1;
const DELETE: u8 = 2;
/// A put whose value has the time of its end before it.
const PUT_UNTIL: u8 = 3;
/// Where the history of the shard is after the frame, which is no write.
const NOTE: u8 = 4;
/// In a frame's number of records: they were there before, and only got another place.
const MOVED: u32 = 1 << 31;
/// What another shard gets of a batch: its records, and which frame they are to become there.
const PART: u8 = 5;
/// Bytes of that time.
pub(crate) const END_LEN: usize = size_of::<u64>();

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
    assert!(offset_of!(ListHeader, checksum) == 124);
    assert!(size_of::<ListEntry>() == 40);
    assert!(offset_of!(ListEntry, chain) == 32);
    assert!(RECORD_LEN == 12 && FRAME_LEN == 48);
    assert!(size_of::<PartKey>() == 12);
    assert!(offset_of!(PartKey, sequence) == 4);
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

/// Bytes of a record.
pub(crate) fn record_bytes(key_len: usize, value_len: u32) -> u64 {
    (RECORD_LEN + key_len) as u64 + u64::from(value_len)
}

/// Bytes of a value as it is in a record.
pub(crate) fn stored_len(change: &Change<'_>, end: u64) -> u32 {
    match change {
        Change::Put(_, value) => (value.len() + if end == 0 { 0 } else { END_LEN }) as u32,
        Change::Delete(_) => 0,
    }
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

/// When what some changes put ends; 0: never.
#[derive(Clone, Copy)]
pub(crate) enum Ends<'a> {
    All(u64),
    Each(&'a [u64]),
}

impl Ends<'_> {
    pub(crate) fn of(&self, number: usize) -> u64 {
        match self {
            Self::All(end) => *end,
            Self::Each(ends) => ends.get(number).copied().unwrap_or(0),
        }
    }
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

fn records_bytes(changes: &[Change<'_>], ends: Ends<'_>) -> u64 {
    let each = |(number, change)| {
        record_bytes(Change::key(change).len(), stored_len(change, ends.of(number)))
    };
    changes.iter().enumerate().map(each).sum()
}

fn write_all(changes: &[Change<'_>], ends: Ends<'_>, out: &mut Vec<u8>) {
    for (number, change) in changes.iter().enumerate() {
        let end = ends.of(number);
        let (kind, key, value) = match *change {
            Change::Put(key, value) if end == 0 => (PUT, key, value),
            Change::Put(key, value) => (PUT_UNTIL, key, value),
            Change::Delete(key) => (DELETE, key, &[][..]),
        };
        write_record((kind, key), stored_len(change, end), out, |out| {
            if kind == PUT_UNTIL {
                out.extend_from_slice(&end.to_le_bytes());
            }
            out.extend_from_slice(value);
        });
    }
}

/// Appends a record; `write` appends its value of so many bytes.
fn write_record(
    (kind, key): (u8, &[u8]),
    value_len: u32,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let at = out.len();
    let record = RecordHead {
        checksum: 0.into(),
        value_len: value_len.into(),
        key_len: (key.len() as u16).into(),
        kind,
        reserved: 0,
    };
    out.extend_from_slice(record.as_bytes());
    out.extend_from_slice(key);
    write(out);
    let sum = crc32c(&out[at + 4..]);
    out[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Which shard gets a part of a batch, and which of its frames that is to become.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PartKey {
    shard: U32,
    sequence: U64,
}

/// What one shard gets of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) shard: u32,
    /// Of the frame that it is, or is to become.
    pub(crate) sequence: u64,
    /// As in that frame.
    pub(crate) records: &'a [u8],
}

/// Appends what is to become a frame of a shard.
pub(crate) fn write_part(
    (shard, sequence): (u32, u64),
    changes: &[Change<'_>],
    end: u64,
    out: &mut Vec<u8>,
) {
    let key = PartKey { shard: shard.into(), sequence: sequence.into() };
    let ends = Ends::All(end);
    let bytes = records_bytes(changes, ends) as u32;
    write_record((PART, key.as_bytes()), bytes, out, |out| write_all(changes, ends, out));
}

/// How many records these are, which were written here.
fn count_of(mut records: &[u8]) -> u32 {
    let mut count = 0;
    while let Ok((head, _)) = RecordHead::read_from_prefix(records) {
        let bytes = record_bytes(head.key_len.get().into(), head.value_len.get());
        records = records.get(bytes as usize..).unwrap_or(&[]);
        count += 1;
    }
    count
}

/// The changes that are all there is in the bytes of a part, and when what they put ends.
pub(crate) fn changes_of(mut records: &[u8]) -> Option<(Vec<Change<'_>>, u64)> {
    let (mut changes, mut ends) = (Vec::new(), None);
    while !records.is_empty() {
        let (Content::Change(change, end), rest) = read_record(records)? else { return None };
        if matches!(change, Change::Put(..)) && *ends.get_or_insert(end) != end {
            return None;
        }
        changes.push(change);
        records = rest;
    }
    Some((changes, ends.unwrap_or(0)))
}

/// The changes that are all there is in these bytes, and when what each puts ends; 0: never.
pub(crate) fn records_of(count: u32, mut bytes: &[u8]) -> Option<(Vec<Change<'_>>, Vec<u64>)> {
    let (mut changes, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (Content::Change(change, end), rest) = read_record(bytes)? else { return None };
        changes.push(change);
        ends.push(end);
        bytes = rest;
    }
    bytes.is_empty().then_some((changes, ends))
}

/// So many records at the front of `bytes`, which are all there is, as they are in the log of a
/// [`RawLogStore`](crate::RawLogStore) and on the wire: changes, and when what they put ends, in
/// milliseconds since 1970, or 0 for never. None if they are not that.
///
/// Example: see [`RawLogStore::record`](crate::RawLogStore::record).
#[must_use]
pub fn read_records(bytes: &[u8], count: u32) -> Option<Vec<(Change<'_>, u64)>> {
    let (changes, ends) = records_of(count, bytes)?;
    Some(changes.into_iter().zip(ends).collect())
}

/// Appends changes to `out` as they are in the log of a [`RawLogStore`](crate::RawLogStore), and on the
/// wire, with when what they put ends; 0: never.
///
/// ```
/// use mainstay_store::{Change, read_records, write_records};
/// let changes = [(Change::Put(b"de", b"49"), 1_700_000_000_000), (Change::Delete(b"dd"), 0)];
/// let mut bytes = Vec::new();
/// write_records(&changes, &mut bytes);
/// assert_eq!(read_records(&bytes, 2).unwrap(), changes);
/// ```
pub fn write_records(changes: &[(Change<'_>, u64)], out: &mut Vec<u8>) {
    let (changes, ends): (Vec<_>, Vec<_>) = changes.iter().copied().unzip();
    write_all(&changes, Ends::Each(&ends), out);
}

/// What a record is.
enum Content<'a> {
    /// With the time of its end.
    Change(Change<'a>, u64),
    Part(Part<'a>),
    Note(History),
}

/// A record at the front of `bytes`, and what is behind it.
fn read_record(bytes: &[u8]) -> Option<(Content<'_>, &[u8])> {
    let (head, rest) = RecordHead::read_from_prefix(bytes).ok()?;
    let (key_len, value_len) = (usize::from(head.key_len.get()), head.value_len.get() as usize);
    let end_len = if head.kind == PUT_UNTIL { END_LEN } else { 0 };
    // A part is as long as its frame allows.
    let is_short = value_len <= ANY_VALUE_BYTES_MAX + end_len || head.kind == PART;
    let is_key = (1..=ANY_KEY_BYTES_MAX).contains(&key_len) || head.kind == NOTE;
    let within = is_key && is_short && value_len >= end_len;
    if !within || head.reserved != 0 {
        return None;
    }
    let (key, rest) = rest.split_at_checked(key_len)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    let sum = crc32c(&bytes[4..RECORD_LEN + key_len + value_len]);
    let is_believed = planted::is(Fault::ChecksumIgnored) || planted::is(Fault::SalvageUnchecked);
    if sum != head.checksum.get() && !is_believed {
        return None;
    }
    let content = match head.kind {
        PUT => Content::Change(Change::Put(key, value), 0),
        PUT_UNTIL => {
            let (end, value) = value.split_first_chunk()?;
            let end = u64::from_le_bytes(*end);
            (end != 0).then_some(Content::Change(Change::Put(key, value), end))?
        }
        DELETE if value.is_empty() => Content::Change(Change::Delete(key), 0),
        NOTE if key.is_empty() => {
            Content::Note(History::from_bytes(&HistoryBytes::read_from_bytes(value).ok()?))
        }
        PART => {
            let key = PartKey::read_from_bytes(key).ok()?;
            let (shard, sequence) = (key.shard.get(), key.sequence.get());
            Content::Part(Part { shard, sequence, records: value })
        }
        _ => return None,
    };
    Some((content, rest))
}

/// How many bytes the record at the front of `bytes` has by its lengths, if it can be one.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let (head, _) = RecordHead::read_from_prefix(bytes).ok()?;
    let is_one = head.key_len.get() != 0 || head.kind == NOTE;
    let len = record_bytes(head.key_len.get().into(), head.value_len.get());
    usize::try_from(len).ok().filter(|len| is_one && *len <= bytes.len())
}

/// The change whose record is at the front of `bytes`, if it is sound, and when what it puts ends.
pub(crate) fn change_at(bytes: &[u8]) -> Option<(Change<'_>, u64)> {
    match read_record(bytes)? {
        (Content::Change(change, end), _) => Some((change, end)),
        _ => None,
    }
}

/// The value of a key in the bytes of its record, if they are that.
pub(crate) fn value_of<'a>(record: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    parts_of(record).filter(|(found, _)| *found == key).map(|(_, value)| value)
}

/// Key and value of a record.
pub(crate) fn parts_of(record: &[u8]) -> Option<(&[u8], &[u8])> {
    match read_record(record)? {
        (Content::Change(Change::Put(key, value), _), []) => Some((key, value)),
        _ => None,
    }
}

//! Records: changes as they are in frames, each with a checksum of its own.

use mainstay_base::crc32c;
use mainstay_shm::hook;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use crate::{
    format::HistoryBytes,
    history::History,
    limits::{ANY_KEY_BYTES_MAX, ANY_VALUE_BYTES_MAX},
    planted::{self, Fault},
    shard::Change,
};

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
pub(super) const PUT: u8 = 1;
pub(super) const DELETE: u8 = 2;
/// A put whose value has the time of its end before it.
pub(super) const PUT_UNTIL: u8 = 3;
/// Where the history of the shard is after the frame, which is no write.
pub(super) const NOTE: u8 = 4;
/// What another shard gets of a batch: its records, and which frame they are to become there.
pub(super) const PART: u8 = 5;
/// Bytes of that time.
pub(crate) const END_LEN: usize = size_of::<u64>();

const _: () = {
    use std::mem::offset_of;
    assert!(RECORD_LEN == 12);
    assert!(size_of::<PartKey>() == 12);
    assert!(offset_of!(PartKey, sequence) == 4);
};

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

pub(super) fn records_bytes(changes: &[Change<'_>], ends: Ends<'_>) -> u64 {
    let each = |(number, change)| {
        record_bytes(Change::key(change).len(), stored_len(change, ends.of(number)))
    };
    changes.iter().enumerate().map(each).sum()
}

pub(super) fn write_all(changes: &[Change<'_>], ends: Ends<'_>, out: &mut Vec<u8>) {
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
pub(super) fn write_record(
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
pub(super) fn count_of(mut records: &[u8]) -> u32 {
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
pub(super) enum Content<'a> {
    /// With the time of its end.
    Change(Change<'a>, u64),
    Part(Part<'a>),
    Note(History),
}

/// A record at the front of `bytes`, and what is behind it.
pub(super) fn read_record(bytes: &[u8]) -> Option<(Content<'_>, &[u8])> {
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
    let is_believed = planted::is(Fault::ChecksumIgnored)
        || planted::is(Fault::SalvageUnchecked)
        || hook::planted("any-record-unchecked");
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
pub(super) fn record_len(bytes: &[u8]) -> Option<usize> {
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

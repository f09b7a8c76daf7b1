//! Hints: what the frames of a segment do to an index, without the values.

use mainstay_base::crc32c;
use mainstay_shm::hook;
use mainstay_storage::Storage;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{
    PastBytes,
    list::begin_anew,
    record::{DELETE, END_LEN, PUT, PUT_UNTIL, record_bytes, stored_len},
};
use crate::{
    error::{Error, Result},
    format::{DATA_AT, HEADER_LEN, Header, write_header},
    limits::ANY_KEY_BYTES_MAX,
    shard::Change,
};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct HintHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) shard: U32,
    pub(crate) count: U32,
    pub(crate) number: U64,
    pub(crate) first: U64,
    pub(crate) last: U64,
    pub(crate) bytes: U64,
    pub(crate) chain: U32,
    pub(crate) body_sum: U32,
    pub(crate) body_bytes: U64,
    pub(crate) past: PastBytes,
    pub(crate) checksum: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HintHead {
    at: U32,
    value_len: U32,
    key_len: U16,
    kind: u8,
    reserved: u8,
}

const HINT_LEN: usize = size_of::<HintHead>();

const _: () = {
    use std::mem::offset_of;
    assert!(HINT_LEN == 12);
    assert!(size_of::<HintHeader>() == HEADER_LEN);
    assert!(offset_of!(HintHeader, bytes) == 64);
    assert!(offset_of!(HintHeader, body_bytes) == 80);
    assert!(offset_of!(HintHeader, past) == 88);
    assert!(offset_of!(HintHeader, checksum) == 124);
};

impl Header for HintHeader {
    const MAGIC: [u8; 8] = *b"MAINSHNT";
}

/// What a segment's frames do to an index, in short: without the values.
#[derive(Clone, Default)]
pub(crate) struct Hint {
    body: Vec<u8>,
    count: u32,
}

/// A line of it.
pub(crate) struct HintLine<'a> {
    pub(crate) at: u32,
    pub(crate) key: &'a [u8],
    /// None: a delete.
    pub(crate) value_len: Option<u32>,
    /// When it ends; 0: never.
    pub(crate) end: u64,
}

impl Hint {
    pub(crate) fn note(&mut self, at: u32, change: &Change<'_>, end: u64) {
        let kind = match change {
            Change::Put(..) if end == 0 => PUT,
            Change::Put(..) => PUT_UNTIL,
            Change::Delete(_) => DELETE,
        };
        let head = HintHead {
            at: at.into(),
            value_len: stored_len(change, end).into(),
            key_len: (change.key().len() as u16).into(),
            kind,
            reserved: 0,
        };
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(change.key());
        if kind == PUT_UNTIL {
            self.body.extend_from_slice(&end.to_le_bytes());
        }
        self.count += 1;
    }

    /// Are these its lines, and no others?
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.body == other.body
    }

    /// Writes it durably.
    pub(crate) fn write(&self, file: &impl Storage, mut header: HintHeader) -> std::io::Result<()> {
        header.count = self.count.into();
        header.body_sum = crc32c(&self.body).into();
        header.body_bytes = (self.body.len() as u64).into();
        begin_anew(file)?;
        file.set_len(DATA_AT + self.body.len() as u64)?;
        file.write_at(DATA_AT, &self.body)?;
        write_header(file, &header)?;
        file.sync()
    }

    /// Reads one, if it is sound and says nothing impossible.
    pub(crate) fn read(
        file: &impl Storage,
        header: &HintHeader,
        name: &str,
    ) -> Result<Option<Self>> {
        let len = file.len().map_err(Error::io(name))?;
        let bytes = header.body_bytes.get();
        if DATA_AT.checked_add(bytes) != Some(len) {
            return Ok(None);
        }
        let mut body = vec![0; bytes as usize];
        file.read_at(DATA_AT, &mut body).map_err(Error::io(name))?;
        let hint = Self { body, count: header.count.get() };
        let mut lines = 0;
        let mut is_whole =
            crc32c(&hint.body) == header.body_sum.get() || hook::planted("any-hint-unchecked");
        let end = header.bytes.get();
        is_whole &= hint.each(|line| {
            lines += 1;
            let bytes = record_bytes(line.key.len(), line.value_len.unwrap_or(0));
            is_within(line.at, bytes, end)
        });
        Ok((is_whole && lines == header.count.get()).then_some(hint))
    }

    /// Shows each line while they are accepted; false if one is not, or is no line.
    pub(crate) fn each(&self, mut show: impl FnMut(HintLine<'_>) -> bool) -> bool {
        let mut rest = &self.body[..];
        while !rest.is_empty() {
            let Ok((head, after)) = HintHead::read_from_prefix(rest) else { return false };
            let key_len = usize::from(head.key_len.get());
            let Some((key, after)) = after.split_at_checked(key_len) else { return false };
            let stored = head.value_len.get();
            let (value_len, end, after) = match (head.kind, after.split_first_chunk()) {
                (PUT, _) => (Some(stored), 0, after),
                (PUT_UNTIL, Some((end, after))) if stored as usize >= END_LEN => {
                    (Some(stored), u64::from_le_bytes(*end), after)
                }
                (DELETE, _) => (None, 0, after),
                _ => return false,
            };
            let is_key = (1..=ANY_KEY_BYTES_MAX).contains(&key_len);
            let can_be = (head.kind == PUT_UNTIL) == (end != 0);
            let line = HintLine { at: head.at.get(), key, value_len, end };
            if !is_key || !can_be || !show(line) {
                return false;
            }
            rest = after;
        }
        true
    }
}

fn is_within(at: u32, bytes: u64, end: u64) -> bool {
    u64::from(at) >= DATA_AT && u64::from(at) + bytes <= end
}

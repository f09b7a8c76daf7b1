//! The parts of a batch that belong to other shards, as they are in the frame of the first one.
//!
//! They are the means to finish a batch that a death or a power cut left half made. Once the frame
//! they are in is durable, the batch counts; before another frame follows it, all of the batch is
//! durable. So only the last frame of a log can have parts that are to be made.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use crate::{
    error::{Error, Result},
    format::{StoreHeader, segment_name},
    history::{read_changes, write_changes},
    log::Frame,
    recover::Loaded,
    route::Route,
    shard::Change,
};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PartHeader {
    shard: U32,
    count: U32,
    sequence: U64,
    len: U32,
}

const PART_LEN: usize = size_of::<PartHeader>();

const _: () = {
    use std::mem::offset_of;
    assert!(PART_LEN == 20);
    assert!(offset_of!(PartHeader, sequence) == 8);
    assert!(offset_of!(PartHeader, len) == 16);
};

/// What the last frame of a log has of other shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The frame: its segment, where it begins there, and in which epoch it was written.
    pub(crate) segment: u64,
    pub(crate) at: u64,
    pub(crate) epoch: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What one shard gets of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) shard: u32,
    /// Of the frame that it is, or is to become.
    pub(crate) sequence: u64,
    pub(crate) changes: Vec<Change<'a>>,
}

/// Appends what is to become a frame of a shard.
pub(crate) fn write_part((shard, sequence): (u32, u64), changes: &[Change<'_>], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + PART_LEN, 0);
    write_changes(changes, out);
    let header = PartHeader {
        shard: shard.into(),
        count: (changes.len() as u32).into(),
        sequence: sequence.into(),
        len: ((out.len() - start - PART_LEN) as u32).into(),
    };
    out[start..start + PART_LEN].copy_from_slice(header.as_bytes());
}

impl Parts {
    /// Those of a frame that begins here, if it has any.
    pub(crate) fn of(frame: &Frame<'_>, segment: u64, at: u64) -> Option<Self> {
        let epoch = frame.header.epoch.get();
        frame.batch().map(|bytes| Self { segment, at, epoch, bytes: bytes.to_vec() })
    }

    /// The parts, if they are such as shard `home` of this store can have written.
    pub(crate) fn read(&self, store: &StoreHeader, home: u32) -> Option<Vec<Part<'_>>> {
        let lengths = (store.key_len.get() as usize, store.value_len.get() as usize);
        let (mut rest, mut parts) = (&self.bytes[..], Vec::new());
        while !rest.is_empty() {
            let (header, after) = PartHeader::read_from_prefix(rest).ok()?;
            let (changes, after) = after.split_at_checked(header.len.get() as usize)?;
            rest = after;
            let (shard, mut found) = (header.shard.get(), Vec::new());
            let used =
                read_changes(changes, header.count.get(), lengths, |change| found.push(change))?;
            if used != changes.len() || !can_have(home, shard, store.route(), &found) {
                return None;
            }
            parts.push(Part { shard, sequence: header.sequence.get(), changes: found });
        }
        Some(parts)
    }

    /// Those parts of a batch of shard `home` that are still to be made, where shards have written
    /// up to `written`.
    pub(crate) fn missing(
        &self,
        store: &StoreHeader,
        home: u32,
        written: impl Fn(u32) -> u64,
    ) -> Result<Vec<Part<'_>>> {
        let damaged = |what| Error::damaged(&segment_name(home, self.segment), self.at, what);
        let parts = self.read(store, home).ok_or_else(|| damaged(NOBODYS))?;
        let is_missing = |part: &Part<'_>| is_missing(written(part.shard), part.sequence);
        still_missing(parts, is_missing).ok_or_else(|| damaged(BEHIND_GAP))
    }
}

/// What is said of parts that no opening can make.
pub(crate) const NOBODYS: &str = "a batch has parts that no shard can have";
pub(crate) const BEHIND_GAP: &str =
    "a batch was written behind writes of another shard that are missing";

/// Can shard `home` have written that `shard` is to make these changes?
pub(crate) fn can_have(home: u32, shard: u32, route: Route, changes: &[Change<'_>]) -> bool {
    route.has(shard) && shard > home && route.leads_to(shard, changes)
}

/// Is the frame with this sequence still to be written by a shard that has written so far? None if
/// others are missing before it.
pub(crate) fn is_missing(written: u64, sequence: u64) -> Option<bool> {
    (sequence <= written.saturating_add(1)).then_some(written < sequence)
}

/// Those parts that are still to be made; none if one of them cannot be.
pub(crate) fn still_missing<P>(
    parts: Vec<P>,
    is_missing: impl Fn(&P) -> Option<bool>,
) -> Option<Vec<P>> {
    let mut missing = Vec::new();
    for part in parts {
        if is_missing(&part)? {
            missing.push(part);
        }
    }
    Some(missing)
}

/// Makes in memory what an opening would make: the parts of batches that are missing in files.
pub(crate) fn complete(store: &StoreHeader, shards: &[&Loaded]) -> Result<()> {
    for (home, loaded) in (0..).zip(shards) {
        let Some(parts) = &loaded.parts else { continue };
        let written = |shard: u32| shards.get(shard as usize).map_or(0, |of| of.sequence);
        for part in parts.missing(store, home, written)? {
            let table = &shards[part.shard as usize].table;
            let mut writing = table.writing()?;
            if !writing.reserve(part.changes.len())? {
                return Err(Error::Full { shard: part.shard, max: crate::limits::RECORDS_MAX });
            }
            part.changes.iter().for_each(|change| writing.apply(change, part.sequence));
            writing.applied(part.sequence);
        }
    }
    Ok(())
}

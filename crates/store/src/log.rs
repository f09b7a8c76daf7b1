//! Frames: the writes of a shard as they are in its log, and how they are found again.
//!
//! * A frame is believed if its checksum is right, it continues the sequence and the chain (the
//!   checksum of the frame before it), and its changes fill it exactly.
//! * A frame names the write known to be durable when it was made. So a place that cannot be read
//!   is the end of the log, or, if some frame behind it says that it was durable, damage (A4).

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    format::{DATA_AT, DELETE, FRAME_LEN, FRAME_MAGIC, FrameHeader, PUT, frame_sum},
    planted::{self, Fault},
    shard::Change,
};

/// What a frame says beside its changes.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) chain: u32,
    pub(crate) shard: u32,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) durable: u64,
}

/// Bytes of a frame with these changes.
pub(crate) fn frame_bytes(changes: &[Change<'_>]) -> usize {
    let bytes: usize = changes
        .iter()
        .map(|change| match change {
            Change::Put(key, value) => 1 + key.len() + value.len(),
            Change::Delete(key) => 1 + key.len(),
        })
        .sum();
    (FRAME_LEN + bytes).next_multiple_of(8)
}

/// Writes a frame into `out` and returns its checksum.
pub(crate) fn encode(place: Place, changes: &[Change<'_>], out: &mut Vec<u8>) -> u32 {
    let header = FrameHeader {
        magic: FRAME_MAGIC,
        checksum: 0.into(),
        len: (frame_bytes(changes) as u32).into(),
        count: (changes.len() as u32).into(),
        chain: place.chain.into(),
        shard: place.shard.into(),
        epoch: place.epoch.into(),
        sequence: place.sequence.into(),
        durable: place.durable.into(),
    };
    out.clear();
    out.extend_from_slice(header.as_bytes());
    for change in changes {
        match change {
            Change::Put(key, value) => {
                out.push(PUT);
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Change::Delete(key) => {
                out.push(DELETE);
                out.extend_from_slice(key);
            }
        }
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let sum = frame_sum(out);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// A frame as found.
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes`, if its checksum is right.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = FrameHeader::read_from_prefix(bytes).ok()?;
        let len = header.len.get() as usize;
        if header.magic != FRAME_MAGIC || len < FRAME_LEN || !len.is_multiple_of(8) {
            return None;
        }
        let frame = bytes.get(..len)?;
        if frame_sum(frame) != header.checksum.get() && !planted::is(Fault::ChecksumIgnored) {
            return None;
        }
        Some(Self { header, body: &frame[FRAME_LEN..] })
    }

    /// Hands out its changes; false if they are not what fills a frame.
    pub(crate) fn changes(
        &self,
        key_len: usize,
        value_len: usize,
        mut each: impl FnMut(Change<'a>),
    ) -> bool {
        let mut rest = self.body;
        for _ in 0..self.header.count.get() {
            let Some((kind, after)) = rest.split_first() else { return false };
            let Some((key, after)) = after.split_at_checked(key_len) else { return false };
            rest = match *kind {
                PUT => {
                    let Some((value, after)) = after.split_at_checked(value_len) else {
                        return false;
                    };
                    each(Change::Put(key, value));
                    after
                }
                DELETE => {
                    each(Change::Delete(key));
                    after
                }
                _ => return false,
            };
        }
        rest.len() < 8 && rest.iter().all(|byte| *byte == 0)
    }
}

/// Is there a frame behind `at` which says that a write after `sequence` was durable?
pub(crate) fn was_more_durable(segment: &[u8], at: usize, shard: u32, sequence: u64) -> bool {
    let start = at.max(DATA_AT as usize).next_multiple_of(8);
    let mut places = (start..segment.len()).step_by(8);
    places.any(|at| {
        segment[at..].starts_with(&FRAME_MAGIC)
            && Frame::read(&segment[at..]).is_some_and(|frame| {
                frame.header.shard.get() == shard && frame.header.durable.get() > sequence
            })
    })
}

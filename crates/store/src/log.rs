//! Frames: the writes of a shard as they are in its log, and how they are found again.
//!
//! * A frame is believed if its checksum is right, it continues the sequence and the chain (the
//!   checksum of the frame before it), and its changes fill it exactly.
//! * A frame names the write known to be durable when it was made. So a place that cannot be read
//!   is the end of the log, or, if some frame behind it says that it was durable, damage (A4).

use mainstay_shm::hook;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    format::{
        DATA_AT, FRAME_LEN, FRAME_MAGIC, FrameHeader, HISTORY_LEN, HistoryBytes, NOTE, PARTS,
        PARTS_LEN, frame_sum,
    },
    history::{History, Position, read_changes, write_changes},
    planted::{self, Fault},
    shard::Change,
    sums::Sums,
};

/// What a frame says beside its changes.
#[derive(Clone, Copy)]
pub(crate) struct FramePlace<'a> {
    pub(crate) chain: u32,
    pub(crate) shard: u32,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) durable: u64,
    /// Where the shard is in its history after the frame, if the frame is no write of its own.
    pub(crate) note: Option<History>,
    /// What other shards get of the same batch; empty if it is none. See `parts.rs`.
    pub(crate) parts: &'a [u8],
}

/// Bytes of a frame with these changes, and beside them a note or so many bytes of parts.
pub(crate) fn frame_bytes(changes: &[Change<'_>], note: Option<History>, parts: usize) -> usize {
    let bytes: usize = changes
        .iter()
        .map(|change| match change {
            Change::Put(key, value) => 1 + key.len() + value.len(),
            Change::Delete(key) => 1 + key.len(),
        })
        .sum();
    let note = if note.is_some() { 1 + HISTORY_LEN } else { 0 };
    let parts = if parts > 0 { 1 + PARTS_LEN + parts } else { 0 };
    (FRAME_LEN + note + parts + bytes).next_multiple_of(8)
}

/// Writes a frame into `out`. Returns its checksum, and where the shard is after it.
pub(crate) fn encode(
    place: FramePlace<'_>,
    before: History,
    changes: &[Change<'_>],
    out: &mut Vec<u8>,
) -> (u32, History) {
    let has_more = place.note.is_some() || !place.parts.is_empty();
    let header = FrameHeader {
        magic: FRAME_MAGIC,
        checksum: 0.into(),
        len: (frame_bytes(changes, place.note, place.parts.len()) as u32).into(),
        count: (changes.len() as u32 + u32::from(has_more)).into(),
        chain: place.chain.into(),
        shard: place.shard.into(),
        epoch: place.epoch.into(),
        sequence: place.sequence.into(),
        durable: place.durable.into(),
    };
    out.clear();
    out.extend_from_slice(header.as_bytes());
    if let Some(note) = place.note {
        out.push(NOTE);
        out.extend_from_slice(note.to_bytes().as_bytes());
    }
    if !place.parts.is_empty() {
        out.push(PARTS);
        out.extend_from_slice(&(place.parts.len() as u32).to_le_bytes());
        out.extend_from_slice(place.parts);
    }
    let from = out.len();
    write_changes(changes, out);
    let history = place.note.unwrap_or_else(|| next(before, place.epoch, &out[from..]));
    out.resize(out.len().next_multiple_of(8), 0);
    let sum = frame_sum(out);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    (sum, history)
}

fn next(before: History, epoch: u64, changes: &[u8]) -> History {
    match before {
        History::At(position) => History::At(position.after(epoch, changes)),
        History::Mending(from) => History::Mending(from),
    }
}

/// Parts with their length before them, and what is behind them.
fn split_parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<PARTS_LEN>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

/// A frame as found.
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes`, if its checksum is right.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        Self::read_by(bytes, frame_sum)
    }

    /// The same, where somebody knows the checksum of its bytes.
    pub(crate) fn read_by(bytes: &'a [u8], sum: impl FnOnce(&[u8]) -> u32) -> Option<Self> {
        let (header, _) = FrameHeader::read_from_prefix(bytes).ok()?;
        let len = header.len.get() as usize;
        if header.magic != FRAME_MAGIC || len < FRAME_LEN || !len.is_multiple_of(8) {
            return None;
        }
        let frame = bytes.get(..len)?;
        let is_wrong = sum(frame) != header.checksum.get();
        let is_believed =
            planted::is(Fault::ChecksumIgnored) || hook::planted("store-frame-unchecked");
        if is_wrong && !is_believed {
            return None;
        }
        Some(Self { header, body: &frame[FRAME_LEN..] })
    }

    /// What other shards get of the same batch, if there is anything.
    pub(crate) fn batch(&self) -> Option<&'a [u8]> {
        let (_, rest) = self.body.split_first().filter(|(kind, _)| **kind == PARTS)?;
        split_parts(rest).map(|(parts, _)| parts)
    }

    /// Its note, and its changes as bytes with their number.
    fn parts(&self) -> Option<(Option<History>, &'a [u8], u32)> {
        let count = self.header.count.get();
        match self.body.split_first() {
            Some((&NOTE, rest)) if count > 0 => {
                let (note, rest) = HistoryBytes::read_from_prefix(rest).ok()?;
                Some((Some(History::from_bytes(&note)), rest, count - 1))
            }
            Some((&PARTS, rest)) if count > 0 => {
                let (_, rest) = split_parts(rest)?;
                Some((None, rest, count - 1))
            }
            _ => Some((None, self.body, count)),
        }
    }

    /// Hands out its changes; false if they are not what fills a frame.
    pub(crate) fn changes(
        &self,
        key_len: usize,
        value_len: usize,
        each: impl FnMut(Change<'a>),
    ) -> bool {
        let Some((_, body, count)) = self.parts() else { return false };
        let Some(used) = read_changes(body, count, (key_len, value_len), each) else {
            return false;
        };
        let rest = &body[used..];
        rest.len() < 8 && rest.iter().all(|byte| *byte == 0)
    }

    /// Its changes as bytes with their number, if it is a write that follows `before`, and where
    /// it leads; otherwise where its note says.
    pub(crate) fn follow(
        &self,
        before: History,
        lengths: (usize, usize),
    ) -> Option<(History, Option<Written<'a>>)> {
        let (note, body, count) = self.parts()?;
        let used = read_changes(body, count, lengths, |_| {})?;
        if let Some(note) = note {
            return Some((note, None));
        }
        let (epoch, changes) = (self.header.epoch.get(), &body[..used]);
        let after = next(before, epoch, changes);
        let written = after.position().map(|position| Written { position, count, changes });
        Some((after, written))
    }
}

/// A write as it is in a log.
///
/// Example: see [`crate::RawStore::tail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written<'a> {
    /// Where it leads.
    pub position: Position,
    /// How many changes it has.
    pub count: u32,
    /// Their bytes; see [`crate::read_changes`].
    pub changes: &'a [u8],
}

/// Is there a frame behind `at` which says that a write after `sequence` was durable?
pub(crate) fn was_more_durable(segment: &[u8], at: usize, shard: u32, sequence: u64) -> bool {
    let start = at.max(DATA_AT as usize).next_multiple_of(8);
    if segment.get(start..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
        return false;
    }
    // What a header says is asked first, as a checksum costs more.
    let mut sums = Sums::new(segment, &[]);
    let mut places = (start..segment.len()).step_by(8);
    places.any(|at| {
        let rest = &segment[at..];
        let says_so = rest.starts_with(&FRAME_MAGIC)
            && FrameHeader::read_from_prefix(rest).is_ok_and(|(header, _)| {
                header.shard.get() == shard && header.durable.get() > sequence
            });
        says_so && Frame::read_by(rest, |frame| sums.of(at + 8, at + frame.len())).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Position,
        sums::{counted, hostile},
    };

    #[test]
    fn a_value_that_looks_like_frames_is_read_a_few_times_at_most() {
        let mut segment = vec![0; DATA_AT as usize];
        segment.extend(hostile(FRAME_MAGIC, 256 << 10));
        let bound = 8 * segment.len() as u64;
        let (found, read) = counted(|| was_more_durable(&segment, 0, 0, 5));
        assert!(!found && (1..bound).contains(&read), "{read}");
        // And a frame behind it is found nevertheless.
        let (chain, shard, epoch, sequence, durable) = (1, 0, 1, 7, 6);
        let place = FramePlace { chain, shard, epoch, sequence, durable, note: None, parts: &[] };
        let (mut frame, before) = (Vec::new(), History::At(Position::START));
        encode(place, before, &[Change::Put(b"key", b"value")], &mut frame);
        segment.extend_from_slice(&frame);
        let (found, read) = counted(|| was_more_durable(&segment, 0, 0, 5));
        assert!(found && read < bound, "{read}");
    }
}

//! Frames: writes, each with the checksum of the one before it.

use mainstay_base::Crc32c;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    Entry, Past, Record,
    record::{Content, NOTE, Part, count_of, read_record, record_len, write_all, write_record},
};
use crate::{
    format::{FRAME_LEN, FrameHeader, HISTORY_LEN, NUMBERS_END},
    history::History,
    log::Written,
    log_end::LogEnd,
    planted::{self, Fault},
    sums::{self, Sums},
};

const FRAME_MAGIC: [u8; 4] = *b"MSAF";
/// In a frame's number of records: they were there before, and only got another place.
const MOVED: u32 = 1 << 31;

/// The checksum of a frame: of the store and the shard, and everything behind the checksum itself.
/// So a value that is a part of some other store's log is never taken for a frame.
fn frame_sum(seed: u32, frame: &[u8]) -> u32 {
    sums::count(frame.len());
    let mut sum = Crc32c::new();
    sum.update(&seed.to_le_bytes());
    sum.update(&frame[8..]);
    sum.finish()
}

/// Where frames of a shard end in a file, the last of them and its checksum.
pub(crate) fn log_end(shard: u32, last: (u64, u32), at: u64) -> LogEnd {
    LogEnd::new(FRAME_MAGIC, shard, last, at)
}

/// What a frame says beside its changes.
#[derive(Clone, Copy)]
pub(crate) struct FrameHead {
    /// Of the store and the shard; see [`crate::format::chain_start`].
    pub(crate) seed: u32,
    pub(crate) chain: u32,
    pub(crate) shard: u32,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) durable: u64,
    /// What is written was there before.
    pub(crate) is_moved: bool,
}

/// Writes a frame into `out`. Returns its checksum.
pub(crate) fn encode(head: FrameHead, entry: &Entry<'_>, out: &mut Vec<u8>) -> u32 {
    let Entry { changes, ends, parts, note, .. } = *entry;
    let count = changes.len() as u32 + count_of(parts) + u32::from(note.is_some());
    let header = FrameHeader {
        magic: FRAME_MAGIC,
        checksum: 0.into(),
        len: (entry.frame_bytes() as u32).into(),
        count: (count | if head.is_moved { MOVED } else { 0 }).into(),
        chain: head.chain.into(),
        shard: head.shard.into(),
        epoch: head.epoch.into(),
        sequence: head.sequence.into(),
        durable: head.durable.into(),
    };
    out.clear();
    out.extend_from_slice(header.as_bytes());
    write_all(changes, ends, out);
    out.extend_from_slice(parts);
    if let Some(note) = note {
        let bytes = note.to_bytes();
        write_record((NOTE, &[]), HISTORY_LEN as u32, out, |out| {
            out.extend_from_slice(bytes.as_bytes());
        });
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let sum = frame_sum(head.seed, out);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// What a frame has.
pub(crate) struct Contents<'a> {
    pub(crate) records: Vec<Record<'a>>,
    /// These records as bytes.
    changes: &'a [u8],
    pub(crate) parts: Vec<Part<'a>>,
    note: Option<History>,
    is_moved: bool,
}

impl<'a> Contents<'a> {
    /// Where the history is after the frame of this epoch and sequence, and the write that it is if
    /// it is one.
    pub(crate) fn follow(
        &self,
        before: Option<Past>,
        epoch: u64,
        sequence: u64,
    ) -> (Option<Past>, Option<Written<'a>>) {
        let (count, changes) = (self.records.len() as u32, self.changes);
        let after = follow(before, (epoch, sequence), self.note, (changes, self.is_moved));
        let written = after.filter(|_| before != after && self.note.is_none()).and_then(|past| {
            let position = past.history.position()?;
            Some(Written { position, count, changes })
        });
        (after, written)
    }
}

/// Where the history is after a frame of this epoch and sequence, with these changes.
pub(crate) fn follow(
    before: Option<Past>,
    (epoch, sequence): (u64, u64),
    note: Option<History>,
    (changes, is_moved): (&[u8], bool),
) -> Option<Past> {
    if let Some(history) = note {
        return Some(Past { history, since: sequence });
    }
    let past = before?;
    let is_write = !changes.is_empty() && (!is_moved || planted::is(Fault::MovedCounted));
    match past.history {
        History::At(at) if is_write => {
            Some(Past { history: History::At(at.after(epoch, changes)), ..past })
        }
        _ => before,
    }
}

/// A frame as found.
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// How long the frame is whose header is at the front, if it can be one.
    pub(crate) fn len_of(bytes: &[u8]) -> Option<usize> {
        let (header, _) = FrameHeader::read_from_prefix(bytes).ok()?;
        let len = header.len.get() as usize;
        let can_be = header.magic == FRAME_MAGIC && len >= FRAME_LEN && len.is_multiple_of(8);
        can_be.then_some(len)
    }

    /// Does the frame whose header is at the front say that it only moves records?
    pub(crate) fn is_moved(bytes: &[u8]) -> bool {
        let header = FrameHeader::read_from_prefix(bytes);
        header.is_ok_and(|(header, _)| header.count.get() & MOVED != 0)
    }

    /// The frame at the front of `bytes`, if its checksum is right.
    pub(crate) fn read(seed: u32, bytes: &'a [u8]) -> Option<Self> {
        Self::read_by(bytes, |frame| frame_sum(seed, frame))
    }

    /// The same, where somebody knows the checksum of its bytes.
    fn read_by(bytes: &'a [u8], sum: impl FnOnce(&[u8]) -> u32) -> Option<Self> {
        let frame = bytes.get(..Self::len_of(bytes)?)?;
        let (header, body) = FrameHeader::read_from_prefix(frame).ok()?;
        let is_sound = sum(frame) == header.checksum.get();
        (is_sound || planted::is(Fault::ChecksumIgnored)).then_some(Self { header, body })
    }

    /// What it has; none if that is not what fills a frame.
    pub(crate) fn contents(&self) -> Option<Contents<'a>> {
        let (mut records, mut parts, mut note) = (Vec::new(), Vec::new(), None);
        let (mut rest, mut changes) = (self.body, &self.body[..0]);
        let count = self.header.count.get();
        for _ in 0..count & !MOVED {
            let at = FRAME_LEN + self.body.len() - rest.len();
            let (content, after) = read_record(rest)?;
            match content {
                Content::Change(change, end) => {
                    records.push(Record { change, end, at });
                    // They are at the front.
                    changes = &self.body[..self.body.len() - after.len()];
                }
                Content::Part(part) => parts.push(part),
                Content::Note(history) => note = Some(history),
            }
            rest = after;
        }
        let is_filled = rest.len() < 8 && rest.iter().all(|byte| *byte == 0);
        let is_moved = count & MOVED != 0;
        is_filled.then_some(Contents { records, changes, parts, note, is_moved })
    }

    /// Its changes alone.
    pub(crate) fn records(&self) -> Option<Vec<Record<'a>>> {
        self.contents().map(|contents| contents.records)
    }
}

/// The sound frames at or behind `at` that are of a shard and wanted, and where they are.
///
/// What a header says is asked first, as a checksum costs more.
fn behind<'a>(
    seed: u32,
    bytes: &'a [u8],
    at: usize,
    shard: u32,
    is_wanted: impl Fn(&FrameHeader) -> bool,
) -> impl Iterator<Item = (usize, Frame<'a>)> {
    let start = at.next_multiple_of(8).min(bytes.len());
    let bytes = &bytes[start..];
    let mut sums = Sums::new(bytes, &seed.to_le_bytes());
    (0..bytes.len()).step_by(8).filter_map(move |at| {
        let rest = bytes.get(at..).filter(|rest| rest.starts_with(&FRAME_MAGIC))?;
        let (header, _) = FrameHeader::read_from_prefix(rest).ok()?;
        if header.shard.get() != shard || !is_wanted(&header) {
            return None;
        }
        let frame = Frame::read_by(rest, |frame| sums.of(at + 8, at + frame.len()))?;
        Some((start + at, frame))
    })
}

/// Is there a frame behind `at` which says that a write after `sequence` was durable?
pub(crate) fn was_more_durable(
    seed: u32,
    bytes: &[u8],
    at: usize,
    shard: u32,
    sequence: u64,
) -> bool {
    behind(seed, bytes, at, shard, |header| header.durable.get() > sequence).next().is_some()
}

/// The first sound frame of a shard at or behind `at` that is of a write after `sequence`.
pub(crate) fn next_sound(
    seed: u32,
    bytes: &[u8],
    at: usize,
    (shard, sequence): (u32, u64),
) -> Option<(usize, FrameHeader)> {
    let is_later =
        |header: &FrameHeader| (sequence + 1..NUMBERS_END).contains(&header.sequence.get());
    behind(seed, bytes, at, shard, is_later)
        .find(|(_, frame)| frame.contents().is_some())
        .map(|(at, frame)| (at, frame.header))
}

/// The sound changes of bytes that were frames, and are not any more, and whether these are all that
/// the frames had.
///
/// They are looked for only where lengths lead to that fit together, as a value may have what looks
/// like a record: behind one that is not sound nothing is believed, unless the records fill their
/// frame, and are as many as it says.
pub(crate) fn sound_changes(bytes: &[u8]) -> (Vec<Record<'_>>, bool) {
    let (mut found, mut is_all, mut at) = (Vec::new(), true, 0);
    while at < bytes.len() {
        // Where the frame ends: as it says, if another one begins there, or nothing does.
        let said = Frame::len_of(&bytes[at..]).filter(|len| match bytes.get(at + len..) {
            Some([]) => true,
            Some(rest) => Frame::len_of(rest).is_some(),
            None => false,
        });
        let end = at + said.unwrap_or(bytes.len() - at);
        let frame = &bytes[at..end];
        let (records, is_whole) = changes_in(frame);
        found.extend(records.into_iter().map(|record| Record { at: at + record.at, ..record }));
        is_all &= is_whole && said.is_some();
        at = end;
    }
    (found, is_all)
}

/// The same of one frame.
fn changes_in(frame: &[u8]) -> (Vec<Record<'_>>, bool) {
    let (mut records, mut at, mut count, mut bad) = (Vec::new(), FRAME_LEN, 0, None);
    while let Some(len) = record_len(frame.get(at..).unwrap_or(&[])) {
        match read_record(&frame[at..at + len]) {
            Some((Content::Change(change, end), _)) => records.push(Record { change, end, at }),
            Some(_) => {}
            None => bad = bad.or(Some(records.len())),
        }
        at += len;
        count += 1;
    }
    let padding = frame.get(at..).unwrap_or(&[]);
    let said =
        FrameHeader::read_from_prefix(frame).map_or(0, |(head, _)| head.count.get() & !MOVED);
    let fits = padding.len() < 8 && padding.iter().all(|byte| *byte == 0) && count == said;
    if let Some(bad) = bad.filter(|_| !fits) {
        records.truncate(bad);
    }
    (records, fits && bad.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        shard::Change,
        sums::{counted, hostile},
    };

    #[test]
    fn a_value_that_looks_like_frames_is_read_a_few_times_at_most() {
        let (seed, shard) = (77, 0);
        let mut bytes = hostile(FRAME_MAGIC, 256 << 10);
        let bound = 8 * bytes.len() as u64;
        let (found, read) = counted(|| was_more_durable(seed, &bytes, 0, shard, 5));
        assert!(!found && (1..bound).contains(&read), "{read}");
        let (found, read) = counted(|| next_sound(seed, &bytes, 0, (shard, 5)));
        assert!(found.is_none() && (1..bound).contains(&read), "{read}");
        // And a frame behind it is found nevertheless.
        let (at, mut frame) = (bytes.len(), Vec::new());
        let (chain, epoch, sequence, durable, is_moved) = (1, 1, 7, 6, false);
        let head = FrameHead { seed, chain, shard, epoch, sequence, durable, is_moved };
        encode(head, &Entry::new(&[Change::Put(b"key", b"value")], 0), &mut frame);
        bytes.extend_from_slice(&frame);
        let (found, read) = counted(|| was_more_durable(seed, &bytes, 0, shard, 5));
        assert!(found && read < bound, "{read}");
        let (found, read) = counted(|| next_sound(seed, &bytes, 0, (shard, 5)));
        assert!(found.is_some_and(|found| found.0 == at) && read < bound, "{read}");
    }
}

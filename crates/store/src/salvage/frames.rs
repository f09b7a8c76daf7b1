//! Finding frames behind what is damaged.
//!
//! A frame with a change that puts is longer than a value, so no value has one in it. What is shorter
//! is believed only where something else leads to it: the checksum that the damaged frame has, and the
//! next one names, or frames that follow it.

use zerocopy::FromBytes;

use crate::{
    format::{
        DELETE, FRAME_LEN, FRAME_MAGIC, FrameHeader, HISTORY_LEN, NOTE, NUMBERS_END, PARTS,
        PARTS_LEN, PUT, frame_sum,
    },
    history::read_changes,
    log::Frame,
    log_end::LogEnd,
    sums::Sums,
};

/// Where in its log a shard is.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) shard: u32,
    /// Bytes of a key and of a value.
    pub(super) lengths: (usize, usize),
    /// The last write.
    pub(super) sequence: u64,
    /// Its checksum, if it was found.
    pub(super) chain: Option<u32>,
}

impl Point {
    /// The frame at the front of some bytes, if it is the next one.
    pub(super) fn next<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        self.any(bytes).filter(|Frame { header, .. }| {
            header.sequence.get() == self.sequence + 1
                && self.chain.is_none_or(|chain| chain == header.chain.get())
        })
    }

    /// Where the log seems to end, if what is before that was found.
    pub(super) fn end(&self, at: u64) -> Option<LogEnd> {
        self.chain.map(|chain| LogEnd::of_fixed(self.shard, (self.sequence, chain), at))
    }

    /// The same, whichever it is.
    fn any<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        self.any_by(bytes, frame_sum)
    }

    /// The same, where somebody knows the checksum of its bytes.
    fn any_by<'a>(&self, bytes: &'a [u8], sum: impl FnOnce(&[u8]) -> u32) -> Option<Frame<'a>> {
        if !bytes.starts_with(&FRAME_MAGIC) {
            return None;
        }
        let (key_len, value_len) = self.lengths;
        Frame::read_by(bytes, sum).filter(|frame| {
            let header = &frame.header;
            header.shard.get() == self.shard
                && (1..NUMBERS_END).contains(&header.sequence.get())
                && frame.changes(key_len, value_len, |_| {})
        })
    }

    /// Makes the frame at `at` what it was, if all but its first eight bytes is sound: its magic and
    /// its own checksum are in no checksum. What it was is known from the one, or from what is behind it:
    /// the next frame, or the header of the next segment, with the write before that and its checksum.
    pub(super) fn mend(&self, bytes: &mut [u8], at: usize, behind: Option<(u64, u32)>) -> bool {
        let Some(frame) = header_at(bytes, at).and_then(|it| bytes.get(at..at + it.1)) else {
            return false;
        };
        let (mut mended, sum) = (frame.to_vec(), frame_sum(frame));
        let is_own = frame[4..8] == sum.to_le_bytes();
        mended[..4].copy_from_slice(&FRAME_MAGIC);
        mended[4..8].copy_from_slice(&sum.to_le_bytes());
        if self.next(&mended).is_none() {
            return false;
        }
        let after = Self { sequence: self.sequence + 1, chain: Some(sum), ..*self };
        let is_named = behind == Some((self.sequence + 1, sum));
        if !is_own && !is_named && after.next(&bytes[at + mended.len()..]).is_none() {
            return false;
        }
        bytes[at..at + mended.len()].copy_from_slice(&mended);
        true
    }

    /// The first frame behind `at` that is one of this log, and where it is. `is_bounded` says that no
    /// more writes are missing than there is room for.
    pub(super) fn later(
        &self,
        bytes: &[u8],
        at: usize,
        is_bounded: bool,
    ) -> Option<(usize, FrameHeader)> {
        let rest = bytes.get(at..)?;
        let (sum, mut sums) = (rest.get(4..8), Sums::new(rest, &[]));
        (0..rest.len()).step_by(8).find_map(|place| {
            let sum_here = |frame: &[u8]| sums.of(place + 8, place + frame.len());
            let header = self.any_by(&rest[place..], sum_here)?.header;
            let missing = header.sequence.get().checked_sub(self.sequence + 1)?;
            let room = (place / FRAME_LEN) as u64;
            let can_be = if is_bounded { (1..=room).contains(&missing) } else { true };
            let is_next = missing == 1 && sum == Some(&header.chain.get().to_le_bytes());
            (can_be && (is_next || self.is_long(rest, place))).then_some((at + place, header))
        })
    }

    /// Is the frame at `at`, with those that follow it, longer than a value?
    fn is_long(&self, bytes: &[u8], at: usize) -> bool {
        let (mut point, mut end) = (Self { chain: None, ..*self }, at);
        while let Some(frame) = self.any(&bytes[end..]) {
            let header = frame.header;
            let follows = point.chain.is_none_or(|chain| chain == header.chain.get())
                && (end == at || header.sequence.get() == point.sequence + 1);
            if !follows {
                return false;
            }
            end += header.len.get() as usize;
            if end - at > self.lengths.1 {
                return true;
            }
            point.chain = Some(header.checksum.get());
            point.sequence = header.sequence.get();
        }
        false
    }

    /// Keys that bytes which were frames name, as they can be read now.
    pub(super) fn named(&self, bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        let mut at = 0;
        while let Some((_, len)) = header_at(bytes, at) {
            let end = bytes.len().min(at + len);
            self.named_in(&bytes[at + FRAME_LEN..end], each);
            at = end;
        }
    }

    fn named_in(&self, mut changes: &[u8], each: &mut dyn FnMut(&[u8])) {
        match changes.split_first() {
            Some((&NOTE, rest)) => changes = rest.get(HISTORY_LEN..).unwrap_or_default(),
            Some((&PARTS, rest)) => {
                let len = rest.first_chunk::<PARTS_LEN>().map(|len| u32::from_le_bytes(*len));
                let behind = len.and_then(|len| rest.get(PARTS_LEN..)?.get(len as usize..));
                changes = behind.unwrap_or_default();
            }
            _ => {}
        }
        while let [PUT | DELETE, ..] = changes {
            let used = read_changes(changes, 1, self.lengths, |change| each(change.key()));
            changes = used.and_then(|used| changes.get(used..)).unwrap_or_default();
        }
    }
}

/// What may be the header of a frame at this place, and the length that it says, if that can be.
fn header_at(bytes: &[u8], at: usize) -> Option<(FrameHeader, usize)> {
    let (header, _) = FrameHeader::read_from_prefix(bytes.get(at..)?).ok()?;
    let len = header.len.get() as usize;
    (len >= FRAME_LEN && len.is_multiple_of(8)).then_some((header, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::DATA_AT,
        sums::{counted, hostile},
    };

    #[test]
    fn what_looks_like_frames_is_read_a_few_times_at_most() {
        let mut bytes = vec![0; DATA_AT as usize];
        bytes.extend(hostile(FRAME_MAGIC, 256 << 10));
        let point = Point { shard: 0, lengths: (4, 64), sequence: 5, chain: None };
        let (found, read) = counted(|| point.later(&bytes, DATA_AT as usize, false));
        assert!(found.is_none() && (1..8 * bytes.len() as u64).contains(&read), "{read}");
    }
}

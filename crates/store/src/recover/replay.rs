//! Going through the frames of a shard's log, from segment to segment (A1, A4).

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    format::{
        DATA_AT, FRAME_LEN, SegmentHeader, StoreHeader, chain_start, read_headers, segment_name,
    },
    history::{History, Position},
    limits::{RECORDS_MAX, SEGMENT_BYTES_MAX},
    live::{Control, Place},
    log::{Frame, was_more_durable},
    log_end::LogEnd,
    parts::Parts,
    planted::{self, Fault},
    route::Route,
    table::{Table, Writing},
    unwritten::Unwritten,
};

/// All bytes of a segment.
fn whole(file: &impl Storage, name: &str, segment: &SegmentHeader) -> Result<Vec<u8>> {
    let len = file.len().map_err(Error::io(name))?;
    if len != segment.bytes.get() || len > SEGMENT_BYTES_MAX {
        return Err(Error::damaged(name, len, "the segment is not as long as its header says"));
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(0, &mut bytes).map_err(Error::io(name))?;
    Ok(bytes)
}

pub(super) struct Cursor {
    pub(super) id: [u8; 16],
    pub(super) segment: u64,
    pub(super) sequence: u64,
    pub(super) chain: u32,
    pub(super) history: History,
    /// Of the last frame.
    pub(super) parts: Option<Parts>,
    /// Frames after this one are writes that follow each other in the history.
    pub(super) since: u64,
    /// Frames up to this one are in the records already.
    pub(super) from: u64,
    pub(super) shard: u32,
    route: Route,
    pub(super) key_len: usize,
    pub(super) value_len: usize,
    pub(super) is_first: bool,
    pub(super) unwritten: Option<Unwritten>,
    /// A segment, and which write was durable when it was the last: memory says so that a dead process
    /// left.
    pub(super) durable: Option<(u64, u64)>,
}

impl Cursor {
    pub(super) fn new(store: &StoreHeader, shard: u32, from: u64, since: u64) -> Self {
        let (key_len, value_len) = (store.key_len.get() as usize, store.value_len.get() as usize);
        let (segment, sequence, chain, is_first, id) = (0, 0, 0, true, store.id);
        let route = store.route();
        let (history, parts) = (History::Mending(Position::START), None);
        Self {
            segment,
            id,
            sequence,
            chain,
            history,
            parts,
            since,
            from,
            shard,
            route,
            key_len,
            value_len,
            is_first,
            unwritten: None,
            durable: None,
        }
    }

    /// Stands before the first frame of a segment.
    fn begin(&mut self, segment: &SegmentHeader) {
        self.segment = segment.number.get();
        self.sequence = segment.first_sequence.get().saturating_sub(1);
        self.chain = segment.chain.get();
        self.history = History::from_bytes(&segment.origin);
        self.is_first = false;
    }

    /// Was everything up to the memory's last write durable, and does the log end with it? Then the
    /// cursor stands there.
    pub(super) fn is_at<F: Folder>(
        &mut self,
        folder: &F,
        segments: &[SegmentHeader],
        control: &Control<'_>,
        place: Place,
    ) -> Result<bool> {
        let Some(segment) = segments.last() else { return Ok(false) };
        let is_all = segment.number.get() == place.segment
            && segment.first_sequence.get() <= place.sequence
            && segment.vouched.get() <= place.sequence
            && (control.applied(), control.durable()) == (place.sequence, place.sequence)
            && control.written() == (place.segment, place.at);
        let frame = place.at.checked_sub(place.len).filter(|frame| *frame >= DATA_AT);
        let (Some(frame), true) = (frame, is_all && place.len >= FRAME_LEN as u64) else {
            return Ok(false);
        };
        let name = segment_name(self.shard, place.segment);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let len = file.len().map_err(Error::io(&*name))?;
        let has_both = read_headers::<SegmentHeader>(&file, &name)?.len() == 2;
        if !has_both || len != segment.bytes.get() || place.at > len {
            return Ok(false);
        }
        // What was begun behind it begins with bytes that are not zero.
        let mut bytes = vec![0; (place.at - frame + FRAME_LEN as u64).min(len - frame) as usize];
        file.read_at(frame, &mut bytes).map_err(Error::io(&*name))?;
        let (last, behind) = bytes.split_at(place.len as usize);
        let is_it = |frame: &Frame<'_>| {
            let header = frame.header;
            u64::from(header.len.get()) == place.len
                && header.sequence.get() == place.sequence
                && header.checksum.get() == place.chain
                && header.shard.get() == self.shard
        };
        let Some(last) = Frame::read(last).filter(is_it) else { return Ok(false) };
        if behind.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        self.parts = Parts::of(&last, place.segment, frame);
        (self.sequence, self.chain, self.history) = (place.sequence, place.chain, place.history);
        Ok(true)
    }

    /// Takes the frames of the segment that a memory's last write is in, and writes those to it that
    /// are in the ring only. The sound bytes, and whether both headers are sound and nothing is
    /// behind the last frame; `None` if memory and segment do not belong together.
    pub(super) fn replay_left<F: Folder>(
        &mut self,
        folder: &F,
        segment: &SegmentHeader,
        table: &Table,
        place: Place,
        writing: &mut Writing<'_>,
    ) -> Result<Option<(Vec<u8>, bool)>> {
        let name = segment_name(self.shard, place.segment);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let has_both = read_headers::<SegmentHeader>(&file, &name)?.len() == 2;
        let mut bytes = whole(&file, &name, segment)?;
        let written = match table.control()?.written() {
            (number, at) if number == place.segment => at.min(place.at),
            (number, _) if number > place.segment => place.at,
            _ => DATA_AT,
        };
        let is_sound = written >= DATA_AT
            && place.at <= bytes.len() as u64
            && place.at - written <= table.ring_bytes();
        if !is_sound {
            return Ok(None);
        }
        let (start, end) = (written as usize, place.at as usize);
        self.begin(segment);
        let ends = self.replay(&bytes[..start], DATA_AT as usize, writing)?;
        // What the file has no more as it was written, the ring may have.
        let is_damaged = ends < start && bytes[ends..start].iter().any(|byte| *byte != 0);
        let is_healed = is_damaged
            && (end - ends) as u64 <= table.ring_bytes()
            && !planted::is(Fault::RingUnasked);
        let written = if is_healed { ends as u64 } else { written };
        let from_ring = table.ring_read(written, place.at);
        bytes[written as usize..end].copy_from_slice(&from_ring);
        let ends = self.replay(&bytes[..end], ends, writing)?;
        if (ends, self.sequence, self.chain) != (end, place.sequence, place.chain) {
            return Ok(None);
        }
        file.write_at(written, &from_ring).map_err(Error::io(&*name))?;
        let end = self.replay_rest(&bytes, end, (segment, &name), writing)?;
        let is_clean = has_both && !is_healed && bytes[end..].iter().all(|byte| *byte == 0);
        bytes.truncate(end);
        Ok(Some((bytes, is_clean)))
    }

    /// Takes the frames of segments, and returns the sound bytes of the last one, or `tail` if there
    /// are no segments. `told` is told how many bytes each has.
    pub(super) fn replay_all<F: Folder>(
        &mut self,
        folder: &F,
        segments: &[SegmentHeader],
        mut tail: Vec<u8>,
        writing: &mut Writing<'_>,
        told: &dyn Fn(u64),
    ) -> Result<Vec<u8>> {
        for segment in segments {
            let name = segment_name(self.shard, segment.number.get());
            let file = folder.file(&name).map_err(Error::io(&*name))?;
            let (first, chain) = (segment.first_sequence.get(), segment.chain.get());
            let origin = History::from_bytes(&segment.origin);
            let follows =
                first == self.sequence + 1 && chain == self.chain && origin == self.history;
            let continues = self.is_first || follows;
            let starts = first > 1 || chain == chain_start(&self.id, self.shard);
            if !continues || !starts || first == 0 {
                let what = "the segment does not continue the one before";
                return Err(Error::damaged(&name, 0, what));
            }
            self.begin(segment);
            tail = whole(&file, &name, segment)?;
            let mut end = DATA_AT as usize;
            if self.unwritten.is_some() {
                end = self.replay(&tail, end, writing)?;
            }
            if let Some(unwritten) = &self.unwritten {
                let after = (self.sequence, self.chain, self.shard);
                unwritten.complete((segment.number.get(), end), &mut tail, after);
            }
            let end = self.replay_rest(&tail, end, (segment, &name), writing)?;
            told(tail.len() as u64);
            tail.truncate(end);
        }
        Ok(tail)
    }

    /// Takes the frames of a segment from `start` on, and sees that it is not damaged where they
    /// end. Returns where.
    fn replay_rest(
        &mut self,
        bytes: &[u8],
        start: usize,
        (segment, name): (&SegmentHeader, &str),
        writing: &mut Writing<'_>,
    ) -> Result<usize> {
        let end = self.replay(bytes, start, writing)?;
        // A log that was replaced by an older one ends with zeros.
        let is_told = |(number, durable)| {
            number == segment.number.get()
                && durable > self.sequence
                && bytes[end..].iter().any(|byte| *byte != 0)
                && !planted::is(Fault::DurableUnasked)
        };
        if segment.vouched.get() > self.sequence
            || self.durable.is_some_and(is_told)
            || was_more_durable(bytes, end, self.shard, self.sequence)
            || LogEnd::of_fixed(self.shard, (self.sequence, self.chain), end as u64)
                .is_damaged(bytes.get(end..).unwrap_or_default())
        {
            let what = "a write that was durable is not as it was written";
            return Err(Error::damaged(name, end as u64, what));
        }
        Ok(end)
    }

    /// Takes the frames from `start` on, and returns where they end.
    fn replay(&mut self, segment: &[u8], start: usize, writing: &mut Writing<'_>) -> Result<usize> {
        let mut at = start;
        while let Some(frame) = segment.get(at..).and_then(Frame::read) {
            let head = frame.header;
            let continues = head.sequence.get() == self.sequence + 1
                && head.chain.get() == self.chain
                && head.shard.get() == self.shard;
            let lengths = (self.key_len, self.value_len);
            let whole = continues && frame.changes(self.key_len, self.value_len, |_| {});
            let Some((history, written)) =
                whole.then(|| frame.follow(self.history, lengths)).flatten()
            else {
                break;
            };
            self.sequence += 1;
            self.history = history;
            self.parts = Parts::of(&frame, self.segment, at as u64);
            let start = at as u64;
            if written.is_none() {
                self.since = self.sequence;
            }
            self.chain = head.checksum.get();
            at += head.len.get() as usize;
            if self.sequence > self.from {
                if !writing.reserve(head.count.get() as usize)? {
                    return Err(Error::Full { shard: self.shard, max: RECORDS_MAX });
                }
                let (sequence, shard, route) = (self.sequence, self.shard, self.route);
                let mut misplaced = None;
                frame.changes(self.key_len, self.value_len, |change| {
                    misplaced = misplaced.or_else(|| route.elsewhere(shard, change.key()));
                    writing.apply(&change, sequence);
                });
                if let Some(belongs) = misplaced {
                    let (file, offset) = (segment_name(shard, self.segment), start);
                    return Err(Error::Misplaced { file, offset, shard, belongs });
                }
                writing.applied(sequence);
            }
        }
        Ok(at)
    }
}

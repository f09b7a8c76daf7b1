//! Reading a shard's log behind its writers, as followers need it.

use std::sync::Arc;

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    format::{DATA_AT, FRAME_LEN, segment_name},
    history::{History, Position},
    log::{Frame, Written},
    shard::{Log, Segment, Shard},
    store::RawStore,
};

/// What is read of a segment at a time, unless a frame is longer.
const CHUNK_BYTES: u64 = 64 << 10;

/// A place in the log of a shard, to read on from.
///
/// Example: see [`RawStore::tail`].
pub struct Tail<F: Folder> {
    shard: u32,
    segment: u64,
    file: Arc<F::File>,
    at: u64,
    /// Of the last frame before it, in the log and in the history.
    sequence: u64,
    position: Position,
    bytes: Vec<u8>,
}

impl<F: Folder> Tail<F> {
    /// Where in its history the shard was here.
    ///
    /// Example: see [`RawStore::tail`].
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The number of the last frame before it in this log.
    ///
    /// Example: see [`RawStore::retain`].
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// A place in the log of a shard that is looked for.
///
/// Example: see [`RawStore::seek`].
pub struct Seek<F: Folder> {
    state: Seeking<F>,
}

enum Seeking<F: Folder> {
    /// It needs no looking.
    Known(Option<Found<Tail<F>>>),
    /// It is looked for from here on, up to a frame.
    From { tail: Tail<F>, history: History, wanted: u64 },
}

/// What is known of a place in a history.
///
/// Example: see [`RawStore::tail`].
pub enum Found<T> {
    /// The log goes on from there.
    Here(T),
    /// It is before all that the log has, or would be.
    Older,
    /// This shard was never there.
    Foreign,
}

/// Up to where a log was read.
///
/// Example: see [`RawStore::tail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// There is more, or may be.
    More,
    /// To the last write.
    End,
    /// What comes next is not in the log any more.
    Cut,
}

/// What to read of a segment.
enum Next {
    Frames {
        limit: u64,
        is_last: bool,
        /// Where in the segment the log ends, if it ends there.
        end: u64,
        /// They are in memory only, and were taken from there.
        is_taken: bool,
    },
    Segment,
    Stop(Reached),
}

impl<F: Folder> RawStore<F> {
    /// Finds the place in a shard's log behind which a replica that is at `position` lacks all.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, Options, Position, Reached, RawStore};
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &one)?;
    /// store.put(b"de", b"049", Memory)?;
    /// let Found::Here(mut tail) = store.tail(0, Position::START)? else { panic!() };
    /// let mut count = 0;
    /// let reached = store.read_tail(&mut tail, 1000, |written| count += written.count)?;
    /// assert_eq!((count, reached), (1, Reached::End));
    /// let nowhere = Position { sequence: 9, ..tail.position() };
    /// assert!(matches!(store.tail(0, nowhere)?, Found::Foreign));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mending`] if the shard is at no place itself; what the disk says.
    pub fn tail(&self, shard: u32, position: Position) -> Result<Found<Tail<F>>> {
        let mut seek = self.seek(shard, position)?;
        loop {
            if let Some(found) = self.seek_on(&mut seek, u64::MAX)? {
                return Ok(found);
            }
        }
    }

    /// The place behind the last write of a shard.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore, Reached};
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &one)?;
    /// store.put(b"de", b"049", Memory)?;
    /// let mut tail = store.tail_end(0)?;
    /// assert_eq!(Some(tail.position()), store.history(0)?.position());
    /// assert_eq!(store.read_tail(&mut tail, 1000, |_| panic!("there is none"))?, Reached::End);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mending`] if the shard is at no place itself; what the disk says.
    pub fn tail_end(&self, shard: u32) -> Result<Tail<F>> {
        let of = self.shard_at(shard)?;
        let mut log = of.writer();
        of.settle(&mut log)?;
        let Some(position) = log.history.position() else { return Err(Error::Mending { shard }) };
        Ok(Self::end_of(shard, &log, position))
    }

    fn end_of(shard: u32, log: &Log<F::File>, position: Position) -> Tail<F> {
        let (file, at, sequence) = (Arc::clone(&log.file), log.at, log.sequence);
        let segment = log.segments[log.segments.len() - 1].number;
        Tail { shard, segment, file, at, sequence, position, bytes: Vec::new() }
    }

    /// Begins to look for a place, as [`tail`](Self::tail) does; nothing of the log is read yet.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, Options, Position, RawStore};
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 1000, &one)?;
    /// (0..200).try_for_each(|_| store.put(b"de", &[7; 1000], Memory).map(drop))?;
    /// let Some(position) = store.history(0)?.position() else { panic!() };
    /// store.put(b"de", &[8; 1000], Memory)?;
    /// let (mut seek, mut steps) = (store.seek(0, position)?, 0);
    /// let found = loop {
    ///     steps += 1;
    ///     if let Some(found) = store.seek_on(&mut seek, 1000)? {
    ///         break found;
    ///     }
    /// };
    /// assert!(matches!(found, Found::Here(tail) if tail.position() == position) && steps > 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mending`] if the shard is at no place itself; what the disk says.
    pub fn seek(&self, shard: u32, position: Position) -> Result<Seek<F>> {
        let known = |found| Ok(Seek { state: Seeking::Known(Some(found)) });
        let of = self.shard_at(shard)?;
        let mut log = of.writer();
        of.settle(&mut log)?;
        let Some(tip) = log.history.position() else { return Err(Error::Mending { shard }) };
        let begin = position.sequence > 0 || position == Position::START;
        if position.sequence > tip.sequence || !begin {
            return known(Found::Foreign);
        }
        let back = tip.sequence - position.sequence;
        let first = log.segments.first().map_or(0, |segment| segment.first);
        let oldest = log.since.max(first.saturating_sub(1));
        let Some(wanted) = log.sequence.checked_sub(back).filter(|wanted| *wanted >= oldest) else {
            return known(Found::Older);
        };
        let index = log.segments.iter().rposition(|segment| segment.first <= wanted + 1);
        let Some(index) = index else { return known(Found::Older) };
        if position == tip {
            return known(Found::Here(Self::end_of(shard, &log, position)));
        }
        let segment = log.segments[index];
        let file = self.segment_file(of, &log, index)?;
        let (number, sequence) = (segment.number, segment.first - 1);
        let (at, bytes) = (DATA_AT, Vec::new());
        let tail = Tail { shard, segment: number, file, at, sequence, position, bytes };
        Ok(Seek { state: Seeking::From { tail, history: segment.origin, wanted } })
    }

    /// Reads on until the place is found, or so many bytes of the log are read, about; what was found,
    /// once.
    ///
    /// Example: see [`seek`](Self::seek).
    ///
    /// # Errors
    /// [`Error::Damaged`], or what the disk says.
    pub fn seek_on(&self, seek: &mut Seek<F>, bytes_max: u64) -> Result<Option<Found<Tail<F>>>> {
        let (tail, history, wanted) = match &mut seek.state {
            Seeking::Known(found) => return Ok(found.take()),
            Seeking::From { tail, history, wanted } => (tail, history, *wanted),
        };
        let began = tail.at;
        while tail.sequence < wanted {
            if tail.at - began >= bytes_max {
                return Ok(None);
            }
            self.load(tail, CHUNK_BYTES)?;
            *history = self.read_frames(tail, *history, wanted, |_| {})?;
        }
        if *history != History::At(tail.position) {
            return Ok(Some(Found::Foreign));
        }
        match std::mem::replace(&mut seek.state, Seeking::Known(None)) {
            Seeking::From { tail, .. } => Ok(Some(Found::Here(tail))),
            Seeking::Known(found) => Ok(found),
        }
    }

    /// Shows the writes behind a place in the log, at least one if there is one, and some
    /// `bytes_max` at most, and moves the place.
    ///
    /// Example: see [`RawStore::tail`].
    ///
    /// # Errors
    /// [`Error::Damaged`], or what the disk says.
    pub fn read_tail(
        &self,
        tail: &mut Tail<F>,
        bytes_max: u64,
        mut each: impl FnMut(Written<'_>),
    ) -> Result<Reached> {
        let of = self.shard_at(tail.shard)?;
        let chunk = bytes_max.min(CHUNK_BYTES);
        loop {
            match self.next(of, tail, chunk)? {
                Next::Stop(reached) => return Ok(reached),
                Next::Segment => {}
                Next::Frames { limit, is_last, end, is_taken } => {
                    if !is_taken {
                        // Where the log ends, no more is read than there is.
                        self.load(tail, chunk.min(end.saturating_sub(tail.at)))?;
                    }
                    let before = History::At(tail.position);
                    let after = self.read_frames(tail, before, limit, &mut each)?;
                    // A note: what comes next does not follow from what was before.
                    let Some(position) = after.position() else { return Ok(Reached::Cut) };
                    tail.position = position;
                    let is_end = is_last && tail.sequence == limit;
                    return Ok(if is_end { Reached::End } else { Reached::More });
                }
            }
        }
    }

    /// What comes behind a place.
    fn next(&self, of: &Shard<F>, tail: &mut Tail<F>, chunk: u64) -> Result<Next> {
        let mut log = of.writer();
        if log.since > tail.sequence {
            return Ok(Next::Stop(Reached::Cut));
        }
        let following = log.segments.iter().position(|one| one.first == tail.sequence + 1);
        let is_there = log.segments.iter().any(|one| one.number == tail.segment);
        match following {
            Some(index) if log.segments[index].number != tail.segment => {
                tail.file = self.segment_file(of, &log, index)?;
                (tail.segment, tail.at) = (log.segments[index].number, DATA_AT);
                Ok(Next::Segment)
            }
            _ if tail.sequence == log.sequence => Ok(Next::Stop(Reached::End)),
            _ if !is_there => Ok(Next::Stop(Reached::Cut)),
            _ => {
                let after = log.segments.iter().find(|one| one.number > tail.segment);
                let limit = after.map_or(log.sequence, |one: &Segment| one.first - 1);
                let is_last = after.is_none();
                let end = if is_last { log.at } else { u64::MAX };
                let is_taken =
                    is_last && of.take_undrained(&log, (tail.at, chunk), &mut tail.bytes);
                if !is_taken {
                    // What this allows to be read is read from the file.
                    of.settle(&mut log)?;
                }
                Ok(Next::Frames { limit, is_last, end, is_taken })
            }
        }
    }

    /// Reads `chunk` bytes of a segment, or a frame if that is longer.
    fn load(&self, tail: &mut Tail<F>, chunk: u64) -> Result<()> {
        let failed = |error| Error::io(segment_name(tail.shard, tail.segment))(error);
        let end = self.header.segment_bytes.get();
        let least = (FRAME_LEN as u64).min(end.saturating_sub(tail.at));
        let mut bytes = std::mem::take(&mut tail.bytes);
        bytes.resize(chunk.max(least).min(end.saturating_sub(tail.at)) as usize, 0);
        tail.file.read_at(tail.at, &mut bytes).map_err(failed)?;
        let whole = frame_len(&bytes);
        if whole > bytes.len() && tail.at + whole as u64 <= end {
            bytes.resize(whole, 0);
            tail.file.read_at(tail.at, &mut bytes).map_err(failed)?;
        }
        tail.bytes = bytes;
        Ok(())
    }

    /// Shows the frames up to `limit` that were loaded.
    fn read_frames(
        &self,
        tail: &mut Tail<F>,
        mut history: History,
        limit: u64,
        mut each: impl FnMut(Written<'_>),
    ) -> Result<History> {
        let (shard, segment) = (tail.shard, tail.segment);
        let damaged = |at| {
            Error::damaged(&segment_name(shard, segment), at, "a frame is not as it was written")
        };
        let bytes = std::mem::take(&mut tail.bytes);
        let (mut at, mut sequence) = (0, tail.sequence);
        while sequence < limit {
            let rest = &bytes[at..];
            let is_cut = rest.len() < FRAME_LEN || frame_len(rest) > rest.len();
            if at > 0 && is_cut {
                break;
            }
            let place = tail.at + at as u64;
            let frame = Frame::read(rest).ok_or_else(|| damaged(place))?;
            if frame.header.sequence.get() != sequence + 1 {
                return Err(damaged(place));
            }
            let (after, written) =
                frame.follow(history, self.lengths()).ok_or_else(|| damaged(place))?;
            if let Some(written) = written {
                each(written);
            }
            (history, sequence) = (after, sequence + 1);
            at += frame.header.len.get() as usize;
        }
        tail.at += at as u64;
        tail.sequence = sequence;
        tail.bytes = bytes;
        Ok(history)
    }

    /// Whoever has the lock of the log knows that the segment is there.
    fn segment_file(
        &self,
        of: &Shard<F>,
        log: &Log<F::File>,
        index: usize,
    ) -> Result<Arc<F::File>> {
        if index + 1 == log.segments.len() {
            return Ok(Arc::clone(&log.file));
        }
        let name = segment_name(of.number(), log.segments[index].number);
        Ok(Arc::new(self.folder.file(&name).map_err(Error::io(name))?))
    }

    /// Keeps all of a shard's log behind this frame, whatever images there are; none: nothing
    /// beyond what the store itself needs.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, Options, Position, RawStore};
    /// let one = Options { shards: 1, segment_bytes: 16 << 10, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 1000, &one)?;
    /// store.retain(0, Some(0))?;
    /// for _ in 0..50 {
    ///     store.put(b"de", &[7; 1000], Memory)?;
    /// }
    /// store.compact()?;
    /// assert!(matches!(store.tail(0, Position::START)?, Found::Here(_)));
    /// store.retain(0, None)?;
    /// store.compact()?;
    /// assert!(matches!(store.tail(0, Position::START)?, Found::Older));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        self.shard_at(shard)?.writer().retain = behind;
        Ok(())
    }

    /// How many bytes of log are behind a place, about.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, Options, Position, RawStore};
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &one)?;
    /// let Found::Here(tail) = store.tail(0, Position::START)? else { panic!() };
    /// assert_eq!(store.behind_bytes(&tail)?, 0);
    /// store.put(b"de", b"049", Memory)?;
    /// assert!(store.behind_bytes(&tail)? > 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// None that a place of this store can have.
    pub fn behind_bytes(&self, tail: &Tail<F>) -> Result<u64> {
        let log = self.shard_at(tail.shard)?.writer();
        let after = log.segments.iter().filter(|one| one.number > tail.segment).count() as u64;
        Ok((after * self.header.segment_bytes.get() + log.at).saturating_sub(tail.at))
    }

    pub(crate) fn shard_at(&self, shard: u32) -> Result<&Shard<F>> {
        let (value, must) = (u64::from(shard), "one of the store's");
        let found = self.shards.get(shard as usize);
        found.ok_or(Error::OutOfLimits { what: "the number of the shard", value, must })
    }
}

/// What the header of the frame at the front says of its length.
pub(crate) fn frame_len(bytes: &[u8]) -> usize {
    let mut four = [0; 4];
    match bytes.get(8..12) {
        Some(len) => four.copy_from_slice(len),
        None => return FRAME_LEN,
    }
    u32::from_le_bytes(four) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability::Memory, Options, folder::Directory};

    #[test]
    fn what_no_file_has_yet_is_read_from_memory_and_the_rest_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let one = Options { shards: 1, ..Options::default() };
        let folder = Directory::lock(folder.path()).unwrap();
        let store = RawStore::create(folder, 2, 1_000, &one).unwrap();
        let Found::Here(mut tail) = store.tail(0, Position::START).unwrap() else { panic!() };
        let drained = || store.shards[0].writer().drained;
        let before = drained();
        let (mut written, mut read) = (0, 0);
        let mut put = || {
            written += 1_u16;
            store.put(&written.to_le_bytes(), &[written as u8; 1_000], Memory).unwrap();
        };
        let mut read_all = |bytes_max| {
            while read < tail.sequence() || store.behind_bytes(&tail).unwrap() > 0 {
                let shown = store.read_tail(&mut tail, bytes_max, |write| {
                    read += 1;
                    let value = [read as u8; 1_000];
                    assert!(write.changes.ends_with(&value), "write {read}");
                });
                shown.unwrap();
            }
            read
        };
        (0..20).for_each(|_| put());
        assert_eq!(read_all(1), 20, "one at a time");
        (0..20).for_each(|_| put());
        assert_eq!(read_all(1 << 20), 40);
        assert_eq!(drained(), before, "no file was written");
        put();
        store.sync().unwrap();
        put();
        assert_eq!(read_all(1 << 20), 42, "one is in the file, and the next was not");
        // More than the ring has room for.
        (0..600).for_each(|_| put());
        assert_eq!(read_all(1 << 20), 642);
    }
}

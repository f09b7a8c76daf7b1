//! Reading a shard's log behind its writers, as followers need it: what compaction moved is passed
//! over, and what it removed is missing.

use std::sync::Arc;

use mainstay_storage::{Folder, Storage};

use super::{
    format::{Frame, Kind, Past},
    raw::RawLogStore,
    shard::Shard,
};
use crate::{
    error::{Error, Result},
    format::{DATA_AT, FRAME_LEN, chain_start},
    history::{History, Position},
    log::Written,
    planted::{self, Fault},
    tail::{Found, Reached},
};

/// What is read of a segment at a time, unless a frame is longer.
const CHUNK_BYTES: u64 = 64 << 10;

/// A place in the log of a shard, to read on from.
///
/// Example: see [`RawLogStore::tail`].
pub struct LogTail<F: Folder> {
    shard: u32,
    segment: u64,
    file: Arc<F::File>,
    at: u64,
    /// Of the last frame before it, in the log and in the history.
    sequence: u64,
    position: Position,
}

impl<F: Folder> LogTail<F> {
    /// Where in its history the shard was here.
    ///
    /// Example: see [`RawLogStore::tail`].
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The number of the last frame before it in this log.
    ///
    /// Example: see [`RawLogStore::retain`].
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// A place in the log of a shard that is looked for.
///
/// Example: see [`RawLogStore::seek`].
pub struct LogSeek<F: Folder> {
    state: Seeking<F>,
}

enum Seeking<F: Folder> {
    /// It needs no looking.
    Known(Option<Found<LogTail<F>>>),
    /// It is looked for from here on, up to the end of a segment, as far as the way leads there that
    /// begins behind a frame.
    From { tail: LogTail<F>, end: u64, past: Option<Past>, since: u64 },
}

/// What to read of the log.
enum Next {
    /// The segment up to here; it may be the last one.
    Frames(u64),
    Stop(Reached),
}

impl<F: Folder> RawLogStore<F> {
    /// Finds the place in a shard's log behind which a replica that is at `position` lacks all. The
    /// segment that has it is read up to there, in one go; see [`seek`](Self::seek).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, LogOptions, Position, Reached, RawLogStore};
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &one)?;
    /// store.put(b"de", b"49", Memory)?;
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
    pub fn tail(&self, shard: u32, position: Position) -> Result<Found<LogTail<F>>> {
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
    /// use mainstay_store::{Durability::Memory, LogOptions, Reached, RawLogStore};
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &one)?;
    /// store.put(b"de", b"49", Memory)?;
    /// let mut tail = store.tail_end(0)?;
    /// assert_eq!(Some(tail.position()), store.history(0)?.position());
    /// assert_eq!(store.read_tail(&mut tail, 1000, |_| panic!("there is none"))?, Reached::End);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mending`] if the shard is at no place itself.
    pub fn tail_end(&self, shard: u32) -> Result<LogTail<F>> {
        let log = self.shard_at(shard)?.writer();
        let Some(position) = log.past.and_then(|past| past.history.position()) else {
            return Err(Error::Mending { shard });
        };
        let (segment, at, sequence) = (log.segment, log.at, log.sequence);
        let file = Arc::clone(&log.file);
        Ok(LogTail { shard, segment, file, at, sequence, position })
    }

    /// Begins to look for a place, as [`tail`](Self::tail) does; nothing of the log is read yet.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, LogOptions, Position, RawLogStore};
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &one)?;
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
    /// [`Error::Mending`] if the shard is at no place itself.
    pub fn seek(&self, shard: u32, position: Position) -> Result<LogSeek<F>> {
        let known = |found| Ok(LogSeek { state: Seeking::Known(Some(found)) });
        let of = self.shard_at(shard)?;
        let log = of.writer();
        let Some(Past { history: History::At(tip), since }) = log.past else {
            return Err(Error::Mending { shard });
        };
        let (segment, at, sequence) = (log.segment, log.at, log.sequence);
        if position == tip {
            let file = Arc::clone(&log.file);
            let tail = LogTail { shard, segment, file, at, sequence, position };
            return known(Found::Here(tail));
        }
        let can_be = position.sequence > 0 || position == Position::START;
        if position.sequence > tip.sequence || !can_be {
            return known(Found::Foreign);
        }
        let index = of.index();
        let begins_before = |origin: &Past| {
            origin.history.position().is_some_and(|at| at.sequence <= position.sequence)
        };
        // The last one that begins before, on the way that leads here; or that one in which the
        // way begins.
        let found = index.segments.iter().rev().find(|(_, segment)| {
            segment.first <= since || segment.origin.as_ref().is_some_and(begins_before)
        });
        let Some((number, segment)) = found else { return known(Found::Older) };
        let (file, sequence) = (Arc::clone(&segment.file), segment.first - 1);
        let tail = LogTail { shard, segment: *number, file, at: DATA_AT, sequence, position };
        let (end, past) = (segment.end, segment.origin);
        Ok(LogSeek { state: Seeking::From { tail, end, past, since } })
    }

    /// Reads on until the place is found, or so many bytes of the log are read, about; what was found,
    /// once.
    ///
    /// Example: see [`seek`](Self::seek).
    ///
    /// # Errors
    /// [`Error::Damaged`], or what the disk says.
    pub fn seek_on(
        &self,
        seek: &mut LogSeek<F>,
        bytes_max: u64,
    ) -> Result<Option<Found<LogTail<F>>>> {
        let (tail, end, past, since) = match &mut seek.state {
            Seeking::Known(found) => return Ok(found.take()),
            Seeking::From { tail, end, past, since } => (tail, *end, past, *since),
        };
        let (position, began) = (tail.position, tail.at);
        let found = loop {
            let here = past.filter(|past| past.since == since).map(|past| past.history);
            match here {
                Some(History::At(here)) if here == position => break true,
                Some(History::At(here)) if here.sequence == position.sequence => {
                    return Ok(Some(Found::Foreign));
                }
                Some(History::At(here)) if here.sequence > position.sequence => {
                    return Ok(Some(Found::Older));
                }
                _ if tail.at >= end => return Ok(Some(Found::Older)),
                _ => {}
            }
            if tail.at - began >= bytes_max {
                break false;
            }
            // One frame after the other, since the place may be behind any of them.
            let chunk = self.load(tail, end, CHUNK_BYTES)?;
            let mut bytes = &chunk[..];
            while !bytes.is_empty() {
                let Some(len) = self.step(tail, past, bytes, end, |_| {})? else { break };
                bytes = bytes.get(len..).unwrap_or(&[]);
                let is_there = past.is_some_and(|past| {
                    let at = past.history.position();
                    past.since == since && at.is_some_and(|at| at.sequence >= position.sequence)
                });
                if is_there {
                    break;
                }
            }
        };
        if !found {
            return Ok(None);
        }
        match std::mem::replace(&mut seek.state, Seeking::Known(None)) {
            Seeking::From { tail, .. } => Ok(Some(Found::Here(tail))),
            Seeking::Known(found) => Ok(found),
        }
    }

    /// Shows the writes behind a place in the log, at least one if there is one, and some
    /// `bytes_max` at most, and moves the place.
    ///
    /// Example: see [`RawLogStore::tail`].
    ///
    /// # Errors
    /// [`Error::Damaged`], or what the disk says.
    pub fn read_tail(
        &self,
        tail: &mut LogTail<F>,
        bytes_max: u64,
        mut each: impl FnMut(Written<'_>),
    ) -> Result<Reached> {
        let of = self.shard_at(tail.shard)?;
        loop {
            let end = match Self::next(of, tail) {
                Next::Stop(reached) => return Ok(reached),
                Next::Frames(end) => end,
            };
            let chunk = self.load(tail, end, bytes_max.min(CHUNK_BYTES))?;
            let (mut bytes, mut count) = (&chunk[..], 0);
            // A note would have ended this way before.
            let mut past = Some(Past { history: History::At(tail.position), since: 0 });
            while !bytes.is_empty() {
                let each = |written: Written<'_>| {
                    count += 1;
                    each(written);
                };
                let Some(len) = self.step(tail, &mut past, bytes, end, each)? else { break };
                bytes = bytes.get(len..).unwrap_or(&[]);
                match past.and_then(|past| past.history.position()) {
                    Some(position) => tail.position = position,
                    None => return Ok(Reached::Cut),
                }
            }
            if count > 0 {
                return Ok(match Self::next(of, tail) {
                    Next::Stop(Reached::End) => Reached::End,
                    _ => Reached::More,
                });
            }
        }
    }

    /// What comes behind a place.
    fn next(of: &Shard<F>, tail: &mut LogTail<F>) -> Next {
        let log = of.writer();
        if log.past.is_none_or(|past| past.since > tail.sequence) {
            return Next::Stop(Reached::Cut);
        }
        let index = of.index();
        loop {
            let here = index.segments.get(&tail.segment).map(|segment| segment.end);
            if let Some(end) = here.filter(|end| tail.at < *end) {
                return Next::Frames(end);
            }
            if tail.segment == log.segment {
                return Next::Stop(Reached::End);
            }
            // What lies between, if there was anything, was no write.
            let history = History::At(tail.position);
            let following =
                index.segments.range(tail.segment + 1..).next().filter(|(_, segment)| {
                    segment.origin.is_some_and(|origin| origin.history == history)
                        || planted::is(Fault::HolesIgnored)
                });
            let Some((number, segment)) = following else { return Next::Stop(Reached::Cut) };
            (tail.segment, tail.at) = (*number, DATA_AT);
            (tail.sequence, tail.file) = (segment.first - 1, Arc::clone(&segment.file));
        }
    }

    /// Reads `chunk` bytes of a segment that ends at `end`, or a frame if that is longer and no
    /// moved one.
    fn load(&self, tail: &LogTail<F>, end: u64, chunk: u64) -> Result<Vec<u8>> {
        let failed = |error| Error::io(Kind::Log.name(tail.shard, tail.segment))(error);
        let rest = end.saturating_sub(tail.at);
        let mut bytes = vec![0; chunk.max(FRAME_LEN as u64).min(rest) as usize];
        tail.file.read_at(tail.at, &mut bytes).map_err(failed)?;
        let whole = Frame::len_of(&bytes).filter(|len| *len as u64 <= rest && *len > bytes.len());
        if let Some(len) = whole.filter(|_| !Frame::is_moved(&bytes)) {
            bytes.resize(len, 0);
            tail.file.read_at(tail.at, &mut bytes).map_err(failed)?;
        }
        Ok(bytes)
    }

    /// Goes one frame further, the one at the front of `bytes`; how long it is. None if it is not
    /// all there, and what is before it was.
    fn step(
        &self,
        tail: &mut LogTail<F>,
        past: &mut Option<Past>,
        bytes: &[u8],
        end: u64,
        each: impl FnOnce(Written<'_>),
    ) -> Result<Option<usize>> {
        let damaged = || {
            let name = Kind::Log.name(tail.shard, tail.segment);
            Error::damaged(&name, tail.at, "a frame is not as it was written")
        };
        if bytes.len() < FRAME_LEN && tail.at + (bytes.len() as u64) < end {
            return Ok(None);
        }
        let len = Frame::len_of(bytes).filter(|len| tail.at + *len as u64 <= end);
        let len = len.ok_or_else(damaged)?;
        if len > bytes.len() {
            if !Frame::is_moved(bytes) {
                return Ok(None);
            }
            // It changes nothing, so that nothing of it has to be read.
        } else {
            let seed = chain_start(&self.header.id, tail.shard);
            let frame = Frame::read(seed, bytes).ok_or_else(damaged)?;
            let (epoch, sequence) = (frame.header.epoch.get(), frame.header.sequence.get());
            let contents = frame.contents().ok_or_else(damaged)?;
            if sequence != tail.sequence + 1 {
                return Err(damaged());
            }
            let (after, written) = contents.follow(*past, epoch, sequence);
            *past = after;
            if let Some(written) = written {
                each(written);
            }
        }
        tail.at += len as u64;
        tail.sequence += 1;
        Ok(Some(len))
    }

    /// Keeps all of a shard's log behind this frame from being compacted; none: nothing beyond what
    /// the store itself needs.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, LogOptions, Position, RawLogStore};
    /// let one = LogOptions { shards: 1, segment_bytes: 16 << 10, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &one)?;
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
    /// use mainstay_store::{Durability::Memory, Found, LogOptions, Position, RawLogStore};
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &one)?;
    /// let Found::Here(tail) = store.tail(0, Position::START)? else { panic!() };
    /// assert_eq!(store.behind_bytes(&tail)?, 0);
    /// store.put(b"de", b"49", Memory)?;
    /// assert!(store.behind_bytes(&tail)? > 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// None that a place of this store can have.
    pub fn behind_bytes(&self, tail: &LogTail<F>) -> Result<u64> {
        let index = self.shard_at(tail.shard)?.index();
        let behind = index.segments.range(tail.segment..);
        let bytes = behind.map(|(number, segment)| {
            let from = if *number == tail.segment { tail.at } else { DATA_AT };
            segment.end.saturating_sub(from)
        });
        Ok(bytes.sum())
    }
}

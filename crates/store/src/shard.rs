//! A shard: records in memory, one log, one writer at a time, a sync for all who wait.
//!
//! Where memory lasts longer than the process, a frame is at first in a ring in that memory, and
//! comes into the file when somebody syncs, or when the ring is full; elsewhere, and if it is longer
//! than what a sync takes from the ring, at once.
//!
//! Locks are taken in this order: `upkeep`, `log`, those of `group`. Under `log` there are only the
//! syncs of a new segment, of [`Durability::Each`](crate::Durability::Each), and of a mark in a
//! segment's header that nobody writes to.

mod compaction;
mod segments;
mod syncing;
mod vouching;

use std::sync::{Arc, Mutex, MutexGuard};

use mainstay_storage::{Folder, Storage};

use self::compaction::Unfinished;
pub(crate) use self::segments::{create, create_behind};
use crate::{
    error::{Error, Result},
    format::{COPY_AT, DATA_AT, StoreHeader, image_name, segment_name, write_header},
    group::{Group, lock},
    history::History,
    hooks::{Commit, Hooks},
    kept::Snapshots,
    live::{self, Place},
    log::{FramePlace, encode, frame_bytes},
    options::{Options, Token},
    order::Order,
    planted::{self, Fault},
    recover::Loaded,
    table::{Table, Writing, hash_of},
};

/// A part of a batch.
///
/// Example: see [`crate::RawStore::batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key gets this value.
    Put(&'a [u8], &'a [u8]),
    /// The key is there no more.
    Delete(&'a [u8]),
}

impl<'a> Change<'a> {
    /// The key gets this value, or is there no more.
    ///
    /// ```
    /// use mainstay_store::Change;
    /// assert_eq!(Change::of(b"k", Some(b"v")), Change::Put(b"k", b"v"));
    /// assert_eq!(Change::of(b"k", None), Change::Delete(b"k"));
    /// ```
    #[must_use]
    pub fn of(key: &'a [u8], value: Option<&'a [u8]>) -> Self {
        value.map_or(Self::Delete(key), |value| Self::Put(key, value))
    }

    /// Its key.
    ///
    /// ```
    /// assert_eq!(mainstay_store::Change::Delete(b"k").key(), b"k");
    /// ```
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// What a shard has.
///
/// Example: see [`crate::RawStore::stats`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardStats {
    /// Records.
    pub records: u64,
    /// Writes since the store was created.
    pub sequence: u64,
    /// The last of them that is known to be durable.
    pub durable: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Up to which write the image holds everything; 0 if there is none.
    pub image: u64,
    /// Whether the memory of the last owner was taken over, and nothing made anew from files.
    pub adopted: bool,
    /// What failed, if the shard takes no more writes.
    pub poisoned: Option<String>,
}

pub(crate) struct Shard<F: Folder> {
    number: u32,
    records_max: u32,
    table: Table,
    order: Option<Order>,
    snapshots: Snapshots,
    hooks: Arc<Hooks>,
    adopted: bool,
    log: Mutex<Log<F::File>>,
    group: Group,
    /// With the image that is being written.
    upkeep: Mutex<Option<Unfinished<F::File>>>,
}

/// A segment of the log.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// The sequence of its first frame.
    pub(crate) first: u64,
    /// Where in its history the shard was before that.
    pub(crate) origin: History,
}

/// What is written to the log as one frame.
pub(crate) struct Entry<'a> {
    pub(crate) epoch: u64,
    pub(crate) note: Option<History>,
    /// What other shards get of the same batch.
    pub(crate) parts: &'a [u8],
    pub(crate) changes: &'a [Change<'a>],
}

/// What there is room for.
struct Room<'a> {
    /// Of the frame.
    bytes: u64,
    /// The last write known to be durable.
    durable: u64,
    writing: Writing<'a>,
}

/// Where the log is written.
pub(crate) struct Log<S> {
    /// The one in use last.
    pub(crate) segments: Vec<Segment>,
    pub(crate) file: Arc<S>,
    /// Where the next frame goes.
    pub(crate) at: u64,
    /// Up to where the file has the frames of this segment; the others are in the ring.
    pub(crate) drained: u64,
    /// Up to where they are known to be durable.
    saved: u64,
    pub(crate) sequence: u64,
    pub(crate) chain: u32,
    pub(crate) history: History,
    /// Frames after this one are writes that follow each other in the history.
    pub(crate) since: u64,
    /// The header of the segment says that all up to this write is durable.
    vouched: u64,
    /// The last write when that was considered last, and how often it had been the same.
    considered: (u64, u32),
    /// Frames after this one are wanted by followers, and stay.
    pub(crate) retain: Option<u64>,
    image: Option<(u64, u64)>,
    next_number: u64,
    /// A segment made in advance.
    spare: Option<(u64, S)>,
    frame: Vec<u8>,
    /// Frames on their way from the ring into the file.
    drain: Vec<u8>,
}

impl<S> Log<S> {
    /// The number of the one in use.
    fn segment(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.number)
    }
}

pub(crate) type Guard<'a, F> = MutexGuard<'a, Log<<F as Folder>::File>>;

impl<F: Folder> Shard<F> {
    /// Goes on where the files end. What was found is written and synced again: it may be in the
    /// page cache only, and after a sync that failed a second one alone would prove nothing.
    pub(crate) fn resume(
        folder: &F,
        store: &StoreHeader,
        number: u32,
        (options, hooks): (&Options, &Arc<Hooks>),
        loaded: Loaded,
    ) -> Result<Self> {
        let Loaded { table, image, segments, tail, end: at, history, since, .. } = loaded;
        let Loaded { sequence, chain, next_number, leftovers, is_safe, is_adopted, .. } = loaded;
        let head = &segments[segments.len() - 1];
        let (last, mut vouched) = (head.number.get(), head.vouched.get());
        let name = segment_name(number, last);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let mut again = || {
            if planted::is(Fault::TailTrusted) {
                return Ok(());
            }
            if !is_safe {
                file.write_at(0, &tail)?;
                let rest = (store.segment_bytes.get() as usize).saturating_sub(tail.len());
                file.write_at(tail.len() as u64, &vec![0; rest])?;
                write_header(&file, head)?;
                file.sync()?;
                if vouched < sequence {
                    vouched = sequence;
                    file.write_synced_at(COPY_AT, &vouching::mark(head, sequence))?;
                }
            }
            if is_safe && leftovers.is_empty() {
                // Nothing is removed, and nothing is believed that was not synced.
                return Ok(());
            }
            if let Some(header) = &image {
                let file = folder.file(&image_name(number, header.number.get()))?;
                write_header(&file, header)?;
                file.sync()?;
            }
            folder.sync_names()
        };
        again().map_err(Error::io(&*name))?;
        for name in leftovers {
            folder.remove(&name).map_err(Error::io(&*name))?;
        }
        if table.lasts() {
            let boot = folder.boot().map_err(Error::io("the name of this run"))?;
            let place = Place { sequence, segment: last, at, len: 0, chain, history };
            table.publish(&live::header(store, number, boot), place, sequence, since)?;
        }
        let log = Log {
            segments: segments
                .iter()
                .map(|head| Segment {
                    number: head.number.get(),
                    first: head.first_sequence.get(),
                    origin: History::from_bytes(&head.origin),
                })
                .collect(),
            file: Arc::new(file),
            at,
            drained: at,
            saved: at,
            sequence,
            chain,
            history,
            since,
            vouched,
            considered: (sequence, 0),
            retain: None,
            image: image.map(|head| (head.number.get(), head.from.get())),
            next_number,
            spare: None,
            frame: Vec::new(),
            drain: Vec::new(),
        };
        let order = || Order::of(&table, store.key_len.get() as usize);
        Ok(Self {
            number,
            records_max: options.records_max,
            order: options.ordered.then(order).transpose()?,
            snapshots: Snapshots::default(),
            hooks: Arc::clone(hooks),
            table,
            adopted: is_adopted,
            log: Mutex::new(log),
            group: Group::at(number, sequence),
            upkeep: Mutex::new(None),
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn history(&self) -> History {
        self.writer().history
    }

    /// Keeps images and segments made in advance out.
    pub(crate) fn upkeep(&self) -> MutexGuard<'_, Option<Unfinished<F::File>>> {
        lock(&self.upkeep)
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Keeps other writers out.
    pub(crate) fn writer(&self) -> Guard<'_, F> {
        lock(&self.log)
    }

    /// Writes changes, all or none, to the log, and makes them visible. No changes at all are
    /// written too: their frame says what is durable.
    pub(crate) fn append(
        &self,
        folder: &F,
        store: &StoreHeader,
        log: &mut Log<F::File>,
        entry: &Entry<'_>,
    ) -> Result<u64> {
        let Entry { epoch, note, parts, changes } = *entry;
        let Room { bytes, durable, mut writing } = self.make_room(folder, store, log, entry)?;
        if !planted::is(Fault::SnapshotForgotten) {
            self.snapshots.keep(&writing, changes)?;
        }
        writing.ask_for_first(changes);
        let old = self.hooks.old_of(changes, |key| {
            Ok(writing.current(hash_of(key), key)?.map(|(_, value)| value.into()))
        })?;
        let place = FramePlace {
            chain: log.chain,
            shard: self.number,
            epoch,
            sequence: log.sequence + 1,
            durable,
            note,
            parts,
        };
        let (chain, history) = encode(place, log.history, changes, &mut log.frame);
        let end = log.at + bytes;
        let is_in_ring = self.table.lasts() && bytes <= self.in_ring_max();
        if is_in_ring {
            if end - log.drained > self.table.ring_bytes() {
                self.drain(log)?;
            }
            if !planted::is(Fault::RingLate) {
                self.table.ring_write(log.at, &log.frame);
            }
        } else {
            self.drain(log)?;
            if !planted::is(Fault::LongLate) {
                self.write_frame(log, log.at)?;
            }
            self.note_written(log, end)?;
        }
        log.at = end;
        log.sequence += 1;
        log.chain = chain;
        log.history = history;
        let sequence = log.sequence;
        if note.is_some() {
            log.since = sequence;
            self.table.control()?.set_since(sequence);
        }
        let segment = log.segment();
        let place = Place { sequence, segment, at: end, len: bytes, chain, history };
        if !planted::is(Fault::CommitLate) {
            writing.commit(place);
        }
        if planted::is(Fault::RingLate) && is_in_ring {
            self.table.ring_write(end - bytes, &log.frame);
        }
        if planted::is(Fault::AppliedEarly) {
            writing.applied(sequence);
        }
        writing.apply_all(changes, sequence, |change, before| {
            if let Some(order) = &self.order {
                order.follow(change, (before, self.table.len()));
            }
        });
        if planted::is(Fault::LongLate) && !is_in_ring {
            self.write_frame(log, end - bytes)?;
        }
        if planted::is(Fault::CommitLate) {
            writing.commit(place);
        }
        writing.applied(sequence);
        drop(writing);
        let token = Token { epoch: store.epoch.get(), shard: self.number, sequence };
        self.hooks.call(&Commit { token, changes, end: 0, old: &old });
        Ok(sequence)
    }

    fn write_frame(&self, log: &Log<F::File>, at: u64) -> Result<()> {
        log.file
            .write_at(at, &log.frame)
            .map_err(|error| self.group.poison("a write of the log", &error))
    }

    /// Makes sure that there is room for what is to be written. Whatever is refused is refused here,
    /// before anything is changed.
    fn make_room<'a>(
        &'a self,
        folder: &F,
        store: &StoreHeader,
        log: &mut Log<F::File>,
        entry: &Entry<'_>,
    ) -> Result<Room<'a>> {
        let durable = self.group.check_sound()?;
        let bytes = frame_bytes(entry.changes, entry.note, entry.parts.len()) as u64;
        let room = store.segment_bytes.get() - DATA_AT;
        if bytes > room {
            return Err(Error::BatchTooLong { bytes, max: room });
        }
        self.check_room(entry.changes)?;
        let mut writing = self.table.writing()?;
        // Whoever deletes to make room needs none.
        let is_put = |change: &&Change<'_>| {
            matches!(change, Change::Put(..)) || planted::is(Fault::DeletesReserve)
        };
        if !writing.reserve(entry.changes.iter().filter(is_put).count())? {
            return Err(Error::Full { shard: self.number, max: self.records_max });
        }
        if log.at + bytes > store.segment_bytes.get() {
            self.rotate(folder, store, log)?;
        }
        Ok(Room { bytes, durable, writing })
    }

    /// The same, for who writes it later and keeps the lock until then.
    pub(crate) fn make_ready(
        &self,
        folder: &F,
        store: &StoreHeader,
        log: &mut Log<F::File>,
        entry: &Entry<'_>,
    ) -> Result<()> {
        self.make_room(folder, store, log, entry).map(drop)
    }

    fn check_room(&self, changes: &[Change<'_>]) -> Result<()> {
        let table = &self.table;
        let left = u64::from(self.records_max).saturating_sub(table.len());
        if left >= changes.len() as u64 {
            return Ok(());
        }
        let is_new = |change: &&Change<'_>| match change {
            Change::Put(key, _) => !table.has(hash_of(key), key),
            Change::Delete(_) => false,
        };
        if changes.iter().filter(is_new).count() as u64 > left {
            return Err(Error::Full { shard: self.number, max: self.records_max });
        }
        Ok(())
    }

    pub(crate) fn written(&self) -> u64 {
        self.writer().sequence
    }

    pub(crate) fn stats(&self) -> ShardStats {
        let log = self.writer();
        ShardStats {
            records: self.table.len(),
            sequence: log.sequence,
            durable: self.group.durable(),
            segments: log.segments.len() as u64,
            image: log.image.map_or(0, |(_, from)| from),
            adopted: self.adopted,
            poisoned: self.group.poison_text(),
        }
    }
}

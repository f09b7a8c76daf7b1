//! A shard: records in memory, one log, one writer at a time, a sync for all who wait.
//!
//! Where memory lasts longer than the process, a frame is at first in a ring in that memory, and
//! comes into the file when somebody syncs, or when the ring is full; elsewhere at once.
//!
//! Locks are taken in this order: `upkeep`, `log`, `syncing`, `flush`. Under `log` there are only the
//! syncs of a new segment and of [`Durability::Each`](crate::Durability::Each).

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    format::{
        DATA_AT, Header, ImageHeader, SegmentHeader, StoreHeader, VERSION, chain_start, image_name,
        segment_name, write_header,
    },
    history::{History, Position},
    hooks::{Commit, Hooks},
    image,
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
    flush: Mutex<Flush>,
    flushed: Condvar,
    /// Syncs of the log one at a time: one that fails must be known before the next begins, which
    /// might succeed without saving anything.
    syncing: Mutex<()>,
    upkeep: Mutex<()>,
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
    drained: u64,
    /// Up to where they are known to be durable.
    saved: u64,
    pub(crate) sequence: u64,
    chain: u32,
    pub(crate) history: History,
    /// Frames after this one are writes that follow each other in the history.
    pub(crate) since: u64,
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

/// A sync of the log: which segment, up to where, and what is written by it.
struct Job<S> {
    file: Arc<S>,
    segment: u64,
    /// Frames from here on, if they are few: one call writes and syncs them.
    from: u64,
    frames: Option<Vec<u8>>,
    to: u64,
    sequence: u64,
}

/// More bytes than these are written first, and then synced with all of the file.
const SYNCED_BYTES_MAX: u64 = 64 << 10;

/// Bytes that are copied out of the ring at a time: so few that they stay in the processor's cache.
const DRAINED_BYTES_MAX: u64 = 64 << 10;

/// How often others are let run before a sync that has fewer to wait for it than the last one.
const GATHER_YIELDS: usize = 8;

/// How far the log is durable, and who sees to it.
struct Flush {
    durable: u64,
    is_busy: bool,
    /// How many wait, and how many did at most since the last sync was begun.
    waiting: usize,
    crowd: usize,
    poison: Option<String>,
}

pub(crate) type Guard<'a, F> = MutexGuard<'a, Log<<F as Folder>::File>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked was in a closure of the user's, which runs before anything is changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a segment of zeros, durably. A file whose making failed is in doubt for good, and never
/// made again: the next try takes another number.
fn make_segment<F: Folder>(folder: &F, name: &str, bytes: u64) -> Result<F::File> {
    let make = || {
        let file = folder.file(name)?;
        let zeros = vec![0; bytes.min(1 << 20) as usize];
        let mut at = 0;
        while at < bytes {
            let part = zeros.len().min((bytes - at) as usize);
            file.write_at(at, &zeros[..part])?;
            at += part as u64;
        }
        file.sync()?;
        folder.sync_names()?;
        Ok(file)
    };
    make().map_err(|error| {
        // It is blank: if it stays, the next opening removes it.
        let _in_doubt = folder.remove(name);
        Error::io(name)(error)
    })
}

fn segment_header(store: &StoreHeader, shard: u32, number: u64) -> SegmentHeader {
    SegmentHeader {
        magic: SegmentHeader::MAGIC,
        version: VERSION.into(),
        flags: 0.into(),
        id: store.id,
        shard: shard.into(),
        chain: chain_start(&store.id, shard).into(),
        number: number.into(),
        epoch: store.epoch,
        first_sequence: 1.into(),
        bytes: store.segment_bytes,
        origin: History::At(Position::START).to_bytes(),
        reserved: [0; 24],
        checksum: 0.into(),
    }
}

/// Makes the first segment of a new shard.
pub(crate) fn create<F: Folder>(folder: &F, store: &StoreHeader, shard: u32) -> Result<()> {
    let name = segment_name(shard, 1);
    let file = make_segment(folder, &name, store.segment_bytes.get())?;
    let begin = || {
        write_header(&file, &segment_header(store, shard, 1))?;
        file.sync()
    };
    begin().map_err(Error::io(name))
}

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
        let last = segments[segments.len() - 1].number.get();
        let name = segment_name(number, last);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let again = || {
            if planted::is(Fault::TailTrusted) {
                return Ok(());
            }
            if !is_safe {
                file.write_at(0, &tail)?;
                let rest = (store.segment_bytes.get() as usize).saturating_sub(tail.len());
                file.write_at(tail.len() as u64, &vec![0; rest])?;
                write_header(&file, &segments[segments.len() - 1])?;
                file.sync()?;
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
            flush: Mutex::new(Flush {
                durable: sequence,
                is_busy: false,
                waiting: 0,
                crowd: 0,
                poison: None,
            }),
            flushed: Condvar::new(),
            syncing: Mutex::new(()),
            upkeep: Mutex::new(()),
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn history(&self) -> History {
        self.writer().history
    }

    /// Keeps images and segments made in advance out.
    pub(crate) fn upkeep(&self) -> MutexGuard<'_, ()> {
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

    fn poisoned(&self, what: &str) -> Error {
        Error::Poisoned { shard: self.number, what: what.to_owned() }
    }

    fn poison(&self, what: &str, error: &std::io::Error) -> Error {
        let mut flush = lock(&self.flush);
        let what = format!("{what}: {error}");
        let error = self.poisoned(&what);
        if !planted::is(Fault::ErrorForgotten) {
            flush.poison.get_or_insert(what);
        }
        self.flushed.notify_all();
        error
    }

    /// Takes no more writes, for a reason that is not its own.
    pub(crate) fn give_up(&self, what: &str) {
        lock(&self.flush).poison.get_or_insert_with(|| what.to_owned());
        self.flushed.notify_all();
    }

    fn check_sound(&self) -> Result<u64> {
        let flush = lock(&self.flush);
        match &flush.poison {
            Some(what) => Err(self.poisoned(what)),
            None => Ok(flush.durable),
        }
    }

    /// Syncs a segment, which makes everything up to `written` durable.
    fn sync(&self, written: u64, save: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
        let _one = lock(&self.syncing);
        self.check_sound()?;
        if !planted::is(Fault::SyncLeftOut) {
            save().map_err(|error| self.poison("a sync of the log", &error))?;
        }
        let mut flush = lock(&self.flush);
        if flush.durable < written {
            flush.durable = written;
            self.table.control()?.set_durable(written);
        }
        self.flushed.notify_all();
        Ok(())
    }

    /// Writes what is in the ring only.
    fn drain(&self, log: &mut Log<F::File>) -> Result<()> {
        if planted::is(Fault::RingLeftOut) {
            return Ok(());
        }
        while log.drained < log.at {
            let to = log.at.min(log.drained + DRAINED_BYTES_MAX);
            self.table.ring_read_into(log.drained, to, &mut log.drain);
            log.file
                .write_at(log.drained, &log.drain)
                .map_err(|error| self.poison("a write of the log", &error))?;
            self.note_written(log, to)?;
        }
        Ok(())
    }

    fn note_written(&self, log: &mut Log<F::File>, at: u64) -> Result<()> {
        log.drained = log.drained.max(at);
        self.table.control()?.set_written(log.segment(), log.drained);
        Ok(())
    }

    /// What a sync has to do at present.
    fn job(&self, log: &mut Log<F::File>) -> Result<Job<F::File>> {
        let few = SYNCED_BYTES_MAX.min(self.table.ring_bytes());
        let frames = if self.table.lasts() && log.at - log.saved <= few {
            let from = if planted::is(Fault::SyncTooShort) { log.drained } else { log.saved };
            Some(self.table.ring_read(from, log.at))
        } else {
            self.drain(log)?;
            None
        };
        Ok(Job {
            file: Arc::clone(&log.file),
            segment: log.segment(),
            from: log.at - frames.as_ref().map_or(0, |frames| frames.len() as u64),
            frames: frames.filter(|_| !planted::is(Fault::RingLeftOut)),
            to: log.at,
            sequence: log.sequence,
        })
    }

    fn save(&self, job: &Job<F::File>) -> Result<()> {
        self.sync(job.sequence, || match &job.frames {
            Some(frames) if frames.is_empty() => Ok(()),
            Some(frames) => job.file.write_synced_at(job.from, frames),
            None => job.file.sync(),
        })
    }

    fn note_saved(&self, log: &mut Log<F::File>, job: &Job<F::File>) -> Result<()> {
        if log.segment() != job.segment {
            return Ok(());
        }
        log.saved = log.saved.max(job.to);
        self.note_written(log, job.to)
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
        if self.table.lasts() && bytes <= self.table.ring_bytes() {
            if end - log.drained > self.table.ring_bytes() {
                self.drain(log)?;
            }
            if !planted::is(Fault::RingLate) {
                self.table.ring_write(log.at, &log.frame);
            }
        } else {
            self.drain(log)?;
            log.file
                .write_at(log.at, &log.frame)
                .map_err(|error| self.poison("a write of the log", &error))?;
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
        if planted::is(Fault::RingLate) && self.table.lasts() && bytes <= self.table.ring_bytes() {
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
        if planted::is(Fault::CommitLate) {
            writing.commit(place);
        }
        writing.applied(sequence);
        drop(writing);
        let token = Token { epoch: store.epoch.get(), shard: self.number, sequence };
        self.hooks.call(&Commit { token, changes });
        Ok(sequence)
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
        let durable = self.check_sound()?;
        let bytes = frame_bytes(entry.changes, entry.note, entry.parts.len()) as u64;
        let room = store.segment_bytes.get() - DATA_AT;
        if bytes > room {
            return Err(Error::BatchTooLong { bytes, max: room });
        }
        self.check_room(entry.changes)?;
        let mut writing = self.table.writing()?;
        if !writing.reserve(entry.changes.len())? {
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

    /// Goes on in a new segment. An error before it is begun changes nothing.
    fn rotate(&self, folder: &F, store: &StoreHeader, log: &mut Log<F::File>) -> Result<()> {
        let (number, file) = match log.spare.take() {
            Some(spare) => spare,
            None => {
                let number = log.next_number;
                log.next_number += 1;
                let name = segment_name(self.number, number);
                (number, make_segment(folder, &name, store.segment_bytes.get())?)
            }
        };
        self.drain(log)?;
        if !planted::is(Fault::RotationWithoutSync) {
            self.sync(log.sequence, || log.file.sync())?;
        }
        let mut header = segment_header(store, self.number, number);
        header.chain = log.chain.into();
        header.first_sequence = (log.sequence + 1).into();
        header.origin = log.history.to_bytes();
        write_header(&file, &header)
            .and_then(|()| file.sync())
            .map_err(|error| self.poison("beginning a segment", &error))?;
        let (first, origin) = (log.sequence + 1, log.history);
        log.segments.push(Segment { number, first, origin });
        log.file = Arc::new(file);
        (log.at, log.drained, log.saved) = (DATA_AT, DATA_AT, DATA_AT);
        self.note_written(log, DATA_AT)
    }

    /// Makes everything written so far durable while the writers wait.
    pub(crate) fn sync_now(&self, log: &mut Log<F::File>) -> Result<()> {
        let job = self.job(log)?;
        self.save(&job)?;
        self.note_saved(log, &job)
    }

    /// Makes the files have everything, durable or not.
    pub(crate) fn settle(&self, log: &mut Log<F::File>) -> Result<()> {
        self.drain(log)
    }

    /// Returns when a write is durable: whoever comes first syncs for all.
    pub(crate) fn wait(&self, sequence: u64) -> Result<()> {
        let mut flush = lock(&self.flush);
        if flush.durable >= sequence {
            return Ok(());
        }
        flush.waiting += 1;
        flush.crowd = flush.crowd.max(flush.waiting);
        let (done, mut flush) = self.wait_among(flush, sequence);
        flush.waiting -= 1;
        done
    }

    fn wait_among<'a>(
        &'a self,
        mut flush: MutexGuard<'a, Flush>,
        sequence: u64,
    ) -> (Result<()>, MutexGuard<'a, Flush>) {
        loop {
            if flush.durable >= sequence {
                return (Ok(()), flush);
            }
            if let Some(what) = &flush.poison {
                return (Err(self.poisoned(what)), flush);
            }
            if flush.is_busy {
                flush = self.flushed.wait(flush).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            flush.is_busy = true;
            drop(flush);
            // Segments before the present one were synced when it was begun.
            self.gather();
            let synced = self.lead();
            flush = lock(&self.flush);
            flush.is_busy = false;
            self.flushed.notify_all();
            if synced.is_err() {
                return (synced, flush);
            }
        }
    }

    /// Lets those come along who were woken by the last sync and write again: without that, each
    /// sync would have half of the writers only. Whoever is alone waits for nobody.
    fn gather(&self) {
        let crowd = lock(&self.flush).crowd;
        for _ in 0..GATHER_YIELDS {
            if lock(&self.flush).waiting >= crowd {
                break;
            }
            thread::yield_now();
        }
        let mut flush = lock(&self.flush);
        flush.crowd = flush.waiting;
    }

    /// Syncs for all who wait, while writers go on.
    fn lead(&self) -> Result<()> {
        let job = self.job(&mut lock(&self.log))?;
        self.save(&job)?;
        self.note_saved(&mut lock(&self.log), &job)
    }

    pub(crate) fn is_durable(&self, sequence: u64) -> bool {
        lock(&self.flush).durable >= sequence
    }

    pub(crate) fn written(&self) -> u64 {
        self.writer().sequence
    }

    /// Makes a segment in advance once the present one is half full.
    pub(crate) fn prepare(&self, folder: &F, store: &StoreHeader) -> Result<()> {
        let _upkeep = self.upkeep();
        let bytes = store.segment_bytes.get();
        let number = {
            let mut log = self.writer();
            if log.spare.is_some() || log.at < bytes / 2 {
                return Ok(());
            }
            log.next_number += 1;
            log.next_number - 1
        };
        let name = segment_name(self.number, number);
        let file = make_segment(folder, &name, bytes)?;
        let mut log = self.writer();
        // A segment that was begun meanwhile has a higher number, and this one would come before.
        if log.segments.iter().any(|begun| begun.number > number) {
            drop(log);
            return folder.remove(&name).map_err(Error::io(name));
        }
        log.spare = Some((number, file));
        Ok(())
    }

    /// Is the log so long, compared with the records, that an image is worth its writing?
    pub(crate) fn is_long(&self, store: &StoreHeader) -> bool {
        let log = self.writer();
        let live = self.table.len() * self.table.record() as u64;
        // Those that an image made needless, and followers still want, do not count.
        let image = log.image.map_or(0, |(_, from)| from);
        let behind = log.segments.iter().filter(|segment| segment.first > image.max(1)).count();
        behind as u64 * store.segment_bytes.get() > live.max(2 * store.segment_bytes.get())
    }

    /// Writes an image and cuts the log (A6). Writers go on.
    pub(crate) fn compact(&self, folder: &F, store: &StoreHeader) -> Result<()> {
        let _upkeep = self.upkeep();
        self.check_sound()?;
        let (number, from) = {
            let mut log = self.writer();
            log.next_number += 1;
            (log.next_number - 1, log.sequence)
        };
        let name = image_name(self.number, number);
        let written = self.write_image(folder, store, &name, (number, from));
        if let Err(error) = written {
            // Unfinished, it is in nobody's way; removed, it takes no room.
            let _unfinished = folder.remove(&name);
            return Err(error);
        }
        let mut log = self.writer();
        let wanted = log.retain.map_or(from, |retain| retain.min(from));
        let keep = log.segments.iter().rposition(|one| one.first <= wanted + 1).unwrap_or(0);
        let old = log.segments.drain(..keep).map(|one| segment_name(self.number, one.number));
        let mut old: Vec<String> = old.collect();
        let replaced = log.image.replace((number, from));
        old.extend(replaced.map(|(number, _)| image_name(self.number, number)));
        drop(log);
        for name in old {
            folder.remove(&name).map_err(Error::io(name))?;
        }
        folder.sync_names().map_err(Error::io("the directory"))
    }

    fn write_image(
        &self,
        folder: &F,
        store: &StoreHeader,
        name: &str,
        (number, from): (u64, u64),
    ) -> Result<()> {
        let failed = |error| Error::io(name)(error);
        let file = folder.file(name).map_err(failed)?;
        let (chunks, records, bytes) =
            image::write_chunks(&file, number, name, |slot, max, out| {
                self.table.chunk(slot, max, out)
            })?;
        let through = self.written();
        if !planted::is(Fault::ImageAhead) {
            self.wait(through)?;
        }
        let finish = |header: &ImageHeader| {
            if planted::is(Fault::LogCutEarly) {
                return write_header(&file, header);
            }
            if !planted::is(Fault::ImageHeaderEarly) {
                file.sync()?;
            }
            folder.sync_names()?;
            write_header(&file, header)?;
            file.sync()
        };
        finish(&ImageHeader {
            magic: ImageHeader::MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            id: store.id,
            shard: self.number.into(),
            chunks: chunks.into(),
            number: number.into(),
            epoch: store.epoch,
            from: from.into(),
            through: through.into(),
            records: records.into(),
            bytes: bytes.into(),
            reserved: [0; 36],
            checksum: 0.into(),
        })
        .map_err(failed)
    }

    pub(crate) fn stats(&self) -> ShardStats {
        let log = self.writer();
        let flush = lock(&self.flush);
        ShardStats {
            records: self.table.len(),
            sequence: log.sequence,
            durable: flush.durable,
            segments: log.segments.len() as u64,
            image: log.image.map_or(0, |(_, from)| from),
            adopted: self.adopted,
            poisoned: flush.poison.clone(),
        }
    }
}

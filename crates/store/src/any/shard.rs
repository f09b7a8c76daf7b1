//! A shard: its log, one writer at a time, and a sync for all who wait.
//!
//! Locks are taken in this order: `upkeep`, `log`, `index`, those of `group`.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use mainstay_storage::{Folder, Storage};

use super::{
    cache::Cache,
    compact::Upkeep,
    format::{
        AnyHeader, Entry, FrameHead, Hint, HintHeader, Kind, LogHeader, Past, Place, RECORD_LEN,
        Record, encode, follow, parts_of, record_bytes, stored_len, value_of,
    },
    index::{Index, Segment},
    kept::Record as OldRecord,
    recover::{Found, clear},
};
use crate::{
    error::{Error, Result},
    format::{DATA_AT, FRAME_LEN, Header, VERSION, chain_start, write_header},
    group::{Group, lock},
    history::{History, Position},
    planted::{self, Fault},
    shard::Change,
};

pub(super) struct Shard<F: Folder> {
    pub(super) number: u32,
    pub(super) index: RwLock<Index<F::File>>,
    log: Mutex<Log<F::File>>,
    pub(super) group: Group,
    pub(super) upkeep: Mutex<Upkeep>,
    /// How many hints the disk could not read when it was opened.
    pub(super) unread_hints: u64,
}

/// Where the log is written.
pub(super) struct Log<S> {
    pub(super) file: Arc<S>,
    pub(super) segment: u64,
    /// Where the next frame goes.
    pub(super) at: u64,
    pub(super) sequence: u64,
    pub(super) chain: u32,
    /// Where the history is; none in a store of before there were histories, until it is opened.
    pub(super) past: Option<Past>,
    /// All frames behind this one are to stay.
    pub(super) retain: Option<u64>,
    /// Of the segment in use.
    pub(super) first: u64,
    pub(super) hint: Hint,
    /// Segments that are full, and have no hints yet.
    pub(super) full: Vec<(Hint, HintHeader)>,
    /// The last full segment, and where the log was at its end.
    pub(super) sealed: (u64, u64, u32),
    pub(super) next_number: u64,
    pub(super) next_list: u64,
    /// The last frame that says that all before it was durable.
    pub(super) vouched: u64,
    /// The sequence when upkeep looked last, and how often it was the same since.
    pub(super) considered: (u64, u32),
    frame: Vec<u8>,
}

/// Why something is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It changes what keys are.
    New,
    /// It is there already, and gets another place.
    Moved,
}

/// What a write is made with.
pub(super) struct Store<'a, F> {
    pub(super) folder: &'a F,
    pub(super) header: &'a AnyHeader,
}

impl<F> Clone for Store<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Store<'_, F> {}

/// Zeros that are written at a time where room is reserved.
const RESERVED_BYTES: u64 = 1 << 20;

pub(super) type Writer<'a, F> = MutexGuard<'a, Log<<F as Folder>::File>>;

pub(super) fn log_header(store: &AnyHeader, shard: u32, number: u64) -> LogHeader {
    LogHeader {
        magic: LogHeader::MAGIC,
        version: VERSION.into(),
        flags: 0.into(),
        id: store.id,
        shard: shard.into(),
        chain: chain_start(&store.id, shard).into(),
        number: number.into(),
        epoch: store.epoch,
        first_sequence: 1.into(),
        past: Past::bytes_of(Some(Past::START)),
        reserved: [0; 24],
        checksum: 0.into(),
    }
}

/// An empty file, durably there. One whose making failed is in doubt, and its name is not used
/// again.
pub(super) fn make_file<F: Folder>(folder: &F, name: &str) -> Result<F::File> {
    let make = || {
        let file = folder.file(name)?;
        // With room for its header.
        file.allocate(DATA_AT)?;
        file.sync()?;
        if !planted::is(Fault::NamesUnsynced) {
            folder.sync_names()?;
        }
        Ok(file)
    };
    make().map_err(|error| {
        // It is blank: if it stays, the next opening removes it.
        let _in_doubt = folder.remove(name);
        Error::io(name)(error)
    })
}

impl<F: Folder> Shard<F> {
    pub(super) fn resume(number: u32, found: Found<F>) -> Self {
        let Found { index, log, durable, unread_hints, .. } = found;
        Self {
            number,
            index: RwLock::new(index),
            log: Mutex::new(log),
            group: Group::at(number, durable),
            upkeep: Mutex::new(Upkeep::default()),
            unread_hints: unread_hints.len() as u64,
        }
    }

    /// Keeps other writers out.
    pub(super) fn writer(&self) -> Writer<'_, F> {
        lock(&self.log)
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index<F::File>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index<F::File>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs a segment, which makes everything up to `written` durable.
    fn sync(&self, file: &F::File, written: u64) -> Result<()> {
        self.group.sync(written, || file.sync(), || Ok(()))
    }

    /// Makes sure that there is room for what is to be written. Whatever is refused is refused here,
    /// before anything is changed. The bytes of its frame, and the last write known to be durable.
    pub(super) fn make_ready(
        &self,
        store: Store<'_, F>,
        log: &mut Log<F::File>,
        entry: &Entry<'_>,
    ) -> Result<(u64, u64)> {
        let durable = self.group.check_sound()?;
        let bytes = entry.frame_bytes();
        let room = store.header.segment_bytes.get() - DATA_AT;
        if bytes > room {
            return Err(Error::BatchTooLong { bytes, max: room });
        }
        if log.at + bytes > store.header.segment_bytes.get() {
            self.rotate(store, log)?;
        }
        Ok((bytes, durable))
    }

    /// Writes changes, all or none, to the log, and makes them visible. No changes at all are
    /// written too: their frame says what is durable.
    pub(super) fn append(
        &self,
        store: Store<'_, F>,
        log: &mut Log<F::File>,
        entry: &Entry<'_>,
        why: Why,
    ) -> Result<u64> {
        let (bytes, durable) = self.make_ready(store, log, entry)?;
        let Entry { changes, ends, .. } = *entry;
        let head = FrameHead {
            seed: chain_start(&store.header.id, self.number),
            chain: log.chain,
            shard: self.number,
            epoch: entry.epoch.unwrap_or(store.header.epoch.get()),
            sequence: log.sequence + 1,
            durable,
            is_moved: why == Why::Moved,
        };
        let mut frame = std::mem::take(&mut log.frame);
        let chain = encode(head, entry, &mut frame);
        let bytes_of_changes = &frame[FRAME_LEN..FRAME_LEN + entry.changes_bytes() as usize];
        let written = (bytes_of_changes, head.is_moved);
        let past = follow(log.past, (head.epoch, head.sequence), entry.note, written);
        let written = log.file.write_at(log.at, &frame).map_err(|error| self.unwritten(log, error));
        // A long one is not kept for ever.
        frame.truncate(1 << 20);
        frame.shrink_to(1 << 20);
        log.frame = frame;
        written?;
        let mut index = self.index_mut();
        let mut at = FRAME_LEN;
        for (number, change) in changes.iter().enumerate() {
            let end = ends.of(number);
            let record = Record { change: *change, end, at };
            at += record_bytes(change.key().len(), stored_len(change, end)) as usize;
            if why == Why::New && !planted::is(Fault::SnapshotForgotten) {
                index.keep(change.key());
            }
            note(&mut index, log, &record);
        }
        log.at += bytes;
        log.sequence += 1;
        log.chain = chain;
        log.past = past;
        if let Some(segment) = index.segments.get_mut(&log.segment) {
            segment.end = log.at;
        }
        Ok(log.sequence)
    }

    /// Makes sure that the disk has room for a frame of so many bytes, which nobody may refuse later.
    /// Its place gets zeros, which are no frame: a log that ends before them ends there.
    pub(super) fn reserve(&self, log: &Log<F::File>, bytes: u64) -> Result<()> {
        let zeros = vec![0; bytes.min(RESERVED_BYTES) as usize];
        for at in (0..bytes).step_by(RESERVED_BYTES as usize) {
            let some = &zeros[..(bytes - at).min(RESERVED_BYTES) as usize];
            log.file.write_at(log.at + at, some).map_err(|error| self.unwritten(log, error))?;
        }
        Ok(())
    }

    /// Gives back what was reserved for a frame that is not written.
    pub(super) fn give_back(&self, log: &Log<F::File>) {
        // The zeros are in nobody's way, and the next frame is written over them.
        let _stays = log.file.set_len(log.at);
    }

    /// What becomes of a frame that was not written. Where there was no room for all of it the log is
    /// as it was: without its end it is no frame, and what there is of it is cut off.
    fn unwritten(&self, log: &Log<F::File>, error: io::Error) -> Error {
        let error = Error::io(Kind::Log.name(self.number, log.segment))(error);
        if !error.is_full() {
            return self.give_up("a write of the log", &error);
        }
        self.cut_off(log).err().unwrap_or(error)
    }

    /// Cuts off what was half written, for good: of this and of what takes its place a power cut would
    /// leave a mixture.
    fn cut_off(&self, log: &Log<F::File>) -> Result<()> {
        let failed = |error| self.group.poison("cutting off what was half written", &error);
        let len = log.file.len().map_err(failed)?;
        if len <= log.at {
            return Ok(());
        }
        if planted::is(Fault::RemainsLeft) {
            return log.file.set_len(log.at).map_err(failed);
        }
        // Zeros first: whoever finds them behind the end, if this process dies now, does it again.
        if clear(&*log.file, log.at, len).map_err(failed)? {
            self.sync_now(log)?;
            return log.file.set_len(log.at).map_err(failed);
        }
        log.file.set_len(log.at).map_err(failed)?;
        self.sync_now(log)
    }

    /// What becomes of a segment that was not begun. Its header may be there, and what the present one
    /// gets from now on would be no part of the log: it is removed, durably, where there was no room.
    fn not_begun(&self, folder: &F, number: u64, error: io::Error) -> Error {
        let name = Kind::Log.name(self.number, number);
        let error = Error::io(&*name)(error);
        let is_gone = || error.is_full() && folder.remove(&name).is_ok();
        if is_gone() && folder.sync_names().is_ok() {
            return error;
        }
        self.give_up("beginning a segment", &error)
    }

    /// Takes no more writes.
    fn give_up(&self, what: &str, error: &Error) -> Error {
        let source = io::Error::other(error.to_string());
        self.group.poison(what, &source)
    }

    /// Goes on in a new segment. An error before it is begun changes nothing.
    fn rotate(&self, store: Store<'_, F>, log: &mut Log<F::File>) -> Result<()> {
        let number = log.next_number;
        log.next_number += 1;
        let file = make_file(store.folder, &Kind::Log.name(self.number, number))?;
        if !planted::is(Fault::RotationWithoutSync) {
            self.sync(&log.file, log.sequence)?;
        }
        let mut header = log_header(store.header, self.number, number);
        header.chain = log.chain.into();
        header.first_sequence = (log.sequence + 1).into();
        header.past = Past::bytes_of(log.past);
        write_header(&file, &header)
            .map_err(|error| self.not_begun(store.folder, number, error))?;
        file.sync().map_err(|error| self.group.poison("beginning a segment", &error))?;
        let hint = std::mem::take(&mut log.hint);
        log.full.push((hint, hint_header(store.header, self.number, log)));
        log.sealed = (log.segment, log.sequence, log.chain);
        log.file = Arc::new(file);
        let mut index = self.index_mut();
        if let Some(segment) = index.segments.get_mut(&log.segment) {
            (segment.last, segment.chain) = (log.sequence, log.chain);
        }
        (log.segment, log.at, log.first) = (number, DATA_AT, log.sequence + 1);
        let segment = Segment::new(Arc::clone(&log.file), log.first, log.past);
        index.segments.insert(number, segment);
        Ok(())
    }

    /// Makes everything written so far durable while the writers wait.
    pub(super) fn sync_now(&self, log: &Log<F::File>) -> Result<()> {
        self.sync(&log.file, log.sequence)
    }

    /// Returns when a write is durable: whoever comes first syncs for all. Segments before the present
    /// one were synced when it was begun.
    pub(super) fn wait(&self, sequence: u64) -> Result<()> {
        self.group.wait(sequence, || {
            let (file, written) = {
                let log = self.writer();
                (Arc::clone(&log.file), log.sequence)
            };
            self.sync(&file, written)
        })
    }

    /// Reads the value of a key that has not ended `now` (V3).
    pub(super) fn read(&self, cache: &Cache, key: &[u8], now: u64) -> Result<Option<Arc<[u8]>>> {
        let record = self.find(&self.index(), key, now)?;
        record.map(|record| self.read_at(cache, key, record)).transpose()
    }

    /// Where the record of a key is that has not ended `now`.
    pub(super) fn find(
        &self,
        index: &Index<F::File>,
        key: &[u8],
        now: u64,
    ) -> Result<Option<OldRecord<F::File>>> {
        let Some(place) = index.find(key).filter(|place| place.is_live(now)) else {
            return Ok(None);
        };
        let segment = index.segments.get(&place.segment).ok_or_else(|| self.damaged(place))?;
        Ok(Some((place, Arc::clone(&segment.file))))
    }

    /// Reads the value of a key whose record is there.
    pub(super) fn read_at(
        &self,
        cache: &Cache,
        key: &[u8],
        (place, file): OldRecord<F::File>,
    ) -> Result<Arc<[u8]>> {
        if let Some(value) = cache.get(self.number, place) {
            return Ok(value);
        }
        let mut record = vec![0; RECORD_LEN + key.len() + place.value_len as usize];
        self.read_record(&file, place, &mut record)?;
        let value = value_of(&record, key).ok_or_else(|| self.damaged(place))?;
        let value: Arc<[u8]> = value.into();
        cache.keep(self.number, place, &value);
        Ok(value)
    }

    /// Shows records in the order in which they are on the disk, past the cache. Each is at a place,
    /// and has a key of so many bytes.
    pub(super) fn show(
        &self,
        mut places: Vec<(Place, u32)>,
        files: &BTreeMap<u64, Arc<F::File>>,
        show: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        places.sort_unstable_by_key(|(place, _)| (place.segment, place.at));
        let mut record = Vec::new();
        for (place, key_len) in places {
            let file = files.get(&place.segment).ok_or_else(|| self.damaged(place))?;
            record.clear();
            record.resize(RECORD_LEN + key_len as usize + place.value_len as usize, 0);
            self.read_record(file, place, &mut record)?;
            let (key, value) = parts_of(&record).ok_or_else(|| self.damaged(place))?;
            show(key, value);
        }
        Ok(())
    }

    pub(super) fn read_record(
        &self,
        file: &F::File,
        place: Place,
        record: &mut [u8],
    ) -> Result<()> {
        let name = || Kind::Log.name(self.number, place.segment);
        file.read_at(place.at.into(), record).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged(place),
            _ => Error::io(name())(error),
        })
    }

    pub(super) fn damaged(&self, place: Place) -> Error {
        let what = "a record is not as it was written";
        Error::damaged(&Kind::Log.name(self.number, place.segment), place.at.into(), what)
    }
}

/// The header of a hint for the segment in use, as far as it is written.
pub(super) fn hint_header<S>(store: &AnyHeader, shard: u32, log: &Log<S>) -> HintHeader {
    HintHeader {
        magic: HintHeader::MAGIC,
        version: VERSION.into(),
        flags: 0.into(),
        id: store.id,
        shard: shard.into(),
        count: 0.into(),
        number: log.segment.into(),
        first: log.first.into(),
        last: log.sequence.into(),
        bytes: log.at.into(),
        chain: log.chain.into(),
        body_sum: 0.into(),
        body_bytes: 0.into(),
        past: Past::bytes_of(log.past),
        checksum: 0.into(),
    }
}

/// Takes a record of the segment in use into the index. The frame begins where the log is.
pub(super) fn note<S>(index: &mut Index<S>, log: &mut Log<S>, record: &Record<'_>) {
    let at = log.at as u32 + record.at as u32;
    log.hint.note(at, &record.change, record.end);
    match record.change {
        Change::Put(key, _) => {
            let value_len = stored_len(&record.change, record.end);
            index.put(key, Place { segment: log.segment, at, value_len, end: record.end });
        }
        Change::Delete(key) => index.delete(key, log.segment),
    }
}

impl<S> Log<S> {
    /// Where the shard is; a store that is open has a history.
    pub(super) fn history(&self) -> History {
        self.past.map_or(History::Mending(Position::START), |past| past.history)
    }

    pub(super) fn new(file: Arc<S>, segment: u64) -> Self {
        Self {
            file,
            segment,
            at: DATA_AT,
            sequence: 0,
            chain: 0,
            past: None,
            retain: None,
            first: 1,
            hint: Hint::default(),
            full: Vec::new(),
            sealed: (0, 0, 0),
            next_number: segment + 1,
            next_list: 1,
            vouched: 0,
            considered: (0, 0),
            frame: Vec::new(),
        }
    }
}

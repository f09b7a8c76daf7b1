//! A shard: records in memory, one log, one writer at a time, a sync for all who wait.
//!
//! Locks are taken in this order: `upkeep`, `log`, `syncing`, then `table` or `flush`. No sync
//! happens under `table`; under `log` only those of a new segment and of
//! [`Durability::Each`](crate::Durability::Each).

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    format::{
        DATA_AT, Header, ImageHeader, SegmentHeader, StoreHeader, VERSION, chain_start, image_name,
        segment_name, write_header,
    },
    history::{History, Position},
    image,
    log::{Place, encode, frame_bytes},
    planted::{self, Fault},
    recover::{Loaded, apply},
    table::{Table, hash_of},
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
    /// What failed, if the shard takes no more writes.
    pub poisoned: Option<String>,
}

pub(crate) struct Shard<F: Folder> {
    number: u32,
    records_max: u32,
    table: RwLock<Table>,
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
    pub(crate) changes: &'a [Change<'a>],
}

/// Where the log is written.
pub(crate) struct Log<S> {
    /// The one in use last.
    pub(crate) segments: Vec<Segment>,
    pub(crate) file: Arc<S>,
    pub(crate) at: u64,
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
}

/// How far the log is durable, and who sees to it.
struct Flush {
    durable: u64,
    is_busy: bool,
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
        records_max: u32,
        loaded: Loaded,
    ) -> Result<Self> {
        let Loaded { table, image, segments, tail, history, since, next_number, .. } = loaded;
        let Loaded { sequence, chain, leftovers, .. } = loaded;
        let last = segments[segments.len() - 1].number.get();
        let name = segment_name(number, last);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let again = || {
            if planted::is(Fault::TailTrusted) {
                return Ok(());
            }
            file.write_at(0, &tail)?;
            let zeros = vec![0; (store.segment_bytes.get() as usize).saturating_sub(tail.len())];
            file.write_at(tail.len() as u64, &zeros)?;
            write_header(&file, &segments[segments.len() - 1])?;
            file.sync()?;
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
            at: tail.len() as u64,
            sequence,
            chain,
            history,
            since,
            retain: None,
            image: image.map(|head| (head.number.get(), head.from.get())),
            next_number,
            spare: None,
            frame: Vec::new(),
        };
        Ok(Self {
            number,
            records_max,
            table: RwLock::new(table),
            log: Mutex::new(log),
            flush: Mutex::new(Flush { durable: sequence, is_busy: false, poison: None }),
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

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
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

    fn check_sound(&self) -> Result<u64> {
        let flush = lock(&self.flush);
        match &flush.poison {
            Some(what) => Err(self.poisoned(what)),
            None => Ok(flush.durable),
        }
    }

    /// Syncs a segment, which makes everything up to `written` durable.
    fn sync(&self, file: &F::File, written: u64) -> Result<()> {
        let _one = lock(&self.syncing);
        self.check_sound()?;
        if !planted::is(Fault::SyncLeftOut) {
            file.sync().map_err(|error| self.poison("a sync of the log", &error))?;
        }
        let mut flush = lock(&self.flush);
        flush.durable = flush.durable.max(written);
        self.flushed.notify_all();
        Ok(())
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
        let durable = self.check_sound()?;
        let Entry { epoch, note, changes } = *entry;
        let bytes = frame_bytes(changes, note) as u64;
        let room = store.segment_bytes.get() - DATA_AT;
        if bytes > room {
            return Err(Error::BatchTooLong { bytes, max: room });
        }
        self.check_room(changes)?;
        if log.at + bytes > store.segment_bytes.get() {
            self.rotate(folder, store, log)?;
        }
        let place = Place {
            chain: log.chain,
            shard: self.number,
            epoch,
            sequence: log.sequence + 1,
            durable,
            note,
        };
        let (chain, history) = encode(place, log.history, changes, &mut log.frame);
        log.file
            .write_at(log.at, &log.frame)
            .map_err(|error| self.poison("a write of the log", &error))?;
        log.at += bytes;
        log.sequence += 1;
        log.chain = chain;
        log.history = history;
        if note.is_some() {
            log.since = log.sequence;
        }
        let mut table = self.table_mut();
        for change in changes {
            apply(&mut table, change, log.sequence);
        }
        Ok(log.sequence)
    }

    fn check_room(&self, changes: &[Change<'_>]) -> Result<()> {
        let table = self.table();
        let left = u64::from(self.records_max).saturating_sub(table.len() as u64);
        if left >= changes.len() as u64 {
            return Ok(());
        }
        let is_new = |change: &&Change<'_>| match change {
            Change::Put(key, _) => table.get(hash_of(key), key).is_none(),
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
        if !planted::is(Fault::RotationWithoutSync) {
            self.sync(&log.file, log.sequence)?;
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
        log.at = DATA_AT;
        Ok(())
    }

    /// Makes everything written so far durable while the writers wait.
    pub(crate) fn sync_now(&self, log: &Log<F::File>) -> Result<()> {
        self.sync(&log.file, log.sequence)
    }

    /// Returns when a write is durable: whoever comes first syncs for all.
    pub(crate) fn wait(&self, sequence: u64) -> Result<()> {
        let mut flush = lock(&self.flush);
        loop {
            if flush.durable >= sequence {
                return Ok(());
            }
            if let Some(what) = &flush.poison {
                return Err(self.poisoned(what));
            }
            if flush.is_busy {
                flush = self.flushed.wait(flush).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            flush.is_busy = true;
            drop(flush);
            let (file, written) = {
                let log = lock(&self.log);
                (Arc::clone(&log.file), log.sequence)
            };
            // Segments before this one were synced when it was begun.
            let synced = self.sync(&file, written);
            flush = lock(&self.flush);
            flush.is_busy = false;
            self.flushed.notify_all();
            synced?;
        }
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
        let table = self.table();
        let live = table.len() as u64 * table.stride() as u64;
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
            image::write_chunks(&file, number, |slot, max, out| self.table().chunk(slot, max, out))
                .map_err(failed)?;
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
            records: self.table().len() as u64,
            sequence: log.sequence,
            durable: flush.durable,
            segments: log.segments.len() as u64,
            image: log.image.map_or(0, |(_, from)| from),
            poisoned: flush.poison.clone(),
        }
    }
}

//! A store of any sizes as its files say, for who only looks: nothing is written, no epoch begins, and
//! somebody else may have it open.

use std::{collections::BTreeMap, path::Path, sync::Arc, thread, time::Duration};

use mainstay_storage::Folder;

use super::{
    cache::Cache,
    format::{AnyHeader, Place, RECORD_LEN, parts_of},
    index::Index,
    parts::Parts,
    raw::{LogShardStats, check_header},
    recover::{How, any_header, load},
    shard::Shard,
};
use crate::{
    ends::{has_ended, unix_ms},
    error::{Error, Result},
    keyed::Ring,
    mark::check_whole,
    open_files,
    rank::Ranked,
    read_only::ReadOnly,
    shard::Change,
    store::in_parallel,
};

/// Values by key, with when they end; none: the key is deleted.
type Late = BTreeMap<Box<[u8]>, Option<(Vec<u8>, u64)>>;

/// How often files are looked at anew that somebody changed meanwhile, and after which pause.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(5);

/// A store with keys and values of any size, without taking part: what had been written when it was
/// looked at, at whatever level, and none of what is written later.
///
/// If somebody has it open, it is read beside them, one shard after the other, each as it is at one
/// moment; nobody waits. Keys are in memory, as they are
/// for whoever has it open; values are read when they are asked for, from files that are held, so that
/// they stay readable when a compaction removes them.
///
/// ```
/// use mainstay_store::{Durability, LogOnDisk, LogOptions, LogStore};
/// let dir = tempfile::tempdir()?;
/// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
/// store.put(&7, &"seven".to_owned(), Durability::Memory)?;
/// // The store is open, and stays so.
/// let view = LogOnDisk::open(dir.path())?;
/// assert_eq!(view.records(), 1);
/// let mut values = Vec::new();
/// view.for_each(|_, value, end| values.push((value.to_vec(), end)))?;
/// assert_eq!(values, [(b"seven".to_vec(), None)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LogOnDisk {
    header: AnyHeader,
    shards: Vec<Shard<ReadOnly>>,
    /// What a batch has written, but not yet where it belongs.
    late: Late,
    cache: Cache,
    now: u64,
    /// Somebody had it open.
    is_beside: bool,
    // Last, so that nobody writes before all is forgotten.
    _folder: ReadOnly,
}

impl LogOnDisk {
    /// Reads the index of the store.
    ///
    /// Example: see [`LogOnDisk`].
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::OtherKind`]; [`Error::Unfinished`]; [`Error::NotWhole`] for a copy
    /// that has only a part of what it is of; [`Error::Damaged`]; what the disk says.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, Ring::NONE)
    }

    /// The same of a store that is encrypted.
    ///
    /// ```
    /// use mainstay_store::{Directory, Key, Keys, LogOnDisk, LogOptions, RawLogStore};
    /// let dir = tempfile::tempdir()?;
    /// let keys = Keys::new(Key::new(&[7; 32]));
    /// let folder = Directory::lock_with(dir.path(), &keys)?;
    /// RawLogStore::create(folder, &LogOptions::default())?.close()?;
    /// assert_eq!(LogOnDisk::open_with(dir.path(), &keys)?.records(), 0);
    /// assert!(LogOnDisk::open(dir.path()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::OtherKey`]; [`Error::NotEncrypted`].
    #[cfg(feature = "encryption")]
    pub fn open_with(path: &Path, keys: &crate::Keys) -> Result<Self> {
        Self::open_as(path, Ring::of(keys))
    }

    /// The same without a lock, for who looks again and again: whoever wants to open the store is never
    /// refused because of it.
    ///
    /// ```
    /// use mainstay_store::{Durability, LogOnDisk, LogOptions, LogStore};
    /// let dir = tempfile::tempdir()?;
    /// LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?.close()?;
    /// let view = LogOnDisk::beside(dir.path())?;
    /// let store = LogStore::<u64, String>::open(dir.path(), &LogOptions::default())?;
    /// store.put(&7, &"seven".to_owned(), Durability::Memory)?;
    /// assert_eq!((view.records(), LogOnDisk::beside(dir.path())?.records()), (0, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn beside(path: &Path) -> Result<Self> {
        Self::beside_as(path, Ring::NONE)
    }

    /// The same of a store that is encrypted.
    ///
    /// Example: see [`open_with`](Self::open_with), which is called alike.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    #[cfg(feature = "encryption")]
    pub fn beside_with(path: &Path, keys: &crate::Keys) -> Result<Self> {
        Self::beside_as(path, Ring::of(keys))
    }

    fn beside_as(path: &Path, ring: Ring<'_>) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NotAStore);
        }
        patiently(true, || ReadOnly::beside(path, ring).and_then(|folder| Self::over(folder, true)))
    }

    fn open_as(path: &Path, ring: Ring<'_>) -> Result<Self> {
        match ReadOnly::open(path, ring) {
            Err(Error::Locked) => {}
            folder => return Self::over(folder?, false),
        }
        Self::beside_as(path, ring)
    }

    fn over(folder: ReadOnly, is_beside: bool) -> Result<Self> {
        // Beside an owner one shard after the other: of a batch over several the first one says what
        // the others are to have, and they have it or get it later.
        let threads = u32::from(is_beside);
        check_whole(&folder)?;
        let header = any_header(&folder)?;
        check_header(&header)?;
        header.check_finished()?;
        let read = |number| {
            let mut found = load(&folder, &header, number, How::View, &mut |_| {})?;
            let parts = found.parts.take();
            Ok((Shard::resume(number, found), parts))
        };
        let shards = header.shards.get();
        let files = || folder.names().map_or(0, |names| names.len());
        let shards = in_parallel(shards, threads, read);
        let shards = open_files::counted(shards, header.shards.get(), files)?;
        let (shards, parts): (Vec<Shard<ReadOnly>>, Vec<_>) = shards.into_iter().unzip();
        let late = late(&header, &shards, &parts)?;
        let (cache, now) = (Cache::new(0), unix_ms());
        Ok(Self { header, shards, late, cache, now, is_beside, _folder: folder })
    }

    /// What tells this store from all others.
    ///
    /// ```
    /// use mainstay_store::{Directory, LogOnDisk, LogOptions, RawLogStore};
    /// let dir = tempfile::tempdir()?;
    /// let folder = Directory::lock(dir.path())?;
    /// let store = RawLogStore::create(folder, &LogOptions::default())?;
    /// let view = LogOnDisk::open(dir.path())?;
    /// assert_eq!((view.id(), view.shard_bits()), (store.id(), 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.header.id
    }

    /// How many bits of a key choose its shard; 0: all. See
    /// [`LogOptions::shard_bits`](crate::LogOptions::shard_bits).
    ///
    /// Example: see [`LogOnDisk::id`].
    #[must_use]
    pub fn shard_bits(&self) -> u32 {
        self.header.shard_bits.get()
    }

    /// How many records there are, those included that have ended and were not yet removed.
    ///
    /// Example: see [`LogOnDisk`].
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shards.iter().map(|shard| shard.index().len()).sum()
    }

    /// What each shard has. What a batch is still to give to other shards is not counted.
    ///
    /// ```
    /// use mainstay_store::{Directory, LogOnDisk, LogOptions, RawLogStore};
    /// let dir = tempfile::tempdir()?;
    /// RawLogStore::create(Directory::lock(dir.path())?, &LogOptions::default())?.close()?;
    /// let stats = LogOnDisk::open(dir.path())?.stats();
    /// assert!(stats.iter().all(|shard| shard.records == 0 && shard.segments == 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Vec<LogShardStats> {
        self.shards.iter().map(Shard::stats).collect()
    }

    /// The value of a key, and when the record ends, in milliseconds since 1970, if it does.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability, LogOnDisk, LogOptions, RawLogStore};
    /// let dir = tempfile::tempdir()?;
    /// let folder = Directory::lock(dir.path())?;
    /// let store = RawLogStore::create(folder, &LogOptions::default())?;
    /// store.put(b"de", b"Deutschland", Durability::Memory)?;
    /// let view = LogOnDisk::open(dir.path())?;
    /// assert_eq!(view.get(b"de")?, Some((b"Deutschland".to_vec(), None)));
    /// assert_eq!(view.get(b"fr")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Damaged`] if the record is not as it was written; what the disk says.
    pub fn get(&self, key: &[u8]) -> Result<Option<(Vec<u8>, Option<u64>)>> {
        if let Some(late) = self.late.get(key) {
            let live = late.as_ref().filter(|(_, end)| !has_ended(*end, self.now));
            return Ok(live.map(|(value, end)| (value.clone(), end_of(*end))));
        }
        let shard = &self.shards[self.header.route().find(key).1];
        let found = shard.find(&shard.index(), key, self.now)?;
        let Some(found) = found else { return Ok(None) };
        let end = found.0.end;
        let read = || shard.read_at(&self.cache, key, (found.0, Arc::clone(&found.1)));
        let value = patiently(self.is_beside, read)?;
        Ok(Some((value.to_vec(), end_of(end))))
    }

    /// Shows every record to a closure: key, value, and when it ends, as by [`get`](Self::get). They
    /// come in the order in which they are on the disk.
    ///
    /// Example: see [`LogOnDisk`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8], Option<u64>)) -> Result<()> {
        self.for_each_while(|key, value, end| {
            show(key, value, end);
            true
        })
    }

    /// The same until the closure says false.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability, LogOnDisk, LogOptions, RawLogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = RawLogStore::create(Directory::lock(dir.path())?, &LogOptions::default())?;
    /// store.put(b"de", b"49", Durability::Memory)?;
    /// store.put(b"fr", b"33", Durability::Memory)?;
    /// let (view, mut shown) = (LogOnDisk::open(dir.path())?, 0);
    /// view.for_each_while(|_, _, _| {
    ///     shown += 1;
    ///     false
    /// })?;
    /// assert_eq!(shown, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn for_each_while(
        &self,
        mut show: impl FnMut(&[u8], &[u8], Option<u64>) -> bool,
    ) -> Result<()> {
        for shard in &self.shards {
            let index = shard.index();
            let mut places: Vec<(Place, usize)> =
                self.live(&index).map(|(key, place)| (place, key.len())).collect();
            places.sort_unstable_by_key(|(place, _)| (place.segment, place.at));
            let mut record = Vec::new();
            for (place, key_len) in places {
                let segment = index.segments.get(&place.segment);
                let file = &segment.ok_or_else(|| shard.damaged(place))?.file;
                record.clear();
                record.resize(RECORD_LEN + key_len + place.value_len as usize, 0);
                patiently(self.is_beside, || {
                    shard.read_record(file, place, &mut record)?;
                    parts_of(&record).map(drop).ok_or_else(|| shard.damaged(place))
                })?;
                let (key, value) = parts_of(&record).ok_or_else(|| shard.damaged(place))?;
                if !show(key, value, end_of(place.end)) {
                    return Ok(());
                }
            }
        }
        for (key, (value, end)) in self.late() {
            if !show(key, value, end_of(*end)) {
                break;
            }
        }
        Ok(())
    }

    /// Shows every key to a closure, in no order, without reading a value.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability, LogOnDisk, LogOptions, RawLogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = RawLogStore::create(Directory::lock(dir.path())?, &LogOptions::default())?;
    /// store.put(b"de", b"49", Durability::Memory)?;
    /// let mut keys = Vec::new();
    /// LogOnDisk::open(dir.path())?.for_each_key(|key| keys.push(key.to_vec()));
    /// assert_eq!(keys, [b"de"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_each_key(&self, mut show: impl FnMut(&[u8])) {
        for shard in &self.shards {
            self.live(&shard.index()).for_each(|(key, _)| show(key));
        }
        self.late().for_each(|(key, _)| show(key));
    }

    /// What is there of a shard.
    fn live<'a>(
        &'a self,
        index: &'a Index<<ReadOnly as Folder>::File>,
    ) -> impl Iterator<Item = (&'a [u8], Place)> {
        let is_there =
            |key: &[u8], place: &Place| place.is_live(self.now) && !self.late.contains_key(key);
        index.lines.iter().filter(move |(key, place)| is_there(key, place))
    }

    /// What is there of what belongs elsewhere.
    fn late(&self) -> impl Iterator<Item = (&[u8], &(Vec<u8>, u64))> {
        let live = |late: &&(Vec<u8>, u64)| !has_ended(late.1, self.now);
        self.late.iter().filter_map(move |(key, late)| Some((&**key, late.as_ref().filter(live)?)))
    }
}

fn end_of(end: u64) -> Option<u64> {
    (end != 0).then_some(end)
}

/// Does it again, beside an owner, as long as what is wrong may be that files are being changed: of an
/// encrypted store the last sector is written anew with each write.
fn patiently<T>(is_beside: bool, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempts = if is_beside { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match read() {
            Err(error) if attempts > 0 && may_pass(&error) => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

/// Can it be that files were changed while they were looked at?
fn may_pass(error: &Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    match error {
        Error::Damaged { .. } => true,
        Error::Io { source, .. } => matches!(source.kind(), NotFound | UnexpectedEof),
        _ => false,
    }
}

/// What the last frame of a shard has of others that these have not.
fn late(header: &AnyHeader, shards: &[Shard<ReadOnly>], parts: &[Option<Parts>]) -> Result<Late> {
    let written = |shard: u32| shards.get(shard as usize).map(|shard| shard.writer().sequence);
    let mut late = Late::new();
    for (home, parts) in (0..).zip(parts) {
        let Some(parts) = parts else { continue };
        for missing in parts.missing(header, home, written)? {
            for change in missing.changes {
                let value = match change {
                    Change::Put(_, value) => Some((value.to_vec(), missing.end)),
                    Change::Delete(_) => None,
                };
                late.insert(change.key().into(), value);
            }
        }
    }
    Ok(late)
}

#[cfg(test)]
mod tests;

//! A store of any sizes over bytes.

use std::sync::Arc;

use mainstay_storage::{Folder, Storage};

use super::{
    cache::Cache,
    compact::list_header,
    format::{ANY_FILE, AnyHeader, Kind, ListHeader, RECORD_LEN, parse_name, parts_of, write_list},
    options::LogOptions,
    recover::{How, any_header, load},
    shard::{Shard, Store, Writer, lock, log_header},
};
use crate::{
    error::{Error, Result},
    format::{
        COPY_AT, DATA_AT, Header, IMPLAUSIBLE, NUMBERS_END, VERSION, chain_start, sealed,
        write_header,
    },
    limits::{ANY_KEY_BYTES_MAX, ANY_VALUE_BYTES_MAX},
    options::{Durability, Token},
    shard::Change,
    store::in_parallel,
    table::{hash_of, shard_of},
};

/// What a shard of a [`LogStore`](crate::LogStore) has.
///
/// Example: see [`RawLogStore::stats`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogShardStats {
    /// Records.
    pub records: u64,
    /// Bytes of their keys, which are in memory.
    pub key_bytes: u64,
    /// Writes since the store was created; what a compaction moves is written again.
    pub sequence: u64,
    /// The last of them that is known to be durable.
    pub durable: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of these segments.
    pub log_bytes: u64,
    /// Bytes of them that a compaction of all would keep.
    pub live_bytes: u64,
    /// Bytes of values that compaction has moved since the store was opened.
    pub moved_bytes: u64,
    /// Bytes of segments that it has freed.
    pub freed_bytes: u64,
    /// What failed, if the shard takes no more writes.
    pub poisoned: Option<String>,
}

/// Keys and values of any size as bytes, in a [`Folder`]. Nothing happens by itself here: whoever
/// has one calls [`tend`](Self::tend) from time to time, as [`crate::LogStore`] does.
///
/// A write is visible to everybody as soon as it is in the log, before it is durable.
///
/// ```
/// use mainstay_store::{Durability, LogOptions, RawLogStore};
/// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
/// store.put(b"de", b"Deutschland", Durability::Memory)?;
/// assert_eq!(store.get(b"de")?.as_deref(), Some(&b"Deutschland"[..]));
/// # Ok::<(), mainstay_store::Error>(())
/// ```
pub struct RawLogStore<F: Folder> {
    folder: F,
    header: AnyHeader,
    shards: Vec<Shard<F>>,
    cache: Cache,
    options: LogOptions,
}

/// Writes the header of the store durably; the copy that is there stays until then.
fn write_next(folder: &impl Folder, header: &mut AnyHeader) -> Result<()> {
    let generation = header.generation.get() + 1;
    header.generation = generation.into();
    let begin = || {
        let file = folder.file(ANY_FILE)?;
        file.write_at(if generation.is_multiple_of(2) { 0 } else { COPY_AT }, &sealed(header))?;
        file.sync()
    };
    begin().map_err(Error::io(ANY_FILE))
}

/// Whoever wrote the header had the checksum right; the numbers are checked all the same.
pub(super) fn check_header(header: &AnyHeader) -> Result<()> {
    let options = LogOptions {
        shards: header.shards.get(),
        segment_bytes: header.segment_bytes.get(),
        ..LogOptions::default()
    };
    let is_sound = options.check().is_ok()
        && header.generation.get() < NUMBERS_END
        && header.epoch.get() < NUMBERS_END;
    if is_sound { Ok(()) } else { Err(Error::damaged(ANY_FILE, 0, IMPLAUSIBLE)) }
}

impl<F: Folder> RawLogStore<F> {
    /// Makes a store.
    ///
    /// Example: see [`RawLogStore`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`], [`Error::Exists`], or what the disk says; then there is no store.
    pub fn create(folder: F, options: &LogOptions) -> Result<Self> {
        options.check()?;
        match any_header(&folder) {
            Err(Error::NotAStore) => {}
            Ok(_) | Err(Error::OtherKind { .. }) => return Err(Error::Exists),
            Err(error) => return Err(error),
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| {
            Error::io("random numbers")(std::io::Error::other(error.to_string()))
        })?;
        let header = AnyHeader {
            magic: AnyHeader::MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            id,
            shards: options.shards.into(),
            reserved_32: 0.into(),
            segment_bytes: options.segment_bytes.into(),
            epoch: 0.into(),
            generation: 1.into(),
            reserved: [0; 60],
            checksum: 0.into(),
        };
        // What an earlier creation left that did not come to its end.
        for name in folder.names().map_err(Error::io("the directory"))? {
            if parse_name(&name).is_some() {
                folder.remove(&name).map_err(Error::io(name))?;
            }
        }
        for shard in 0..options.shards {
            create_shard(&folder, &header, shard)?;
        }
        // The header last: from then on it is a store.
        let publish = || {
            folder.sync_names()?;
            let file = folder.file(ANY_FILE)?;
            write_header(&file, &header)?;
            file.sync()?;
            folder.sync_names()
        };
        publish().map_err(Error::io(ANY_FILE))?;
        Self::open(folder, options)
    }

    /// Opens a store, and makes it what its log says (V1). Shards are read in parallel, and values
    /// only where the store was not closed.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let disk = mainstay_sim::Disk::new(7);
    /// let store = RawLogStore::create(disk.clone(), &LogOptions::default())?;
    /// store.put(b"k", b"v", Durability::Each)?;
    /// disk.power_cut();
    /// let store = RawLogStore::open(disk, &LogOptions::default())?;
    /// assert_eq!(store.get(b"k")?.as_deref(), Some(&b"v"[..]));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::OtherKind`]; [`Error::Damaged`] if what was durable is not as
    /// it was written; what the disk says.
    pub fn open(folder: F, options: &LogOptions) -> Result<Self> {
        let mut header = any_header(&folder)?;
        check_header(&header)?;
        let mut options = options.clone();
        (options.shards, options.segment_bytes) = (header.shards.get(), header.segment_bytes.get());
        options.check()?;
        // A new epoch, durable before anything is acknowledged in it; the other copy stays.
        header.epoch = (header.epoch.get() + 1).into();
        write_next(&folder, &mut header)?;
        let resume = |number| {
            let found = load(&folder, &header, number, How::Open, &mut |_| {})?;
            Ok(Shard::resume(number, found))
        };
        let shards = in_parallel(header.shards.get(), options.threads, resume)?;
        let cache = Cache::new(options.cache_bytes);
        Ok(Self { folder, header, shards, cache, options })
    }

    fn store(&self) -> Store<'_, F> {
        Store { folder: &self.folder, header: &self.header }
    }

    /// What tells this store from all others.
    ///
    /// ```
    /// # use mainstay_store::{LogOptions, RawLogStore};
    /// let one = RawLogStore::create(mainstay_sim::Disk::new(1), &LogOptions::default())?;
    /// let other = RawLogStore::create(mainstay_sim::Disk::new(2), &LogOptions::default())?;
    /// assert_ne!(one.id(), other.id());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.header.id
    }

    /// The longest key and value together that one write can have here, in bytes.
    ///
    /// ```
    /// # use mainstay_store::{LogOptions, RawLogStore};
    /// let small = LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(1), &small)?;
    /// assert_eq!(store.record_bytes_max(), (12 << 10) - 60);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn record_bytes_max(&self) -> u64 {
        let head = (crate::format::FRAME_LEN + RECORD_LEN) as u64;
        let room = self.header.segment_bytes.get() - DATA_AT - head;
        room.min((ANY_KEY_BYTES_MAX + ANY_VALUE_BYTES_MAX) as u64)
    }

    fn shard_of(&self, key: &[u8]) -> Result<&Shard<F>> {
        if !(1..=ANY_KEY_BYTES_MAX).contains(&key.len()) {
            let (value, must) = (key.len() as u64, "1 to 4096 bytes");
            return Err(Error::OutOfLimits { what: "the length of a key", value, must });
        }
        Ok(&self.shards[shard_of(hash_of(key), self.shards.len())])
    }

    fn check_value(value: &[u8]) -> Result<()> {
        if value.len() <= ANY_VALUE_BYTES_MAX {
            return Ok(());
        }
        let (value, must) = (value.len() as u64, "at most 2^28 bytes");
        Err(Error::OutOfLimits { what: "the length of a value", value, must })
    }

    /// The value of a key.
    ///
    /// Example: see [`RawLogStore`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] for a key that cannot be; [`Error::Damaged`] if the record is not as
    /// it was written (V3); what the disk says.
    pub fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>> {
        self.shard_of(key)?.read(&self.cache, key)
    }

    /// Is the key there? Nothing is read from the disk.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"", Durability::Memory)?;
    /// assert!(store.contains(b"de")? && !store.contains(b"at")?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] for a key that cannot be.
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.shard_of(key)?.index().find(key).is_some())
    }

    /// Sets the value of a key.
    ///
    /// Example: see [`RawLogStore`].
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutOfLimits`], [`Error::BatchTooLong`], or [`Error::Io`] if
    /// there is no room for a new segment. After [`Error::Poisoned`] of a durable write the value is
    /// visible, and is there or not when the store is opened again; after the others nothing has
    /// changed.
    pub fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> Result<Token> {
        Self::check_value(value)?;
        let shard = self.shard_of(key)?;
        self.commit(shard, shard.writer(), &[Change::Put(key, value)], durability)
    }

    /// Sets the value of a key that is not there yet; `None` if it is.
    ///
    /// Example: see [`crate::LogStore::insert`].
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn insert(
        &self,
        key: &[u8],
        value: &[u8],
        durability: Durability,
    ) -> Result<Option<Token>> {
        Self::check_value(value)?;
        let shard = self.shard_of(key)?;
        let log = shard.writer();
        if shard.index().find(key).is_some() {
            return Ok(None);
        }
        self.commit(shard, log, &[Change::Put(key, value)], durability).map(Some)
    }

    /// Removes a key; `None` if it is not there.
    ///
    /// Example: see [`crate::LogStore::delete`].
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&self, key: &[u8], durability: Durability) -> Result<Option<Token>> {
        let shard = self.shard_of(key)?;
        let log = shard.writer();
        if shard.index().find(key).is_none() {
            return Ok(None);
        }
        self.commit(shard, log, &[Change::Delete(key)], durability).map(Some)
    }

    /// Makes the value of a key `new` (`None`: no value) if it is `old`; `None` if it is not.
    ///
    /// Example: see [`crate::LogStore::compare_and_swap`].
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`get`](Self::get).
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        old: Option<&[u8]>,
        new: Option<&[u8]>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.change(key, durability, |now| (now == old).then(|| new.map(<[u8]>::to_vec)))
    }

    /// Makes of a key's value what a closure says of it, while no other writer of the shard gets
    /// in: `Some(value)`, or `None` for no value. `None` if there was nothing and stays nothing.
    /// The closure must not use the store.
    ///
    /// Example: see [`crate::LogStore::update`].
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`get`](Self::get).
    pub fn update(
        &self,
        key: &[u8],
        durability: Durability,
        change: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Token>> {
        self.change(key, durability, |old| Some(change(old)))
    }

    /// `decide` says what the value becomes, or that it stays.
    pub(super) fn change(
        &self,
        key: &[u8],
        durability: Durability,
        decide: impl FnOnce(Option<&[u8]>) -> Option<Option<Vec<u8>>>,
    ) -> Result<Option<Token>> {
        let shard = self.shard_of(key)?;
        let log = shard.writer();
        let old = shard.read(&self.cache, key)?;
        let Some(new) = decide(old.as_deref()) else { return Ok(None) };
        let change = match &new {
            Some(value) => {
                Self::check_value(value)?;
                Change::Put(key, value)
            }
            None if old.is_none() => return Ok(None),
            None => Change::Delete(key),
        };
        self.commit(shard, log, &[change], durability).map(Some)
    }

    /// Makes several changes of one shard at once: after a crash all of them are there, or none.
    /// `None` for no changes.
    ///
    /// ```
    /// # use mainstay_store::{Change, Durability, LogOptions, RawLogStore};
    /// # let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &one)?;
    /// let changes = [Change::Put(b"de", b"Deutschland"), Change::Delete(b"dd")];
    /// store.batch(&changes, Durability::Group)?;
    /// assert_eq!(store.shard(b"de")?, store.shard(b"dd")?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AcrossShards`], and as [`put`](Self::put).
    pub fn batch(&self, changes: &[Change<'_>], durability: Durability) -> Result<Option<Token>> {
        let Some(first) = changes.first() else { return Ok(None) };
        let one = self.shard(first.key())?;
        for change in changes {
            let other = self.shard(change.key())?;
            if one != other {
                return Err(Error::AcrossShards { one, other });
            }
            if let Change::Put(_, value) = change {
                Self::check_value(value)?;
            }
        }
        let shard = &self.shards[one as usize];
        self.commit(shard, shard.writer(), changes, durability).map(Some)
    }

    /// Which shard a key belongs to.
    ///
    /// Example: see [`RawLogStore::batch`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] for a key that cannot be.
    pub fn shard(&self, key: &[u8]) -> Result<u32> {
        Ok(self.shard_of(key)?.number)
    }

    fn commit(
        &self,
        shard: &Shard<F>,
        mut log: Writer<'_, F>,
        changes: &[Change<'_>],
        durability: Durability,
    ) -> Result<Token> {
        let sequence = shard.append(self.store(), &mut log, changes)?;
        match durability {
            Durability::Memory | Durability::Interval => {}
            Durability::Each => shard.sync_now(&log)?,
            Durability::Group => {
                drop(log);
                shard.wait(sequence)?;
            }
        }
        Ok(self.token(shard, sequence))
    }

    fn token(&self, shard: &Shard<F>, sequence: u64) -> Token {
        Token { epoch: self.header.epoch.get(), shard: shard.number, sequence }
    }

    fn shard_of_token(&self, token: Token) -> Result<&Shard<F>> {
        let now = self.header.epoch.get();
        match self.shards.get(token.shard as usize) {
            Some(shard) if token.epoch == now => Ok(shard),
            _ => Err(Error::OtherEpoch { token: token.epoch, now }),
        }
    }

    /// Returns when the write of a token is durable.
    ///
    /// Example: see [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`Error::OtherEpoch`] for a token from before the store was opened; [`Error::Poisoned`].
    pub fn wait(&self, token: Token) -> Result<()> {
        let shard = self.shard_of_token(token)?;
        let written = shard.writer().sequence;
        shard.wait(token.sequence.min(written))
    }

    /// Is the write of a token durable?
    ///
    /// Example: see [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`Error::OtherEpoch`] for a token from before the store was opened.
    pub fn is_durable(&self, token: Token) -> Result<bool> {
        Ok(self.shard_of_token(token)?.durable() >= token.sequence)
    }

    /// Returns when everything written before, in all shards, is durable; with the last write of
    /// each shard.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let token = store.put(b"de", b"", Durability::Memory)?;
    /// assert!(store.sync()?.contains(&token));
    /// assert!(store.is_durable(token)?);
    /// store.wait(token)?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`]; the other shards are synced nevertheless.
    pub fn sync(&self) -> Result<Vec<Token>> {
        let sync = |shard: &Shard<F>| {
            let sequence = shard.writer().sequence;
            shard.wait(sequence).map(|()| self.token(shard, sequence))
        };
        let synced: Vec<Result<Token>> = self.shards.iter().map(sync).collect();
        synced.into_iter().collect()
    }

    /// Shows every key, in no order, without reading a value. The keys of a shard are those of one
    /// moment.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"Deutschland", Durability::Memory)?;
    /// store.for_each_key(|key, value_bytes| assert_eq!((key, value_bytes), (&b"de"[..], 11)));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn for_each_key(&self, mut show: impl FnMut(&[u8], u64)) {
        for shard in &self.shards {
            // Copied, so that no writer waits for whoever looks.
            let keys: Vec<(Box<[u8]>, u64)> = {
                let index = shard.index();
                index.places().map(|(key, place)| (key.into(), place.value_len.into())).collect()
            };
            keys.iter().for_each(|(key, value_bytes)| show(key, *value_bytes));
        }
    }

    /// Shows every record to a closure, in the order in which they are on the disk. Writers and
    /// compaction go on: what is shown of a shard is as it was at one moment. Values are read past
    /// the cache.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"49", Durability::Memory)?;
    /// store.for_each(|key, value| assert_eq!((key, value), (&b"de"[..], &b"49"[..])))?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for shard in &self.shards {
            let (mut places, files) = {
                let index = shard.index();
                let places = index.places().map(|(key, place)| (place, key.len() as u32));
                // With these a segment that is removed meanwhile can still be read.
                let files = index.segments.iter();
                let files = files.map(|(number, segment)| (*number, Arc::clone(&segment.file)));
                (places.collect::<Vec<_>>(), files.collect::<std::collections::BTreeMap<_, _>>())
            };
            places.sort_unstable_by_key(|(place, _)| (place.segment, place.at));
            let mut record = Vec::new();
            for (place, key_len) in places {
                let file = files.get(&place.segment).ok_or_else(|| shard.damaged(place))?;
                record.clear();
                record.resize(RECORD_LEN + key_len as usize + place.value_len as usize, 0);
                shard.read_record(file, place, &mut record)?;
                let (key, value) = parts_of(&record).ok_or_else(|| shard.damaged(place))?;
                show(key, value);
            }
        }
        Ok(())
    }

    /// Compacts until no segment is dead enough (V4), as fast as it can.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let small = LogOptions { shards: 1, segment_bytes: 16 << 10, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &small)?;
    /// for number in 0..100_u8 {
    ///     store.put(b"de", &[number; 1000], Durability::Memory)?;
    /// }
    /// let before = store.stats()[0].segments;
    /// store.compact()?;
    /// assert!(before > 5 && store.stats()[0].segments < 3);
    /// assert_eq!(store.get(b"de")?.as_deref(), Some(&[99; 1000][..]));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the disk says, or [`Error::Damaged`]; the segment stays.
    pub fn compact(&self) -> Result<()> {
        for shard in &self.shards {
            // What it writes may fill segments that are dead enough in turn, but ever fewer.
            let mut budget = 4 * shard.stats_bytes() + self.header.segment_bytes.get();
            while let Some(read) =
                shard.compact(self.store(), u64::MAX, self.options.dead_percent)?
            {
                budget = budget.saturating_sub(read.max(1));
                if budget == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Does all that is due: [`sync`](Self::sync), then [`upkeep`](Self::upkeep) for one
    /// [`LogOptions::interval`].
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let token = store.put(b"de", b"49", Durability::Interval)?;
    /// store.tend()?;
    /// assert!(store.is_durable(token)?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], or what the disk says; all shards are tended nevertheless.
    pub fn tend(&self) -> Result<()> {
        let synced = self.sync().map(drop);
        let kept = self.upkeep();
        synced.and(kept)
    }

    /// Does what is due and can take its time: describes full segments, and compacts as much as
    /// [`LogOptions::compact_bytes_per_second`] allows for one [`LogOptions::interval`].
    ///
    /// Example: see [`tend`](Self::tend).
    ///
    /// # Errors
    /// [`Error::Poisoned`], or what the disk says; all shards are looked after nevertheless.
    pub fn upkeep(&self) -> Result<()> {
        let second = u128::from(self.options.compact_bytes_per_second);
        let budget = second * self.options.interval.as_millis() / 1000;
        let budget = u64::try_from(budget).unwrap_or(u64::MAX) / self.shards.len() as u64;
        let tend = |shard: &Shard<F>| {
            shard.write_hints(self.store())?;
            if budget > 0 {
                shard.compact(self.store(), budget, self.options.dead_percent)?;
            }
            Ok(())
        };
        let tended: Vec<Result<()>> = self.shards.iter().map(tend).collect();
        tended.into_iter().collect()
    }

    /// Reads every record that is some key's newest, and checks it (V3).
    ///
    /// ```
    /// # use mainstay_store::{LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.verify()?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first place that is not as it was written.
    pub fn verify(&self) -> Result<()> {
        self.for_each(|_, _| {})
    }

    /// What each shard has.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"49", Durability::Memory)?;
    /// assert_eq!(store.stats().iter().map(|shard| shard.records).sum::<u64>(), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Vec<LogShardStats> {
        self.shards.iter().map(Shard::stats).collect()
    }

    /// How many bytes of values are in memory because they were read.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", &[7; 1000], Durability::Memory)?;
    /// store.get(b"de")?;
    /// assert!(store.cached_bytes() >= 1000);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Makes everything durable, says in the log that it is, and describes the last segments, so
    /// that the next opening reads no values.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"49", Durability::Memory)?;
    /// store.close()?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], or [`Error::Io`] if there is no room.
    pub fn close(self) -> Result<()> {
        self.finish()
    }

    pub(super) fn finish(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.finish(self.store()))
    }
}

fn create_shard<F: Folder>(folder: &F, store: &AnyHeader, shard: u32) -> Result<()> {
    let name = Kind::Log.name(shard, 1);
    let list = Kind::List.name(shard, 1);
    let make = || {
        let file = super::shard::make_file(folder, &name)?;
        let begin = || {
            write_header(&file, &log_header(store, shard, 1))?;
            file.sync()
        };
        begin().map_err(Error::io(&*name))
    };
    make()?;
    let header: ListHeader = list_header(store, shard, 1, (0, 0, chain_start(&store.id, shard)));
    let write = || write_list(&folder.file(&list)?, header, &[]);
    write().map_err(Error::io(&*list))
}

impl<F: Folder> Shard<F> {
    fn stats_bytes(&self) -> u64 {
        self.index().segments.values().map(|segment| segment.end).sum()
    }

    fn stats(&self) -> LogShardStats {
        let (moved_bytes, freed_bytes) = {
            let upkeep = lock(&self.upkeep);
            (upkeep.moved_bytes, upkeep.freed_bytes)
        };
        let sequence = self.writer().sequence;
        let index = self.index();
        let kept = index.segments.values().map(|segment| segment.live + segment.deletes);
        LogShardStats {
            records: index.len(),
            key_bytes: index.key_bytes,
            sequence,
            durable: self.durable(),
            segments: index.segments.len() as u64,
            log_bytes: index.segments.values().map(|segment| segment.end).sum(),
            live_bytes: kept.sum(),
            moved_bytes,
            freed_bytes,
            poisoned: self.poison_text(),
        }
    }
}

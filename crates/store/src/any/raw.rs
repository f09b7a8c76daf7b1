//! A store of any sizes over bytes.

mod ending;
mod opening;
mod upkeep;

use std::sync::Arc;

use mainstay_storage::Folder;

pub(super) use self::opening::{begin_any, check_header};
pub use self::upkeep::LogShardStats;
use super::{
    cache::Cache,
    format::{AnyHeader, Entry, RECORD_LEN},
    options::LogOptions,
    shard::{Shard, Store, Why, Writer},
};
use crate::{
    ends::Clock,
    error::{Error, Result},
    hooks::{Commit, Hook, Hooks, Old, Wakes},
    limits::{ANY_KEY_BYTES_MAX, ANY_VALUE_BYTES_MAX},
    options::{Durability, Token},
    rank::Standing,
    shard::Change,
    span::Span,
    watch::Watch,
};

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
    pub(super) folder: F,
    pub(super) header: AnyHeader,
    pub(super) shards: Vec<Shard<F>>,
    pub(super) cache: Cache,
    pub(super) options: LogOptions,
    pub(super) hooks: Arc<Hooks>,
    pub(super) standing: Standing<AnyHeader>,
    pub(super) notify: Arc<Wakes>,
    clock: Clock,
}

impl<F: Folder> RawLogStore<F> {
    pub(super) fn store(&self) -> Store<'_, F> {
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

    /// Bytes of a segment of the log, at most.
    ///
    /// ```
    /// # use mainstay_store::{LogOptions, RawLogStore};
    /// let small = LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(1), &small)?;
    /// assert_eq!(store.segment_bytes(), 16 << 10);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.header.segment_bytes.get()
    }

    /// The longest key and value together that one write can have here, in bytes.
    ///
    /// ```
    /// # use mainstay_store::{LogOptions, RawLogStore};
    /// let small = LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(1), &small)?;
    /// assert_eq!(store.record_bytes_max(), (12 << 10) - 107);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn record_bytes_max(&self) -> u64 {
        let room = self.write_bytes_max() - RECORD_LEN as u64;
        room.min((ANY_KEY_BYTES_MAX + ANY_VALUE_BYTES_MAX) as u64)
    }

    pub(super) fn shard_of(&self, key: &[u8]) -> Result<&Shard<F>> {
        if !(1..=ANY_KEY_BYTES_MAX).contains(&key.len()) {
            let (value, must) = (key.len() as u64, "1 to 4096 bytes");
            return Err(Error::OutOfLimits { what: "the length of a key", value, must });
        }
        Ok(&self.shards[self.header.route().find(key).1])
    }

    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    fn is_there(&self, shard: &Shard<F>, key: &[u8]) -> bool {
        shard.index().find(key).is_some_and(|place| place.is_live(self.now()))
    }

    pub(super) fn check_value(value: &[u8]) -> Result<()> {
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
        self.shard_of(key)?.read(&self.cache, key, self.now())
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
        Ok(self.is_there(self.shard_of(key)?, key))
    }

    /// How many records there are; those that have ended and were not yet removed are counted.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// assert!(store.is_empty());
    /// store.put(b"de", b"Deutschland", Durability::Memory)?;
    /// assert_eq!(store.len(), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.index().len()).sum()
    }

    /// Is there no record?
    ///
    /// Example: see [`len`](Self::len).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the value of a key.
    ///
    /// Example: see [`RawLogStore`].
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutOfLimits`], [`Error::BatchTooLong`], or [`Error::Io`] if
    /// there is no room on the disk; when there is some again, writes are taken. After [`Error::Poisoned`] of a durable write the value is
    /// visible, and is there or not when the store is opened again; after the others nothing has
    /// changed.
    pub fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> Result<Token> {
        Self::check_value(value)?;
        let shard = self.shard_of(key)?;
        self.commit(shard, shard.writer(), (&[Change::Put(key, value)], 0), durability)
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
        self.insert_for(key, value, None, durability)
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
        if !self.is_there(shard, key) {
            return Ok(None);
        }
        self.commit(shard, log, (&[Change::Delete(key)], 0), durability).map(Some)
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
    /// in: `Some(value)`, or `None` for no value. `None` if there was nothing and stays nothing. The
    /// new value ends when the old one would have. The closure must not use the store.
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

    /// `decide` says what the value becomes, or that it stays. It ends when the old one would have.
    pub(super) fn change(
        &self,
        key: &[u8],
        durability: Durability,
        decide: impl FnOnce(Option<&[u8]>) -> Option<Option<Vec<u8>>>,
    ) -> Result<Option<Token>> {
        let shard = self.shard_of(key)?;
        let log = shard.writer();
        let found = shard.find(&shard.index(), key, self.now())?;
        let end = found.as_ref().map_or(0, |(place, _)| place.end);
        let read = |record| shard.read_at(&self.cache, key, record);
        let old = found.map(read).transpose()?;
        let Some(new) = decide(old.as_deref()) else { return Ok(None) };
        let change = match &new {
            Some(value) => {
                Self::check_value(value)?;
                Change::Put(key, value)
            }
            None if old.is_none() => return Ok(None),
            None => Change::Delete(key),
        };
        self.commit(shard, log, (&[change], end), durability).map(Some)
    }

    /// Makes several changes of one shard at once: after a crash all of them are there, or none.
    /// `None` for no changes. For those of several shards there is
    /// [`batch_across`](Self::batch_across).
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
        self.commit(shard, shard.writer(), (changes, 0), durability).map(Some)
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

    /// What the changes put ends at `end`; 0: never.
    pub(super) fn commit(
        &self,
        shard: &Shard<F>,
        mut log: Writer<'_, F>,
        (changes, end): (&[Change<'_>], u64),
        durability: Durability,
    ) -> Result<Token> {
        self.standing.check_open()?;
        let entry = Entry::new(changes, end);
        self.check_length(entry.changes_bytes())?;
        let old = self.old_of(shard, changes)?;
        let sequence = shard.append(self.store(), &mut log, &entry, Why::New)?;
        let token = self.token(shard, sequence);
        self.hooks.call(&Commit { token, changes, end, old: &old });
        match durability {
            Durability::Each => {
                shard.sync_now(&log)?;
                drop(log);
            }
            // Whoever is told reads the log.
            _ => drop(log),
        }
        self.tell();
        if durability == Durability::Group {
            shard.wait(sequence)?;
        }
        Ok(token)
    }

    /// Has `call` called after each write, as [`RawStore::on_commit`](crate::RawStore::on_commit) does.
    /// What compaction moves is no write.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// use std::sync::{Arc, atomic::{AtomicUsize, Ordering::Relaxed}};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let count = Arc::new(AtomicUsize::new(0));
    /// let seen = Arc::clone(&count);
    /// let hook = store.on_commit(move |commit| {
    ///     seen.fetch_add(commit.changes.len(), Relaxed);
    /// });
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// drop(hook);
    /// store.put(b"fr", b"France", Memory)?;
    /// assert_eq!(count.load(Relaxed), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn on_commit(&self, call: impl Fn(&Commit<'_>) + Send + Sync + 'static) -> Hook {
        self.hooks.add(Arc::new(call))
    }

    /// The same, and each call can ask for the [old](Commit::old) value of each change; see
    /// [`RawStore::on_commit_with_old`](crate::RawStore::on_commit_with_old).
    ///
    /// Old values are on the disk: as long as there is such a hook, each write of a key that is there
    /// reads what it replaces, unless the cache has it. Who puts keys anew only reads nothing.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// use std::sync::{Arc, Mutex};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let told = Arc::new(Mutex::new(Vec::new()));
    /// let seen = Arc::clone(&told);
    /// let hook = store.on_commit_with_old(move |commit| {
    ///     seen.lock().unwrap().push(commit.old(0).map(<[u8]>::to_vec));
    /// });
    /// store.put(b"de", b"Germany", Memory)?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// store.delete(b"de", Memory)?;
    /// let old = [None, Some(b"Germany".to_vec()), Some(b"Deutschland".to_vec())];
    /// assert_eq!(*told.lock().unwrap(), old);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// As long as it is there, a write of a key whose old value cannot be read is refused with the error
    /// of [`get`](Self::get), since an index could not be kept right.
    pub fn on_commit_with_old(&self, call: impl Fn(&Commit<'_>) + Send + Sync + 'static) -> Hook {
        self.hooks.add_with_old(Arc::new(call))
    }

    /// What changes are about to replace, if somebody wants to know, also of records that have ended.
    pub(super) fn old_of(&self, shard: &Shard<F>, changes: &[Change<'_>]) -> Result<Vec<Old>> {
        self.hooks.old_of(changes, |key| {
            // At that time nothing had ended.
            let found = shard.find(&shard.index(), key, 0)?;
            found.map(|record| shard.read_at(&self.cache, key, record)).transpose()
        })
    }

    /// Sees all changes of some keys from now on. What nobody takes waits, up to
    /// [`WATCH_BYTES_MAX`](crate::limits::WATCH_BYTES_MAX); of a value that is longer by itself it is
    /// told that it was missed.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, News, RawLogStore, Span};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let mut watch = store.watch(Span::ALL.prefix(b"d"))?;
    /// store.put(b"fr", b"France", Memory)?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// assert!(matches!(watch.take()?, Some(News::Put { key, .. }) if key == b"de"));
    /// assert_eq!(watch.take()?, None);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the operating system says if it has no more descriptors.
    pub fn watch(&self, span: Span) -> Result<Watch> {
        Watch::of(&self.hooks, span, false)
    }

    /// The same, and of each change what the key was before; see
    /// [`RawStore::watch_with_old`](crate::RawStore::watch_with_old), and for what it costs here
    /// [`on_commit_with_old`](Self::on_commit_with_old).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, News, RawLogStore, Span};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"Germany", Memory)?;
    /// let mut watch = store.watch_with_old(Span::ALL)?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// let news = watch.take()?;
    /// assert!(matches!(news, Some(News::Put { old: Some(old), .. }) if old == b"Germany"));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_with_old(&self, span: Span) -> Result<Watch> {
        Watch::of(&self.hooks, span, true)
    }

    pub(super) fn token(&self, shard: &Shard<F>, sequence: u64) -> Token {
        Token { epoch: self.header.epoch.get(), shard: shard.number, sequence }
    }

    pub(super) fn shard_of_token(&self, token: Token) -> Result<&Shard<F>> {
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
        Ok(self.shard_of_token(token)?.group.durable() >= token.sequence)
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
        let now = self.now();
        for shard in &self.shards {
            // Copied, so that no writer waits for whoever looks.
            let keys: Vec<(Box<[u8]>, u64)> = {
                let index = shard.index();
                let live = index.lines.iter().filter(|(_, place)| place.is_live(now));
                live.map(|(key, place)| (key.into(), place.value_bytes())).collect()
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
        let now = self.now();
        for shard in &self.shards {
            let (places, files) = {
                let index = shard.index();
                let live = index.lines.iter().filter(|(_, place)| place.is_live(now));
                (live.map(|(key, place)| (place, key.len() as u32)).collect(), index.files())
            };
            shard.show(places, &files, &mut show)?;
        }
        Ok(())
    }
}

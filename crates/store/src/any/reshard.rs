//! Another number of shards, while the store is used; as [`crate::reshard`] does it for records of
//! fixed sizes. The keys of a shard are noted, and records copied some at a time, with the time at
//! which each ends.

use std::marker::PhantomData;

use mainstay_storage::Folder;

use super::{
    options::LogOptions,
    raw::RawLogStore,
    typed::{Field, LogStore},
};
use crate::{
    error::Result,
    exchange::Beside,
    folder::Directory,
    hooks::Commit,
    mirror::Mirror,
    options::Durability,
    planted::{self, Fault},
    shard::Change,
};

/// Records that are copied while the writers of a shard wait, and about how many bytes.
const RECORDS: usize = 256;
const BYTES: u64 = 1 << 20;

/// A store that is being given another number of shards; see [`RawLogStore::reshard_into`].
///
/// Dropped before [`finish`](Self::finish) it leaves the store as it is, and in the other folder
/// what is to be thrown away.
pub struct LogResharding<'a, F: Folder, G: Folder + 'static> {
    from: &'a RawLogStore<F>,
    to: Mirror<RawLogStore<G>>,
    /// The shard whose keys are to be noted next.
    shard: usize,
    /// Those of the one before that are still to be copied.
    keys: Vec<Box<[u8]>>,
    copied: u64,
}

impl<F: Folder> RawLogStore<F> {
    /// Begins to make a store with the same records in another folder, with the shards and the
    /// segments that `options` say, while this one is used. It is another store, with an
    /// [`id`](Self::id) of its own. The keys of a shard are in memory once more meanwhile, beside
    /// those of the new store.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Durability::Memory, Error, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(Disk::new(1), &LogOptions::default())?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// let more = LogOptions { shards: 8, ..LogOptions::default() };
    /// let mut resharding = store.reshard_into(Disk::new(2), &more)?;
    /// while !resharding.advance(1_000)? {}
    /// store.put(b"fr", b"France", Memory)?;
    /// let new = resharding.finish()?;
    /// assert_eq!(new.stats().len(), 8);
    /// assert_eq!(new.get(b"de")?.as_deref(), Some(&b"Deutschland"[..]));
    /// assert_eq!(new.get(b"fr")?.as_deref(), Some(&b"France"[..]));
    /// assert!(matches!(store.put(b"dk", b"", Memory), Err(Error::Resharded)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Follows`](crate::Error::Follows) of a follower; as [`create`](Self::create);
    /// [`Error::Resharded`](crate::Error::Resharded) if another one has its place already.
    pub fn reshard_into<G: Folder + 'static>(
        &self,
        folder: G,
        options: &LogOptions,
    ) -> Result<LogResharding<'_, F, G>> {
        self.standing.check_open()?;
        let to = RawLogStore::create(folder, options)?;
        let write = |to: &RawLogStore<G>, of: &Commit<'_>| to.mirror(of.changes, of.end);
        let to = Mirror::begin(&self.hooks, to, write);
        Ok(LogResharding { from: self, to, shard: 0, keys: Vec::new(), copied: 0 })
    }

    /// Makes changes that another store has: what they put ends at `end`, or never if that is 0.
    pub(super) fn mirror(&self, changes: &[Change<'_>], end: u64) -> Result<()> {
        for change in changes {
            let shard = self.shard_of(change.key())?;
            let log = shard.writer();
            let is_delete = matches!(change, Change::Delete(_));
            // One that has ended is deleted, too: the clocks may not be the same.
            let has_it = !is_delete || shard.index().find(change.key()).is_some();
            if has_it && !(is_delete && planted::is(Fault::MirrorWithoutDeletes)) {
                let end = if planted::is(Fault::EndForgotten) { 0 } else { end };
                self.commit(shard, log, (&[*change], end), Durability::Memory)?;
            }
        }
        Ok(())
    }
}

impl<F: Folder, G: Folder + 'static> LogResharding<'_, F, G> {
    /// Copies some more records, at least `records` if there are so many. True if all are copied.
    /// Writers of a shard wait for 256 of them at most, and for little more than a mebibyte.
    ///
    /// Example: see [`RawLogStore::reshard_into`].
    ///
    /// # Errors
    /// What either store says; then this one is to be dropped.
    pub fn advance(&mut self, records: u64) -> Result<bool> {
        let wanted = self.copied.saturating_add(records);
        while self.copied < wanted {
            self.to.check()?;
            if self.keys.is_empty() {
                let Some(shard) = self.from.shards.get(self.shard) else { return Ok(true) };
                // What is put later is written to both.
                self.keys = shard.index().lines.iter().map(|(key, _)| key.into()).collect();
                self.shard += 1;
            }
            self.copy_some()?;
            self.to.to().write_hints()?;
        }
        Ok(self.keys.is_empty() && self.shard == self.from.shards.len())
    }

    /// Copies records of the shard whose keys were noted last.
    fn copy_some(&mut self) -> Result<()> {
        let Some(shard) = self.from.shards.get(self.shard - 1) else { return Ok(()) };
        let mut log = Some(shard.writer());
        if planted::is(Fault::CopiedUnlocked) {
            log = None;
        }
        let (mut count, mut bytes) = (0, 0);
        while count < RECORDS && bytes < BYTES {
            let Some(key) = self.keys.pop() else { break };
            count += 1;
            // Also what has ended: whether it has is for the new one to say.
            let Some(record) = shard.find(&shard.index(), &key, 0)? else { continue };
            let end = record.0.end;
            let value = shard.read_at(&self.from.cache, &key, record)?;
            if planted::is(Fault::CopiedUnlocked) {
                std::thread::yield_now();
            }
            self.to.to().mirror(&[Change::Put(&key, &value)], end)?;
            self.copied += 1;
            bytes += value.len() as u64;
        }
        drop(log);
        Ok(())
    }

    /// How many records were copied; what was written meanwhile is not counted.
    ///
    /// ```
    /// # use mainstay_sim::Disk;
    /// # use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(Disk::new(1), &LogOptions::default())?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// let mut resharding = store.reshard_into(Disk::new(2), &LogOptions::default())?;
    /// resharding.advance(u64::MAX)?;
    /// assert_eq!(resharding.copied(), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Copies the rest, takes no more writes in the old store, and returns the new one, in which all
    /// is durable. Whoever writes to the old one meanwhile waits; afterwards it is told that it
    /// should use the new one, and can go on reading the old one.
    ///
    /// Example: see [`RawLogStore::reshard_into`].
    ///
    /// # Errors
    /// What either store says; then the old one takes writes as before.
    pub fn finish(mut self) -> Result<RawLogStore<G>> {
        self.advance(u64::MAX)?;
        let Self { from, to, .. } = self;
        to.take_place(&from.standing, || from.let_writers_end(), |to| to.sync().map(drop))
    }
}

/// A store of a directory that is being given another number of shards; see
/// [`RawLogStore::reshard`].
///
/// Dropped before [`finish`](Self::finish) it leaves the store as it is.
pub struct DirectoryLogResharding<'a> {
    from: &'a RawLogStore<Directory>,
    inner: LogResharding<'a, Directory, Directory>,
    beside: Beside,
}

impl RawLogStore<Directory> {
    /// Begins to give the store another number of shards, and segments of another size, as `options`
    /// say, while it is used; see [`reshard_into`](Self::reshard_into). The new one is made in a
    /// directory beside it, `NAME.resharding`; what one that was killed left there is removed. It
    /// takes as much room on the disk, and as much memory, as the store does.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability::Memory, LogOptions, RawLogStore};
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("countries");
    /// let store = RawLogStore::create(Directory::lock(&path)?, &LogOptions::default())?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// let more = LogOptions { shards: 8, ..LogOptions::default() };
    /// let mut resharding = store.reshard(&more)?;
    /// while !resharding.advance(1_000)? {}
    /// let new = resharding.finish()?;
    /// drop(store);
    /// drop(new);
    /// let store = RawLogStore::open(Directory::lock(&path)?, &LogOptions::default())?;
    /// assert_eq!((store.stats().len(), store.contains(b"de")?), (8, true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`reshard_into`](Self::reshard_into), and [`Error::Locked`](crate::Error::Locked) if the
    /// directory beside it is in use.
    pub fn reshard(&self, options: &LogOptions) -> Result<DirectoryLogResharding<'_>> {
        self.standing.check_open()?;
        let (beside, other) = Beside::of(&self.folder)?;
        let inner = self.reshard_into(other, options)?;
        Ok(DirectoryLogResharding { from: self, inner, beside })
    }
}

impl DirectoryLogResharding<'_> {
    /// Copies some more records; see [`LogResharding::advance`].
    ///
    /// Example: see [`RawLogStore::reshard`].
    ///
    /// # Errors
    /// As there.
    pub fn advance(&mut self, records: u64) -> Result<bool> {
        self.inner.advance(records)
    }

    /// How many records were copied.
    ///
    /// Example: see [`LogResharding::copied`].
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.inner.copied()
    }

    /// Copies the rest, gives the new store the name of the old one, and returns it; see
    /// [`LogResharding::finish`]. The files of the old one are removed when it is dropped.
    ///
    /// Example: see [`RawLogStore::reshard`].
    ///
    /// # Errors
    /// What either store or the disk says; then the old one is where it was, and takes writes.
    pub fn finish(self) -> Result<RawLogStore<Directory>> {
        let Self { from, inner, beside } = self;
        let new = inner.finish()?;
        beside.take_place(&from.folder, &new.folder, || from.standing.go_on())?;
        Ok(new)
    }
}

/// A [`LogStore`] that is being given another number of shards; see [`DirectoryLogResharding`].
///
/// Example: see [`LogStore::reshard`].
pub struct LogStoreResharding<'a, K, V> {
    raw: DirectoryLogResharding<'a>,
    options: LogOptions,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Field, V: Field> LogStore<K, V> {
    /// Begins to give the store the shards and segments that `options` say, while it is used; see
    /// [`RawLogStore::reshard`]. Whoever writes with the old one afterwards is told
    /// [`Error::Resharded`](crate::Error::Resharded), and goes on with the new one.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Error, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("names");
    /// let old = LogStore::<u64, String>::create(&path, &LogOptions::default())?;
    /// old.put(&1, &"one".into(), Memory)?;
    /// let mut resharding = old.reshard(&LogOptions { shards: 8, ..LogOptions::default() })?;
    /// while !resharding.advance(10_000)? {}
    /// let new = resharding.finish()?;
    /// assert!(matches!(old.put(&2, &"two".into(), Memory), Err(Error::Resharded)));
    /// new.put(&2, &"two".into(), Memory)?;
    /// assert_eq!((new.get(&1)?, old.get(&2)?), (Some("one".into()), None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn reshard(&self, options: &LogOptions) -> Result<LogStoreResharding<'_, K, V>> {
        let raw = self.raw().reshard(options)?;
        Ok(LogStoreResharding { raw, options: options.clone(), types: PhantomData })
    }
}

impl<K: Field, V: Field> LogStoreResharding<'_, K, V> {
    /// Copies some more records, at least `records` if there are so many. True if all are copied.
    ///
    /// Example: see [`LogStore::reshard`].
    ///
    /// # Errors
    /// As [`LogResharding::advance`].
    pub fn advance(&mut self, records: u64) -> Result<bool> {
        self.raw.advance(records)
    }

    /// Copies the rest, gives the new store the name of the old one, and returns it.
    ///
    /// Example: see [`LogStore::reshard`].
    ///
    /// # Errors
    /// As [`DirectoryLogResharding::finish`].
    pub fn finish(self) -> Result<LogStore<K, V>> {
        LogStore::over(self.raw.finish()?, &self.options)
    }
}

#[cfg(test)]
mod tests;

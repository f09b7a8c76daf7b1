//! A store of typed keys and values in a directory.

use std::{marker::PhantomData, path::Path, sync::Arc, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    error::{Error, Result},
    folder::Directory,
    keeper::Keeper,
    options::{Durability, Options, Token},
    shard::{Change, ShardStats},
    store::RawStore,
};

/// Keys and values of fixed sizes, as types that are nothing but their bytes (see `zerocopy`).
/// A thread of its own syncs every [`Options::interval`], makes segments in advance and compacts.
///
/// Dropped, it makes everything durable as [`close`](Self::close) does, but cannot tell an error.
///
/// Example: see [the crate](crate).
pub struct FixedStore<K, V> {
    // First, so that it ends before the last sync.
    keeper: Option<Keeper>,
    raw: Arc<RawStore<Directory>>,
    /// How often it is looked after.
    interval: Duration,
    is_closed: bool,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> FixedStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Makes a store in a directory, which is made if it is not there.
    ///
    /// Example: see [the crate](crate).
    ///
    /// # Errors
    /// As [`RawStore::create`], and [`Error::Locked`].
    pub fn create(path: &Path, options: &Options) -> Result<Self> {
        Self::create_in(Directory::lock(path)?, options)
    }

    /// The same in a directory that is locked already, for one that is encrypted.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability, FixedStore, Options};
    /// let (dir, options) = (tempfile::tempdir()?, Options::default());
    /// let store = FixedStore::<u64, u64>::create_in(Directory::lock(dir.path())?, &options)?;
    /// store.put(&1, &2, Durability::Group)?;
    /// drop(store);
    /// let store = FixedStore::<u64, u64>::open_in(Directory::lock(dir.path())?, &options)?;
    /// assert_eq!(store.get(&1)?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in(folder: Directory, options: &Options) -> Result<Self> {
        Self::over(RawStore::create(folder, size_of::<K>(), size_of::<V>(), options)?, options)
    }

    /// Opens the store of a directory.
    ///
    /// Example: see [the crate](crate).
    ///
    /// # Errors
    /// As [`RawStore::open`], [`Error::Locked`], and [`Error::OtherSizes`].
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NotAStore);
        }
        Self::open_in(Directory::lock(path)?, options)
    }

    /// The same of a directory that is locked already.
    ///
    /// Example: see [`create_in`](Self::create_in).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(folder: Directory, options: &Options) -> Result<Self> {
        Self::over(RawStore::open(folder, options)?, options)
    }

    /// A store over bytes with types, and with threads that look after it from now on; so a replica
    /// becomes a typed one. Of `options` only [`Options::interval`] counts.
    ///
    /// ```
    /// use mainstay_store::{Directory, Error, FixedStore, Options, RawStore, Role};
    /// let (dir, options) = (tempfile::tempdir()?, Options::default());
    /// let leader = FixedStore::<u64, u32>::create(&dir.path().join("leader"), &options)?;
    /// let folder = Directory::lock(&dir.path().join("copy"))?;
    /// let copy = RawStore::create_replica(folder, &leader.shared().identity(), &options)?;
    /// let copy = FixedStore::<u64, u32>::over(copy, &options)?;
    /// assert_eq!((copy.shared().role(), copy.get(&7)?), (Role::Follower, None));
    ///
    /// let other = RawStore::create(Directory::lock(&dir.path().join("other"))?, 2, 3, &options)?;
    /// let refused = FixedStore::<u64, u32>::over(other, &options).err();
    /// assert!(matches!(refused, Some(Error::OtherSizes { key: 2, asked_key: 8, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherSizes`], [`Error::OtherKind`] for one whose records end; [`Error::Io`] if there
    /// can be no further threads.
    pub fn over(raw: RawStore<Directory>, options: &Options) -> Result<Self> {
        if raw.has_ends() {
            return Err(Error::OtherKind { is: "records that end (an `ExpiringStore`)" });
        }
        let ((key, value), asked) = (raw.lengths(), (size_of::<K>(), size_of::<V>()));
        if (key, value) != asked {
            let (asked_key, asked_value) = asked;
            return Err(Error::OtherSizes { key, value, asked_key, asked_value });
        }
        let (raw, interval) = (Arc::new(raw), options.interval);
        let keeper = Some(Keeper::start(Arc::clone(&raw), interval)?);
        Ok(Self { keeper, raw, interval, is_closed: false, types: PhantomData })
    }

    /// The same store over bytes.
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// assert_eq!(store.raw().lengths(), (8, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn raw(&self) -> &RawStore<Directory> {
        &self.raw
    }

    /// The same, for who leads or follows with it: `mainstay_replica::drive` takes a clone.
    ///
    /// Example: see [`over`](Self::over).
    #[must_use]
    pub fn shared(&self) -> &Arc<RawStore<Directory>> {
        &self.raw
    }

    /// Makes it the leader; see [`RawStore::promote`]. Until then it may have followed another one, as
    /// long as it could be read by its types.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Error, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let mut store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// store.demote()?;
    /// assert!(matches!(store.put(&1, &2, Memory), Err(Error::Follows)));
    /// let leads = std::sync::Arc::clone(store.shared());
    /// assert!(matches!(store.promote(4711), Err(Error::InUse)));
    /// drop(leads);
    /// store.promote(4711)?;
    /// store.put(&1, &2, Memory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::promote`]; [`Error::InUse`] while somebody else has it too, as who leads or follows
    /// with it does. Then nothing has changed.
    pub fn promote(&mut self, drawn: u16) -> Result<()> {
        self.become_other(|raw| raw.promote_here(0, drawn))
    }

    /// Makes it a follower, from now on and when it is opened again; see [`RawStore::demote`].
    ///
    /// Example: see [`promote`](Self::promote).
    ///
    /// # Errors
    /// As [`RawStore::demote`], and [`Error::InUse`] as [`promote`](Self::promote).
    pub fn demote(&mut self) -> Result<()> {
        self.become_other(RawStore::demote_here)
    }

    /// Its threads have it too, and wait meanwhile.
    fn become_other(
        &mut self,
        change: impl FnOnce(&mut RawStore<Directory>) -> Result<()>,
    ) -> Result<()> {
        drop(self.keeper.take());
        let changed = Arc::get_mut(&mut self.raw).ok_or(Error::InUse).and_then(change);
        self.keeper = Some(Keeper::start(Arc::clone(&self.raw), self.interval)?);
        changed
    }

    /// The value of a key.
    ///
    /// Example: see [the crate](crate).
    ///
    /// # Errors
    /// None that a store opened with these types can have; the signature is [`RawStore::get`]'s.
    #[inline(always)]
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::new_zeroed();
        // What is copied in pieces must not be read again in others before memory has answered.
        if self.raw.copy_value_at_once(key.as_bytes(), value.as_mut_bytes()) {
            return Ok(Some(value));
        }
        self.get_patiently(key)
    }

    #[inline(never)]
    fn get_patiently(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::new_zeroed();
        let is_there = self.raw.read_into(key.as_bytes(), value.as_mut_bytes())?;
        Ok(is_there.then_some(value))
    }

    /// Sets the value of a key.
    ///
    /// Example: see [the crate](crate).
    ///
    /// # Errors
    /// As [`RawStore::put`].
    pub fn put(&self, key: &K, value: &V, durability: Durability) -> Result<Token> {
        self.raw.put(key.as_bytes(), value.as_bytes(), durability)
    }

    /// Sets the value of a key that is not there yet; `None` if it is.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// assert!(store.insert(&1, &2, Memory)?.is_some());
    /// assert!(store.insert(&1, &3, Memory)?.is_none());
    /// assert_eq!(store.get(&1)?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::put`].
    pub fn insert(&self, key: &K, value: &V, durability: Durability) -> Result<Option<Token>> {
        self.raw.insert(key.as_bytes(), value.as_bytes(), durability)
    }

    /// Removes a key; `None` if it is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, Memory)?;
    /// assert!(store.delete(&1, Memory)?.is_some());
    /// assert!(store.delete(&1, Memory)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::put`].
    pub fn delete(&self, key: &K, durability: Durability) -> Result<Option<Token>> {
        self.raw.delete(key.as_bytes(), durability)
    }

    /// Makes the value of a key `new` (`None`: no value) if it is `old`; `None` if it is not.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// assert!(store.compare_and_swap(&1, None, Some(&2), Memory)?.is_some());
    /// assert!(store.compare_and_swap(&1, Some(&9), None, Memory)?.is_none());
    /// assert!(store.compare_and_swap(&1, Some(&2), None, Memory)?.is_some());
    /// assert_eq!(store.get(&1)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::put`].
    pub fn compare_and_swap(
        &self,
        key: &K,
        old: Option<&V>,
        new: Option<&V>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        let (old, new) = (old.map(V::as_bytes), new.map(V::as_bytes));
        self.raw.compare_and_swap(key.as_bytes(), old, new, durability)
    }

    /// Makes of a key's value what a closure says of it, while no other writer of the shard gets
    /// in. The closure must not use the store.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// for _ in 0..3 {
    ///     store.update(&1, Memory, |count| Some(count.unwrap_or(0) + 1))?;
    /// }
    /// assert_eq!(store.get(&1)?, Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::put`].
    pub fn update(
        &self,
        key: &K,
        durability: Durability,
        change: impl FnOnce(Option<V>) -> Option<V>,
    ) -> Result<Token> {
        self.raw.update(key.as_bytes(), durability, |old| {
            let old = old.and_then(|old| V::read_from_bytes(old).ok());
            change(old).map(|new| new.as_bytes().to_vec())
        })
    }

    /// Sets the values of several keys, or removes them (`None`), at once: after a crash all of it is
    /// there, or nothing; see [`RawStore::batch_across`].
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let accounts = FixedStore::<u64, i64>::create(dir.path(), &Options::default())?;
    /// accounts.put(&7, &100, Memory)?;
    /// accounts.batch_across(&[(7, Some(60)), (8, Some(40)), (9, None)])?;
    /// assert_eq!((accounts.get(&7)?, accounts.get(&8)?), (Some(60), Some(40)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::batch_across`].
    pub fn batch_across(&self, changes: &[(K, Option<V>)]) -> Result<Vec<Token>> {
        let changes: Vec<Change<'_>> = changes
            .iter()
            .map(|(key, value)| Change::of(key.as_bytes(), value.as_ref().map(V::as_bytes)))
            .collect();
        self.raw.batch_across(&changes)
    }

    /// Shows every record to a closure, in no order; see [`RawStore::for_each`].
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, Memory)?;
    /// store.for_each(|key, value| assert_eq!((key, value), (1, 2)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::for_each`].
    pub fn for_each(&self, mut show: impl FnMut(K, V)) -> Result<()> {
        self.raw.for_each(|key, value| {
            if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                show(key, value);
            }
        })
    }

    /// Returns when the write of a token is durable.
    ///
    /// Example: see [`Durability`].
    ///
    /// # Errors
    /// As [`RawStore::wait`].
    pub fn wait(&self, token: Token) -> Result<()> {
        self.raw.wait(token)
    }

    /// Is the write of a token durable?
    ///
    /// Example: see [`Durability`].
    ///
    /// # Errors
    /// As [`RawStore::is_durable`].
    pub fn is_durable(&self, token: Token) -> Result<bool> {
        self.raw.is_durable(token)
    }

    /// Returns when everything written before is durable; with the last write of each shard.
    ///
    /// Example: see [`RawStore::sync`].
    ///
    /// # Errors
    /// As [`RawStore::sync`].
    pub fn sync(&self) -> Result<Vec<Token>> {
        self.raw.sync()
    }

    /// What each shard has.
    ///
    /// Example: see [`RawStore::compact`].
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.raw.stats()
    }

    /// Makes everything durable; see [`RawStore::close`].
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// FixedStore::<u64, u64>::create(dir.path(), &Options::default())?.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::close`].
    pub fn close(mut self) -> Result<()> {
        drop(self.keeper.take());
        self.is_closed = true;
        self.raw.note_durable()
    }
}

impl<K, V> Drop for FixedStore<K, V> {
    fn drop(&mut self) {
        drop(self.keeper.take());
        if !self.is_closed
            && let Err(error) = self.raw.note_durable()
        {
            tracing::warn!(%error, "the store was dropped, and its last writes may not be durable");
        }
    }
}

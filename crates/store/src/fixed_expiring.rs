//! A store of typed keys and values in a directory, each for a certain time.

use std::{marker::PhantomData, path::Path, sync::Arc, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    ends::unix_ms,
    error::{Error, Result},
    expiring::RawExpiring,
    folder::Directory,
    keeper::Keeper,
    options::{Durability, Options, Token},
    store::RawStore,
};

mod seen;
mod writing;

pub use seen::FixedExpiringRange;

/// Parts of the store that are swept each [`Options::interval`].
const SWEPT_PARTS: usize = 64;

/// Keys and values as types that are nothing but their bytes, each for a certain time or for good.
/// Beside the threads of a [`FixedStore`](crate::FixedStore) it has one that removes what has ended:
/// some 16,000 places for records each [`Options::interval`].
///
/// ```
/// use mainstay_store::{Durability, ExpiringStore, Options};
/// use std::{thread, time::Duration};
/// let dir = tempfile::tempdir()?;
/// let sessions = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
/// sessions.put(&7, &1, Some(Duration::from_millis(40)), Durability::Memory)?;
/// sessions.put(&8, &2, None, Durability::Memory)?;
/// assert_eq!(sessions.get(&7)?, Some(1));
/// thread::sleep(Duration::from_millis(50));
/// assert_eq!((sessions.get(&7)?, sessions.get(&8)?), (None, Some(2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ExpiringStore<K, V> {
    // First, so that it ends before the last sync.
    keeper: Option<Keeper>,
    raw: Arc<RawExpiring<Directory>>,
    /// How often it is looked after.
    interval: Duration,
    is_closed: bool,
    types: PhantomData<fn(K) -> V>,
}

fn keep(raw: &Arc<RawExpiring<Directory>>, interval: Duration) -> Result<Keeper> {
    let mut keeper = Keeper::start(Arc::clone(raw.shared()), interval)?;
    let swept = Arc::clone(raw);
    keeper.spawn("store sweeper", interval, move || swept.sweep(SWEPT_PARTS).map(drop))?;
    Ok(keeper)
}

impl<K, V> ExpiringStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Makes a store in a directory, which is made if it is not there.
    ///
    /// Example: see [`ExpiringStore`].
    ///
    /// # Errors
    /// As [`RawExpiring::create`], and [`Error::Locked`].
    pub fn create(path: &Path, options: &Options) -> Result<Self> {
        Self::create_in(Directory::lock(path)?, options)
    }

    /// The same in a directory that is locked already, for one that is encrypted.
    ///
    /// Example: see [`FixedStore::create_in`](crate::FixedStore::create_in).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in(folder: Directory, options: &Options) -> Result<Self> {
        let (key, value) = (size_of::<K>(), size_of::<V>());
        Self::keeping(RawExpiring::create(folder, key, value, options, unix_ms)?, options)
    }

    /// Opens the store of a directory, which was made by [`create`](Self::create) or is a replica of
    /// such a one.
    ///
    /// ```
    /// # use mainstay_store::{ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?.close()?;
    /// assert_eq!(ExpiringStore::<u64, u32>::open(dir.path(), &Options::default())?.get(&1)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// Example: see [`FixedStore::create_in`](crate::FixedStore::create_in).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(folder: Directory, options: &Options) -> Result<Self> {
        Self::over(RawStore::open(folder, options)?, options)
    }

    /// A store over bytes with types, and with threads that look after it from now on; so a replica of
    /// such a store becomes a typed one. Of `options` only [`Options::interval`] counts.
    ///
    /// ```
    /// use mainstay_store::{Directory, ExpiringStore, Options, RawStore, Role};
    /// let (dir, options) = (tempfile::tempdir()?, Options::default());
    /// let leader = ExpiringStore::<u64, u32>::create(&dir.path().join("leader"), &options)?;
    /// let folder = Directory::lock(&dir.path().join("copy"))?;
    /// let copy = RawStore::create_replica(folder, &leader.shared().identity(), &options)?;
    /// let copy = ExpiringStore::<u64, u32>::over(copy, &options)?;
    /// assert_eq!((copy.shared().role(), copy.get(&7)?), (Role::Follower, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherSizes`]; [`Error::OutOfLimits`] if its values have no room for a time;
    /// [`Error::Io`] if there can be no further threads.
    pub fn over(raw: RawStore<Directory>, options: &Options) -> Result<Self> {
        Self::keeping(RawExpiring::over(raw, unix_ms)?, options)
    }

    fn keeping(raw: RawExpiring<Directory>, options: &Options) -> Result<Self> {
        let ((key, value), asked) = (raw.lengths(), (size_of::<K>(), size_of::<V>()));
        if (key, value) != asked {
            let (asked_key, asked_value) = asked;
            return Err(Error::OtherSizes { key, value, asked_key, asked_value });
        }
        let (raw, interval) = (Arc::new(raw), options.interval);
        let keeper = Some(keep(&raw, interval)?);
        Ok(Self { keeper, raw, interval, is_closed: false, types: PhantomData })
    }

    /// The same store over bytes.
    ///
    /// ```
    /// # use mainstay_store::{ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// assert_eq!(store.raw().lengths(), (8, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn raw(&self) -> &RawExpiring<Directory> {
        &self.raw
    }

    /// The same, for who leads or follows with it: `mainstay_replica::drive` takes a clone.
    ///
    /// Example: see [`over`](Self::over).
    #[must_use]
    pub fn shared(&self) -> &Arc<RawStore<Directory>> {
        self.raw.shared()
    }

    /// Makes it the leader; see [`RawStore::promote`]. Until then it may have followed another one, as
    /// long as it could be read by its types.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Error, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let mut store = ExpiringStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// store.demote()?;
    /// assert!(matches!(store.put(&1, &2, None, Memory), Err(Error::Follows)));
    /// let leads = std::sync::Arc::clone(store.shared());
    /// assert!(matches!(store.promote(4711), Err(Error::InUse)));
    /// drop(leads);
    /// store.promote(4711)?;
    /// store.put(&1, &2, None, Memory)?;
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
        let own = Arc::get_mut(&mut self.raw).and_then(RawExpiring::own);
        let changed = own.ok_or(Error::InUse).and_then(change);
        self.keeper = Some(keep(&self.raw, self.interval)?);
        changed
    }

    /// Sets the value of a key, for so long or for good.
    ///
    /// Example: see [`ExpiringStore`].
    ///
    /// # Errors
    /// As [`RawExpiring::put`].
    pub fn put(
        &self,
        key: &K,
        value: &V,
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Token> {
        self.raw.put(key.as_bytes(), value.as_bytes(), ttl, durability)
    }

    /// The value of a key, if it has one that has not ended.
    ///
    /// Example: see [`ExpiringStore`].
    ///
    /// # Errors
    /// None that a store opened with these types can have; the signature is [`RawExpiring::get`]'s.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::new_zeroed();
        let is_there = self.raw.read_into(key.as_bytes(), value.as_mut_bytes())?;
        Ok(is_there.then_some(value))
    }

    /// Lets a record end so long from now, or never; `None` if it is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// store.put(&7, &1, Some(std::time::Duration::from_secs(60)), Memory)?;
    /// assert!(store.touch(&7, None, Memory)?.is_some());
    /// assert!(store.touch(&8, None, Memory)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::put`].
    pub fn touch(
        &self,
        key: &K,
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw.touch(key.as_bytes(), ttl, durability)
    }

    /// Removes a key; `None` if it is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// store.put(&7, &1, None, Memory)?;
    /// assert!(store.delete(&7, Memory)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::put`].
    pub fn delete(&self, key: &K, durability: Durability) -> Result<Option<Token>> {
        self.raw.delete(key.as_bytes(), durability)
    }

    /// Makes everything durable; see [`RawStore::close`].
    ///
    /// Example: see [`ExpiringStore::open`].
    ///
    /// # Errors
    /// As [`RawStore::close`].
    pub fn close(mut self) -> Result<()> {
        drop(self.keeper.take());
        self.is_closed = true;
        self.raw.raw().note_durable()
    }
}

impl<K, V> Drop for ExpiringStore<K, V> {
    fn drop(&mut self) {
        drop(self.keeper.take());
        if !self.is_closed
            && let Err(error) = self.raw.raw().note_durable()
        {
            tracing::warn!(%error, "the store was dropped, and its last writes may not be durable");
        }
    }
}

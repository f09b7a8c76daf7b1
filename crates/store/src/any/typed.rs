//! A store of any sizes, typed, that looks after itself.

mod plain;
#[cfg(feature = "serde")]
mod postcard;
mod seen;
mod writing;

use std::{marker::PhantomData, path::Path, sync::Arc, time::Duration};

use super::{
    options::LogOptions,
    raw::{LogShardStats, RawLogStore},
};
use crate::{
    error::{Error, Result},
    folder::Directory,
    keeper::Keeper,
    options::{Durability, Token},
    shard::Change,
};

pub use self::plain::Plain;
#[cfg(feature = "serde")]
pub use self::postcard::Postcard;
pub use self::seen::{AsKey, LogIter};

/// How a type is bytes and back, as keys or values of a [`LogStore`].
///
/// ```
/// use mainstay_store::Field;
/// struct Person { name: String, age: u8 }
/// impl Field for Person {
///     fn encode(&self, out: &mut Vec<u8>) {
///         out.push(self.age);
///         self.name.encode(out);
///     }
///     fn decode(bytes: &[u8]) -> Option<Self> {
///         let (age, name) = bytes.split_first()?;
///         Some(Self { name: String::decode(name)?, age: *age })
///     }
/// }
/// let mut bytes = Vec::new();
/// Person { name: "Ada".into(), age: 36 }.encode(&mut bytes);
/// assert_eq!(Person::decode(&bytes).unwrap().name, "Ada");
/// assert!(Person::decode(b"").is_none());
/// ```
pub trait Field: Sized {
    /// Appends the bytes.
    ///
    /// Example: see [`Field`].
    fn encode(&self, out: &mut Vec<u8>);

    /// What the bytes mean; none if that is nothing.
    ///
    /// Example: see [`Field`].
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Field for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl Field for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl Field for u64 {
    /// In big-endian, so that bytes are in the order of numbers.
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

pub(super) fn bytes_of(field: &impl Field) -> Vec<u8> {
    let mut bytes = Vec::new();
    field.encode(&mut bytes);
    bytes
}

/// Keys and values of any size up to [`limits`](crate::limits). Keys are in memory, values on the
/// disk, and read one at a time, with their checksum, behind a cache. A thread of its own syncs every
/// [`LogOptions::interval`]; another one describes full segments and compacts.
///
/// Dropped, it makes everything durable as [`close`](Self::close) does, but cannot tell an error.
///
/// ```
/// use mainstay_store::{Durability, LogOptions, LogStore};
/// let dir = tempfile::tempdir()?;
/// let store = LogStore::<String, Vec<u8>>::create(dir.path(), &LogOptions::default())?;
/// store.put(&"readme".into(), &vec![7; 100_000], Durability::Group)?;
/// drop(store);
/// let store = LogStore::<String, Vec<u8>>::open(dir.path(), &LogOptions::default())?;
/// assert_eq!(store.get(&"readme".into())?, Some(vec![7; 100_000]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LogStore<K, V> {
    // First, so that it ends before the last sync.
    keeper: Option<Keeper>,
    raw: Arc<RawLogStore<Directory>>,
    /// How often it is looked after.
    interval: Duration,
    is_closed: bool,
    types: PhantomData<fn(K) -> V>,
}

fn keep(raw: &Arc<RawLogStore<Directory>>, interval: Duration) -> Result<Keeper> {
    let (synced, kept) = (Arc::clone(raw), Arc::clone(raw));
    Keeper::of(interval, move || synced.sync().map(drop), move || kept.upkeep())
}

impl<K: Field, V: Field> LogStore<K, V> {
    /// Makes a store in a directory, which is made if it is not there.
    ///
    /// Example: see [`LogStore`].
    ///
    /// # Errors
    /// As [`RawLogStore::create`], and [`Error::Locked`].
    pub fn create(path: &Path, options: &LogOptions) -> Result<Self> {
        Self::create_in(Directory::lock(path)?, options)
    }

    /// The same in a directory that is locked already, for one that is encrypted.
    ///
    /// Example: see [`FixedStore::create_in`](crate::FixedStore::create_in).
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in(folder: Directory, options: &LogOptions) -> Result<Self> {
        Self::over(RawLogStore::create(folder, options)?, options)
    }

    /// Opens the store of a directory.
    ///
    /// Example: see [`LogStore`].
    ///
    /// # Errors
    /// As [`RawLogStore::open`], and [`Error::Locked`].
    pub fn open(path: &Path, options: &LogOptions) -> Result<Self> {
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
    pub fn open_in(folder: Directory, options: &LogOptions) -> Result<Self> {
        Self::over(RawLogStore::open(folder, options)?, options)
    }

    /// A store over bytes with types, and with threads that look after it from now on; so a replica
    /// becomes a typed one. Of `options` only [`LogOptions::interval`] counts.
    ///
    /// ```
    /// use mainstay_store::{Directory, LogOptions, LogStore, RawLogStore, Role};
    /// let (dir, options) = (tempfile::tempdir()?, LogOptions::default());
    /// let leader = LogStore::<u64, String>::create(&dir.path().join("leader"), &options)?;
    /// let folder = Directory::lock(&dir.path().join("copy"))?;
    /// let copy = RawLogStore::create_replica(folder, &leader.shared().identity(), &options)?;
    /// let copy = LogStore::<u64, String>::over(copy, &options)?;
    /// assert_eq!((copy.shared().role(), copy.get(&7)?), (Role::Follower, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] if there can be no further threads.
    pub fn over(raw: RawLogStore<Directory>, options: &LogOptions) -> Result<Self> {
        let (raw, interval) = (Arc::new(raw), options.interval);
        let keeper = Some(keep(&raw, interval)?);
        Ok(Self { keeper, raw, interval, is_closed: false, types: PhantomData })
    }

    /// The same store over bytes.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
    /// store.put(&7, &"seven".into(), Durability::Memory)?;
    /// assert_eq!(store.raw().get(&7_u64.to_be_bytes())?.as_deref(), Some(&b"seven"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn raw(&self) -> &RawLogStore<Directory> {
        &self.raw
    }

    /// The same, for who leads or follows with it: `mainstay_replica::drive` takes a clone.
    ///
    /// Example: see [`over`](Self::over).
    #[must_use]
    pub fn shared(&self) -> &Arc<RawLogStore<Directory>> {
        &self.raw
    }

    /// Makes it the leader; see [`RawLogStore::promote`]. Until then it may have followed another one, as
    /// long as it could be read by its types.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Error, LogStore, LogOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let mut store = LogStore::<u64, u64>::create(dir.path(), &LogOptions::default())?;
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
    /// As [`RawLogStore::promote`]; [`Error::InUse`] while somebody else has it too, as who leads or follows
    /// with it does. Then nothing has changed.
    pub fn promote(&mut self, drawn: u16) -> Result<()> {
        self.become_other(|raw| raw.promote_here(0, drawn))
    }

    /// Makes it a follower, from now on and when it is opened again; see [`RawLogStore::demote`].
    ///
    /// Example: see [`promote`](Self::promote).
    ///
    /// # Errors
    /// As [`RawLogStore::demote`], and [`Error::InUse`] as [`promote`](Self::promote).
    pub fn demote(&mut self) -> Result<()> {
        self.become_other(RawLogStore::demote_here)
    }

    /// Its threads have it too, and wait meanwhile.
    fn become_other(
        &mut self,
        change: impl FnOnce(&mut RawLogStore<Directory>) -> Result<()>,
    ) -> Result<()> {
        drop(self.keeper.take());
        let changed = Arc::get_mut(&mut self.raw).ok_or(Error::InUse).and_then(change);
        self.keeper = Some(keep(&self.raw, self.interval)?);
        changed
    }

    /// The value of a key.
    ///
    /// Example: see [`LogStore`].
    ///
    /// # Errors
    /// As [`RawLogStore::get`], and [`Error::Undecodable`].
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let value = self.raw.get(&bytes_of(key))?;
        value.map(|value| V::decode(&value).ok_or(Error::Undecodable { what: "value" })).transpose()
    }

    /// Sets the value of a key.
    ///
    /// Example: see [`LogStore`].
    ///
    /// # Errors
    /// As [`RawLogStore::put`].
    pub fn put(&self, key: &K, value: &V, durability: Durability) -> Result<Token> {
        self.raw.put(&bytes_of(key), &bytes_of(value), durability)
    }

    /// Sets the value of a key, for so long or for good.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// use std::{thread, time::Duration};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
    /// store.put_for(&7, &"seven".into(), Some(Duration::from_millis(40)), Memory)?;
    /// store.put_for(&8, &"eight".into(), Some(Duration::from_millis(40)), Memory)?;
    /// assert!(store.touch(&8, None, Memory)?.is_some());
    /// thread::sleep(Duration::from_millis(50));
    /// assert_eq!((store.get(&7)?, store.left(&7)?), (None, None));
    /// assert_eq!((store.get(&8)?.as_deref(), store.left(&8)?), (Some("eight"), Some(None)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::put_for`].
    pub fn put_for(
        &self,
        key: &K,
        value: &V,
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Token> {
        self.raw.put_for(&bytes_of(key), &bytes_of(value), ttl, durability)
    }

    /// Lets a record end so long from now, or never; `None` if it is not there.
    ///
    /// Example: see [`put_for`](Self::put_for).
    ///
    /// # Errors
    /// As [`RawLogStore::touch`].
    pub fn touch(
        &self,
        key: &K,
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw.touch(&bytes_of(key), ttl, durability)
    }

    /// How long a key will be there: `None` if it is not, and `Some(None)` if it does not end.
    ///
    /// Example: see [`put_for`](Self::put_for).
    ///
    /// # Errors
    /// As [`RawLogStore::left`].
    pub fn left(&self, key: &K) -> Result<Option<Option<Duration>>> {
        self.raw.left(&bytes_of(key))
    }

    /// Sets the value of a key that is not there yet; `None` if it is.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
    /// assert!(store.insert(&1, &"one".into(), Memory)?.is_some());
    /// assert!(store.insert(&1, &"two".into(), Memory)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::put`].
    pub fn insert(&self, key: &K, value: &V, durability: Durability) -> Result<Option<Token>> {
        self.raw.insert(&bytes_of(key), &bytes_of(value), durability)
    }

    /// Removes a key; `None` if it is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
    /// store.put(&1, &"one".into(), Memory)?;
    /// assert!(store.delete(&1, Memory)?.is_some());
    /// assert!(store.delete(&1, Memory)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::delete`].
    pub fn delete(&self, key: &K, durability: Durability) -> Result<Option<Token>> {
        self.raw.delete(&bytes_of(key), durability)
    }

    /// Makes the value of a key `new` (`None`: no value) if it is `old`; `None` if it is not. Values
    /// are compared as bytes.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, u64>::create(dir.path(), &LogOptions::default())?;
    /// assert!(store.compare_and_swap(&1, None, Some(&2), Memory)?.is_some());
    /// assert!(store.compare_and_swap(&1, Some(&9), None, Memory)?.is_none());
    /// assert_eq!(store.get(&1)?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::compare_and_swap`].
    pub fn compare_and_swap(
        &self,
        key: &K,
        old: Option<&V>,
        new: Option<&V>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        let (old, new) = (old.map(bytes_of), new.map(bytes_of));
        self.raw.compare_and_swap(&bytes_of(key), old.as_deref(), new.as_deref(), durability)
    }

    /// Makes of a key's value what a closure says of it, while no other writer of the shard gets
    /// in. The closure must not use the store.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<String, u64>::create(dir.path(), &LogOptions::default())?;
    /// for _ in 0..3 {
    ///     store.update(&"calls".into(), Memory, |count| Some(count.unwrap_or(0) + 1))?;
    /// }
    /// assert_eq!(store.get(&"calls".into())?, Some(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::update`], and [`Error::Undecodable`]; then nothing has changed.
    pub fn update(
        &self,
        key: &K,
        durability: Durability,
        change: impl FnOnce(Option<V>) -> Option<V>,
    ) -> Result<Option<Token>> {
        let mut is_wrong = false;
        let token = self.raw.change(&bytes_of(key), durability, |old| {
            let old = match old.map(V::decode) {
                Some(None) => {
                    is_wrong = true;
                    return None;
                }
                Some(old) => old,
                None => None,
            };
            Some(change(old).map(|new| bytes_of(&new)))
        })?;
        if is_wrong { Err(Error::Undecodable { what: "value" }) } else { Ok(token) }
    }

    /// Makes several changes at once: after a crash all of them are there, or none. `None` is no
    /// value. See [`RawLogStore::batch_across`].
    ///
    /// ```
    /// # use mainstay_store::{LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<String, u64>::create(dir.path(), &LogOptions::default())?;
    /// store.batch_across(&[("Ada".into(), Some(60)), ("Bob".into(), Some(40)), ("Cy".into(), None)])?;
    /// assert_eq!(store.get(&"Bob".into())?, Some(40));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::batch_across`].
    pub fn batch_across(&self, changes: &[(K, Option<V>)]) -> Result<Vec<Token>> {
        let bytes = |(key, value): &(K, Option<V>)| (bytes_of(key), value.as_ref().map(bytes_of));
        let bytes: Vec<_> = changes.iter().map(bytes).collect();
        let changes = bytes.iter().map(|(key, value)| Change::of(key, value.as_deref()));
        self.raw.batch_across(&changes.collect::<Vec<_>>())
    }

    /// Shows every record to a closure; see [`RawLogStore::for_each`].
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, u64>::create(dir.path(), &LogOptions::default())?;
    /// store.put(&1, &2, Memory)?;
    /// store.for_each(|key, value| assert_eq!((key, value), (1, 2)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::for_each`], and [`Error::Undecodable`].
    pub fn for_each(&self, mut show: impl FnMut(K, V)) -> Result<()> {
        let mut wrong = None;
        self.raw.for_each(|key, value| match (K::decode(key), V::decode(value)) {
            (Some(key), Some(value)) => show(key, value),
            (None, _) => wrong = Some("key"),
            (_, None) => wrong = Some("value"),
        })?;
        wrong.map_or(Ok(()), |what| Err(Error::Undecodable { what }))
    }

    /// Returns when the write of a token is durable.
    ///
    /// Example: see [`RawLogStore::sync`].
    ///
    /// # Errors
    /// As [`RawLogStore::wait`].
    pub fn wait(&self, token: Token) -> Result<()> {
        self.raw.wait(token)
    }

    /// Is the write of a token durable?
    ///
    /// Example: see [`RawLogStore::sync`].
    ///
    /// # Errors
    /// As [`RawLogStore::is_durable`].
    pub fn is_durable(&self, token: Token) -> Result<bool> {
        self.raw.is_durable(token)
    }

    /// Returns when everything written before is durable.
    ///
    /// Example: see [`RawLogStore::sync`].
    ///
    /// # Errors
    /// As [`RawLogStore::sync`].
    pub fn sync(&self) -> Result<Vec<Token>> {
        self.raw.sync()
    }

    /// What each shard has.
    ///
    /// Example: see [`RawLogStore::stats`].
    #[must_use]
    pub fn stats(&self) -> Vec<LogShardStats> {
        self.raw.stats()
    }

    /// Makes everything durable; see [`RawLogStore::close`].
    ///
    /// ```
    /// # use mainstay_store::{LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// LogStore::<u64, u64>::create(dir.path(), &LogOptions::default())?.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::close`].
    pub fn close(mut self) -> Result<()> {
        drop(self.keeper.take());
        self.is_closed = true;
        self.raw.finish()
    }
}

impl<K, V> Drop for LogStore<K, V> {
    fn drop(&mut self) {
        drop(self.keeper.take());
        if !self.is_closed
            && let Err(error) = self.raw.finish()
        {
            tracing::warn!(%error, "the store was dropped, and its last writes may not be durable");
        }
    }
}

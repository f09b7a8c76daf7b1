//! Further ways to write to an expiring store, and how durable that is.

use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::ExpiringStore;
use crate::{
    error::Result,
    fixed_pages::changes_of,
    options::{Durability, Token},
    shard::ShardStats,
};

impl<K, V> ExpiringStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Sets the value of a key that is not there, or has ended, for so long or for good; `None` if it is
    /// there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let locks = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// let lease = Some(Duration::from_secs(90));
    /// assert!(locks.insert(&7, &1, lease, Memory)?.is_some());
    /// assert!(locks.insert(&7, &2, lease, Memory)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::insert`](crate::RawExpiring::insert).
    pub fn insert(
        &self,
        key: &K,
        value: &V,
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw.insert(key.as_bytes(), value.as_bytes(), ttl, durability)
    }

    /// Sets the value of a key up to a certain time, in milliseconds since 1970, or for good.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// store.put_until(&7, &1, Some(4_102_444_800_000), Memory)?;
    /// assert_eq!(store.end(&7)?, Some(Some(4_102_444_800_000)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::put_until`](crate::RawExpiring::put_until).
    pub fn put_until(
        &self,
        key: &K,
        value: &V,
        end: Option<u64>,
        durability: Durability,
    ) -> Result<Token> {
        self.raw.put_until(key.as_bytes(), value.as_bytes(), end, durability)
    }

    /// Makes the value of a key `new` (`None`: no value) if it is `old`; `None` if it is not. It ends when
    /// the old one would have.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// assert!(store.compare_and_swap(&1, None, Some(&2), Memory)?.is_some());
    /// assert!(store.compare_and_swap(&1, Some(&9), None, Memory)?.is_none());
    /// assert_eq!(store.get(&1)?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::compare_and_swap`](crate::RawExpiring::compare_and_swap).
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

    /// Makes of a key's value what a closure says of it, while no other writer of the shard gets in. It
    /// ends when the old one would have. `None` if there was nothing and stays nothing. The closure must
    /// not use the store.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let tries = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// tries.put(&1, &1, Some(Duration::from_secs(60)), Memory)?;
    /// tries.update(&1, Memory, |count| Some(count.unwrap_or(0) + 1))?;
    /// assert!(tries.get(&1)? == Some(2) && tries.left(&1)? < Some(Some(Duration::from_secs(61))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::update`](crate::RawExpiring::update).
    pub fn update(
        &self,
        key: &K,
        durability: Durability,
        change: impl FnOnce(Option<V>) -> Option<V>,
    ) -> Result<Option<Token>> {
        self.raw.update(key.as_bytes(), durability, |old| {
            let old = old.and_then(|old| V::read_from_bytes(old).ok());
            change(old).map(|new| new.as_bytes().to_vec())
        })
    }

    /// Makes several changes of one shard at once, `None` being no value; what is put is there for so long,
    /// or for good. See [`RawExpiring::batch`](crate::RawExpiring::batch).
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &one)?;
    /// store.batch(&[(1, Some(10)), (2, None)], Some(Duration::from_secs(60)), Memory)?;
    /// store.batch_across(&[(1, None), (3, Some(30))], None)?;
    /// assert_eq!((store.get(&1)?, store.left(&3)?), (None, Some(None)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::batch`](crate::RawExpiring::batch).
    pub fn batch(
        &self,
        changes: &[(K, Option<V>)],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw.batch(&changes_of(changes), ttl, durability)
    }

    /// The same of whatever shards; see [`RawExpiring::batch_across`](crate::RawExpiring::batch_across).
    ///
    /// Example: see [`batch`](Self::batch).
    ///
    /// # Errors
    /// As [`RawExpiring::batch_across`](crate::RawExpiring::batch_across).
    pub fn batch_across(
        &self,
        changes: &[(K, Option<V>)],
        ttl: Option<Duration>,
    ) -> Result<Vec<Token>> {
        self.raw.batch_across(&changes_of(changes), ttl)
    }

    /// Returns when the write of a token is durable.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// let token = store.put(&1, &2, None, Memory)?;
    /// store.wait(token)?;
    /// assert!(store.is_durable(token)? && store.sync()?.contains(&token));
    /// assert_eq!(store.stats().iter().map(|shard| shard.records).sum::<u64>(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::wait`](crate::RawStore::wait).
    pub fn wait(&self, token: Token) -> Result<()> {
        self.raw.wait(token)
    }

    /// Is the write of a token durable?
    ///
    /// Example: see [`wait`](Self::wait).
    ///
    /// # Errors
    /// As [`RawStore::is_durable`](crate::RawStore::is_durable).
    pub fn is_durable(&self, token: Token) -> Result<bool> {
        self.raw.is_durable(token)
    }

    /// Returns when everything written before is durable; with the last write of each shard.
    ///
    /// Example: see [`wait`](Self::wait).
    ///
    /// # Errors
    /// As [`RawStore::sync`](crate::RawStore::sync).
    pub fn sync(&self) -> Result<Vec<Token>> {
        self.raw.sync()
    }

    /// What each shard has; records that have ended and were not yet removed are counted.
    ///
    /// Example: see [`wait`](Self::wait).
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.raw.stats()
    }
}

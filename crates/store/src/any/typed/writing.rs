//! Further ways to write to a typed store of any sizes.

use std::time::Duration;

use super::{Field, LogStore, bytes_of};
use crate::{
    error::Result,
    options::{Durability, Token},
    shard::Change,
};

impl<K: Field, V: Field> LogStore<K, V> {
    /// Sets the value of a key up to a certain time, in milliseconds since 1970, or for good.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
    /// store.put_until(&7, &"seven".to_owned(), Some(4_102_444_800_000), Memory)?;
    /// assert_eq!(store.end(&7)?, Some(Some(4_102_444_800_000)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::put_until`](crate::RawLogStore::put_until).
    pub fn put_until(
        &self,
        key: &K,
        value: &V,
        end: Option<u64>,
        durability: Durability,
    ) -> Result<Token> {
        self.raw.put_until(&bytes_of(key), &bytes_of(value), end, durability)
    }

    /// Sets the value of a key that is not there, for so long or for good; `None` if it is there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let locks = LogStore::<String, u64>::create(dir.path(), &LogOptions::default())?;
    /// let (door, lease) = ("door".to_owned(), Some(Duration::from_secs(90)));
    /// assert!(locks.insert_for(&door, &1, lease, Memory)?.is_some());
    /// assert!(locks.insert_for(&door, &2, lease, Memory)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::insert_for`](crate::RawLogStore::insert_for).
    pub fn insert_for(
        &self,
        key: &K,
        value: &V,
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw.insert_for(&bytes_of(key), &bytes_of(value), ttl, durability)
    }

    /// Makes several changes of one shard at once, `None` being no value: after a crash all of them are
    /// there, or none. See [`RawLogStore::batch`](crate::RawLogStore::batch), and for those of whatever
    /// shards [`batch_across`](Self::batch_across).
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = LogStore::<String, u64>::create(dir.path(), &one)?;
    /// store.batch(&[("Ada".into(), Some(60)), ("Bob".into(), Some(40)), ("Cy".into(), None)], Memory)?;
    /// assert_eq!((store.get_by("Bob")?, store.get_by("Cy")?), (Some(40), None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::batch`](crate::RawLogStore::batch).
    pub fn batch(
        &self,
        changes: &[(K, Option<V>)],
        durability: Durability,
    ) -> Result<Option<Token>> {
        let bytes = |(key, value): &(K, Option<V>)| (bytes_of(key), value.as_ref().map(bytes_of));
        let bytes: Vec<_> = changes.iter().map(bytes).collect();
        let changes = bytes.iter().map(|(key, value)| Change::of(key, value.as_deref()));
        self.raw.batch(&changes.collect::<Vec<_>>(), durability)
    }
}

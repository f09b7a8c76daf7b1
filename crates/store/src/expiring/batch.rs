//! Several changes of an expiring store at once.

use std::time::Duration;

use mainstay_storage::Folder;

use super::RawExpiring;
use crate::{
    error::Result,
    options::{Durability, Token},
    shard::{Change, ShardStats},
};

/// The changes with stamped values, one for each.
struct Stamped<'a>(Vec<(&'a [u8], Option<Vec<u8>>)>);

impl Stamped<'_> {
    fn changes(&self) -> Vec<Change<'_>> {
        self.0.iter().map(|(key, value)| Change::of(key, value.as_deref())).collect()
    }
}

impl<F: Folder> RawExpiring<F> {
    fn all_stamped<'a>(
        &self,
        changes: &[Change<'a>],
        ttl: Option<Duration>,
    ) -> Result<Stamped<'a>> {
        let end = self.end_in(ttl)?;
        let stamped = |change: &Change<'a>| match change {
            Change::Put(key, value) => Ok((*key, Some(self.stamped(end, value)?))),
            Change::Delete(key) => Ok((*key, None)),
        };
        changes.iter().map(stamped).collect::<Result<_>>().map(Stamped)
    }

    /// Makes several changes of one shard at once, as [`RawStore::batch`](crate::RawStore::batch) does;
    /// what they put is there for so long, or for good.
    ///
    /// ```
    /// # use mainstay_store::{Change, Durability::Memory, Options, RawExpiring};
    /// # use std::time::Duration;
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = RawExpiring::create(mainstay_sim::Disk::new(7), 2, 3, &one, || 0)?;
    /// let ttl = Some(Duration::from_secs(60));
    /// store.batch(&[Change::Put(b"de", b"049"), Change::Delete(b"dd")], ttl, Memory)?;
    /// assert_eq!(store.left(b"de")?, Some(ttl));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::batch`](crate::RawStore::batch) and [`put`](Self::put).
    pub fn batch(
        &self,
        changes: &[Change<'_>],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw().batch(&self.all_stamped(changes, ttl)?.changes(), durability)
    }

    /// Makes several changes at once, of whatever shards, as
    /// [`RawStore::batch_across`](crate::RawStore::batch_across) does; what they put is there for so long,
    /// or for good.
    ///
    /// ```
    /// # use mainstay_store::{Change, Options, RawExpiring};
    /// # use std::time::Duration;
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// let ttl = Some(Duration::from_secs(60));
    /// store.batch_across(&[Change::Put(b"de", b"049"), Change::Put(b"fr", b"033")], ttl)?;
    /// assert_eq!(store.left(b"fr")?, Some(ttl));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::batch_across`](crate::RawStore::batch_across) and [`put`](Self::put).
    pub fn batch_across(
        &self,
        changes: &[Change<'_>],
        ttl: Option<Duration>,
    ) -> Result<Vec<Token>> {
        self.raw().batch_across(&self.all_stamped(changes, ttl)?.changes())
    }

    /// Returns when the write of a token is durable.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// let token = store.put(b"de", b"049", None, Memory)?;
    /// store.wait(token)?;
    /// assert!(store.is_durable(token)? && store.sync()?.contains(&token));
    /// assert_eq!(store.stats().iter().map(|shard| shard.records).sum::<u64>(), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::wait`](crate::RawStore::wait).
    pub fn wait(&self, token: Token) -> Result<()> {
        self.raw().wait(token)
    }

    /// Is the write of a token durable?
    ///
    /// Example: see [`wait`](Self::wait).
    ///
    /// # Errors
    /// As [`RawStore::is_durable`](crate::RawStore::is_durable).
    pub fn is_durable(&self, token: Token) -> Result<bool> {
        self.raw().is_durable(token)
    }

    /// Returns when everything written before is durable; with the last write of each shard.
    ///
    /// Example: see [`wait`](Self::wait).
    ///
    /// # Errors
    /// As [`RawStore::sync`](crate::RawStore::sync).
    pub fn sync(&self) -> Result<Vec<Token>> {
        self.raw().sync()
    }

    /// What each shard has; records that have ended and were not yet removed are counted.
    ///
    /// Example: see [`wait`](Self::wait).
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.raw().stats()
    }
}

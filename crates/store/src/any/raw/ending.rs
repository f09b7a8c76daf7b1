//! Records that are there for a certain time.
//!
//! The time is in the record, and in the index: who reads compares it with the clock before anything
//! is read. What has ended is removed by deletes as any other, which hide older records of the key.

use std::{ops::Bound, time::Duration};

use mainstay_storage::Folder;

use super::RawLogStore;
use crate::{
    any::{format::Entry, shard::Shard},
    ends::{end_at, end_in, left},
    error::Result,
    limits::SEGMENT_BYTES_MIN,
    options::{Durability, Token},
    shard::Change,
};

/// Deletes that are written at once, at most, and their bytes: they have room in any segment.
const DELETES: usize = 64;
const DELETES_BYTES: u64 = SEGMENT_BYTES_MIN / 2;

impl<F: Folder> RawLogStore<F> {
    /// The same store with another clock: milliseconds since 1970, by which records end.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// use std::{sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}}, time::Duration};
    /// let time = Arc::new(AtomicU64::new(1_000_000));
    /// let clock = Arc::clone(&time);
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?
    ///     .with_clock(move || clock.load(Relaxed));
    /// store.put_for(b"de", b"Deutschland", Some(Duration::from_secs(60)), Memory)?;
    /// time.fetch_add(59_999, Relaxed);
    /// assert!(store.contains(b"de")?);
    /// time.fetch_add(1, Relaxed);
    /// assert_eq!(store.get(b"de")?, None);
    /// assert_eq!(store.sweep(10)?, 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// Sets the value of a key, for so long or for good.
    ///
    /// Example: see [`with_clock`](Self::with_clock).
    ///
    /// # Errors
    /// [`Error::OutOfLimits`](crate::Error::OutOfLimits) for less than a millisecond or more than
    /// [`TTL_MAX`](crate::limits::TTL_MAX), and as [`put`](Self::put).
    pub fn put_for(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Token> {
        Self::check_value(value)?;
        let end = end_in(ttl, self.now())?;
        let shard = self.shard_of(key)?;
        self.commit(shard, shard.writer(), (&[Change::Put(key, value)], end), durability)
    }

    /// Sets the value of a key up to a certain time, in milliseconds since 1970, or for good: as it
    /// was in another store.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?
    ///     .with_clock(|| 1_000);
    /// store.put_until(b"de", b"Deutschland", Some(5_000), Memory)?;
    /// assert_eq!(store.end(b"de")?, Some(Some(5_000)));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_until(
        &self,
        key: &[u8],
        value: &[u8],
        end: Option<u64>,
        durability: Durability,
    ) -> Result<Token> {
        Self::check_value(value)?;
        let shard = self.shard_of(key)?;
        self.commit(shard, shard.writer(), (&[Change::Put(key, value)], end_at(end)), durability)
    }

    /// Sets the value of a key that is not there, for so long or for good; `None` if it is there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// # use std::time::Duration;
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?
    ///     .with_clock(|| 0);
    /// let lease = Some(Duration::from_secs(90));
    /// assert!(store.insert_for(b"lock", b"mine", lease, Memory)?.is_some());
    /// assert!(store.insert_for(b"lock", b"yours", lease, Memory)?.is_none());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put_for`](Self::put_for).
    pub fn insert_for(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        Self::check_value(value)?;
        let end = end_in(ttl, self.now())?;
        let shard = self.shard_of(key)?;
        let log = shard.writer();
        if self.is_there(shard, key) {
            return Ok(None);
        }
        self.commit(shard, log, (&[Change::Put(key, value)], end), durability).map(Some)
    }

    /// When a key ends, in milliseconds since 1970: `None` if it is not there, and `Some(None)` if it
    /// does not end.
    ///
    /// Example: see [`put_until`](Self::put_until).
    ///
    /// # Errors
    /// [`Error::OutOfLimits`](crate::Error::OutOfLimits) for a key that cannot be.
    pub fn end(&self, key: &[u8]) -> Result<Option<Option<u64>>> {
        let now = self.now();
        let place = self.shard_of(key)?.index().find(key).filter(|place| place.is_live(now));
        Ok(place.map(|place| Some(place.end).filter(|end| *end != 0)))
    }

    /// Lets a record end so long from now, or never: it is written again. `None` if it is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// # use std::time::Duration;
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?
    ///     .with_clock(|| 0);
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// store.touch(b"de", Some(Duration::from_secs(90)), Memory)?;
    /// assert_eq!(store.left(b"de")?, Some(Some(Duration::from_secs(90))));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put_for`](Self::put_for) and [`get`](Self::get).
    pub fn touch(
        &self,
        key: &[u8],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        let end = end_in(ttl, self.now())?;
        let shard = self.shard_of(key)?;
        let log = shard.writer();
        let Some(value) = shard.read(&self.cache, key, self.now())? else { return Ok(None) };
        self.commit(shard, log, (&[Change::Put(key, &value)], end), durability).map(Some)
    }

    /// How long a key will be there: `None` if it is not, and `Some(None)` if it does not end.
    ///
    /// Example: see [`touch`](Self::touch).
    ///
    /// # Errors
    /// [`Error::OutOfLimits`](crate::Error::OutOfLimits) for a key that cannot be.
    pub fn left(&self, key: &[u8]) -> Result<Option<Option<Duration>>> {
        let now = self.now();
        let place = self.shard_of(key)?.index().find(key).filter(|place| place.is_live(now));
        Ok(place.map(|place| left(place.end, now)))
    }

    /// Removes what has ended, at most `max` records of each shard, those that ended first. How many
    /// these were; none of a follower's. [`upkeep`](Self::upkeep) does it.
    ///
    /// Example: see [`with_clock`](Self::with_clock).
    ///
    /// # Errors
    /// As [`delete`](Self::delete); the other shards are swept nevertheless.
    pub fn sweep(&self, max: usize) -> Result<u64> {
        // What ends at its leader is deleted there, and so here.
        if self.standing.is_closed() {
            return Ok(0);
        }
        let swept = self.shards.iter().map(|shard| self.sweep_shard(shard, max));
        let swept: Vec<Result<u64>> = swept.collect();
        swept.into_iter().sum()
    }

    fn sweep_shard(&self, shard: &Shard<F>, max: usize) -> Result<u64> {
        let (now, mut count) = (self.now(), 0);
        while count < max {
            let log = shard.writer();
            let keys = shard.ended(now, DELETES.min(max - count));
            if keys.is_empty() {
                break;
            }
            count += keys.len();
            let changes: Vec<_> = keys.iter().map(|key| Change::Delete(key)).collect();
            self.commit(shard, log, (&changes, 0), Durability::Memory)?;
        }
        Ok(count as u64)
    }
}

impl<F: Folder> Shard<F> {
    /// Keys whose records have ended, those that ended first, as many as one write can delete.
    fn ended(&self, now: u64, max: usize) -> Vec<Box<[u8]>> {
        let index = self.index();
        let behind = (now.saturating_add(1), Box::default());
        let ended = index.ends.range((Bound::Unbounded, Bound::Excluded(behind)));
        let mut bytes = 0;
        let fits = |(_, key): &&(u64, Box<[u8]>)| {
            bytes += Entry::new(&[Change::Delete(key)], 0).frame_bytes();
            bytes <= DELETES_BYTES
        };
        ended.take(max).take_while(fits).map(|(_, key)| key.clone()).collect()
    }
}

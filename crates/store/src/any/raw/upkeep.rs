//! What keeps a store of any sizes in order while it is used, and ends it.

use mainstay_storage::Folder;

use super::RawLogStore;
use crate::{
    any::{compact::WHOLLY, shard::Shard},
    error::{Error, Result},
    group::lock,
    options::bytes_in,
};

/// Records of a shard that have ended and are removed at a time.
const SWEPT: usize = 4096;

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
    /// Hints that the disk could not read when the store was opened. Nothing is lost: their segments
    /// were read instead, which takes longer. They are written anew, as others are.
    pub unread_hints: u64,
    /// What failed, if the shard takes no more writes.
    pub poisoned: Option<String>,
}

impl<F: Folder> RawLogStore<F> {
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
    /// What the disk says, or [`crate::Error::Damaged`]; the segment stays.
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
    /// [`crate::LogOptions::interval`].
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
    /// [`crate::Error::Poisoned`], or what the disk says; all shards are tended nevertheless.
    pub fn tend(&self) -> Result<()> {
        let synced = self.sync().map(drop);
        let kept = self.upkeep();
        synced.and(kept)
    }

    /// Does what is due and can take its time: removes what has ended, describes full segments, and compacts as much as
    /// [`crate::LogOptions::compact_bytes_per_second`] allows for one
    /// [`crate::LogOptions::interval`].
    ///
    /// Example: see [`tend`](Self::tend).
    ///
    /// # Errors
    /// [`crate::Error::Poisoned`], or what the disk says; all shards are looked after nevertheless.
    pub fn upkeep(&self) -> Result<()> {
        let budget = bytes_in(self.options.compact_bytes_per_second, self.options.interval);
        let budget = budget.div_ceil(self.shards.len() as u64);
        let swept = self.sweep(SWEPT).map(drop);
        let tend = |shard: &Shard<F>| {
            shard.vouch_if_idle(self.store())?;
            let described = shard.write_hints(self.store());
            if budget > 0 {
                let is_full = described.as_ref().is_err_and(Error::is_full);
                let dead_percent = if is_full { WHOLLY } else { self.options.dead_percent };
                let done = shard.compact(self.store(), budget, dead_percent);
                if !is_full && done.as_ref().is_err_and(Error::is_full) {
                    // Where there is no room, what moves nothing makes some.
                    shard.compact(self.store(), budget, WHOLLY)?;
                }
                done?;
            }
            described
        };
        let tended = self.each_shard(tend);
        swept.and(tended)
    }

    /// Describes the segments that are full.
    pub(in crate::any) fn write_hints(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.write_hints(self.store()))
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
    /// [`crate::Error::Damaged`] with the first place that is not as it was written.
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
    /// [`crate::Error::Poisoned`], or [`crate::Error::Io`] if there is no room. That the last segments
    /// could not be described is none: the next opening reads them instead.
    pub fn close(self) -> Result<()> {
        self.finish()
    }

    pub(in crate::any) fn finish(&self) -> Result<()> {
        // First what nobody else can do: whatever fails of the rest, no write is lost by it. And nothing
        // is said behind what another shard has of a batch unless that is durable.
        self.each_shard(Shard::settle)?;
        self.each_shard(|shard| shard.finish(self.store()))?;
        if let Err(error) = self.each_shard(|shard| shard.describe(self.store())) {
            tracing::warn!(%error, "a segment is not described, and the next opening reads it");
        }
        Ok(())
    }

    /// Does something with all shards, whatever fails of it, and tells the first error.
    fn each_shard(&self, what: impl FnMut(&Shard<F>) -> Result<()>) -> Result<()> {
        let done: Vec<Result<()>> = self.shards.iter().map(what).collect();
        done.into_iter().collect()
    }
}

impl<F: Folder> Shard<F> {
    fn stats_bytes(&self) -> u64 {
        self.index().segments.values().map(|segment| segment.end).sum()
    }

    pub(in crate::any) fn stats(&self) -> LogShardStats {
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
            durable: self.group.durable(),
            segments: index.segments.len() as u64,
            log_bytes: index.segments.values().map(|segment| segment.end).sum(),
            live_bytes: kept.sum(),
            moved_bytes,
            freed_bytes,
            unread_hints: self.unread_hints,
            poisoned: self.group.poison_text(),
        }
    }
}

#[cfg(test)]
mod tests;

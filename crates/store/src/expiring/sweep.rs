//! Removes the records whose time is over.

use std::sync::PoisonError;

use mainstay_storage::Folder;

use super::{RawExpiring, has_ended};
use crate::{error::Result, options::Durability, rank::Role};

/// Slots looked at in one go.
const SWEEP_SLOTS: usize = 256;

impl<F: Folder> RawExpiring<F> {
    /// Looks at some 256 times `parts` places for records, going on where the last call ended, and
    /// removes those that have ended. How many these were; none at a replica, which gets the deletes
    /// of its leader.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// use std::{sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}}, time::Duration};
    /// let time = Arc::new(AtomicU64::new(1_000_000));
    /// let clock = Arc::clone(&time);
    /// let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), move || clock.load(Relaxed))?;
    /// store.put(b"de", b"049", Some(Duration::from_secs(60)), Memory)?;
    /// assert_eq!(store.sweep(10)?, 0);
    /// time.fetch_add(60_000, Relaxed);
    /// assert_eq!(store.sweep(10)?, 1);
    /// assert_eq!(store.raw().get(b"de")?, None);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::delete`](crate::RawStore::delete).
    pub fn sweep(&self, parts: usize) -> Result<u64> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for _ in 0..parts {
            let (shard, slot) = *next;
            let (removed, following) = self.sweep_part(shard, slot)?;
            count += removed;
            *next = match following {
                Some(slot) => (shard, slot),
                None => ((shard + 1) % self.raw.identity().shards, 0),
            };
        }
        Ok(count)
    }

    /// Looks at all records, and removes those that have ended: how many these were.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 1_000)?;
    /// store.put_until(b"de", b"049", Some(999), Memory)?;
    /// assert_eq!(store.sweep_all()?, 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::delete`](crate::RawStore::delete).
    pub fn sweep_all(&self) -> Result<u64> {
        let mut count = 0;
        for shard in 0..self.raw.identity().shards {
            let mut slot = Some(0);
            while let Some(from) = slot {
                let (removed, following) = self.sweep_part(shard, from)?;
                (count, slot) = (count + removed, following);
            }
        }
        Ok(count)
    }

    /// The same of some slots, and where to go on.
    fn sweep_part(&self, shard: u32, slot: u32) -> Result<(u64, Option<u32>)> {
        if self.raw.role() == Role::Follower {
            return Ok((0, None));
        }
        let (now, mut count) = ((self.clock)(), 0);
        let mut ended: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let following = self.raw.scan(shard, slot, SWEEP_SLOTS, |key, value| {
            if has_ended(value, now) {
                ended.push((key.to_vec(), value.to_vec()));
            }
        })?;
        for (key, value) in &ended {
            // Unless somebody has written to it since.
            let gone = self.raw.compare_and_swap(key, Some(value), None, Durability::Memory)?;
            count += u64::from(gone.is_some());
        }
        Ok((count, following))
    }
}

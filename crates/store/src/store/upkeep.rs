//! What keeps a store in order while it is used, and ends it: compaction, checking, closing.

use mainstay_storage::Folder;

use super::RawStore;
use crate::{
    error::{Error, Result},
    group::lock,
    options::Durability,
    planted::{self, Fault},
    rank::Role,
    recover::load_apart,
    shard::{Shard, ShardStats},
};

/// As often upkeep has to find a log as it was before the end of it is vouched for, if it can wait.
pub(crate) const IDLE_LOOKS: u32 = 20;
/// Records in memory that one call of [`RawStore::upkeep`] looks at.
const CHECKED_SLOTS: u32 = 1_024;

impl<F: Folder> RawStore<F> {
    /// Writes an image of every shard and cuts the logs (A6).
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Durability::Memory)?;
    /// store.compact()?;
    /// assert_eq!(store.stats().iter().map(|shard| shard.image).sum::<u64>(), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the disk says; the store goes on with its log as it is.
    pub fn compact(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.compact(&self.folder, &self.header))
    }

    /// Does all that is due: [`sync`](Self::sync), then [`upkeep`](Self::upkeep).
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let token = store.put(b"de", b"049", Durability::Interval)?;
    /// store.tend()?;
    /// assert!(store.is_durable(token)?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], or what the disk says; all shards are tended nevertheless.
    pub fn tend(&self) -> Result<()> {
        let synced = self.sync().map(drop);
        let kept = self.upkeep();
        synced.and(kept)
    }

    /// Does what is due and can take its time: prepares segments, and compacts shards whose log is
    /// longer than their records are worth, as much as [`crate::Options::compact_bytes_per_second`]
    /// allows for one [`crate::Options::interval`]. Some records in memory are checked, so that damage is
    /// found in time also where nobody reads.
    ///
    /// ```
    /// # use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.upkeep()?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::BadSlot`], or what the disk says; all shards are looked after
    /// nevertheless.
    pub fn upkeep(&self) -> Result<()> {
        let prepare = |shard: &Shard<F>| {
            shard.prepare(&self.folder, &self.header)?;
            // While memory lasts, a process that dies leaves the end of the log there as well; then it
            // is for a power cut that the mark is made, and one more sync is not worth it so soon.
            let needs_mark = self.role() == Role::Follower || !shard.table().lasts();
            shard.vouch_if_idle(if needs_mark { 1 } else { IDLE_LOOKS })
        };
        let prepared: Vec<Result<()>> = self.shards.iter().map(prepare).collect();
        let prepared: Result<()> = prepared.into_iter().collect();
        prepared.and(self.compact_some()).and(self.check_some())
    }

    /// Looks at the checksums of some records in memory, each in its turn, and goes on behind one that is
    /// damaged: the next opening makes the shard anew then.
    fn check_some(&self) -> Result<()> {
        let mut turn = lock(&self.checking);
        let (number, from) = *turn;
        match self.shards[number].table().check(from, CHECKED_SLOTS) {
            Ok(Some(next)) => turn.1 = next,
            Ok(None) => *turn = ((number + 1) % self.shards.len(), 0),
            Err(error) => {
                match error {
                    Error::BadSlot { slot, .. } => turn.1 = slot + 1,
                    _ => *turn = ((number + 1) % self.shards.len(), 0),
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Goes on where the last call stopped, so that each shard has its turn.
    fn compact_some(&self) -> Result<()> {
        let mut turn = lock(&self.compaction);
        let mut budget = turn.take(self.compact_bytes);
        let mut done = Ok(());
        for _ in &self.shards {
            if budget == 0 {
                break;
            }
            let shard = &self.shards[turn.shard];
            match shard.compact_some(&self.folder, &self.header, budget) {
                Ok(bytes) => {
                    turn.debt += bytes.saturating_sub(budget);
                    budget = budget.saturating_sub(bytes);
                }
                Err(error) => done = Err(error),
            }
            if !shard.is_compacting() {
                turn.shard = (turn.shard + 1) % self.shards.len();
            }
        }
        done
    }

    /// Reads all files again, checks every checksum, and compares them with memory, a shard at a
    /// time; its writers wait.
    ///
    /// ```
    /// # use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.verify()?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first place that is not as it was written, or
    /// [`Error::Differs`].
    pub fn verify(&self) -> Result<()> {
        for (number, shard) in (0..).zip(&self.shards) {
            let _no_images = shard.upkeep();
            let mut no_writes = shard.writer();
            shard.settle(&mut no_writes)?;
            let loaded = load_apart(&self.folder, &self.header, number)?;
            let records = loaded.table.differences(shard.table())?;
            if records > 0 {
                // The files are the truth: the next opening makes the memory of them.
                shard.table().suspect()?;
                return Err(Error::Differs { shard: number, records });
            }
        }
        Ok(())
    }

    /// What each shard has.
    ///
    /// Example: see [`RawStore::compact`].
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.shards.iter().map(Shard::stats).collect()
    }

    /// Makes everything durable, and notes beside the log that it is: from then on the loss of the
    /// last write too is told from its never having been durable. That is no write, so a follower's
    /// log can be marked too; [`upkeep`](Self::upkeep) does it when a follower has nothing to do.
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore, Survey};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawStore::create(disk.clone(), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Durability::Memory)?;
    /// store.vouch()?;
    /// drop(store);
    /// assert!(Survey::over(&disk, |_, _| {})?.is_sound());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], or what the disk says.
    pub fn vouch(&self) -> Result<()> {
        self.shards.iter().try_for_each(Shard::vouch)
    }

    /// Makes everything durable, and notes in the log that it is: from then on the loss of the
    /// last write too is told from its never having been durable.
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Durability::Memory)?;
    /// store.close()?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`], or [`Error::Io`] if there is no room for the note.
    pub fn close(self) -> Result<()> {
        self.note_durable()
    }

    pub(crate) fn note_durable(&self) -> Result<()> {
        self.sync()?;
        for shard in &self.shards {
            shard.stop_compacting(&self.folder);
            if shard.written() == 0 {
                continue;
            }
            if self.standing.check_open().is_ok() {
                self.commit(shard, shard.writer(), &[], Durability::Each)?;
                if planted::is(Fault::EndUnmarked) {
                    continue;
                }
                // The frame that vouches for the others may be in one sector with them, and the two
                // be lost together.
                shard.vouch()?;
            } else {
                // A follower's log has its leader's writes and no others.
                shard.vouch()?;
            }
        }
        Ok(())
    }
}

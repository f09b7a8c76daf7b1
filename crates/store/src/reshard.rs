//! Another number of shards, while the store is used: a second one is filled beside it, as
//! [`crate::mirror`] says.

use mainstay_storage::Folder;

use crate::{
    error::Result,
    mirror::Mirror,
    options::{Durability, Options},
    planted::{self, Fault},
    shard::Change,
    store::RawStore,
};

/// Records that are copied while the writers of a shard wait.
const RECORDS: usize = 256;

/// A store that is being given another number of shards; see [`RawStore::reshard_into`].
///
/// Dropped before [`finish`](Self::finish) it leaves the store as it is, and in the other folder
/// what is to be thrown away.
pub struct Resharding<'a, F: Folder, G: Folder + 'static> {
    from: &'a RawStore<F>,
    to: Mirror<RawStore<G>>,
    /// The shard and the slot to copy next; none if all is copied.
    next: Option<(u32, u32)>,
    copied: u64,
}

impl<F: Folder> RawStore<F> {
    /// Begins to make a store with the same records in another folder, with the shards and the
    /// segments that `options` say, while this one is used. It is another store: it has an
    /// [`identity`](Self::identity) of its own, and replicas of this one begin anew with it.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Durability::Memory, Error, Options, RawStore};
    /// let store = RawStore::create(Disk::new(1), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let more = Options { shards: 8, ..Options::default() };
    /// let mut resharding = store.reshard_into(Disk::new(2), &more)?;
    /// while !resharding.advance(1_000)? {}
    /// store.put(b"fr", b"033", Memory)?;
    /// let new = resharding.finish()?;
    /// assert_eq!(new.identity().shards, 8);
    /// assert_eq!(new.get(b"de")?, Some(b"049".to_vec()));
    /// assert_eq!(new.get(b"fr")?, Some(b"033".to_vec()));
    /// assert!(matches!(store.put(b"dk", b"045", Memory), Err(Error::Resharded)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Follows`](crate::Error::Follows) of a follower; as [`create`](Self::create).
    pub fn reshard_into<G: Folder + 'static>(
        &self,
        folder: G,
        options: &Options,
    ) -> Result<Resharding<'_, F, G>> {
        self.standing.check_open()?;
        let to = RawStore::create_anew(folder, self.lengths(), self.has_ends(), options)?;
        let all: u64 = self.shards.iter().map(|shard| shard.table().len()).sum();
        for shard in 0..options.shards {
            to.expect(shard, all / u64::from(options.shards))?;
            let mut piece = 0;
            while to.make_ready(shard, piece)? {
                piece += 1;
            }
        }
        let to = Mirror::begin(&self.hooks, to, |to, commit| write(to, commit.changes));
        Ok(Resharding { from: self, to, next: Some((0, 0)), copied: 0 })
    }
}

/// Makes changes of another store in this one.
pub(crate) fn write<G: Folder>(to: &RawStore<G>, changes: &[Change<'_>]) -> Result<()> {
    for change in changes {
        let forgets = planted::is(Fault::MirrorWithoutDeletes);
        match change {
            Change::Put(key, value) => drop(to.put(key, value, Durability::Memory)?),
            Change::Delete(key) if !forgets => drop(to.delete(key, Durability::Memory)?),
            Change::Delete(_) => {}
        }
    }
    Ok(())
}

impl<F: Folder, G: Folder + 'static> Resharding<'_, F, G> {
    /// Copies some more records, at least `records` if there are so many. True if all are copied.
    /// Writers of a shard wait for 256 of them at most.
    ///
    /// Example: see [`RawStore::reshard_into`].
    ///
    /// # Errors
    /// What either store says; then this one is to be dropped.
    pub fn advance(&mut self, records: u64) -> Result<bool> {
        let (key_len, _) = self.from.lengths();
        let wanted = self.copied.saturating_add(records);
        let mut chunk = Vec::new();
        while let Some((number, slot)) = self.next {
            self.to.check()?;
            let shard = &self.from.shards[number as usize];
            let log = (!planted::is(Fault::CopiedUnlocked)).then(|| shard.writer());
            chunk.clear();
            let (count, following) = shard.table().chunk(slot, RECORDS, &mut chunk)?;
            if planted::is(Fault::CopiedUnlocked) {
                std::thread::yield_now();
            }
            for record in chunk.chunks_exact(shard.table().record()) {
                let (key, value) = record[size_of::<u64>()..].split_at(key_len);
                self.to.to().put(key, value, Durability::Memory)?;
            }
            drop(log);
            self.copied += count as u64;
            let after = (number as usize + 1 < self.from.shards.len()).then_some((number + 1, 0));
            self.next = following.map(|slot| (number, slot)).or(after);
            if self.copied >= wanted {
                break;
            }
        }
        Ok(self.next.is_none())
    }

    /// How many records were copied; what was written meanwhile is not counted.
    ///
    /// ```
    /// # use mainstay_sim::Disk;
    /// # use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(Disk::new(1), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let mut resharding = store.reshard_into(Disk::new(2), &Options::default())?;
    /// resharding.advance(u64::MAX)?;
    /// assert_eq!(resharding.copied(), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Copies the rest, takes no more writes in the old store, and returns the new one, in which all
    /// is durable. Whoever writes to the old one meanwhile waits; afterwards it is told that it
    /// should use the new one, and can go on reading the old one.
    ///
    /// Example: see [`RawStore::reshard_into`].
    ///
    /// # Errors
    /// What either store says; then the old one takes writes as before.
    pub fn finish(mut self) -> Result<RawStore<G>> {
        self.advance(u64::MAX)?;
        let Self { from, to, .. } = self;
        to.take_place(&from.standing, || from.let_writers_end(), |to| to.sync().map(drop))
    }
}

#[cfg(test)]
mod tests;

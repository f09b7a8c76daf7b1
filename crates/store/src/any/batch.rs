//! Batches over several shards; how and why is told in [`crate::batch`].

use std::time::Duration;

use mainstay_storage::Folder;

use super::{
    format::{AnyHeader, Entry, write_part},
    parts::Parts,
    raw::RawLogStore,
    shard::{Shard, Store, Why, Writer},
};
use crate::{
    batch::{Member, Sharded, by_shard, write_batch},
    ends::end_in,
    error::Result,
    hooks::{Commit, Old},
    options::Token,
    shard::Change,
};

/// A shard that takes part.
struct OfAny<'a, F: Folder> {
    store: &'a RawLogStore<F>,
    shard: &'a Shard<F>,
    log: Writer<'a, F>,
    changes: Vec<Change<'a>>,
    /// When what they put ends; 0: never.
    end: u64,
    /// What they are about to replace.
    old: Vec<Old>,
    /// The bytes of its frame, if it gets no parts of others.
    bytes: u64,
}

impl<'a, F: Folder> Member for OfAny<'a, F> {
    type Shard = &'a Shard<F>;

    fn shard(&self) -> &'a Shard<F> {
        self.shard
    }

    fn make_ready(&mut self, parts: &[u8]) -> Result<()> {
        let entry = Entry { parts, ..Entry::new(&self.changes, self.end) };
        self.store.check_length(entry.changes_bytes())?;
        self.old = self.store.old_of(self.shard, &self.changes)?;
        (self.bytes, _) = self.shard.make_ready(self.store.store(), &mut self.log, &entry)?;
        Ok(())
    }

    fn write_part(&self, out: &mut Vec<u8>) {
        write_part((self.shard.number, self.log.sequence + 1), &self.changes, self.end, out);
    }

    fn is_durable(&self) -> bool {
        self.shard.group.durable() >= self.log.sequence
    }

    fn sync(&mut self) -> Result<()> {
        self.shard.sync_now(&self.log)
    }

    fn reserve(&mut self) -> Result<()> {
        self.shard.reserve(&self.log, self.bytes)
    }

    fn give_back(&mut self) {
        self.shard.give_back(&self.log);
    }

    fn append(&mut self, parts: &[u8]) -> Result<Token> {
        let entry = Entry { parts, ..Entry::new(&self.changes, self.end) };
        let sequence = self.shard.append(self.store.store(), &mut self.log, &entry, Why::New)?;
        let token = self.store.token(self.shard, sequence);
        let Self { changes, end, old, .. } = self;
        self.store.hooks.call(&Commit { token, changes, end: *end, old });
        self.store.tell();
        Ok(token)
    }
}

impl<F: Folder> Sharded for &Shard<F> {
    fn wait(self, sequence: u64) -> Result<()> {
        Shard::wait(self, sequence)
    }

    fn give_up(self, what: &str) {
        self.group.give_up(what);
    }
}

impl<F: Folder> RawLogStore<F> {
    /// Makes several changes at once, of whatever shards: after a crash all of them are there, or
    /// none. The batch is durable when this returns, with the write of each shard that has a part;
    /// all of them take no other writes meanwhile. It costs a sync or two a shard, so a batch that
    /// has keys of one shard only is better off with [`batch`](Self::batch). Its values are written
    /// twice, but for those of the first shard that has a part.
    ///
    /// Readers see the changes one after another, and a [snapshot](Self::snapshot) all of them or
    /// none.
    ///
    /// Over a failover it is not one batch: replicas get the changes of each shard by themselves, so a
    /// follower that is promoted, or read, may have a part of it, and a promoted one keeps it so. Wait
    /// for as many followers as may be promoted to have all of its tokens before you count on it
    /// (`Leading::wait_for` of `mainstay_replica::drive`), or have what must change together in one
    /// shard, by its first bits ([`LogOptions::shard_bits`](crate::LogOptions::shard_bits)), and change it by [`batch`](Self::batch).
    ///
    /// ```
    /// use mainstay_store::{Change, LogOptions, RawLogStore};
    /// let eight = LogOptions { shards: 8, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &eight)?;
    /// let names = ["Denmark", "France", "Italy", "Poland", "Spain"];
    /// let changes = names.map(|name| Change::Put(name.as_bytes(), b"in Europe"));
    /// let tokens = store.batch_across(&changes)?;
    /// assert!(tokens.len() > 1, "five keys are not of one shard");
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BatchTooLong`](crate::Error::BatchTooLong) if all its changes together do not fit
    /// into a segment, and as [`put`](Self::put). After [`Error::Poisoned`](crate::Error::Poisoned)
    /// the batch may be visible in part, and is there or not, as a whole, when the store is opened
    /// again; after the others nothing has changed.
    pub fn batch_across(&self, changes: &[Change<'_>]) -> Result<Vec<Token>> {
        self.batch_across_for(changes, None)
    }

    /// The same, and what it puts is there for so long, or for good.
    ///
    /// ```
    /// # use mainstay_store::{Change, LogOptions, RawLogStore};
    /// # use std::time::Duration;
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?
    ///     .with_clock(|| 0);
    /// let (one, other) = (Change::Put(b"de", b""), Change::Put(b"Denmark", b""));
    /// store.batch_across_for(&[one, other], Some(Duration::from_secs(5)))?;
    /// assert_eq!(store.left(b"de")?, Some(Some(Duration::from_secs(5))));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`batch_across`](Self::batch_across) and [`put_for`](Self::put_for).
    pub fn batch_across_for(
        &self,
        changes: &[Change<'_>],
        ttl: Option<Duration>,
    ) -> Result<Vec<Token>> {
        let end = end_in(ttl, self.now())?;
        let members = by_shard(changes, |change| {
            if let Change::Put(_, value) = change {
                Self::check_value(value)?;
            }
            self.shard(change.key())
        })?;
        let mut members = members.into_iter().map(|(number, changes)| {
            let shard = &self.shards[number as usize];
            OfAny {
                store: self,
                shard,
                log: shard.writer(),
                changes,
                end,
                old: Vec::new(),
                bytes: 0,
            }
        });
        let Some(home) = members.next() else { return Ok(Vec::new()) };
        let others = members.collect();
        self.standing.check_open()?;
        write_batch(home, others)
    }

    /// Makes what is missing of batches that count, durably. `found` are the parts in the last frame
    /// of each shard's log.
    pub(super) fn finish_batches(&self, found: &[Option<Parts>]) -> Result<()> {
        for (home, parts) in (0..).zip(found) {
            let Some(parts) = parts else { continue };
            let written = |shard: u32| Some(self.shards.get(shard as usize)?.writer().sequence);
            for part in parts.missing(&self.header, home, written)? {
                let shard = &self.shards[part.shard as usize];
                let mut log = shard.writer();
                // The epoch of the batch: it is the frame that it was to be.
                let header = AnyHeader { epoch: parts.epoch.into(), ..self.header };
                let store = Store { folder: self.store().folder, header: &header };
                let entry = Entry::new(&part.changes, part.end);
                shard.append(store, &mut log, &entry, Why::New)?;
                shard.sync_now(&log)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Batches over several shards: all of one, or nothing, whoever dies and whatever loses its power.
//!
//! The shard with the lowest number, the home of the batch, gets a frame that has its own changes
//! and, beside them, those of the other shards with the number of the frame each is to become. When
//! that frame is durable, the batch counts. An opening that finds it makes what is missing.
//!
//! All of it happens under the locks of the logs it writes to, taken in the order of the shards:
//!
//! 1. Whatever may be refused is refused, and room is made.
//! 2. The other logs are synced: a part must not be made behind a gap (A1).
//! 3. The frame of the home is written and synced. Here the batch begins to count.
//! 4. The other shards get their frames. Their locks are free again.
//! 5. Their frames are made durable. Only then may another frame follow that of the home, so that an
//!    opening has to look at the last frame of each log and at no other.
//!
//! An error from 3 on leaves the batch to the next opening: all its shards take no more writes until
//! then, since another one could take the place that the batch has named.

use std::collections::BTreeMap;

use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    options::Token,
    parts::{Parts, write_part},
    planted::{self, Fault},
    shard::{Change, Entry, Guard, Shard},
    store::RawStore,
};

/// A shard that takes part, with its changes and its lock.
struct Member<'a, F: Folder> {
    shard: &'a Shard<F>,
    log: Guard<'a, F>,
    changes: Vec<Change<'a>>,
}

impl<F: Folder> RawStore<F> {
    /// Makes several changes at once, of whatever shards: after a crash all of them are there, or
    /// none. The batch is durable when this returns, with the write of each shard that has a part;
    /// all of them take no other writes meanwhile. It costs a sync or two a shard, so a batch that
    /// has keys of one shard only is better off with [`batch`](Self::batch).
    ///
    /// Readers see the changes one after another. A replica gets those of a shard together, and
    /// those of two shards as they come.
    ///
    /// ```
    /// use mainstay_store::{Change, Options, RawStore};
    /// let eight = Options { shards: 8, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 1, &eight)?;
    /// store.batch_across(&[Change::Put(b"de", b"5"), Change::Put(b"fr", b"0")])?;
    /// let keys = [b"de", b"es", b"fr", b"it", b"pl"];
    /// let tokens = store.batch_across(&keys.map(|key| Change::Put(key, b"2")))?;
    /// assert!(tokens.len() > 1, "five keys are not of one shard");
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BatchTooLong`] if all its changes together do not fit into a segment, and as
    /// [`put`](Self::put). After [`Error::Poisoned`] the batch may be visible in part, and is there
    /// or not, as a whole, when the store is opened again; after the others nothing has changed.
    pub fn batch_across(&self, changes: &[Change<'_>]) -> Result<Vec<Token>> {
        let mut members: BTreeMap<u32, Vec<Change<'_>>> = BTreeMap::new();
        for change in changes {
            if let Change::Put(_, value) = change {
                self.check_value(value)?;
            }
            members.entry(self.shard(change.key())?).or_default().push(*change);
        }
        let lock = |(number, changes): (u32, Vec<_>)| {
            let shard = &self.shards[number as usize];
            Member { shard, log: shard.writer(), changes }
        };
        let mut members = members.into_iter().map(lock);
        let Some(home) = members.next() else { return Ok(Vec::new()) };
        let tokens = self.write_batch(home, members.collect())?;
        self.tell();
        Ok(tokens)
    }

    fn write_batch(
        &self,
        mut home: Member<'_, F>,
        mut others: Vec<Member<'_, F>>,
    ) -> Result<Vec<Token>> {
        self.check_open()?;
        let epoch = self.header.epoch.get();
        let mut parts = Vec::new();
        for Member { shard, log, changes } in &mut others {
            let entry = Entry { epoch, note: None, parts: &[], changes };
            shard.make_ready(&self.folder, &self.header, log, &entry)?;
            write_part((shard.number(), log.sequence + 1), changes, &mut parts);
        }
        if planted::is(Fault::BatchUnmarked) {
            parts.clear();
        }
        let entry = Entry { epoch, note: None, parts: &parts, changes: &home.changes };
        home.shard.make_ready(&self.folder, &self.header, &mut home.log, &entry)?;
        if !planted::is(Fault::BatchBehindGap) {
            for Member { shard, log, .. } in &mut others {
                if !shard.is_durable(log.sequence) {
                    shard.sync_now(log)?;
                }
            }
        }
        let shards = others.iter().map(|member| member.shard);
        let shards: Vec<&Shard<F>> = [home.shard].into_iter().chain(shards).collect();
        let written = self.write_parts(&mut home, others, &parts);
        if let Err(error) = &written
            && !planted::is(Fault::BatchForgotten)
        {
            let what = format!("a batch that it has a part of failed: {error}");
            shards.iter().for_each(|shard| shard.give_up(&what));
        }
        // The lock of the home is free only now: all is done, or nothing more will be.
        drop(home);
        written
    }

    /// Steps 3 to 5.
    fn write_parts(
        &self,
        home: &mut Member<'_, F>,
        others: Vec<Member<'_, F>>,
        parts: &[u8],
    ) -> Result<Vec<Token>> {
        let epoch = self.header.epoch.get();
        let append = |member: &mut Member<'_, F>, parts| {
            let entry = Entry { epoch, note: None, parts, changes: &member.changes };
            let sequence =
                member.shard.append(&self.folder, &self.header, &mut member.log, &entry)?;
            Ok(self.token(member.shard, sequence))
        };
        let mut tokens = vec![append(home, parts)?];
        if !planted::is(Fault::BatchUnsynced) {
            home.shard.sync_now(&mut home.log)?;
        }
        if planted::is(Fault::BatchLeftHalf) {
            return Err(Error::io("a batch")(std::io::ErrorKind::Interrupted.into()));
        }
        for mut member in others {
            tokens.push(append(&mut member, &[])?);
        }
        if !planted::is(Fault::BatchUnsettled) {
            for token in &tokens[1..] {
                self.shards[token.shard as usize].wait(token.sequence)?;
            }
        }
        Ok(tokens)
    }

    /// Makes what is missing of batches that count, durably. `found` are the parts in the last frame
    /// of each shard's log.
    pub(crate) fn finish_batches(&self, found: &[Option<Parts>]) -> Result<()> {
        for (home, parts) in (0..).zip(found) {
            let Some(parts) = parts else { continue };
            let written = |shard: u32| self.shards[shard as usize].written();
            for part in parts.missing(&self.header, home, written)? {
                let shard = &self.shards[part.shard as usize];
                let mut log = shard.writer();
                // The epoch of the batch: a replica may have this write already.
                let entry =
                    Entry { epoch: parts.epoch, note: None, parts: &[], changes: &part.changes };
                shard.append(&self.folder, &self.header, &mut log, &entry)?;
                shard.sync_now(&mut log)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

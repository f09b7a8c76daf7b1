//! Batches over several shards: all of one, or nothing, whoever dies and whatever loses its power.
//!
//! The shard with the lowest number, the home of the batch, gets a frame that has its own changes
//! and, beside them, those of the other shards with the number of the frame each is to become. When
//! that frame is durable, the batch counts. An opening that finds it makes what is missing.
//!
//! All of it happens under the locks of the logs it writes to, taken in the order of the shards:
//!
//! 1. Whatever may be refused is refused, and room is made.
//! 2. The other logs are synced: a part must not be made behind a gap (A1). And the disk is asked for
//!    the room of the parts, so that a full one refuses all of the batch.
//! 3. The frame of the home is written and synced. Here the batch begins to count.
//! 4. The other shards get their frames, and their locks are free again.
//! 5. Their frames are made durable. Only then may another frame follow that of the home, so that an
//!    opening has to look at the last frame of each log and at no other.
//!
//! An error from 3 on leaves the batch to the next opening: all its shards take no more writes until
//! then, since another one could take the place that the batch has named. They are told so while
//! their logs are locked, or who waits for one of these would be first. Where the frame of the home
//! finds no room nothing is named yet, and all go on.

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

/// A shard that takes part, of a store of either kind, with its changes and the lock of its log.
pub(crate) trait Member {
    /// What is left without the lock.
    type Shard: Sharded;
    fn shard(&self) -> Self::Shard;
    /// Refuses what may be refused of its frame, which has these parts of others, and makes room.
    fn make_ready(&mut self, parts: &[u8]) -> Result<()>;
    /// Appends its changes as the part that they are of a batch.
    fn write_part(&self, out: &mut Vec<u8>);
    /// Is all of its log durable?
    fn is_durable(&self) -> bool;
    fn sync(&mut self) -> Result<()>;
    /// Makes sure that the disk has room for its frame.
    fn reserve(&mut self) -> Result<()>;
    /// Gives back the room for a frame that is not written.
    fn give_back(&mut self);
    fn append(&mut self, parts: &[u8]) -> Result<Token>;
}

/// A shard whose log others may write to.
pub(crate) trait Sharded: Copy {
    fn wait(self, sequence: u64) -> Result<()>;
    /// Takes no more writes.
    fn give_up(self, what: &str);
}

/// Writes a batch: `home` is of the shard with the lowest number.
pub(crate) fn write_batch<M: Member>(mut home: M, mut others: Vec<M>) -> Result<Vec<Token>> {
    let mut parts = Vec::new();
    for member in &mut others {
        member.make_ready(&[])?;
        member.write_part(&mut parts);
    }
    if planted::is(Fault::BatchUnmarked) {
        parts.clear();
    }
    home.make_ready(&parts)?;
    if !planted::is(Fault::BatchBehindGap) {
        for member in &mut others {
            if !member.is_durable() {
                member.sync()?;
            }
        }
    }
    if !planted::is(Fault::BatchUnreserved)
        && let Err(error) = others.iter_mut().try_for_each(Member::reserve)
    {
        others.iter_mut().for_each(Member::give_back);
        return Err(error);
    }
    let shards: Vec<_> = others.iter().map(Member::shard).collect();
    let mut is_begun = false;
    let written = write_parts(&mut home, &mut others, &parts, &mut is_begun);
    let give_up = |error: &Error| {
        // Refused for want of room before anything was written, it is nowhere.
        let is_nowhere = !is_begun && error.is_full();
        if !is_nowhere && !planted::is(Fault::BatchForgotten) {
            let what = format!("a batch that it has a part of failed: {error}");
            shards.iter().chain([&home.shard()]).for_each(|shard| shard.give_up(&what));
        }
    };
    if written.is_err() && !is_begun {
        others.iter_mut().for_each(Member::give_back);
    }
    if written.is_err() && planted::is(Fault::BatchUnlockedEarly) {
        others.clear();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Under all locks: whoever waits for one would take the place that the batch has named.
    let tokens = written.inspect_err(give_up)?;
    drop(others);
    if !planted::is(Fault::BatchUnsettled) {
        let mut parts = shards.iter().zip(&tokens[1..]);
        parts.try_for_each(|(shard, token)| shard.wait(token.sequence)).inspect_err(give_up)?;
    }
    // The lock of the home is free only now: all is done, or nothing more will be.
    drop(home);
    Ok(tokens)
}

/// Steps 3 and 4.
fn write_parts<M: Member>(
    home: &mut M,
    others: &mut [M],
    parts: &[u8],
    is_begun: &mut bool,
) -> Result<Vec<Token>> {
    let mut tokens = vec![home.append(parts)?];
    *is_begun = true;
    if !planted::is(Fault::BatchUnsynced) {
        home.sync()?;
    }
    if planted::is(Fault::BatchLeftHalf) {
        return Err(Error::io("a batch")(std::io::ErrorKind::Interrupted.into()));
    }
    for member in others {
        tokens.push(member.append(&[])?);
    }
    Ok(tokens)
}

/// The changes of each shard.
pub(crate) fn by_shard<'a>(
    changes: &[Change<'a>],
    shard_of: impl Fn(&Change<'a>) -> Result<u32>,
) -> Result<BTreeMap<u32, Vec<Change<'a>>>> {
    let mut members: BTreeMap<u32, Vec<Change<'_>>> = BTreeMap::new();
    for change in changes {
        members.entry(shard_of(change)?).or_default().push(*change);
    }
    Ok(members)
}

/// A shard of fixed sizes that takes part.
struct OfFixed<'a, F: Folder> {
    store: &'a RawStore<F>,
    shard: &'a Shard<F>,
    log: Guard<'a, F>,
    changes: Vec<Change<'a>>,
}

impl<'a, F: Folder> Member for OfFixed<'a, F> {
    type Shard = &'a Shard<F>;

    fn shard(&self) -> &'a Shard<F> {
        self.shard
    }

    fn make_ready(&mut self, parts: &[u8]) -> Result<()> {
        let Self { store, shard, log, changes } = self;
        let entry = Entry { epoch: store.header.epoch.get(), note: None, parts, changes };
        shard.make_ready(&store.folder, &store.header, log, &entry)
    }

    fn write_part(&self, out: &mut Vec<u8>) {
        write_part((self.shard.number(), self.log.sequence + 1), &self.changes, out);
    }

    fn is_durable(&self) -> bool {
        self.shard.is_durable(self.log.sequence)
    }

    fn sync(&mut self) -> Result<()> {
        self.shard.sync_now(&mut self.log)
    }

    /// Its segment was made as long as it gets, and the records have their slots.
    fn reserve(&mut self) -> Result<()> {
        Ok(())
    }

    fn give_back(&mut self) {}

    fn append(&mut self, parts: &[u8]) -> Result<Token> {
        let Self { store, shard, log, changes } = self;
        let entry = Entry { epoch: store.header.epoch.get(), note: None, parts, changes };
        let sequence = shard.append(&store.folder, &store.header, log, &entry)?;
        Ok(store.token(shard, sequence))
    }
}

impl<F: Folder> Sharded for &Shard<F> {
    fn wait(self, sequence: u64) -> Result<()> {
        Shard::wait(self, sequence)
    }

    fn give_up(self, what: &str) {
        Shard::give_up(self, what);
    }
}

impl<F: Folder> RawStore<F> {
    /// Makes several changes at once, of whatever shards: after a crash all of them are there, or
    /// none. The batch is durable when this returns, with the write of each shard that has a part;
    /// all of them take no other writes meanwhile. It costs a sync or two a shard, so a batch that
    /// has keys of one shard only is better off with [`batch`](Self::batch).
    ///
    /// Readers see the changes one after another.
    ///
    /// Over a failover it is not one batch: replicas get the changes of each shard by themselves, so a
    /// follower that is promoted, or read, may have a part of it, and a promoted one keeps it so. Wait
    /// for as many followers as may be promoted to have all of its tokens before you count on it
    /// (`Leading::wait_for` of `mainstay_replica::drive`), or have what must change together in one
    /// shard, by its first bits ([`Options::shard_bits`](crate::Options::shard_bits)), and change it by [`batch`](Self::batch).
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
        let members = by_shard(changes, |change| {
            if let Change::Put(_, value) = change {
                self.check_value(value)?;
            }
            self.shard(change.key())
        })?;
        let mut members = members.into_iter().map(|(number, changes)| {
            let shard = &self.shards[number as usize];
            OfFixed { store: self, shard, log: shard.writer(), changes }
        });
        let Some(home) = members.next() else { return Ok(Vec::new()) };
        let others = members.collect();
        self.standing.check_open()?;
        let tokens = write_batch(home, others)?;
        self.tell();
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
pub(crate) mod full;
#[cfg(test)]
pub(crate) mod histories;
#[cfg(test)]
pub(crate) mod refused;
#[cfg(test)]
mod tests;

//! Being a replica, as [`crate::RawStore`] can be one: the leader's writes and nothing else, at the
//! leader's places in the history.

use std::sync::Arc;

use mainstay_storage::Folder;

use super::{
    format::{Ends, Entry, NOTE_BYTES, Past, records_of},
    options::LogOptions,
    raw::RawLogStore,
    scan::LogScan,
    shard::{Shard, Why},
};
use crate::{
    aside::set_aside,
    error::{Error, Result},
    follow::Identity,
    format::{DATA_AT, FRAME_LEN},
    history::{History, Position},
    hooks::{Commit, Hook},
    options::Token,
    rank::Role,
    shard::Change,
};

impl<F: Folder> RawLogStore<F> {
    /// Makes an empty replica of a store; it has the shards of the other, whatever `options` say.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Durability::Memory, Error, Identity, LogOptions, RawLogStore, Role};
    /// let options = LogOptions::default();
    /// let leader = RawLogStore::create(Disk::new(1), &options)?;
    /// assert_eq!(leader.identity().key_len, Identity::ANY);
    /// let replica = RawLogStore::create_replica(Disk::new(2), &leader.identity(), &options)?;
    /// assert_eq!(replica.role(), Role::Follower);
    /// assert!(matches!(replica.put(b"de", b"49", Memory), Err(Error::Follows)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherKind`] for a store of fixed sizes, and as [`RawLogStore::create`].
    pub fn create_replica(folder: F, of: &Identity, options: &LogOptions) -> Result<Self> {
        if !of.is_any() {
            return Err(Error::OtherKind { is: "keys and values of fixed sizes" });
        }
        let options =
            LogOptions { shards: of.shards, shard_bits: of.shard_bits, ..options.clone() };
        Self::create_as(folder, of.id, Role::Follower, &options)
    }

    /// How many bytes the changes of one write may have, and so of one of its leader's: as they are
    /// in the log, which are some more than their keys and values. A longer one is refused with
    /// [`Error::BatchTooLong`].
    ///
    /// ```
    /// use mainstay_store::{LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// assert!(store.write_bytes_max() < LogOptions::default().segment_bytes);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn write_bytes_max(&self) -> u64 {
        // Segments have at least 16 KiB.
        self.header.segment_bytes.get() - DATA_AT - (FRAME_LEN as u64 + NOTE_BYTES + 7)
    }

    /// What it has in common with its replicas.
    ///
    /// Example: see [`RawLogStore::create_replica`].
    #[must_use]
    pub fn identity(&self) -> Identity {
        let shards = self.shards.len() as u32;
        let (id, any) = (self.header.id, Identity::ANY);
        // Each record says by itself whether it ends.
        let shard_bits = self.header.shard_bits.get();
        Identity { id, key_len: any, value_len: any, shards, shard_bits, has_ends: false }
    }

    /// Whose writes it takes.
    ///
    /// Example: see [`RawLogStore::create_replica`].
    #[must_use]
    pub fn role(&self) -> Role {
        self.standing.rank().role
    }

    /// The epoch of its own writes; it began when the store was opened or promoted.
    ///
    /// Example: see [`RawLogStore::promote`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.header.epoch.get()
    }

    /// The highest epoch of a leader that it knows of, itself included if it is one.
    ///
    /// Example: see [`RawLogStore::fence`].
    #[must_use]
    pub fn known_epoch(&self) -> u64 {
        self.standing.rank().known()
    }

    /// Learns, durably, that there is a leader of this epoch. A leader that hears of a higher epoch
    /// than its own takes no more writes, and is a follower from then on.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Error, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.fence(store.epoch() + 1)?;
    /// assert!(matches!(store.put(b"de", b"49", Memory), Err(Error::Replaced { .. })));
    /// assert_eq!(store.known_epoch(), store.epoch() + 1);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// What the disk says; a leader takes no more writes nevertheless.
    pub fn fence(&self, epoch: u64) -> Result<()> {
        self.standing.fence(&self.folder, epoch, || self.let_writers_end())
    }

    /// Has it had all that its leader had, and is it not on its way to something else since? A replica
    /// that was just made is not whole: before it has caught up for the first time nobody can tell what
    /// it lacks. Neither is one that takes a part of its records from elsewhere than the log, or whose
    /// shards are to be brought to one moment together. A leader is whole.
    ///
    /// Example: see [`set_whole`](Self::set_whole).
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.standing.rank().is_whole
    }

    /// Notes durably of a follower whether it is whole: whoever brings it up to date says so, when all
    /// that was written is durable. What is not is neither promoted, nor restored, nor looked at.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Error, LogOptions, RawLogStore};
    /// let options = LogOptions::default();
    /// let leader = RawLogStore::create(Disk::new(1), &options)?;
    /// let replica = RawLogStore::create_replica(Disk::new(2), &leader.identity(), &options)?;
    /// assert!(!replica.is_whole());
    /// // The leader has nothing, so this is all.
    /// replica.set_whole(true)?;
    /// replica.promote(4711)?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Leads`]; [`Error::Mending`] if a shard is not as a write left it; what the disk says.
    pub fn set_whole(&self, is_whole: bool) -> Result<()> {
        let places = self.shards.iter().map(|shard| (shard.number, shard.history()));
        self.standing.set_whole(&self.folder, is_whole, places)
    }

    /// The store as a follower, from now on and when it is opened again.
    ///
    /// ```
    /// use mainstay_store::{LogOptions, RawLogStore, Role};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// assert_eq!(store.demote()?.role(), Role::Follower);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    pub fn demote(mut self) -> Result<Self> {
        self.demote_here()?;
        Ok(self)
    }

    pub(crate) fn demote_here(&mut self) -> Result<()> {
        self.header = self.standing.demote(&self.folder)?;
        Ok(())
    }

    /// The store as the leader, with an epoch above all that it knows of; see
    /// [`RawStore::promote`](crate::RawStore::promote).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let (store, before) = (store.demote()?, 1);
    /// let store = store.promote(4711)?;
    /// assert!(store.epoch() > before);
    /// store.put(b"de", b"49", Memory)?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mending`] and [`Error::NotWhole`] for a replica that is catching up, see
    /// [`set_whole`](Self::set_whole); [`Error::OutOfLimits`] after 65,534 promotions; what the disk says.
    pub fn promote(self, drawn: u16) -> Result<Self> {
        self.promote_above(0, drawn)
    }

    /// The same, with an epoch above one of a leader that this store has not heard of. Where that is
    /// refused, nothing has changed.
    ///
    /// ```
    /// use mainstay_store::{LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let store = store.demote()?.promote_above(7 << 48, 4711)?;
    /// assert!(store.epoch() > 7 << 48);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`promote`](Self::promote).
    pub fn promote_above(mut self, known: u64, drawn: u16) -> Result<Self> {
        self.promote_here(known, drawn)?;
        Ok(self)
    }

    pub(crate) fn promote_here(&mut self, known: u64, drawn: u16) -> Result<()> {
        let places = self.shards.iter().map(|shard| (shard.number, shard.history()));
        self.header = self.standing.promote(&self.folder, (known, drawn), places)?;
        Ok(())
    }

    /// Whoever got in before has written when all locks were free once.
    pub(super) fn let_writers_end(&self) {
        self.shards.iter().for_each(|shard| drop(shard.writer()));
    }

    /// Has a replica room for a write of so many bytes, also when it comes there by comparing?
    pub(super) fn check_length(&self, bytes: u64) -> Result<()> {
        let max = self.write_bytes_max();
        if bytes <= max { Ok(()) } else { Err(Error::BatchTooLong { bytes, max }) }
    }

    pub(super) fn shard_at(&self, shard: u32) -> Result<&Shard<F>> {
        let (value, must) = (u64::from(shard), "one of the store's");
        let found = self.shards.get(shard as usize);
        found.ok_or(Error::OutOfLimits { what: "the number of the shard", value, must })
    }

    /// Where a shard is in its history.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, History, LogOptions, Position, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// assert_eq!(store.history(0)?, History::At(Position::START));
    /// let token = store.put(b"de", b"49", Memory)?;
    /// assert_eq!(store.history(token.shard)?.position().unwrap().sequence, 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn history(&self, shard: u32) -> Result<History> {
        Ok(self.shard_at(shard)?.history())
    }

    /// Which write of its shard's history the write of a token is: that is what followers count. The
    /// log has more than the history: what compaction moves is a frame of it, too. Where some of that
    /// stands between, this is a later write that is there already, so whoever waits for it waits for
    /// the one of the token.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let token = store.put(b"de", b"49", Memory)?;
    /// store.put(b"de", b"49", Memory)?;
    /// assert_eq!(store.sequence_of(token)?, 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherEpoch`] for a token from before the store was opened; [`Error::Mending`].
    pub fn sequence_of(&self, token: Token) -> Result<u64> {
        let shard = self.shard_of_token(token)?;
        let log = shard.writer();
        let Some(Past { history: History::At(tip), since }) = log.past else {
            return Err(Error::Mending { shard: token.shard });
        };
        let mut sequence = tip.sequence;
        for segment in shard.index().segments.values().rev() {
            let origin = segment.origin.filter(|past| past.since == since);
            if let Some(origin) = origin.and_then(|past| past.history.position()) {
                // Each frame is one write of the history at most.
                let frames = (token.sequence + 1).saturating_sub(segment.first);
                sequence = sequence.min(origin.sequence + frames);
            }
            if segment.first <= token.sequence {
                break;
            }
        }
        Ok(sequence)
    }

    /// How many records a shard has.
    ///
    /// ```
    /// use mainstay_store::{LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// assert_eq!(store.records(0)?, 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn records(&self, shard: u32) -> Result<u64> {
        Ok(self.shard_at(shard)?.index().len())
    }

    /// Makes a write of the leader, as it is in its log, the next one here, in memory as
    /// [`Durability::Memory`](crate::Durability::Memory) does. Returns where it led.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Found, LogOptions, Position, RawLogStore};
    /// use mainstay_sim::Disk;
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let leader = RawLogStore::create(Disk::new(1), &one)?;
    /// let replica = RawLogStore::create_replica(Disk::new(2), &leader.identity(), &one)?;
    /// leader.put(b"de", b"Deutschland", Memory)?;
    /// let Found::Here(mut tail) = leader.tail(0, Position::START)? else { panic!() };
    /// let mut there = None;
    /// leader.read_tail(&mut tail, 1000, |write| {
    ///     there = replica.apply(0, write.position.epoch, write.count, write.changes).ok();
    /// })?;
    /// assert_eq!(there, leader.history(0)?.position());
    /// assert_eq!(replica.get(b"de")?.as_deref(), Some(&b"Deutschland"[..]));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Leads`], [`Error::Mending`], [`Error::Foreign`] if the bytes are not changes of
    /// this shard or none at all, and as [`RawLogStore::put`].
    pub fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        let foreign = |what| Error::Foreign { shard, what };
        let (changes, ends) =
            records_of(count, changes).ok_or_else(|| foreign("it is not made of changes"))?;
        if changes.is_empty() {
            return Err(foreign("it has no changes"));
        }
        self.check_changes(shard, &changes)?;
        let ends = Ends::Each(&ends);
        let entry = Entry { ends, epoch: Some(epoch), ..Entry::new(&changes, 0) };
        let after = self.take(shard, &entry, |now| now.position().is_some())?;
        after.position().ok_or(Error::Mending { shard })
    }

    /// Writes what is not of its own; `may` says whether that can be where the shard is now.
    fn take(
        &self,
        shard: u32,
        entry: &Entry<'_>,
        may: impl FnOnce(History) -> bool,
    ) -> Result<History> {
        let at = self.shard_at(shard)?;
        self.standing.check_follows()?;
        let mut log = at.writer();
        if !may(log.history()) {
            return Err(Error::Mending { shard });
        }
        let old = self.old_of(at, entry.changes)?;
        let sequence = at.append(self.store(), &mut log, entry, Why::New)?;
        let token = Token { epoch: self.epoch(), shard, sequence };
        if !entry.changes.is_empty() {
            // Each has its own; they are for a mirror, and none is made of a follower.
            self.hooks.call(&Commit { token, changes: entry.changes, end: 0, old: &old });
        }
        Ok(log.history())
    }

    fn check_changes(&self, shard: u32, changes: &[Change<'_>]) -> Result<()> {
        if !self.header.route().leads_to(shard, changes) {
            return Err(Error::Foreign { shard, what: "a key belongs to another shard" });
        }
        Ok(())
    }

    /// Makes changes of a replica that catches up by comparing records, which are no write of their
    /// own, and says where the shard is after them. What they put ends at `ends`, one for each; 0:
    /// never.
    ///
    /// ```
    /// use mainstay_store::{Change, History, LogOptions, Position, RawLogStore};
    /// use mainstay_sim::Disk;
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let leader = RawLogStore::create(Disk::new(1), &one)?;
    /// let replica = RawLogStore::create_replica(Disk::new(2), &leader.identity(), &one)?;
    /// let mending = History::Mending(Position::START);
    /// replica.mend(0, &[Change::Put(b"de", b"49")], &[0], mending)?;
    /// assert_eq!(replica.history(0)?, mending);
    /// let there = History::At(Position { epoch: 3, sequence: 70, sum: 0x5eed });
    /// replica.mend(0, &[], &[], there)?;
    /// assert_eq!(replica.history(0)?, there);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::apply`].
    pub fn mend(
        &self,
        shard: u32,
        changes: &[Change<'_>],
        ends: &[u64],
        then: History,
    ) -> Result<()> {
        self.check_changes(shard, changes)?;
        let ends = Ends::Each(ends);
        let entry = Entry { ends, note: Some(then), ..Entry::new(changes, 0) };
        self.take(shard, &entry, |_| true).map(drop)
    }

    /// The record of a key as it is in the log, whether it has ended or not.
    ///
    /// ```
    /// use mainstay_store::{Change, Durability::Memory, LogOptions, RawLogStore, read_records};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"49", Memory)?;
    /// let record = store.record(b"de")?.unwrap();
    /// let there = read_records(&record, 1).unwrap();
    /// assert_eq!(there, [(Change::Put(b"de", b"49"), 0)]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::get`].
    pub fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let shard = self.shard_of(key)?;
        let found = shard.find(&shard.index(), key, 0)?;
        found.map(|found| shard.whole(key.len(), found)).transpose()
    }

    /// Shows records of a shard as they are in the log, those whose keys are wanted, whether they
    /// have ended or not, until some `max` of records or bytes are shown; says whether there are
    /// more. All of them are those of the moment at which `scan` was begun, in the order in which
    /// they are on the disk, past the cache.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, LogScan, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let shard = store.put(b"de", b"49", Memory)?.shard;
    /// let mut scan = LogScan::default();
    /// let show = |key: &[u8], _record: &[u8]| assert_eq!(key, b"de");
    /// let is_more = store.scan(shard, &mut scan, (10, 1000), |_| true, show)?;
    /// assert!(!is_more);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard, and as [`RawLogStore::get`].
    pub fn scan(
        &self,
        shard: u32,
        scan: &mut LogScan<F>,
        max: (usize, u64),
        wanted: impl Fn(&[u8]) -> bool,
        show: impl FnMut(&[u8], &[u8]),
    ) -> Result<bool> {
        self.shard_at(shard)?.scan(scan, max, wanted, show)
    }

    /// Keeps, durably, records that the replica is about to lose because its leader does not have
    /// them; see [`RawStore::set_aside`](crate::RawStore::set_aside). Each is as it is in the log.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, Position, RawLogStore};
    /// let disk = mainstay_sim::Disk::new(7);
    /// let store = RawLogStore::create(disk.clone(), &LogOptions::default())?;
    /// store.put(b"de", b"49", Memory)?;
    /// let record = store.record(b"de")?.unwrap();
    /// store.set_aside(0, Position::START, [&record[..]])?;
    /// assert!(disk.names().iter().any(|name| name == "aside-0000-0-0"));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Foreign`] for what is no record; what the disk says.
    pub fn set_aside<'a>(
        &self,
        shard: u32,
        from: Position,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<()> {
        let mut kept = Vec::new();
        for record in records {
            match records_of(1, record).as_ref().map(|(changes, ends)| (&**changes, &**ends)) {
                Some((&[Change::Put(key, value)], &[end])) => kept.push((key, value, end)),
                _ => return Err(Error::Foreign { shard, what: "it is no record" }),
            }
        }
        set_aside(&self.folder, shard, from, kept)
    }

    /// Makes all that was written before durable, and says so in the log, so that damage of the last
    /// writes is told, and the next opening reads no values.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let token = store.put(b"de", b"49", Memory)?;
    /// store.vouch()?;
    /// assert!(store.is_durable(token)?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawLogStore::close`].
    pub fn vouch(&self) -> Result<()> {
        self.finish()
    }

    /// Has `notify` called after each local write, by the thread that writes, until what is returned
    /// is dropped. Unlike [`on_commit`](Self::on_commit) it is called when others can write again,
    /// and is not told what was written: it wakes who reads the log, as who leads followers does.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let count = Arc::new(AtomicU32::new(0));
    /// let seen = Arc::clone(&count);
    /// let one = store.on_write(move || drop(seen.fetch_add(1, Relaxed)));
    /// let seen = Arc::clone(&count);
    /// let other = store.on_write(move || drop(seen.fetch_add(10, Relaxed)));
    /// store.put(b"de", b"49", Memory)?;
    /// assert_eq!(count.load(Relaxed), 11);
    /// drop(one);
    /// store.delete(b"de", Memory)?;
    /// assert_eq!(count.load(Relaxed), 21);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn on_write(&self, notify: impl Fn() + Send + Sync + 'static) -> Hook {
        self.notify.add(Arc::new(notify))
    }

    /// Calls whoever is to hear of writes.
    pub(super) fn tell(&self) {
        self.notify.wake();
    }
}

impl<F: Folder> Shard<F> {
    pub(super) fn history(&self) -> History {
        self.writer().history()
    }
}

#[cfg(test)]
mod tests;

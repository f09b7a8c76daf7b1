//! Being a replica: the leader's writes and nothing else, at the leader's places in the history.

use std::sync::Arc;

use mainstay_storage::Folder;

use crate::{
    aside::set_aside,
    error::{Error, Result},
    expiring::split_end,
    format::{DATA_AT, FRAME_LEN, HISTORY_LEN},
    history::{History, Position, read_changes},
    hooks::Hook,
    limits::EXPECTED_MAX,
    options::{Options, Token},
    rank::Role,
    shard::{Change, Entry},
    store::RawStore,
};

/// What all replicas of a store have in common.
///
/// Example: see [`RawStore::create_replica`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the first of them was created.
    pub id: [u8; 16],
    /// Bytes of a key, or [`Identity::ANY`].
    pub key_len: usize,
    /// Bytes of a value, or [`Identity::ANY`].
    pub value_len: usize,
    /// How many shards.
    pub shards: u32,
    /// How many bits of a key choose its shard; 0: all. See
    /// [`Options::shard_bits`](crate::Options::shard_bits).
    pub shard_bits: u32,
    /// Do values begin with the time at which the record ends? See [`RawExpiring`](crate::RawExpiring).
    pub has_ends: bool,
}

impl Identity {
    /// The length of keys and values of a [`RawLogStore`](crate::RawLogStore): any.
    ///
    /// Example: see [`RawLogStore::create_replica`](crate::RawLogStore::create_replica).
    pub const ANY: usize = u32::MAX as usize;

    /// Are its keys and values of any size?
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// assert!(!store.identity().is_any());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.key_len == Self::ANY
    }
}

impl<F: Folder> RawStore<F> {
    /// Makes an empty replica of a store; it has the shards of the other, whatever `options` say.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Durability::Memory, Error, Options, RawStore, Role};
    /// let options = Options::default();
    /// let leader = RawStore::create(Disk::new(1), 2, 3, &options)?;
    /// let replica = RawStore::create_replica(Disk::new(2), &leader.identity(), &options)?;
    /// assert_eq!(replica.role(), Role::Follower);
    /// assert!(matches!(replica.put(b"de", b"049", Memory), Err(Error::Follows)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::create`].
    pub fn create_replica(folder: F, of: &Identity, options: &Options) -> Result<Self> {
        let options = Options { shards: of.shards, ..options.clone() };
        Self::create_as(folder, of, Role::Follower, &options)
    }

    /// How many bytes the changes of one write may have, and so of one of its leader's.
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// assert!(store.write_bytes_max() < Options::default().segment_bytes);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn write_bytes_max(&self) -> u64 {
        // Segments have at least 16 KiB.
        self.header.segment_bytes.get() - DATA_AT - (FRAME_LEN + 1 + HISTORY_LEN + 7) as u64
    }

    /// What it has in common with its replicas.
    ///
    /// Example: see [`RawStore::create_replica`].
    #[must_use]
    pub fn identity(&self) -> Identity {
        let (key_len, value_len) = self.lengths();
        let (id, shards) = (self.header.id, self.shards.len() as u32);
        let shard_bits = self.header.shard_bits.get();
        Identity { id, key_len, value_len, shards, shard_bits, has_ends: self.has_ends() }
    }

    /// Whose writes it takes.
    ///
    /// Example: see [`RawStore::create_replica`].
    #[must_use]
    pub fn role(&self) -> Role {
        self.standing.rank().role
    }

    /// The epoch of its own writes; it began when the store was opened or promoted.
    ///
    /// Example: see [`RawStore::promote`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.header.epoch.get()
    }

    /// The highest epoch of a leader that it knows of, itself included if it is one.
    ///
    /// Example: see [`RawStore::fence`].
    #[must_use]
    pub fn known_epoch(&self) -> u64 {
        self.standing.rank().known()
    }

    /// Learns, durably, that there is a leader of this epoch. A leader that hears of a higher epoch
    /// than its own takes no more writes, and is a follower from then on.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Error, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.fence(store.epoch() + 1)?;
    /// assert!(matches!(store.put(b"de", b"049", Memory), Err(Error::Replaced { .. })));
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
    /// use mainstay_store::{Error, Options, RawStore};
    /// let options = Options::default();
    /// let leader = RawStore::create(Disk::new(1), 2, 3, &options)?;
    /// let disk = Disk::new(2);
    /// let replica = RawStore::create_replica(disk.clone(), &leader.identity(), &options)?;
    /// assert!(!replica.is_whole());
    /// assert!(matches!(replica.promote(4711), Err(Error::NotWhole)));
    ///
    /// let replica = RawStore::open(disk, &options)?;
    /// // The leader has nothing, so this is all.
    /// replica.set_whole(true)?;
    /// replica.promote(4711)?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Leads`]; [`Error::Mending`] if a shard is not as a write left it; what the disk says.
    pub fn set_whole(&self, is_whole: bool) -> Result<()> {
        let places = self.shards.iter().map(|shard| (shard.number(), shard.history()));
        self.standing.set_whole(&self.folder, is_whole, places)
    }

    /// The store as a follower, from now on and when it is opened again.
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore, Role};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
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

    /// The store as the leader, with an epoch above all that it knows of: it is durable before the
    /// first write. `drawn` is a random number: of two that are promoted at the same time, the
    /// higher one is followed.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let (store, before) = (store.demote()?, 1);
    /// let store = store.promote(4711)?;
    /// assert!(store.epoch() > before);
    /// store.put(b"de", b"049", Memory)?;
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
    /// use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
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
        let places = self.shards.iter().map(|shard| (shard.number(), shard.history()));
        self.header = self.standing.promote(&self.folder, (known, drawn), places)?;
        Ok(())
    }

    /// Whoever got in before has written when all locks were free once.
    pub(crate) fn let_writers_end(&self) {
        self.shards.iter().for_each(|shard| drop(shard.writer()));
    }

    /// Where a shard is in its history.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, History, Options, Position, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// assert_eq!(store.history(0)?, History::At(Position::START));
    /// let token = store.put(b"de", b"049", Memory)?;
    /// let History::At(position) = store.history(token.shard)? else { panic!() };
    /// assert_eq!(position.sequence, 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn history(&self, shard: u32) -> Result<History> {
        Ok(self.shard_at(shard)?.history())
    }

    /// Which write of its shard's history the write of a token is: that is what followers count. The
    /// log of a store that has followed itself has more than the history.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let token = store.put(b"de", b"049", Memory)?;
    /// store.put(b"de", b"049", Memory)?;
    /// assert_eq!(store.sequence_of(token)?, 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OtherEpoch`] for a token from before the store was opened; [`Error::Mending`].
    pub fn sequence_of(&self, token: Token) -> Result<u64> {
        let shard = self.shard_of_token(token)?;
        let log = shard.writer();
        let position = log.history.position().ok_or(Error::Mending { shard: token.shard })?;
        Ok(position.sequence.saturating_sub(log.sequence.saturating_sub(token.sequence)))
    }

    /// Makes a write of the leader, as it is in its log, the next one here, in memory as
    /// [`Durability::Memory`](crate::Durability::Memory) does. Returns where it led.
    ///
    /// ```
    /// use mainstay_store::{Change, Options, Position, RawStore, write_changes};
    /// use mainstay_sim::Disk;
    /// let one = Options { shards: 1, ..Options::default() };
    /// let leader = RawStore::create(Disk::new(1), 2, 3, &one)?;
    /// let replica = RawStore::create_replica(Disk::new(2), &leader.identity(), &one)?;
    /// let mut changes = Vec::new();
    /// write_changes(&[Change::Put(b"de", b"049")], &mut changes);
    /// let position = replica.apply(0, 1, 1, &changes)?;
    /// assert_eq!(position, Position::START.after(1, &changes));
    /// assert_eq!(replica.get(b"de")?, Some(b"049".to_vec()));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Leads`], [`Error::Mending`], [`Error::Foreign`] if the bytes are not changes of
    /// this shard, and as [`RawStore::put`].
    pub fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        let at = self.shard_at(shard)?;
        let found = self.parse(shard, count, changes)?;
        self.standing.check_follows()?;
        let mut log = at.writer();
        if log.history.position().is_none() {
            return Err(Error::Mending { shard });
        }
        let entry = Entry { epoch, note: None, parts: &[], changes: &found };
        at.append(&self.folder, &self.header, &mut log, &entry)?;
        // It was at a position, so it is at the next one.
        log.history.position().ok_or(Error::Mending { shard })
    }

    fn parse<'a>(&self, shard: u32, count: u32, changes: &'a [u8]) -> Result<Vec<Change<'a>>> {
        let mut found = Vec::new();
        let used = read_changes(changes, count, self.lengths(), |change| found.push(change));
        if used != Some(changes.len()) {
            return Err(Error::Foreign { shard, what: "it is not made of changes" });
        }
        self.check_changes(shard, &found)?;
        Ok(found)
    }

    fn check_changes(&self, shard: u32, changes: &[Change<'_>]) -> Result<()> {
        for change in changes {
            if self.shard(change.key())? != shard {
                return Err(Error::Foreign { shard, what: "a key belongs to another shard" });
            }
            if let Change::Put(_, value) = change
                && value.len() != self.lengths().1
            {
                return Err(Error::Foreign { shard, what: "a value has another length" });
            }
        }
        Ok(())
    }

    /// Makes changes of a replica that catches up by comparing records, which are no write of their
    /// own, and says where the shard is after them.
    ///
    /// ```
    /// use mainstay_store::{Change, History, Options, Position, RawStore};
    /// use mainstay_sim::Disk;
    /// let one = Options { shards: 1, ..Options::default() };
    /// let leader = RawStore::create(Disk::new(1), 2, 3, &one)?;
    /// let replica = RawStore::create_replica(Disk::new(2), &leader.identity(), &one)?;
    /// let mending = History::Mending(Position::START);
    /// replica.mend(0, &[Change::Put(b"de", b"049")], mending)?;
    /// assert_eq!(replica.history(0)?, mending);
    /// let there = History::At(Position { epoch: 3, sequence: 70, sum: 0x5eed });
    /// replica.mend(0, &[], there)?;
    /// assert_eq!(replica.history(0)?, there);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::apply`].
    pub fn mend(&self, shard: u32, changes: &[Change<'_>], then: History) -> Result<()> {
        let at = self.shard_at(shard)?;
        self.check_changes(shard, changes)?;
        self.standing.check_follows()?;
        let mut log = at.writer();
        let entry = Entry { epoch: self.epoch(), note: Some(then), parts: &[], changes };
        at.append(&self.folder, &self.header, &mut log, &entry)?;
        Ok(())
    }

    /// Makes room in a shard for so many records that are about to come, if there is room. They are
    /// written faster where [`make_ready`](Self::make_ready) was before them.
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.expect(0, 50_000)?;
    /// let pieces = (0..).take_while(|piece| store.make_ready(0, *piece).unwrap());
    /// assert!(pieces.count() > 0);
    /// assert_eq!(store.records(0)?, 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard; what the disk says.
    pub fn expect(&self, shard: u32, records: u64) -> Result<()> {
        let at = self.shard_at(shard)?;
        let _no_writes = at.writer();
        let more = more_expected(records, at.table().len());
        at.table().writing()?.expect(more).map(drop)
    }

    /// Has one of the pieces of memory ready that expected records will be in, while others write;
    /// says whether there are further ones. Pieces begin with 0, and what was written already is
    /// passed over.
    ///
    /// Example: see [`expect`](Self::expect).
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn make_ready(&self, shard: u32, piece: usize) -> Result<bool> {
        Ok(self.shard_at(shard)?.table().make_ready(piece))
    }

    /// Shows up to `max` records of a shard from a slot on, and returns the slot to go on from, if
    /// there is one. Slots begin with 0.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let token = store.put(b"de", b"049", Memory)?;
    /// let next = store.scan(token.shard, 0, 10, |key, _| assert_eq!(key, b"de"))?;
    /// assert_eq!(next, None);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn scan(
        &self,
        shard: u32,
        slot: u32,
        max: usize,
        mut show: impl FnMut(&[u8], &[u8]),
    ) -> Result<Option<u32>> {
        let mut records = Vec::new();
        let (stride, next) = {
            let table = self.shard_at(shard)?.table();
            (table.record(), table.chunk(slot, max, &mut records)?.1)
        };
        for record in records.chunks_exact(stride) {
            let (key, value) = record[size_of::<u64>()..].split_at(self.lengths().0);
            show(key, value);
        }
        Ok(next)
    }

    /// How many records a shard has.
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// assert_eq!(store.records(0)?, 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn records(&self, shard: u32) -> Result<u64> {
        Ok(self.shard_at(shard)?.table().len())
    }

    /// Keeps, durably, records that the replica is about to lose because its leader does not have
    /// them. `from` is where the shard was. They are in the file `aside-SHARD-EPOCH-SEQUENCE` of
    /// the folder; [`Aside`](crate::Aside) reads them, and so does `mainstay store import`.
    ///
    /// ```
    /// use mainstay_store::{Options, Position, RawStore};
    /// let disk = mainstay_sim::Disk::new(7);
    /// let store = RawStore::create(disk.clone(), 2, 3, &Options::default())?;
    /// store.set_aside(0, Position::START, [(&b"de"[..], &b"049"[..])])?;
    /// assert!(disk.names().iter().any(|name| name == "aside-0000-0-0"));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    pub fn set_aside<'a>(
        &self,
        shard: u32,
        from: Position,
        records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<()> {
        let has_ends = self.has_ends();
        let records = records.into_iter().map(|(key, stored)| {
            let (end, value) = if has_ends { split_end(stored) } else { (None, stored) };
            (key, value, end.unwrap_or(0))
        });
        set_aside(&self.folder, shard, from, records)
    }

    /// Has `notify` called after each local write, by the thread that writes, until what is returned
    /// is dropped. Unlike [`on_commit`](Self::on_commit) it is called when others can write again,
    /// and is not told what was written: it wakes who reads the log, as who leads followers does.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let count = Arc::new(AtomicU32::new(0));
    /// let seen = Arc::clone(&count);
    /// let one = store.on_write(move || drop(seen.fetch_add(1, Relaxed)));
    /// let seen = Arc::clone(&count);
    /// let other = store.on_write(move || drop(seen.fetch_add(10, Relaxed)));
    /// store.put(b"de", b"049", Memory)?;
    /// assert_eq!(count.load(Relaxed), 11);
    /// drop(one);
    /// store.delete(b"de", Memory)?;
    /// assert_eq!(count.load(Relaxed), 21);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn on_write(&self, notify: impl Fn() + Send + Sync + 'static) -> Hook {
        self.notify.add(Arc::new(notify))
    }
}

/// For how many records there is room made, if so many are said to come and some are there.
fn more_expected(records: u64, there: u64) -> usize {
    records.min(EXPECTED_MAX).saturating_sub(there) as usize
}

#[cfg(test)]
mod tests;

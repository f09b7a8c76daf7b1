//! A store as it was at one moment, while writers go on.

use std::sync::Arc;

use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    kept::Kept,
    options::Token,
    range::Range,
    shard::{Guard, Log, Shard},
    span::Span,
    store::RawStore,
    table::SCAN_RECORDS,
};

/// A store, or a shard of it, as it was when this was made. Writers go on and wait for nothing:
/// whoever changes a record for the first time since then puts aside what it was. So a snapshot costs
/// memory for as many records as are changed while it is there, up to
/// [`Options::snapshot_bytes_max`](crate::Options::snapshot_bytes_max) a shard.
///
/// It ends when it is dropped. Compaction takes nothing from it, and is not held up by it.
///
/// Example: see [`RawStore::snapshot`].
pub struct Snapshot<'a, F: Folder> {
    store: &'a RawStore<F>,
    /// Of which shards, beginning with this one.
    first: u32,
    kept: Vec<Arc<Kept>>,
}

impl<F: Folder> RawStore<F> {
    /// The store as it is now: in it, batches are whole, also those across shards. Writers are held
    /// up for a moment.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let before = store.snapshot();
    /// store.put(b"de", b"+49", Memory)?;
    /// store.put(b"fr", b"033", Memory)?;
    /// assert_eq!(before.get(b"de")?, Some(b"049".to_vec()));
    /// assert_eq!(before.get(b"fr")?, None);
    /// assert_eq!(store.get(b"de")?, Some(b"+49".to_vec()));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<'_, F> {
        self.snapshot_of(0, &self.shards)
    }

    /// The same of one shard.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let before = store.snapshot_shard(store.shard(b"de")?)?;
    /// store.put(b"de", b"+49", Memory)?;
    /// assert_eq!(before.get(b"de")?, Some(b"049".to_vec()));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if there is no such shard.
    pub fn snapshot_shard(&self, shard: u32) -> Result<Snapshot<'_, F>> {
        Ok(self.snapshot_of(shard, std::slice::from_ref(self.shard_at(shard)?)))
    }

    fn snapshot_of(&self, first: u32, shards: &[Shard<F>]) -> Snapshot<'_, F> {
        self.snapshot_with(first, shards, |_| ()).0
    }

    /// The same, with what is to be known of each log at that moment.
    pub(crate) fn snapshot_with<T>(
        &self,
        first: u32,
        shards: &[Shard<F>],
        of: impl Fn(&Log<F::File>) -> T,
    ) -> (Snapshot<'_, F>, Vec<T>) {
        // In the order of the shards, as batches take them.
        let logs: Vec<_> = shards.iter().map(Shard::writer).collect();
        let begin = |(shard, log): (&Shard<F>, &Guard<'_, F>)| {
            shard.snapshots().begin(log.sequence, self.snapshot_bytes_max)
        };
        let kept = shards.iter().zip(&logs).map(begin).collect();
        let known = logs.iter().map(|log| of(log)).collect();
        (Snapshot { store: self, first, kept }, known)
    }
}

impl<F: Folder> Drop for Snapshot<'_, F> {
    fn drop(&mut self) {
        for (shard, kept) in self.shards().iter().zip(&self.kept) {
            shard.snapshots().end(kept);
        }
    }
}

impl<'a, F: Folder> Snapshot<'a, F> {
    /// Those it is of.
    fn shards(&self) -> &'a [Shard<F>] {
        let first = self.first as usize;
        &self.store.shards[first..first + self.kept.len()]
    }

    pub(crate) fn store(&self) -> &'a RawStore<F> {
        self.store
    }

    /// The shards, and what is kept of each.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'a Shard<F>, &Arc<Kept>)> {
        self.shards().iter().zip(&self.kept)
    }

    /// The last write of each of its shards that it sees.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let token = store.put(b"de", b"049", Memory)?;
    /// let snapshot = store.snapshot();
    /// store.put(b"de", b"+49", Memory)?;
    /// assert!(snapshot.tokens().any(|last| last == token));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = Token> {
        let of = self.shards().iter().zip(&self.kept);
        of.map(|(shard, kept)| self.store.token(shard, kept.sequence))
    }

    /// How many bytes of memory it takes: it grows with the records that are changed.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let snapshot = store.snapshot();
    /// assert_eq!(snapshot.kept_bytes(), 0);
    /// store.put(b"de", b"049", Memory)?;
    /// assert!(snapshot.kept_bytes() > 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.bytes()).sum()
    }

    /// Copies what the value of a key was into `value`, which has its length. False if the key was
    /// not there.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let (snapshot, mut value) = (store.snapshot(), [0; 3]);
    /// store.delete(b"de", Memory)?;
    /// assert!(snapshot.read_into(b"de", &mut value)?);
    /// assert_eq!(&value, b"049");
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SnapshotLost`] if more was changed than may be kept; [`Error::OutOfLimits`] if it is
    /// of another shard, and as [`RawStore::read_into`].
    pub fn read_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        let (_, shard) = self.store.check_key(key)?;
        let number = shard.number();
        let kept = number.checked_sub(self.first).and_then(|at| self.kept.get(at as usize));
        let Some(kept) = kept else {
            let (what, must) = ("the number of the key's shard", "one of the snapshot's");
            return Err(Error::OutOfLimits { what, value: number.into(), must });
        };
        // First what is there now, and then whether that has changed.
        let is_there = self.store.read_into(key, value)?;
        match kept.seen(number)?.find(key) {
            None => Ok(is_there),
            Some(old) => {
                let Some((_, old)) = &old.record else { return Ok(false) };
                value.copy_from_slice(old);
                Ok(true)
            }
        }
    }

    /// What the value of a key was.
    ///
    /// Example: see [`RawStore::snapshot`].
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.store.lengths().1];
        Ok(self.read_into(key, &mut value)?.then_some(value))
    }

    /// Shows every record that there was to a closure, once, in no order.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let snapshot = store.snapshot();
    /// store.delete(b"de", Memory)?;
    /// let mut count = 0;
    /// snapshot.for_each(|key, value| {
    ///     assert_eq!((key, value), (&b"de"[..], &b"049"[..]));
    ///     count += 1;
    /// })?;
    /// assert_eq!(count, 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        for (shard, kept) in self.parts() {
            self.for_each_of(shard, kept, &mut show)?;
        }
        Ok(())
    }

    /// A record that was there is in its slot until it is changed, and then in `kept`. So each part of
    /// the slots is read, and then it is noted how many had been changed by then: those are left out
    /// and shown at the end; the others have been seen.
    pub(crate) fn for_each_of(
        &self,
        shard: &Shard<F>,
        kept: &Kept,
        show: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let (table, key_len) = (shard.table(), self.store.lengths().0);
        let (mut records, mut slot) = (Vec::new(), Some(0));
        // Up to which slot, and how many had been changed.
        let mut read: Vec<(u32, usize)> = Vec::new();
        while let Some(from) = slot {
            records.clear();
            slot = table.chunk(from, SCAN_RECORDS, &mut records)?.1;
            let seen = kept.seen(shard.number())?;
            read.push((slot.unwrap_or(u32::MAX), seen.len()));
            let is_it = |record: &&[u8]| {
                let (sequence, rest) = record.split_at(size_of::<u64>());
                let mut made = [0; 8];
                made.copy_from_slice(sequence);
                u64::from_le_bytes(made) <= kept.sequence && seen.find(&rest[..key_len]).is_none()
            };
            let mut chosen = Vec::new();
            for record in records.chunks_exact(table.record()).filter(is_it) {
                chosen.extend_from_slice(&record[size_of::<u64>()..]);
            }
            // The closure may take its time, and write to the store.
            drop(seen);
            let len = table.record() - size_of::<u64>();
            for record in chosen.chunks_exact(len) {
                let (key, value) = record.split_at(key_len);
                show(key, value);
            }
        }
        let mut left = Vec::new();
        for (number, old) in kept.seen(shard.number())?.all().enumerate() {
            let Some((slot, value)) = &old.record else { continue };
            let part = read.partition_point(|(end, _)| end <= slot);
            if read.get(part).is_some_and(|(_, changed)| number < *changed) {
                left.push([&old.key[..], value].concat());
            }
        }
        for record in left {
            let (key, value) = record.split_at(key_len);
            show(key, value);
        }
        Ok(())
    }

    /// Records that there were, in the order of their keys; of a store that was opened with
    /// [`Options::ordered`](crate::Options::ordered).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore, Span};
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &options)?;
    /// store.put(b"de", b"049", Memory)?;
    /// store.put(b"fr", b"033", Memory)?;
    /// let snapshot = store.snapshot();
    /// store.delete(b"fr", Memory)?;
    /// store.put(b"dk", b"045", Memory)?;
    /// let last = snapshot.range(&Span::ALL)?.next_back().transpose()?;
    /// assert_eq!(last, Some((b"fr".to_vec(), b"033".to_vec())));
    /// assert_eq!(snapshot.range(&Span::ALL)?.count(), 2);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`].
    pub fn range(&self, span: &Span) -> Result<Range<'_, F>> {
        Range::of_snapshot(self, span)
    }
}

#[cfg(test)]
mod tests;

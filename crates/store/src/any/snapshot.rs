//! A store as it was at one moment, while writers and compaction go on.

use std::sync::Arc;

use mainstay_storage::Folder;

use super::{
    format::Place,
    kept::{Kept, Record},
    lines::between,
    range::RawLogRange,
    raw::RawLogStore,
    shard::Shard,
};
use crate::{
    error::Result,
    options::Token,
    span::{Ends, Span},
};

/// A store as it was when this was made. Writers go on and wait for nothing: whoever changes a key
/// for the first time since then notes where its record was. So a snapshot costs memory for the keys
/// that are changed while it is there, up to
/// [`LogOptions::snapshot_bytes_max`](crate::LogOptions::snapshot_bytes_max) a shard, and room on the
/// disk for the files that compaction removes meanwhile and it still needs.
///
/// It ends when it is dropped. What has a time to live ends in it, too.
///
/// Example: see [`RawLogStore::snapshot`].
pub struct LogSnapshot<'a, F: Folder> {
    store: &'a RawLogStore<F>,
    kept: Vec<Arc<Kept<F::File>>>,
}

impl<F: Folder> RawLogStore<F> {
    /// The store as it is now: in it, batches are whole. Writers are held up for a moment.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// let before = store.snapshot();
    /// store.put(b"de", b"Germany", Memory)?;
    /// store.put(b"fr", b"France", Memory)?;
    /// assert_eq!(before.get(b"de")?.as_deref(), Some(&b"Deutschland"[..]));
    /// assert_eq!(before.get(b"fr")?, None);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> LogSnapshot<'_, F> {
        // All of them, in the order of the shards, so that it is one moment.
        let logs: Vec<_> = self.shards.iter().map(Shard::writer).collect();
        let begin = |(shard, sequence): (&Shard<F>, u64)| {
            let kept = Arc::new(Kept::new(sequence, self.options.snapshot_bytes_max));
            shard.index_mut().snapshots.push(Arc::clone(&kept));
            kept
        };
        let sequences = logs.iter().map(|log| log.sequence);
        let kept = self.shards.iter().zip(sequences).map(begin).collect();
        LogSnapshot { store: self, kept }
    }
}

impl<F: Folder> Drop for LogSnapshot<'_, F> {
    fn drop(&mut self) {
        for (shard, kept) in self.store.shards.iter().zip(&self.kept) {
            shard.index_mut().snapshots.retain(|other| !Arc::ptr_eq(other, kept));
        }
    }
}

impl<'a, F: Folder> LogSnapshot<'a, F> {
    pub(super) fn store(&self) -> &'a RawLogStore<F> {
        self.store
    }

    /// The shards, and what is kept of each.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'a Shard<F>, &Kept<F::File>)> {
        self.store.shards.iter().zip(self.kept.iter().map(|kept| &**kept))
    }

    /// The last write of each shard that it sees.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let token = store.put(b"de", b"Deutschland", Memory)?;
    /// let snapshot = store.snapshot();
    /// store.put(b"de", b"Germany", Memory)?;
    /// assert!(snapshot.tokens().any(|last| last == token));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.parts().map(|(shard, kept)| self.store.token(shard, kept.sequence))
    }

    /// How many bytes are kept for it.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// let snapshot = store.snapshot();
    /// assert_eq!(snapshot.kept_bytes(), 0);
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// assert!(snapshot.kept_bytes() > 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.bytes()).sum()
    }

    /// The value that a key had.
    ///
    /// Example: see [`RawLogStore::snapshot`].
    ///
    /// # Errors
    /// [`Error::SnapshotLost`](crate::Error::SnapshotLost), and as [`RawLogStore::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>> {
        let shard = self.store.shard_of(key)?;
        let (kept, now) = (&self.kept[shard.number as usize], self.store.now());
        let record = {
            let index = shard.index();
            let old = kept
                .seen(shard.number)?
                .find(key)
                .map(|old| old.as_ref().map(|(place, file)| (*place, Arc::clone(file))));
            match old {
                Some(old) => old,
                None => shard.find(&index, key, now)?,
            }
        };
        let record = record.filter(|(place, _)| place.is_live(now));
        record.map(|record| shard.read_at(&self.store.cache, key, record)).transpose()
    }

    /// Shows every record that there was to a closure, in the order in which they are on the disk.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"49", Memory)?;
    /// let snapshot = store.snapshot();
    /// store.delete(b"de", Memory)?;
    /// snapshot.for_each(|key, value| assert_eq!((key, value), (&b"de"[..], &b"49"[..])))?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let now = self.store.now();
        for (shard, kept) in self.parts() {
            let (places, files) = {
                let (index, seen) = (shard.index(), kept.seen(shard.number)?);
                let mut files = index.files();
                let same = index.lines.iter().filter(|(key, _)| seen.find(key).is_none());
                let live = same.filter(|(_, place)| place.is_live(now));
                let mut places: Vec<_> =
                    live.map(|(key, place)| (place, key.len() as u32)).collect();
                for (key, old) in seen.old() {
                    if let Some((place, file)) = old
                        && place.is_live(now)
                    {
                        places.push((*place, key.len() as u32));
                        files.entry(place.segment).or_insert_with(|| Arc::clone(file));
                    }
                }
                (places, files)
            };
            shard.show(places, &files, &mut show)?;
        }
        Ok(())
    }

    /// Records in the order of their keys, of a store that was opened with
    /// [`LogOptions::ordered`](crate::LogOptions::ordered).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore, Span};
    /// let options = LogOptions { ordered: true, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &options)?;
    /// store.put(b"de", b"", Memory)?;
    /// let snapshot = store.snapshot();
    /// store.put(b"at", b"", Memory)?;
    /// let keys = snapshot.range(&Span::ALL)?.map(|record| record.unwrap().0);
    /// assert_eq!(keys.collect::<Vec<_>>(), [Box::from(&b"de"[..])]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`](crate::Error::NotOrdered).
    pub fn range(&self, span: &Span) -> Result<RawLogRange<'_, F>> {
        RawLogRange::of_snapshot(self, span)
    }
}

impl<F: Folder> Shard<F> {
    /// At most `max` keys between two, from the first on or from the last on: those there are, or
    /// those a snapshot sees.
    pub(super) fn keys(
        &self,
        kept: Option<&Kept<F::File>>,
        bounds: &Ends,
        backward: bool,
        (max, now): (usize, u64),
    ) -> Result<Vec<Box<[u8]>>> {
        let index = self.index();
        let Some(kept) = kept else {
            let found = index.lines.part(bounds, backward, max, |_, place| place.is_live(now));
            return found.ok_or(crate::Error::NotOrdered);
        };
        let seen = kept.seen(self.number)?;
        let same = |key: &[u8], place: &Place| place.is_live(now) && seen.find(key).is_none();
        let mut keys =
            index.lines.part(bounds, backward, max, same).ok_or(crate::Error::NotOrdered)?;
        let was_there =
            |old: &Option<Record<_>>| old.as_ref().is_some_and(|(at, _)| at.is_live(now));
        let old = between(seen.old(), bounds, backward).filter(|(_, old)| was_there(old));
        keys.extend(old.map(|(key, _)| key.clone()).take(max));
        // Either has the first of its own: so the first of both together are the first of all.
        keys.sort_unstable();
        if backward {
            keys.reverse();
        }
        keys.truncate(max);
        Ok(keys)
    }
}

#[cfg(test)]
mod tests;

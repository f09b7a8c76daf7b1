//! What records were when a snapshot of their shard was taken.
//!
//! Whoever is about to change a record puts what it is into all snapshots that do not have it yet,
//! under the lock of the log, before anything is changed. So whoever looks at the record first and
//! then finds nothing here has seen what it was when the snapshot was taken.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{
    error::{Error, Result},
    order::Key,
    shard::Change,
    table::{Writing, hash_of},
};

/// What is counted for a record that is kept, beside its key and value.
const ENTRY_BYTES: u64 = 128;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record as it was.
pub(crate) struct Old {
    pub(crate) key: Box<[u8]>,
    /// Where it was, and its value; none if there was no such key.
    pub(crate) record: Option<(u32, Box<[u8]>)>,
}

/// What one snapshot has of one shard.
pub(crate) struct Kept {
    /// Of the last write that it sees.
    pub(crate) sequence: u64,
    bytes_max: u64,
    changed: Mutex<Changed>,
}

#[derive(Default)]
struct Changed {
    /// In the order in which they were changed.
    old: Vec<Old>,
    by_key: BTreeMap<Key, usize>,
    bytes: u64,
    /// More was changed than may be kept.
    lost: bool,
}

/// The records of a snapshot that were changed since.
pub(crate) struct Seen<'a> {
    changed: MutexGuard<'a, Changed>,
}

impl Kept {
    /// # Errors
    /// [`Error::SnapshotLost`].
    pub(crate) fn seen(&self, shard: u32) -> Result<Seen<'_>> {
        let changed = lock(&self.changed);
        if changed.lost {
            return Err(Error::SnapshotLost { shard, max: self.bytes_max });
        }
        Ok(Seen { changed })
    }

    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.changed).bytes
    }

    fn keep(&self, writing: &Writing<'_>, key: &[u8]) -> Result<()> {
        let mut changed = lock(&self.changed);
        let place = Key::new(key);
        if changed.lost || changed.by_key.contains_key(&place) {
            return Ok(());
        }
        let record = writing.current(hash_of(key), key)?;
        let value = record.as_ref().map_or(0, |(_, value)| value.len());
        changed.bytes += ENTRY_BYTES + (key.len() + value) as u64;
        if changed.bytes > self.bytes_max {
            *changed = Changed { lost: true, ..Changed::default() };
            return Ok(());
        }
        let number = changed.old.len();
        changed.by_key.insert(place, number);
        changed.old.push(Old { key: key.into(), record });
        Ok(())
    }
}

impl Seen<'_> {
    /// How many there are by now.
    pub(crate) fn len(&self) -> usize {
        self.changed.old.len()
    }

    /// What a key was, if it was changed.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Old> {
        self.changed.by_key.get(&Key::new(key)).map(|number| &self.changed.old[*number])
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Old> {
        self.changed.old.iter()
    }

    /// The first key within bounds, or the last one.
    pub(crate) fn key(
        &self,
        (from, to): (Bound<&Key>, Bound<&Key>),
        backward: bool,
    ) -> Option<Key> {
        let by_key = &self.changed.by_key;
        // Each from one side only: the bounds may cross each other.
        let found = if backward {
            by_key.range::<Key, _>((Bound::Unbounded, to)).next_back()
        } else {
            by_key.range::<Key, _>((from, Bound::Unbounded)).next()
        };
        let (key, _) = found?;
        (from, to).contains(key).then(|| key.clone())
    }
}

/// The snapshots that there are of a shard.
#[derive(Default)]
pub(crate) struct Snapshots {
    all: Mutex<Vec<Arc<Kept>>>,
    /// How many, for who writes.
    count: AtomicUsize,
}

impl Snapshots {
    /// Begins one, while nobody writes.
    pub(crate) fn begin(&self, sequence: u64, bytes_max: u64) -> Arc<Kept> {
        let kept = Arc::new(Kept { sequence, bytes_max, changed: Mutex::default() });
        let mut all = lock(&self.all);
        all.push(Arc::clone(&kept));
        self.count.store(all.len(), Relaxed);
        kept
    }

    pub(crate) fn end(&self, kept: &Arc<Kept>) {
        let mut all = lock(&self.all);
        all.retain(|one| !Arc::ptr_eq(one, kept));
        self.count.store(all.len(), Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.all).is_empty() && self.count.load(Relaxed) == 0
    }

    /// Keeps what is about to be changed.
    #[inline]
    pub(crate) fn keep(&self, writing: &Writing<'_>, changes: &[Change<'_>]) -> Result<()> {
        // One that is begun meanwhile waits for the lock of the log.
        if self.count.load(Relaxed) == 0 {
            return Ok(());
        }
        for kept in lock(&self.all).iter() {
            changes.iter().try_for_each(|change| kept.keep(writing, change.key()))?;
        }
        Ok(())
    }
}

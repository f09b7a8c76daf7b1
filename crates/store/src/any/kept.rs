//! What keys were when a snapshot of their shard was taken.
//!
//! Whoever is about to change a key lets all snapshots that do not have it yet note where its record
//! is, with the file, under the lock of the index. So a file that is removed meanwhile stays
//! readable for as long as a snapshot needs it. A record that compaction moves is not changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use super::format::Place;
use crate::{
    error::{Error, Result},
    group::lock,
};

/// What is counted for a key that is kept, beside its bytes.
const ENTRY_BYTES: u64 = 128;

/// Where a record is, and in which file.
pub(crate) type Record<S> = (Place, Arc<S>);

/// What one snapshot has of one shard.
pub(crate) struct Kept<S> {
    /// Of the last write that it sees.
    pub(super) sequence: u64,
    bytes_max: u64,
    changed: Mutex<Changed<S>>,
}

/// Keys that were changed since, and where their records were; none if there was no such key.
struct Changed<S> {
    old: BTreeMap<Box<[u8]>, Option<Record<S>>>,
    bytes: u64,
    /// More was changed than may be kept.
    is_lost: bool,
}

/// The keys of a snapshot that were changed since.
pub(super) struct Seen<'a, S> {
    changed: MutexGuard<'a, Changed<S>>,
}

impl<S> Kept<S> {
    pub(super) fn new(sequence: u64, bytes_max: u64) -> Self {
        let changed = Changed { old: BTreeMap::new(), bytes: 0, is_lost: false };
        Self { sequence, bytes_max, changed: Mutex::new(changed) }
    }

    /// # Errors
    /// [`Error::SnapshotLost`].
    pub(super) fn seen(&self, shard: u32) -> Result<Seen<'_, S>> {
        let changed = lock(&self.changed);
        if changed.is_lost {
            return Err(Error::SnapshotLost { shard, max: self.bytes_max });
        }
        Ok(Seen { changed })
    }

    pub(super) fn bytes(&self) -> u64 {
        lock(&self.changed).bytes
    }

    /// Keeps what a key is, unless that is known; `find` says where it is, or nothing if that
    /// cannot be told.
    pub(super) fn keep(&self, key: &[u8], find: impl FnOnce() -> Option<Option<Record<S>>>) {
        let mut changed = lock(&self.changed);
        if changed.is_lost || changed.old.contains_key(key) {
            return;
        }
        changed.bytes += ENTRY_BYTES + key.len() as u64;
        match find().filter(|_| changed.bytes <= self.bytes_max) {
            Some(record) => drop(changed.old.insert(key.into(), record)),
            None => *changed = Changed { old: BTreeMap::new(), bytes: 0, is_lost: true },
        }
    }
}

impl<S> Seen<'_, S> {
    /// Where the record of a key was, if it was changed.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Option<Record<S>>> {
        self.changed.old.get(key)
    }

    pub(super) fn old(&self) -> &BTreeMap<Box<[u8]>, Option<Record<S>>> {
        &self.changed.old
    }
}

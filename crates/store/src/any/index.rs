//! Which record of the log is a key's newest, and how much of each segment is worth keeping.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::{HashTable, hash_table::Entry};

use super::format::{Place, record_bytes};
use crate::{format::DATA_AT, table::hash_of};

struct Line {
    key: Box<[u8]>,
    place: Place,
}

/// A segment of the log.
pub(crate) struct Segment<S> {
    pub(crate) file: Arc<S>,
    pub(crate) first: u64,
    /// Of its last frame; of the one in use, of none.
    pub(crate) last: u64,
    /// Where its frames end.
    pub(crate) end: u64,
    /// The checksum of its last frame.
    pub(crate) chain: u32,
    /// Bytes of records that are some key's newest.
    pub(crate) live: u64,
    /// Bytes of deletes that may hide older records.
    pub(crate) deletes: u64,
}

impl<S> Segment<S> {
    pub(crate) fn new(file: Arc<S>, first: u64) -> Self {
        Self { file, first, last: 0, end: DATA_AT, chain: 0, live: 0, deletes: 0 }
    }

    /// Bytes that a compaction would free.
    pub(crate) fn dead(&self, is_oldest: bool) -> u64 {
        let kept = self.live + if is_oldest { 0 } else { self.deletes };
        (self.end - DATA_AT).saturating_sub(kept)
    }
}

/// What readers look at.
pub(crate) struct Index<S> {
    lines: HashTable<Line>,
    pub(crate) key_bytes: u64,
    pub(crate) segments: BTreeMap<u64, Segment<S>>,
}

impl<S> Index<S> {
    pub(crate) fn new() -> Self {
        Self { lines: HashTable::new(), key_bytes: 0, segments: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Place> {
        self.lines.find(hash_of(key), |line| *line.key == *key).map(|line| line.place)
    }

    /// The newest records of all keys.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&[u8], Place)> {
        self.lines.iter().map(|line| (&*line.key, line.place))
    }

    fn let_go(&mut self, key: &[u8], place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live = segment.live.saturating_sub(record_bytes(key.len(), place.value_len));
        }
    }

    pub(crate) fn put(&mut self, key: &[u8], place: Place) {
        let rehash = |line: &Line| hash_of(&line.key);
        let old = match self.lines.entry(hash_of(key), |line| *line.key == *key, rehash) {
            Entry::Occupied(mut line) => Some(std::mem::replace(&mut line.get_mut().place, place)),
            Entry::Vacant(vacant) => {
                vacant.insert(Line { key: key.into(), place });
                self.key_bytes += key.len() as u64;
                None
            }
        };
        if let Some(old) = old {
            self.let_go(key, old);
        }
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live += record_bytes(key.len(), place.value_len);
        }
    }

    /// A delete that is in this segment.
    pub(crate) fn delete(&mut self, key: &[u8], segment: u64) {
        if let Ok(line) = self.lines.find_entry(hash_of(key), |line| *line.key == *key) {
            let (line, _) = line.remove();
            self.key_bytes -= key.len() as u64;
            self.let_go(key, line.place);
        }
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.deletes += record_bytes(key.len(), 0);
        }
    }
}

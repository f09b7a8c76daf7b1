//! Which record of the log is a key's newest, and how much of each segment is worth keeping.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    format::{Past, Place, record_bytes},
    kept::Kept,
    lines::Lines,
};
use crate::format::DATA_AT;

/// A segment of the log.
pub(crate) struct Segment<S> {
    pub(crate) file: Arc<S>,
    pub(crate) first: u64,
    /// Where the history is at its begin, if that is known.
    pub(crate) origin: Option<Past>,
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
    pub(crate) fn new(file: Arc<S>, first: u64, origin: Option<Past>) -> Self {
        Self { file, first, origin, last: 0, end: DATA_AT, chain: 0, live: 0, deletes: 0 }
    }

    /// Bytes that a compaction would free.
    pub(crate) fn dead(&self, is_oldest: bool) -> u64 {
        let kept = self.live + if is_oldest { 0 } else { self.deletes };
        (self.end - DATA_AT).saturating_sub(kept)
    }
}

/// What readers look at.
pub(crate) struct Index<S> {
    pub(crate) lines: Lines,
    pub(crate) key_bytes: u64,
    pub(crate) segments: BTreeMap<u64, Segment<S>>,
    /// Keys whose records end, by when.
    pub(crate) ends: BTreeSet<(u64, Box<[u8]>)>,
    /// What the snapshots there are keep of this shard.
    pub(crate) snapshots: Vec<Arc<Kept<S>>>,
}

impl<S> Index<S> {
    pub(crate) fn new(lines: Lines) -> Self {
        let (segments, ends) = (BTreeMap::new(), BTreeSet::new());
        Self { lines, key_bytes: 0, segments, ends, snapshots: Vec::new() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Place> {
        self.lines.find(key)
    }

    /// All files; whoever has them can still read a segment that is removed meanwhile.
    pub(crate) fn files(&self) -> BTreeMap<u64, Arc<S>> {
        let files = self.segments.iter();
        files.map(|(number, segment)| (*number, Arc::clone(&segment.file))).collect()
    }

    /// Lets the snapshots keep what a key is, before it becomes something else.
    pub(crate) fn keep(&self, key: &[u8]) {
        for kept in &self.snapshots {
            kept.keep(key, || {
                let Some(place) = self.find(key) else { return Some(None) };
                let segment = self.segments.get(&place.segment)?;
                Some(Some((place, Arc::clone(&segment.file))))
            });
        }
    }

    fn let_go(&mut self, key: &[u8], place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live = segment.live.saturating_sub(record_bytes(key.len(), place.value_len));
        }
        if place.end != 0 {
            self.ends.remove(&(place.end, key.into()));
        }
    }

    pub(crate) fn put(&mut self, key: &[u8], place: Place) {
        match self.lines.put(key, place) {
            Some(old) => self.let_go(key, old),
            None => self.key_bytes += key.len() as u64,
        }
        if place.end != 0 {
            self.ends.insert((place.end, key.into()));
        }
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live += record_bytes(key.len(), place.value_len);
        }
    }

    /// A delete that is in this segment.
    pub(crate) fn delete(&mut self, key: &[u8], segment: u64) {
        if let Some(place) = self.lines.remove(key) {
            self.key_bytes -= key.len() as u64;
            self.let_go(key, place);
        }
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.deletes += record_bytes(key.len(), 0);
        }
    }
}

//! The keys of a shard in their order, beside the index that finds them by their hash.
//!
//! It is in the memory of the process alone, and made from the records when a store is opened. The
//! one writer of a shard puts a key in after its record is there, and takes it out after that is
//! gone; readers need no lock, and look for the record of each key they come to.

use std::ops::Bound;

use crossbeam_skiplist::{SkipSet, set};

use crate::{error::Result, shard::Change, span::Span, table::Table};

/// Bytes of a key that are compared as one number.
const HEAD: usize = size_of::<u128>();
/// Records read at a time when the order is made.
const CHUNK_RECORDS: usize = 256;

/// A key as it is compared: all keys of a store have one length, so zeros change no order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    head: u128,
    tail: Box<[u8]>,
}

impl Key {
    pub(crate) fn new(key: &[u8]) -> Self {
        let (head, tail) = key.split_at(key.len().min(HEAD));
        let mut bytes = [0; HEAD];
        bytes[..head.len()].copy_from_slice(head);
        Self { head: u128::from_be_bytes(bytes), tail: tail.into() }
    }

    /// Copies it into `key`, which has its length.
    pub(crate) fn copy_to(&self, key: &mut [u8]) {
        let (head, tail) = key.split_at_mut(key.len().min(HEAD));
        head.copy_from_slice(&self.head.to_be_bytes()[..head.len()]);
        tail.copy_from_slice(&self.tail);
    }
}

pub(crate) type Bounds = (Bound<Key>, Bound<Key>);

/// Keys of a shard, one after another.
pub(crate) type Keys<'a> = set::Range<'a, Key, Bounds, Key>;

pub(crate) struct Order {
    keys: SkipSet<Key>,
}

impl Order {
    /// That of all records there are.
    pub(crate) fn of(table: &Table, key_len: usize) -> Result<Self> {
        let (mut found, mut records, mut slot) = (Vec::new(), Vec::new(), Some(0));
        while let Some(from) = slot {
            records.clear();
            slot = table.chunk(from, CHUNK_RECORDS, &mut records)?.1;
            let keys =
                records.chunks_exact(table.record()).map(|record| &record[size_of::<u64>()..]);
            found.extend(keys.map(|rest| Key::new(&rest[..key_len])));
        }
        // One after the other they go in several times faster.
        found.sort_unstable();
        let keys = SkipSet::new();
        for key in found {
            keys.insert(key);
        }
        Ok(Self { keys })
    }

    /// Follows a change that was made to the records, of which there were `before` and are `after`.
    #[inline]
    pub(crate) fn follow(&self, change: &Change<'_>, (before, after): (u64, u64)) {
        match change {
            Change::Put(key, _) if after > before => {
                self.keys.insert(Key::new(key));
            }
            Change::Delete(key) if after < before => {
                self.keys.remove(&Key::new(key));
            }
            // The key stays as it was.
            Change::Put(..) | Change::Delete(_) => {}
        }
    }

    /// The ends of a span among keys of one length.
    pub(crate) fn bounds(span: &Span, key_len: usize) -> Bounds {
        let (from, to) = span.bounds(key_len);
        let made = |bound: Bound<Vec<u8>>| bound.map(|key| Key::new(&key));
        (made(from), made(to))
    }

    pub(crate) fn keys(&self, bounds: Bounds) -> Keys<'_> {
        self.keys.range(bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_are_compared_as_their_bytes_and_come_back_as_they_were() {
        for len in [1, 3, 15, 16, 17, 40, 256] {
            let mut keys: Vec<Vec<u8>> = (0..60_usize)
                .map(|number| (0..len).map(|at| (number * 37 + at * number) as u8 % 3).collect())
                .collect();
            let mut made: Vec<Key> = keys.iter().map(|key| Key::new(key)).collect();
            keys.sort_unstable();
            made.sort_unstable();
            let back = made.iter().map(|key| {
                let mut bytes = vec![9; len];
                key.copy_to(&mut bytes);
                bytes
            });
            assert!(back.eq(keys), "{len}");
        }
    }
}
